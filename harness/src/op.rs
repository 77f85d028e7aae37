//! Defines one operation: its request and its outcome.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Number of a client within one execution, from 1.
pub type ClientId = u32;

/// Nanoseconds since the execution began.
pub type Nanos = u64;

/// An operation requested of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Prepare an empty store.
    Init,
    /// Add the record of this name.
    Add {
        /// The record's name.
        record: String,
        /// The record's number.
        number: u32,
    },
    /// Add the record of this name, with the limit.
    AddGuarded {
        /// The record's name.
        record: String,
        /// The record's number.
        number: u32,
    },
    /// List the records.
    List,
    /// Clean up after a kill.
    Recover,
    /// Rebuild the derived files.
    Rebuild,
    /// An operation of `[ops.other]`, by its name.
    Other(String),
}

/// Status of a session's request that ended without an answer.
pub const NO_ANSWER: &str = "no answer";

/// Status of a session's request that was cancelled on request.
pub const CANCELLED: &str = "cancelled";

impl Request {
    /// Whether both are the same operation, with any record.
    pub fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Other(one), Self::Other(other)) => one == other,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Init => out.write_str("init"),
            Self::Add { record, .. } => write!(out, "add {record}"),
            Self::AddGuarded { record, .. } => write!(out, "guarded add {record}"),
            Self::List => out.write_str("list"),
            Self::Recover => out.write_str("recover"),
            Self::Rebuild => out.write_str("rebuild"),
            Self::Other(name) => out.write_str(name),
        }
    }
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It exited 0: the record is in the store.
    Acknowledged,
    /// Definitely refused: nothing was changed.
    Refused,
    /// The lock was not available: nothing was changed.
    Busy,
    /// Any other end, such as `exit 1` or `signal 11`: the record may be in the store or not.
    Failed(String),
    /// The plan killed it: the record may be in the store or not.
    Killed,
    /// It exceeded a limit and was killed for that: the record may be in the store or not.
    Unfinished(Limit),
    /// It was blocked forever and was killed for that: the record may be in the store or not.
    Stuck,
}

/// A resource limit of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// Wall clock.
    Timeout,
    /// Bytes on standard output and standard error together.
    Output,
    /// The size of any file.
    File,
    /// Processes alive at once.
    Processes,
}

impl fmt::Display for Limit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Timeout => "timeout",
            Self::Output => "output",
            Self::File => "file",
            Self::Processes => "processes",
        })
    }
}

/// One operation of one client, as observed from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// The client.
    pub client: ClientId,
    /// The requested operation.
    pub request: Request,
    /// When its process was started.
    pub invoked: Nanos,
    /// When its process was observed to have ended.
    pub returned: Nanos,
    /// Since when it made no progress, if it was held and then killed there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub still: Option<Nanos>,
    /// How it ended.
    pub outcome: Outcome,
    /// Id of the fault injected into it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// The end of its standard error, made printable; of its standard output, if it failed and standard error is empty.
    pub stderr: String,
    /// The records that a `list` reported, if it reported any.
    pub records: Option<Vec<String>>,
}

impl Operation {
    /// Returns the record that an `add` was to add.
    pub fn added(&self) -> Option<&str> {
        match &self.request {
            Request::Add { record, .. } | Request::AddGuarded { record, .. } => Some(record),
            _ => None,
        }
    }

    /// Whether picklock killed it, so that its effect is indeterminate and the store was interrupted.
    pub fn was_killed(&self) -> bool {
        matches!(self.outcome, Outcome::Killed | Outcome::Unfinished(_) | Outcome::Stuck)
    }

    /// Whether it ended, or could not end, without an answer to its request; of picklock's limits, only the time-out
    /// counts.
    pub fn tells_nothing(&self) -> bool {
        match &self.outcome {
            Outcome::Failed(_) | Outcome::Busy | Outcome::Refused | Outcome::Stuck => true,
            Outcome::Unfinished(limit) => *limit == Limit::Timeout,
            Outcome::Acknowledged | Outcome::Killed => false,
        }
    }

    /// Returns the status with which it failed by itself, neither cancelled nor without an answer.
    pub fn own_failure(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Failed(status) if status != CANCELLED && status != NO_ANSWER => Some(status),
            _ => None,
        }
    }

    /// Whether a fault prevented its acknowledgement.
    pub fn was_failed(&self) -> bool {
        self.fault.is_some() && self.outcome != Outcome::Acknowledged
    }

    /// Whether it is known to have changed nothing.
    pub fn changed_nothing(&self) -> bool {
        matches!(self.outcome, Outcome::Refused | Outcome::Busy)
    }

    /// Whether both were running at the same time.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.invoked < other.returned && other.invoked < self.returned
    }

    /// Returns the time of its last step.
    pub fn last_step(&self) -> Nanos {
        self.still.unwrap_or(self.returned)
    }

    /// Whether it never ended by itself.
    pub fn hung(&self) -> bool {
        matches!(self.outcome, Outcome::Unfinished(Limit::Timeout) | Outcome::Stuck)
    }
}

/// Returns the name of record `number`: all names of a run have one length, so that none is part of another.
pub fn record_name(number: u32) -> String {
    format!("r{number:06}")
}

/// Returns the positions of record names in a text.
pub fn record_names_in(text: &str) -> impl Iterator<Item = Range<usize>> {
    const DIGITS: usize = 6;
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.match_indices('r').filter_map(move |(at, _)| {
        let digits = text[at + 1..].bytes().take_while(u8::is_ascii_digit).count();
        let end = at + 1 + digits;
        let is_alone = !is_part(text[..at].chars().next_back()) && !is_part(text[end..].chars().next());
        // Names with more digits than the padding do not begin with 0.
        let is_one = digits == DIGITS || digits > DIGITS && !text[at + 1..].starts_with('0');
        (is_alone && is_one).then_some(at..end)
    })
}

/// Returns a hash that never changes for the same content, which the standard library's hasher does not promise:
/// FNV-1a, 64 bits.
pub fn stable_hash(content: impl AsRef<[u8]>) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    content.as_ref().iter().fold(0xcbf2_9ce4_8422_2325, step)
}

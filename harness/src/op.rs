//! Defines one operation: its request and its outcome.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// A client's number within one execution, from 1.
pub type ClientId = u32;

/// Nanoseconds since the execution began.
pub type Nanos = u64;

/// What is asked of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Prepare an empty store.
    Init,
    /// Put in the record of this name.
    Add {
        /// The record's name.
        record: String,
        /// The record's number.
        number: u32,
    },
    /// Put in the record of this name, in the form that has the limit.
    AddGuarded {
        /// The record's name.
        record: String,
        /// The record's number.
        number: u32,
    },
    /// Tell the records.
    List,
    /// Clean up after a kill.
    Recover,
    /// Make the derived files anew.
    Rebuild,
    /// An operation of `[ops.other]`, by its name.
    Other(String),
}

/// How a request of a session ended that ended without an answer to it.
pub const NO_ANSWER: &str = "no answer";

/// How a request of a session ended that was given up as it was asked to be.
pub const CANCELLED: &str = "cancelled";

impl Request {
    /// Whether both are the same operation, with whatever record.
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
    /// It exited 0: the record is in.
    Acknowledged,
    /// A definite no: nothing was changed.
    Refused,
    /// The lock was not to be had: nothing was changed.
    Busy,
    /// Any other end, such as `exit 1` or `signal 11`: the record may be there or not.
    Failed(String),
    /// The plan killed it: the record may be there or not.
    Killed,
    /// It ran past a limit and was killed for that: the record may be there or not.
    Unfinished(Limit),
    /// It was seen that it could never go on, and killed for that: the record may be there or not.
    Stuck,
}

/// What an operation may not use more of.
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

/// One operation of one client, as it was seen from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Who asked.
    pub client: ClientId,
    /// What was asked.
    pub request: Request,
    /// When its process was started.
    pub invoked: Nanos,
    /// When its process was seen to have ended.
    pub returned: Nanos,
    /// Since when it did nothing more, where it was held and then killed there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub still: Option<Nanos>,
    /// How it ended.
    pub outcome: Outcome,
    /// The fault that it suffered, by its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// The end of what it wrote to standard error, made printable; where it failed without a word there, to standard output.
    pub stderr: String,
    /// What a `list` told, where it told anything.
    pub records: Option<Vec<String>>,
}

impl Operation {
    /// The record that an `add` was to put in.
    pub fn added(&self) -> Option<&str> {
        match &self.request {
            Request::Add { record, .. } | Request::AddGuarded { record, .. } => Some(record),
            _ => None,
        }
    }

    /// Whether it ended by a kill of ours, so that what it did is indeterminate and the store was interrupted.
    pub fn was_killed(&self) -> bool {
        matches!(self.outcome, Outcome::Killed | Outcome::Unfinished(_) | Outcome::Stuck)
    }

    /// Whether it ended, or could not, without an answer to what it was asked, and for no limit that picklock set.
    pub fn tells_nothing(&self) -> bool {
        match &self.outcome {
            Outcome::Failed(_) | Outcome::Busy | Outcome::Refused | Outcome::Stuck => true,
            Outcome::Unfinished(limit) => *limit == Limit::Timeout,
            Outcome::Acknowledged | Outcome::Killed => false,
        }
    }

    /// The status with which it failed of its own, because it was neither cancelled nor without an answer.
    pub fn own_failure(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Failed(status) if status != CANCELLED && status != NO_ANSWER => Some(status),
            _ => None,
        }
    }

    /// Whether a fault kept it from being acknowledged.
    pub fn was_failed(&self) -> bool {
        self.fault.is_some() && self.outcome != Outcome::Acknowledged
    }

    /// Whether it is known to have changed nothing.
    pub fn changed_nothing(&self) -> bool {
        matches!(self.outcome, Outcome::Refused | Outcome::Busy)
    }

    /// Whether both were under way at one moment.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.invoked < other.returned && other.invoked < self.returned
    }

    /// When it did its last step.
    pub fn last_step(&self) -> Nanos {
        self.still.unwrap_or(self.returned)
    }

    /// Whether it never came to an end of its own.
    pub fn hung(&self) -> bool {
        matches!(self.outcome, Outcome::Unfinished(Limit::Timeout) | Outcome::Stuck)
    }
}

/// The name of record `number`: all names of a run are of one length, so that none is part of another.
pub fn record_name(number: u32) -> String {
    format!("r{number:06}")
}

/// Where names of records stand in a text.
pub fn record_names_in(text: &str) -> impl Iterator<Item = Range<usize>> {
    const DIGITS: usize = 6;
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.match_indices('r').filter_map(move |(at, _)| {
        let digits = text[at + 1..].bytes().take_while(u8::is_ascii_digit).count();
        let end = at + 1 + digits;
        let is_alone = !is_part(text[..at].chars().next_back()) && !is_part(text[end..].chars().next());
        // More digits than are padded to begin with none.
        let is_one = digits == DIGITS || digits > DIGITS && !text[at + 1..].starts_with('0');
        (is_alone && is_one).then_some(at..end)
    })
}

/// A number that is the same for the same content for ever, which the standard library's hasher does not promise: FNV-1a,
/// 64 bits.
pub fn stable_hash(content: impl AsRef<[u8]>) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    content.as_ref().iter().fold(0xcbf2_9ce4_8422_2325, step)
}

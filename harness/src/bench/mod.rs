//! `bench`: how many acquisitions or updates a second, and at whose cost: every throughput stands beside fairness, the longest
//! wait, and what a flush to the disk takes in the same run.
//!
//! | file | what |
//! | --- | --- |
//! | [`locks`] | lock primitives, taken by processes one after another |
//! | [`updates`] | what a store does in a second, one-shot or in a session, beside another store's |
//! | [`figures`] | medians, spreads, Jain's index |
//! | [`requirement`] | `--require 'p99<50ms'` |
//! | [`table`], [`page`] | for people, and with plots |

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::report::Tool;

pub mod figures;
pub mod flush;
pub mod locks;
pub mod page;
pub mod place;
pub mod requirement;
pub mod table;
pub mod updates;

pub use figures::{Figure, Latency};

/// The number of the JSON schema; fields may be added under it, none changes or goes.
pub const SCHEMA: u32 = 1;

/// The subject of what was measured of lock primitives.
pub const LOCKS: &str = "locks";

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Measure {
    /// How many clients at once, one after another.
    pub clients: Vec<u32>,
    /// For how long a lock is held.
    pub holds: Vec<Duration>,
    /// How often each figure is measured; the median counts.
    pub runs: u32,
    /// For how long.
    pub time: Duration,
}

impl Default for Measure {
    fn default() -> Self {
        Self {
            clients: vec![1, 2, 4, 8],
            holds: vec![Duration::ZERO, Duration::from_millis(1)],
            runs: 3,
            time: Duration::from_millis(250),
        }
    }
}

/// Everything that was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What made it.
    pub tool: Tool,
    /// What was measured: `locks`, or the name of a store.
    pub subject: String,
    /// The folder's file system, and the machine.
    pub place: Place,
    /// One line of the table each.
    pub rows: Vec<Row>,
    /// How the cost of an update grows with the records that there are.
    pub growth: Vec<Growth>,
    /// Beside another store.
    pub comparison: Vec<Comparison>,
    /// What was asked and is not so.
    pub unmet: Vec<String>,
    /// Whether somebody ended it early.
    pub interrupted: bool,
    /// 0; 1 where something asked for is not so, or a lock did not exclude, or an update was lost.
    pub exit: u8,
}

/// Where it was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// The kind of file system, such as `tmpfs`.
    pub file_system: String,
    /// How many processors there are.
    pub processors: usize,
    /// How busy the machine was before: its load over the last minute.
    pub load: f64,
    /// How long a write of 4 KiB and its flush take there, in nanoseconds: no update that is flushed takes less.
    pub flush_ns: u64,
}

/// One thing that was measured with so many clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The lock, or the store and how it was driven.
    pub name: String,
    /// Clients at once.
    pub clients: u32,
    /// For how long the lock was held, in nanoseconds.
    pub hold_ns: u64,
    /// Acquisitions or updates a second.
    pub rate: Figure,
    /// How long a client waited for each: for a store, how long the update took.
    pub wait: Latency,
    /// From one client giving the lock up to another having it, in nanoseconds: the median.
    pub handover_ns: Option<u64>,
    /// Jain's index of fairness: 1 where all were served alike, 1/clients where one had it all.
    pub jain: f64,
    /// The share of the client that was served least, and of the one served most.
    pub shares: (f64, f64),
    /// How often two were inside at once, or how many updates were lost.
    pub violations: u64,
    /// Operations that did not succeed.
    pub failed: u64,
    /// The rate as a share of what flushing alone would allow.
    pub of_flushes: f64,
}

/// What an update costs with few records and with many.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Growth {
    /// The store and how it was driven.
    pub name: String,
    /// So many records were there, on average.
    pub records: u64,
    /// An update took so long then, in nanoseconds: the median.
    pub update_ns: u64,
}

/// A store beside another one, run alternately.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The other one.
    pub other: String,
    /// Clients at once.
    pub clients: u32,
    /// How many times as fast the first one is.
    pub ratio: Figure,
}

impl Measured {
    /// The figures that were too far apart from run to run to tell anything.
    pub fn noisy(&self) -> usize {
        self.rows.iter().filter(|row| row.rate.is_noisy()).count()
    }

    /// As JSON, with a line feed at its end.
    pub fn to_json(&self) -> String {
        // Strings, numbers, lists: nothing in here can fail to be JSON.
        let mut json = serde_json::to_string_pretty(self).unwrap_or_default();
        json.push('\n');
        json
    }
}

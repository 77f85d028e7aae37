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

/// Version of the JSON schema; fields may be added to a version, but none changes or is removed.
pub const SCHEMA: u32 = 1;

/// Subject of measurements of lock primitives.
pub const LOCKS: &str = "locks";

/// Extent of a measurement.
#[derive(Clone, Debug)]
pub struct Measure {
    /// Numbers of concurrent clients, measured one after another.
    pub clients: Vec<u32>,
    /// Times for which a lock is held.
    pub holds: Vec<Duration>,
    /// Number of measurements of each figure; the median counts.
    pub runs: u32,
    /// Duration of each measurement.
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
    /// The tool that measured it.
    pub tool: Tool,
    /// Subject of the measurement: `locks`, or the name of a store.
    pub subject: String,
    /// The folder's file system, and the machine.
    pub place: Place,
    /// Lines of the table.
    pub rows: Vec<Row>,
    /// Growth of the cost of an update with the number of records.
    pub growth: Vec<Growth>,
    /// Comparisons with another store.
    pub comparison: Vec<Comparison>,
    /// Requirements that are not met.
    pub unmet: Vec<String>,
    /// Whether the run was interrupted.
    pub interrupted: bool,
    /// Exit status: 0; 1 if a requirement is not met, a lock did not exclude, or an update was lost.
    pub exit: u8,
}

/// Environment of a measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// The kind of file system, such as `tmpfs`.
    pub file_system: String,
    /// Number of processors.
    pub processors: usize,
    /// Load average of the machine over the last minute before the measurement.
    pub load: f64,
    /// Time of a write of 4 KiB and its flush there, in nanoseconds: no flushed update takes less.
    pub flush_ns: u64,
}

/// Figures of one lock or store with one number of clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The lock, or the store and how it was driven.
    pub name: String,
    /// Number of concurrent clients.
    pub clients: u32,
    /// Time for which the lock was held, in nanoseconds.
    pub hold_ns: u64,
    /// Acquisitions or updates per second.
    pub rate: Figure,
    /// Time that a client waited for each; for a store, the time of the update.
    pub wait: Latency,
    /// Median time from one client releasing the lock to another acquiring it, in nanoseconds.
    pub handover_ns: Option<u64>,
    /// Jain's index of fairness: 1 if all were served alike, 1/clients if one had it all.
    pub jain: f64,
    /// Shares of the client that was served least, and of the one served most.
    pub shares: (f64, f64),
    /// Number of times two clients were inside at once, or of lost updates.
    pub violations: u64,
    /// Number of operations that did not succeed.
    pub failed: u64,
    /// Rate as a share of the rate that flushing alone would allow.
    pub of_flushes: f64,
}

/// Cost of an update with a given number of records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Growth {
    /// The store and how it was driven.
    pub name: String,
    /// Average number of records.
    pub records: u64,
    /// Median time of an update, in nanoseconds.
    pub update_ns: u64,
}

/// Comparison of a store with another one, run alternately.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The other store.
    pub other: String,
    /// Number of concurrent clients.
    pub clients: u32,
    /// Speed of the first store as a multiple of the other's.
    pub ratio: Figure,
}

impl Measured {
    /// Counts the figures whose runs are too far apart to be meaningful.
    pub fn noisy(&self) -> usize {
        self.rows.iter().filter(|row| row.rate.is_noisy()).count()
    }

    /// Serializes to JSON with a trailing line feed.
    pub fn to_json(&self) -> String {
        // Strings, numbers and lists can always be serialized.
        let mut json = serde_json::to_string_pretty(self).unwrap_or_default();
        json.push('\n');
        json
    }
}

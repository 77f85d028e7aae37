//! Stores state that several processes share in one file: locked, atomic, crash-safe.
//!
//! # What is promised, and which invariant of `picklock` proves it
//!
//! | promise | against which failure | proved by |
//! | --- | --- | --- |
//! | an update sees every earlier update | two writers at once | `no-lost-update`, `mutual-exclusion` |
//! | a reader without a lock sees whole data | a reader beside a writer | `no-torn-read` |
//! | an update happens wholly or not at all | `kill -9` in the middle of it, a full disk | `crash-atomic`, `valid-data` |
//! | an update that returned stays | `kill -9` of anybody at any time | `acked-survives-crash` |
//! | an update that returned stays, one that did not happened wholly or not at all | a power loss | `acked-survives-power-loss`, `power-loss-atomic` |
//! | an update that could not happen says so, and harms nothing | a call that fails: a full disk, a failed sync, no lock to be had | `honest-failure`, `failed-write-keeps-old` |
//! | the next update succeeds with no hand to clean up | leftovers of a killed writer | `recovers-after-crash`, `no-residue` |
//! | two handles on one path in one process take turns, a thread never waits for itself | a second descriptor | `no-deadlock`, `no-self-deadlock` |
//! | no lock outlives who took it | a child that lives on | `no-leaked-lock` |
//! | what a process believes is what the file holds | a request that is cancelled | `memory-matches-file` |
//! | derived files heal, and never change what they come from | damage, a rebuild that is killed | `derived-heals` |
//! | a rule is checked on the data that it protects | two who both see room for one | the tests of [`ledger`] and [`trades`] |
//!
//! [`TornWhileWritten`] does not promise the second line: that is its name.
//!
//! # What there is
//!
//! * [`FileLock`] locks a file *beside* the data: the data file itself is replaced by every update, so a lock on
//!   it would be a lock on a file that is no longer there.
//! * [`replace`] writes a temporary file in the same folder, syncs it, renames it over the data and syncs the
//!   folder. It wants the [`Guard`] of the lock as proof that nobody else does the same.
//! * [`Document`] reads, and updates by a closure that runs under the lock. Threads that update at the same time share
//!   one lock and one write.
//! * [`Journal`] appends records, one JSON line each, and syncs after it has unlocked, so that all writers share the
//!   syncs of the disk.
//! * Made of these: a position [`ledger`], a trade log with its reconciler ([`trades`]), a [`SavedSession`], a
//!   conversation's [`context`], asynchronous with the feature `tokio`, and [`Shards`] that are merged.
//! * With the feature `command` (on by default) all of it is a program too, `picklock-store`.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! use picklock_store::Document;
//!
//! let counters: Document<std::collections::BTreeMap<String, u64>> =
//!     Document::open(folder.path().join("counters.json"))?;
//! counters.update(|all| *all.entry("visits".into()).or_default() += 1)?;
//! assert_eq!(counters.read()?["visits"], 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Limits
//!
//! * A writer that takes no lock, or locks another file, is not kept out: every writer must come through here.
//! * `flock` on a network file system is only as good as that file system; nothing is promised there.
//! * A hard link to the data file keeps the old content after an update, and two hard-linked names of one data
//!   file have two locks. Symbolic links are followed and kept. Extended attributes and ACLs are not carried over.
//! * An update of a document costs what serialising and writing the whole of it costs, and a copy of it in memory; a
//!   [`Journal`] costs the same however long it is.
//! * Of what several writers appended to a journal and nobody synced, a power loss may take a page and leave a later one.
//!   Records behind the gap were never durable; but what is no line is not told from a damaged disk, so the journal is
//!   [`ErrorKind::Corrupt`] then, and nothing is cut.
//! * What follows the last line feed of a journal is taken for what a kill left, and the next append cuts it off: a file that
//!   somebody else wrote without one at its end loses its last line.
//! * A rewrite that is killed may leave files of before (`NAME.1` …) that nothing names any more; they are in nobody's way,
//!   and stay.
//! * After a `fork` without an `exec` parent and child share the lock that is held, and do not keep each other out.
//! * A rotation of a journal makes a second name of its file, so the file system must know hard links.
#![cfg(unix)]

mod amount;
#[cfg(feature = "command")]
pub mod command;
pub mod context;
mod disk;
mod document;
mod error;
mod group;
mod journal;
pub mod ledger;
mod lock;
mod queue;
mod replace;
mod saved;
mod shards;
mod sync;
#[cfg(test)]
mod tests;
pub mod trades;

pub use amount::{Amount, NoAmount};
pub use document::Document;
pub use error::{Error, ErrorKind};
pub use journal::Journal;
pub use lock::{FileLock, Guard};
pub use replace::replace;
pub use saved::{SavedSession, TornWhileWritten};
pub use shards::{Merged, ShardWriter, Shards};

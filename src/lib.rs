//! A store for state that several processes share in one file: locked, atomic, crash-safe.
//!
//! # What is promised, and which invariant of `picklock` proves it
//!
//! | promise | against which failure | proved by |
//! | --- | --- | --- |
//! | an update sees every earlier update | two writers at once | `no-lost-update` |
//! | a reader without a lock sees a whole document | a reader beside a writer | `no-torn-read` |
//! | an update happens wholly or not at all | `kill -9` in the middle of it | `crash-atomic`, `valid-data` |
//! | an update that returned stays | `kill -9` of anybody at any time | `acked-survives-crash` |
//! | the next update succeeds with no hand to clean up | leftovers of a killed writer | `recovers-after-crash`, `no-residue` |
//! | two handles on one path in one process take turns, a thread never waits for itself | a second descriptor | `no-deadlock` |
//!
//! # How
//!
//! * [`FileLock`] locks a file *beside* the data: the data file itself is replaced by every update, so a lock on
//!   it would be a lock on a file that is no longer there.
//! * [`replace`] writes a temporary file in the same folder, syncs it, renames it over the data and syncs the
//!   folder. It wants the [`Guard`] of the lock as proof that nobody else does the same.
//! * [`Document`] reads, and updates by a closure that runs under the lock.
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
//! * One update costs the whole document: reading, serialising and writing grow with its size.
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

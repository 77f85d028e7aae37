//! Stores state that several processes share in one file: locked, atomic, crash-safe.
//!
//! # Guarantees, and the invariants of `picklock` that prove them
//!
//! | guarantee | failure it covers | proved by |
//! | --- | --- | --- |
//! | an update sees every earlier update | two concurrent writers | `no-lost-update`, `mutual-exclusion` |
//! | a reader without a lock sees complete data | a reader concurrent with a writer | `no-torn-read` |
//! | an update happens completely or not at all | `kill -9` during it, a full disk | `crash-atomic`, `valid-data` |
//! | an acknowledged update is kept | `kill -9` of any process at any time | `acked-survives-crash` |
//! | an acknowledged update is kept, any other happens completely or not at all | a power loss | `acked-survives-power-loss`, `power-loss-atomic` |
//! | a failed update reports an error, and damages nothing | a failing call: a full disk, a failed sync, an unavailable lock | `honest-failure`, `failed-write-keeps-old` |
//! | the next update succeeds without manual clean-up | leftovers of a killed writer | `recovers-after-crash`, `no-residue` |
//! | two handles on one path in one process take turns, a thread never waits for itself | a second descriptor | `no-deadlock`, `no-self-deadlock` |
//! | no lock outlives its holder | a child process that lives on | `no-leaked-lock` |
//! | the memory of a process matches the file | a cancelled request | `memory-matches-file` |
//! | derived files are repaired, and never change their source | damage, a killed rebuild | `derived-heals` |
//! | a rule is checked on the data that it protects | two writers that both see room for one | the tests of [`ledger`] and [`trades`] |
//!
//! [`TornWhileWritten`] does not give the second guarantee, hence its name.
//!
//! # Contents
//!
//! * [`FileLock`] locks a file *beside* the data: the data file itself is replaced by every update, so a lock on it
//!   would be a lock on a file that no longer exists.
//! * [`replace`] writes a temporary file in the same folder, syncs it, renames it over the data and syncs the folder.
//!   It requires the [`Guard`] of the lock as proof that no other writer does the same.
//! * [`Document`] reads, and updates with a closure that runs under the lock. Threads that update at the same time
//!   share one lock and one write.
//! * [`Journal`] appends records, one JSON line each, and syncs after it has unlocked, so that all writers share the
//!   syncs of the disk.
//! * Built on these: a position [`ledger`], a trade log with its reconciler ([`trades`]), a [`SavedSession`], a
//!   conversation's [`context`], asynchronous with the feature `tokio`, and [`Shards`] that are merged.
//! * With the feature `command` (on by default), all of it is also available as a program, `picklock-store`.
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
//! * A writer that takes no lock, or locks another file, is not excluded: every writer must use this crate.
//! * `flock` on a network file system is only as good as that file system; nothing is guaranteed there.
//! * A hard link to the data file keeps the old content after an update, and two hard-linked names of one data
//!   file have two locks. Symbolic links are followed and kept. Extended attributes and ACLs are not carried over.
//! * An update of a document costs as much as serialising and writing the whole of it, and a copy of it in memory; the
//!   cost of a [`Journal`] does not depend on its length.
//! * If several writers appended to a journal and none synced, a power loss may take a page and leave a later one.
//!   Records behind the gap were never durable; but an invalid line cannot be distinguished from a damaged disk, so the
//!   journal is [`ErrorKind::Corrupt`] then, and nothing is cut off.
//! * Whatever follows the last line feed of a journal is taken for the remains of a kill, and the next append cuts it
//!   off: a file that another program wrote without a final line feed loses its last line.
//! * A killed rewrite may leave earlier files (`NAME.1` …) that nothing refers to any more; they do no harm, and stay.
//! * After a `fork` without an `exec`, parent and child share the held lock, and do not exclude each other.
//! * A rotation of a journal creates a second name of its file, so the file system must support hard links.
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

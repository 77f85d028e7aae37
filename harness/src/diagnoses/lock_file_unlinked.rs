//! The lock file is removed while others may wait for it.
//!
//! Read off a baseline run: a file is unlinked on which the operation took a lock, and it did not look after it had the lock
//! whether the name was still that of its file. A waiter then has the lock of a file without a name, and the next one
//! makes a new file.
//!
//! Example: flock(3), …, unlink(store.lock): who waits gets the lock on a file without a name, and the next one makes
//! a new file.

use crate::call::{Effect, LockChange};
use crate::catalogue::headline;
use crate::diagnoses::evidence::checks_name_after;
use crate::diagnoses::{Diagnosis, Off};
use crate::observation::Trace;

pub(super) const DIAGNOSIS: Diagnosis = Diagnosis {
    id: "lock-file-unlinked",
    statement: headline(include_str!("lock_file_unlinked.rs")),
    source: include_str!("lock_file_unlinked.rs"),
    explains: &["no-lost-update", "mutual-exclusion"],
    off: Off::QuietRun,
    find,
};

fn find(trace: &Trace, _data: &str) -> Option<usize> {
    let calls = &trace.calls;
    calls.iter().enumerate().find_map(|(at, call)| {
        let Some(Effect::Unlinked { path }) = &call.effect else { return None };
        let taken = calls[..at].iter().position(|before| {
            let is_of_it = |change: &LockChange| matches!(change, LockChange::Taken(_, name) if name == path);
            before.client == call.client && before.locks.iter().any(is_of_it)
        })?;
        (!checks_name_after(&calls[..at], call.client, taken, path)).then_some(at)
    })
}

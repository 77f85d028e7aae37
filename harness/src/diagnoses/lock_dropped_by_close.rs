//! A POSIX lock is dropped by the close of another descriptor of the same file.
//!
//! Read off a baseline run: a close gives a POSIX lock up, and the data file is changed after it without a lock. Such locks
//! belong to the process and go with the first of its descriptors of the file that is closed (fcntl(2)).
//!
//! Example: fcntl(3, F_SETLK), then open(store.json) = 4, read(4), close(4): the POSIX lock on it is gone.

use crate::accesses::accesses;
use crate::call::{Class, LockChange};
use crate::catalogue::headline;
use crate::diagnoses::evidence::is_locked;
use crate::diagnoses::{Diagnosis, Off};
use crate::locks::Kind;
use crate::observation::Trace;

pub(super) const DIAGNOSIS: Diagnosis = Diagnosis {
    id: "lock-dropped-by-close",
    statement: headline(include_str!("lock_dropped_by_close.rs")),
    source: include_str!("lock_dropped_by_close.rs"),
    explains: &["no-lost-update", "mutual-exclusion", "no-torn-read"],
    off: Off::QuietRun,
    find,
};

fn find(trace: &Trace, data: &str) -> Option<usize> {
    let calls = &trace.calls;
    let all = accesses(calls, data);
    calls.iter().enumerate().find_map(|(at, call)| {
        let drops =
            |change: &LockChange| matches!(change, LockChange::Released(lock, _) if lock.kind == Kind::Posix);
        let is_by_close = matches!(call.class, Class::Close | Class::Open) && call.locks.iter().any(drops);
        // The second check is linear in the trace; of ten thousand calls only a few need it.
        let is_changed_later = || {
            all.iter().any(|access| {
                access.is_change
                    && access.client == call.client
                    && access.at > at
                    && !is_locked(calls, call.client, access.at)
            })
        };
        (is_by_close && is_changed_later()).then_some(at)
    })
}

//! The data file is changed after the lock was given up.
//!
//! Read off a baseline run: a change of the data file behind the end of the lock, such as a buffer that is flushed when the
//! file is closed.
//!
//! Example: flock(3, LOCK_UN), then `write(4<store.json>)`, when the buffer is flushed by close.

use crate::call::LockChange;
use crate::catalogue::headline;
use crate::diagnoses::evidence::{changes, is_locked};
use crate::diagnoses::{Diagnosis, Off};
use crate::locks::Kind;
use crate::observation::Trace;

pub(super) const DIAGNOSIS: Diagnosis = Diagnosis {
    id: "write-after-unlock",
    statement: headline(include_str!("write_after_unlock.rs")),
    source: include_str!("write_after_unlock.rs"),
    explains: &["no-lost-update", "mutual-exclusion", "no-torn-read", "valid-data"],
    off: Off::QuietRun,
    find,
};

fn find(trace: &Trace, data: &str) -> Option<usize> {
    let calls = &trace.calls;
    changes(calls, data).find_map(|(at, client)| {
        // A POSIX lock dropped by a close was not released on purpose, and has its own diagnosis.
        let gave_up =
            |change: &LockChange| matches!(change, LockChange::Released(lock, _) if lock.kind != Kind::Posix);
        let before = calls[..at].iter().filter(|call| call.client == client);
        let was_given_up = before.flat_map(|call| &call.locks).any(gave_up);
        (was_given_up && !is_locked(calls, client, at)).then_some(at)
    })
}

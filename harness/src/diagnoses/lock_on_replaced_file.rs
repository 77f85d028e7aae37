//! The lock is on a file that a rename replaces, and whoever waits for it locks a file that is gone.
//!
//! Read off a baseline run: a name is given to another file while a lock is held on the file that had it, and the operation
//! did not look after it had the lock whether the name was still that of its file.
//!
//! Example: `flock(3<store.json>)`, then rename(store.json.tmp, store.json): who waited has the lock on the old file.

use crate::call::{Effect, LockChange};
use crate::catalogue::headline;
use crate::diagnoses::evidence::{checks_name_after, held_before};
use crate::diagnoses::{Diagnosis, Off};
use crate::observation::Trace;

pub(super) const DIAGNOSIS: Diagnosis = Diagnosis {
    id: "lock-on-replaced-file",
    statement: headline(include_str!("lock_on_replaced_file.rs")),
    source: include_str!("lock_on_replaced_file.rs"),
    explains: &["no-lost-update", "mutual-exclusion"],
    off: Off::QuietRun,
    find,
};

fn find(trace: &Trace, _data: &str) -> Option<usize> {
    let calls = &trace.calls;
    calls.iter().enumerate().find_map(|(at, call)| {
        let Some(Effect::Renamed { to, .. }) = &call.effect else { return None };
        let held = held_before(calls, call.client, at);
        let (lock, _) = held.iter().find(|(_, name)| name == to)?;
        let taken = calls.iter().position(|call| {
            call.locks.iter().any(|change| matches!(change, LockChange::Taken(other, _) if other == lock))
        })?;
        (!checks_name_after(&calls[..at], call.client, taken, to)).then_some(at)
    })
}

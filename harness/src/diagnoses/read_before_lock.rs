//! What is changed was read before the lock was taken, and not again after it.
//!
//! Read off a baseline run: the last read of the data file before its first change comes before the exclusive lock. Whatever
//! another client wrote in between is overwritten.
//!
//! Example: `read(3<store.json>)`, flock(4, LOCK_EX), and then write what was made of that read.

use crate::accesses::{accesses, critical_section};
use crate::catalogue::headline;
use crate::diagnoses::evidence::{checks_name_after, clients, first_lock, is_locked};
use crate::diagnoses::{Diagnosis, Off};
use crate::observation::Trace;

pub(super) const DIAGNOSIS: Diagnosis = Diagnosis {
    id: "read-before-lock",
    statement: headline(include_str!("read_before_lock.rs")),
    source: include_str!("read_before_lock.rs"),
    explains: &["no-lost-update", "mutual-exclusion", "guard-holds", "linearizable"],
    off: Off::QuietRun,
    find,
};

fn find(trace: &Trace, data: &str) -> Option<usize> {
    let calls = &trace.calls;
    let all = accesses(calls, data);
    clients(calls).into_iter().find_map(|client| {
        let (read, _) = critical_section(&all, client)?;
        let is_read = all.iter().any(|access| access.at == read && !access.is_change);
        let lock = first_lock(calls, client)?;
        // A client that checks after the lock whether the file is still the one it read may retry if it is not.
        if checks_name_after(calls, client, lock, data) {
            return None;
        }
        (is_read && read < lock && !is_locked(calls, client, read)).then_some(read)
    })
}

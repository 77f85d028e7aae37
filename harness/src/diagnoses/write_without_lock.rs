//! The data file is changed by an operation that takes no lock at all.
//!
//! Read off a baseline run: a change of the data file while nothing keeps others out, in an operation that never holds an
//! exclusive lock or a lock file.
//!
//! Example: `read(3<store.json>)`, rename(store.json.tmp, store.json), and not one lock between them.

use crate::catalogue::headline;
use crate::diagnoses::evidence::{changes, first_lock, is_locked, lock_files};
use crate::diagnoses::{Diagnosis, Off};
use crate::observation::Trace;

pub(super) const DIAGNOSIS: Diagnosis = Diagnosis {
    id: "write-without-lock",
    statement: headline(include_str!("write_without_lock.rs")),
    source: include_str!("write_without_lock.rs"),
    explains: &[
        "no-lost-update",
        "mutual-exclusion",
        "no-torn-read",
        "valid-data",
        "linearizable",
        "guard-holds",
    ],
    off: Off::QuietRun,
    find,
};

fn find(trace: &Trace, data: &str) -> Option<usize> {
    let calls = &trace.calls;
    changes(calls, data).find_map(|(at, client)| {
        let never_locks = first_lock(calls, client).is_none() && lock_files(calls, client).is_empty();
        (never_locks && !is_locked(calls, client, at)).then_some(at)
    })
}

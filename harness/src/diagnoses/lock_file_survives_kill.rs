//! The lock is a file that has to be removed, which a killed process cannot do.
//!
//! Read off a baseline run: a file or folder that nobody else could have made is made, its name says that it is a lock, and it
//! is removed or renamed at the end; nothing but that removes it.
//!
//! Example: open(store.lock, O_CREAT|O_EXCL) and, at the end, unlink(store.lock), which a kill prevents.

use crate::catalogue::headline;
use crate::diagnoses::evidence::{clients, lock_files};
use crate::diagnoses::{Diagnosis, Off};
use crate::observation::Trace;

pub(super) const DIAGNOSIS: Diagnosis = Diagnosis {
    id: "lock-file-survives-kill",
    statement: headline(include_str!("lock_file_survives_kill.rs")),
    source: include_str!("lock_file_survives_kill.rs"),
    explains: &["recovers-after-crash", "no-deadlock", "crash-atomic", "acked-survives-crash"],
    off: Off::QuietRun,
    find,
};

fn find(trace: &Trace, _data: &str) -> Option<usize> {
    let calls = &trace.calls;
    clients(calls).into_iter().find_map(|client| {
        lock_files(calls, client).into_iter().find(|(_, gone, _)| gone.is_some()).map(|(made, _, _)| made)
    })
}

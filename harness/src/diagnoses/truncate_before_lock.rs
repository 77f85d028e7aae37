//! The data file is emptied before the lock is taken.
//!
//! Read off a baseline run: an open with `O_TRUNC`, or a truncation, of the data file while no lock is held that is taken
//! later. Whoever waits for the lock has destroyed the data before it comes to wait.
//!
//! Example: open(store.json, O_TRUNC), then flock(3): who holds the lock has just lost the data.

use crate::call::Effect;
use crate::catalogue::headline;
use crate::diagnoses::evidence::{changes, first_lock, is_locked};
use crate::diagnoses::{Diagnosis, Off};
use crate::observation::Trace;

pub(super) const DIAGNOSIS: Diagnosis = Diagnosis {
    id: "truncate-before-lock",
    statement: headline(include_str!("truncate_before_lock.rs")),
    source: include_str!("truncate_before_lock.rs"),
    explains: &[
        "no-torn-read",
        "valid-data",
        "no-lost-update",
        "crash-atomic",
        "acked-survives-crash",
        "recovers-after-crash",
        "mutual-exclusion",
    ],
    off: Off::QuietRun,
    find,
};

fn find(trace: &Trace, data: &str) -> Option<usize> {
    let calls = &trace.calls;
    changes(calls, data).find_map(|(at, client)| {
        let empties = matches!(calls[at].effect, Some(Effect::Resized { .. }));
        let locks_later = first_lock(calls, client).is_some_and(|lock| lock > at);
        (empties && locks_later && !is_locked(calls, client, at)).then_some(at)
    })
}

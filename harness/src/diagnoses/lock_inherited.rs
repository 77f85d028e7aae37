//! A process that outlives the operation has inherited its lock.
//!
//! Read off a run to its end: a lock that was taken in the operation is still held, by a process that did not take it,
//! after the taker and the operation have ended. The call shown is the fork that passed it on.
//!
//! Example: flock(3) on a descriptor without O_CLOEXEC, then fork and exec of a helper that stays.

use crate::catalogue::headline;
use crate::diagnoses::{Diagnosis, Off};
use crate::observation::Trace;

pub(super) const DIAGNOSIS: Diagnosis = Diagnosis {
    id: "lock-inherited",
    statement: headline(include_str!("lock_inherited.rs")),
    source: include_str!("lock_inherited.rs"),
    explains: &["no-leaked-lock", "no-deadlock"],
    off: Off::AnyRun,
    find,
};

fn find(trace: &Trace, _data: &str) -> Option<usize> {
    let leak = trace.leaks.first()?;
    trace.calls.iter().rposition(|call| call.client == leak.client && call.name == "fork")
}

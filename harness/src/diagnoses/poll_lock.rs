//! A lock is tried again and again instead of being waited for.
//!
//! Read off a paired run: one client is refused a lock, or finds a lock file there, and tries again. Whoever polls gets
//! in by luck: others pass it by, and under load it may wait without end.
//!
//! Example: flock(3, LOCK_EX|LOCK_NB) = EAGAIN, sleep, and again.

use crate::call::{Call, Class, LockChange};
use crate::catalogue::headline;
use crate::diagnoses::evidence::{entries, has_flag, is_lock_name};
use crate::diagnoses::{Diagnosis, Off};
use crate::observation::Trace;

pub(super) const DIAGNOSIS: Diagnosis = Diagnosis {
    id: "poll-lock",
    statement: headline(include_str!("poll_lock.rs")),
    source: include_str!("poll_lock.rs"),
    explains: &[],
    off: Off::AnyRun,
    find,
};

fn find(trace: &Trace, _data: &str) -> Option<usize> {
    let calls = &trace.calls;
    calls.iter().enumerate().find_map(|(at, call)| {
        let (name, _) = tried(call)?;
        let was_refused = |other: &Call| {
            other.client == call.client && tried(other).is_some_and(|(tried, had)| tried == name && !had)
        };
        calls[..at].iter().any(was_refused).then_some(at)
    })
}

/// Returns the lock that a call tries to get, and whether it got it.
fn tried(call: &Call) -> Option<(String, bool)> {
    let by_lock = call.locks.iter().find_map(|change| match change {
        LockChange::Refused(_, name) => Some((name.clone(), false)),
        LockChange::Taken(_, name) => Some((name.clone(), true)),
        LockChange::Released(..) => None,
    });
    let by_file = || {
        let is_tried = call.class == Class::Open && has_flag(call, "O_EXCL");
        let name = entries(call).find(|entry| is_tried && is_lock_name(entry))?;
        Some((name.to_owned(), matches!(call.result, Some(Ok(_)))))
    };
    by_lock.or_else(by_file)
}

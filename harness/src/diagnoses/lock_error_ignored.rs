//! A lock is asked for and fails, and the data are changed without it.
//!
//! Read off a run in which a lock call failed with an error of the system, or was interrupted: what the client changes after
//! that without a lock shows it.
//!
//! Example: flock(3, LOCK_EX) = EINTR, and then write(3).

use crate::call::{Class, Effect, LockChange};
use crate::catalogue::headline;
use crate::diagnoses::evidence::{is_lock_name, is_locked};
use crate::diagnoses::{Diagnosis, Off};
use crate::observation::Trace;

pub(super) const DIAGNOSIS: Diagnosis = Diagnosis {
    id: "lock-error-ignored",
    statement: headline(include_str!("lock_error_ignored.rs")),
    source: include_str!("lock_error_ignored.rs"),
    explains: &["no-lost-update", "mutual-exclusion", "linearizable", "guard-holds", "honest-failure"],
    off: Off::AnyRun,
    find,
};

fn find(trace: &Trace, _data: &str) -> Option<usize> {
    let calls = &trace.calls;
    let failed = calls.iter().enumerate().filter(|(_, call)| {
        let is_held_by_another = call.locks.iter().any(|change| matches!(change, LockChange::Refused(..)));
        call.class == Class::Lock && matches!(call.result, Some(Err(_))) && !is_held_by_another
    });
    failed
        .filter(|(at, failed)| {
            calls.iter().enumerate().skip(at + 1).any(|(later, call)| {
                let makes_lock =
                    matches!(&call.effect, Some(Effect::Created { path, .. }) if is_lock_name(path));
                call.client == failed.client
                    && call.is_change()
                    && !makes_lock
                    && !is_locked(calls, call.client, later)
            })
        })
        .map(|(at, _)| at)
        .next()
}

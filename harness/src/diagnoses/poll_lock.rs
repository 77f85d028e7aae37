//! A lock is tried again and again instead of being waited for.
//!
//! Read off a paired run: one client is refused the same lock, or finds the same lock file there, twice. Whoever polls gets
//! in by luck: others pass it by, and under load it may wait without end.

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
    let refused = |call: &Call| -> Option<String> {
        let by_lock = call.locks.iter().find_map(|change| match change {
            LockChange::Refused(_, name) => Some(name.clone()),
            _ => None,
        });
        let by_file = || {
            let is_tried =
                call.class == Class::Open && has_flag(call, "O_EXCL") && matches!(call.result, Some(Err(_)));
            entries(call).find(|entry| is_tried && is_lock_name(entry)).map(ToOwned::to_owned)
        };
        by_lock.or_else(by_file)
    };
    calls.iter().enumerate().find_map(|(at, call)| {
        let name = refused(call)?;
        let before = &calls[..at];
        before
            .iter()
            .any(|other| other.client == call.client && refused(other).as_ref() == Some(&name))
            .then_some(at)
    })
}

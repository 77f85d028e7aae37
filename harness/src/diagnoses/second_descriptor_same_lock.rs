//! A lock is asked for that the same client holds already through another descriptor.
//!
//! Read off the run that hangs: a call that never returned asks for a lock on a file on which another process, thread or
//! descriptor of the same client has one. Locks of `flock` and OFD locks belong to the open file description: a second
//! open of the path is a stranger.
//!
//! Example: `flock(3<lock>, LOCK_EX)`, then open(lock) = 4 and flock(4, LOCK_EX), which waits for ever.

use crate::call::Class;
use crate::catalogue::headline;
use crate::diagnoses::evidence::{file, file_of, held_before};
use crate::diagnoses::{Diagnosis, Off};
use crate::observation::Trace;

pub(super) const DIAGNOSIS: Diagnosis = Diagnosis {
    id: "second-descriptor-same-lock",
    statement: headline(include_str!("second_descriptor_same_lock.rs")),
    source: include_str!("second_descriptor_same_lock.rs"),
    explains: &["no-self-deadlock"],
    off: Off::AnyRun,
    find,
};

fn find(trace: &Trace, _data: &str) -> Option<usize> {
    if !trace.is_stuck {
        return None;
    }
    let calls = &trace.calls;
    calls.iter().enumerate().find_map(|(at, call)| {
        if call.class != Class::Lock || call.result.is_some() {
            return None;
        }
        let wanted = file(call)?;
        let holds =
            held_before(calls, call.client, at).iter().any(|(lock, _)| file_of(calls, lock) == Some(wanted));
        holds.then_some(at)
    })
}

//! Two locks are taken in one order by one operation and in the other by another.
//!
//! Read off the paired run that hangs: a client that holds a lock asks for a second one, and another client that holds
//! that one asks for the first; or two clients that share a lock both ask to have it alone.
//!
//! Example: `add` locks a then b, `rotate` locks b then a.

use crate::call::Class;
use crate::catalogue::headline;
use crate::diagnoses::evidence::{file, file_of, held_before};
use crate::diagnoses::{Diagnosis, Off};
use crate::observation::Trace;

pub(super) const DIAGNOSIS: Diagnosis = Diagnosis {
    id: "lock-order-cycle",
    statement: headline(include_str!("lock_order_cycle.rs")),
    source: include_str!("lock_order_cycle.rs"),
    explains: &["no-deadlock"],
    off: Off::AnyRun,
    find,
};

fn find(trace: &Trace, _data: &str) -> Option<usize> {
    if !trace.is_stuck {
        return None;
    }
    let calls = &trace.calls;
    // Waiting calls: index, client, requested file, locked files. A lock call that never returned is waiting.
    let waits: Vec<(usize, u32, u32, Vec<u32>)> = calls
        .iter()
        .enumerate()
        .filter(|(_, call)| call.class == Class::Lock && call.result.is_none())
        .filter_map(|(at, call)| {
            let held =
                held_before(calls, call.client, at).into_iter().filter_map(|(lock, _)| file_of(calls, &lock));
            Some((at, call.client, file(call)?, held.collect()))
        })
        .collect();
    waits.iter().find_map(|(at, client, wanted, held)| {
        let is_answered = waits.iter().any(|(_, other, their_wish, theirs)| {
            other != client && theirs.contains(wanted) && held.contains(their_wish)
        });
        is_answered.then_some(*at)
    })
}

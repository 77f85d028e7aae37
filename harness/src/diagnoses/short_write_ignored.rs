//! A write that wrote less than asked is taken for a whole one.
//!
//! Read off a run whose write was cut short: nothing more was written to that file, and the operation went on to change
//! names or to sync it as if nothing had happened.
//!
//! Example: write(3, 4096 bytes) = 512, and no second write.

use crate::call::{Argument, Call, Class, Effect};
use crate::catalogue::headline;
use crate::diagnoses::evidence::file;
use crate::diagnoses::{Diagnosis, Off};
use crate::observation::Trace;

pub(super) const DIAGNOSIS: Diagnosis = Diagnosis {
    id: "short-write-ignored",
    statement: headline(include_str!("short_write_ignored.rs")),
    source: include_str!("short_write_ignored.rs"),
    explains: &[
        "valid-data",
        "no-lost-update",
        "crash-atomic",
        "acked-survives-crash",
        "honest-failure",
        "failed-write-keeps-old",
        "recovers-after-crash",
    ],
    off: Off::AnyRun,
    find,
};

fn find(trace: &Trace, _data: &str) -> Option<usize> {
    let calls = &trace.calls;
    calls.iter().enumerate().find_map(|(at, call)| {
        if !was_short(call) {
            return None;
        }
        let later = || calls[at + 1..].iter().filter(|other| other.client == call.client);
        let writes_more = later().any(|other| other.class == Class::Write && file(other) == file(call));
        let goes_on = later().any(|other| {
            other.class == Class::Name || (other.class == Class::Sync && file(other) == file(call))
        });
        (!writes_more && goes_on).then_some(at)
    })
}

fn was_short(call: &Call) -> bool {
    let asked = call.arguments.iter().find_map(|argument| match argument {
        Argument::Bytes(count) => Some(*count),
        _ => None,
    });
    // A truncation has a number of bytes too, and returns 0.
    let is_write = matches!(call.effect, Some(Effect::Written { .. }));
    match (is_write, &call.result, asked) {
        (true, Some(Ok(written)), Some(asked)) => {
            u64::try_from(*written).is_ok_and(|written| written < asked)
        }
        _ => false,
    }
}

//! The data file is rewritten in place, so that a kill or a reader finds half of it.
//!
//! Read off a baseline run: the data file that was there is cut or written to, and was not opened to append.
//!
//! Example: open(store.json, O_TRUNC), write: in between the file is empty.

use crate::call::{Class, Effect};
use crate::catalogue::headline;
use crate::diagnoses::evidence::{changes, file, has_flag};
use crate::diagnoses::{Diagnosis, Off};
use crate::observation::Trace;

pub(super) const DIAGNOSIS: Diagnosis = Diagnosis {
    id: "in-place-overwrite",
    statement: headline(include_str!("in_place_overwrite.rs")),
    source: include_str!("in_place_overwrite.rs"),
    explains: &[
        "crash-atomic",
        "no-torn-read",
        "valid-data",
        "acked-survives-crash",
        "recovers-after-crash",
        "power-loss-atomic",
        "failed-write-keeps-old",
    ],
    off: Off::QuietRun,
    find,
};

fn find(trace: &Trace, data: &str) -> Option<usize> {
    let calls = &trace.calls;
    changes(calls, data).map(|(at, _)| at).find(|at| {
        let call = &calls[*at];
        let touches = matches!(call.effect, Some(Effect::Written { .. } | Effect::Resized { .. }));
        let opens =
            || calls[..=*at].iter().filter(|open| open.class == Class::Open && file(open) == file(call));
        let was_made = opens().any(|open| matches!(open.effect, Some(Effect::Created { .. })));
        let appends = opens().any(|open| has_flag(open, "O_APPEND"));
        touches && !was_made && !appends
    })
}

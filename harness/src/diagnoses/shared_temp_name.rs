//! Several clients write to a temporary file of one name at the same time.
//!
//! Read off a baseline run: the file that replaces the data was opened without `O_EXCL`, under a name with no process id in
//! it, while nothing kept others out.
//!
//! Example: both clients open(store.json.tmp, O_TRUNC), and one renames what the other is still writing.

use crate::call::{Class, Effect};
use crate::catalogue::headline;
use crate::diagnoses::evidence::{entries, has_flag, is_locked};
use crate::diagnoses::{Diagnosis, Off};
use crate::observation::Trace;

pub(super) const DIAGNOSIS: Diagnosis = Diagnosis {
    id: "shared-temp-name",
    statement: headline(include_str!("shared_temp_name.rs")),
    source: include_str!("shared_temp_name.rs"),
    explains: &["no-lost-update", "mutual-exclusion", "no-torn-read", "valid-data"],
    off: Off::QuietRun,
    find,
};

fn find(trace: &Trace, data: &str) -> Option<usize> {
    let calls = &trace.calls;
    calls.iter().find_map(|rename| {
        let Some(Effect::Renamed { from, to }) = &rename.effect else { return None };
        let opened = calls.iter().position(|open| {
            open.class == Class::Open && open.creates && entries(open).any(|entry| entry == from)
        })?;
        // The random part of a name that differs between runs is normalized to a placeholder.
        let is_random =
            calls[opened].operands().any(|operand| operand.contains("{random}") || operand.contains("{pid}"));
        let is_own = is_random
            || has_flag(&calls[opened], "O_EXCL")
            || trace.pids.iter().any(|pid| from.contains(&pid.to_string()));
        (to == data && !is_own && !is_locked(calls, calls[opened].client, opened)).then_some(opened)
    })
}

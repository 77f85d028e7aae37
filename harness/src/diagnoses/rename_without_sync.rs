//! A file replaces the data before its content is durable.
//!
//! Read off a baseline run: a rename to the data path of a file that was written and not synced since. After a power loss the
//! name may stand for an empty file or one of NUL bytes.
//!
//! Example: `write(3<.store.json.tmp>)`, rename(.store.json.tmp, store.json), with no fsync between them.

use crate::call::{Class, Effect};
use crate::catalogue::headline;
use crate::diagnoses::evidence::{entries, file};
use crate::diagnoses::{Diagnosis, Off};
use crate::observation::Trace;

pub(super) const DIAGNOSIS: Diagnosis = Diagnosis {
    id: "rename-without-sync",
    statement: headline(include_str!("rename_without_sync.rs")),
    source: include_str!("rename_without_sync.rs"),
    explains: &["power-loss-atomic", "acked-survives-power-loss"],
    off: Off::QuietRun,
    find,
};

fn find(trace: &Trace, data: &str) -> Option<usize> {
    let calls = &trace.calls;
    calls.iter().enumerate().find_map(|(at, call)| {
        let Some(Effect::Renamed { from, to }) = &call.effect else { return None };
        if to != data {
            return None;
        }
        let before = &calls[..at];
        let source = before
            .iter()
            .rev()
            .find(|open| open.class == Class::Open && entries(open).any(|entry| entry == from));
        let source = source.and_then(file)?;
        let last = |class: Class| {
            before.iter().rposition(|other| other.class == class && file(other) == Some(source))
        };
        let written = last(Class::Write)?;
        last(Class::Sync).is_none_or(|synced| synced < written).then_some(at)
    })
}

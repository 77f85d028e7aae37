//! The new name of the data is not durable when the operation is acknowledged.
//!
//! Read off a baseline run: after the last rename to the data path no folder is synced. After a power loss the old data may be
//! back, though the new was acknowledged.
//!
//! Example: rename(.store.json.tmp, store.json), exit 0, and no fsync of the folder.

use crate::call::{Class, Effect};
use crate::catalogue::headline;
use crate::diagnoses::evidence::{entries, file, has_flag};
use crate::diagnoses::{Diagnosis, Off};
use crate::observation::Trace;

pub(super) const DIAGNOSIS: Diagnosis = Diagnosis {
    id: "directory-not-synced",
    statement: headline(include_str!("directory_not_synced.rs")),
    source: include_str!("directory_not_synced.rs"),
    explains: &["acked-survives-power-loss"],
    off: Off::QuietRun,
    find,
};

fn find(trace: &Trace, data: &str) -> Option<usize> {
    let calls = &trace.calls;
    let renamed = |effect: &Option<Effect>| matches!(effect, Some(Effect::Renamed { to, .. }) if to == data);
    let at = calls.iter().rposition(|call| renamed(&call.effect))?;
    let folder = data.rsplit_once('/').map_or(".", |(folder, _)| folder);
    let is_folder = |wanted: Option<u32>| {
        calls.iter().any(|open| {
            open.class == Class::Open
                && file(open) == wanted
                && (has_flag(open, "O_DIRECTORY") || entries(open).any(|entry| entry == folder))
        })
    };
    let syncs = calls[at..].iter().filter(|call| call.class == Class::Sync);
    let is_synced = syncs.clone().any(|call| call.name == "syncfs" || is_folder(file(call)));
    (!is_synced).then_some(at)
}

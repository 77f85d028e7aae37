//! A lock file that somebody else made is removed, and then taken.
//!
//! Read off the run that does it, mostly one after a kill or beside another client: a lock file is unlinked, or its folder
//! removed, before the operation made one of that name itself, and nothing keeps others out meanwhile. Of two that do so at once the second removes the lock of
//! the first.
//!
//! Example: unlink(store.lock) because its owner is dead, by two clients at once: the second removes the lock of the
//! first.

use crate::call::Effect;
use crate::catalogue::headline;
use crate::diagnoses::evidence::{is_lock_name, is_locked, lock_files};
use crate::diagnoses::{Diagnosis, Off};
use crate::observation::Trace;

pub(super) const DIAGNOSIS: Diagnosis = Diagnosis {
    id: "stale-lock-broken",
    statement: headline(include_str!("stale_lock_broken.rs")),
    source: include_str!("stale_lock_broken.rs"),
    explains: &["no-lost-update", "mutual-exclusion", "recovers-after-crash"],
    off: Off::AnyRun,
    find,
};

fn find(trace: &Trace, _data: &str) -> Option<usize> {
    let calls = &trace.calls;
    calls.iter().enumerate().find_map(|(at, call)| {
        let (Some(Effect::Unlinked { path }) | Some(Effect::FolderRemoved { path })) = &call.effect else {
            return None;
        };
        let own = lock_files(calls, call.client);
        let made_before = own.iter().any(|(made, _, name)| *made < at && name == path);
        let made_after = own.iter().any(|(made, _, name)| *made > at && name == path);
        let is_guarded = is_locked(calls, call.client, at);
        (is_lock_name(path) && !made_before && made_after && !is_guarded).then_some(at)
    })
}

//! A write or a sync fails, and the file is used as if it had not.
//!
//! Read off a run in which a write or a sync failed: the file is renamed to the data path after that, or synced again with
//! nothing written in between, or the operation ends with success.
//!
//! Example: fsync(3) = EIO, then rename over the data and exit 0.

use crate::call::{Argument, Call, Class, Effect, Errno};
use crate::catalogue::headline;
use crate::diagnoses::evidence::{entries, file};
use crate::diagnoses::{Diagnosis, Off};
use crate::observation::Trace;

pub(super) const DIAGNOSIS: Diagnosis = Diagnosis {
    id: "write-error-ignored",
    statement: headline(include_str!("write_error_ignored.rs")),
    source: include_str!("write_error_ignored.rs"),
    explains: &["honest-failure", "valid-data", "no-lost-update", "crash-atomic", "failed-write-keeps-old"],
    off: Off::AnyRun,
    find,
};

fn find(trace: &Trace, data: &str) -> Option<usize> {
    let calls = &trace.calls;
    (0..calls.len()).find(|at| is_failure(&calls[*at]) && is_ignored(calls, *at, data))
}

/// Whether a write or sync failed. Retrying an interrupted write is correct.
fn is_failure(call: &Call) -> bool {
    // A copy may have gone elsewhere, and is retried by reading and writing.
    let is_copy = matches!(call.name.as_str(), "sendfile" | "copy_file_range" | "splice");
    !is_copy
        && matches!(call.class, Class::Write | Class::Sync)
        && matches!(call.result, Some(Err(Errno(number))) if number != libc::EINTR && number != libc::EAGAIN)
}

fn is_ignored(calls: &[Call], at: usize, data: &str) -> bool {
    let failed = &calls[at];
    let own = file(failed);
    let name = calls
        .iter()
        .find(|open| open.class == Class::Open && file(open) == own)
        .and_then(|open| entries(open).next());
    for later in calls[at + 1..].iter().filter(|later| later.client == failed.client) {
        let is_its = file(later) == own;
        if is_its && later.class == Class::Write {
            return false;
        }
        let is_synced_again = is_its && later.class == Class::Sync && matches!(later.result, Some(Ok(_)));
        let is_published = matches!(&later.effect, Some(Effect::Renamed { from, to }) if Some(from.as_str()) == name && to == data);
        let is_success = later.name == "exit" && later.arguments == [Argument::Number(0)];
        if (is_synced_again && failed.class == Class::Sync) || is_published || is_success {
            return true;
        }
    }
    false
}

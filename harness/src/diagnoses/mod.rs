//! The diagnoses: likely causes read off the system calls, one small file each; they explain a verdict and make none.
//!
//! Each looks at the calls of one trace after another: of a baseline run of one operation where that shows the cause, else
//! of the disturbed or paired run that does; its file says which. To add one, copy the smallest file here and add it to
//! [`ALL`].

use crate::observation::Trace;

mod directory_not_synced;
mod evidence;
mod in_place_overwrite;
mod lock_dropped_by_close;
mod lock_error_ignored;
mod lock_file_survives_kill;
mod lock_file_unlinked;
mod lock_inherited;
mod lock_on_replaced_file;
mod lock_order_cycle;
mod poll_lock;
mod read_before_lock;
mod rename_without_sync;
mod second_descriptor_same_lock;
mod shared_temp_name;
mod short_write_ignored;
mod stale_lock_broken;
#[cfg(test)]
mod tests;
mod truncate_before_lock;
mod write_after_unlock;
mod write_error_ignored;
mod write_without_lock;

/// A likely cause.
#[derive(Debug)]
pub struct Diagnosis {
    /// Id, which never changes.
    pub id: &'static str,
    /// The mistake, in one sentence.
    pub statement: &'static str,
    /// Source file of the diagnosis; its header explains it.
    pub source: &'static str,
    /// Invariants whose violation it explains.
    pub explains: &'static [&'static str],
    /// Runs that can show it.
    pub off: Off,
    /// Searches one trace of a store whose data file has this path; returns the index of the call that shows it.
    pub find: fn(&Trace, &str) -> Option<usize>,
}

/// Runs that can show a cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Off {
    /// A complete baseline run of one operation: a run that was cut short may have been about to make the missing
    /// calls.
    QuietRun,
    /// Any run, including runs with injections and runs of several clients.
    AnyRun,
}

/// The catalogue, in order of preference if several explain one violation: the most specific first.
pub const ALL: &[&Diagnosis] = &[
    &second_descriptor_same_lock::DIAGNOSIS,
    &lock_inherited::DIAGNOSIS,
    &lock_order_cycle::DIAGNOSIS,
    &lock_error_ignored::DIAGNOSIS,
    &write_error_ignored::DIAGNOSIS,
    &short_write_ignored::DIAGNOSIS,
    &stale_lock_broken::DIAGNOSIS,
    &lock_file_survives_kill::DIAGNOSIS,
    &lock_dropped_by_close::DIAGNOSIS,
    &lock_on_replaced_file::DIAGNOSIS,
    &lock_file_unlinked::DIAGNOSIS,
    &truncate_before_lock::DIAGNOSIS,
    &read_before_lock::DIAGNOSIS,
    &write_after_unlock::DIAGNOSIS,
    &shared_temp_name::DIAGNOSIS,
    &in_place_overwrite::DIAGNOSIS,
    &write_without_lock::DIAGNOSIS,
    &rename_without_sync::DIAGNOSIS,
    &directory_not_synced::DIAGNOSIS,
    &poll_lock::DIAGNOSIS,
];

/// Returns the diagnosis with this id, if it exists.
pub fn find(id: &str) -> Option<&'static Diagnosis> {
    ALL.iter().copied().find(|diagnosis| diagnosis.id == id)
}

/// A diagnosis that a trace shows.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The diagnosis.
    pub diagnosis: &'static Diagnosis,
    /// The operation that shows it, without its record.
    pub operation: String,
    /// The call that shows it.
    pub call: String,
}

/// Returns all diagnoses that the traces show, each once.
pub fn read<'a>(traces: impl IntoIterator<Item = &'a Trace>, data: &str) -> Vec<Shown> {
    let traces: Vec<&Trace> = traces.into_iter().collect();
    let shown = ALL.iter().filter_map(|diagnosis| {
        let is_quiet = |trace: &&&Trace| trace.is_whole && trace.requests.len() == 1;
        traces.iter().filter(|trace| diagnosis.off == Off::AnyRun || is_quiet(trace)).find_map(|trace| {
            let call = trace.calls.get((diagnosis.find)(trace, data)?)?;
            let client = usize::try_from(call.client).ok()?.checked_sub(1)?;
            let request = trace.requests.get(client)?.to_string();
            Some(Shown {
                diagnosis,
                operation: request.split(' ').next().unwrap_or_default().to_owned(),
                call: call.to_string(),
            })
        })
    });
    shown.collect()
}

/// Returns the most likely of these for a violation of `invariant`.
pub fn explaining<'a>(shown: &'a [Shown], invariant: &str) -> Option<&'a Shown> {
    shown.iter().find(|shown| shown.diagnosis.explains.contains(&invariant))
}

//! Every visible call made to fail with each errno it may return, or to do less than asked.
//!
//! For every visible call of `add`, `list` and the other operations, and every row of the table of faults that may hit it
//! (`picklock list faults`):
//! the call fails once, and where it may stay that way, so do all like it until the operation has ended. Then the store is
//! to list, add and list, with nothing failing any more. After a sync that failed, what it was to make durable is dropped
//! as the kernel drops it, and the power is lost when the operation was acknowledged: a sync that is tried again has nothing
//! to write. Each start of a process, a thread or a program fails too, as far as forty of one operation go. Where a lock fails and the operation goes on, it is held before it changes the data, and a second client comes.
//! A write, a truncation, a sync or a rename is held too while a second client is inside, and fails then.
//! What only a manual page allows, and no local file system does, is a remark on portability.
//! What changes something, makes it durable or locks it fails first, then what reads, then all else, and at the end locks
//! that fail from then on, for which a store may wait: should the time not be enough, what matters most was tried. No more than two thousand faults of one operation are.
//!
//! Example: `picklock check --only fault` on a store that does not look at what fsync returns finds that it exits 0 on
//! EIO.

use std::collections::BTreeSet;

use crate::accesses::accesses;
use crate::call::{Call, Class, Effect, Spawn};
use crate::catalogue::headline;
use crate::fault::{FaultId, What, of_call, of_spawn};
use crate::op::Request;
use crate::persist::{Tree, lengths_before};
use crate::scenario::Scenario;
use crate::scenario::crash::{alone, alone_with, beside_another};
use crate::scenario::script::{Injection, InjectionKind, Script};

pub(super) const SCENARIO: Scenario =
    Scenario { id: "fault", statement: headline(include_str!("fault.rs")), source: include_str!("fault.rs") };

/// Maximum number of faults tried per operation.
const FAULTS_MAX: usize = 2000;
/// Maximum number of failed starts of processes, threads and programs per operation.
const SPAWNS_MAX: usize = 40;

/// The invariant that judges dropped data of a failed sync: all others would blame the store for the power loss.
pub const OF_A_DROPPED_SYNC: &str = "honest-failure";

/// The faults of an operation, each as a script.
#[derive(Debug)]
pub struct Faults {
    /// All but `waited_out`, the most important first.
    pub quick: Vec<Script>,
    /// Locks that fail from then on: a store may retry for as long as it would wait for another client.
    pub waited_out: Vec<Script>,
    /// Number of skipped faults.
    pub left_out: usize,
}

/// Returns every fault of an operation; `before` is the sandbox before the calls, if known.
pub fn scripts(request: &Request, calls: &[Call], before: Option<&Tree>) -> Faults {
    let mut faults: Vec<(u32, InjectionKind)> = Vec::new();
    for (point, call) in (1..).zip(calls) {
        for fault in of_call(call) {
            faults.push((point, InjectionKind::Fail { fault: FaultId(fault), stays: false }));
            if fault.may_stay && matches!(fault.what, What::Errno(_)) {
                faults.push((point, InjectionKind::Fail { fault: FaultId(fault), stays: true }));
            }
        }
    }
    faults.sort_by_key(|(point, _)| weight(&calls[*point as usize - 1]));
    let left_out = faults.len().saturating_sub(FAULTS_MAX);
    faults.truncate(FAULTS_MAX);
    let (waited_out, quick): (Vec<_>, Vec<_>) = faults.into_iter().partition(
        |(_, what)| matches!(what, InjectionKind::Fail { fault, stays: true } if fault.0.is_of_lock()),
    );
    let is_allocated = limits_within_allocated(calls, before);
    let scripts = |faults: Vec<(u32, InjectionKind)>| {
        let script = |(point, what)| {
            let mut script = alone(request, calls, point, what);
            if is_allocated(point, what) {
                script.mark_as_of_the_contract();
            }
            script
        };
        faults.into_iter().map(script).collect()
    };
    Faults { quick: scripts(quick), waited_out: scripts(waited_out), left_out }
}

/// Whether a file size limit would be below the length that a file already has: that happens only if the limit is
/// lowered while the store runs.
fn limits_within_allocated(calls: &[Call], before: Option<&Tree>) -> impl Fn(u32, InjectionKind) -> bool {
    let lengths = before.map(|before| lengths_before(before, calls)).unwrap_or_default();
    let written: Vec<Option<(u64, u64)>> = calls
        .iter()
        .map(|call| match call.effect {
            Some(Effect::Written { offset: Some(offset), length, .. }) => Some((offset, length)),
            _ => None,
        })
        .collect();
    move |point, what| {
        let InjectionKind::Fail { fault, .. } = what else { return false };
        let at = point as usize - 1;
        let known = lengths.get(at).copied().flatten().zip(written.get(at).copied().flatten());
        fault.0.what == What::SizeLimit
            && known.is_some_and(|(before, (offset, length))| offset + length / 2 < before)
    }
}

/// Whether a script has a single fault that a local file system may cause.
pub fn is_local_and_once(script: &Script) -> bool {
    script.injection().is_some_and(|injection| {
        matches!(injection.what, InjectionKind::Fail { stays: false, .. }) && !injection.is_of_the_contract
    })
}

/// Sorts first the scripts with one fault of each call that changes, syncs, locks, reads, opens or closes, in this
/// order, and returns their number: a failed read taken for no data is as common as an unnoticed failed write.
pub fn one_of_each_call_first(scripts: Vec<Script>, calls: &[Call]) -> (Vec<Script>, usize) {
    let mut seen = BTreeSet::new();
    let is_first = |script: &Script| {
        let Some(injection) = script.injection() else { return false };
        let call = calls.get((injection.point as usize).wrapping_sub(1));
        call.is_some_and(|call| weight(call) <= OPENS) && seen.insert(injection.point)
    };
    let (mut first, rest): (Vec<Script>, Vec<Script>) = scripts.into_iter().partition(is_first);
    let count = first.len();
    first.extend(rest);
    (first, count)
}

/// Returns the faults of calls that change or sync file content, or change a name: each is held while a second client
/// runs, and then fails.
pub fn inside(request: &Request, calls: &[Call], before: Option<&Tree>) -> Vec<Script> {
    let is_allocated = limits_within_allocated(calls, before);
    let mut scripts = Vec::new();
    for (point, call) in (1..).zip(calls) {
        for fault in of_call(call).filter(|fault| fault.is_local && fault.is_of_change()) {
            let fault = FaultId(fault);
            if !is_allocated(point, InjectionKind::Fail { fault, stays: false }) {
                scripts.push(beside_another(request, calls, point, InjectionKind::FailInside { fault }));
            }
        }
    }
    scripts
}

/// Largest weight of calls whose faults are informative: that of opens and closes.
const OPENS: u8 = 2;

/// Priority of a call's faults; 0 comes first.
fn weight(call: &Call) -> u8 {
    match call.class {
        Class::Write | Class::Name | Class::Sync | Class::Lock => 0,
        _ if call.creates => 0,
        Class::Read => 1,
        Class::Open | Class::Close => OPENS,
        Class::Inspect | Class::Attribute | Class::Process => 3,
    }
}

/// Returns the failing starts of processes, threads and programs, each as a script, and the number of skipped ones.
pub fn spawns(request: &Request, spawns: &[Spawn]) -> (Vec<Script>, usize) {
    let faults =
        (1..).zip(spawns).flat_map(|(nth, spawn)| of_spawn(spawn).map(move |fault| (nth, spawn, fault)));
    let mut scripts: Vec<Script> = faults
        .map(|(nth, spawn, fault)| {
            let injection = Injection {
                point: spawn.after_calls + 1,
                what: InjectionKind::FailSpawn { fault: FaultId(fault), nth },
                call: spawn.to_string(),
                is_of_a_kill: false,
                is_of_the_contract: false,
            };
            alone_with(request, injection)
        })
        .collect();
    let left_out = scripts.len().saturating_sub(SPAWNS_MAX);
    scripts.truncate(SPAWNS_MAX);
    (scripts, left_out)
}

/// Returns the faults of its locks, each with a second client that runs when the operation is about to change the data.
pub fn beside(request: &Request, calls: &[Call], data: &str) -> Vec<Script> {
    let changes = accesses(calls, data).into_iter().filter(|access| access.is_change);
    let changes: Vec<usize> = changes.map(|access| access.at).collect();
    let number = |at: usize| u32::try_from(at + 1).unwrap_or(u32::MAX);
    let mut scripts = Vec::new();
    for (at, call) in calls.iter().enumerate() {
        // Without a later change an operation harms no other.
        let Some(first_change) = changes.iter().find(|change| **change > at) else { continue };
        for fault in of_call(call).filter(|fault| fault.is_of_lock()) {
            let what = InjectionKind::FailBeside { fault: FaultId(fault), held: number(*first_change) };
            scripts.push(beside_another(request, calls, number(at), what));
        }
    }
    scripts
}

//! Every visible call made to fail with each errno it may return, or to do less than asked.
//!
//! For every visible call of `add`, `list` and the other operations, and every row of the table of faults that may hit it
//! (`picklock list faults`):
//! the call fails once, and where it may stay that way, so do all like it until the operation has ended. Then the store is
//! to list, add and list, with nothing failing any more. After a sync that failed, what it was to make durable is dropped
//! as the kernel drops it, and the power is lost when the operation was acknowledged: a sync that is tried again has nothing
//! to write. Where a lock fails and the operation goes on, it is held before it changes the data, and a second client comes.
//! What changes something, makes it durable or locks it fails first, then what reads, then all else, and at the end locks
//! that fail from then on, for which a store may wait: should the time not be enough, what matters most was tried. No more than two thousand faults of one operation are.
//!
//! Example: `picklock check --only fault` on a store that does not look at what fsync returns finds that it exits 0 on
//! EIO.

use crate::accesses::accesses;
use crate::call::{Call, Class};
use crate::catalogue::headline;
use crate::fault::{FaultId, What, of_call};
use crate::op::Request;
use crate::scenario::Scenario;
use crate::scenario::crash::{alone, beside_another};
use crate::scenario::script::{Misfortune, Script};

pub(super) const SCENARIO: Scenario =
    Scenario { id: "fault", statement: headline(include_str!("fault.rs")), source: include_str!("fault.rs") };

/// Faults of one operation that are tried.
const FAULTS_MAX: usize = 2000;

/// The invariants that judge a sync whose data were dropped: all others would blame the store for the power loss.
pub const OF_A_DROPPED_SYNC: &str = "honest-failure";

/// The faults that an operation may suffer, each as a script.
#[derive(Debug)]
pub struct Faults {
    /// All but the next, what matters most first.
    pub quick: Vec<Script>,
    /// Locks that fail from then on: a store may ask again for as long as it would wait for somebody else.
    pub waited_out: Vec<Script>,
    /// How many are left out.
    pub left_out: usize,
}

/// Every fault that an operation may suffer.
pub fn scripts(request: &Request, calls: &[Call]) -> Faults {
    let mut faults: Vec<(u32, Misfortune)> = Vec::new();
    for (point, call) in (1..).zip(calls) {
        for fault in of_call(call) {
            faults.push((point, Misfortune::Fail { fault: FaultId(fault), stays: false }));
            if fault.may_stay && matches!(fault.what, What::Errno(_)) {
                faults.push((point, Misfortune::Fail { fault: FaultId(fault), stays: true }));
            }
        }
    }
    faults.sort_by_key(|(point, _)| weight(&calls[*point as usize - 1]));
    let left_out = faults.len().saturating_sub(FAULTS_MAX);
    faults.truncate(FAULTS_MAX);
    let (waited_out, quick): (Vec<_>, Vec<_>) = faults.into_iter().partition(
        |(_, what)| matches!(what, Misfortune::Fail { fault, stays: true } if fault.0.is_of_lock()),
    );
    let scripts = |faults: Vec<(u32, Misfortune)>| {
        faults.into_iter().map(|(point, what)| alone(request, calls, point, what)).collect()
    };
    Faults { quick: scripts(quick), waited_out: scripts(waited_out), left_out }
}

/// What comes first, from 0.
fn weight(call: &Call) -> u8 {
    match call.class {
        Class::Write | Class::Name | Class::Sync | Class::Lock => 0,
        _ if call.creates => 0,
        Class::Read => 1,
        Class::Open | Class::Close => 2,
        Class::Inspect | Class::Attribute | Class::Process => 3,
    }
}

/// The faults of its locks, each beside a second client that comes where the operation is about to change the data.
pub fn beside(request: &Request, calls: &[Call], data: &str) -> Vec<Script> {
    let changes = accesses(calls, data).into_iter().filter(|access| access.is_change);
    let changes: Vec<usize> = changes.map(|access| access.at).collect();
    let number = |at: usize| u32::try_from(at + 1).unwrap_or(u32::MAX);
    let mut scripts = Vec::new();
    for (at, call) in calls.iter().enumerate() {
        // Who changes nothing after it harms nobody.
        let Some(first_change) = changes.iter().find(|change| **change > at) else { continue };
        for fault in of_call(call).filter(|fault| fault.is_of_lock()) {
            let what = Misfortune::FailBeside { fault: FaultId(fault), held: number(*first_change) };
            scripts.push(beside_another(request, calls, number(at), what));
        }
    }
    scripts
}

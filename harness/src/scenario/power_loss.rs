//! Every crash state that the persistence model allows, at every point of the trace.
//!
//! One baseline run under the tracer tells what an operation asks of the disk, and which syncs demand some of it. For
//! ext4, xfs and btrfs, as far as they promise anything, and for the standard, which promises less, every content is
//! derived that a power loss may leave: before each sync has returned, and after the operation was acknowledged. Each
//! is laid out and given to the store, which is to list, add and list; where it is neither what was there nor what the
//! operation made of it, what the store does about it is struck by a second power loss. What is violated is done once
//! more by a fresh run of the operation. What only the standard allows is a remark on portability. Of more than
//! fourteen changes that are free (fewer where they are large), prefixes, prefixes with one omission and two hundred
//! samples are tried; beyond two hundred states of a second power loss no further state is struck again.
//!
//! Example: `picklock check --only power-loss` on a store that does not sync its folder finds the old file after the
//! power came back.

use crate::call::Call;
use crate::catalogue::headline;
use crate::op::Request;
use crate::persist::{Log, PowerLoss};
use crate::scenario::Scenario;
use crate::scenario::crash::{after, numbered};
use crate::scenario::script::{Act, Loss, Script};

pub(super) const SCENARIO: Scenario = Scenario {
    id: "power-loss",
    statement: headline(include_str!("power_loss.rs")),
    source: include_str!("power_loss.rs"),
};

/// Invariants that concern a power loss.
pub const JUDGED_BY: [&str; 2] = ["power-loss-atomic", "acked-survives-power-loss"];

/// Initial state of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The store with its first record.
    First,
    /// The store as `init` left it; only its first `add` starts there.
    Nothing,
}

/// Converts a power loss during an operation, which succeeds or fails, to its form in a script.
pub fn loss(log: &Log, calls: &[Call], loss: &PowerLoss, succeeds: bool) -> Loss {
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Loss {
        after: number(loss.after),
        is_after_end: loss.is_acknowledged,
        lost: loss.lost.iter().copied().map(number).collect(),
        profiles: loss.profiles.iter().map(|id| (*id).to_owned()).collect(),
        told: log.missing_sync(calls, &loss.lost),
        is_acknowledged: succeeds,
    }
}

/// Returns a script of operations that are interrupted by power losses in turn, followed by requests to the store.
pub fn script(from: From, struck: &[(&Request, Loss)]) -> Script {
    let mut next = if from == From::Nothing { 1 } else { 2 };
    let mut acts = if from == From::Nothing { vec![Act::Anew] } else { Vec::new() };
    for (request, loss) in struck {
        let (request, following) = numbered(request, next);
        next = following;
        acts.push(Act::PowerLoss { request, loss: loss.clone() });
    }
    acts.extend([Act::Recover, Act::List]);
    acts.extend(after(next));
    Script { acts }
}

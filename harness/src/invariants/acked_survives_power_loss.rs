//! An acknowledged record survives a power loss.
//!
//! Judged by what the store itself reports after it had the chance to recover: every record whose `add` was
//! acknowledged before the power loss is there. A `list` that fails permanently after the power loss is a loss too.
//! Typical causes: an append without a sync, a rename whose directory is not synced, a sync after the
//! acknowledgement.
//!
//! Example: `add r1` renames a new file over the data and exits 0, but never syncs the directory: after the power
//! loss the old file is there, without r1.

use crate::catalogue::headline;
use crate::evidence::Evidence;
use crate::invariants::aftermath::Aftermath;
use crate::invariants::{Invariant, Needs};
use crate::observation::Observation;
use crate::verdict::Judgement;

pub(super) const INVARIANT: Invariant = Invariant {
    id: "acked-survives-power-loss",
    statement: headline(include_str!("acked_survives_power_loss.rs")),
    source: include_str!("acked_survives_power_loss.rs"),
    needs: Needs::Nothing,
    evidence: &[Evidence::PowerLosses],
    unjudged: "no state that a power loss leaves was given to the store",
    check,
};

fn check(observation: &Observation) -> Judgement {
    match Aftermath::of_power_loss(observation) {
        Some(aftermath) => aftermath.keeps_acknowledged(),
        None => Judgement::NotExercised,
    }
}

#[cfg(test)]
mod tests {
    use super::super::timeline::{doubtful, holds, silent, violated};
    use super::check;

    #[test]
    fn what_was_acknowledged_is_there_and_what_was_not_may_be() {
        let struck = "c1 add a 0..10 ok\n c1 add b 20..30 killed\n power 31\n c1 add c 40..50 ok\n";
        holds(check, &format!("{struck} c1 list 60..61 ok = a c"));
        holds(check, &format!("{struck} c1 list 60..61 ok = a b c"));
    }

    #[test]
    fn an_acknowledged_record_that_is_gone_violates_and_is_named() {
        let struck = "c1 add a 0..10 ok\n c1 add b 20..30 ok\n power 31\n c1 add c 40..50 ok\n";
        violated(check, "not in list any more: b", &format!("{struck} c1 list 60..61 ok = a c"));
        violated(
            check,
            "after a power loss list fails for good (exit 1), so that 3 acknowledged records cannot be read",
            &format!("{struck} c1 list 60..61 failed"),
        );
        doubtful(check, &format!("{struck} c1 list 60..61 busy"));
    }

    #[test]
    fn without_a_power_loss_nothing_is_said() {
        silent(check, "c1 add a 0..10 ok\n c1 add b 20..30 killed\n c1 list 60..61 ok =");
    }
}

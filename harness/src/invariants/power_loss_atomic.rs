//! After a power loss at any point the data file holds the old or the new state.
//!
//! Judged by what the store itself reports after it had the chance to recover: the data file is whole, `list`
//! succeeds, the record that was being added is there once or not at all, which does not change later, and every
//! other record is unchanged. Typical causes: a new file that is renamed over the old one before its content is on
//! the disk, a file that is truncated and rewritten.
//!
//! Example: a new file is renamed over the data before it was synced: after the power loss the name leads to a file
//! without content.

use crate::catalogue::headline;
use crate::evidence::Evidence;
use crate::invariants::aftermath::Aftermath;
use crate::invariants::{Invariant, Needs};
use crate::observation::Observation;
use crate::verdict::Judgement;

pub(super) const INVARIANT: Invariant = Invariant {
    id: "power-loss-atomic",
    statement: headline(include_str!("power_loss_atomic.rs")),
    source: include_str!("power_loss_atomic.rs"),
    needs: Needs::Nothing,
    evidence: &[Evidence::PowerLosses],
    unjudged: "no state that a power loss leaves was given to the store",
    check,
};

fn check(observation: &Observation) -> Judgement {
    let Some(aftermath) = Aftermath::of_power_loss(observation) else { return Judgement::NotExercised };
    let unreadable = || aftermath.unreadable_for_good().or_else(|| observation.doubt_of_unreadable());
    if let Some(seen) = aftermath.breakage().or_else(unreadable) {
        return Judgement::Violated(seen);
    }
    if aftermath.views().next().is_some() { Judgement::Holds } else { Judgement::NotExercised }
}

#[cfg(test)]
mod tests {
    use super::super::timeline::{holds, silent, violated};
    use super::check;

    const STRUCK: &str = "c1 add a 0..10 ok\n c1 add b 20..30 ok\n power 31\n c1 add c 40..50 ok\n";

    #[test]
    fn the_old_or_the_new_state_holds() {
        holds(check, &format!("{STRUCK} c1 list 60..61 ok = a c"));
        holds(check, &format!("{STRUCK} c1 list 60..61 ok = a b c"));
        holds(
            check,
            "c1 add a 0..10 ok\n c1 add b 20..30 killed\n power 31\n c1 add c 40..50 ok\n state 60 whole = a c",
        );
    }

    #[test]
    fn what_is_neither_violates() {
        violated(check, "harmed other records", &format!("{STRUCK} c1 list 60..61 ok = b c"));
        violated(check, "no whole record", &format!("{STRUCK} c1 list 60..61 ok = a b? c"));
        violated(check, "stays empty", &format!("{STRUCK} state 60 empty"));
        // However the store reports that it cannot list.
        violated(check, "list fails for good (exit 1)", &format!("{STRUCK} c1 list 60..61 failed"));
        for end in ["busy", "refused", "timeout"] {
            violated(check, "list failed", &format!("{STRUCK} c1 list 60..61 {end}"));
        }
        violated(
            check,
            "first there, later gone: b",
            &format!("{STRUCK} c1 list 60..61 ok = a b c\n state 70 whole = a c"),
        );
    }

    /// A store that was permanently busy was never judged, and held.
    #[test]
    fn a_store_that_is_busy_for_ever_violates() {
        let busy = "c1 add a 0..10 ok\n c1 add b 20..30 ok\n power 31\n c1 list 32..33 busy\n c1 add c 40..50 busy\n";
        violated(check, "list failed", &format!("{busy} c1 list 60..61 busy"));
    }

    /// The store may repair itself first; its state before that is not judged.
    #[test]
    fn before_the_store_was_asked_anything_nothing_is_said() {
        silent(check, "c1 add a 0..10 ok\n power 11\n state 12 broken");
        silent(check, "c1 add a 0..10 ok\n c1 list 20..21 ok = a");
    }
}

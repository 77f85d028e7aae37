//! An acknowledged record survives the kill of any client at any time.
//!
//! Judged in executions in which operations run one after another and some are killed. No other client can have
//! overwritten the record there, so the kill, or the store's handling of its leftovers, is the cause. A `list` that
//! fails permanently after the kill is a loss too, because acknowledged records cannot be read any more. Losses
//! among overlapping clients are judged by `no-lost-update`. Typical causes: a file that is truncated before it is
//! rewritten, a torn last line to which the next record is glued.
//!
//! Example: `add r1` exits 0; `add r2` is killed between truncating the file and writing it; `list` no longer
//! reports r1.

use crate::catalogue::headline;
use crate::evidence::Evidence;
use crate::invariants::aftermath::Aftermath;
use crate::invariants::{Invariant, Needs};
use crate::observation::Observation;
use crate::verdict::Judgement;

pub(super) const INVARIANT: Invariant = Invariant {
    id: "acked-survives-crash",
    statement: headline(include_str!("acked_survives_crash.rs")),
    source: include_str!("acked_survives_crash.rs"),
    needs: Needs::Nothing,
    evidence: &[Evidence::KillPoints],
    unjudged: "no operation was killed after an acknowledged record that could be checked",
    check,
};

fn check(observation: &Observation) -> Judgement {
    match Aftermath::of_kills(observation) {
        Some(aftermath) => aftermath.keeps_acknowledged(),
        None => Judgement::NotExercised,
    }
}

#[cfg(test)]
mod tests {
    use super::super::timeline::{doubtful, holds, silent, violated};
    use super::check;

    const KILLED: &str = "c1 add a 0..10 ok\n c1 add b 20..30 killed\n c1 add c 40..50 ok\n";

    #[test]
    fn what_was_acknowledged_before_and_after_a_kill_is_there() {
        holds(check, &format!("{KILLED} c1 list 60..61 ok = a c"));
        holds(check, &format!("{KILLED} state 60 whole = a b c"));
    }

    #[test]
    fn a_record_lost_after_a_kill_violates_and_is_named() {
        violated(
            check,
            "1 acknowledged records are not in list any more: a",
            &format!("{KILLED} c1 list 60..61 ok = b c"),
        );
        violated(check, "a, c", &format!("{KILLED} state 60 whole = b"));
    }

    /// After a kill pip's `list` failed permanently with an empty data file: this was inconclusive, but it is the loss.
    #[test]
    fn a_list_that_fails_for_good_is_a_loss() {
        let seen = "after a kill list fails for good (exit 1), so that 2 acknowledged records cannot be read";
        violated(check, seen, &format!("{KILLED} c1 list 60..61 failed"));
        violated(check, seen, &format!("{KILLED} c1 list 60..61 busy\n c1 list 70..71 failed"));
        doubtful(check, &format!("{KILLED} c1 list 60..61 refused"));
        doubtful(check, &format!("{KILLED} c1 list 60..61 failed\n c1 list 70..71 ok = a c"));
        // Nothing had the chance to repair the store.
        silent(check, "c1 add a 0..10 ok\n c1 add b 20..30 killed\n c1 list 60..61 failed");
    }

    #[test]
    fn without_a_kill_or_among_overlapping_clients_nothing_is_said() {
        silent(check, "c1 add a 0..10 ok\n c1 list 60..61 ok =");
        silent(
            check,
            "c1 add a 0..10 ok\n c2 add b 5..30 killed\n c1 add c 40..50 ok\n c1 list 60..61 ok = c",
        );
    }
}

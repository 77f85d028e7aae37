//! An operation killed at any point happened wholly or not at all, and harmed no other record.
//!
//! Judged in executions in which operations run one after another and some are killed, after the store had the
//! chance to recover: the record of a killed `add` is there once or not at all, and this does not change later;
//! every other record is unchanged, and no record is there that no operation added. Typical causes: a rewrite in
//! place, data and index written in two steps, a last line written by two calls.
//!
//! Example: `add r2` rewrites the file in place and is killed half-way: the file has neither the old content nor the
//! new.

use crate::catalogue::headline;
use crate::evidence::Evidence;
use crate::invariants::aftermath::Aftermath;
use crate::invariants::{Invariant, Needs};
use crate::observation::Observation;
use crate::verdict::Judgement;

pub(super) const INVARIANT: Invariant = Invariant {
    id: "crash-atomic",
    statement: headline(include_str!("crash_atomic.rs")),
    source: include_str!("crash_atomic.rs"),
    needs: Needs::Nothing,
    evidence: &[Evidence::KillPoints],
    unjudged: "no operation was killed, or the records could not be read afterwards",
    check,
};

fn check(observation: &Observation) -> Judgement {
    let Some(aftermath) = Aftermath::of_kills(observation) else { return Judgement::NotExercised };
    if let Some(seen) = aftermath.breakage().or_else(|| aftermath.unreadable_for_good()) {
        return Judgement::Violated(seen);
    }
    if let Some(doubt) = observation.doubt_of_unreadable() {
        return Judgement::Inconclusive(doubt);
    }
    if aftermath.views().next().is_some() { Judgement::Holds } else { Judgement::NotExercised }
}

#[cfg(test)]
mod tests {
    use super::super::timeline::{doubtful, holds, silent, violated};
    use super::check;

    const KILLED: &str = "c1 add a 0..10 ok\n c1 add b 20..30 killed\n c1 add c 40..50 ok\n";

    #[test]
    fn wholly_or_not_at_all_holds() {
        holds(check, &format!("{KILLED} c1 list 60..61 ok = a c"));
        holds(check, &format!("{KILLED} c1 list 60..61 ok = a b c\n state 70 whole = a b c"));
    }

    #[test]
    fn half_a_record_twice_a_record_or_harm_to_another_violates() {
        violated(check, "no whole record: r", &format!("{KILLED} c1 list 60..61 ok = a r c"));
        violated(check, "twice: b", &format!("{KILLED} c1 list 60..61 ok = a b b c"));
        violated(
            check,
            "harmed other records; not in list any more: a",
            &format!("{KILLED} c1 list 60..61 ok = c"),
        );
        violated(check, "stays broken", &format!("{KILLED} state 60 broken"));
    }

    /// Opaque data that no `list` could read after a kill was `inconclusive`, although the data file was empty.
    #[test]
    fn a_list_that_fails_for_good_violates() {
        let seen = "after a kill list fails for good (exit 1), so that 2 acknowledged records cannot be read";
        violated(check, seen, &format!("{KILLED} c1 list 60..61 failed"));
        doubtful(check, &format!("{KILLED} c1 list 60..61 busy"));
        doubtful(check, &format!("{KILLED} c1 list 60..61 timeout"));
        doubtful(check, &format!("{KILLED} c1 list 60..61 failed\n c1 list 70..71 ok = a c"));
        // It failed before the kill too.
        let before = KILLED.replace("c1 add b", "c1 list 12..13 failed\n c1 add b");
        doubtful(check, &format!("{before} c1 list 60..61 failed"));
    }

    /// gdbmtool, locked out by a client that was held, adds nothing and exits 0: the kill of the lock holder was blamed
    /// for it.
    #[test]
    fn a_record_that_was_added_while_the_killed_one_was_held_and_never_seen_is_not_laid_to_the_kill() {
        let held =
            "c1 add a 0..10 ok\n c1 add b 20..50 killed still 25\n c2 add c 30..40 ok\n c1 add d 60..70 ok\n";
        holds(check, &format!("{held} c1 list 80..81 ok = a d"));
        violated(
            check,
            "harmed other records",
            &format!("{held} state 55 whole = a c\n c1 list 80..81 ok = a d"),
        );
    }

    #[test]
    fn a_record_that_comes_and_goes_after_the_kill_violates() {
        violated(
            check,
            "first not there, later there: b",
            &format!("{KILLED} c1 list 60..61 ok = a c\n state 70 whole = a b c"),
        );
        violated(
            check,
            "first there, later gone: b",
            &format!("{KILLED} c1 list 60..61 ok = a b c\n state 70 whole = a c"),
        );
    }

    #[test]
    fn without_a_kill_or_among_overlapping_clients_nothing_is_said() {
        silent(check, "c1 add a 0..10 ok\n c1 list 60..61 ok = a a");
        silent(
            check,
            "c1 add a 0..10 ok\n c2 add b 5..30 killed\n c1 add c 40..50 ok\n c1 list 60..61 ok = c",
        );
    }
}

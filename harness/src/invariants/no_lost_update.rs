//! Every acknowledged record is in the store at the end, once.
//!
//! Judged whenever no operation runs, from the output of `list` and from the data file itself if the target says how
//! to read it: each record acknowledged before is there exactly once. A record whose `add` failed or was killed may
//! be there or not. A `list` that fails permanently after overlapping adds is a loss too, because acknowledged
//! records cannot be read any more. Typical causes: no lock, a read before the lock, a lock that excludes no other
//! client.
//!
//! Example: two clients read `[r1]`; one writes `[r1,r2]`, the other `[r1,r3]`; both exit 0, and r2 is gone.

use crate::catalogue::headline;
use crate::evidence::Evidence;
use crate::invariants::aftermath::fails_for_good;
use crate::invariants::{Invariant, Needs};
use crate::observation::{Observation, name_some};
use crate::verdict::Judgement;

pub(super) const INVARIANT: Invariant = Invariant {
    id: "no-lost-update",
    statement: headline(include_str!("no_lost_update.rs")),
    source: include_str!("no_lost_update.rs"),
    needs: Needs::Nothing,
    evidence: &[Evidence::HeldPoints, Evidence::Pairs],
    unjudged: "no two adds overlapped, or the records could not be read afterwards",
    check,
};

fn check(observation: &Observation) -> Judgement {
    let views = observation.views();
    let settled = || views.iter().filter(|view| observation.settled_at(view.at));
    for view in settled() {
        let counts = observation.counts(*view);
        let of_count = |wanted: fn(usize) -> bool| {
            observation
                .acknowledged_by(view.at)
                .map(|(record, _)| record)
                .filter(|record| wanted(counts.get(record).copied().unwrap_or(0)))
                .collect::<Vec<_>>()
        };
        let (lost, doubled) = (of_count(|count| count == 0), of_count(|count| count > 1));
        let acknowledged = observation.acknowledged_by(view.at).count();
        if !lost.is_empty() {
            return Judgement::Violated(format!(
                "{} of {acknowledged} acknowledged records are not in {}: {}",
                lost.len(),
                view.source,
                name_some(lost)
            ));
        }
        if !doubled.is_empty() {
            return Judgement::Violated(format!(
                "{} of {acknowledged} acknowledged records are in {} more than once: {}",
                doubled.len(),
                view.source,
                name_some(doubled)
            ));
        }
    }
    if let Some(list) = observation.failing_for_good(0).filter(|_| observation.adds_overlapped()) {
        let acknowledged = observation.acknowledged_by(list.invoked).count();
        return Judgement::Violated(fails_for_good(list, acknowledged));
    }
    if let Some(doubt) = observation.doubt_of_unreadable() {
        return Judgement::Inconclusive(doubt);
    }
    // If operations run one after another, only a store that fails the control loses an update.
    if observation.adds_overlapped() && settled().next().is_some() {
        Judgement::Holds
    } else {
        Judgement::NotExercised
    }
}

#[cfg(test)]
mod tests {
    use super::super::timeline::{doubtful, holds, silent, violated};
    use super::check;

    #[test]
    fn acknowledged_records_of_overlapping_adds_are_all_there() {
        holds(check, "c1 add a 0..10 ok\n c2 add b 5..15 ok\n c1 list 20..21 ok = a b");
        holds(check, "initial z\n c1 add a 0..10 ok\n c2 add b 5..15 ok\n state 20 whole = z a b");
    }

    #[test]
    fn a_lost_record_violates_and_is_named() {
        let timeline = "c1 add a 0..10 ok\n c2 add b 5..15 ok\n c1 list 20..21 ok = a";
        violated(check, "1 of 2 acknowledged records are not in list: b", timeline);
        violated(check, "not in the data file: a", "c1 add a 0..10 ok\n state 20 whole =");
    }

    #[test]
    fn a_doubled_record_violates_and_is_named() {
        violated(check, "more than once: a", "c1 add a 0..10 ok\n c1 list 20..21 ok = a a");
    }

    #[test]
    fn what_was_not_acknowledged_may_be_there_or_not() {
        let clients =
            "c1 add a 0..10 killed\n c2 add b 5..15 failed\n c3 add c 5..20 ok\n c4 add d 30..40 ok\n";
        holds(check, &format!("{clients} c1 list 50..51 ok = c d"));
        holds(check, &format!("{clients} c1 list 50..51 ok = a b c d"));
    }

    #[test]
    fn a_store_that_cannot_be_listed_any_more_violates() {
        let adds = "c1 add a 0..10 ok\n c2 add b 5..20 ok\n";
        let seen = "list fails for good (exit 1), so that 2 acknowledged records cannot be read";
        violated(check, seen, &format!("{adds} c1 list 30..31 failed"));
        doubtful(check, &format!("{adds} c1 list 30..31 timeout"));
        doubtful(check, &format!("{adds} c1 list 30..31 failed\n c1 list 40..41 ok = a b"));
        doubtful(check, "c1 add a 0..10 ok\n c2 add b 15..20 ok\n c1 list 30..31 failed");
    }

    /// `git config` prints nothing and exits 0 if its read fails: the records were in the store nevertheless.
    #[test]
    fn what_a_list_says_that_a_fault_has_struck_tells_nothing_of_the_store() {
        let adds = "c1 add a 0..10 ok\n c2 add b 5..20 ok\n";
        silent(check, &format!("{adds} c1 list 30..31 ok with read-eio ="));
        violated(check, "not in list: a, b", &format!("{adds} c1 list 30..31 ok ="));
    }

    #[test]
    fn no_overlap_or_no_view_is_no_evidence() {
        silent(check, "c1 add a 0..10 ok\n c2 add b 15..20 ok\n c1 list 30..31 ok = a b");
        silent(check, "c1 add a 0..10 ok\n c2 add b 5..20 ok");
        // A list that overlaps an add does not show an idle store.
        silent(check, "c1 add a 0..10 ok\n c2 add b 5..20 ok\n c1 list 6..31 ok = a");
    }
}

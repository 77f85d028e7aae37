//! The answers of all clients fit one sequential order that respects real time.
//!
//! Judged in executions in which operations overlap, from their answers alone: each acknowledged add took effect at
//! one moment between its invocation and its return; an add that was refused or found the store busy took none; any
//! other may have taken one or none. Each list reports the records at one moment of its own, and so does each look
//! at the file while no operation runs. If no order of these moments explains all answers, the invariant is
//! violated. Typical causes: a list that reports an old state after a newer one was reported, an acknowledgement
//! before the change is visible, a lost update.
//!
//! Example: `add r1` returns before `list` is called, and `list` does not report r1, although it reports r2, which
//! came later.

use crate::catalogue::headline;
use crate::evidence::Evidence;
use crate::history::model::set::{Call, Set};
use crate::history::{Verdict, judge, unique};
use crate::invariants::recorded::{is_meant, recorded, told};
use crate::invariants::{Invariant, Needs};
use crate::observation::Observation;
use crate::op::Request;
use crate::verdict::Judgement;

pub(super) const INVARIANT: Invariant = Invariant {
    id: "linearizable",
    statement: headline(include_str!("linearizable.rs")),
    source: include_str!("linearizable.rs"),
    needs: Needs::Nothing,
    evidence: &[Evidence::Pairs],
    unjudged: "no two operations overlapped, or nothing was told afterwards",
    check,
};

/// Maximum number of steps of a search, needed if a record was added more than once.
const STEPS_MAX: u64 = 200_000;

fn check(observation: &Observation) -> Judgement {
    let tells = |request: &Request| {
        matches!(request, Request::Add { .. } | Request::AddGuarded { .. } | Request::List)
    };
    let recorded =
        recorded(observation, |operation| tells(&operation.request) && is_meant(operation, observation));
    let Some((history, names)) = recorded else { return Judgement::NotExercised };
    if !history.operations().iter().any(|operation| matches!(operation.call, Call::List(_))) {
        return Judgement::NotExercised;
    }
    let set = Set { names };
    match unique::judge(&set, &history).unwrap_or_else(|| judge(&set, &history, STEPS_MAX)) {
        Verdict::Linearizable => Judgement::Holds,
        Verdict::Violated(explanation) => Judgement::Violated(told(&explanation)),
        Verdict::Unknown(why) => Judgement::Inconclusive(why),
    }
}

#[cfg(test)]
mod tests {
    use super::super::timeline::{holds, silent, violated};
    use super::check;

    #[test]
    fn what_fits_an_order_holds_whatever_the_times() {
        holds(check, "c1 add a 0..10 ok\n c2 add b 5..15 ok\n c3 list 6..9 ok = b\n c1 list 20..21 ok = a b");
        holds(
            check,
            "c1 add a 0..10 killed\n c2 add b 5..15 ok\n c1 add c 16..17 ok\n c1 list 20..21 ok = b c",
        );
    }

    #[test]
    fn an_old_state_after_a_newer_one_violates() {
        violated(
            check,
            "list",
            "c1 add a 0..10 ok\n c2 add b 5..15 ok\n c3 list 6..7 ok = a\n c3 list 8..9 ok = b\n c1 list 20..21 ok = a b",
        );
    }

    #[test]
    fn a_list_without_what_was_acknowledged_before_it_violates() {
        violated(
            check,
            "a",
            "c1 add a 0..2 ok\n c2 add b 1..15 ok\n c3 list 6..7 ok = b\n c1 list 20..21 ok = a b",
        );
    }

    #[test]
    fn a_refused_record_that_is_told_violates() {
        violated(check, "b", "c1 add a 0..9 ok\n c2 add b 1..8 refused\n c1 list 20..21 ok = a b");
    }

    /// A list that began before a kill may have read after it, before the store was repaired.
    #[test]
    fn what_was_told_before_the_store_had_mended_itself_is_not_judged() {
        silent(
            check,
            "c1 add a 0..10 ok\n c2 add b 11..20 killed\n c3 list 12..25 ok =\n c1 add c 30..31 ok",
        );
    }

    #[test]
    fn a_look_at_the_file_has_no_client_and_no_time() {
        let text = "c1 add a 0..9 ok\n c2 add b 1..8 ok\n state 20 whole = a";
        violated(
            check,
            "seen in the data file does not tell of b, which was in before: `add b → ok` of client 2;",
            text,
        );
    }

    #[test]
    fn one_after_another_says_nothing() {
        silent(check, "c1 add a 0..2 ok\n c1 list 3..4 ok = a");
        silent(check, "c1 add a 0..9 ok\n c2 add b 1..8 ok");
    }
}

//! A limit checked by the store is never exceeded, under any schedule, and no add is refused that no order of the operations explains.
//!
//! Judged from the answers to the adds that have the limit: there is an order of them that respects real time in
//! which each was acknowledged while there was room and refused when there was none. Typical causes: the records are
//! counted before the lock is taken; an add that reserves a slot and then fails does not release it.
//!
//! Example: the limit is 3 and there are two records; two clients count two before either locks, and both add: there
//! are four.

use crate::catalogue::headline;
use crate::evidence::Evidence;
use crate::history::model::guarded_set::GuardedSet;
use crate::history::{Verdict, judge};
use crate::invariants::recorded::{is_meant, recorded, told};
use crate::invariants::{Invariant, Needs};
use crate::observation::Observation;
use crate::op::{Operation, Request};
use crate::verdict::Judgement;

pub(super) const INVARIANT: Invariant = Invariant {
    id: "guard-holds",
    statement: headline(include_str!("guard_holds.rs")),
    source: include_str!("guard_holds.rs"),
    needs: Needs::Guard,
    evidence: &[Evidence::Pairs],
    unjudged: "no two adds overlapped where the limit was near",
    check,
};

/// Maximum number of steps of the search for an order.
const STEPS_MAX: u64 = 200_000;

fn check(observation: &Observation) -> Judgement {
    let subject = &observation.subject;
    let has_limit = |operation: &Operation| match &operation.request {
        Request::Add { .. } => subject.limit.is_some(),
        Request::AddGuarded { .. } => true,
        _ => false,
    };
    let Some(limit) = subject.limit.or(subject.guarded_limit) else { return Judgement::NotExercised };
    let limited = || observation.operations.iter().filter(|operation| has_limit(operation));
    let Some(first) = limited().map(|operation| operation.invoked).min() else {
        return Judgement::NotExercised;
    };
    // An add without the limit fills the store up, unless it ended before the first limited add.
    let is_before = |operation: &Operation| operation.returned <= first && operation.added().is_some();
    let tells = |operation: &Operation| {
        is_meant(operation, observation)
            && (has_limit(operation) || is_before(operation) || operation.request == Request::List)
    };
    let all_tell =
        observation.operations.iter().all(|operation| operation.added().is_none() || tells(operation));
    let could_fill = observation.operations.iter().filter(|operation| operation.added().is_some()).count();
    let was_refused = limited().any(Operation::changed_nothing);
    let initial = subject.initial_records.len();
    let Some(room) = (limit as usize).checked_sub(initial) else { return Judgement::NotExercised };
    if !all_tell || (could_fill <= room && !was_refused) {
        return Judgement::NotExercised;
    }
    let Some((history, names)) = recorded(observation, tells) else { return Judgement::NotExercised };
    let of_init =
        if initial > 0 { format!(", {initial} of them there from the start") } else { String::new() };
    match judge(&GuardedSet::new(room, names), &history, STEPS_MAX) {
        Verdict::Linearizable => Judgement::Holds,
        Verdict::Violated(explanation) => {
            Judgement::Violated(format!("no order fits a limit of {limit}{of_init}: {}", told(&explanation)))
        }
        Verdict::Unknown(why) => Judgement::Inconclusive(why),
    }
}

#[cfg(test)]
mod tests {
    use super::super::timeline::{holds, silent, violated};
    use super::check;

    #[test]
    fn one_of_two_is_refused_where_there_is_room_for_one() {
        holds(
            check,
            "limit 2\n c1 add a 0..1 ok\n c1 add b 5..9 ok\n c2 add c 6..10 refused\n c1 list 20..21 ok = a b",
        );
    }

    #[test]
    fn one_too_many_violates() {
        violated(
            check,
            "limit of 2",
            "limit 2\n c1 add a 0..1 ok\n c1 add b 5..9 ok\n c2 add c 6..10 ok\n c1 list 20..21 ok = a b c",
        );
    }

    #[test]
    fn a_refusal_that_no_order_explains_violates() {
        violated(
            check,
            "limit of 3",
            "limit 3\n c1 add a 0..1 ok\n c1 add b 5..9 ok\n c2 add c 6..10 refused\n c1 list 20..21 ok = a b",
        );
    }

    #[test]
    fn far_from_the_limit_or_without_one_it_says_nothing() {
        silent(check, "limit 9\n c1 add a 0..5 ok\n c2 add b 1..6 ok");
        silent(check, "c1 add a 0..5 ok\n c2 add b 1..6 ok");
        silent(check, "limit 1\n c1 add a 0..1 ok\n c1 add b 2..3 refused");
    }
}

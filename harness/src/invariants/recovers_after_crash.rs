//! After a kill at any point the next operation succeeds, with no hand to clean up.
//!
//! Judged in executions in which operations run one after another: all operations after one that was killed, or that
//! failed because of an injected fault, end and are acknowledged, or refused because of the store's own limit, up to
//! the next kill. Busy is no success, because no other client runs. In executions with overlapping clients a failure
//! after a kill leaves a doubt, because a race may have caused it; so does an operation that waits for a lock,
//! because locks end with their owner. Typical causes: a lock file that survives its owner, a half-written file that
//! is taken for corruption.
//!
//! Example: a killed client leaves `store.lock`, made with O_EXCL, and every later `add` waits for it until it gives
//! up.

use crate::catalogue::headline;
use crate::evidence::Evidence;
use crate::invariants::{Invariant, Needs};
use crate::observation::Observation;
use crate::op::{Limit, Operation, Outcome, Request};
use crate::verdict::Judgement;

pub(super) const INVARIANT: Invariant = Invariant {
    id: "recovers-after-crash",
    statement: headline(include_str!("recovers_after_crash.rs")),
    source: include_str!("recovers_after_crash.rs"),
    needs: Needs::Nothing,
    evidence: &[Evidence::KillPoints],
    unjudged: "no operation was killed, or failed for a fault, and followed by another",
    check,
};

fn check(observation: &Observation) -> Judgement {
    let mut judged = false;
    let struck =
        observation.operations.iter().filter(|one| one.outcome == Outcome::Killed || one.was_failed());
    for killed in struck {
        for next in beside(killed, observation).chain(after(killed, observation)) {
            judged = true;
            if let Some(ended) = failure(next, observation) {
                let how = match &killed.fault {
                    None => format!("the kill of {}", killed.request),
                    Some(fault) => format!("{} failed with {fault}", killed.request),
                };
                let seen = format!("after {how}, {} {ended}", next.request);
                return blame(seen, next, observation);
            }
        }
    }
    if let Some(doubt) = observation.doubt_of_unreadable().filter(|_| judged) {
        return Judgement::Inconclusive(doubt);
    }
    if judged { Judgement::Holds } else { Judgement::NotExercised }
}

/// Returns the operations that started while the killed one was held and did not end. They may find the store busy, but
/// must end.
fn beside<'a>(killed: &Operation, observation: &'a Observation) -> impl Iterator<Item = &'a Operation> {
    let held = killed.still.map(|still| (still, killed.returned));
    let is_beside = move |other: &&Operation| {
        held.is_some_and(|(from, to)| other.invoked >= from && other.invoked < to && other.hung())
    };
    observation.operations.iter().filter(is_beside)
}

/// Returns the operations that must succeed after a kill. If all ran one after another, these are all up to the next
/// kill; otherwise the first that began after all running ones had ended, and after a `recover` the one after it too.
fn after<'a>(killed: &Operation, observation: &'a Observation) -> Vec<&'a Operation> {
    let later = observation.operations.iter().filter(|next| next.invoked >= killed.returned);
    if observation.is_sequential() {
        return later.take_while(|next| next.outcome != Outcome::Killed).collect();
    }
    let in_peace = later
        .skip_while(|next| !observation.operations.iter().all(|other| began_later_or_ended(other, next)))
        .collect::<Vec<_>>();
    let count = match in_peace.first() {
        Some(first) if first.request == Request::Recover => 2,
        _ => 1,
    };
    // An operation that found the store busy while a later one ran is no evidence.
    let is_alone = |next: &&Operation| {
        !observation.operations.iter().any(|other| !std::ptr::eq(other, *next) && other.overlaps(next))
    };
    let tells = |next: &&Operation| match next.outcome {
        Outcome::Killed => false,
        Outcome::Busy => is_alone(next),
        _ => true,
    };
    in_peace.into_iter().take(count).filter(tells).collect()
}

/// Judges a failure after a kill.
fn blame(seen: String, next: &Operation, observation: &Observation) -> Judgement {
    match next.outcome {
        Outcome::Unfinished(Limit::Timeout) | Outcome::Stuck if observation.waits_for_locks() => {
            // The kernel released the locks of the killed process, so this would have happened without the kill too.
            Judgement::Inconclusive(format!("{seen}; it waits for a lock, which is judged by no-deadlock"))
        }
        Outcome::Unfinished(limit) if limit != Limit::Timeout => {
            Judgement::Inconclusive(format!("{seen}; an adapter file can raise limits.{limit}"))
        }
        _ if observation.is_sequential() => Judgement::Violated(seen),
        _ => Judgement::Inconclusive(format!(
            "{seen}; other clients were at work too, so a race may have caused it"
        )),
    }
}

fn began_later_or_ended(other: &Operation, next: &Operation) -> bool {
    other.invoked >= next.invoked || other.returned <= next.invoked
}

/// Describes how `next` failed; `None` if it succeeded.
fn failure(next: &Operation, observation: &Observation) -> Option<String> {
    let why = if next.stderr.is_empty() { String::new() } else { format!(": {}", next.stderr) };
    match &next.outcome {
        Outcome::Acknowledged | Outcome::Killed => None,
        // An add beyond the limit is refused whatever was killed before.
        Outcome::Refused if observation.may_be_full(next) => None,
        Outcome::Refused => Some(format!("was refused{why}")),
        Outcome::Busy => Some(format!("found the store busy, although no other client ran{why}")),
        Outcome::Failed(status) => Some(format!("failed ({status}){why}")),
        Outcome::Unfinished(limit) => Some(format!("did not end within its {limit} limit{why}")),
        Outcome::Stuck => Some(format!("could not go on{why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::timeline::{doubtful, holds, silent, violated};
    use super::check;

    #[test]
    fn the_next_operation_succeeds() {
        holds(check, "c1 add a 0..10 killed\n c1 add b 20..30 ok");
        holds(check, "limit 1\n c1 add a 0..10 killed\n c1 add b 20..30 refused");
        holds(check, "c1 add a 0..10 killed\n c1 recover 20..30 ok\n c1 add b 40..50 ok");
    }

    #[test]
    fn a_next_operation_that_fails_finds_the_store_busy_or_hangs_violates() {
        for end in ["failed", "busy", "timeout"] {
            violated(
                check,
                "after the kill of add a",
                &format!("c1 add a 0..10 killed\n c1 add b 20..30 {end}"),
            );
        }
        violated(check, "list", "c1 add a 0..10 killed\n c1 list 20..30 failed");
    }

    /// A store that reports busy, killed beside two other clients: the second started next, and the third got the lock
    /// first.
    #[test]
    fn who_finds_the_store_busy_beside_one_that_came_later_says_nothing() {
        let crowd = "c1 add a 0..10 killed\n c2 add x 5..12 ok\n";
        silent(check, &format!("{crowd} c2 add b 20..30 busy\n c3 add c 22..28 ok"));
        doubtful(check, &format!("{crowd} c2 add b 20..30 busy"));
    }

    #[test]
    fn a_refusal_without_a_limit_that_may_be_reached_violates() {
        violated(check, "was refused", "c1 add a 0..10 killed\n c1 add b 20..30 refused");
        violated(check, "was refused", "limit 2\n c1 add a 0..10 killed\n c1 add b 20..30 refused");
    }

    #[test]
    fn a_recover_that_succeeds_does_not_make_up_for_a_failure_after_it() {
        let killed = "c1 add a 0..10 killed\n c1 recover 20..30 ok\n";
        violated(check, "add b failed", &format!("{killed} c1 add b 40..50 failed"));
        violated(check, "recover", "c1 add a 0..10 killed\n c1 recover 20..30 failed\n c1 add b 40..50 ok");
    }

    #[test]
    fn a_store_that_cannot_be_listed_any_more_after_a_kill_violates() {
        let killed = "c1 add a 0..10 ok\n c1 add b 20..30 killed\n c1 add c 40..50 ok\n";
        violated(check, "list failed", &format!("{killed} c1 list 60..70 failed"));
    }

    #[test]
    fn one_that_waits_for_a_lock_is_left_to_the_judge_of_deadlocks() {
        use crate::observation::{Holder, Standstill, Waiting, WantedLock};
        let mut observation =
            super::super::timeline::observe("c1 add a 0..10 killed\n c1 add b 20..30 timeout");
        let wants = vec![WantedLock { file: "l".into(), holders: vec![Holder::Client(1)] }];
        let clients = vec![Waiting { client: 1, wants, wholly: true }];
        observation.standstill = Some(Standstill { client: 1, steady: true, clients });
        assert!(matches!(check(&observation), crate::verdict::Judgement::Inconclusive(_)));
    }

    #[test]
    fn among_overlapping_clients_a_failure_leaves_a_doubt() {
        doubtful(check, "c1 add a 0..10 killed\n c2 add c 5..15 ok\n c1 add b 20..30 failed");
        holds(check, "c1 add a 0..10 killed\n c2 add c 5..15 ok\n c1 add b 20..30 ok");
        // An operation that began while others ran may have lost the race against them.
        silent(check, "c1 add a 0..10 killed\n c2 add c 5..25 ok\n c1 add b 20..30 failed");
    }

    #[test]
    fn without_a_kill_or_a_next_operation_nothing_is_said() {
        silent(check, "c1 add a 0..10 ok\n c1 add b 20..30 failed");
        silent(check, "c1 add a 0..10 killed");
        silent(check, "c1 add a 0..10 killed\n c1 add b 20..30 killed");
    }
}

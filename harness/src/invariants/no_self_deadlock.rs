//! No client waits for a lock that it holds itself, by another descriptor, thread or child.
//!
//! Under the tracer no client waits for a lock in the kernel: a client that requests a held lock is stopped, so a
//! state in which no client can continue is detected at once, without a time limit. A client that then waits for a
//! lock held by one of its own processes waits for itself: through a second descriptor, in another thread, or
//! because its child waits for a lock of the parent, which waits for the child. A client with an armed timer can
//! still continue and is allowed to. Typical causes: a helper that takes the lock of its caller, a command started
//! under the lock that takes the lock.
//!
//! Example: `add` holds the lock and calls a function that opens the lock file again and waits for it.

use crate::catalogue::headline;
use crate::evidence::Evidence;
use crate::invariants::{Invariant, Needs};
use crate::observation::{Holder, Observation, Waiting};
use crate::op::Operation;
use crate::verdict::Judgement;

pub(super) const INVARIANT: Invariant = Invariant {
    id: "no-self-deadlock",
    statement: headline(include_str!("no_self_deadlock.rs")),
    source: include_str!("no_self_deadlock.rs"),
    needs: Needs::Nothing,
    evidence: &[Evidence::Reentries, Evidence::HeldPoints],
    unjudged: "no operation ran to its end under the tracer",
    check,
};

fn check(observation: &Observation) -> Judgement {
    let steady = observation.standstill.as_ref().filter(|standstill| standstill.steady);
    let waits_for_itself = steady.and_then(|standstill| {
        let wholly = standstill.clients.iter().filter(|waiting| waiting.wholly);
        wholly.map(|waiting| (waiting, own_lock(waiting))).find_map(|(waiting, own)| Some((waiting, own?)))
    });
    if let Some((waiting, file)) = waits_for_itself {
        return Judgement::Violated(format!(
            "client {} waits for the lock on {file}, which it holds itself",
            waiting.client
        ));
    }
    let mut hung = observation.operations.iter().filter(|operation| operation.hung()).peekable();
    if hung.peek().is_some() {
        let is_unseen =
            |late: &&Operation| observation.standstill.is_none() && !observation.asked_in_vain(late);
        return hung.find(is_unseen).map_or(Judgement::NotExercised, |late| {
            Judgement::Inconclusive(format!(
                "{} did not end, and what it waits for was not seen",
                late.request
            ))
        });
    }
    if observation.traces.iter().any(|trace| trace.is_whole) {
        Judgement::Holds
    } else {
        Judgement::NotExercised
    }
}

/// Returns the file of a lock that a client wants and only it holds. If others hold it too, for example if two readers
/// want to write, its own lock need not be the one that blocks it.
pub(super) fn own_lock(waiting: &Waiting) -> Option<&str> {
    let is_own = |holder: &Holder| *holder == Holder::Client(waiting.client);
    let wanted =
        waiting.wants.iter().find(|wanted| !wanted.holders.is_empty() && wanted.holders.iter().all(is_own));
    wanted.map(|wanted| wanted.file.as_str())
}

#[cfg(test)]
mod tests {
    use super::super::timeline::{observe, observe_with};
    use super::*;
    use crate::observation::{Standstill, Trace, WantedLock};

    fn judge(holder: Holder, wholly: bool) -> Judgement {
        let mut observation = observe("c1 add a 0..10 timeout");
        let wants = vec![WantedLock { file: "l".into(), holders: vec![holder] }];
        let clients = vec![Waiting { client: 1, wants, wholly }];
        observation.standstill = Some(Standstill { client: 1, steady: true, clients });
        check(&observation)
    }

    #[test]
    fn a_client_that_waits_for_its_own_lock_violates() {
        assert!(
            matches!(judge(Holder::Client(1), true), Judgement::Violated(seen) if seen.contains("itself"))
        );
    }

    /// Two readers wanted an exclusive lock: each was reported to wait for its own shared lock.
    #[test]
    fn of_two_readers_that_want_to_write_neither_waits_for_itself() {
        let mut observation = observe("c1 add a 0..10 timeout");
        let holders = vec![Holder::Client(1), Holder::Client(2)];
        let wants = vec![WantedLock { file: "l".into(), holders }];
        let clients = vec![Waiting { client: 1, wants, wholly: true }];
        observation.standstill = Some(Standstill { client: 1, steady: true, clients });
        assert_eq!(check(&observation), Judgement::NotExercised);
    }

    #[test]
    fn one_that_waits_for_another_or_can_go_on_does_not() {
        assert_eq!(judge(Holder::Client(2), true), Judgement::NotExercised);
        assert_eq!(judge(Holder::Client(1), false), Judgement::NotExercised);
    }

    #[test]
    fn an_operation_that_hangs_unseen_leaves_a_doubt_and_one_that_ends_holds() {
        assert!(matches!(check(&observe("c1 add a 0..10 timeout")), Judgement::Inconclusive(_)));
        let failed = "c1 add a 0..10 timeout with flock-enolck";
        let asks_on = observe_with(failed, "1 refused ex 1\n 1 refused ex 1");
        assert_eq!(check(&asks_on), Judgement::NotExercised, "it asks on for a lock that picklock lets fail");
        let beside = format!("{failed}\n c2 add b 0..10 timeout");
        let hangs = check(&observe_with(&beside, "1 refused ex 1\n 1 refused ex 1"));
        assert!(matches!(hangs, Judgement::Inconclusive(_)), "another hangs unseen");
        let mut whole = observe("c1 add a 0..10 ok");
        whole.traces = vec![Trace { is_whole: true, ..Trace::default() }];
        assert_eq!(check(&whole), Judgement::Holds);
    }
}

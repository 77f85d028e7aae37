//! No set of clients waits for each other for ever.
//!
//! Under the tracer a deadlock is detected at once, without a time limit, when no client can continue. Elsewhere a
//! client that runs past its time limit is judged by two looks at what it waits for. It is a deadlock only if all of
//! its processes and threads wait for locks whose holders wait too or have ended; a client that waits for anything
//! else did not finish, and nothing is concluded. A client that waits for itself is judged by `no-self-deadlock`.
//! Typical causes: two locks taken in two orders, an upgrade from shared to exclusive.
//!
//! Example: client 1 holds `a.lock` and waits for `b.lock`, client 2 holds `b.lock` and waits for `a.lock`.

use std::collections::BTreeSet;

use crate::catalogue::headline;
use crate::evidence::Evidence;
use crate::invariants::no_self_deadlock::own_lock;
use crate::invariants::{Invariant, Needs};
use crate::observation::{Holder, Observation, Standstill, Waiting};
use crate::op::{ClientId, Operation};
use crate::verdict::Judgement;

pub(super) const INVARIANT: Invariant = Invariant {
    id: "no-deadlock",
    statement: headline(include_str!("no_deadlock.rs")),
    source: include_str!("no_deadlock.rs"),
    needs: Needs::Nothing,
    evidence: &[Evidence::HeldPoints],
    unjudged: "no two operations overlapped",
    check,
};

fn check(observation: &Observation) -> Judgement {
    let is_late = |operation: &&Operation| operation.hung() && !observation.asked_in_vain(operation);
    let late = observation.operations.iter().find(is_late);
    match (late, &observation.standstill) {
        (Some(_), Some(standstill))
            if standstill.steady && deadlocked(standstill).contains(&standstill.client) =>
        {
            match is_of_one_alone(standstill) {
                // The others wait for a client that waits for itself.
                true => Judgement::NotExercised,
                false => Judgement::Violated(tell(standstill)),
            }
        }
        (Some(late), _) => Judgement::Inconclusive(format!(
            "{} of client {} did not end within its limit, and it was not seen to wait for a lock whose holders wait \
             too or have ended",
            late.request, late.client
        )),
        (None, _) if observation.operations.iter().any(Operation::hung) => Judgement::NotExercised,
        (None, _) if observation.adds_overlapped() => Judgement::Holds,
        (None, _) => Judgement::NotExercised,
    }
}

/// Returns whether only clients that wait for themselves cause the deadlock: without them no client would be stuck.
fn is_of_one_alone(standstill: &Standstill) -> bool {
    let others = standstill.clients.iter().filter(|waiting| own_lock(waiting).is_none()).cloned();
    let rest = Standstill { clients: others.collect(), ..standstill.clone() };
    rest.clients.len() < standstill.clients.len() && deadlocked(&rest).is_empty()
}

/// Returns the clients that cannot continue: the largest set in which each waits wholly, and every holder of the locks
/// it waits for is in the set or has ended.
fn deadlocked(standstill: &Standstill) -> BTreeSet<ClientId> {
    let waits = |waiting: &&Waiting| waiting.wholly && !waiting.wants.is_empty();
    let mut stuck: BTreeSet<ClientId> =
        standstill.clients.iter().filter(waits).map(|waiting| waiting.client).collect();
    loop {
        let freed: Vec<ClientId> = standstill
            .clients
            .iter()
            .filter(|waiting| stuck.contains(&waiting.client))
            .filter(|waiting| {
                waiting.wants.iter().any(|wanted| {
                    wanted.holders.is_empty()
                        || wanted.holders.iter().any(|holder| match holder {
                            Holder::Client(client) => !stuck.contains(client),
                            Holder::Ended => false,
                            Holder::Other => true,
                        })
                })
            })
            .map(|waiting| waiting.client)
            .collect();
        if freed.is_empty() {
            return stuck;
        }
        stuck.retain(|client| !freed.contains(client));
    }
}

/// Describes which client holds and wants which lock.
fn tell(standstill: &Standstill) -> String {
    let stuck = deadlocked(standstill);
    let clients = standstill.clients.iter().filter(|waiting| stuck.contains(&waiting.client));
    let sentences = clients.flat_map(|waiting| {
        waiting.wants.iter().map(move |wanted| {
            let holders: Vec<String> = wanted
                .holders
                .iter()
                .map(|holder| match holder {
                    Holder::Client(client) if *client == waiting.client => "itself".to_owned(),
                    Holder::Client(client) => format!("client {client}"),
                    Holder::Ended => "a process that has ended".to_owned(),
                    Holder::Other => "another process".to_owned(),
                })
                .collect();
            format!("client {} waits for {}, held by {}", waiting.client, wanted.file, holders.join(" and "))
        })
    });
    sentences.take(4).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::super::timeline::{observe, observe_with};
    use super::*;
    use crate::observation::WantedLock;

    fn waiting(client: ClientId, wholly: bool, holders: &[Holder]) -> Waiting {
        let wants = vec![WantedLock { file: "l".into(), holders: holders.to_vec() }];
        Waiting { client, wants, wholly }
    }

    fn judged(steady: bool, clients: Vec<Waiting>) -> Judgement {
        let mut observation = observe("c1 add a 0..1000 timeout\n c2 add b 5..1000 timeout");
        observation.standstill = Some(Standstill { client: 1, steady, clients });
        check(&observation)
    }

    #[track_caller]
    fn is_deadlock(clients: Vec<Waiting>) {
        assert!(matches!(judged(true, clients), Judgement::Violated(_)));
    }

    #[track_caller]
    fn is_doubt(steady: bool, clients: Vec<Waiting>) {
        assert!(matches!(judged(steady, clients), Judgement::Inconclusive(_)));
    }

    #[test]
    fn a_cycle_and_a_wait_for_the_dead_are_deadlocks() {
        is_deadlock(vec![waiting(1, true, &[Holder::Client(2)]), waiting(2, true, &[Holder::Client(1)])]);
        is_deadlock(vec![waiting(1, true, &[Holder::Ended])]);
    }

    #[test]
    fn a_wait_for_oneself_is_another_judge_s_and_so_are_those_who_wait_for_that_one() {
        let alone = vec![waiting(1, true, &[Holder::Client(1)])];
        assert_eq!(judged(true, alone), Judgement::NotExercised);
        let with_another =
            vec![waiting(1, true, &[Holder::Client(2)]), waiting(2, true, &[Holder::Client(2)])];
        assert_eq!(judged(true, with_another), Judgement::NotExercised);
    }

    #[test]
    fn a_wait_for_somebody_who_can_go_on_is_none() {
        is_doubt(true, vec![waiting(1, true, &[Holder::Other])]);
        is_doubt(true, vec![waiting(1, true, &[Holder::Client(2)])]);
        is_doubt(true, vec![waiting(1, true, &[Holder::Client(2)]), waiting(2, false, &[Holder::Client(1)])]);
        is_doubt(true, vec![waiting(1, true, &[])]);
        is_doubt(true, vec![Waiting { client: 1, wants: vec![], wholly: true }]);
    }

    #[test]
    fn what_was_not_seen_twice_or_not_wholly_is_none() {
        is_doubt(false, vec![waiting(1, true, &[Holder::Client(1)])]);
        is_doubt(true, vec![waiting(1, false, &[Holder::Client(1)])]);
    }

    /// SQLite takes an unavailable lock server (`ENOLCK`) for another lock holder, and retries until its busy timeout
    /// expires: this left a doubt that no budget could settle.
    #[test]
    fn who_asks_on_for_a_lock_that_picklock_lets_fail_waits_for_nobody() {
        let failed = "c1 add a 0..1000 timeout with flock-enolck";
        let asks_on = "1 lock ex 2\n 1 refused ex 1\n 1 stat db\n 1 refused ex 1";
        let judged = |operations: &str, calls: &str| check(&observe_with(operations, calls));
        assert_eq!(judged(failed, asks_on), Judgement::NotExercised);
        assert_eq!(judged(&format!("{failed}\n c2 add b 5..15 ok"), asks_on), Judgement::NotExercised);
        let is_doubt = |operations: &str, calls: &str| {
            assert!(matches!(judged(operations, calls), Judgement::Inconclusive(_)), "{operations}: {calls}");
        };
        is_doubt(&format!("{failed}\n c2 add b 5..1000 timeout"), asks_on);
        // It had the lock, or did not request it: it waits for something else.
        is_doubt(failed, "1 refused ex 1\n 1 lock ex 1");
        is_doubt(failed, "1 refused ex 1\n 1 refused ex 1\n 1 lock ex 2");
        is_doubt(failed, "1 refused ex 1\n 1 stat db");
        is_doubt("c1 add a 0..1000 timeout with write-enospc", asks_on);
        is_doubt("c1 add a 0..1000 timeout", asks_on);
    }

    #[test]
    fn the_sentence_says_who_holds_what_and_wants_what() {
        let clients = vec![waiting(1, true, &[Holder::Client(2)]), waiting(2, true, &[Holder::Client(1)])];
        let Judgement::Violated(seen) = judged(true, clients) else { panic!("a cycle is a deadlock") };
        assert_eq!(seen, "client 1 waits for l, held by client 2; client 2 waits for l, held by client 1");
    }

    #[test]
    fn overlapping_clients_that_all_ended_hold_and_single_ones_say_nothing() {
        assert_eq!(check(&observe("c1 add a 0..10 ok\n c2 add b 5..15 ok")), Judgement::Holds);
        assert_eq!(check(&observe("c1 add a 0..10 ok\n c2 add b 15..20 ok")), Judgement::NotExercised);
    }
}

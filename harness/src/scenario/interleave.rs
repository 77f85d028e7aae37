//! Systematic exploration of schedules, then random ones.
//!
//! picklock is the scheduler: each client stops at every visible call, and goes on when it is its turn. Of all schedules
//! those are run that differ in more than the order of calls that do not touch the same name, file or lock, invocations
//! and returns of operations among them; so that where all of those were run, all schedules are judged. Two clients and
//! then three add at once, to a store with a record, and two to an empty one; one adds beside each other operation; every
//! two of the other operations run together, also two of one kind, and then with an add beside them; two add twice. Where `add` names the client, each has added once before, but for the first records.
//! A lock that is taken is waited for outside the kernel, so that it is seen at once when nobody can go on. A sleep takes
//! no time: the clock of the clients runs ahead by it, and who sleeps after it has found nothing changed sleeps on until
//! something is. Where there are more schedules than the budget allows, those with few preemptions come first, and then
//! some at random.
//!
//! Example: `picklock check --only interleave --clients 2 --ops 1` on a store that reads before it locks finds the one
//! order that loses an update.

use crate::catalogue::headline;
use crate::op::{ClientId, Request, record_name};
use crate::scenario::Scenario;
use crate::scenario::crash::{add, after};
use crate::scenario::script::{Act, Interleaving, KillAt, Script};

pub(super) const SCENARIO: Scenario = Scenario {
    id: "interleave",
    statement: headline(include_str!("interleave.rs")),
    source: include_str!("interleave.rs"),
};

/// Default number of concurrent clients.
pub const CLIENTS: u32 = 3;
/// Maximum number of clients scheduled at once.
pub const CLIENTS_MAX: u32 = 4;
/// Maximum number of operations of one client.
pub const OPERATIONS_MAX: u32 = 3;
/// Largest record limit up to which the store is filled for each schedule.
pub const FILLED_MAX: u32 = 50;
/// Number of times that a client may continue after a sleep without a change, if it sleeps at all: as often as leases
/// of a few heartbeats do.
pub const WAKES: u32 = 4;

/// Clients that run together, on one schedule after another.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Description of the plan.
    pub what: String,
    /// Records added before the clients start, and by which client.
    pub before: Vec<(ClientId, Request)>,
    /// The requests of each client, in order.
    pub clients: Vec<Vec<Request>>,
    /// Whether the store is empty, as `init` left it.
    pub is_from_nothing: bool,
    /// How often each client may continue after a sleep without a change.
    pub wakes: u32,
}

impl Plan {
    /// Returns the execution of this plan on a schedule, optionally with a kill.
    pub fn script(&self, schedule: Vec<u32>, kill: Option<KillAt>) -> Script {
        let clients = self.clients.clone();
        let added =
            self.clients.iter().flatten().chain(self.before.iter().map(|(_, request)| request)).filter_map(
                |request| match request {
                    Request::Add { number, .. } | Request::AddGuarded { number, .. } => Some(*number),
                    _ => None,
                },
            );
        let next = added.max().map_or(2, |number| number + 1);
        let start = self.is_from_nothing.then_some(Act::Anew);
        let before = self.before.iter().cloned().map(|(client, request)| Act::OperateAs { client, request });
        let interleaving = Act::Interleave(Interleaving {
            clients,
            wakes: self.wakes,
            kill,
            schedule,
            ignores_real_time: false,
        });
        let then = if kill.is_some() { [vec![Act::Recover], after(next)].concat() } else { vec![Act::List] };
        Script { acts: start.into_iter().chain(before).chain([interleaving]).chain(then).collect() }
    }
}

/// Lists the plans: adds alone, then concurrently with all other operations of the store.
pub fn plans(
    requests: &[Request],
    clients: u32,
    operations: Option<u32>,
    limit: Option<Limited>,
    has_places: bool,
) -> Vec<Plan> {
    let clients = clients.clamp(1, CLIENTS_MAX);
    // Clients with a place of their own in the store make it before the others look for it; making it is a separate
    // plan.
    let settled = if has_places { clients } else { 1 };
    // Each client has its own records, those of its first operations first.
    let adds = |clients: u32, operations: u32, from: u32| -> Vec<Vec<Request>> {
        let of = |client: u32| (0..operations).map(|place| add(from + place * clients + client)).collect();
        (0..clients).map(of).collect()
    };
    let plan = |what: String, clients: Vec<Vec<Request>>, is_from_nothing: bool| Plan {
        what,
        before: match is_from_nothing {
            true => Vec::new(),
            false => (2..=settled).map(|client| (client, add(client))).collect(),
        },
        clients,
        is_from_nothing,
        wakes: 0,
    };
    let next = settled + 1;
    let of_clients = |count: u32| if count == 1 { "1 client".to_owned() } else { format!("{count} clients") };
    let adding = |count: u32| {
        if count == 1 { "1 client that adds".to_owned() } else { format!("{count} clients that add") }
    };
    let each = operations.unwrap_or(1).clamp(1, OPERATIONS_MAX);
    let of_each = if each == 1 { String::new() } else { format!(" with {each} adds each") };
    let mut all = Vec::new();
    // Two clients find most of the problems, sooner and in fewer steps than three.
    if clients > 2 {
        all.push(plan(format!("{}{of_each} that add", of_clients(2)), adds(2, each, next), false));
    }
    all.push(plan(format!("{}{of_each} that add", of_clients(clients)), adds(clients, each, next), false));
    all.extend(limit.filter(|_| clients > 1).and_then(at_the_limit));
    if clients > 1 {
        all.push(plan("2 clients that add the first records".to_owned(), adds(2, 1, 1), true));
    }
    let others: Vec<&Request> =
        requests.iter().filter(|request| !matches!(request, Request::Add { .. })).collect();
    let with = |adding: u32, does: &[&Request]| {
        let mut all_clients = adds(adding, 1, next);
        all_clients.extend(does.iter().map(|request| vec![(*request).clone()]));
        all_clients
    };
    if clients > 1 {
        for other in &others {
            all.push(plan(format!("{} beside one that does {other}", adding(1)), with(1, &[other]), false));
        }
        // An operation that is harmless concurrently with an add may harm another one, or one of its own kind.
        for (at, one) in others.iter().enumerate() {
            for other in &others[at..] {
                all.push(plan(format!("2 clients that do {one} and {other}"), with(0, &[one, other]), false));
            }
        }
    }
    if clients > 2 {
        for other in &others {
            all.push(plan(format!("{} beside one that does {other}", adding(2)), with(2, &[other]), false));
        }
        for (at, one) in others.iter().enumerate() {
            for other in &others[at..] {
                let what = format!("{} beside two that do {one} and {other}", adding(1));
                all.push(plan(what, with(1, &[one, other]), false));
            }
        }
    }
    if clients > 1 && operations.is_none() {
        all.push(plan("2 clients that add twice".to_owned(), adds(2, 2, next), false));
    }
    all
}

/// A store with a maximum number of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// The maximum.
    pub limit: u32,
    /// Whether the limit applies to a separate form of `add`.
    pub has_own_form: bool,
}

/// Two clients that see room for one record.
fn at_the_limit(Limited { limit, has_own_form }: Limited) -> Option<Plan> {
    let guarded = |number| match has_own_form {
        true => Request::AddGuarded { record: record_name(number), number },
        false => add(number),
    };
    let is_from_nothing = limit == 1;
    let first = if is_from_nothing { 1 } else { 2 };
    (1..=FILLED_MAX).contains(&limit).then(|| Plan {
        what: format!("2 clients that add where one more is taken, of {limit}"),
        before: (first..limit).map(|number| (1, add(number))).collect(),
        clients: vec![vec![guarded(limit.max(first))], vec![guarded(limit.max(first) + 1)]],
        is_from_nothing,
        wakes: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_with_a_limit_is_filled_up_to_one_before_it_comes() {
        let plan = at_the_limit(Limited { limit: 3, has_own_form: true }).unwrap();
        assert_eq!((plan.before, plan.clients.len()), (vec![(1, add(2))], 2));
        let of_one = at_the_limit(Limited { limit: 1, has_own_form: false }).unwrap();
        assert!(of_one.is_from_nothing && of_one.before.is_empty() && of_one.clients == [[add(1)], [add(2)]]);
    }

    /// For sharded writers, thousands of orders were explored of other clients looking for the files that each makes
    /// once.
    #[test]
    fn clients_with_places_of_their_own_have_added_once_but_where_the_first_records_are_added() {
        let all = plans(&[add(2), Request::List], 3, None, None, true);
        let settled = vec![(2, add(2)), (3, add(3))];
        assert_eq!(all[0].clients.len(), 2);
        assert_eq!(
            (&all[1].before, &all[1].clients),
            (&settled, &vec![vec![add(4)], vec![add(5)], vec![add(6)]])
        );
        assert!(all[2].is_from_nothing && all[2].before.is_empty());
        assert!(all[3..].iter().all(|plan| plan.before == settled));
    }

    /// Two rotations that had both looked before they locked, and an add between them, lost records: no plan had two
    /// operations of one kind.
    #[test]
    fn every_operation_comes_beside_itself_and_every_other() {
        let rotate = || Request::Other("rotate".into());
        let all = plans(&[add(2), Request::List, rotate()], 3, None, None, false);
        let others = |plan: &Plan| -> Vec<String> {
            let all = plan.clients.iter().flatten().filter(|one| !matches!(one, Request::Add { .. }));
            all.map(ToString::to_string).collect()
        };
        for pair in [["list", "list"], ["list", "rotate"], ["rotate", "rotate"]] {
            let beside: Vec<usize> =
                all.iter().filter(|plan| others(plan) == pair).map(|plan| plan.clients.len()).collect();
            assert_eq!(beside, [2, 3], "{pair:?}");
        }
    }

    #[test]
    fn no_record_is_added_twice_and_clients_of_one_operation_come_first() {
        for plan in plans(&[add(2), Request::List], 3, None, None, false) {
            let mut names: Vec<String> = plan
                .clients
                .iter()
                .flatten()
                .filter(|one| **one != Request::List)
                .map(ToString::to_string)
                .collect();
            let count = names.len();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), count, "{}", plan.what);
        }
        let all = plans(&[add(2), Request::List], 3, None, None, false);
        assert_eq!(all.len(), 8);
        assert!(all[2].is_from_nothing && all[0].clients.len() == 2 && all[1].clients.len() == 3);
        assert_eq!(plans(&[], 2, Some(2), None, false)[0].clients, [[add(2), add(4)], [add(3), add(5)]]);
    }
}

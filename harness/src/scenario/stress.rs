//! Many clients at full speed, unlocked readers beside them, random kill -9 among them.
//!
//! Two kinds of rounds take turns, each in a fresh sandbox. In a `crowd` all clients are at work at once, and a
//! seeded share of their operations is killed at a random moment (of a store that has `recover` none, since that must
//! come with no other client running); afterwards the store is looked at in peace. A
//! `lone` client does one operation after another, half of them killed, five times each at about the same point: there
//! what goes wrong comes of the kill and of nothing else. The plan depends on the seed alone; at which call a kill lands depends on the machine.
//!
//! Example: `picklock check --only stress --clients 16 --ops 500` runs long and hard, and tells nothing of what needs
//! a rare moment.

use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;

use crate::catalogue::headline;
use crate::op::{ClientId, Request, record_name, stable_hash};
use crate::scenario::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    id: "stress",
    statement: headline(include_str!("stress.rs")),
    source: include_str!("stress.rs"),
};

/// Default number of concurrent clients.
pub const CLIENTS: u32 = 8;
/// Default number of operations per client over all crowds.
pub const OPERATIONS: u32 = 100;
/// Operations per client in one crowd: few enough to inspect the store in between, many enough that waiting for the
/// last one costs little.
const OPERATIONS_PER_CROWD: u32 = 25;
/// One operation in this many in a crowd is killed.
const ONE_KILL_IN: u32 = 10;
/// One operation in this many in a crowd is not an `add` but a `list`, or one of `[ops.other]`.
const ONE_OTHER_IN: u32 = 12;
/// Kills of a lone client at the same point, because `no-residue` compares five at one point.
const KILLS_ALIKE: u32 = 5;
/// Points per round at which a lone client is killed.
const POINTS_PER_LONE: u32 = 4;
/// Rounds with a lone client.
const LONES: u32 = 3;

/// Plan of the whole scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Rounds, in execution order.
    pub rounds: Vec<Round>,
}

/// One execution, in a sandbox of its own.
#[derive(Clone, Debug, PartialEq)]
pub enum Round {
    /// All clients concurrently, with the steps of each.
    Crowd(Vec<(ClientId, Vec<Step>)>),
    /// One client, one step after another.
    Lone(Vec<Step>),
}

/// One planned operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The request.
    pub request: Request,
    /// When it is killed, as a fraction of its work on the store's folder: 0 at its first access, 1 at its end.
    pub kill: Option<f64>,
}

/// Properties of a target that the plan depends on.
#[derive(Clone, Debug, Default)]
pub struct Repertoire {
    /// Whether it has `list`.
    pub list: bool,
    /// Names of `[ops.other]`.
    pub other: Vec<String>,
    /// Whether `recover` must follow a kill while no other client runs; if so, no operation is killed in a crowd.
    pub recover: bool,
    /// Maximum number of records that can be added, if the target limits them.
    pub limit: Option<u32>,
}

impl Plan {
    /// Computes the plan for this seed; the result is deterministic.
    pub fn new(seed: u64, clients: u32, operations: u32, repertoire: &Repertoire) -> Self {
        let mut chance = Pcg64Mcg::seed_from_u64(seed);
        let crowds = operations.div_ceil(OPERATIONS_PER_CROWD);
        let mut rounds = Vec::new();
        for index in 0..crowds.max(LONES) {
            if index < crowds {
                let steps = OPERATIONS_PER_CROWD.min(operations - index * OPERATIONS_PER_CROWD);
                rounds.push(Round::Crowd(crowd(&mut chance, clients, steps, repertoire)));
            }
            if index < LONES {
                rounds.push(Round::Lone(lone(&mut chance, index, repertoire)));
            }
        }
        Self { rounds }
    }

    /// Returns the total number of operations.
    pub fn operations(&self) -> u64 {
        self.rounds.iter().map(Round::operations).sum()
    }

    /// Returns a short name of the plan, equal for equal plans.
    pub fn fingerprint(&self) -> String {
        format!("{:016x}", stable_hash(format!("{self:?}")))
    }
}

impl Round {
    /// Returns the highest number of any record that it adds, or 0 if it adds none.
    pub fn last_number(&self) -> u32 {
        let all: Vec<&Step> = match self {
            Self::Crowd(clients) => clients.iter().flat_map(|(_, steps)| steps).collect(),
            Self::Lone(steps) => steps.iter().collect(),
        };
        let numbers = all.into_iter().filter_map(|step| match step.request {
            Request::Add { number, .. } => Some(number),
            _ => None,
        });
        numbers.max().unwrap_or(0)
    }

    /// Returns the number of operations.
    pub fn operations(&self) -> u64 {
        match self {
            Self::Crowd(clients) => clients.iter().map(|(_, steps)| steps.len() as u64).sum(),
            Self::Lone(steps) => steps.len() as u64,
        }
    }
}

fn crowd(
    chance: &mut Pcg64Mcg,
    clients: u32,
    steps: u32,
    repertoire: &Repertoire,
) -> Vec<(ClientId, Vec<Step>)> {
    let others: Vec<Request> = repertoire
        .list
        .then_some(Request::List)
        .into_iter()
        .chain(repertoire.other.iter().cloned().map(Request::Other))
        .collect();
    let mut number = 0;
    (1..=clients)
        .map(|client| {
            let steps = (0..steps).map(|_| {
                let request = if !others.is_empty() && chance.random_range(0..ONE_OTHER_IN) == 0 {
                    others[chance.random_range(0..others.len())].clone()
                } else {
                    add(&mut number)
                };
                let is_killed = !repertoire.recover && chance.random_range(0..ONE_KILL_IN) == 0;
                let kill = is_killed.then(|| chance.random());
                Step { request, kill }
            });
            (client, steps.collect())
        })
        .collect()
}

/// Spreads the points evenly over all rounds of a lone client; each is moved at random within its share.
fn lone(chance: &mut Pcg64Mcg, index: u32, repertoire: &Repertoire) -> Vec<Step> {
    let mut number = 0;
    let mut steps = vec![Step { request: add(&mut number), kill: None }];
    // Two adds per kill: a target with a limit must not be full half way, because a refusal shows nothing.
    let room = repertoire.limit.map_or(u32::MAX, |limit| limit.saturating_sub(1) / 2);
    for point in 0..POINTS_PER_LONE {
        let share = f64::from(point * LONES + index) + chance.random::<f64>();
        let fraction = share / f64::from(POINTS_PER_LONE * LONES);
        for _ in 0..KILLS_ALIKE {
            if steps.len() as u32 / 2 < room {
                steps.push(Step { request: add(&mut number), kill: Some(fraction) });
                steps.push(Step { request: add(&mut number), kill: None });
            }
        }
    }
    steps
}

fn add(number: &mut u32) -> Request {
    *number += 1;
    Request::Add { record: record_name(*number), number: *number }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repertoire() -> Repertoire {
        Repertoire { list: true, other: vec!["rotate".into()], recover: false, limit: None }
    }

    #[test]
    fn one_seed_gives_one_plan_and_another_gives_another() {
        let plan = Plan::new(7, 8, 100, &repertoire());
        assert_eq!(plan, Plan::new(7, 8, 100, &repertoire()));
        assert_eq!(plan.fingerprint(), Plan::new(7, 8, 100, &repertoire()).fingerprint());
        assert_ne!(plan.fingerprint(), Plan::new(8, 8, 100, &repertoire()).fingerprint());
    }

    /// The report prints the fingerprint, and a bug report may quote it: a new release of the random generator must not
    /// change it unnoticed.
    #[test]
    fn the_plan_of_a_seed_stays_what_it_was() {
        assert_eq!(Plan::new(1, 2, 3, &repertoire()).fingerprint(), "cc65cfba992c736f");
    }

    #[test]
    fn every_client_does_all_its_operations_and_about_one_in_ten_is_killed() {
        let plan = Plan::new(1, 8, 1000, &repertoire());
        let crowds: Vec<_> = plan
            .rounds
            .iter()
            .filter_map(|round| match round {
                Round::Crowd(clients) => Some(clients),
                Round::Lone(_) => None,
            })
            .collect();
        let steps = || crowds.iter().flat_map(|clients| clients.iter()).flat_map(|(_, steps)| steps);
        assert_eq!(steps().count(), 8000);
        let killed = steps().filter(|step| step.kill.is_some()).count();
        assert!((600..1000).contains(&killed), "{killed}");
        assert!(steps().any(|step| step.request == Request::List));
        assert!(steps().any(|step| step.request == Request::Other("rotate".into())));
    }

    #[test]
    fn records_are_unique_within_a_round_and_of_one_length() {
        for round in Plan::new(3, 8, 60, &repertoire()).rounds {
            let steps: Vec<Step> = match round {
                Round::Crowd(clients) => clients.into_iter().flat_map(|(_, steps)| steps).collect(),
                Round::Lone(steps) => steps,
            };
            let mut names: Vec<String> = steps
                .into_iter()
                .filter_map(|step| match step.request {
                    Request::Add { record, .. } => Some(record),
                    _ => None,
                })
                .collect();
            let all = names.len();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), all);
            assert!(names.iter().all(|name| name.len() == names[0].len() && name.len() <= 24));
        }
    }

    #[test]
    fn a_limit_leaves_a_lone_client_room_for_all_its_adds() {
        let limited = Repertoire { limit: Some(5), ..repertoire() };
        for round in Plan::new(3, 2, 10, &limited).rounds {
            if let Round::Lone(steps) = round {
                assert_eq!(steps.len(), 5);
            }
        }
    }
}

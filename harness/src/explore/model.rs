//! Simulates clients with known calls, so that schedules run without processes.

use crate::explore::footprint::Footprint;
use crate::explore::sequential::Sequential;
use crate::explore::{Choice, Explorer, Pending, Step};
use crate::locks::LockTable;
use crate::op::ClientId;

use super::footprint::Locking;

/// A system in which clients make steps.
pub trait World: Clone {
    /// Returns the next step of each unfinished client, in the order of their numbers.
    fn pending(&self) -> Vec<Pending>;
    /// Executes the step of a client.
    fn make(&mut self, client: ClientId) -> Step;
}

/// Runs executions from this world until the explorer has no more or `most` were run; passes each that was not
/// abandoned to `seen`, with its final world. Returns whether the explorer is known to have no more.
pub fn run_all<W: World>(
    start: &W,
    explorer: &mut dyn Explorer,
    most: u64,
    seen: &mut dyn FnMut(&W, &[Step]),
) -> bool {
    let mut made = 0;
    loop {
        if made == most {
            return false;
        }
        if !explorer.begin() {
            return true;
        }
        made += 1;
        let mut world = start.clone();
        let mut steps = Vec::new();
        loop {
            let pending = world.pending();
            if !pending.iter().any(|one| one.is_enabled) {
                explorer.end(&pending);
                seen(&world, &steps);
                break;
            }
            match explorer.choose(&pending) {
                Choice::Go(client) => {
                    let step = world.make(client);
                    steps.push(step.clone());
                    explorer.executed(step);
                }
                Choice::Abandon => {
                    explorer.end(&pending);
                    break;
                }
            }
        }
    }
}

/// Clients whose steps do not depend on the others; a step is given by its footprint. Steps that wait for a lock block.
#[derive(Clone, Debug, Default)]
pub struct StraightLine {
    clients: Vec<Vec<Footprint>>,
    made: Vec<usize>,
    locks: LockTable,
}

impl StraightLine {
    /// Takes the clients' steps from one execution, to estimate all others.
    pub fn of(steps: &[Step]) -> Self {
        let count = steps.iter().map(|step| step.client).max().unwrap_or(0);
        let of = |client| steps.iter().filter(move |step| step.client == client);
        let clients: Vec<Vec<Footprint>> =
            (1..=count).map(|client| of(client).map(|step| step.footprint.clone()).collect()).collect();
        Self { made: vec![0; clients.len()], clients, locks: LockTable::default() }
    }

    /// Counts the classes of schedules until `most` or `is_enough`; also returns whether the count is complete.
    pub fn size(&self, most: u64, is_enough: &dyn Fn() -> bool) -> (u64, bool) {
        /// Number of executions between two checks of `is_enough`.
        const AT_ONCE: u64 = 5;
        let mut sequential = Sequential::default();
        let mut is_all = false;
        while !is_all && sequential.executions() < most && !is_enough() {
            is_all = run_all(self, &mut sequential, AT_ONCE, &mut |_, _| ());
        }
        (sequential.executions(), is_all)
    }
}

impl World for StraightLine {
    fn pending(&self) -> Vec<Pending> {
        let next = (1..).zip(self.clients.iter().zip(&self.made));
        next.filter_map(|(client, (steps, made))| {
            let footprint = steps.get(*made)?.clone();
            let is_enabled = footprint.awaited().is_none_or(|lock| self.locks.obstacles(lock).is_empty());
            Some(Pending { client, footprint, is_enabled })
        })
        .collect()
    }

    fn make(&mut self, client: ClientId) -> Step {
        let index = client as usize - 1;
        let footprint = self.clients[index][self.made[index]].clone();
        self.made[index] += 1;
        for locking in &footprint.locks {
            match locking {
                Locking::Take { lock, .. } => {
                    self.locks.take(*lock);
                }
                Locking::Free(lock) => {
                    self.locks.release(lock.file, lock.kind, lock.owner, lock.range);
                }
                Locking::Try(_) => {}
            }
        }
        Step { client, footprint }
    }
}

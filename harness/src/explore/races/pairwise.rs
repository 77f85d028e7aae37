//! Computes the same as its parent by a comparison of all pairs of steps: the oracle of the linear analysis.

use std::collections::BTreeSet;

use crate::explore::{Pending, Step};
use crate::locks::{Lock, LockTable};
use crate::op::ClientId;

use crate::explore::footprint::{Footprint, Locking};

/// A reversed race: after the steps before `at`, these clients make one step each, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::explore) struct Reversal {
    /// Number of steps that stay unchanged; the next one is the earlier step of the race.
    pub(in crate::explore) at: usize,
    /// Index of the later step; after the last step if it was never executed.
    pub(in crate::explore) later: usize,
    /// Clients of the steps that follow.
    pub(in crate::explore) clients: Vec<ClientId>,
    /// Those of them that may come first.
    pub(in crate::explore) initials: BTreeSet<ClientId>,
    /// Whether the reversal is known to be executable; if not, every client enabled at `at` must be tried.
    pub(in crate::explore) is_sure: bool,
}

/// The partial order of an execution.
pub(in crate::explore) struct Order<'a> {
    steps: &'a [Step],
    /// For each step, how many steps of each client happened before it, itself included.
    clocks: Vec<Clock>,
    /// For each step, its place among the steps of its client, from 1.
    places: Vec<u32>,
}

type Clock = Vec<u32>;

/// The later step of a race: one that was executed, or one that a blocked client would have made.
struct Later<'a> {
    client: ClientId,
    footprint: &'a Footprint,
    at: usize,
    /// Its clock, without steps that only released the lock that it waited for.
    clock: Clock,
}

impl<'a> Order<'a> {
    /// Computes the order of these steps.
    pub(in crate::explore) fn of(steps: &'a [Step]) -> Self {
        let width = steps.iter().map(|step| step.client).max().map_or(0, |client| client as usize + 1);
        let mut order = Self { steps, clocks: Vec::with_capacity(steps.len()), places: Vec::new() };
        let mut counts = vec![0; width];
        for (at, step) in steps.iter().enumerate() {
            let client = step.client as usize;
            counts[client] += 1;
            order.places.push(counts[client]);
            let mut clock = order.clock_before(at, step.client, &step.footprint, |_| true);
            clock.resize(width, 0);
            clock[client] = counts[client];
            order.clocks.push(clock);
        }
        order
    }

    /// Computes the clock of what happened before a step of this client with this footprint, after the first `at`
    /// steps.
    fn clock_before(
        &self,
        at: usize,
        client: ClientId,
        footprint: &Footprint,
        counts: impl Fn(&Step) -> bool,
    ) -> Clock {
        let mut clock: Clock = vec![0; self.clocks.first().map_or(0, Vec::len)];
        for earlier in (0..at).rev() {
            let step = &self.steps[earlier];
            if clock.get(step.client as usize).is_some_and(|known| *known >= self.places[earlier]) {
                continue;
            }
            if step.client == client || (step.footprint.conflicts(footprint) && counts(step)) {
                join(&mut clock, &self.clocks[earlier]);
            }
        }
        clock
    }

    /// Whether the step at `earlier` happened before the one at `later`.
    pub(in crate::explore) fn happens_before(&self, earlier: usize, later: usize) -> bool {
        earlier < later && self.is_in(earlier, &self.clocks[later])
    }

    fn is_in(&self, earlier: usize, clock: &Clock) -> bool {
        let client = self.steps[earlier].client as usize;
        clock.get(client).is_some_and(|known| *known >= self.places[earlier])
    }

    /// Returns the reversals of all races whose later step is not among the first `from`, including those of clients
    /// that are blocked at the end.
    pub(in crate::explore) fn reversals(&self, from: usize, blocked: &[Pending]) -> Vec<Reversal> {
        let mut all = Vec::new();
        for (at, step) in self.steps.iter().enumerate().skip(from) {
            let clock = match step.footprint.awaited() {
                Some(_) => self.without_who_admits(at, step.client, &step.footprint),
                None => self.clocks[at].clone(),
            };
            self.races_of(&Later { client: step.client, footprint: &step.footprint, at, clock }, &mut all);
        }
        for pending in blocked {
            let clock = self.without_who_admits(self.steps.len(), pending.client, &pending.footprint);
            let (client, footprint, at) = (pending.client, &pending.footprint, self.steps.len());
            self.races_of(&Later { client, footprint, at, clock }, &mut all);
        }
        all
    }

    fn without_who_admits(&self, at: usize, client: ClientId, footprint: &Footprint) -> Clock {
        self.clock_before(at, client, footprint, |step| !step.footprint.only_admits(footprint))
    }

    fn races_of(&self, later: &Later<'_>, all: &mut Vec<Reversal>) {
        for (at, step) in self.steps[..later.at].iter().enumerate() {
            let may_race = step.client != later.client
                && step.footprint.conflicts(later.footprint)
                && !step.footprint.only_admits(later.footprint);
            let has_between = || {
                (at + 1..later.at)
                    .any(|between| self.happens_before(at, between) && self.is_in(between, &later.clock))
            };
            if may_race && !has_between() {
                self.reverse(at, later, all);
            }
        }
    }

    /// Adds the reversal of a race. If the later step cannot come first because a client holds the lock that it waits
    /// for, also adds the reversal of the race for that lock: steps of the holder in between, such as another request
    /// for it without success, would hide that race.
    fn reverse(&self, at: usize, later: &Later<'_>, all: &mut Vec<Reversal>) {
        let reversal = self.reversal(at, later);
        let is_sure = reversal.is_sure;
        all.push(reversal);
        let Some(lock) = later.footprint.awaited().filter(|_| !is_sure) else { return };
        let held = self.held_after(at, &[]);
        let Some(obstacle) = held.obstacles(lock).first().copied() else { return };
        let taker = self.steps[..at].iter().rposition(|step| takes(step, &obstacle));
        if let Some(taker) = taker.filter(|taker| self.steps[*taker].client != later.client) {
            self.reverse(taker, later, all);
        }
    }

    /// Returns the reversal of a race: all steps after the one at `at` that do not depend on it, then the later step.
    fn reversal(&self, at: usize, later: &Later<'_>) -> Reversal {
        let mut kept: Vec<usize> =
            (at + 1..later.at).filter(|between| !self.happens_before(at, *between)).collect();
        let mut is_sure = true;
        // A client that holds the lock that the later step waits for, and releases it only after that step, must not
        // take it.
        while let Some(lock) = later.footprint.awaited() {
            let held = self.held_after(at, &kept);
            let obstacles = held.obstacles(lock);
            let Some(obstacle) = obstacles.first() else { break };
            let Some(taker) = kept.iter().copied().rfind(|kept| takes(&self.steps[*kept], obstacle)) else {
                is_sure = false;
                break;
            };
            kept.retain(|other| *other != taker && !self.happens_before(taker, *other));
        }
        // The earlier steps of its own client must come before it.
        is_sure &= (at + 1..later.at)
            .all(|between| self.steps[between].client != later.client || kept.contains(&between));
        let mut initials = BTreeSet::new();
        for (index, first) in kept.iter().enumerate() {
            let has_earlier = kept[..index].iter().any(|earlier| self.happens_before(*earlier, *first));
            if !has_earlier {
                initials.insert(self.steps[*first].client);
            }
        }
        let is_after_one = kept.iter().any(|kept| {
            self.is_in(*kept, &later.clock) || self.steps[*kept].footprint.conflicts(later.footprint)
        });
        if !is_after_one {
            initials.insert(later.client);
        }
        let clients = kept.iter().map(|kept| self.steps[*kept].client).chain([later.client]).collect();
        Reversal { at, later: later.at, clients, initials, is_sure }
    }

    /// Returns the locks held after the first `at` steps followed by these.
    fn held_after(&self, at: usize, then: &[usize]) -> LockTable {
        let mut table = LockTable::default();
        for step in self.steps[..at].iter().chain(then.iter().map(|index| &self.steps[*index])) {
            for locking in &step.footprint.locks {
                match locking {
                    Locking::Take { lock, .. } => {
                        table.take(*lock);
                    }
                    Locking::Free(lock) => {
                        table.release(lock.file, lock.kind, lock.owner, lock.range);
                    }
                    Locking::Try(_) => {}
                }
            }
        }
        table
    }
}

/// Whether a step takes this lock.
fn takes(step: &Step, held: &Lock) -> bool {
    step.footprint.locks.iter().any(|one| {
        matches!(one, Locking::Take { lock, .. }
            if (lock.file, lock.kind, lock.owner) == (held.file, held.kind, held.owner))
    })
}

fn join(clock: &mut Clock, other: &Clock) {
    if clock.len() < other.len() {
        clock.resize(other.len(), 0);
    }
    for (one, two) in clock.iter_mut().zip(other) {
        *one = (*one).max(*two);
    }
}

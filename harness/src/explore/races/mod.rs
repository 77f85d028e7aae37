//! Computes vector clocks and the reversible races of an execution (source-DPOR), in time linear in steps × clients.
//!
//! Implements the analysis of source-DPOR (Abdulla, Aronis, Jonsson, Sagonas, POPL 2014 and JACM 2017) over all races,
//! with one addition for blocking locks: a step that gets a lock always comes after the step that released it; the race
//! is between the two requests. Steps that release a lock are therefore ignored when the analysis determines what lies
//! between two steps.
//!
//! Only the last conflicting step of each other client can race with a step, because the earlier ones of that client
//! come before it by program order. `index` finds these without a search. `pairwise` is the same analysis by a
//! comparison of all pairs: it was the first version, took minutes for an execution of some thousand steps, and now
//! serves as the oracle.

mod index;
#[cfg(test)]
pub(super) mod pairwise;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use crate::explore::{Pending, Step};
use crate::locks::{FileId, Kind, Lock, LockTable, Owner};
use crate::op::ClientId;

use super::footprint::{Footprint, Locking};
use index::Index;

/// A reversed race: after the steps before `at`, some clients make one step each, the later step of the race last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reversal {
    /// Number of steps that stay unchanged; the next one is the earlier step of the race.
    pub at: usize,
    /// Index of the later step; after the last step if it was never executed.
    pub later: usize,
    /// Clients that may come first.
    pub initials: BTreeSet<ClientId>,
    /// Whether the reversal is known to be executable; if not, every client enabled at `at` must be tried.
    pub is_sure: bool,
    /// Client of the later step.
    client: ClientId,
    /// For each client, the place of its last step that comes before the later step.
    kept: Vec<u32>,
}

/// The partial order of an execution.
pub struct Order<'a> {
    steps: &'a [Step],
    index: Index<'a>,
    /// For each step, how many steps of each client happened before it, itself included.
    clocks: Vec<Clock>,
    /// For each step, its place among the steps of its client, from 1.
    places: Vec<u32>,
    /// For each client, its steps.
    by_client: Vec<Vec<usize>>,
    /// For each step, the last conflicting steps of the other clients that may race with it.
    candidates: Vec<Vec<Option<usize>>>,
    /// For each step that waits for a lock, its clock without steps that only released the lock.
    unadmitted: HashMap<usize, Clock>,
    /// Locks held before each step, and after the last.
    held: Vec<Rc<LockTable>>,
    /// Steps that take or release a lock.
    locking: Vec<usize>,
    /// Steps that take a lock, by its file, kind and owner.
    takers: BTreeMap<(FileId, Kind, Owner), Vec<usize>>,
}

type Clock = Vec<u32>;

/// The later step of a race: one that was executed, or one that a blocked client would have made.
struct Later<'a> {
    client: ClientId,
    footprint: &'a Footprint,
    at: usize,
    /// Its clock, without steps that only released the lock that it waited for.
    clock: Clock,
    candidates: Vec<Option<usize>>,
}

impl<'a> Order<'a> {
    /// Computes the order of these steps.
    pub fn of(steps: &'a [Step]) -> Self {
        let width = steps.iter().map(|step| step.client).max().map_or(0, |client| client as usize + 1);
        let mut order = Self {
            steps,
            index: Index::new(width),
            clocks: Vec::with_capacity(steps.len()),
            places: Vec::with_capacity(steps.len()),
            by_client: vec![Vec::new(); width],
            candidates: Vec::with_capacity(steps.len()),
            unadmitted: HashMap::new(),
            held: vec![Rc::default()],
            locking: Vec::new(),
            takers: BTreeMap::new(),
        };
        for (at, step) in steps.iter().enumerate() {
            order.push(at, step);
        }
        order
    }

    fn push(&mut self, at: usize, step: &'a Step) {
        let client = step.client as usize;
        let footprint = &step.footprint;
        let conflicting = self.index.last_conflicting(footprint, &|_| true);
        let mut clock = self.clock_of(client, &conflicting);
        self.candidates.push(match footprint.awaited() {
            Some(_) => {
                let (clock, candidates) = self.unadmitted(client, footprint);
                self.unadmitted.insert(at, clock);
                candidates
            }
            None => conflicting,
        });
        self.by_client[client].push(at);
        let place = u32::try_from(self.by_client[client].len()).unwrap_or(u32::MAX);
        clock[client] = place;
        self.places.push(place);
        self.clocks.push(clock);
        self.index.push(at, step);
        let mut held = self.held[at].clone();
        let locks = footprint.locks.iter().filter(|locking| !matches!(locking, Locking::Try(_)));
        for locking in locks {
            if self.locking.last() != Some(&at) {
                self.locking.push(at);
            }
            change(Rc::make_mut(&mut held), locking);
            if let Locking::Take { lock, .. } = locking {
                self.takers.entry((lock.file, lock.kind, lock.owner)).or_default().push(at);
            }
        }
        self.held.push(held);
    }

    /// Joins the clocks of the last step of a client and of these steps.
    fn clock_of(&self, client: usize, steps: &[Option<usize>]) -> Clock {
        let mut clock: Clock = vec![0; self.by_client.len()];
        let own = self.by_client.get(client).and_then(|own| own.last());
        for step in steps.iter().flatten().chain(own) {
            for (one, two) in clock.iter_mut().zip(&self.clocks[*step]) {
                *one = (*one).max(*two);
            }
        }
        clock
    }

    /// Returns the clock of a next step that waits for a lock, without steps that only release the lock, and the
    /// remaining last conflicting steps.
    fn unadmitted(&self, client: usize, footprint: &Footprint) -> (Clock, Vec<Option<usize>>) {
        let counts = |at: usize| !self.steps[at].footprint.only_admits(footprint);
        let conflicting = self.index.last_conflicting(footprint, &counts);
        (self.clock_of(client, &conflicting), conflicting)
    }

    /// Whether the step at `earlier` happened before the one at `later`.
    pub fn happens_before(&self, earlier: usize, later: usize) -> bool {
        earlier < later && self.is_in(earlier, &self.clocks[later])
    }

    fn is_in(&self, earlier: usize, clock: &Clock) -> bool {
        let client = self.steps[earlier].client as usize;
        clock.get(client).is_some_and(|known| *known >= self.places[earlier])
    }

    /// Returns what is equal for all executions that differ only in the order of independent steps: for each client,
    /// the clocks of its steps, in order.
    pub fn class(&self) -> Vec<(ClientId, Vec<Clock>)> {
        let clients: BTreeSet<ClientId> = self.steps.iter().map(|step| step.client).collect();
        let of = |client: ClientId| {
            let own = &self.by_client[client as usize];
            own.iter().map(|at| self.clocks[*at].clone()).collect()
        };
        clients.into_iter().map(|client| (client, of(client))).collect()
    }

    /// Returns the reversals of all races whose later step is not among the first `from`, including those of clients
    /// that are blocked at the end.
    pub fn reversals(&self, from: usize, blocked: &[Pending]) -> Vec<Reversal> {
        let mut all = Vec::new();
        for at in from..self.steps.len() {
            self.races_of(&self.later(at), &mut all);
        }
        for pending in blocked {
            let (client, footprint, at) = (pending.client, &pending.footprint, self.steps.len());
            let (clock, candidates) = self.unadmitted(client as usize, footprint);
            self.races_of(&Later { client, footprint, at, clock, candidates }, &mut all);
        }
        all
    }

    fn later(&self, at: usize) -> Later<'_> {
        let Step { client, footprint } = &self.steps[at];
        let clock = self.unadmitted.get(&at).unwrap_or(&self.clocks[at]).clone();
        Later { client: *client, footprint, at, clock, candidates: self.candidates[at].clone() }
    }

    /// Returns reversals of conflicting pairs of steps, with or without others between them, that are known to be
    /// executable: nearest pairs first, at most `most` of them.
    pub fn swaps(&self, most: usize) -> Vec<Reversal> {
        let mut all = Vec::new();
        for distance in 1..self.steps.len() {
            for at in 0..self.steps.len() - distance {
                let (earlier, step) = (&self.steps[at], &self.steps[at + distance]);
                if earlier.client == step.client || !earlier.footprint.conflicts(&step.footprint) {
                    continue;
                }
                let later = Later { clock: self.clocks[at + distance].clone(), ..self.later(at + distance) };
                all.extend(Some(self.reversal(at, &later)).filter(|reversal| reversal.is_sure));
                if all.len() >= most {
                    return all;
                }
            }
        }
        all
    }

    /// Returns the clients of the steps after the first [`Reversal::at`], in order.
    pub fn clients(&self, reversal: &Reversal) -> Vec<ClientId> {
        let is_kept = |at: &usize| self.places[*at] <= reversal.kept[self.steps[*at].client as usize];
        let kept = (reversal.at + 1..reversal.later).filter(is_kept).map(|at| self.steps[at].client);
        kept.chain([reversal.client]).collect()
    }

    fn races_of(&self, later: &Later<'_>, all: &mut Vec<Reversal>) {
        let own = later.client as usize;
        let others = later.candidates.iter().enumerate().filter(|(client, _)| *client != own);
        let mut races: Vec<usize> = others.filter_map(|(_, at)| *at).collect();
        races.sort_unstable();
        for at in races {
            if !self.has_between(at, later) {
                self.reverse(at, later, all);
            }
        }
    }

    /// Whether a step lies between two steps in the happens-before order. If any step of a client does, its last step
    /// that happened before the later one does.
    fn has_between(&self, at: usize, later: &Later<'_>) -> bool {
        self.by_client.iter().zip(&later.clock).any(|(own, known)| {
            let count = own.partition_point(|step| *step < later.at).min(*known as usize);
            let last = count.checked_sub(1).map(|last| own[last]);
            last.is_some_and(|between| self.happens_before(at, between))
        })
    }

    /// Adds the reversal of a race. If the later step cannot come first because a client holds the lock that it waits
    /// for, also adds the reversal of the race for that lock: steps of the holder in between, such as another request
    /// for it without success, would hide that race.
    fn reverse(&self, at: usize, later: &Later<'_>, all: &mut Vec<Reversal>) {
        let reversal = self.reversal(at, later);
        let is_sure = reversal.is_sure;
        all.push(reversal);
        let Some(lock) = later.footprint.awaited().filter(|_| !is_sure) else { return };
        let Some(obstacle) = self.held[at].obstacles(lock).first().copied() else { return };
        let taker = self
            .takers
            .get(&(obstacle.file, obstacle.kind, obstacle.owner))
            .and_then(|takers| takers[..takers.partition_point(|taker| *taker < at)].last().copied());
        if let Some(taker) = taker.filter(|taker| self.steps[*taker].client != later.client) {
            self.reverse(taker, later, all);
        }
    }

    /// Returns the number of a client's steps before `at`.
    fn count_before(&self, client: usize, at: usize) -> usize {
        self.by_client[client].partition_point(|step| *step < at)
    }

    /// Returns the number of a client's first steps that did not happen after the step at `at`; all the others did.
    fn count_not_after(&self, client: usize, at: usize) -> usize {
        self.by_client[client].partition_point(|step| *step != at && !self.happens_before(at, *step))
    }

    /// Returns the reversal of a race: all steps after the one at `at` that do not depend on it, then the later step.
    fn reversal(&self, at: usize, later: &Later<'_>) -> Reversal {
        let clients = || 0..self.by_client.len();
        let from: Vec<usize> = clients().map(|client| self.count_before(client, at + 1)).collect();
        let mut kept: Vec<usize> = clients()
            .map(|client| {
                self.count_not_after(client, at).min(self.count_before(client, later.at)).max(from[client])
            })
            .collect();
        let mut is_sure = true;
        // A client that holds the lock that the later step waits for, and releases it only after that step, must not
        // take it.
        while let Some(lock) = later.footprint.awaited() {
            let locking = || {
                let first = self.locking.partition_point(|step| *step <= at);
                self.locking[first..]
                    .iter()
                    .copied()
                    .take_while(|step| *step < later.at)
                    .filter(|step| self.places[*step] as usize <= kept[self.steps[*step].client as usize])
            };
            let mut held = LockTable::clone(&self.held[at]);
            for step in locking() {
                self.steps[step].footprint.locks.iter().for_each(|locking| change(&mut held, locking));
            }
            let obstacles = held.obstacles(lock);
            let Some(obstacle) = obstacles.first() else { break };
            let taker = locking().filter(|step| takes(&self.steps[*step], obstacle)).last();
            let Some(taker) = taker else {
                is_sure = false;
                break;
            };
            for client in clients() {
                kept[client] = kept[client].min(self.count_not_after(client, taker)).max(from[client]);
            }
        }
        // The earlier steps of its own client must come before it.
        let own = later.client as usize;
        is_sure &= own >= kept.len() || kept[own] == self.count_before(own, later.at);
        let first = |client: usize| self.by_client[client][from[client]];
        let with_some: Vec<usize> = clients().filter(|client| kept[*client] > from[*client]).collect();
        let has_earlier =
            |client: usize| with_some.iter().any(|other| self.happens_before(first(*other), first(client)));
        let mut initials: BTreeSet<ClientId> = with_some
            .iter()
            .filter(|client| !has_earlier(**client))
            .map(|client| self.steps[first(*client)].client)
            .collect();
        let is_after = |client: usize| {
            let last = self.by_client[client][kept[client] - 1];
            self.is_in(first(client), &later.clock)
                || later.footprint.awaited().is_some()
                    && self.index.has_lock_conflict(later.footprint, client, &(first(client)..last + 1))
        };
        if !with_some.iter().any(|client| is_after(*client)) {
            initials.insert(later.client);
        }
        let kept = kept.into_iter().map(|count| u32::try_from(count).unwrap_or(u32::MAX)).collect();
        Reversal { at, later: later.at, initials, is_sure, client: later.client, kept }
    }
}

fn change(table: &mut LockTable, locking: &Locking) {
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

/// Whether a step takes this lock.
fn takes(step: &Step, held: &Lock) -> bool {
    step.footprint.locks.iter().any(|one| {
        matches!(one, Locking::Take { lock, .. }
            if (lock.file, lock.kind, lock.owner) == (held.file, held.kind, held.owner))
    })
}

//! The sequential driver: source-DPOR with sleep sets, depth first; it runs one schedule of each class of those that
//! differ in the order of independent steps alone.
//!
//! Abdulla, Aronis, Jonsson, Sagonas: "Optimal dynamic partial order reduction", POPL 2014, algorithm 1; sleep sets
//! after Godefroid (LNCS 1032). `oracle.rs` compares it with sleep sets alone and with a search of all states.

use std::collections::BTreeSet;

use crate::explore::races::Order;
use crate::explore::{Choice, Explorer, Pending, Step, by_default, enabled};
use crate::op::ClientId;

/// The sequential driver.
#[derive(Debug, Default)]
pub struct Sequential {
    frames: Vec<Frame>,
    steps: Vec<Step>,
    /// Number of frames that the current execution shares with the one before, the last of them with another choice.
    replayed: usize,
    has_begun: bool,
    was_abandoned: bool,
    /// Number of executions abandoned because others covered all their continuations.
    abandoned: u64,
    executions: u64,
}

/// A point of the execution: its pending steps, and those that were chosen.
#[derive(Debug)]
struct Frame {
    pending: Vec<Pending>,
    /// Clients that lead only to executions already covered if they run first from here.
    sleep: BTreeSet<ClientId>,
    /// Clients that must run first from here in some execution.
    backtrack: BTreeSet<ClientId>,
    /// Clients that ran first from here before the current choice.
    done: BTreeSet<ClientId>,
    chosen: ClientId,
}

impl Frame {
    fn can_go(&self, client: ClientId) -> bool {
        enabled(&self.pending).any(|other| other == client)
    }
}

impl Sequential {
    /// Returns the number of executions that were abandoned as redundant.
    pub fn abandoned(&self) -> u64 {
        self.abandoned
    }

    /// Returns the number of completed executions.
    pub fn executions(&self) -> u64 {
        self.executions
    }

    /// Returns the schedule of the current or last execution: the client of each step.
    pub fn schedule(&self) -> impl Iterator<Item = ClientId> {
        self.steps.iter().map(|step| step.client)
    }

    /// Computes the sleep set after the last frame: that of the frame, and its done clients, without those whose step
    /// conflicts with the executed one.
    fn asleep(&self) -> BTreeSet<ClientId> {
        let (Some(frame), Some(step)) = (self.frames.last(), self.steps.last()) else {
            return BTreeSet::new();
        };
        let still = |client: &&ClientId| {
            let pending = frame.pending.iter().find(|one| one.client == **client);
            pending.is_some_and(|pending| !pending.footprint.conflicts(&step.footprint))
        };
        frame.sleep.union(&frame.done).filter(still).copied().collect()
    }
}

impl Explorer for Sequential {
    fn begin(&mut self) -> bool {
        self.steps.clear();
        self.was_abandoned = false;
        if !self.has_begun {
            self.has_begun = true;
            return true;
        }
        while let Some(frame) = self.frames.last_mut() {
            frame.done.insert(frame.chosen);
            let next = frame
                .backtrack
                .iter()
                .find(|client| !frame.done.contains(client) && !frame.sleep.contains(client));
            if let Some(next) = next.copied() {
                frame.chosen = next;
                self.replayed = self.frames.len();
                return true;
            }
            self.frames.pop();
        }
        self.replayed = 0;
        false
    }

    fn choose(&mut self, pending: &[Pending]) -> Choice {
        let depth = self.steps.len();
        if let Some(frame) = self.frames.get_mut(depth) {
            // File numbers differ between executions.
            frame.pending = pending.to_vec();
            return Choice::Go(frame.chosen);
        }
        let sleep = self.asleep();
        let awake = enabled(pending).filter(|client| !sleep.contains(client));
        let last = self.steps.last().map(|step| step.client);
        let Some(chosen) = by_default(last, awake) else {
            self.was_abandoned = true;
            return Choice::Abandon;
        };
        self.frames.push(Frame {
            pending: pending.to_vec(),
            sleep,
            backtrack: BTreeSet::from([chosen]),
            done: BTreeSet::new(),
            chosen,
        });
        Choice::Go(chosen)
    }

    fn executed(&mut self, step: Step) {
        self.steps.push(step);
    }

    fn end(&mut self, blocked: &[Pending]) {
        if self.was_abandoned {
            self.abandoned += 1;
        } else {
            self.executions += 1;
        }
        // In an abandoned execution, too, a client that waits for a lock races with its holder: no other execution may
        // show this race.
        let waiting: Vec<Pending> = blocked.iter().filter(|one| !one.is_enabled).cloned().collect();
        let from = self.replayed.saturating_sub(1);
        for reversal in Order::of(&self.steps).reversals(from, &waiting) {
            let Some(frame) = self.frames.get_mut(reversal.at) else { continue };
            let may_come: Vec<ClientId> =
                reversal.initials.iter().copied().filter(|client| frame.can_go(*client)).collect();
            let is_known = |client: &ClientId| frame.backtrack.contains(client);
            match may_come.first() {
                Some(_) if reversal.is_sure && may_come.iter().any(is_known) => {}
                Some(first) if reversal.is_sure => {
                    frame.backtrack.insert(*first);
                }
                _ => {
                    let all: Vec<ClientId> = enabled(&frame.pending).collect();
                    frame.backtrack.extend(all);
                }
            }
        }
    }
}

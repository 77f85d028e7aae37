//! The bounded driver: every schedule with at most so many preemptions, those of equal result too, so that what it says of
//! that bound needs no argument about what commutes.
//!
//! A bound combined with a partial order reduction loses executions (Coons, Musuvathi, McKinley, OOPSLA 2013), so there
//! is no reduction here.

use crate::explore::{Choice, Explorer, Pending, Step, enabled, is_preemption};
use crate::op::ClientId;

/// The bounded driver.
#[derive(Debug)]
pub struct Bounded {
    preemptions: u32,
    /// Client chosen at each step, and clients still to be chosen there.
    frames: Vec<(ClientId, Vec<ClientId>)>,
    /// Number of preemptions up to each step of the current execution.
    counts: Vec<u32>,
    last: Option<ClientId>,
    has_begun: bool,
}

impl Bounded {
    /// Creates a driver with at most this many preemptions.
    pub fn new(preemptions: u32) -> Self {
        Self { preemptions, frames: Vec::new(), counts: Vec::new(), last: None, has_begun: false }
    }
}

impl Explorer for Bounded {
    fn begin(&mut self) -> bool {
        self.counts.clear();
        self.last = None;
        if !self.has_begun {
            self.has_begun = true;
            return true;
        }
        while let Some((chosen, others)) = self.frames.last_mut() {
            if let Some(next) = others.pop() {
                *chosen = next;
                return true;
            }
            self.frames.pop();
        }
        false
    }

    fn choose(&mut self, pending: &[Pending]) -> Choice {
        let depth = self.counts.len();
        let so_far = match depth.checked_sub(1) {
            Some(before) => self.counts[before],
            None => 0,
        };
        let cost = |client: ClientId| so_far + u32::from(is_preemption(self.last, client, pending));
        if self.frames.len() == depth {
            let mut all: Vec<ClientId> =
                enabled(pending).filter(|client| cost(*client) <= self.preemptions).collect();
            // The client that ran last continues first.
            all.sort_by_key(|client| (Some(*client) != self.last, *client));
            all.reverse();
            let Some(chosen) = all.pop() else { return Choice::Abandon };
            self.frames.push((chosen, all));
        }
        let chosen = self.frames[depth].0;
        let cost = cost(chosen);
        self.counts.push(cost);
        Choice::Go(chosen)
    }

    fn executed(&mut self, step: Step) {
        self.last = Some(step.client);
    }

    fn end(&mut self, _blocked: &[Pending]) {}
}

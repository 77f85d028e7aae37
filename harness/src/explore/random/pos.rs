//! Partial order sampling: every step that waits for its turn has a random priority, and gets a new one whenever a step
//! is made that it conflicts with.
//!
//! Yuan, Yang, Gu: "Partial order aware concurrency sampling", CAV 2018.

use std::collections::BTreeMap;

use rand::RngExt as _;
use rand_pcg::Pcg64Mcg;

use crate::explore::{Choice, Pending, Step, enabled};
use crate::op::ClientId;

/// The priorities of one execution.
#[derive(Debug)]
pub struct PartialOrderSampling {
    random: Pcg64Mcg,
    priorities: BTreeMap<ClientId, u64>,
    pending: Vec<Pending>,
}

impl PartialOrderSampling {
    /// Creates priorities drawn by this generator.
    pub fn new(random: Pcg64Mcg) -> Self {
        Self { random, priorities: BTreeMap::new(), pending: Vec::new() }
    }

    /// Chooses the next client.
    pub fn choose(&mut self, pending: &[Pending]) -> Choice {
        self.pending = pending.to_vec();
        for one in pending {
            let drawn = self.random.random();
            self.priorities.entry(one.client).or_insert(drawn);
        }
        let priority = |client: &ClientId| self.priorities.get(client).copied();
        enabled(pending).max_by_key(priority).map_or(Choice::Abandon, Choice::Go)
    }

    /// Records an executed step.
    pub fn executed(&mut self, step: &Step) {
        self.priorities.remove(&step.client);
        let racing = self.pending.iter().filter(|one| one.footprint.conflicts(&step.footprint));
        for one in racing {
            self.priorities.remove(&one.client);
        }
    }
}

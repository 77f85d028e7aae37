//! PCT: clients have random priorities, and at d - 1 random steps whoever is first becomes last; a bug of depth d among n
//! clients and k steps is found with a probability of at least 1 / (n k^(d-1)).
//!
//! Burckhardt, Kothari, Musuvathi, Nagarakatte: "A randomized scheduler with probabilistic guarantees of finding bugs",
//! ASPLOS 2010.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt as _;
use rand_pcg::Pcg64Mcg;

use crate::explore::{Choice, Pending, enabled};
use crate::op::ClientId;

/// The priorities of one execution.
#[derive(Debug)]
pub struct Pct {
    random: Pcg64Mcg,
    priorities: BTreeMap<ClientId, u64>,
    /// Steps before which the priorities change.
    changes: BTreeSet<u32>,
    step: u32,
    /// Lowest priority: below all that were drawn, and decreasing.
    lowest: u64,
}

impl Pct {
    /// Draws change points for bugs of this depth, in executions of about `steps` steps.
    pub fn new(mut random: Pcg64Mcg, depth: u32, steps: u32) -> Self {
        let changes = (1..depth).map(|_| random.random_range(0..steps.max(1))).collect();
        Self { random, priorities: BTreeMap::new(), changes, step: 0, lowest: u64::from(depth) }
    }

    /// Chooses the next client.
    pub fn choose(&mut self, pending: &[Pending]) -> Choice {
        for one in pending {
            let drawn = self.random.random_range(1_u64 << 32..u64::MAX);
            self.priorities.entry(one.client).or_insert(drawn);
        }
        let is_change = self.changes.contains(&self.step);
        self.step += 1;
        if let Some(first) = self.first(pending).filter(|_| is_change) {
            self.lowest = self.lowest.saturating_sub(1);
            self.priorities.insert(first, self.lowest);
        }
        self.first(pending).map_or(Choice::Abandon, Choice::Go)
    }

    fn first(&self, pending: &[Pending]) -> Option<ClientId> {
        enabled(pending).max_by_key(|client| self.priorities.get(client).copied())
    }
}

//! Implements the random walk: at each step any enabled client, with equal probability.

use rand::seq::IteratorRandom as _;
use rand_pcg::Pcg64Mcg;

use crate::explore::{Choice, Pending, enabled};

/// The walk of one execution.
#[derive(Debug)]
pub struct Walk {
    random: Pcg64Mcg,
}

impl Walk {
    /// Creates a walk with this generator.
    pub fn new(random: Pcg64Mcg) -> Self {
        Self { random }
    }

    /// Chooses the next client.
    pub fn choose(&mut self, pending: &[Pending]) -> Choice {
        enabled(pending).choose(&mut self.random).map_or(Choice::Abandon, Choice::Go)
    }
}

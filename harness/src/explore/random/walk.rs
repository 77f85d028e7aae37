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
    /// The walk that this generator makes.
    pub fn new(random: Pcg64Mcg) -> Self {
        Self { random }
    }

    /// Whose turn it is.
    pub fn choose(&mut self, pending: &[Pending]) -> Choice {
        enabled(pending).choose(&mut self.random).map_or(Choice::Abandon, Choice::Go)
    }
}

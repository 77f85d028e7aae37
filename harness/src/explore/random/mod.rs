//! Chooses random schedules where there are too many to run them all.
//!
//! The portfolio is half partial order sampling, a quarter random walk, a quarter PCT with depth 3: the first finds
//! rare bugs most often, the others miss different bugs.

pub mod pct;
pub mod pos;
pub mod walk;

use rand::SeedableRng as _;
use rand_pcg::Pcg64Mcg;

use crate::explore::{Choice, Explorer, Pending, Step};

/// Draws schedules in turn by partial order sampling, by random walk and by PCT.
#[derive(Debug)]
pub struct Portfolio {
    seed: u64,
    drawn: u64,
    /// Number of steps of the longest execution so far, and of clients.
    size: (u32, u32),
    steps: u32,
    current: Current,
}

#[derive(Debug)]
enum Current {
    Sampling(pos::PartialOrderSampling),
    Walk(walk::Walk),
    Priorities(pct::Pct),
}

impl Portfolio {
    /// Creates a portfolio with this seed.
    pub fn new(seed: u64) -> Self {
        let current = Current::Walk(walk::Walk::new(generator(seed, 0)));
        Self { seed, drawn: 0, size: (1, 1), steps: 0, current }
    }

    /// Returns the number of schedules drawn.
    pub fn drawn(&self) -> u64 {
        self.drawn
    }
}

/// Creates the generator for the schedule with this number.
fn generator(seed: u64, number: u64) -> Pcg64Mcg {
    Pcg64Mcg::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number))
}

impl Explorer for Portfolio {
    fn begin(&mut self) -> bool {
        let random = generator(self.seed, self.drawn);
        self.current = match self.drawn % 4 {
            0 | 2 => Current::Sampling(pos::PartialOrderSampling::new(random)),
            1 => Current::Walk(walk::Walk::new(random)),
            _ => Current::Priorities(pct::Pct::new(random, 3, self.size.0)),
        };
        self.drawn += 1;
        self.steps = 0;
        true
    }

    fn choose(&mut self, pending: &[Pending]) -> Choice {
        match &mut self.current {
            Current::Sampling(sampling) => sampling.choose(pending),
            Current::Walk(walk) => walk.choose(pending),
            Current::Priorities(pct) => pct.choose(pending),
        }
    }

    fn executed(&mut self, step: Step) {
        self.steps += 1;
        self.size.0 = self.size.0.max(self.steps);
        if let Current::Sampling(sampling) = &mut self.current {
            sampling.executed(&step);
        }
    }

    fn end(&mut self, _blocked: &[Pending]) {}
}

//! Runs a given schedule prefix, then continues with another explorer, which sees only the continuation.

use crate::explore::{Choice, Explorer, Pending, Step};
use crate::op::ClientId;

/// A schedule prefix, and the explorer that decides after it.
pub struct Prefixed<'a> {
    prefix: &'a [ClientId],
    rest: &'a mut dyn Explorer,
    made: usize,
}

impl<'a> Prefixed<'a> {
    /// Creates an explorer with this prefix.
    pub fn new(prefix: &'a [ClientId], rest: &'a mut dyn Explorer) -> Self {
        Self { prefix, rest, made: 0 }
    }
}

impl Explorer for Prefixed<'_> {
    fn begin(&mut self) -> bool {
        self.made = 0;
        self.rest.begin()
    }

    fn choose(&mut self, pending: &[Pending]) -> Choice {
        match self.prefix.get(self.made) {
            Some(client) => Choice::Go(*client),
            None => self.rest.choose(pending),
        }
    }

    fn executed(&mut self, step: Step) {
        if self.made >= self.prefix.len() {
            self.rest.executed(step);
        }
        self.made += 1;
    }

    fn end(&mut self, blocked: &[Pending]) {
        self.rest.end(blocked);
    }
}

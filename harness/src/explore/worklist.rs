//! The work-list driver: beginnings of schedules that are still to be run, each once, those with few preemptions first; it
//! can be saved, taken up again and split.
//!
//! After each execution, the reversal of each of its races is a new prefix; equal prefixes are merged. The driver needs
//! to know nothing of earlier executions, and runs about twice as many schedules as the sequential driver; but many
//! times as many if a read-only client runs concurrently with others, because prefixes that differ only in the order of
//! independent steps are distinct.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::explore::races::Order;
use crate::explore::{Choice, Explorer, Pending, Step, by_default, enabled, is_preemption};
use crate::op::{ClientId, stable_hash};

/// Prefix of a schedule: the client of each step.
pub type Prefix = Vec<ClientId>;

/// Prefixes that are still to be run, and hashes of all that were found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct WorkList {
    /// Ordered by number of preemptions, then by the order of discovery.
    queue: BTreeSet<(u32, u64, Prefix)>,
    /// Hashes of all prefixes that were ever in the queue.
    seen: BTreeSet<u64>,
    found: u64,
    #[serde(skip)]
    run: Run,
}

/// The current execution.
#[derive(Clone, Debug, Default)]
struct Run {
    prefix: Prefix,
    steps: Vec<Step>,
    /// Pending steps before each step.
    pending: Vec<Vec<Pending>>,
    /// Number of preemptions up to each step.
    preemptions: Vec<u32>,
    has_diverged: bool,
}

impl WorkList {
    /// Creates a list with everything still to be run.
    pub fn new() -> Self {
        let mut list = Self::default();
        list.push(0, Prefix::new());
        list
    }

    /// Returns the number of prefixes still to be run.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether everything was run.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Keeps every `of`-th prefix, from the `number`-th on, counted from 1. The parts of a list, run separately, cover
    /// all that the whole list covers.
    #[must_use]
    pub fn part(mut self, number: u32, of: u32) -> Self {
        let all = std::mem::take(&mut self.queue);
        let is_own = |index: usize| index % (of.max(1) as usize) == (number.max(1) - 1) as usize;
        self.queue =
            all.into_iter().enumerate().filter(|(index, _)| is_own(*index)).map(|(_, one)| one).collect();
        self
    }

    fn push(&mut self, preemptions: u32, prefix: Prefix) {
        let bytes: Vec<u8> = prefix.iter().flat_map(|client| client.to_le_bytes()).collect();
        if self.seen.insert(stable_hash(bytes)) {
            self.found += 1;
            self.queue.insert((preemptions, self.found, prefix));
        }
    }
}

impl Explorer for WorkList {
    fn begin(&mut self) -> bool {
        let Some((_, _, prefix)) = self.queue.pop_first() else { return false };
        self.run = Run { prefix, ..Run::default() };
        true
    }

    fn choose(&mut self, pending: &[Pending]) -> Choice {
        let run = &mut self.run;
        let last = run.steps.last().map(|step| step.client);
        let wanted = run.prefix.get(run.steps.len()).copied().filter(|_| !run.has_diverged);
        let can_go = |client: &ClientId| enabled(pending).any(|other| other == *client);
        let chosen = wanted.filter(can_go);
        // A prefix that cannot be run continues like any other schedule; the other enabled clients are tried
        // separately.
        run.has_diverged |= wanted.is_some() && chosen.is_none();
        let Some(chosen) = chosen.or_else(|| by_default(last, enabled(pending))) else {
            return Choice::Abandon;
        };
        let before = run.preemptions.last().copied().unwrap_or(0);
        run.preemptions.push(before + u32::from(is_preemption(last, chosen, pending)));
        run.pending.push(pending.to_vec());
        Choice::Go(chosen)
    }

    fn executed(&mut self, step: Step) {
        self.run.steps.push(step);
    }

    fn end(&mut self, blocked: &[Pending]) {
        let run = std::mem::take(&mut self.run);
        let order = Order::of(&run.steps);
        for reversal in order.reversals(0, blocked) {
            let clients = order.clients(&reversal);
            let same: Prefix = run.steps[..reversal.at].iter().map(|step| step.client).collect();
            let so_far =
                reversal.at.checked_sub(1).and_then(|at| run.preemptions.get(at)).copied().unwrap_or(0);
            let switches = same
                .last()
                .into_iter()
                .chain(&clients)
                .zip(&clients)
                .filter(|(one, next)| one != next)
                .count();
            let preemptions = so_far.saturating_add(u32::try_from(switches).unwrap_or(u32::MAX));
            if !reversal.is_sure {
                let here = run.pending.get(reversal.at).map(Vec::as_slice).unwrap_or_default();
                for client in enabled(here) {
                    self.push(preemptions, same.iter().copied().chain([client]).collect());
                }
            }
            self.push(preemptions, same.into_iter().chain(clients).collect());
        }
    }
}

//! Executes the power loss of a script, or a failed sync that drops data.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::call::Call;
use crate::op::{Nanos, Operation, Outcome, Request};
use crate::persist::{Log, Tree};
use crate::runner::playing::{ScriptRun, outcome};
use crate::runner::traced::TraceError;
use crate::runner::{RunError, nanos};
use crate::scenario::fault::OF_A_DROPPED_SYNC;
use crate::scenario::power_loss::JUDGED_BY as POWER_LOSS;
use crate::scenario::script::Loss;

/// Outcome of an operation that had ended by the power loss and was not acknowledged.
const UNACKNOWLEDGED: &str = "as in the baseline run, not acknowledged";

impl ScriptRun<'_> {
    /// Records an operation that did or did not answer before the power loss whose resulting state was laid out.
    pub(super) fn lost_power_then(&mut self, request: &Request, loss: &Loss) {
        let now = nanos(self.now());
        self.operations.push(Operation {
            client: 1,
            request: request.clone(),
            invoked: now,
            returned: now + 1,
            still: None,
            fault: None,
            outcome: match (loss.is_after_end, loss.is_acknowledged) {
                (true, true) => Outcome::Acknowledged,
                (true, false) => Outcome::Failed(UNACKNOWLEDGED.to_owned()),
                (false, _) => Outcome::Killed,
            },
            stderr: String::new(),
            records: None,
        });
        self.power_is_lost_at(now + 2);
    }

    pub(super) fn power_is_lost_at(&mut self, at: Nanos) {
        self.power_losses.push(at);
        self.was_just_killed = true;
        self.only_for = POWER_LOSS.map(ToOwned::to_owned).into();
        // Later operations get later times.
        self.offset += Duration::from_nanos(at.saturating_sub(nanos(self.now())) + 1);
    }

    /// Runs a baseline operation, cuts its end by the power loss, and lays out the remaining state.
    pub(super) fn lose_power(&mut self, request: &Request, loss: &Loss) -> Result<(), TraceError> {
        let before = self.env.sandbox.tree().map_err(RunError::system("read the sandbox"))?;
        let began = self.now();
        let traced = self.env.trace_quietly(request)?;
        self.turn += 1;
        (self.env.on_operation)();
        let Some(ended) = traced.operations.first() else { return Err(RunError::Stopped.into()) };
        let mut operation = self.operation(ended, request.clone(), began, false);
        if loss.is_after_end {
            // The power loss ended its surviving processes; the answer came before.
            operation.outcome = outcome(self.env, ended.end);
        } else {
            operation.outcome = Outcome::Killed;
            operation.records = None;
        }
        self.operations.push(operation);
        let log = Log::record(&before, &traced.calls);
        self.env.end_survivors();
        if let Ok(log) = log {
            let lost: Vec<usize> = loss.lost.iter().filter_map(|lost| usize::try_from(*lost).ok()).collect();
            let is_there = lost.iter().all(|lost| *lost < log.len());
            let after = usize::try_from(loss.after).unwrap_or(usize::MAX);
            self.was_injected |= is_there && after <= log.calls();
            let tree = log.remaining(after, &lost);
            let dir = self.env.sandbox.dir();
            self.env.sandbox.lay_tree(&tree).map_err(|why| RunError::Sandbox { path: dir, why })?;
        }
        self.keep(vec![request.clone()], traced, true, began);
        let now = nanos(self.now());
        self.power_is_lost_at(now);
        Ok(())
    }

    /// After a failed sync the kernel treats the unwritten data as written: a power loss reveals that it is missing.
    pub(super) fn drop_unsynced(&mut self, before: &Tree, calls: &[Call]) -> Result<(), TraceError> {
        let log = match Log::record(before, calls) {
            Ok(log) => log,
            Err(unmodelled) => {
                let text = format!("what a failed sync drops is not derived: {unmodelled}");
                self.not_covered.push(text);
                return Ok(());
            }
        };
        let dropped: Vec<usize> = log.dropped().collect();
        if !dropped.is_empty() {
            self.env.end_survivors();
            let dir = self.env.sandbox.dir();
            let left = log.remaining(log.calls(), &dropped);
            self.env.sandbox.lay_tree(&left).map_err(|why| RunError::Sandbox { path: dir, why })?;
            self.only_for = BTreeSet::from([OF_A_DROPPED_SYNC.to_owned()]);
            // The power was lost: a store with a `recover` must run it first.
            self.was_just_killed = true;
        }
        Ok(())
    }
}

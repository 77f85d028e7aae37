//! Executes a script in a fresh sandbox and returns the observation.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::explore::Explorer;
use crate::observation::{Observation, State, Subject};
use crate::op::{Operation, Outcome, Request};
use crate::persist::Tree;
use crate::runner::playing::ScriptRun;
use crate::runner::schedule::Scheduled;
use crate::runner::traced::TraceError;
use crate::runner::{ExecEnv, RunError, nanos};
use crate::scenario::crash::add;
use crate::scenario::script::{Act, Script};

/// The store with its first record: the starting state of every script.
#[derive(Clone, Debug)]
pub struct First {
    pub(super) operation: Operation,
    pub(super) state: State,
    /// Names of the files that baseline runs have made since.
    pub(super) usual_names: BTreeSet<String>,
}

/// Result of running a script.
#[derive(Debug)]
pub struct Played {
    /// The observation of the run.
    pub observation: Observation,
    /// Parts that the traces report as not covered.
    pub not_covered: Vec<String>,
    /// Whether the planned injection took place.
    pub was_injected: bool,
    /// Whether a second client waited for the first.
    pub second_waited: bool,
    /// Whether any operation was a copy of a template.
    pub has_copies: bool,
}

impl ExecEnv<'_> {
    /// Lets the store add its first record, and keeps the resulting state as the start of every script.
    ///
    /// # Errors
    /// If the store fails, or the harness cannot do its part.
    pub fn first(&self) -> Result<First, TraceError> {
        self.lay()?;
        let clock = Instant::now();
        if self.target.ops.init.is_some() && !self.sandbox.has_old() {
            self.succeed(Request::Init, clock)?;
        }
        let operation = self.succeed(add(1), clock)?;
        if self.target.ops.list.is_some() {
            // By then a surviving helper has finished its work for it, as it had in the control.
            self.operate(1, Request::List, clock, None, &|| (), &|_| ())?;
        }
        self.end_survivors();
        let mut state = self.sandbox.look(self.target, nanos(clock.elapsed()));
        if self.target.ops.list.is_some() {
            // Before `list` the store may keep its records elsewhere.
            state.records = None;
        }
        self.sandbox.keep_as_first().map_err(RunError::system("keep the state with one record"))?;
        Ok(First { operation, state, usual_names: BTreeSet::new() })
    }

    /// Runs the store's `init`, if it has one, and keeps the result as the start of every execution.
    pub(super) fn init(&self) -> Result<(), TraceError> {
        self.lay()?;
        if self.target.ops.init.is_some() {
            self.succeed(Request::Init, Instant::now())?;
            self.end_survivors();
            self.sandbox.keep_as_old().map_err(RunError::system("keep what init left"))?;
        }
        Ok(())
    }

    fn succeed(&self, request: Request, clock: Instant) -> Result<Operation, TraceError> {
        let operation = self.operate(1, request, clock, None, &|| (), &|_| ())?;
        if operation.outcome != Outcome::Acknowledged {
            if self.is_cut() {
                return Err(RunError::Stopped.into());
            }
            return Err(TraceError::Before(operation.request.to_string(), operation.stderr));
        }
        Ok(operation)
    }

    pub(super) fn lay_first(&self) -> Result<(), RunError> {
        self.end_survivors();
        self.sandbox.lay_first().map_err(|why| RunError::Sandbox { path: self.sandbox.dir(), why })
    }

    /// Runs a script. If `may_copy`, its operations run as copies of templates, if there are any.
    ///
    /// # Errors
    /// If the harness could not do its part, may not trace, or the time is over.
    pub fn play(
        &self,
        scenario: &str,
        script: &Script,
        first: &First,
        subject: &Subject,
        execution: u32,
        may_copy: bool,
    ) -> Result<Played, TraceError> {
        self.lay_first()?;
        let mut playing = ScriptRun::new(self, first, may_copy);
        for act in &script.acts {
            playing.act(act)?;
        }
        self.end_survivors();
        Ok(playing.into_observation(scenario, script, first, subject, execution))
    }

    /// Runs a script with clients on a schedule that the explorer chooses.
    ///
    /// # Errors
    /// As [`ExecEnv::play`].
    pub(super) fn play_explored(
        &self,
        scenario: &str,
        script: &Script,
        first: &First,
        subject: &Subject,
        execution: u32,
        explorer: &mut dyn Explorer,
    ) -> Result<(Option<Played>, Scheduled), TraceError> {
        self.lay_first()?;
        let mut playing = ScriptRun::new(self, first, true);
        let mut scheduled = Scheduled::default();
        for act in &script.acts {
            match act {
                Act::Interleave(interleaving) => scheduled = playing.interleave(interleaving, explorer)?,
                other => playing.act(other)?,
            }
            // An execution that diverged from what the explorer knows was aborted midway: that says nothing about the
            // store.
            if scheduled.was_abandoned || scheduled.has_diverged {
                return Ok((None, scheduled));
            }
        }
        self.end_survivors();
        let mut script = script.clone();
        script.schedule(&scheduled.schedule);
        Ok((Some(playing.into_observation(scenario, &script, first, subject, execution)), scheduled))
    }

    /// Lays out the state that a kill or a power loss left, as derived from the calls of a baseline run, and runs the
    /// store on it.
    ///
    /// # Errors
    /// If the harness could not do its part, or the time is over.
    pub fn play_state(
        &self,
        scenario: &str,
        tree: &Tree,
        script: &Script,
        first: &First,
        subject: &Subject,
        execution: u32,
    ) -> Result<Observation, TraceError> {
        self.end_survivors();
        self.sandbox.lay_tree(tree).map_err(|why| RunError::Sandbox { path: self.sandbox.dir(), why })?;
        let mut playing = ScriptRun::new(self, first, true);
        for act in &script.acts {
            match act {
                Act::Trace { requests, .. } => playing.was_killed_then(requests),
                Act::Anew => {
                    playing.operations.clear();
                    playing.states.clear();
                }
                Act::PowerLoss { request, loss } => playing.lost_power_then(request, loss),
                other => playing.act(other)?,
            }
        }
        self.end_survivors();
        Ok(playing.into_observation(scenario, script, first, subject, execution).observation)
    }

    /// Returns the derived files that differ between two baseline rebuilds, a second apart.
    pub(super) fn unrepeatable(&self) -> Result<BTreeSet<String>, TraceError> {
        /// Longer than a second, the resolution of most time stamps.
        const APART: Duration = Duration::from_millis(1100);
        self.lay_first()?;
        let clock = Instant::now();
        let rebuilt = || {
            self.operate(1, Request::Rebuild, clock, None, &|| (), &|_| ())?;
            Ok::<_, RunError>(self.sandbox.look(self.target, nanos(clock.elapsed())).derived)
        };
        let one = rebuilt()?;
        std::thread::sleep(APART);
        let other = rebuilt()?;
        Ok(one
            .into_iter()
            .filter(|(name, digest)| other.get(name) != Some(digest))
            .map(|(name, _)| name)
            .collect())
    }
}

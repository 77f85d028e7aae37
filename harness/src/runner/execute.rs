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

/// The store with its first record in it, as every script finds it.
#[derive(Clone, Debug)]
pub struct First {
    pub(super) operation: Operation,
    pub(super) state: State,
    /// Names of the files that baseline runs made since.
    pub(super) usual_names: BTreeSet<String>,
}

/// What playing a script came to.
#[derive(Debug)]
pub struct Played {
    /// What it showed.
    pub observation: Observation,
    /// What the traces say is not seen.
    pub not_covered: Vec<String>,
    /// Whether what was to be disturbed was.
    pub was_injected: bool,
    /// Whether a second client waited for the first.
    pub second_waited: bool,
    /// Whether any operation was a copy of a template.
    pub has_copies: bool,
}

impl ExecEnv<'_> {
    /// Lets the store add its first record, and keeps what it left for every script to begin with.
    ///
    /// # Errors
    /// Where the store fails, or the harness cannot do its part.
    pub fn first(&self) -> Result<First, TraceError> {
        self.lay()?;
        let clock = Instant::now();
        if self.target.ops.init.is_some() && !self.sandbox.has_old() {
            self.succeed(Request::Init, clock)?;
        }
        let operation = self.succeed(add(1), clock)?;
        if self.target.ops.list.is_some() {
            // What a helper that lives on has still to do for it is done by then, as it was in the control.
            self.operate(1, Request::List, clock, None, &|| (), &|_| ())?;
        }
        self.end_survivors();
        let mut state = self.sandbox.look(self.target, nanos(clock.elapsed()));
        if self.target.ops.list.is_some() {
            // Before `list` the records may stand elsewhere.
            state.records = None;
        }
        self.sandbox.keep_as_first().map_err(RunError::system("keep the state with one record"))?;
        Ok(First { operation, state, usual_names: BTreeSet::new() })
    }

    /// Lets the store make itself, where it has an `init`, and keeps what that left for every execution to begin with.
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

    /// Plays a script; where `may_copy`, its operations as copies of templates, where there are some.
    ///
    /// # Errors
    /// Where the harness could not do its part, may not trace, or the time is over.
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

    /// Plays a script with clients on a schedule, which the explorer chooses.
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
            // What went another way than the explorer knows was given up in its middle: that says nothing of the store.
            if scheduled.was_abandoned || scheduled.has_diverged {
                return Ok((None, scheduled));
            }
        }
        self.end_survivors();
        let mut script = script.clone();
        script.schedule(&scheduled.schedule);
        Ok((Some(playing.into_observation(scenario, &script, first, subject, execution)), scheduled))
    }

    /// Lays out what a kill or a power loss left, as derived from the calls of a baseline run, and asks the store what it
    /// makes of it.
    ///
    /// # Errors
    /// Where the harness could not do its part, or the time is over.
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

    /// The derived files that two undisturbed rebuilds, a second apart, make differently.
    pub(super) fn unrepeatable(&self) -> Result<BTreeSet<String>, TraceError> {
        /// Longer than a second, which is what most dates are told in.
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

//! Replays a case and reports whether it ends the same way.

use std::path::PathBuf;

use crate::case::{Case, Difference, first_difference, steps};
use crate::check::Watcher;
use crate::invariants::{self, Invariant};
use crate::observation::Observation;
use crate::runner::{self, ExecEnv, RunError, Stop, TraceError};
use crate::sandbox::Sandbox;
use crate::target::{Target, UsageError};
use crate::verdict::Judgement;

/// Consecutive clean runs after which a case counts as fixed.
const CLEAN_RUNS: u32 = 3;

/// Options of a replay.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Number of violations required before the case counts as reproduced; at least 1.
    pub repeat: u32,
    /// The folder whose file system it runs on; a memory file system if none is given.
    pub dir: Option<PathBuf>,
    /// Folder to which the sandbox is copied.
    pub keep: Option<PathBuf>,
    /// The program that is `{store}` and `{critical}` when it is called by those names.
    pub multi_call: Option<PathBuf>,
}

/// Result of a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It violates its invariant again; one sentence on what was seen.
    Reproduced(String),
    /// Three clean runs in a row.
    Fixed,
    /// Some runs violate it and some do not: number of violations, number of runs, and what was seen.
    Flaky(u32, u32, String),
    /// A run took another path before the injection.
    Diverged(Difference),
}

/// A replayed case.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// Result of the replay.
    pub outcome: Outcome,
    /// Number of runs.
    pub runs: u32,
    /// The last run that violates the invariant, else the last run.
    pub observation: Observation,
}

/// Why a case was not replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The case, or the request, is not valid here.
    #[error("{0}")]
    Usage(#[from] UsageError),
    /// The store does not work without injections, or cannot be traced: the case cannot be run.
    #[error("the case cannot be run: {0}")]
    NotRunnable(String),
    /// It was interrupted.
    #[error("interrupted")]
    Interrupted,
    /// The harness itself failed.
    #[error("{0}")]
    Run(#[from] RunError),
}

/// Replays `case` on `target`.
///
/// # Errors
/// If it cannot be replayed.
pub fn replay(
    case: &Case,
    target: &Target,
    options: &Options,
    stop: &Stop,
    watcher: &dyn Watcher,
) -> Result<Replayed, ReplayError> {
    let Some(invariant) = invariants::find(&case.invariant) else {
        let message = format!("this version of picklock does not judge {:?}", case.invariant);
        return Err(UsageError::new("CASE", message).into());
    };
    let made = |folder: &std::path::Path| watcher.made(folder);
    let sandbox = Sandbox::create(options.dir.as_deref(), &target.data, options.multi_call.as_deref(), &made)
        .map_err(|why| ReplayError::NotRunnable(format!("there can be no sandbox: {why}")))?;
    let repeat = options.repeat.max(1);
    let replayed = Replay { case, target, sandbox: &sandbox, stop, watcher, invariant, repeat }.run();
    if let (Ok(_), Some(folder)) = (&replayed, &options.keep) {
        let kept = folder.join(case.file_name()).with_extension("sandbox");
        sandbox.copy_to(&kept).map_err(|why| {
            UsageError::new("--keep", format!("the sandbox cannot be copied to {kept:?}: {why}"))
        })?;
    }
    sandbox.remove().map_err(RunError::system("remove the sandbox"))?;
    replayed
}

struct Replay<'a> {
    case: &'a Case,
    target: &'a Target,
    sandbox: &'a Sandbox,
    stop: &'a Stop,
    watcher: &'a dyn Watcher,
    invariant: &'static Invariant,
    repeat: u32,
}

impl Replay<'_> {
    fn run(&self) -> Result<Replayed, ReplayError> {
        let on_operation = || self.watcher.operation();
        let mut env = ExecEnv::new(self.target, self.sandbox, self.stop, &on_operation);
        env.shows_content = true;
        let control = runner::control(&env).map_err(stopped_or)?;
        if let Some(reason) = control.failure {
            return Err(ReplayError::NotRunnable(reason));
        }
        let first = env.first().map_err(untraceable)?;
        let mut violations = 0;
        let mut last: Option<(Observation, Option<String>)> = None;
        let mut runs = 0;
        while runs < CLEAN_RUNS.max(self.repeat) {
            runs += 1;
            let played = env
                .play(&self.case.scenario, &self.case.script, &first, &control.subject, runs, false)
                .map_err(untraceable)?;
            let observation = played.observation;
            let seen = match self.invariant.judge(&observation) {
                Judgement::Violated(seen) => Some(seen),
                _ => None,
            };
            if let Some(difference) = self.difference(&observation, seen.is_some()) {
                return Ok(Replayed { outcome: Outcome::Diverged(difference), runs, observation });
            }
            violations += u32::from(seen.is_some());
            let is_first_violation = violations == 1 && seen.is_some();
            if is_first_violation || violations == 0 {
                last = Some((observation, seen));
            }
            // After both a clean run and a violation, all runs are needed to report how often it violates.
            let is_reproduced = violations == runs && runs >= self.repeat;
            let is_fixed = violations == 0 && runs >= CLEAN_RUNS;
            if is_reproduced || is_fixed {
                break;
            }
        }
        let Some((observation, seen)) = last else { return Err(ReplayError::Interrupted) };
        let outcome = match seen {
            Some(seen) if violations == runs => Outcome::Reproduced(seen),
            Some(seen) => Outcome::Flaky(violations, runs, seen),
            None => Outcome::Fixed,
        };
        Ok(Replayed { outcome, runs, observation })
    }

    /// Returns where a run took another path than the case before the injection. Without an injection, the whole path
    /// is the subject of the case: another path with the same result is then no difference.
    fn difference(&self, observation: &Observation, is_violated: bool) -> Option<Difference> {
        let point = self.case.script.injection().map(|injection| injection.point);
        if (point.is_none() && is_violated) || self.case.script.stops_a_session() {
            return None;
        }
        first_difference(&self.case.steps, &steps(observation), point)
    }
}

fn stopped_or(error: RunError) -> ReplayError {
    match error {
        RunError::Stopped => ReplayError::Interrupted,
        other => ReplayError::Run(other),
    }
}

fn untraceable(error: TraceError) -> ReplayError {
    match error {
        TraceError::Run(error) => stopped_or(error),
        other => ReplayError::NotRunnable(other.to_string()),
    }
}

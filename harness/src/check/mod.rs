//! Runs `check`: all scenarios on a target, the verdicts, and the report.

mod confirming;
mod divided;
mod finding;
mod judging;
mod scenarios;
mod summary;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::case::Explanation;
use crate::diagnoses::Shown;
use crate::evidence::Ledger;
use crate::invariants::{self, Invariant};
use crate::report::baseline::Baseline;
use crate::report::narrative::Narrative;
use crate::report::{Counterexample, Remark, Report};
use crate::runner::{self, Control, ExecEnv, Pass, Prepared, RunError, Stop, TraceError};
use crate::sandbox::Sandbox;
use crate::scenario::{self, stress};
use crate::selection::Selection;
use crate::shard::Shard;
use crate::target::{DataFile, Target, UsageError};
use crate::tracer::Templates;
use crate::verdict::Tally;
use crate::volume::Kind;

pub use divided::check_in_parts;
use scenarios::Progress;

/// Maximum number of remarks on portability in a report.
const PORTABILITY_MAX: usize = 3;
/// Maximum numbers of concurrent clients, and of operations of each; larger plans would not end.
const CLIENTS_MAX: u32 = 1000;
const OPERATIONS_MAX: u32 = 1_000_000;
/// Maximum number of concurrent parts; no machine has use for more.
const JOBS_MAX: u32 = 256;
/// Number of descriptors for each client with a running operation, and number of other open descriptors.
const DESCRIPTORS_PER_CLIENT: u64 = 6;
const DESCRIPTORS_BESIDE: u64 = 32;
/// Invariants judged by what the tracer does or sees: without it they are inconclusive.
const BY_THE_TRACER: [&str; 13] = [
    "linearizable",
    "guard-holds",
    "crash-atomic",
    "acked-survives-crash",
    "recovers-after-crash",
    "no-residue",
    "mutual-exclusion",
    "no-self-deadlock",
    "no-leaked-lock",
    "honest-failure",
    "failed-write-keeps-old",
    "power-loss-atomic",
    "acked-survives-power-loss",
];
/// Part of the budget kept for the last operations and the look at the store after them.
const RESERVE: Duration = Duration::from_secs(2);
/// Maximum time kept for the start and the cleanup of the run. On a machine with ten busy processes these took 2.8 s.
const CLEANUP_MAX: Duration = Duration::from_secs(2);

/// Options of a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Scenarios and invariants to run and judge.
    pub selection: Selection,
    /// Number of concurrent clients; each scenario has its own default.
    pub clients: Option<u32>,
    /// Number of operations of each client; each scenario has its own default.
    pub operations: Option<u32>,
    /// Run exactly the schedules with at most this many preemptions.
    pub preemptions: Option<u32>,
    /// Whether a run passes if a larger budget would settle everything that is inconclusive.
    pub allow_partial: bool,
    /// The shard to run.
    pub shard: Shard,
    /// Random seed.
    pub seed: u64,
    /// Time limit of the whole run; `None` for no limit.
    pub budget: Option<Duration>,
    /// Folder whose file system is tested; `None` for a memory file system.
    pub dir: Option<PathBuf>,
    /// Stop at the first violation.
    pub fail_fast: bool,
    /// Claims that override the target's own.
    pub claims: BTreeMap<String, bool>,
    /// Folder in which to keep the sandbox of each finding.
    pub keep: Option<PathBuf>,
    /// Run traced operations as copies of stopped processes, if they can be copied.
    pub copies: bool,
    /// Where to save replayable findings.
    pub cases: Option<Cases>,
    /// File systems on which to try what the persistence model allows.
    pub confirm: Vec<Kind>,
    /// Known violations: they do not count, and do not end a run that stops at the first violation.
    pub baseline: Option<Baseline>,
    /// Program that acts as `{store}` and `{critical}` when called by those names; without it, they do not work.
    pub multi_call: Option<PathBuf>,
}

/// Where replayable findings are saved.
#[derive(Clone, Debug)]
pub struct Cases {
    /// The folder; it is created with the first case.
    pub folder: PathBuf,
    /// Arguments that name the target on a command line, with a leading blank: part of the replay command.
    pub target_flags: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            selection: Selection::default(),
            clients: None,
            operations: None,
            preemptions: None,
            allow_partial: false,
            shard: Shard::default(),
            seed: 1,
            budget: Some(Duration::from_secs(60)),
            dir: None,
            fail_fast: false,
            claims: BTreeMap::new(),
            keep: None,
            copies: true,
            cases: None,
            confirm: Vec::new(),
            baseline: None,
            multi_call: None,
        }
    }
}

/// Receives the progress of a run. All methods may be called from any thread.
pub trait Watcher: Sync {
    /// A folder is about to be made; it must be removed if this process cannot do that.
    fn made(&self, _folder: &Path) {}
    /// A scenario begins, with about this many operations.
    fn begins(&self, _scenario: &str, _operations: u64) {}
    /// An operation has ended.
    fn operation(&self) {}
    /// Reports how long the whole run may take if all experiments that invariants need run; it ends with the budget.
    fn estimate(&self, _time: Duration, _budget: Option<Duration>) {}
}

/// Ignores all progress.
impl Watcher for () {}

/// Errors that prevent a report.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The options make no sense.
    #[error("{0}")]
    Usage(#[from] UsageError),
    /// The harness itself failed.
    #[error("{0}")]
    Run(#[from] RunError),
    /// The harness failed, and its sandbox could not be removed either.
    #[error("{0}; {1}")]
    Leftover(RunError, std::io::Error),
}

/// Judges `target`. Changes nothing process-wide, and waits for no process but those it starts.
///
/// # Errors
/// If the options make no sense for this machine, or the harness itself failed. A violation is no error.
pub fn check(
    target: &Target,
    options: &Options,
    stop: &Stop,
    watcher: &dyn Watcher,
) -> Result<Report, CheckError> {
    judge(target, options, stop, watcher, false).map(|(report, _)| report)
}

/// Judges `target` as [`check`] does, and makes a narrative of each counterexample of the report. To do so, it reads
/// the data file after each change.
///
/// # Errors
/// As in [`check`].
pub fn check_and_tell(
    target: &Target,
    options: &Options,
    stop: &Stop,
    watcher: &dyn Watcher,
) -> Result<(Report, Vec<Narrative>), CheckError> {
    judge(target, options, stop, watcher, true)
}

fn judge(
    target: &Target,
    options: &Options,
    stop: &Stop,
    watcher: &dyn Watcher,
    tells: bool,
) -> Result<(Report, Vec<Narrative>), CheckError> {
    let began = Instant::now();
    options.usable(1)?;
    let made = |folder: &Path| watcher.made(folder);
    let sandbox =
        Sandbox::in_dir(options.dir.as_deref(), &target.data, options.multi_call.as_deref(), &made)?;
    let volumes = confirming::templates(options, &sandbox)?;
    let mut run = Run::new(target, options, stop, watcher, began);
    run.tells = tells;
    let ran = run.scenarios(&sandbox);
    run.confirm(&volumes, &sandbox);
    let narratives = std::mem::take(&mut run.narratives);
    let mut report = run.into_report();
    // Remove the sandbox, whatever happened.
    let removed = sandbox.remove();
    match (ran, removed) {
        (Ok(()), Ok(())) => {}
        (Ok(()), Err(why)) => report.remarks.push(Remark::new("leftover", why.to_string())),
        (Err(error), Ok(())) => return Err(error.into()),
        (Err(error), Err(why)) => return Err(CheckError::Leftover(error, why)),
    }
    report.elapsed_ms = milliseconds(began.elapsed());
    Ok((report, narratives))
}

impl Options {
    /// Checks whether a run could begin in this many concurrent parts, in this folder, and with these file systems.
    ///
    /// # Errors
    /// Reports the first flag that prevents it, with a working alternative.
    pub fn try_out(&self, jobs: u32, data: &DataFile, made: &dyn Fn(&Path)) -> Result<(), UsageError> {
        self.usable(jobs)?;
        Sandbox::try_dir(self.dir.as_deref(), data, made, |sandbox| {
            confirming::templates(self, sandbox).map(drop)
        })
    }

    /// Checks whether the options make sense on this machine, in this many concurrent parts.
    fn usable(&self, jobs: u32) -> Result<(), UsageError> {
        // A value out of all proportion is a typing error.
        let in_bounds = |flag: &str, value: Option<u32>, max: u32| match value {
            Some(0) => Err(UsageError::new(flag, "must be at least 1")),
            Some(value) if value > max => {
                Err(UsageError::new(flag, format!("must be at most {max}, not {value}")))
            }
            _ => Ok(()),
        };
        in_bounds("--clients", self.clients, CLIENTS_MAX)?;
        in_bounds("--ops", self.operations, OPERATIONS_MAX)?;
        in_bounds("--jobs", Some(jobs), JOBS_MAX)?;
        divided::parts(self.shard, jobs)?;
        let clients = u64::from(jobs) * u64::from(self.clients.unwrap_or(stress::CLIENTS));
        let needed = clients * DESCRIPTORS_PER_CLIENT + DESCRIPTORS_BESIDE;
        let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let Some(allowed) = descriptors.filter(|allowed| *allowed < needed) else { return Ok(()) };
        let (flag, few) = if jobs > 1 { ("--jobs", "fewer jobs") } else { ("--clients", "fewer clients") };
        Err(UsageError::new(
            flag,
            format!("{clients} clients at once need {needed} descriptors, and {allowed} are allowed"),
        )
        .help(format!("ulimit -n {needed}, or {few}")))
    }
}

struct Run<'a> {
    target: &'a Target,
    options: &'a Options,
    stop: &'a Stop,
    watcher: &'a dyn Watcher,
    began: Instant,
    control: Option<Control>,
    tallies: Vec<(&'static Invariant, Tally)>,
    counterexamples: BTreeMap<&'static str, Vec<Counterexample>>,
    /// Whether to make narratives of counterexamples.
    tells: bool,
    /// Narratives of the counterexamples.
    narratives: Vec<Narrative>,
    /// Progress of each scenario.
    progress: BTreeMap<&'static str, Progress>,
    /// Experiments that invariants need, and those that ran.
    ledger: Ledger,
    remarks: Vec<Remark>,
    failures: BTreeMap<String, (u64, String)>,
    unfinished: BTreeMap<String, u64>,
    /// Number of adds that failed but had stored their record, by failure.
    stored_failures: BTreeMap<String, u64>,
    /// Activities that the traces do not cover.
    not_covered: BTreeSet<String>,
    /// Likely causes that baseline runs show.
    quiet: Vec<Shown>,
    /// Likely causes that only injected runs show.
    disturbed: Vec<Shown>,
    /// Why a case could not be saved.
    unsaved: Option<String>,
    /// Estimated time of the experiments that invariants need, computed before the first one ran.
    estimate: Option<Duration>,
    /// Longest time by which a scenario ran past the end of its share.
    lateness: Duration,
    /// Why a scenario was cut short, so that something may not have been judged.
    cut_short: Option<String>,
    /// Invariants violated by the schedule that is being minimized.
    looked_for: Vec<&'static str>,
    /// Explanation of the execution that is being judged.
    explanation: Option<Explanation>,
    /// Its position in its scenario.
    place: u64,
    /// Invariants violated by the derived state that is being executed for real.
    derived_violations: Vec<&'static str>,
    /// Faults that have a counterexample in the report: invariant, call, and what the fault is a finding of.
    faults_shown: BTreeSet<(&'static str, String, &'static str)>,
    /// Power-loss findings to be tried on real file systems.
    open: Vec<confirming::Open>,
    /// Invariants that derived states violate, each with what was missing on the disk, and whether only the standard
    /// allows that: a question of portability in one operation may be more than that in another.
    blamed: BTreeSet<(&'static str, String, bool)>,
}

impl<'a> Run<'a> {
    fn new(
        target: &'a Target,
        options: &'a Options,
        stop: &'a Stop,
        watcher: &'a dyn Watcher,
        began: Instant,
    ) -> Self {
        let chosen =
            invariants::ALL.iter().filter(|invariant| options.selection.invariants.contains(invariant.id));
        Self {
            target,
            options,
            stop,
            watcher,
            began,
            control: None,
            tallies: chosen.map(|invariant| (*invariant, Tally::default())).collect(),
            counterexamples: BTreeMap::new(),
            tells: false,
            narratives: Vec::new(),
            progress: BTreeMap::new(),
            ledger: Ledger::default(),
            remarks: Vec::new(),
            failures: BTreeMap::new(),
            unfinished: BTreeMap::new(),
            stored_failures: BTreeMap::new(),
            not_covered: BTreeSet::new(),
            quiet: Vec::new(),
            disturbed: Vec::new(),
            unsaved: None,
            estimate: None,
            lateness: Duration::ZERO,
            cut_short: None,
            looked_for: Vec::new(),
            explanation: None,
            place: 0,
            derived_violations: Vec::new(),
            faults_shown: BTreeSet::new(),
            open: Vec::new(),
            blamed: BTreeSet::new(),
        }
    }

    fn scenarios(&mut self, sandbox: &Sandbox) -> Result<(), RunError> {
        let on_operation = || self.watcher.operation();
        let mut env = ExecEnv::new(self.target, sandbox, self.stop, &on_operation);
        env.shows_content = self.tells;
        // The budget never cuts the control short: without it nothing can be judged.
        self.watcher.begins("control", u64::from(scenario::control::ADDS) * 2);
        let mut control = match runner::control(&env) {
            Err(RunError::Stopped) => return Ok(()),
            ran => ran?,
        };
        let passed = control.failure.is_none();
        self.control = Some(control.clone());
        if !passed {
            return Ok(());
        }
        let chosen = self.chosen_scenarios();
        let mut templates = self.options.copies.then(Mutex::default);
        self.give_share(&mut env, 1, 1);
        env.templates = templates.take();
        let prepared = match chosen.iter().any(|id| *id != "stress") {
            true => Some(runner::prepare(&env, &control, self.breadth(), &chosen)),
            false => None,
        };
        env.with_templates(Templates::end);
        templates = env.templates.take();
        let mut prepared = match prepared {
            Some(Ok(prepared)) => {
                self.diagnose(&prepared.traces);
                self.not_covered.extend(prepared.not_covered.iter().cloned());
                control.subject = prepared.subject.clone();
                self.expect(&prepared, &chosen);
                Some(prepared)
            }
            Some(Err(TraceError::Run(RunError::Stopped))) => {
                self.cut_short.get_or_insert("the budget ended the baseline runs".to_owned());
                None
            }
            Some(Err(TraceError::Run(error))) => return Err(error),
            Some(Err(_)) if env.is_cut() => {
                self.cut_short.get_or_insert("the budget ended the baseline runs".to_owned());
                None
            }
            Some(Err(other)) => {
                self.give_up_all(&chosen, &other);
                None
            }
            None => None,
        };
        if let Some(prepared) = &mut prepared {
            let early: Vec<&'static str> =
                scenario::TELLING_ORDER.into_iter().filter(|id| chosen.contains(id)).collect();
            for (index, scenario) in early.iter().enumerate() {
                if self.is_over() {
                    break;
                }
                // Half of the time goes to the most informative scenarios, however slow the store is.
                self.give_share(&mut env, 2, early.len() - index);
                self.sweep_with(&mut templates, scenario, Pass::Early, &mut env, prepared, sandbox)?;
                self.note_lateness(env.hard_end);
            }
        }
        let rest: Vec<&'static str> =
            chosen.iter().copied().filter(|id| *id == "stress" || prepared.is_some()).collect();
        for (index, scenario) in rest.iter().enumerate() {
            if self.is_over() {
                break;
            }
            self.give_share(&mut env, 1, rest.len() - index);
            match (*scenario, &mut prepared) {
                ("stress", _) => {
                    if prepared.is_none() && self.target.harmless_ops().next().is_some() {
                        // The baseline files of the other operations are not known: leftovers cannot be distinguished
                        // from them.
                        control.subject.baseline_file_counts.clear();
                        control.subject.baseline_shapes.clear();
                    }
                    self.stress(&env, &control, sandbox)?;
                }
                (other, Some(prepared)) => {
                    self.sweep_with(&mut templates, other, Pass::Remaining, &mut env, prepared, sandbox)?;
                }
                (_, None) => {}
            }
            self.note_lateness(env.hard_end);
        }
        self.note_copies(templates);
        let survivors = env.operations_with_survivors();
        if survivors > 0 {
            self.remarks.push(Remark::new(
                "survivors",
                format!("{survivors} operations left processes behind that lived on; picklock ended them"),
            ));
        }
        Ok(())
    }

    /// Records why no copies were made, if some were expected.
    fn note_copies(&mut self, templates: Option<Mutex<Templates>>) {
        let templates =
            templates.map(|templates| templates.into_inner().unwrap_or_else(PoisonError::into_inner));
        if let Some(why) = templates.as_ref().and_then(Templates::refused) {
            let text = format!("every operation was started from scratch, which takes longer: {why}");
            if self.remarks.iter().all(|remark| remark.text != text) {
                self.remarks.push(Remark::new("no-copies", text));
            }
        }
    }

    /// Returns the scenarios that run after the control, in the order in which they are shown.
    fn chosen_scenarios(&self) -> Vec<&'static str> {
        let chosen = |id: &&str| self.options.selection.scenarios.contains(*id);
        let can_run = |id: &&str| *id != "session" || self.target.session.is_some();
        scenario::ORDER.into_iter().filter(chosen).filter(can_run).collect()
    }

    /// Whether nothing more is to be run.
    fn is_over(&self) -> bool {
        self.stop.is_requested() || (self.options.fail_fast && self.claimed_is_violated())
    }

    /// Records the expected experiments, and reports to the watcher how long all of them may take.
    fn expect(&mut self, prepared: &Prepared, scenarios: &[&'static str]) {
        for scenario in scenarios {
            for (kind, (needed, guess)) in prepared.expected(scenario, self.breadth()) {
                self.ledger.expect(kind, needed, guess);
            }
        }
        self.estimate = Some(self.began.elapsed() + self.ledger.time_missing());
        self.watcher.estimate(self.began.elapsed() + self.ledger.time_missing(), self.options.budget);
    }

    fn sweep_with(
        &mut self,
        templates: &mut Option<Mutex<Templates>>,
        scenario: &'static str,
        pass: Pass,
        env: &mut ExecEnv<'_>,
        prepared: &mut Prepared,
        sandbox: &Sandbox,
    ) -> Result<(), RunError> {
        env.templates = templates.take();
        let usual = self.control.as_ref().map_or(Duration::ZERO, |control| control.timing.whole);
        let swept = self.sweep(scenario, pass, env, prepared, usual, sandbox);
        env.with_templates(Templates::end);
        *templates = env.templates.take();
        swept
    }

    /// Returns when the last execution must be over so that the run ends within its budget: the process starts before
    /// the clock of the run does, and the sandboxes are removed after it.
    fn end(&self) -> Option<Instant> {
        let budget = self.options.budget?;
        let kept = CLEANUP_MAX.min(budget / 30).max(self.lateness * 2).min(budget / 4);
        self.began.checked_add(budget - kept)
    }

    /// Records how late a scenario ended: on a busy machine the next one and the cleanup are as late.
    fn note_lateness(&mut self, hard_end: Option<Instant>) {
        let late = hard_end.map_or(Duration::ZERO, |end| Instant::now().saturating_duration_since(end));
        self.lateness = self.lateness.max(late);
    }

    /// Gives the next scenario an equal share of a part of the remaining budget: of the whole, of half of it …
    fn give_share(&self, env: &mut ExecEnv<'_>, part: u32, scenarios: usize) {
        let now = Instant::now();
        let end = self.end();
        let share = end.map(|end| {
            end.saturating_duration_since(now) / part / u32::try_from(scenarios).unwrap_or(1).max(1)
        });
        env.hard_end = share.map(|share| now + share);
        // While it is unknown how long the last operations take, at most a tenth is kept for them.
        env.soft_end = share.map(|share| now + (share - RESERVE.min(share / 10)));
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

//! `check`: runs the scenarios on a target, judges what they show, and makes the report.

mod finding;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::diagnoses::{self, Shown};
use crate::invariants::{self, Invariant, Needs};
use crate::observation::{Observation, Trace};
use crate::op::{CANCELLED, Limit, Operation, Outcome};
use crate::report::{
    ControlSummary, Counterexample, Coverage, DiagnosisSummary, InvariantSummary, OperationCounts, Rate,
    Remark, Report, SCHEMA, ScenarioSummary, TargetSummary, Tool,
};
use crate::runner::{self, Control, Next, RunError, Showing, Stage, Stop, TraceError};
use crate::sandbox::Sandbox;
use crate::scenario::script::Script;
use crate::scenario::{self, stress};
use crate::selection::Selection;
use crate::target::{Format, Target, UsageError};
use crate::tracer::Templates;
use crate::verdict::{Judgement, Tally, Verdict};

/// Counterexamples that a report holds for one invariant.
const COUNTEREXAMPLES_MAX: usize = 3;
/// Remarks on portability in a report.
const PORTABILITY_MAX: usize = 3;
/// More clients at once, or more operations of each, are no plan that ends.
const CLIENTS_MAX: u32 = 1000;
const OPERATIONS_MAX: u32 = 1_000_000;
/// Descriptors that a client with an operation under way takes, and those that are open beside them.
const DESCRIPTORS_PER_CLIENT: u64 = 6;
const DESCRIPTORS_BESIDE: u64 = 32;
/// The invariants that are judged at crash points, or by the locks of a trace: without the tracer they stay open.
const BY_THE_TRACER: [&str; 7] = [
    "crash-atomic",
    "acked-survives-crash",
    "recovers-after-crash",
    "no-residue",
    "mutual-exclusion",
    "no-self-deadlock",
    "no-leaked-lock",
];
/// What is kept of the budget for the last operations and the look at the store after them.
const RESERVE: Duration = Duration::from_secs(2);

/// What to try, and how hard.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is run and judged.
    pub selection: Selection,
    /// Clients at a time; each scenario has a default of its own.
    pub clients: Option<u32>,
    /// Operations of each client; each scenario has a default of its own.
    pub operations: Option<u32>,
    /// Of all chance.
    pub seed: u64,
    /// A ceiling for the whole run; none for no end.
    pub budget: Option<Duration>,
    /// The folder whose file system is tested on; a memory file system where none is given.
    pub dir: Option<PathBuf>,
    /// End at the first violation.
    pub fail_fast: bool,
    /// Claims that override the target's own.
    pub claims: BTreeMap<String, bool>,
    /// Leave the sandbox of each finding, in this folder.
    pub keep: Option<PathBuf>,
    /// Run operations under the tracer as copies of stopped processes, where they can be copied.
    pub copies: bool,
    /// Save the findings that replay.
    pub cases: Option<Cases>,
    /// The program that is `{store}` and `{critical}` when it is called by those names; without it, they do not work.
    pub multi_call: Option<PathBuf>,
}

/// Where findings are saved that replay.
#[derive(Clone, Debug)]
pub struct Cases {
    /// The folder; it is made with the first of them.
    pub folder: PathBuf,
    /// What names the target on a command line, with a blank in front: part of the command that replays.
    pub target_flags: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            selection: Selection::default(),
            clients: None,
            operations: None,
            seed: 1,
            budget: Some(Duration::from_secs(60)),
            dir: None,
            fail_fast: false,
            claims: BTreeMap::new(),
            keep: None,
            copies: true,
            cases: None,
            multi_call: None,
        }
    }
}

/// Who wants to know how a run goes on. All methods may be called from any thread.
pub trait Watcher: Sync {
    /// A folder is about to be made that is to be removed, should this process not come to it.
    fn made(&self, _folder: &Path) {}
    /// A scenario begins, with about so many operations.
    fn begins(&self, _scenario: &str, _operations: u64) {}
    /// An operation has ended.
    fn operation(&self) {}
}

/// Nobody wants to know.
impl Watcher for () {}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// What was asked makes no sense.
    #[error("{0}")]
    Usage(#[from] UsageError),
    /// The harness could not do its part.
    #[error("{0}")]
    Run(#[from] RunError),
    /// The same, and its sandbox could not be removed either.
    #[error("{0}; {1}")]
    Leftover(RunError, std::io::Error),
}

/// Judges `target`. Changes nothing process-wide, and waits for no process but those it starts.
///
/// # Errors
/// Where the options make no sense for this machine, or the harness itself failed. A violation is no error.
pub fn check(
    target: &Target,
    options: &Options,
    stop: &Stop,
    watcher: &dyn Watcher,
) -> Result<Report, CheckError> {
    let began = Instant::now();
    if options.clients == Some(0) {
        return Err(UsageError::new("--clients", "must be at least 1").into());
    }
    bound("--clients", options.clients, CLIENTS_MAX)?;
    bound("--ops", options.operations, OPERATIONS_MAX)?;
    let clients = u64::from(options.clients.unwrap_or(stress::CLIENTS));
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let needed = clients * DESCRIPTORS_PER_CLIENT + DESCRIPTORS_BESIDE;
    if let Some(allowed) = descriptors.filter(|allowed| *allowed < needed) {
        return Err(UsageError::new(
            "--clients",
            format!("{clients} clients need {needed} descriptors, and {allowed} are allowed"),
        )
        .help(format!("ulimit -n {needed}, or fewer clients"))
        .into());
    }
    if options.operations == Some(0) {
        return Err(UsageError::new("--ops", "must be at least 1").into());
    }
    let made = |folder: &Path| watcher.made(folder);
    let sandbox = Sandbox::create(options.dir.as_deref(), &target.data, options.multi_call.as_deref(), &made)
        .map_err(|why| unusable_folder(options.dir.as_deref(), &why))?;
    let mut run = Run::new(target, options, stop, watcher, began);
    let ran = run.scenarios(&sandbox);
    let mut report = run.into_report();
    // Whatever happened, nothing is left behind.
    let removed = sandbox.remove();
    match (ran, removed) {
        (Ok(()), Ok(())) => {}
        (Ok(()), Err(why)) => report.remarks.push(Remark::new("leftover", why.to_string())),
        (Err(error), Ok(())) => return Err(error.into()),
        (Err(error), Err(why)) => return Err(CheckError::Leftover(error, why)),
    }
    report.elapsed_ms = milliseconds(began.elapsed());
    Ok(report)
}

/// What is out of all proportion is a slip of the finger.
fn bound(flag: &str, value: Option<u32>, max: u32) -> Result<(), UsageError> {
    match value {
        Some(value) if value > max => {
            Err(UsageError::new(flag, format!("must be at most {max}, not {value}")))
        }
        _ => Ok(()),
    }
}

fn unusable_folder(dir: Option<&Path>, why: &std::io::Error) -> UsageError {
    let place = dir.map_or_else(|| "the default folder for sandboxes".to_owned(), |dir| format!("{dir:?}"));
    UsageError::new("--dir", format!("{place} cannot hold a sandbox: {why}"))
        .help("name a folder that exists, is writable and has a megabyte free")
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
    scenarios: Vec<ScenarioSummary>,
    remarks: Vec<Remark>,
    failures: BTreeMap<String, (u64, String)>,
    unfinished: BTreeMap<String, u64>,
    /// What the traces say is not seen.
    not_covered: BTreeSet<String>,
    /// What quiet runs show of likely causes.
    quiet: Vec<Shown>,
    /// Likely causes that nothing but a disturbed run shows.
    disturbed: Vec<Shown>,
    /// Why a case could not be saved.
    unsaved: Option<String>,
    /// Why a scenario was cut short, which is why something may not have been judged.
    cut_short: Option<String>,
    /// Whether quiet runs told what the operations make.
    has_quiet_runs: bool,
    /// Invariants that derived states violate, each with what was missing on the disk.
    blamed: BTreeSet<(String, String)>,
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
            scenarios: Vec::new(),
            remarks: Vec::new(),
            failures: BTreeMap::new(),
            unfinished: BTreeMap::new(),
            not_covered: BTreeSet::new(),
            quiet: Vec::new(),
            disturbed: Vec::new(),
            unsaved: None,
            cut_short: None,
            has_quiet_runs: false,
            blamed: BTreeSet::new(),
        }
    }

    fn scenarios(&mut self, sandbox: &Sandbox) -> Result<(), RunError> {
        let on_operation = || self.watcher.operation();
        let mut stage = Stage::new(self.target, sandbox, self.stop, &on_operation);
        // The control is never cut short by the budget: without it nothing can be said at all.
        self.watcher.begins("control", u64::from(scenario::control::ADDS) * 2);
        let mut control = match runner::control(&stage) {
            Err(RunError::Stopped) => return Ok(()),
            ran => ran?,
        };
        let passed = control.failure.is_none();
        self.control = Some(control.clone());
        if !passed {
            return Ok(());
        }
        let chosen = |id: &&str| self.options.selection.scenarios.contains(*id);
        let can_run = |id: &&str| *id != "session" || self.target.session.is_some();
        let chosen: Vec<&str> = scenario::ORDER.into_iter().filter(chosen).filter(can_run).collect();
        let mut templates = self.options.copies.then(Mutex::default);
        for (index, scenario) in chosen.iter().enumerate() {
            if self.stop.is_requested() || (self.options.fail_fast && self.claimed_is_violated()) {
                break;
            }
            self.give_share(&mut stage, chosen.len() - index);
            match *scenario {
                "stress" => {
                    if !self.has_quiet_runs && self.target.harmless_ops().next().is_some() {
                        // Which files the other operations make undisturbed is not known: no leftover can be told from
                        // them.
                        control.subject.quiet_file_counts.clear();
                    }
                    self.stress(&stage, &control, sandbox)?;
                }
                other => {
                    stage.templates = templates.take();
                    let swept = self.sweep(other, &stage, &mut control, sandbox);
                    stage.with_templates(Templates::end);
                    templates = stage.templates.take();
                    swept?;
                }
            }
        }
        self.note_copies(templates);
        let survivors = stage.operations_with_survivors();
        if survivors > 0 {
            self.remarks.push(Remark::new(
                "survivors",
                format!("{survivors} operations left processes behind that lived on; picklock ended them"),
            ));
        }
        Ok(())
    }

    /// Takes note of why no copies were made, if there should have been some.
    fn note_copies(&mut self, templates: Option<Mutex<Templates>>) {
        let templates =
            templates.map(|templates| templates.into_inner().unwrap_or_else(PoisonError::into_inner));
        if let Some(why) = templates.as_ref().and_then(Templates::refused) {
            let text = format!("every operation was started anew, which takes longer: {why}");
            if self.remarks.iter().all(|remark| remark.text != text) {
                self.remarks.push(Remark::new("no-copies", text));
            }
        }
    }

    /// Gives the next of `scenarios` its equal share of what is left of the budget.
    fn give_share(&self, stage: &mut Stage<'_>, scenarios: usize) {
        let now = Instant::now();
        let end = self.options.budget.and_then(|budget| self.began.checked_add(budget));
        let share = end.map(|end| end.saturating_duration_since(now) / u32::try_from(scenarios).unwrap_or(1));
        stage.hard_end = share.map(|share| now + share);
        // As long as it is not clear how long the last operations take, a tenth at most is kept for them.
        stage.soft_end = share.map(|share| now + (share - RESERVE.min(share / 10)));
    }

    /// Runs a scenario that is made from quiet runs under the tracer.
    fn sweep(
        &mut self,
        scenario: &'static str,
        stage: &Stage<'_>,
        control: &mut Control,
        sandbox: &Sandbox,
    ) -> Result<(), RunError> {
        let began = Instant::now();
        self.watcher.begins(scenario, 0);
        let mut counts = OperationCounts::default();
        let mut executions = 0;
        let ran = runner::sweep(stage, control, scenario, &mut |showing| match showing {
            Showing::Quiet(trace) => {
                self.diagnose(&[trace]);
                Next::GoOn
            }
            Showing::Derived { observation, script } => self.take_derived(&observation, script),
            Showing::Execution { observation, script, has_copies } => {
                if has_copies && self.is_unclear(&observation) {
                    return Next::Confirm;
                }
                if script.is_portability() {
                    self.remark_on_portability(&observation);
                    return Next::GoOn;
                }
                match self.take(&observation, Some(script), &mut executions, &mut counts, sandbox) {
                    ControlFlow::Continue(()) => Next::GoOn,
                    ControlFlow::Break(()) => Next::End,
                }
            }
        });
        let done = match ran {
            Ok(done) => done,
            Err(TraceError::Run(error)) => return Err(error),
            // What cannot be traced is judged by what was seen otherwise, and the rest stays open.
            Err(other) => {
                for (_, tally) in
                    self.tallies.iter_mut().filter(|(invariant, _)| BY_THE_TRACER.contains(&invariant.id))
                {
                    tally.doubt.get_or_insert(format!("{scenario} could not be run: {other}"));
                }
                return Ok(());
            }
        };
        control.subject = done.subject;
        self.has_quiet_runs = true;
        let told: Vec<String> = done
            .groups
            .iter()
            .map(|(what, planned, made)| match planned == made {
                true => format!("all {planned} {what}"),
                false => format!("{made} of {planned} {what}"),
            })
            .collect();
        let missing = match done.cut {
            None => "",
            Some(runner::Cut::Budget) => "; the budget ended it",
            Some(runner::Cut::FailFast) => "; ended at the first violation",
            Some(runner::Cut::Interrupted | runner::Cut::Hung) => "; interrupted",
        };
        // Of one write only some lengths are tried: that is the bound of this scenario, whatever the store.
        let each = if scenario == "torn-write" { "; at most twelve of one write" } else { "" };
        let torn = match done.states {
            (_, 0) => String::new(),
            (_, torn) => format!("; {torn} of the derived states have a data file that is not whole"),
        };
        let bounded = match done.bounds.is_empty() {
            true => String::new(),
            false => format!("; left out: {}", done.bounds.join(", ")),
        };
        if done.cut == Some(runner::Cut::Budget) {
            self.cut_short.get_or_insert(format!("the budget ended {scenario}"));
        }
        self.not_covered.extend(done.not_covered);
        let is_complete = done.cut.is_none() && done.bounds.is_empty() && scenario != "torn-write";
        self.scenarios.push(ScenarioSummary {
            id: scenario.into(),
            executions: executions as u64,
            states: done.states.0,
            coverage: match done.cut {
                Some(_) => Coverage::Truncated,
                None if is_complete => Coverage::Complete,
                None => Coverage::Bounded,
            },
            bound: format!("{}{each}{torn}{bounded}{missing}", told.join(", ")),
            elapsed_ms: milliseconds(began.elapsed()),
            operations: counts,
            plan: None,
            crowd: None,
        });
        Ok(())
    }

    fn stress(&mut self, stage: &Stage<'_>, control: &Control, sandbox: &Sandbox) -> Result<(), RunError> {
        let began = Instant::now();
        let clients = self.options.clients.unwrap_or(stress::CLIENTS);
        let operations = self.options.operations.unwrap_or(stress::OPERATIONS);
        let repertoire = stress::Repertoire {
            list: self.target.ops.list.is_some(),
            other: self.target.harmless_ops().map(ToOwned::to_owned).collect(),
            limit: self.target.limit_of_plain_add(),
            recover: self.target.ops.recover.is_some(),
        };
        let plan = stress::Plan::new(self.options.seed, clients, operations, &repertoire);
        self.watcher.begins("stress", plan.operations());
        let mut counts = OperationCounts::default();
        let mut executions = 0;
        let ran = runner::stress(stage, &plan, control, &mut |observation| {
            self.take(&observation, None, &mut executions, &mut counts, sandbox)
        });
        let done = match &ran {
            Ok(done) => *done,
            Err(_) => runner::Stress::default(),
        };
        if control.timing.touches.is_none() {
            self.remarks.push(Remark::new(
                "kill-window",
                "it could not be seen when the store works on its folder, so kills fell anywhere in an operation",
            ));
        }
        let planned = plan.rounds.len();
        if done.cut == Some(runner::Cut::Budget) {
            self.cut_short =
                Some(format!("the budget left only {} of {planned} rounds of stress whole", done.rounds));
        }
        let missing = match done.cut {
            None => String::new(),
            Some(runner::Cut::Budget) => {
                format!("; the budget left only {} of {planned} rounds whole", done.rounds)
            }
            Some(runner::Cut::Hung) => {
                format!("; given up after {} of {planned} rounds, since clients did not end", done.rounds)
            }
            Some(runner::Cut::FailFast) => {
                format!("; ended at the first violation, after {} of {planned} rounds", done.rounds)
            }
            Some(runner::Cut::Interrupted) => {
                format!("; interrupted after {} of {planned} rounds", done.rounds)
            }
        };
        self.scenarios.push(ScenarioSummary {
            id: "stress".into(),
            executions: executions as u64,
            states: 0,
            coverage: if done.cut.is_some() { Coverage::Truncated } else { Coverage::Bounded },
            bound: format!("{clients} clients, then one alone; kills at random moments{missing}"),
            elapsed_ms: milliseconds(began.elapsed()),
            operations: counts,
            plan: Some(plan.fingerprint()),
            crowd: Some(Rate {
                operations: done.crowd.operations,
                killed: done.crowd.killed,
                elapsed_ms: done.crowd.elapsed.as_secs_f64() * 1e3,
                readers_cpu_ms: done.crowd.readers_cpu.as_secs_f64() * 1e3,
            }),
        });
        ran.map(|_| ())
    }

    /// Counts and judges one more execution of a scenario; whether that is enough.
    fn take(
        &mut self,
        observation: &Observation,
        script: Option<&Script>,
        executions: &mut usize,
        counts: &mut OperationCounts,
        sandbox: &Sandbox,
    ) -> ControlFlow<()> {
        for operation in &observation.operations {
            counts.count(&operation.outcome);
        }
        for shown in diagnoses::read(&observation.traces, &observation.subject.data) {
            if self.quiet.iter().all(|other| other.diagnosis.id != shown.diagnosis.id) {
                let call = finding::without_chance(&shown.call, observation);
                note(&mut self.disturbed, Shown { call, ..shown });
            }
        }
        self.judge(*executions, observation, script, sandbox);
        *executions += 1;
        if self.options.fail_fast && self.claimed_is_violated() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn judge(&mut self, index: usize, observation: &Observation, script: Option<&Script>, sandbox: &Sandbox) {
        for operation in &observation.operations {
            match &operation.outcome {
                // Whoever asked for that, or damaged what it needs, was picklock.
                Outcome::Failed(status)
                    if status == CANCELLED
                        || operation.fault.is_some()
                        || !observation.only_for.is_empty() => {}
                Outcome::Failed(status) => {
                    let failure = self.failures.entry(status.clone()).or_default();
                    failure.0 += 1;
                    if !operation.stderr.is_empty() {
                        failure.1.clone_from(&operation.stderr);
                    }
                }
                Outcome::Busy => self.failures.entry("busy".into()).or_default().0 += 1,
                Outcome::Unfinished(limit) if *limit != Limit::Timeout => {
                    *self.unfinished.entry(limit.to_string()).or_default() += 1;
                }
                _ => {}
            }
        }
        for (invariant, tally) in &mut self.tallies {
            if not_applicable(invariant, self.target).is_some() {
                continue;
            }
            let before = tally.violations.len();
            tally.add(index, invariant.judge(observation));
            let Some((_, seen)) = tally.violations.get(before).cloned() else { continue };
            let found = self.counterexamples.entry(invariant.id).or_default();
            if found.len() >= COUNTEREXAMPLES_MAX {
                continue;
            }
            let finding = finding::Finding {
                invariant: invariant.id,
                target: self.target,
                observation,
                script,
                seen: &seen,
                quiet: &self.quiet,
            };
            let (counterexample, unsaved) = finding.into_counterexample(self.options, sandbox);
            if found.iter().any(|other| other.case.is_some() && other.case == counterexample.case) {
                continue;
            }
            if let Some(why) = unsaved {
                self.unsaved.get_or_insert(why);
            }
            found.push(counterexample);
        }
    }

    /// Judges what the store made of a derived state. What violates an invariant is not counted, but done for real:
    /// only what a store was seen to do is held against it.
    fn take_derived(&mut self, observation: &Observation, script: &Script) -> Next {
        let target = self.target;
        let violated: Vec<&str> = self.violated_by(observation).collect();
        if !violated.is_empty() {
            // One missing sync may leave hundreds of states, which all tell the same.
            let losses: Vec<&str> = script.power_losses().map(|loss| loss.told.as_str()).collect();
            let Some(first) = losses.first() else { return Next::Confirm };
            let mut is_new = |id: &&str| {
                let is_told = self.blamed.contains(&((*id).to_owned(), (*first).to_owned()));
                !is_told && self.blamed.insert(((*id).to_owned(), losses.join("; ")))
            };
            return if violated.iter().filter(|id| is_new(id)).count() > 0 {
                Next::Confirm
            } else {
                Next::GoOn
            };
        }
        for (invariant, tally) in &mut self.tallies {
            if not_applicable(invariant, target).is_none() {
                tally.add(0, invariant.judge(observation));
            }
        }
        Next::GoOn
    }

    /// Whether what a copy showed is to be shown by a fresh start: a violation, a doubt, or an operation that hung.
    fn is_unclear(&self, observation: &Observation) -> bool {
        let is_clear = |invariant: &Invariant| {
            matches!(invariant.judge(observation), Judgement::Holds | Judgement::Silent)
        };
        observation.operations.iter().any(Operation::hung)
            || !self.tallies.iter().all(|(invariant, _)| is_clear(invariant))
    }

    /// What is judged and violated by an execution.
    fn violated_by(&self, observation: &Observation) -> impl Iterator<Item = &'static str> {
        let violates = |invariant: &Invariant| matches!(invariant.judge(observation), Judgement::Violated(_));
        self.tallies
            .iter()
            .map(|(invariant, _)| *invariant)
            .filter(move |one| violates(one))
            .map(|one| one.id)
    }

    /// What no file system that picklock knows comes to counts for nothing, and is worth a remark.
    fn remark_on_portability(&mut self, observation: &Observation) {
        let told = observation.disturbance.clone().unwrap_or_default();
        let violated: Vec<&str> = self.violated_by(observation).collect();
        let is_one_more =
            self.remarks.iter().filter(|remark| remark.id == "portability").count() < PORTABILITY_MAX;
        if !violated.is_empty() && is_one_more {
            let told = finding::without_chance(&told, observation);
            self.remarks.push(Remark::new(
                "portability",
                format!("{} would be violated: {told}", violated.join(", ")),
            ));
        }
    }

    /// Takes note of what quiet runs show of likely causes.
    fn diagnose(&mut self, traces: &[Trace]) {
        let data = self.target.data.path.display().to_string();
        for shown in diagnoses::read(traces, &data) {
            note(&mut self.quiet, shown);
        }
    }

    fn is_claimed(&self, id: &str) -> bool {
        self.options.claims.get(id).or_else(|| self.target.claims.get(id)).copied().unwrap_or(true)
    }

    fn claimed_is_violated(&self) -> bool {
        self.tallies
            .iter()
            .any(|(invariant, tally)| self.is_claimed(invariant.id) && tally.verdict() == Verdict::Violated)
    }

    fn into_report(mut self) -> Report {
        self.remark_on_failures();
        let interrupted = self.stop.is_requested();
        let control = match &self.control {
            Some(control) => {
                ControlSummary { passed: control.failure.is_none(), reason: control.failure.clone() }
            }
            None => ControlSummary { passed: false, reason: Some("interrupted before it was done".into()) },
        };
        let passed = control.passed;
        let invariants = if passed { self.invariants() } else { Vec::new() };
        let mut diagnoses = if passed { summaries(&self.quiet, &self.disturbed) } else { Vec::new() };
        let recovers =
            invariants.iter().any(|one| one.id == "recovers-after-crash" && one.verdict == Verdict::Holds);
        // A store that goes on after every kill removes what a dead owner left.
        diagnoses.retain(|diagnosis| !recovers || diagnosis.id != "lock-file-survives-kill");
        let commands = self.target.commands().into_iter();
        let mut report = Report {
            schema: SCHEMA,
            tool: Tool { name: "picklock".into(), version: env!("CARGO_PKG_VERSION").into() },
            target: TargetSummary {
                name: self.target.name.clone(),
                origin: self.target.origin.clone(),
                ops: commands
                    .map(|(name, command)| (name.trim_start_matches("ops.").to_owned(), command.source()))
                    .collect(),
            },
            verdict: Verdict::Inconclusive,
            exit: 0,
            interrupted,
            seed: self.options.seed,
            elapsed_ms: milliseconds(self.began.elapsed()),
            shard: None,
            control,
            scenarios: if passed { self.scenarios } else { Vec::new() },
            invariants,
            diagnoses,
            remarks: self.remarks,
            not_covered: not_covered(self.target).into_iter().chain(self.not_covered).collect(),
        };
        report.conclude();
        report
    }

    fn invariants(&self) -> Vec<InvariantSummary> {
        self.tallies
            .iter()
            .map(|(invariant, tally)| {
                let inapplicable = not_applicable(invariant, self.target);
                let verdict = if inapplicable.is_some() { Verdict::NotApplicable } else { tally.verdict() };
                let reason = match verdict {
                    Verdict::NotApplicable => inapplicable.map(ToOwned::to_owned),
                    Verdict::Inconclusive => {
                        Some(tally.doubt.clone().unwrap_or_else(|| match &self.cut_short {
                            Some(cut) => format!("{}: {cut}; try a larger --budget", invariant.unjudged),
                            None => invariant.unjudged.to_owned(),
                        }))
                    }
                    Verdict::Holds | Verdict::Violated => None,
                };
                InvariantSummary {
                    id: invariant.id.into(),
                    claimed: self.is_claimed(invariant.id),
                    verdict,
                    judged: tally.judged,
                    reason,
                    counterexamples: self.counterexamples.get(invariant.id).cloned().unwrap_or_default(),
                    violations: tally.violations.len() as u64,
                }
            })
            .collect()
    }

    fn remark_on_failures(&mut self) {
        for (status, (count, said)) in &self.failures {
            let said = if said.is_empty() { String::new() } else { format!("; the last one said: {said}") };
            let text = if status == "busy" {
                format!("{count} operations found the store busy: whoever calls it has to try again")
            } else {
                format!(
                    "{count} operations failed with {status}: honest, but whoever calls has to try again{said}"
                )
            };
            self.remarks.push(Remark::new("failed-operations", text));
        }
        if let Some(why) = &self.unsaved {
            self.remarks.push(Remark::new("cases", format!("cases could not be saved: {why}")));
        }
        for (limit, count) in &self.unfinished {
            self.remarks.push(Remark::new(
                "limits",
                format!("{count} operations were killed for going past limits.{limit}; an adapter file can raise it"),
            ));
        }
    }
}

/// Takes note of a diagnosis, once.
fn note(all: &mut Vec<Shown>, shown: Shown) {
    if all.iter().all(|other| other.diagnosis.id != shown.diagnosis.id) {
        all.push(shown);
    }
}

/// All likely causes, in the order of their catalogue.
fn summaries(quiet: &[Shown], disturbed: &[Shown]) -> Vec<DiagnosisSummary> {
    let of = |id: &str| quiet.iter().chain(disturbed).find(|shown| shown.diagnosis.id == id);
    let all = diagnoses::ALL.iter().filter_map(|diagnosis| of(diagnosis.id));
    all.map(|shown| DiagnosisSummary {
        id: shown.diagnosis.id.into(),
        op: shown.operation.clone(),
        call: shown.call.clone(),
        summary: shown.diagnosis.statement.into(),
    })
    .collect()
}

/// Why the invariant does not speak of this target; known before anything runs.
fn not_applicable(invariant: &Invariant, target: &Target) -> Option<&'static str> {
    match invariant.needs {
        Needs::Nothing => None,
        Needs::TransparentData if target.data.format != Format::Opaque => None,
        Needs::RoomForFiveKills if target.limit_of_plain_add().is_none_or(|limit| limit >= 11) => None,
        Needs::RoomForFiveKills => {
            Some("the store's limit leaves no room for five kills, each with an add after it")
        }
        Needs::Derived if target.derived.is_some() => None,
        Needs::Derived => Some("the target names no [derived] files"),
        Needs::Session if target.session.is_some() => None,
        Needs::Session => Some("the target names no [session]"),
        Needs::TransparentData => Some("the data is opaque: only the store can tell whether it is whole"),
    }
}

fn not_covered(target: &Target) -> Vec<String> {
    let mut texts = vec![
        "this version kills operations at each of their calls, alone and beside a second client, tears their writes, \
         fails their calls and cuts the power; it does not yet explore schedules"
            .to_owned(),
        "state outside the sandbox directory is shared by all executions and not looked at".to_owned(),
    ];
    if target.guard.as_ref().is_some_and(|guard| guard.add.is_some()) {
        texts.push("[guard] add of the adapter is read, and not yet used".to_owned());
    }
    texts
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

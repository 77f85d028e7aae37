//! Runs the scenarios in two passes and adds up their coverage.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::check::{BY_THE_TRACER, Run, milliseconds};
use crate::evidence::Evidence;
use crate::observation::Observation;
use crate::report::tally::{CoverageTally, Explored, Killed, Part};
use crate::report::{Coverage, OperationCounts, Rate, Remark, ScenarioSummary};
use crate::runner::{
    self, Control, ExecEnv, Pass, Prepared, RunError, SweepControl, SweepEvent, TraceError, Trial,
};
use crate::sandbox::Sandbox;
use crate::scenario::stress;

/// An operation cut short by the budget ran long if it took this time, and this many times the baseline time.
const LONG_CUT: Duration = Duration::from_secs(2);
const LONG_CUT_FACTOR: u32 = 5;

/// Progress of a scenario, over all its passes.
#[derive(Debug, Default)]
pub(super) struct Progress {
    executions: usize,
    states: u64,
    counts: OperationCounts,
    extent: CoverageTally,
    elapsed: Duration,
    /// Whether the time limit ended an exploration that kept no bound.
    is_truncated: bool,
    is_bounded: bool,
    cut: Option<runner::Cut>,
    /// Whether the last pass, which runs everything that remains, has begun.
    has_begun_rest: bool,
    /// Why it could not continue.
    failure: Option<String>,
    plan: Option<String>,
    crowd: Option<Rate>,
}

impl Progress {
    /// Adds the results of one pass.
    fn add(&mut self, done: runner::SweepSummary) {
        for (what, planned, made) in done.groups {
            let (planned, made) = (planned as u64, made as u64);
            match self.extent.parts.iter_mut().find(|part| part.what == what) {
                Some(part) => {
                    part.planned = part.planned.max(planned);
                    part.made += made;
                }
                None => self.extent.parts.push(Part { what, planned, made }),
            }
        }
        let explored = done.explored.into_iter().map(|(place, told)| Explored { place, told });
        self.extent.explored.extend(explored);
        let killed = done.killed.map(|runner::Kills { plan, schedules, complete, points }| Killed {
            plan,
            schedules,
            complete,
            points,
        });
        self.extent.killed = killed.or(self.extent.killed.take());
        for bound in done.bounds {
            if !self.extent.left_out.contains(&bound) {
                self.extent.left_out.push(bound);
            }
        }
        self.states += done.states.0;
        self.extent.torn_states += done.states.1;
        self.is_truncated |= done.is_truncated;
        self.is_bounded |= done.is_bounded;
        self.cut = done.cut;
    }

    /// Whether it could not be run.
    pub(super) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Returns why experiments did not run although there was time for them.
    pub(super) fn ended_by_violation(&self) -> Option<&'static str> {
        match self.cut {
            Some(runner::Cut::FailFast) => Some("the run ended at the first violation"),
            Some(runner::Cut::Interrupted) => Some("the run was interrupted"),
            _ => None,
        }
    }

    fn coverage(&self, scenario: &str) -> Coverage {
        let is_whole = self.extent.parts.iter().all(|part| part.planned == part.made);
        if self.cut.is_some() || self.is_truncated || self.failure.is_some() || !self.has_begun_rest {
            Coverage::Truncated
        } else if is_whole
            && !self.is_bounded
            && self.extent.left_out.is_empty()
            && !matches!(scenario, "torn-write" | "stress")
        {
            Coverage::Complete
        } else {
            Coverage::Bounded
        }
    }

    /// Returns the summary for the report.
    pub(super) fn summary(&self, scenario: &str) -> ScenarioSummary {
        let ended = match (&self.failure, self.cut) {
            (Some(failure), _) => Some(failure.clone()),
            (None, Some(cut)) => Some(told(cut).to_owned()),
            (None, None) => (!self.has_begun_rest).then(|| told(runner::Cut::Budget).to_owned()),
        };
        // Only some lengths of each write are tried: this bound holds for every store.
        let kept_to = match scenario {
            "torn-write" => vec!["at most twelve of one write".to_owned()],
            _ => self.extent.kept_to.clone(),
        };
        let extent = CoverageTally { ended, kept_to, ..self.extent.clone() };
        ScenarioSummary {
            id: scenario.into(),
            executions: self.executions as u64,
            states: self.states,
            coverage: self.coverage(scenario),
            bound: extent.told(),
            extent,
            elapsed_ms: milliseconds(self.elapsed),
            operations: self.counts,
            plan: self.plan.clone(),
            crowd: self.crowd,
        }
    }
}

/// Describes what ended a scenario.
fn told(cut: runner::Cut) -> &'static str {
    match cut {
        runner::Cut::Budget => "the budget ended it",
        runner::Cut::FailFast => "ended at the first violation",
        runner::Cut::Hung => "given up, because clients did not end",
        runner::Cut::Interrupted => "interrupted",
    }
}

impl Run<'_> {
    /// Runs one pass of a scenario.
    pub(super) fn sweep(
        &mut self,
        scenario: &'static str,
        pass: Pass,
        env: &ExecEnv<'_>,
        prepared: &mut Prepared,
        usual: Duration,
        sandbox: &Sandbox,
    ) -> Result<(), RunError> {
        let began = Instant::now();
        self.watcher.begins(scenario, 0);
        let mut progress = self.progress.remove(scenario).unwrap_or_default();
        progress.has_begun_rest |= pass == Pass::Remaining;
        let (mut counts, mut executions) = (progress.counts, progress.executions);
        let breadth = self.breadth();
        let ran = runner::sweep(env, prepared, scenario, pass, breadth, &mut |showing| match showing {
            SweepEvent::Unconfirmed => {
                for id in std::mem::take(&mut self.looked_for) {
                    self.doubt(
                        id,
                        "a copy violated it, and there was no time to see whether a fresh start does",
                    );
                }
                SweepControl::GoOn
            }
            SweepEvent::Unreached { script } => {
                self.doubt_the_derived(script);
                SweepControl::GoOn
            }
            SweepEvent::Derived { observation, script } => self.take_derived(&observation, script),
            SweepEvent::Trial { observation, trial } => self.try_out(observation, trial),
            SweepEvent::Execution { place, observation, script, has_copies, explanation } => {
                if has_copies && self.is_unclear(&observation) {
                    return SweepControl::Confirm;
                }
                self.compare_with_derived(&observation, script);
                if script.is_portability() {
                    self.remark_on_portability(&observation);
                    return SweepControl::GoOn;
                }
                (self.explanation, self.place) = (explanation, place);
                match self.take(&observation, Some(script), &mut executions, &mut counts, sandbox) {
                    ControlFlow::Break(()) => SweepControl::End,
                    // The search stops after a few violations.
                    ControlFlow::Continue(())
                        if script.interleaving().is_some() && self.violates(&observation) =>
                    {
                        // A violation that does not count must not end the search for one that does.
                        if self.ends_schedules(&observation) {
                            SweepControl::Found
                        } else {
                            SweepControl::Known
                        }
                    }
                    ControlFlow::Continue(()) => SweepControl::GoOn,
                }
            }
        });
        self.doubt_what_was_left();
        self.doubt_what_was_cut(scenario, env, usual);
        (progress.counts, progress.executions) = (counts, executions);
        progress.elapsed += began.elapsed();
        match ran {
            Ok(mut done) => {
                if done.cut == Some(runner::Cut::Budget) && pass == Pass::Remaining {
                    self.cut_short.get_or_insert(format!("the budget ended {scenario}"));
                }
                self.not_covered.extend(std::mem::take(&mut done.not_covered));
                for (id, why) in &done.doubts {
                    self.doubt(id, why);
                }
                self.doubt_unscheduled(&done.unscheduled);
                self.take_evidence(&done);
                progress.add(done);
            }
            Err(TraceError::Run(error)) => return Err(error),
            // If tracing fails, the other observations are judged, and the rest stays open.
            Err(other) => progress.failure = Some(self.give_up(scenario, &other)),
        }
        self.progress.insert(scenario, progress);
        Ok(())
    }

    /// Records that a scenario could not be run, or not to its end; returns a sentence that says so.
    fn give_up(&mut self, scenario: &str, why: &TraceError) -> String {
        for (_, tally) in
            self.tallies.iter_mut().filter(|(invariant, _)| BY_THE_TRACER.contains(&invariant.id))
        {
            tally.doubt.get_or_insert(format!("{scenario} could not be run: {why}"));
        }
        format!("it could not go on: {why}")
    }

    /// Records that no tracing scenario could be run.
    pub(super) fn give_up_all(&mut self, scenarios: &[&'static str], why: &TraceError) {
        for scenario in scenarios.iter().filter(|id| **id != "stress") {
            let failure = Some(self.give_up(scenario, why));
            self.progress.insert(scenario, Progress { failure, has_begun_rest: true, ..Progress::default() });
        }
    }

    /// Records the evidence from one pass of a scenario.
    fn take_evidence(&mut self, done: &runner::SweepSummary) {
        for (kind, count) in &done.evidence {
            if let Some(kind) = kind {
                self.ledger.ran(*kind, count.run);
            }
        }
        for (kind, count) in &done.in_vain {
            self.ledger.ran_in_vain(*kind, *count);
        }
        for (kind, time, experiments) in &done.times {
            self.ledger.took(*kind, *time, *experiments);
        }
    }

    /// Records a doubt about the invariants that rest on schedules, if something was not scheduled.
    fn doubt_unscheduled(&mut self, what: &BTreeSet<String>) {
        let Some(what) = what.first() else { return };
        for (invariant, tally) in &mut self.tallies {
            if invariant.evidence.contains(&Evidence::Pairs) {
                tally.doubt.get_or_insert(what.clone());
            }
        }
    }

    /// Records a doubt if an operation that ran after a kill, and had run long when time ran out, may wait forever: it
    /// was seen to poll without change, or its actions were not observed.
    fn doubt_what_was_cut(&mut self, scenario: &str, env: &ExecEnv<'_>, usual: Duration) {
        if env.take_polling() {
            self.doubt(
                "recovers-after-crash",
                "polls without change: an operation after a kill was given up",
            );
        }
        let is_long = |ran: &Duration| *ran >= LONG_CUT.max(usual * LONG_CUT_FACTOR);
        let Some(ran) = env.take_longest_cut().filter(is_long) else { return };
        // An operation with an injected fault may take all the time that it has.
        if matches!(scenario, "crash" | "torn-write") {
            let ran = ran.as_secs_f64();
            let why = format!(
                "polls without change: the budget ended an operation after a kill that had waited for {ran:.1} s; try a \
                 larger --budget"
            );
            self.doubt("recovers-after-crash", &why);
        }
    }

    /// Returns the limits of the exploration of schedules.
    pub(super) fn breadth(&self) -> runner::ExplorationLimits {
        runner::ExplorationLimits {
            clients: self.options.clients,
            operations: self.options.operations,
            preemptions: self.options.preemptions,
            shard: self.options.shard,
            seed: self.options.seed,
        }
    }

    /// Whether an execution violates any judged invariant.
    fn violates(&self, observation: &Observation) -> bool {
        self.violated_by(observation).next().is_some()
    }

    /// Whether it violates an invariant whose repeated violation ends the search: claimed, violated in a way that no
    /// baseline contains, and showing the harm itself. Signs of how harm may arise must not end the search for it.
    fn ends_schedules(&self, observation: &Observation) -> bool {
        const HARM: [&str; 3] = ["no-lost-update", "linearizable", "guard-holds"];
        let is_judged = |id: &str| self.tallies.iter().any(|(invariant, _)| invariant.id == id);
        let is_harm = |id: &str| HARM.contains(&id) || !HARM.iter().any(|harm| is_judged(harm));
        self.violated_by(observation).any(|id| is_harm(id) && self.is_claimed(id) && !self.is_known(id))
    }

    /// Checks whether an execution that does not count violates the invariants looked for.
    fn try_out(&mut self, observation: &Observation, trial: Trial) -> SweepControl {
        let violated: Vec<&'static str> = self.violated_by(observation).collect();
        let is_found = trial.is_found(&self.looked_for, &violated);
        match trial {
            Trial::First => self.looked_for = violated,
            Trial::Anew if is_found => {
                for id in self.looked_for.clone().into_iter().filter(|id| !violated.contains(id)) {
                    self.doubt(id, "on the same schedule one run violates it, and another does not");
                }
            }
            Trial::Anew | Trial::Any | Trial::Smaller => {}
        }
        if is_found { SweepControl::Found } else { SweepControl::GoOn }
    }

    pub(super) fn stress(
        &mut self,
        env: &ExecEnv<'_>,
        control: &Control,
        sandbox: &Sandbox,
    ) -> Result<(), RunError> {
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
        let ran = runner::stress(env, &plan, control, self.options.shard, &mut |place, observation| {
            self.place = place;
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
        let (planned, made) = (done.planned as u64, done.rounds as u64);
        let each = began.elapsed() / u32::try_from(done.rounds).unwrap_or(1).max(1);
        self.ledger.expect(Evidence::Rounds, planned, each);
        self.ledger.ran(Evidence::Rounds, made);
        if done.cut == Some(runner::Cut::Budget) {
            self.cut_short = Some(format!("the budget left only {made} of {planned} rounds of stress whole"));
        }
        let extent = CoverageTally {
            parts: vec![Part { what: format!("rounds of {clients} clients or of one alone"), planned, made }],
            kept_to: vec!["kills at random moments".to_owned()],
            ..CoverageTally::default()
        };
        let progress = Progress {
            executions,
            counts,
            extent,
            elapsed: began.elapsed(),
            cut: done.cut,
            has_begun_rest: true,
            plan: Some(plan.fingerprint()),
            crowd: Some(Rate {
                operations: done.crowd.operations,
                killed: done.crowd.killed,
                elapsed_ms: done.crowd.elapsed.as_secs_f64() * 1e3,
                readers_cpu_ms: done.crowd.readers_cpu.as_secs_f64() * 1e3,
            }),
            ..Progress::default()
        };
        self.progress.insert("stress", progress);
        ran.map(|_| ())
    }
}

//! Runs one scenario after another, and tells what each came to.

use std::time::{Duration, Instant};

use crate::check::{BY_THE_TRACER, Run, milliseconds};
use crate::observation::Observation;
use crate::report::extent::{Explored, Extent, Killed, Part};
use crate::report::{Coverage, OperationCounts, Rate, Remark, ScenarioSummary};
use crate::runner::{self, Control, Next, RunError, Showing, Stage, TraceError, Trial};
use crate::sandbox::Sandbox;
use crate::scenario::stress;
use std::ops::ControlFlow;

/// What is long for an operation that the budget cut short: so long, and so many times as long as one undisturbed.
const LONG_CUT: Duration = Duration::from_secs(2);
const LONG_CUT_FACTOR: u32 = 5;

impl Run<'_> {
    /// Runs a scenario that is made from quiet runs under the tracer.
    pub(super) fn sweep(
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
        let ran = runner::sweep(stage, control, scenario, self.breadth(), &mut |showing| match showing {
            Showing::Quiet(trace) => {
                self.diagnose(&[trace]);
                Next::GoOn
            }
            Showing::Unconfirmed => {
                for id in std::mem::take(&mut self.looked_for) {
                    self.doubt(
                        id,
                        "a copy violated it, and there was no time to see whether a fresh start does",
                    );
                }
                Next::GoOn
            }
            Showing::Unreached { script } => {
                self.doubt_the_derived(script);
                Next::GoOn
            }
            Showing::Derived { observation, script } => self.take_derived(&observation, script),
            Showing::Trial { observation, trial } => self.try_out(observation, trial),
            Showing::Execution { place, observation, script, has_copies, explanation } => {
                if has_copies && self.is_unclear(&observation) {
                    return Next::Confirm;
                }
                self.compare_with_derived(&observation, script);
                if script.is_portability() {
                    self.remark_on_portability(&observation);
                    return Next::GoOn;
                }
                (self.explanation, self.place) = (explanation, place);
                match self.take(&observation, Some(script), &mut executions, &mut counts, sandbox) {
                    ControlFlow::Break(()) => Next::End,
                    // It is looked for no more than a few of them.
                    ControlFlow::Continue(())
                        if script.interleaving().is_some() && self.violates(&observation) =>
                    {
                        // What does not count must not end the search for what does.
                        if self.violates_what_counts(&observation) { Next::Found } else { Next::Known }
                    }
                    ControlFlow::Continue(()) => Next::GoOn,
                }
            }
        });
        self.doubt_what_was_left();
        self.doubt_what_was_cut(scenario, stage, control.timing.whole);
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
                self.scenarios.push(ScenarioSummary {
                    id: scenario.into(),
                    executions: executions as u64,
                    states: 0,
                    coverage: Coverage::Truncated,
                    bound: format!("it could not go on: {other}"),
                    extent: Extent {
                        ended: Some(format!("it could not go on: {other}")),
                        ..Extent::default()
                    },
                    elapsed_ms: milliseconds(began.elapsed()),
                    operations: counts,
                    plan: None,
                    crowd: None,
                });
                return Ok(());
            }
        };
        control.subject = done.subject;
        self.has_quiet_runs = true;
        let is_whole = done.groups.iter().all(|(_, planned, made)| planned == made);
        let is_complete = done.cut.is_none()
            && done.bounds.is_empty()
            && scenario != "torn-write"
            && is_whole
            && !done.is_bounded;
        let extent = Extent {
            parts: done
                .groups
                .into_iter()
                .map(|(what, planned, made)| Part { what, planned: planned as u64, made: made as u64 })
                .collect(),
            explored: done.explored.into_iter().map(|(place, told)| Explored { place, told }).collect(),
            killed: done.killed.map(|runner::Kills { plan, schedules, complete, points }| Killed {
                plan,
                schedules,
                complete,
                points,
            }),
            // Of one write only some lengths are tried: that is the bound of this scenario, whatever the store.
            kept_to: match scenario {
                "torn-write" => vec!["at most twelve of one write".to_owned()],
                _ => Vec::new(),
            },
            torn_states: done.states.1,
            left_out: done.bounds,
            ended: done.cut.map(|cut| {
                match cut {
                    runner::Cut::Budget => "the budget ended it",
                    runner::Cut::FailFast => "ended at the first violation",
                    runner::Cut::Interrupted | runner::Cut::Hung => "interrupted",
                }
                .to_owned()
            }),
        };
        if done.cut == Some(runner::Cut::Budget) {
            self.cut_short.get_or_insert(format!("the budget ended {scenario}"));
        }
        self.not_covered.extend(done.not_covered);
        for (id, why) in &done.doubts {
            self.doubt(id, why);
        }
        self.scenarios.push(ScenarioSummary {
            id: scenario.into(),
            executions: executions as u64,
            states: done.states.0,
            coverage: match done.cut {
                Some(_) => Coverage::Truncated,
                None if done.is_truncated => Coverage::Truncated,
                None if is_complete => Coverage::Complete,
                None => Coverage::Bounded,
            },
            bound: extent.told(),
            extent,
            elapsed_ms: milliseconds(began.elapsed()),
            operations: counts,
            plan: None,
            crowd: None,
        });
        Ok(())
    }

    /// An operation that ran after a kill, and had run for long when the time was up, might never have ended: a store that
    /// waits for a dead one's lock has a time limit that is longer than the share of a scenario.
    fn doubt_what_was_cut(&mut self, scenario: &str, stage: &Stage<'_>, usual: Duration) {
        let is_long = |ran: &Duration| *ran >= LONG_CUT.max(usual * LONG_CUT_FACTOR);
        let Some(ran) = stage.take_longest_cut().filter(is_long) else { return };
        // Who suffers a fault may take all the time that it has.
        if matches!(scenario, "crash" | "torn-write") {
            let (ran, usual) = (ran.as_secs_f64(), usual.as_secs_f64());
            let why = format!(
                "the budget ended an operation that had run for {ran:.1} s after a kill, where {usual:.2} s is usual; try a \
                 larger --budget, or a shorter time limit in the adapter"
            );
            self.doubt("recovers-after-crash", &why);
        }
    }

    /// How many schedules are to be run.
    fn breadth(&self) -> runner::Breadth {
        runner::Breadth {
            clients: self.options.clients,
            operations: self.options.operations,
            preemptions: self.options.preemptions,
            shard: self.options.shard,
            seed: self.options.seed,
        }
    }

    /// Whether anything that is judged is violated by an execution.
    fn violates(&self, observation: &Observation) -> bool {
        self.violated_by(observation).next().is_some()
    }

    /// Whether it violates anything that is claimed, in a way that no baseline knows.
    fn violates_what_counts(&self, observation: &Observation) -> bool {
        self.violated_by(observation).any(|id| self.is_claimed(id) && !self.is_known(id))
    }

    /// Whether an execution that counts for nothing violates what is looked for.
    fn try_out(&mut self, observation: &Observation, trial: Trial) -> Next {
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
        if is_found { Next::Found } else { Next::GoOn }
    }

    pub(super) fn stress(
        &mut self,
        stage: &Stage<'_>,
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
        let ran = runner::stress(stage, &plan, control, self.options.shard, &mut |place, observation| {
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
        if done.cut == Some(runner::Cut::Budget) {
            self.cut_short = Some(format!("the budget left only {made} of {planned} rounds of stress whole"));
        }
        let extent = Extent {
            parts: vec![Part { what: format!("rounds of {clients} clients or of one alone"), planned, made }],
            kept_to: vec!["kills at random moments".to_owned()],
            ended: done.cut.map(|cut| {
                match cut {
                    runner::Cut::Budget => "the budget ended it",
                    runner::Cut::Hung => "given up, since clients did not end",
                    runner::Cut::FailFast => "ended at the first violation",
                    runner::Cut::Interrupted => "interrupted",
                }
                .to_owned()
            }),
            ..Extent::default()
        };
        self.scenarios.push(ScenarioSummary {
            id: "stress".into(),
            executions: executions as u64,
            states: 0,
            coverage: if done.cut.is_some() { Coverage::Truncated } else { Coverage::Bounded },
            bound: extent.told(),
            extent,
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
}

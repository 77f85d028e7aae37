//! Judges executions and collects their verdicts.

use std::ops::ControlFlow;

use crate::check::confirming::Open;
use crate::check::{PORTABILITY_MAX, Run, finding, summary};
use crate::diagnoses::{self, Shown};
use crate::invariants::Invariant;
use crate::observation::{Observation, Trace};
use crate::op::{CANCELLED, Limit, Operation, Outcome};
use crate::report::{OperationCounts, Remark, is_worth_showing};
use crate::runner::SweepControl;
use crate::sandbox::Sandbox;
use crate::scenario::script::Script;
use crate::verdict::{Judgement, Verdict};

impl Run<'_> {
    /// Counts and judges one more execution of a scenario; breaks if no more are needed.
    pub(super) fn take(
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
        // A violation ends an exploration, so the report must have it: once, an inapplicable invariant ended one.
        debug_assert!(
            self.violated_by(observation).all(|id| self
                .tallies
                .iter()
                .any(|(invariant, tally)| { invariant.id == id && !tally.violations.is_empty() })),
            "every violation leaves a counterexample"
        );
        *executions += 1;
        if self.options.fail_fast && self.claimed_is_violated() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    pub(super) fn judge(
        &mut self,
        index: usize,
        observation: &Observation,
        script: Option<&Script>,
        sandbox: &Sandbox,
    ) {
        for operation in &observation.operations {
            match &operation.outcome {
                // picklock itself asked for that, or damaged what the operation needs.
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
        self.note_stored_failures(observation);
        for (invariant, tally) in &mut self.tallies {
            if summary::not_applicable(invariant, self.target).is_some() {
                continue;
            }
            let before = tally.violations.len();
            tally.add(index, invariant.judge(observation));
            let Some((_, seen)) = tally.violations.get(before).cloned() else { continue };
            let found = self.counterexamples.entry(invariant.id).or_default();
            let explanation = finding::explained(invariant.id, observation, self.explanation.as_ref());
            let finding = finding::Finding {
                invariant: invariant.id,
                target: self.target,
                place: self.place,
                observation,
                script,
                seen: &seen,
                quiet: &self.quiet,
                explanation: explanation.as_ref(),
            };
            if !is_worth_showing(found, &observation.scenario, finding.diagnosis().as_deref()) {
                continue;
            }
            let suffered = script.and_then(Script::injection).and_then(|one| Some((one, one.fault()?)));
            if let Some((injection, fault)) = suffered {
                let place = format!("{} {} {}", observation.scenario, injection.call, injection.point);
                if !self.faults_shown.insert((invariant.id, place, fault.finding())) {
                    continue;
                }
            }
            let (counterexample, unsaved) = finding.into_counterexample(self.options, sandbox);
            if found.iter().any(|other| other.case.is_some() && other.case == counterexample.case) {
                continue;
            }
            if let Some(why) = unsaved {
                self.unsaved.get_or_insert(why);
            }
            if let Some(script) = script.filter(|script| script.power_losses().next().is_some()) {
                let open = Open { invariant: invariant.id, index: found.len(), script: script.clone() };
                self.open.push(open);
            }
            if self.tells {
                self.narratives.push(finding::narrative(invariant, observation, &seen, &counterexample));
            }
            found.push(counterexample);
        }
    }

    /// Counts adds that failed without an injected fault but stored their record.
    fn note_stored_failures(&mut self, observation: &Observation) {
        let failed = observation.operations.iter().filter(|one| one.fault.is_none() && one.added().is_some());
        for add in failed {
            let Outcome::Failed(status) = &add.outcome else { continue };
            let view = observation.views().into_iter().find(|view| view.at >= add.returned);
            if view.is_some_and(|view| {
                add.added().is_some_and(|record| view.records.iter().any(|one| one == record))
            }) {
                *self.stored_failures.entry(status.clone()).or_default() += 1;
            }
        }
    }

    /// Judges the store's result on a derived state. A violation is not counted, but executed for real: only observed
    /// behaviour of the store is held against it.
    pub(super) fn take_derived(&mut self, observation: &Observation, script: &Script) -> SweepControl {
        let target = self.target;
        let violated: Vec<&'static str> = self.violated_by(observation).collect();
        if !violated.is_empty() {
            let causes = causes(script);
            // If it is violated anyway, no remark on portability is needed; in the reverse case it must be shown.
            let kinds: &[bool] = if script.is_portability() { &[false, true] } else { &[false] };
            let is_blamed = |id: &'static str| {
                causes
                    .iter()
                    .any(|cause| kinds.iter().any(|kind| self.blamed.contains(&(id, cause.clone(), *kind))))
            };
            if violated.iter().all(|id| is_blamed(id)) {
                return SweepControl::GoOn;
            }
            self.derived_violations = violated;
            return SweepControl::Confirm;
        }
        for (invariant, tally) in &mut self.tallies {
            if summary::not_applicable(invariant, target).is_none() {
                tally.add(0, invariant.judge(observation));
            }
        }
        SweepControl::GoOn
    }

    /// Checks that a real run violates what the derived state violated: if not, it is unknown which of the two is
    /// right.
    pub(super) fn compare_with_derived(&mut self, observation: &Observation, script: &Script) {
        let derived = std::mem::take(&mut self.derived_violations);
        if derived.is_empty() {
            return;
        }
        let real: Vec<&str> = self.violated_by(observation).collect();
        for id in derived {
            if real.contains(&id) {
                // One missing sync may leave hundreds of states, which all show the same.
                let kind = script.is_portability();
                self.blamed.extend(causes(script).pop().map(|cause| (id, cause, kind)));
            } else if !script.is_portability() {
                self.doubt(id, "a derived state violates it, and the same done for real does not");
            }
        }
    }

    /// Records a doubt: a violation by a derived state could not be executed for real.
    pub(super) fn doubt_the_derived(&mut self, script: &Script) {
        for id in std::mem::take(&mut self.derived_violations) {
            if !script.is_portability() {
                self.doubt(id, "a derived state violates it, but a fresh run behaved differently");
            }
        }
    }

    /// Records a doubt: time ran out before a violation by a derived state was executed for real. The next scenario is
    /// not affected.
    pub(super) fn doubt_what_was_left(&mut self) {
        for id in std::mem::take(&mut self.derived_violations) {
            self.doubt(
                id,
                "a derived state violates it, and the time was up before it could be done for real; try a larger --budget",
            );
        }
    }

    pub(super) fn doubt(&mut self, id: &str, why: &str) {
        for (_, tally) in self.tallies.iter_mut().filter(|(invariant, _)| invariant.id == id) {
            tally.doubt.get_or_insert(why.to_owned());
        }
    }

    /// Whether the result of a copy must be confirmed by a fresh start: a violation, a doubt, or an operation that
    /// hung.
    pub(super) fn is_unclear(&self, observation: &Observation) -> bool {
        let is_clear = |invariant: &Invariant| {
            matches!(invariant.judge(observation), Judgement::Holds | Judgement::NotExercised)
        };
        observation.operations.iter().any(Operation::hung)
            || !self.tallies.iter().all(|(invariant, _)| is_clear(invariant))
    }

    /// Returns the judged invariants that apply to the target and that this execution violates.
    pub(super) fn violated_by(&self, observation: &Observation) -> impl Iterator<Item = &'static str> {
        let target = self.target;
        let violates = move |invariant: &Invariant| {
            summary::not_applicable(invariant, target).is_none()
                && matches!(invariant.judge(observation), Judgement::Violated(_))
        };
        self.tallies
            .iter()
            .map(|(invariant, _)| *invariant)
            .filter(move |one| violates(one))
            .map(|one| one.id)
    }

    /// Adds a remark on a state that no file system known to picklock leaves; its violations do not count.
    pub(super) fn remark_on_portability(&mut self, observation: &Observation) {
        let told = observation.injection.clone().unwrap_or_default();
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

    /// Records likely causes that baseline runs show.
    pub(super) fn diagnose(&mut self, traces: &[Trace]) {
        let data = self.target.data.path.display().to_string();
        for shown in diagnoses::read(traces, &data) {
            note(&mut self.quiet, shown);
        }
    }

    pub(super) fn is_claimed(&self, id: &str) -> bool {
        self.options.claims.get(id).or_else(|| self.target.claims.get(id)).copied().unwrap_or(true)
    }

    pub(super) fn claimed_is_violated(&self) -> bool {
        self.tallies.iter().any(|(invariant, tally)| {
            let is_violated = tally.verdict() == Verdict::Violated;
            is_violated && self.is_claimed(invariant.id) && !self.is_known(invariant.id)
        })
    }

    /// Whether a baseline contains all ways in which it was violated so far.
    pub(super) fn is_known(&self, id: &str) -> bool {
        let found = self.counterexamples.get(id);
        found.is_some_and(|found| !found.is_empty() && found.iter().all(|one| one.known))
    }
}

/// Records a diagnosis once.
fn note(all: &mut Vec<Shown>, shown: Shown) {
    if all.iter().all(|other| other.diagnosis.id != shown.diagnosis.id) {
        all.push(shown);
    }
}

/// Returns the causes of each power loss, including the losses before it: a cause of one is a cause of all that follow.
fn causes(script: &Script) -> Vec<String> {
    let told: Vec<&str> = script.power_losses().map(|loss| loss.told.as_str()).collect();
    (1..=told.len()).map(|count| told[..count].join("; ")).collect()
}

//! From what the executions said to the report.

use crate::check::{Run, milliseconds};
use crate::diagnoses::{self, Shown};
use crate::invariants::{Invariant, Needs};
use crate::report::{
    ControlSummary, DiagnosisSummary, InvariantSummary, Remark, Report, SCHEMA, TargetSummary, Tool,
    explained_away,
};
use crate::target::{Format, Target};
use crate::verdict::Verdict;

impl Run<'_> {
    pub(super) fn into_report(mut self) -> Report {
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
        if let Some(baseline) = self.options.baseline.as_ref().filter(|_| passed) {
            self.remarks.extend(baseline.remarks(&self.scenarios, &invariants));
        }
        let mut diagnoses = if passed { summaries(&self.quiet, &self.disturbed) } else { Vec::new() };
        explained_away(&invariants, &mut diagnoses);
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
            shard: (!self.options.shard.is_whole()).then(|| self.options.shard.to_string()),
            control,
            scenarios: if passed { self.scenarios } else { Vec::new() },
            invariants,
            diagnoses,
            remarks: self.remarks,
            not_covered: not_covered().into_iter().chain(self.not_covered).collect(),
        };
        report.conclude();
        report
    }

    pub(super) fn invariants(&self) -> Vec<InvariantSummary> {
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
                    // A violation that is known says nothing of what could not be judged.
                    Verdict::Violated => tally.doubt.clone().filter(|_| self.is_known(invariant.id)),
                    Verdict::Holds => None,
                };
                InvariantSummary {
                    id: invariant.id.into(),
                    claimed: self.is_claimed(invariant.id),
                    verdict,
                    judged: tally.judged,
                    reason,
                    is_doubted: tally.doubt.is_some(),
                    counterexamples: self.counterexamples.get(invariant.id).cloned().unwrap_or_default(),
                    violations: tally.violations.len() as u64,
                }
            })
            .collect()
    }

    pub(super) fn remark_on_failures(&mut self) {
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
pub(super) fn not_applicable(invariant: &Invariant, target: &Target) -> Option<&'static str> {
    match invariant.needs {
        Needs::Nothing => None,
        Needs::TransparentData if target.data.format != Format::Opaque => None,
        Needs::RoomForFiveKills if target.limit_of_plain_add().is_none_or(|limit| limit >= 11) => None,
        Needs::RoomForFiveKills => {
            Some("the store's limit leaves no room for five kills, each with an add after it")
        }
        Needs::Derived if target.derived.is_some() => None,
        Needs::Derived => Some("the target names no [derived] files"),
        Needs::Guard if target.guard.is_some() => None,
        Needs::Guard => Some("the target names no [guard]"),
        Needs::Session if target.session.is_some() => None,
        Needs::Session => Some("the target names no [session]"),
        Needs::TransparentData => Some("the data is opaque: only the store can tell whether it is whole"),
    }
}

fn not_covered() -> Vec<String> {
    vec!["state outside the sandbox directory is shared by all executions and not looked at".to_owned()]
}

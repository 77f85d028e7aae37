//! Computes the verdict of each invariant from its judgements and its evidence.

use std::collections::BTreeSet;

use crate::check::{Run, milliseconds};
use crate::diagnoses::{self, Shown};
use crate::evidence::{Count, Evidence, about, round_budget};
use crate::invariants::{Invariant, Needs};
use crate::report::{
    ControlSummary, Coverage, DiagnosisSummary, EvidenceSummary, InvariantSummary, Remark, Report, SCHEMA,
    SCOPE, ScenarioSummary, TargetSummary, Tool, explained_away,
};
use crate::scenario;
use crate::target::{Format, Target};
use crate::verdict::{Tally, Verdict};

/// Evidence that an invariant lacks to hold.
struct Missing {
    /// Description, with what would provide it.
    told: String,
    /// Whether a larger budget would provide it.
    would_come_with_time: bool,
}

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
        let scenarios: Vec<ScenarioSummary> = scenario::ORDER
            .into_iter()
            .filter_map(|id| Some(self.progress.get(id)?.summary(id)))
            .filter(|_| passed)
            .collect();
        let invariants = if passed { self.invariants() } else { Vec::new() };
        if let Some(baseline) = self.options.baseline.as_ref().filter(|_| passed) {
            self.remarks.extend(baseline.remarks(&scenarios, &invariants));
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
            scenarios,
            invariants,
            diagnoses,
            remarks: self.remarks,
            not_covered: not_covered().into_iter().chain(self.not_covered).collect(),
            scope: SCOPE.to_owned(),
            estimate_ms: self.estimate.map(milliseconds),
            allow_partial: self.options.allow_partial,
        };
        report.conclude();
        report
    }

    pub(super) fn invariants(&self) -> Vec<InvariantSummary> {
        self.tallies.iter().map(|(invariant, tally)| self.invariant(invariant, tally)).collect()
    }

    fn invariant(&self, invariant: &Invariant, tally: &Tally) -> InvariantSummary {
        let inapplicable = not_applicable(invariant, self.target);
        let evidence = self.evidence_of(invariant);
        let missing = self.missing_evidence(invariant, &evidence);
        let explained = || {
            diagnoses::explaining(&self.quiet, invariant.id)
                .or_else(|| diagnoses::explaining(&self.disturbed, invariant.id))
                .filter(|_| !self.is_all_run(invariant))
        };
        let judged = tally.verdict();
        let (verdict, reason, is_partial) = match (inapplicable, judged) {
            (Some(why), _) => (Verdict::NotApplicable, Some(why.to_owned()), false),
            // A known violation says nothing about what could not be judged.
            (None, Verdict::Violated) => {
                let doubt = tally.doubt.clone().filter(|_| self.is_known(invariant.id));
                (Verdict::Violated, doubt, false)
            }
            (None, _) if tally.doubt.is_some() => (Verdict::Inconclusive, tally.doubt.clone(), false),
            (None, Verdict::Holds) => match (&missing, explained()) {
                (None, None) => (Verdict::Holds, None, false),
                (None, Some(shown)) => {
                    let why = format!(
                        "{} explains how it may be violated, and not all was tried",
                        shown.diagnosis.id
                    );
                    (Verdict::Inconclusive, Some(why), true)
                }
                (Some(missing), _) => {
                    (Verdict::Inconclusive, Some(missing.told.clone()), missing.would_come_with_time)
                }
            },
            (None, _) => {
                let why = match (&missing, &self.cut_short) {
                    (Some(missing), _) => format!("{}: {}", invariant.unjudged, missing.told),
                    (None, Some(cut)) => format!("{}: {cut}; try a larger --budget", invariant.unjudged),
                    (None, None) => invariant.unjudged.to_owned(),
                };
                let is_partial = match &missing {
                    Some(missing) => missing.would_come_with_time,
                    None => self.cut_short.is_some(),
                };
                (Verdict::Inconclusive, Some(why), is_partial)
            }
        };
        InvariantSummary {
            id: invariant.id.into(),
            claimed: self.is_claimed(invariant.id),
            verdict,
            judged: tally.judged,
            reason,
            is_doubted: tally.doubt.is_some(),
            is_partial,
            evidence: EvidenceSummary::of(evidence),
            counterexamples: self.counterexamples.get(invariant.id).cloned().unwrap_or_default(),
            violations: tally.violations.len() as u64,
        }
    }

    /// Returns the experiments that an invariant needs from the chosen scenarios, with how many ran; `None` for a kind
    /// that could not be counted, because its baseline runs were not made.
    fn evidence_of(&self, invariant: &Invariant) -> Vec<(Evidence, Option<Count>)> {
        let is_chosen = |kind: &&Evidence| {
            self.options.selection.scenarios.contains(kind.scenario())
                && (kind.scenario() != "session" || self.target.session.is_some())
        };
        let mut kinds: Vec<Evidence> = invariant.evidence.iter().filter(is_chosen).copied().collect();
        if kinds.is_empty() {
            kinds.extend([Evidence::Rounds].iter().filter(is_chosen));
        }
        kinds.into_iter().map(|kind| (kind, self.ledger.count(kind))).collect()
    }

    /// Returns the missing evidence and what would provide it; `None` if nothing is missing.
    fn missing_evidence(
        &self,
        invariant: &Invariant,
        evidence: &[(Evidence, Option<Count>)],
    ) -> Option<Missing> {
        if evidence.is_empty() {
            let scenarios: BTreeSet<&str> = invariant.evidence.iter().map(|kind| kind.scenario()).collect();
            let scenarios: Vec<&str> = scenarios.into_iter().collect();
            let told = format!("it rests on {}, which was not chosen", scenarios.join(" and "));
            return Some(Missing { told, would_come_with_time: false });
        }
        let unknown = evidence.iter().any(|(kind, count)| count.is_none() && !self.is_without(*kind));
        if unknown && self.control.is_some() && self.progress.values().all(|one| !one.has_failed()) {
            let cut = self.cut_short.as_deref().unwrap_or("its experiments were not counted");
            let told = format!("{cut}; try a larger --budget");
            return Some(Missing { told, would_come_with_time: self.cut_short.is_some() });
        }
        let missing = EvidenceSummary::of(evidence.iter().copied()).missing()?;
        let short = || {
            let is_short =
                |kind: &&Evidence| self.ledger.count(**kind).is_some_and(|count| count.missing() > 0);
            evidence.iter().map(|(kind, _)| kind).filter(is_short)
        };
        let ended_by =
            short().filter_map(|kind| self.progress.get(kind.scenario())?.ended_by_violation()).next();
        let in_vain = short().find(|kind| self.ledger.open(**kind) == 0);
        let (advice, would_come_with_time) = match (ended_by, in_vain, self.options.budget) {
            (Some(why), ..) => (why.to_owned(), false),
            (None, Some(kind), _) => (kind.in_vain().to_owned(), false),
            (None, None, None) => ("the rest could not be run".to_owned(), false),
            (None, None, Some(spent)) => {
                let more = about(self.ledger.time_missing_of(invariant.evidence));
                // Half of the time goes to other things, such as schedules of three clients.
                let budget = round_budget(spent + self.ledger.time_missing() * 2);
                (format!("{more} more: --budget {budget}"), true)
            }
        };
        Some(Missing { told: format!("{missing}; {advice}"), would_come_with_time })
    }

    /// Whether the target has no experiments of this kind at all.
    fn is_without(&self, kind: Evidence) -> bool {
        match kind {
            Evidence::Sessions => self.target.session.is_none(),
            Evidence::Damages => self.target.derived.is_none(),
            Evidence::Rounds => false,
            // Their number, possibly zero, is known after the baseline runs.
            _ => self.ledger.has_counts(),
        }
    }

    /// Whether all experiments ran of the scenarios that give evidence for an invariant.
    fn is_all_run(&self, invariant: &Invariant) -> bool {
        let scenarios = invariant.evidence.iter().map(|kind| kind.scenario());
        scenarios
            .filter_map(|scenario| Some(self.progress.get(scenario)?.summary(scenario).coverage))
            .all(|coverage| coverage != Coverage::Truncated)
    }

    pub(super) fn remark_on_failures(&mut self) {
        for (status, (count, said)) in &self.failures {
            let said = if said.is_empty() { String::new() } else { format!("; the last one said: {said}") };
            let text = if status == "busy" {
                format!("{count} operations found the store busy: callers have to retry")
            } else {
                format!("{count} operations failed with {status}: honest, but callers have to retry{said}")
            };
            self.remarks.push(Remark::new("failed-operations", text));
        }
        for (status, count) in &self.stored_failures {
            let operations = if *count == 1 { "failed operation" } else { "failed operations" };
            self.remarks.push(Remark::new(
                "stored-failures",
                format!(
                    "{count} {operations} ({status}) had stored the record; if {status} means that nothing was changed, name \
                     it in [exit] refused, and picklock judges that"
                ),
            ));
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

/// Returns all likely causes, in the order of their catalogue.
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

/// Returns why the invariant does not apply to this target; known before anything runs.
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

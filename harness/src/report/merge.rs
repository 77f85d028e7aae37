//! Merges the reports of all shards into the report of a whole run.

use std::collections::{BTreeMap, BTreeSet};

use crate::diagnoses;
use crate::report::baseline::GONE;
use crate::report::{
    Counterexample, Coverage, DiagnosisSummary, EvidenceSummary, InvariantSummary, OperationCounts, Rate,
    Remark, Report, ScenarioSummary, exit, explained_away, is_worth_showing,
};
use crate::scenario;
use crate::shard::Shard;
use crate::verdict::Verdict;

/// Why reports cannot be merged. Each error names the file at fault.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// There is nothing to merge.
    #[error("no report was given")]
    Nothing,
    /// It is the report of a whole run.
    #[error("{0}: its \"shard\" is null: it is the report of a whole run, and not of a shard")]
    Whole(String),
    /// Its `shard` is not a valid shard.
    #[error("{0}: its \"shard\" is {1:?}, which is no shard of a run")]
    NoPart(String, String),
    /// Two of them are the same shard.
    #[error("{0} and {1} are both shard {2}")]
    Twice(String, String, Shard),
    /// They are not from one run.
    #[error("{0} and {1} are not of one run: their {2:?} differs")]
    Differs(String, String, &'static str),
}

/// The merged report, and the shards that are missing.
#[derive(Clone, Debug, PartialEq)]
pub struct Merged {
    /// The merged report. If shards are missing, nothing that is not violated holds, and the exit status is
    /// [`exit::INCONCLUSIVE`] whatever was found.
    pub report: Report,
    /// The shards whose reports were not given.
    pub missing: Vec<Shard>,
}

/// Merges the reports of shards, each given with the name of its file.
///
/// # Errors
/// If they are not shards of one run.
pub fn merge(reports: Vec<(String, Report)>) -> Result<Merged, MergeError> {
    let mut parts: BTreeMap<u32, (String, Report)> = BTreeMap::new();
    let mut of = None;
    for (name, report) in reports {
        let shard = shard_of(&name, &report)?;
        // A report that ended early lists the least of what was planned.
        let whole = parts.values().find(|(_, part)| !is_cut(part));
        if let Some((other, first)) = whole.or(parts.values().next()) {
            expect_same_run((other, first), (&name, &report), of == Some(shard.of()))?;
        }
        of = Some(shard.of());
        if let Some((other, _)) = parts.insert(shard.index(), (name.clone(), report)) {
            return Err(MergeError::Twice(other, name, shard));
        }
    }
    let of = of.ok_or(MergeError::Nothing)?;
    let missing: Vec<Shard> = (1..=of)
        .filter(|index| !parts.contains_key(index))
        .filter_map(|index| Shard::new(index, of))
        .collect();
    let parts: Vec<Report> = parts.into_values().map(|(_, report)| report).collect();
    Ok(Merged { report: put_together(&parts, of, None, &missing), missing })
}

/// Whether it may have ended before all scenarios were started.
fn is_cut(report: &Report) -> bool {
    !report.control.passed || report.interrupted || report.verdict == Verdict::Violated
}

fn shard_of(name: &str, report: &Report) -> Result<Shard, MergeError> {
    let text = report.shard.as_ref().ok_or_else(|| MergeError::Whole(name.to_owned()))?;
    text.parse().map_err(|_| MergeError::NoPart(name.to_owned(), text.clone()))
}

fn expect_same_run(
    (other, first): (&str, &Report),
    (name, report): (&str, &Report),
    is_divided_alike: bool,
) -> Result<(), MergeError> {
    let ids = |report: &Report| -> Vec<(String, bool)> {
        report.invariants.iter().map(|one| (one.id.clone(), one.claimed)).collect()
    };
    // A shard whose control failed, or that was interrupted, has judged nothing.
    let ran = |report: &Report| -> Vec<(String, Option<String>)> {
        report.scenarios.iter().map(|one| (one.id.clone(), one.plan.clone())).collect()
    };
    let is_same_selection = !first.control.passed || !report.control.passed || ids(first) == ids(report);
    for (what, is_same) in [
        ("shard", is_divided_alike),
        ("tool", first.tool == report.tool),
        ("target", first.target == report.target),
        ("seed", first.seed == report.seed),
        ("invariants", is_same_selection),
        ("scenarios", is_cut(first) || is_cut(report) || ran(first) == ran(report)),
    ] {
        if !is_same {
            return Err(MergeError::Differs(other.to_owned(), name.to_owned(), what));
        }
    }
    Ok(())
}

/// Merges the reports of the parts of one shard, or of the whole run: at least one, and none missing.
pub(crate) fn join(parts: &[Report], shard: Shard) -> Report {
    let of = u32::try_from(parts.len()).unwrap_or(u32::MAX);
    put_together(parts, of, (!shard.is_whole()).then(|| shard.to_string()), &[])
}

fn put_together(parts: &[Report], of: u32, shard: Option<String>, missing: &[Shard]) -> Report {
    let mut report = parts[0].clone();
    let unpassed = parts.iter().find(|part| !part.control.passed);
    if let Some(part) = unpassed {
        report.control = part.control.clone();
    }
    let passed: Vec<&Report> = parts.iter().filter(|part| part.control.passed).collect();
    report.shard = shard;
    report.interrupted = parts.iter().any(|part| part.interrupted);
    report.elapsed_ms = parts.iter().map(|part| part.elapsed_ms).max().unwrap_or(0);
    report.scenarios = scenarios(&passed);
    report.invariants = invariants(&passed);
    let told: Vec<String> = missing.iter().map(ToString::to_string).collect();
    let why = match (missing.is_empty(), unpassed) {
        (false, _) => Some(format!("the report of shard {} is missing", told.join(", "))),
        (true, Some(part)) => {
            Some(format!("shard {} has judged nothing", part.shard.as_deref().unwrap_or("of a job")))
        }
        (true, None) => None,
    };
    if let Some(why) = why {
        for invariant in report.invariants.iter_mut().filter(|one| one.verdict == Verdict::Holds) {
            invariant.verdict = Verdict::Inconclusive;
            invariant.is_doubted = true;
            invariant.reason = Some(why.clone());
        }
    }
    report.diagnoses = likely_causes(&passed);
    explained_away(&report.invariants, &mut report.diagnoses);
    report.remarks = remarks(parts);
    let executions: u64 = report.scenarios.iter().map(|one| one.executions).sum();
    report.remarks.push(Remark::new(
        "merged",
        format!(
            "{} of {of} shards, {executions} executions in all; the control and the baseline runs, which are no executions, were \
             made by each shard for itself",
            parts.len()
        ),
    ));
    let seen: BTreeSet<&String> = parts.iter().flat_map(|part| &part.not_covered).collect();
    let mut told: Vec<String> = parts[0].not_covered.clone();
    told.extend(seen.into_iter().filter(|one| !parts[0].not_covered.contains(one)).cloned());
    report.not_covered = told;
    report.conclude();
    if !missing.is_empty() {
        report.exit = exit::INCONCLUSIVE;
    }
    report
}

fn scenarios(parts: &[&Report]) -> Vec<ScenarioSummary> {
    let mut all: Vec<ScenarioSummary> = Vec::new();
    for other in parts.iter().flat_map(|part| &part.scenarios) {
        match all.iter_mut().find(|own| own.id == other.id) {
            Some(own) => add(own, other),
            None => all.push(other.clone()),
        }
    }
    let place = |one: &ScenarioSummary| scenario::ORDER.iter().position(|id| *id == one.id);
    all.sort_by_key(place);
    all
}

fn add(own: &mut ScenarioSummary, other: &ScenarioSummary) {
    own.executions += other.executions;
    own.states += other.states;
    own.coverage = match (own.coverage, other.coverage) {
        (Coverage::Truncated, _) | (_, Coverage::Truncated) => Coverage::Truncated,
        (Coverage::Bounded, _) | (_, Coverage::Bounded) => Coverage::Bounded,
        _ => Coverage::Complete,
    };
    own.extent.add(&other.extent);
    own.bound = own.extent.told();
    own.elapsed_ms += other.elapsed_ms;
    let counts = &mut own.operations;
    let OperationCounts { acknowledged, refused, busy, failed, killed } = other.operations;
    counts.acknowledged += acknowledged;
    counts.refused += refused;
    counts.busy += busy;
    counts.failed += failed;
    counts.killed += killed;
    match (&mut own.crowd, other.crowd) {
        (Some(own), Some(Rate { operations, killed, elapsed_ms, readers_cpu_ms })) => {
            own.operations += operations;
            own.killed += killed;
            own.elapsed_ms += elapsed_ms;
            own.readers_cpu_ms += readers_cpu_ms;
        }
        (own, other) => *own = own.or(other),
    }
}

fn invariants(parts: &[&Report]) -> Vec<InvariantSummary> {
    let Some(first) = parts.first() else { return Vec::new() };
    first.invariants.iter().map(|one| invariant(one, parts)).collect()
}

fn invariant(one: &InvariantSummary, parts: &[&Report]) -> InvariantSummary {
    let all: Vec<&InvariantSummary> =
        parts.iter().flat_map(|part| &part.invariants).filter(|other| other.id == one.id).collect();
    let judged = all.iter().map(|one| one.judged).sum();
    let violations = all.iter().map(|one| one.violations).sum();
    let doubted = all.iter().find(|one| one.is_doubted);
    let mut evidence = EvidenceSummary::default();
    all.iter().for_each(|one| evidence.add(&one.evidence));
    let partial = all.iter().find(|one| one.is_partial);
    let (verdict, reason) = match one.verdict {
        Verdict::NotApplicable => (Verdict::NotApplicable, one.reason.clone()),
        // A known violation hides no doubt: the reason for the doubt is kept.
        _ if violations > 0 => {
            (Verdict::Violated, all.iter().find_map(|one| one.reason.clone().filter(|_| one.is_doubted)))
        }
        // A doubtful shard may give no reason, for example if it also has a violation.
        _ if doubted.is_some() => {
            let reason = doubted.and_then(|one| one.reason.clone());
            (Verdict::Inconclusive, reason.or(Some("a shard of the run could not tell".to_owned())))
        }
        _ if evidence.missing().is_some() => (Verdict::Inconclusive, evidence.missing()),
        _ if partial.is_some() && judged > 0 => {
            // A shard may have judged nothing because it had nothing to run; what that shard lacked, the whole run need
            // not lack.
            let reason = all.iter().filter(|one| one.judged > 0 && one.is_partial);
            match reason.into_iter().find_map(|one| one.reason.clone()) {
                Some(reason) => (Verdict::Inconclusive, Some(reason)),
                None => (Verdict::Holds, None),
            }
        }
        _ if judged > 0 => (Verdict::Holds, None),
        _ => (Verdict::Inconclusive, all.iter().find_map(|one| one.reason.clone())),
    };
    InvariantSummary {
        id: one.id.clone(),
        claimed: one.claimed,
        verdict,
        judged,
        reason,
        is_doubted: doubted.is_some(),
        // If more time does not help one shard, it does not help all of them.
        is_partial: verdict == Verdict::Inconclusive
            && doubted.is_none()
            && partial.is_some()
            && all.iter().all(|one| one.is_partial || one.evidence.missing().is_none()),
        evidence,
        counterexamples: counterexamples(&all),
        violations,
    }
}

/// Returns the counterexamples that the whole run would have found first.
fn counterexamples(all: &[&InvariantSummary]) -> Vec<Counterexample> {
    let mut found: Vec<&Counterexample> = all.iter().flat_map(|one| &one.counterexamples).collect();
    let order = |one: &Counterexample| scenario::ORDER.iter().position(|id| *id == one.scenario);
    found.sort_by_key(|one| (order(one), one.place));
    let mut shown: Vec<Counterexample> = Vec::new();
    for one in found {
        let is_known = shown.iter().any(|other| other.case.is_some() && other.case == one.case);
        if !is_known && is_worth_showing(&shown, &one.scenario, one.diagnosis.as_deref()) {
            shown.push(one.clone());
        }
    }
    shown
}

fn likely_causes(parts: &[&Report]) -> Vec<DiagnosisSummary> {
    let told = |id: &str| parts.iter().flat_map(|part| &part.diagnoses).find(|one| one.id == id).cloned();
    diagnoses::ALL.iter().filter_map(|diagnosis| told(diagnosis.id)).collect()
}

/// Merges the remarks: one that every shard makes appears once, any other with the name of its shard.
fn remarks(parts: &[Report]) -> Vec<Remark> {
    let mut all: Vec<Remark> = Vec::new();
    for part in parts {
        for remark in &part.remarks {
            let is_of_all = parts.iter().all(|other| other.remarks.contains(remark));
            if !is_of_all && remark.id == GONE {
                continue;
            }
            let of_shard = part.shard.as_deref().unwrap_or_default();
            let remark = match is_of_all {
                true => remark.clone(),
                false => Remark::new(&remark.id, format!("shard {of_shard}: {}", remark.text)),
            };
            if !all.contains(&remark) {
                all.push(remark);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests;

//! Defines the report: coverage, verdicts and counterexamples, with one file for each output format.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::case::Explanation;
use crate::evidence::{Count, Evidence};
use crate::op::Outcome;
use crate::verdict::Verdict;

use tally::CoverageTally;

pub mod baseline;
pub mod chrome;
pub mod github;
pub mod human;
pub mod junit;
pub mod merge;
pub mod narrative;
pub mod page;
mod parts;
pub mod sentence;
pub mod tally;
pub mod timeline;
pub mod trace;

/// The number of the report's JSON schema; fields may be added under it, none changes or goes.
pub const SCHEMA: u32 = 1;

/// A report, as `harness/schema/report-1.json` describes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What made it.
    pub tool: Tool,
    /// What was judged.
    pub target: TargetSummary,
    /// Over all claimed invariants.
    pub verdict: Verdict,
    /// The exit status that goes with it.
    pub exit: u8,
    /// Whether somebody ended the run early.
    pub interrupted: bool,
    /// The seed of all chance.
    pub seed: u64,
    /// Milliseconds from the start to this report.
    pub elapsed_ms: u64,
    /// Which shard of a divided run this is.
    pub shard: Option<String>,
    /// Whether the store works without injections.
    pub control: ControlSummary,
    /// What was run.
    pub scenarios: Vec<ScenarioSummary>,
    /// What was judged.
    pub invariants: Vec<InvariantSummary>,
    /// Likely causes.
    pub diagnoses: Vec<DiagnosisSummary>,
    /// What else is worth knowing.
    pub remarks: Vec<Remark>,
    /// What this run cannot have seen.
    pub not_covered: Vec<String>,
    /// From which states of the store it was tried, and with how many injections at a time.
    #[serde(default)]
    pub scope: String,
    /// How long the experiments that invariants need may take, in milliseconds, estimated before the first one ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate_ms: Option<u64>,
    /// Whether what is inconclusive for want of time alone does not count for the exit status.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_partial: bool,
}

/// From which states a store is tried, and with how many injections at a time.
pub const SCOPE: &str = "from a store of one record, one injection at a time";

/// The program that made a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// The target of a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetSummary {
    /// Its name.
    pub name: String,
    /// How it was named to picklock.
    pub origin: String,
    /// Its commands, word for word, by the name of the operation.
    pub ops: BTreeMap<String, Vec<String>>,
}

/// How the control went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ControlSummary {
    /// Whether the store works without injections.
    pub passed: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// How much of a scenario's space was covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Coverage {
    /// All of it.
    Complete,
    /// All within the bound that is named.
    Bounded,
    /// Less than planned.
    Truncated,
}

/// One scenario that was run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScenarioSummary {
    /// Its id.
    pub id: String,
    /// Runs of the store under injection.
    pub executions: u64,
    /// Directory contents judged without one.
    pub states: u64,
    /// How much of its space that is.
    pub coverage: Coverage,
    /// What the space is bounded by, or what is missing.
    pub bound: String,
    /// The same in numbers, which add up over the shards of a divided run.
    #[serde(default)]
    pub extent: CoverageTally,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
    /// How its operations ended.
    pub operations: OperationCounts,
    /// A short name of what was planned: equal for equal plans.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// How fast many clients at once were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crowd: Option<Rate>,
}

/// How fast many clients at once were, all rounds of them together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// How many operations.
    pub operations: u64,
    /// How many of them were killed.
    pub killed: u64,
    /// In how many milliseconds.
    pub elapsed_ms: f64,
    /// How many milliseconds of processor time the readers beside them used.
    pub readers_cpu_ms: f64,
}

/// How many operations ended in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationCounts {
    /// Exited 0.
    pub acknowledged: u64,
    /// A definite no.
    pub refused: u64,
    /// The lock was not to be had.
    pub busy: u64,
    /// Any other status, a signal, or past a limit.
    pub failed: u64,
    /// By the plan.
    pub killed: u64,
}

impl OperationCounts {
    /// Counts one more.
    pub fn count(&mut self, outcome: &Outcome) {
        *match outcome {
            Outcome::Acknowledged => &mut self.acknowledged,
            Outcome::Refused => &mut self.refused,
            Outcome::Busy => &mut self.busy,
            Outcome::Failed(_) | Outcome::Unfinished(_) | Outcome::Stuck => &mut self.failed,
            Outcome::Killed => &mut self.killed,
        } += 1;
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.acknowledged + self.refused + self.busy + self.failed + self.killed
    }
}

/// One invariant that was judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InvariantSummary {
    /// Its id.
    pub id: String,
    /// Whether it counts for the exit status.
    pub claimed: bool,
    /// Over all executions.
    pub verdict: Verdict,
    /// Executions that could have violated it and were judged.
    pub judged: u64,
    /// Why it is inconclusive or not applicable.
    pub reason: Option<String>,
    /// Whether something that was run could not be told: then it does not hold, whatever else was judged.
    #[serde(default)]
    pub is_doubted: bool,
    /// Whether it is inconclusive for want of time alone.
    #[serde(default)]
    pub is_partial: bool,
    /// The experiments that it needs before it holds, and how many of them ran.
    #[serde(default)]
    pub evidence: EvidenceSummary,
    /// Executions that violate it: the first few.
    pub counterexamples: Vec<Counterexample>,
    /// How many executions violate it in all.
    pub violations: u64,
}

/// The experiments that an invariant needs before it holds, and how many of them ran.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceSummary {
    /// How many it needs.
    pub needed: u64,
    /// How many of these ran.
    pub run: u64,
    /// The same by kind.
    #[serde(default)]
    pub kinds: BTreeMap<Evidence, Count>,
}

impl EvidenceSummary {
    /// Adds up the kinds whose experiments were counted.
    pub fn of(kinds: impl IntoIterator<Item = (Evidence, Option<Count>)>) -> Self {
        let kinds: BTreeMap<Evidence, Count> =
            kinds.into_iter().filter_map(|(kind, count)| Some((kind, count?))).collect();
        let needed = kinds.values().map(|count| count.needed).sum();
        let run = kinds.values().map(|count| count.run.min(count.needed)).sum();
        Self { needed, run, kinds }
    }

    /// Adds the experiments of another shard of the same run.
    pub fn add(&mut self, other: &Self) {
        for (kind, count) in &other.kinds {
            let own = self.kinds.entry(*kind).or_default();
            own.needed += count.needed;
            own.run += count.run;
        }
        self.needed += other.needed;
        self.run += other.run;
    }

    /// What is missing, in words; nothing if all of it ran.
    pub fn missing(&self) -> Option<String> {
        let missing = self.kinds.iter().filter(|(_, count)| count.missing() > 0);
        let missing: Vec<String> = missing
            .map(|(kind, count)| format!("{} of {} {}", count.run, count.needed, kind.noun()))
            .collect();
        (!missing.is_empty()).then(|| missing.join(", "))
    }
}

impl InvariantSummary {
    /// Whether it is violated in ways alone that a baseline knows.
    pub fn is_known(&self) -> bool {
        !self.counterexamples.is_empty() && self.counterexamples.iter().all(|one| one.known)
    }

    /// Whether something of it could not be judged: also beside violations that are known, which would hide it.
    pub fn is_open(&self) -> bool {
        self.verdict == Verdict::Inconclusive || self.is_known() && self.is_doubted
    }

    /// Whether it is inconclusive for want of time alone.
    pub fn wants_time_alone(&self) -> bool {
        self.verdict == Verdict::Inconclusive && self.is_partial && !self.is_doubted
    }

    /// Whether it is violated in a way that no baseline knows.
    pub fn is_newly_violated(&self) -> bool {
        self.verdict == Verdict::Violated && !self.is_known()
    }
}

/// Counterexamples that a report holds for one invariant, beside the first one of each scenario and likely cause.
pub const COUNTEREXAMPLES_MAX: usize = 3;

/// Whether a report that has `found` holds one more counterexample, of this scenario and likely cause: a way that no other
/// showed is always worth one more.
pub(crate) fn is_worth_showing(found: &[Counterexample], scenario: &str, diagnosis: Option<&str>) -> bool {
    found.len() < COUNTEREXAMPLES_MAX
        || found.iter().all(|one| one.scenario != scenario || one.diagnosis.as_deref() != diagnosis)
}

/// One execution that violates an invariant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counterexample {
    /// The file that it is saved in, where it can be run again.
    pub case: Option<String>,
    /// The scenario that found it.
    pub scenario: String,
    /// Where in that scenario it stands, whichever shard of a divided run has found it.
    #[serde(default)]
    pub place: u64,
    /// What was seen, in one sentence.
    pub summary: String,
    /// Whether it can be run again, call by call.
    pub replayable: bool,
    /// Whether a baseline names it.
    pub known: bool,
    /// File systems on which it was confirmed.
    pub confirmed: Vec<String>,
    /// Its likely cause.
    pub diagnosis: Option<String>,
    /// The command that runs it again.
    pub replay: Option<String>,
    /// What there is to say of its schedule, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<Explanation>,
    /// Where its sandbox was left, with `--keep`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
}

/// A likely cause, read off the system calls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiagnosisSummary {
    /// Its id.
    pub id: String,
    /// The operation that shows it.
    pub op: String,
    /// The call that shows it.
    pub call: String,
    /// In one sentence.
    pub summary: String,
}

/// A store that goes on after every kill removes what a dead owner left.
pub(crate) fn explained_away(invariants: &[InvariantSummary], diagnoses: &mut Vec<DiagnosisSummary>) {
    let recovers =
        invariants.iter().any(|one| one.id == "recovers-after-crash" && one.verdict == Verdict::Holds);
    diagnoses.retain(|diagnosis| !recovers || diagnosis.id != "lock-file-survives-kill");
}

/// Something worth knowing that is no verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remark {
    /// What kind of remark it is.
    pub id: String,
    /// The remark.
    pub text: String,
}

impl Remark {
    /// A remark of this kind.
    pub fn new(id: &str, text: impl Into<String>) -> Self {
        Self { id: id.to_owned(), text: text.into() }
    }
}

/// The exit statuses of `check`.
pub mod exit {
    /// Every claimed invariant holds.
    pub const HOLDS: u8 = 0;
    /// One is violated.
    pub const VIOLATED: u8 = 1;
    /// The command line or the adapter makes no sense.
    pub const USAGE: u8 = 2;
    /// Something claimed could not be judged.
    pub const INCONCLUSIVE: u8 = 3;
    /// The store does not work without injections.
    pub const CONTROL_FAILED: u8 = 4;
    /// picklock itself failed.
    pub const INTERNAL: u8 = 70;
    /// Somebody ended the run early.
    pub const INTERRUPTED: u8 = 130;
}

impl Report {
    /// The report as JSON, with a line feed at its end.
    pub fn to_json(&self) -> String {
        // Strings, numbers, lists and maps with text keys: nothing in here can fail to be JSON.
        let mut json = serde_json::to_string_pretty(self).unwrap_or_default();
        json.push('\n');
        json
    }

    /// Whether all that is open is so for want of time alone, which is allowed, and something holds.
    pub fn is_partial_and_allowed(&self) -> bool {
        let claimed = || self.invariants.iter().filter(|invariant| invariant.claimed);
        self.allow_partial
            && claimed().any(|one| one.verdict == Verdict::Holds)
            && claimed().filter(|one| one.is_open()).all(InvariantSummary::wants_time_alone)
    }

    /// Works out the verdict and the exit status from what the report holds.
    pub(crate) fn conclude(&mut self) {
        let claimed = || self.invariants.iter().filter(|invariant| invariant.claimed);
        let any = |verdict: Verdict| claimed().any(|invariant| invariant.verdict == verdict);
        self.verdict = if claimed().any(InvariantSummary::is_newly_violated) {
            Verdict::Violated
        } else if claimed().any(InvariantSummary::is_open) || !(any(Verdict::Holds) || any(Verdict::Violated))
        {
            // What has judged nothing is inconclusive, and never a pass.
            Verdict::Inconclusive
        } else {
            Verdict::Holds
        };
        self.exit = match self.verdict {
            _ if !self.control.passed && !self.interrupted => exit::CONTROL_FAILED,
            _ if self.interrupted => exit::INTERRUPTED,
            Verdict::Violated => exit::VIOLATED,
            Verdict::Inconclusive if self.is_partial_and_allowed() => exit::HOLDS,
            Verdict::Inconclusive | Verdict::NotApplicable => exit::INCONCLUSIVE,
            Verdict::Holds => exit::HOLDS,
        };
    }
}

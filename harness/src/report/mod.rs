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

/// Version of the report's JSON schema; fields may be added to it, none is changed or removed.
pub const SCHEMA: u32 = 1;

/// A report, as `harness/schema/report-1.json` describes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The program that made it.
    pub tool: Tool,
    /// The store that was judged.
    pub target: TargetSummary,
    /// Verdict over all claimed invariants.
    pub verdict: Verdict,
    /// The corresponding exit status.
    pub exit: u8,
    /// Whether the run was interrupted.
    pub interrupted: bool,
    /// Random seed.
    pub seed: u64,
    /// Milliseconds from the start to this report.
    pub elapsed_ms: u64,
    /// The shard of a divided run.
    pub shard: Option<String>,
    /// Whether the store works without injections.
    pub control: ControlSummary,
    /// Scenarios that were run.
    pub scenarios: Vec<ScenarioSummary>,
    /// Invariants that were judged.
    pub invariants: Vec<InvariantSummary>,
    /// Likely causes.
    pub diagnoses: Vec<DiagnosisSummary>,
    /// Other remarks.
    pub remarks: Vec<Remark>,
    /// What this run cannot have observed.
    pub not_covered: Vec<String>,
    /// From which states of the store it was tested, and with how many injections at a time.
    #[serde(default)]
    pub scope: String,
    /// Estimated duration of the experiments that invariants need, in milliseconds, made before the first one ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate_ms: Option<u64>,
    /// Whether invariants that are inconclusive only for lack of time do not count for the exit status.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_partial: bool,
}

/// From which states a store is tested, and with how many injections at a time.
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
    /// How it was specified to picklock.
    pub origin: String,
    /// Its commands, verbatim, by the name of the operation.
    pub ops: BTreeMap<String, Vec<String>>,
}

/// Result of the control.
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
    /// All within the stated bound.
    Bounded,
    /// Less than planned.
    Truncated,
}

/// One scenario that was run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScenarioSummary {
    /// Its id.
    pub id: String,
    /// Number of executions under injection.
    pub executions: u64,
    /// Number of directory contents judged without an execution.
    pub states: u64,
    /// How much of its space was covered.
    pub coverage: Coverage,
    /// The bound of the space, or what is missing.
    pub bound: String,
    /// The coverage in numbers, which add up over the shards of a divided run.
    #[serde(default)]
    pub extent: CoverageTally,
    /// Duration in milliseconds.
    pub elapsed_ms: u64,
    /// How its operations ended.
    pub operations: OperationCounts,
    /// A short name of the plan: equal for equal plans.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Throughput of many concurrent clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crowd: Option<Rate>,
}

/// Throughput of many concurrent clients, over all rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Number of operations.
    pub operations: u64,
    /// Number of operations that were killed.
    pub killed: u64,
    /// Elapsed time in milliseconds.
    pub elapsed_ms: f64,
    /// Processor time of the concurrent readers, in milliseconds.
    pub readers_cpu_ms: f64,
}

/// Number of operations by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationCounts {
    /// Exited 0.
    pub acknowledged: u64,
    /// Definitely refused.
    pub refused: u64,
    /// The lock was not available.
    pub busy: u64,
    /// Any other status, a signal, or a limit exceeded.
    pub failed: u64,
    /// Killed by the plan.
    pub killed: u64,
}

impl OperationCounts {
    /// Counts one more operation.
    pub fn count(&mut self, outcome: &Outcome) {
        *match outcome {
            Outcome::Acknowledged => &mut self.acknowledged,
            Outcome::Refused => &mut self.refused,
            Outcome::Busy => &mut self.busy,
            Outcome::Failed(_) | Outcome::Unfinished(_) | Outcome::Stuck => &mut self.failed,
            Outcome::Killed => &mut self.killed,
        } += 1;
    }

    /// Returns the number of all operations.
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
    /// Verdict over all executions.
    pub verdict: Verdict,
    /// Number of executions that could have violated it and were judged.
    pub judged: u64,
    /// Why it is inconclusive or not applicable.
    pub reason: Option<String>,
    /// Whether something that was run could not be judged: then it does not hold, whatever else was judged.
    #[serde(default)]
    pub is_doubted: bool,
    /// Whether it is inconclusive only for lack of time.
    #[serde(default)]
    pub is_partial: bool,
    /// The experiments that it needs before it holds, and how many of them ran.
    #[serde(default)]
    pub evidence: EvidenceSummary,
    /// The first executions that violate it.
    pub counterexamples: Vec<Counterexample>,
    /// Total number of executions that violate it.
    pub violations: u64,
}

/// The experiments that an invariant needs before it holds, and how many of them ran.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceSummary {
    /// Number of experiments needed.
    pub needed: u64,
    /// Number of these that ran.
    pub run: u64,
    /// The same numbers by kind.
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

    /// Lists what is missing, in words; `None` if all of it ran.
    pub fn missing(&self) -> Option<String> {
        let missing = self.kinds.iter().filter(|(_, count)| count.missing() > 0);
        let missing: Vec<String> = missing
            .map(|(kind, count)| format!("{} of {} {}", count.run, count.needed, kind.noun()))
            .collect();
        (!missing.is_empty()).then(|| missing.join(", "))
    }
}

impl InvariantSummary {
    /// Whether a baseline lists all of its violations.
    pub fn is_known(&self) -> bool {
        !self.counterexamples.is_empty() && self.counterexamples.iter().all(|one| one.known)
    }

    /// Whether a part of it could not be judged, even if it also has known violations, which would hide this.
    pub fn is_open(&self) -> bool {
        self.verdict == Verdict::Inconclusive || self.is_known() && self.is_doubted
    }

    /// Whether it is inconclusive only for lack of time.
    pub fn wants_time_alone(&self) -> bool {
        self.verdict == Verdict::Inconclusive && self.is_partial && !self.is_doubted
    }

    /// Whether it has a violation that no baseline lists.
    pub fn is_newly_violated(&self) -> bool {
        self.verdict == Verdict::Violated && !self.is_known()
    }
}

/// Maximum number of counterexamples of one invariant in a report, in addition to the first of each scenario and likely
/// cause.
pub const COUNTEREXAMPLES_MAX: usize = 3;

/// Whether a report that has `found` should hold one more counterexample of this scenario and likely cause: a
/// combination that no other one shows is always added.
pub(crate) fn is_worth_showing(found: &[Counterexample], scenario: &str, diagnosis: Option<&str>) -> bool {
    found.len() < COUNTEREXAMPLES_MAX
        || found.iter().all(|one| one.scenario != scenario || one.diagnosis.as_deref() != diagnosis)
}

/// One execution that violates an invariant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counterexample {
    /// The file that it is saved in, from which it can be replayed.
    pub case: Option<String>,
    /// The scenario that found it.
    pub scenario: String,
    /// Its place in that scenario, independent of the shard of a divided run that found it.
    #[serde(default)]
    pub place: u64,
    /// What was seen, in one sentence.
    pub summary: String,
    /// Whether it can be replayed call by call.
    pub replayable: bool,
    /// Whether a baseline lists it.
    pub known: bool,
    /// File systems on which it was confirmed.
    pub confirmed: Vec<String>,
    /// Its likely cause.
    pub diagnosis: Option<String>,
    /// The command that replays it.
    pub replay: Option<String>,
    /// Explanation of its schedule, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<Explanation>,
    /// Where its sandbox was kept, with `--keep`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
}

/// A likely cause, derived from the system calls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiagnosisSummary {
    /// Its id.
    pub id: String,
    /// The operation that shows it.
    pub op: String,
    /// The call that shows it.
    pub call: String,
    /// The cause in one sentence.
    pub summary: String,
}

/// Removes the diagnosis of a surviving lock file if the store continues after every kill: it removes the lock of a
/// dead owner.
pub(crate) fn explained_away(invariants: &[InvariantSummary], diagnoses: &mut Vec<DiagnosisSummary>) {
    let recovers =
        invariants.iter().any(|one| one.id == "recovers-after-crash" && one.verdict == Verdict::Holds);
    diagnoses.retain(|diagnosis| !recovers || diagnosis.id != "lock-file-survives-kill");
}

/// A remark that is not a verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remark {
    /// The kind of remark.
    pub id: String,
    /// The remark.
    pub text: String,
}

impl Remark {
    /// Creates a remark of this kind.
    pub fn new(id: &str, text: impl Into<String>) -> Self {
        Self { id: id.to_owned(), text: text.into() }
    }
}

/// The exit statuses of `check`.
pub mod exit {
    /// Every claimed invariant holds.
    pub const HOLDS: u8 = 0;
    /// A claimed invariant is violated.
    pub const VIOLATED: u8 = 1;
    /// The command line or the adapter is invalid.
    pub const USAGE: u8 = 2;
    /// A claimed invariant could not be judged.
    pub const INCONCLUSIVE: u8 = 3;
    /// The store does not work without injections.
    pub const CONTROL_FAILED: u8 = 4;
    /// picklock itself failed.
    pub const INTERNAL: u8 = 70;
    /// The run was interrupted.
    pub const INTERRUPTED: u8 = 130;
}

impl Report {
    /// Returns the report as JSON, with a line feed at its end.
    pub fn to_json(&self) -> String {
        // Strings, numbers, lists and maps with text keys always serialize to JSON.
        let mut json = serde_json::to_string_pretty(self).unwrap_or_default();
        json.push('\n');
        json
    }

    /// Whether everything that is open is so only for lack of time, which is allowed, and something holds.
    pub fn is_partial_and_allowed(&self) -> bool {
        let claimed = || self.invariants.iter().filter(|invariant| invariant.claimed);
        self.allow_partial
            && claimed().any(|one| one.verdict == Verdict::Holds)
            && claimed().filter(|one| one.is_open()).all(InvariantSummary::wants_time_alone)
    }

    /// Computes the verdict and the exit status from the content of the report.
    pub(crate) fn conclude(&mut self) {
        let claimed = || self.invariants.iter().filter(|invariant| invariant.claimed);
        let any = |verdict: Verdict| claimed().any(|invariant| invariant.verdict == verdict);
        self.verdict = if claimed().any(InvariantSummary::is_newly_violated) {
            Verdict::Violated
        } else if claimed().any(InvariantSummary::is_open) || !(any(Verdict::Holds) || any(Verdict::Violated))
        {
            // A run that judged nothing is inconclusive, never a pass.
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

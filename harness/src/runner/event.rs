//! Defines the events of a sweep, the answers to them, and its summary.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::case::Explanation;
use crate::evidence::{Count, Evidence};
use crate::observation::Observation;
use crate::runner::Cut;
use crate::scenario::script::Script;

/// Summary of a scenario's run, without its observations.
#[derive(Clone, Debug, Default)]
pub struct SweepSummary {
    /// Description of each group, with the numbers of executions planned and made.
    pub groups: Vec<(String, usize, usize)>,
    /// What was explored, by its place and in words, and how far.
    pub explored: Vec<(u64, String)>,
    /// What was explored with a kill.
    pub killed: Option<Kills>,
    /// Whether an exploration was ended by the time and not by a bound.
    pub is_truncated: bool,
    /// Whether an exploration kept to a bound.
    pub is_bounded: bool,
    /// Why executions were left out, if any were.
    pub cut: Option<Cut>,
    /// Deliberate omissions, in words.
    pub bounds: Vec<String>,
    /// Invariants that remain open, with the reason.
    pub doubts: Vec<(&'static str, String)>,
    /// Number of directory contents derived, and how many of them have a data file that is not whole.
    pub states: (u64, u64),
    /// What the traces report as not observed.
    pub not_covered: BTreeSet<String>,
    /// Number of experiments of each kind that ran and are evidence.
    pub evidence: BTreeMap<Option<Evidence>, Count>,
    /// Duration and number of the experiments of a kind.
    pub times: Vec<(Evidence, Duration, u64)>,
    /// Number of experiments of each kind that were made without becoming evidence.
    pub in_vain: BTreeMap<Evidence, u64>,
    /// What was not scheduled and can affect the results of schedules.
    pub unscheduled: BTreeSet<String>,
}

/// Schedules of one plan, with a kill of client 1 before one of its calls.
#[derive(Clone, Debug)]
pub struct Kills {
    /// The plan, in words.
    pub plan: String,
    /// Number of schedules that were run.
    pub schedules: u64,
    /// Number of points at which all inequivalent schedules were run.
    pub complete: u64,
    /// Total number of points.
    pub points: u64,
}

/// How to continue after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SweepControl {
    /// Continue.
    GoOn,
    /// Continue; this execution has a violation.
    Found,
    /// Continue; this execution has a violation that does not count and ends nothing.
    Known,
    /// Stop.
    End,
    /// Confirm the result of a derived state with a real execution.
    Confirm,
}

/// An event of a running scenario.
pub enum SweepEvent<'a> {
    /// An execution, and its script. The result of a copy is to be confirmed by a fresh start before it counts against
    /// the store.
    Execution {
        /// Its place in the scenario: one shard of a divided run runs everything that belongs to one place.
        place: u64,
        /// Its observation.
        observation: Box<Observation>,
        /// The script that was run.
        script: &'a Script,
        /// Whether some of its operations were copies of templates.
        has_copies: bool,
        /// Explanation of its schedule, if one was computed.
        explanation: Option<Explanation>,
    },
    /// An execution that does not count: it only shows whether it has the violation that is searched for.
    Trial {
        /// Its observation.
        observation: &'a Observation,
        /// What is searched for.
        trial: Trial,
    },
    /// The violation of the first trial could no longer be confirmed by a fresh start.
    Unconfirmed,
    /// The real execution that was to confirm the violation of a derived state did not reach its injection.
    Unreached {
        /// The script that was run.
        script: &'a Script,
    },
    /// The result of running the store on a derived state.
    Derived {
        /// Its observation.
        observation: Box<Observation>,
        /// The script that would lead to that state.
        script: &'a Script,
    },
}

/// The question that an execution that does not count answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// Whether it violates anything: these violations are searched for from then on.
    First,
    /// Whether it violates all of them: minimization must not lose a violation.
    Smaller,
    /// Whether it violates any of them, so that it does not pass.
    Any,
    /// The same with a fresh start, after a copy: invariants that it does not violate are in doubt.
    Anew,
}

impl Trial {
    /// Whether an execution that violates these invariants is one that is searched for.
    pub fn is_found(self, looked_for: &[&str], violated: &[&str]) -> bool {
        match self {
            Self::First => !violated.is_empty(),
            Self::Smaller => looked_for.iter().all(|id| violated.contains(id)),
            Self::Any | Self::Anew => looked_for.iter().any(|id| violated.contains(id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first schedule with a violation was minimized as long as it violated any of the same invariants: its other
    /// violations were lost and reported as holding; with a baseline, known violations hid new ones.
    #[test]
    fn a_smaller_schedule_violates_all_that_the_first_one_did() {
        let first = ["no-lost-update", "guard-holds"];
        assert!(Trial::First.is_found(&[], &first) && !Trial::First.is_found(&first, &[]));
        assert!(Trial::Smaller.is_found(&first, &["valid-data", "guard-holds", "no-lost-update"]));
        assert!(!Trial::Smaller.is_found(&first, &["no-lost-update"]));
        assert!(Trial::Any.is_found(&first, &["no-lost-update"]), "what violates a part of it does not pass");
        assert!(
            Trial::Anew.is_found(&first, &["guard-holds"]) && !Trial::Anew.is_found(&first, &["valid-data"])
        );
    }
}

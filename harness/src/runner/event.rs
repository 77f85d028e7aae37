//! Defines the events of a sweep, the answers to them, and its summary.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::case::Explanation;
use crate::evidence::{Count, Evidence};
use crate::observation::Observation;
use crate::runner::Cut;
use crate::scenario::script::Script;

/// How a scenario went, beside what it showed.
#[derive(Clone, Debug, Default)]
pub struct SweepSummary {
    /// What was planned, in words, with how many executions that is, and how many were made.
    pub groups: Vec<(String, usize, usize)>,
    /// What was explored, by its place and in words, with how far that went.
    pub explored: Vec<(u64, String)>,
    /// What was explored with a kill in it.
    pub killed: Option<Kills>,
    /// Whether an exploration was ended by the time, with no bound that it kept.
    pub is_truncated: bool,
    /// Whether an exploration kept to a bound.
    pub is_bounded: bool,
    /// Why executions were left out, if any were.
    pub cut: Option<Cut>,
    /// What was left out on purpose, in words.
    pub bounds: Vec<String>,
    /// Invariants that stay open, with the reason.
    pub doubts: Vec<(&'static str, String)>,
    /// How many directory contents were derived, and how many of them have a data file that is not whole.
    pub states: (u64, u64),
    /// What the traces say is not seen.
    pub not_covered: BTreeSet<String>,
    /// How many experiments ran that are evidence of each kind.
    pub evidence: BTreeMap<Option<Evidence>, Count>,
    /// How long experiments of a kind took, and how many they were.
    pub times: Vec<(Evidence, Duration, u64)>,
    /// How many experiments of each kind were made and are no evidence.
    pub in_vain: BTreeMap<Evidence, u64>,
    /// What was not scheduled that can matter for what schedules show.
    pub unscheduled: BTreeSet<String>,
}

/// Schedules of one plan, with a kill of client 1 before one of its calls.
#[derive(Clone, Debug)]
pub struct Kills {
    /// The plan, in words.
    pub plan: String,
    /// Those that were run.
    pub schedules: u64,
    /// The points at which all inequivalent schedules were run.
    pub complete: u64,
    /// The points there are.
    pub points: u64,
}

/// What is to happen after an execution was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SweepControl {
    /// The next one.
    GoOn,
    /// The next one; this one violated something.
    Found,
    /// The next one; this one violated something that does not count, which ends nothing.
    Known,
    /// Nothing more.
    End,
    /// What a derived state showed is to be done for real.
    Confirm,
}

/// What a scenario shows while it runs.
pub enum SweepEvent<'a> {
    /// An execution, and what was played. What a copy shows is to be confirmed by a fresh start before it is held
    /// against the store.
    Execution {
        /// Its place in the scenario: what comes of one is run by one shard of a divided run.
        place: u64,
        /// What it showed.
        observation: Box<Observation>,
        /// What was played.
        script: &'a Script,
        /// Whether operations of it were copies of templates.
        has_copies: bool,
        /// What there is to say of it, where that was looked for.
        explanation: Option<Explanation>,
    },
    /// An execution that counts for nothing: whether it violates what is looked for.
    Trial {
        /// What it showed.
        observation: &'a Observation,
        /// What is looked for.
        trial: Trial,
    },
    /// What the first trial violated could not be confirmed by a fresh start any more.
    Unconfirmed,
    /// What was to be done for real, since a derived state violated something, could not be.
    Unreached {
        /// What was played.
        script: &'a Script,
    },
    /// What the store made of a derived state.
    Derived {
        /// What it showed.
        observation: Box<Observation>,
        /// What would come to that state.
        script: &'a Script,
    },
}

/// What is asked of an execution that counts for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// Whether it violates anything: from now on that is what is looked for.
    First,
    /// Whether it violates all of that: nothing that was seen once may get lost where it is made smaller.
    Smaller,
    /// Whether it violates any of that, so that it does not pass.
    Any,
    /// The same of a fresh start, after a copy: what it does not violate is in doubt.
    Anew,
}

impl Trial {
    /// Whether an execution that violates these invariants is what is looked for.
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

    /// The first schedule that violated anything was made smaller as long as it violated any of that: what else it had
    /// shown was lost, and held in the report; beside a baseline, what is known hid what is new.
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

//! Computes the scenarios and invariants that `--only` and `--skip` select.

use std::collections::BTreeSet;

use crate::catalogue::{self, nearest};
use crate::invariants;
use crate::scenario;
use crate::target::UsageError;

/// Scenarios to run and invariants to judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Ids of scenarios.
    pub scenarios: BTreeSet<&'static str>,
    /// Ids of invariants.
    pub invariants: BTreeSet<&'static str>,
}

/// Selects everything.
impl Default for Selection {
    fn default() -> Self {
        Self {
            scenarios: scenario::ALL.iter().map(|scenario| scenario.id).collect(),
            invariants: invariants::ALL.iter().map(|invariant| invariant.id).collect(),
        }
    }
}

impl Selection {
    /// Computes what remains after `--only` and `--skip`.
    ///
    /// # Errors
    /// Fails if an id does not exist.
    pub fn new(only: &[String], skip: &[String]) -> Result<Self, UsageError> {
        let mut selection = Self::default();
        let chosen = Ids::read("--only", only)?;
        if !chosen.scenarios.is_empty() {
            selection.scenarios = chosen.scenarios;
        }
        if !chosen.invariants.is_empty() {
            selection.invariants = chosen.invariants;
        }
        let left_out = Ids::read("--skip", skip)?;
        selection.scenarios.retain(|id| !left_out.scenarios.contains(id));
        selection.invariants.retain(|id| !left_out.invariants.contains(id));
        Ok(selection)
    }
}

struct Ids {
    scenarios: BTreeSet<&'static str>,
    invariants: BTreeSet<&'static str>,
}

impl Ids {
    fn read(flag: &str, ids: &[String]) -> Result<Self, UsageError> {
        let mut found = Self { scenarios: BTreeSet::new(), invariants: BTreeSet::new() };
        for id in ids {
            if let Some(scenario) = scenario::find(id) {
                found.scenarios.insert(scenario.id);
            } else if let Some(invariant) = invariants::find(id) {
                found.invariants.insert(invariant.id);
            } else {
                return Err(unknown_id(
                    flag,
                    id,
                    catalogue::SCENARIO_IDS.iter().chain(catalogue::INVARIANT_IDS),
                ));
            }
        }
        Ok(found)
    }
}

/// Returns the error for an unknown id.
pub fn unknown_id<'a>(flag: &str, id: &str, known: impl Iterator<Item = &'a &'a str>) -> UsageError {
    let error = UsageError::new(flag, format!("there is no {id:?}"));
    match nearest(id, known.copied()) {
        Some(meant) => error.help(format!("did you mean {meant}?")),
        None => error.help("`picklock list` names all ids"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(only: &[&str], skip: &[&str]) -> Result<Selection, UsageError> {
        let owned = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        Selection::new(&owned(only), &owned(skip))
    }

    #[test]
    fn scenario_ids_choose_what_is_run_and_invariant_ids_what_is_judged() {
        let all = Selection::default();
        let crash = selection(&["crash"], &[]).unwrap();
        assert_eq!((crash.scenarios.len(), crash.invariants.len()), (1, all.invariants.len()));
        let valid = selection(&["valid-data"], &[]).unwrap();
        assert_eq!((valid.scenarios.len(), valid.invariants.len()), (all.scenarios.len(), 1));
        let without = selection(&[], &["stress", "valid-data"]).unwrap();
        assert!(!without.scenarios.contains("stress") && !without.invariants.contains("valid-data"));
        assert_eq!(without.invariants.len(), all.invariants.len() - 1);
    }

    #[test]
    fn an_id_that_names_nothing_says_what_was_meant() {
        let told = |id: &str| selection(&[id], &[]).unwrap_err().to_string();
        assert!(told("valid-dat").contains("did you mean valid-data?"));
        assert!(told("xyzzy").contains("picklock list"));
    }
}

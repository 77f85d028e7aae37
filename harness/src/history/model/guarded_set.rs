//! A set with a limit: an add is acknowledged only below the limit, and refused only at it.

use super::members::Members;
use super::set::{Call, describe, next_missing};
use super::{Model, Names, Pending};

/// The model of a set with a limit. Adding a record that is already in changes nothing, at the limit too.
#[derive(Clone, Debug)]
pub struct GuardedSet {
    /// Maximum number of records.
    pub limit: usize,
    /// Names of the records.
    pub names: Names,
}

impl GuardedSet {
    /// Makes a set with a limit of `limit` records.
    pub fn new(limit: usize, names: Names) -> Self {
        Self { limit, names }
    }
}

impl Model for GuardedSet {
    type State = Members;
    type Call = Call;
    type Key = ();

    fn key(&self, _: &Call) {}

    fn initial(&self) -> Members {
        Members::default()
    }

    fn step(&self, state: &Members, call: &Call) -> Option<Members> {
        match call {
            Call::Add { record, done } => {
                let is_full = state.count() >= self.limit;
                match done {
                    Some(false) => is_full.then(|| state.clone()),
                    _ if !is_full || state.contains(*record) => Some(state.with(*record)),
                    Some(true) => None,
                    None => Some(state.clone()),
                }
            }
            Call::List(None) => Some(state.clone()),
            Call::List(Some(records)) => state.are(records).then(|| state.clone()),
        }
    }

    fn only_reads(&self, call: &Call) -> bool {
        matches!(call, Call::List(_) | Call::Add { done: Some(false), .. })
    }

    /// For a refused add, any records fill the set up, in ascending order of their numbers; a list determines which
    /// records.
    fn helpers(
        &self,
        state: &Members,
        goal: &Call,
        pending: &[Pending<'_, Call>],
        last: Option<&Call>,
    ) -> Vec<usize> {
        match goal {
            Call::List(Some(records)) if records.len() <= self.limit => next_missing(state, records, pending),
            Call::Add { done: Some(false), .. } => {
                let from = match last {
                    Some(Call::Add { record, .. }) => record + 1,
                    _ => 0,
                };
                let is_new = |one: &Pending<'_, Call>| matches!(one.call, Call::Add { record, .. } if *record >= from && !state.contains(*record));
                let new: Vec<usize> = pending
                    .iter()
                    .enumerate()
                    .filter(|(_, one)| is_new(one))
                    .map(|(index, _)| index)
                    .collect();
                if state.count() + new.len() < self.limit { Vec::new() } else { new }
            }
            Call::List(_) | Call::Add { .. } => Vec::new(),
        }
    }

    fn describe(&self, call: &Call) -> String {
        describe(&self.names, call)
    }

    fn describe_state(&self, state: &Members) -> String {
        format!("{} of {} records", state.count(), self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_add_is_refused_at_the_limit_and_only_there() {
        let set = GuardedSet::new(1, Names::default());
        let add = |state: &Members, record, done| set.step(state, &Call::Add { record, done });
        let empty = set.initial();
        assert_eq!(add(&empty, 1, Some(false)), None);
        let full = add(&empty, 1, Some(true)).unwrap();
        assert_eq!(add(&full, 2, Some(true)), None);
        assert_eq!(add(&full, 2, Some(false)), Some(full.clone()));
        assert_eq!(add(&full, 2, None), Some(full.clone()));
        assert_eq!(add(&full, 1, Some(true)), Some(full.clone()));
    }
}

//! A set of records that only grows, and tells all of them.

use super::members::{Members, is_strictly_sorted};
use super::{Model, Names, Pending};

/// A call of a set; records are numbers of [`Names`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// Adds the record; a record that is already in stays in, once.
    Add {
        /// The record.
        record: u32,
        /// Whether it was added or refused, if known.
        done: Option<bool>,
    },
    /// Lists the records, sorted here; `None` if unanswered. A list with a duplicate record matches no set.
    List(Option<Vec<u32>>),
}

/// The model of a set without a limit: an add may be refused at any time, and then changes nothing.
#[derive(Clone, Debug, Default)]
pub struct Set {
    /// Names of the records.
    pub names: Names,
}

impl Model for Set {
    type State = Members;
    type Call = Call;
    type Key = ();

    fn key(&self, _: &Call) {}

    fn initial(&self) -> Members {
        Members::default()
    }

    fn step(&self, state: &Members, call: &Call) -> Option<Members> {
        match call {
            Call::Add { done: Some(false), .. } | Call::List(None) => Some(state.clone()),
            Call::Add { record, .. } => Some(state.with(*record)),
            Call::List(Some(records)) => state.are(records).then(|| state.clone()),
        }
    }

    fn only_reads(&self, call: &Call) -> bool {
        matches!(call, Call::List(_) | Call::Add { done: Some(false), .. })
    }

    fn helpers(
        &self,
        state: &Members,
        goal: &Call,
        pending: &[Pending<'_, Call>],
        _: Option<&Call>,
    ) -> Vec<usize> {
        match goal {
            Call::List(Some(records)) => next_missing(state, records, pending),
            Call::List(None) | Call::Add { .. } => Vec::new(),
        }
    }

    fn describe(&self, call: &Call) -> String {
        describe(&self.names, call)
    }

    fn describe_state(&self, state: &Members) -> String {
        self.names.some(state.all().into_iter())
    }
}

/// Returns the add of the first listed record that is not in yet: adds commute, so one order of them is enough.
pub(super) fn next_missing(state: &Members, listed: &[u32], pending: &[Pending<'_, Call>]) -> Vec<usize> {
    let mut missing = listed.iter().filter(|record| !state.contains(**record));
    let Some(first) = missing.next() else { return Vec::new() };
    // Records that are in but not listed cannot be removed.
    if !is_strictly_sorted(listed) || state.count() + 1 + missing.count() != listed.len() {
        return Vec::new();
    }
    let adds = |one: &Pending<'_, Call>| matches!(one.call, Call::Add { record, .. } if record == first);
    pending.iter().position(adds).into_iter().collect()
}

pub(super) fn describe(names: &Names, call: &Call) -> String {
    match call {
        Call::Add { record, done } => {
            let answer = match done {
                Some(true) => " → ok",
                Some(false) => " → refused",
                None => "",
            };
            format!("add {}{answer}", names.name(*record))
        }
        Call::List(None) => "list".into(),
        Call::List(Some(records)) => format!("list → {}", names.some(records.iter().copied())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_every_record_once() {
        let set = Set::default();
        let add = |state: &Members, record, done| set.step(state, &Call::Add { record, done }).unwrap();
        let state = add(&add(&set.initial(), 4, Some(true)), 2, None);
        let state = add(&add(&state, 9, Some(false)), 4, Some(true));
        let list = |records: &[u32]| set.step(&state, &Call::List(Some(records.into())));
        assert!(list(&[2, 4]).is_some());
        assert!(list(&[2, 4, 9]).is_none() && list(&[2]).is_none() && list(&[2, 4, 4]).is_none());
    }
}

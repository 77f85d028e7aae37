//! What an execution showed of a set of records, as a history: adds, and what lists and looks at the file told.

use std::sync::LazyLock;

use regex::Regex;

use crate::history::model::Names;
use crate::history::model::set::Call;
use crate::history::{Explanation, History, Operation as Recorded};
use crate::observation::Observation;
use crate::op::{ClientId, Operation, Outcome, Request};

/// Client number of the looks at the data file, which belong to no client.
const NOBODY: ClientId = ClientId::MAX;

/// Returns the history of the operations that `counts` selects, with the names of its records; `None` if no two of them
/// overlapped. Records that were in the store from the start, and answers before it had recovered, are skipped.
pub(super) fn recorded(
    observation: &Observation,
    counts: impl Fn(&Operation) -> bool,
) -> Option<(History<Call>, Names)> {
    let mut names = Names::default();
    let mut operations: Vec<Recorded<Call>> = Vec::new();
    let mut told = |records: &[String]| {
        let own = records.iter().filter(|record| !observation.subject.initial_records.contains(*record));
        let mut numbers: Vec<u32> = own.map(|record| names.number(record)).collect();
        numbers.sort_unstable();
        numbers
    };
    let counted: Vec<&Operation> =
        observation.operations.iter().filter(|operation| counts(operation)).collect();
    for operation in &counted {
        let call = match (&operation.request, &operation.records) {
            (Request::List, Some(records)) => Call::List(Some(told(records))),
            _ => {
                let Some(record) = operation.added() else { continue };
                let record = told(&[record.to_owned()]).first().copied();
                let Some(record) = record else { continue };
                let done = match operation.outcome {
                    // Its answer after a fault is judged by another invariant.
                    _ if operation.fault.is_some() => None,
                    Outcome::Acknowledged => Some(true),
                    Outcome::Refused => Some(false),
                    // It found the lock taken, and changed nothing.
                    Outcome::Busy => continue,
                    _ => None,
                };
                Call::Add { record, done }
            }
        };
        let is_known = !matches!(call, Call::Add { done: None, .. });
        let returned = is_known.then_some(operation.returned);
        operations.push(Recorded {
            client: operation.client,
            invoked: operation.invoked,
            returned,
            call,
            line: 0,
        });
    }
    for state in observation.states.iter().filter(|state| observation.settled_at(state.at)) {
        let Some(records) = &state.records else { continue };
        let call = Call::List(Some(told(records)));
        operations.push(Recorded {
            client: NOBODY,
            invoked: state.at,
            returned: Some(state.at),
            call,
            line: 0,
        });
    }
    let overlap = |(at, one): (usize, &&Operation)| counted[at + 1..].iter().any(|other| one.overlaps(other));
    if !counted.iter().enumerate().any(overlap) {
        return None;
    }
    let history = History::new(operations.clone()).or_else(|_| {
        // Requests of one session overlap: then each counts as its own client.
        let own = (1..).zip(operations).map(|(client, operation)| Recorded { client, ..operation });
        History::new(own.collect())
    });
    Some((history.ok()?, names))
}

/// Formats an explanation without times, which differ from run to run; a look at the data file is no client.
pub(super) fn told(explanation: &Explanation) -> String {
    static TIMES: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r" \(\d+\.\.(\d+|\?)\)").ok());
    let told = format!("{explanation:#}").replace(&format!("of client {NOBODY}"), "seen in the data file");
    match TIMES.as_ref() {
        Some(times) => times.replace_all(&told, "").into_owned(),
        None => told,
    }
}

/// Returns whether the answer or the effect of an operation is judged; not for a list with a fault, or one before the
/// store had recovered.
pub(super) fn is_meant(operation: &Operation, observation: &Observation) -> bool {
    let is_settled =
        || observation.settled_at(operation.invoked) && observation.settled_at(operation.returned);
    operation.request != Request::List || (operation.fault.is_none() && is_settled())
}

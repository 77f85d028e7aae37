//! A history is judged part by part, and is linearizable where every part is.
//!
//! That a history of several objects is linearizable if the history of each object is, is theorem 1 of Herlihy and
//! Wing; Horn and Kroening ("Faster linearizability checking via P-compositionality", FORTE 2015) show the savings.

use std::collections::BTreeMap;

use super::model::Model;
use super::search::{Outcome, search};
use super::{Explanation, History, Operation, Verdict};

/// Judges a history in at most `bound` steps of the model.
pub fn judge<M: Model>(model: &M, history: &History<M::Call>, bound: u64) -> Verdict {
    let parts = parts(model, history.operations());
    let (mut left, mut parts_left) = (bound, parts.len() as u64);
    let mut doubt = None;
    for part in parts.values() {
        // Steps that one part does not use are left to the others; none gets less than its share.
        let share = left / parts_left.max(1);
        let mut steps = share;
        let outcome = search(model, part, &mut steps);
        (left, parts_left) = (left - (share - steps), parts_left - 1);
        match outcome {
            Outcome::Found => {}
            Outcome::Impossible { culprit, state } => {
                return Verdict::Violated(explained(model, part, part[culprit], &state));
            }
            Outcome::OutOfSteps => {
                doubt = Some(format!("no order was found, nor that there is none, within {bound} steps"));
            }
            Outcome::OutOfMemory => {
                doubt =
                    Some("no order was found, nor that there is none, within the memory of a search".into());
            }
        }
    }
    doubt.map_or(Verdict::Linearizable, Verdict::Unknown)
}

/// Explains why no order gets past `culprit`; one order reached `state` before it.
fn explained<M: Model>(
    model: &M,
    part: &[&Operation<M::Call>],
    culprit: &Operation<M::Call>,
    state: &M::State,
) -> Explanation {
    let before = part.iter().filter(|one| one.returned.is_some() && one.returned < culprit.returned).count();
    let state = model.describe_state(state);
    let why = match before {
        0 => format!("fits nowhere: it begins with {state}"),
        1 => format!("fits nowhere: what returned before it leads to {state}"),
        _ => format!(
            "fits nowhere: an order of the {before} operations that returned before it leads to {state}, none to this answer"
        ),
    };
    Explanation::new(model, culprit, why, part.iter().copied())
}

/// Groups the operations by their parts.
fn parts<'a, M: Model>(
    model: &M,
    operations: &'a [Operation<M::Call>],
) -> BTreeMap<M::Key, Vec<&'a Operation<M::Call>>> {
    let mut parts: BTreeMap<M::Key, Vec<&Operation<M::Call>>> = BTreeMap::new();
    for operation in operations {
        parts.entry(model.key(&operation.call)).or_default().push(operation);
    }
    parts
}

//! A history is judged part by part, and is linearizable where every part is.
//!
//! That a history of objects is linearizable where the history of each is, is theorem 1 of Herlihy and Wing; Horn and
//! Kroening ("Faster linearizability checking via P-compositionality", FORTE 2015) show what it saves.

use std::collections::BTreeMap;

use super::model::Model;
use super::search::{Outcome, search};
use super::{Explanation, History, Operation, Verdict};

/// The verdict on a history, found in at most `bound` steps of the model.
pub fn judge<M: Model>(model: &M, history: &History<M::Call>, bound: u64) -> Verdict {
    let parts = parts(model, history.operations());
    let (mut left, mut parts_left) = (bound, parts.len() as u64);
    let mut doubt = None;
    for part in parts.values() {
        // What one part does not need the others may have; none gets less than its share.
        let share = left / parts_left.max(1);
        let mut steps = share;
        let outcome = search(model, part, &mut steps);
        (left, parts_left) = (left - (share - steps), parts_left - 1);
        match outcome {
            Outcome::Found => {}
            Outcome::Impossible { culprit, state } => {
                let why = format!(
                    "fits nowhere: the operations that returned before it can be ordered, and then there is {}",
                    model.describe_state(&state)
                );
                return Verdict::Violated(Explanation::new(model, part[culprit], why, part.iter().copied()));
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

/// Operations by their parts.
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

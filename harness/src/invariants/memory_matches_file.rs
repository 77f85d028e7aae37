//! What a process believes equals what the file holds, also after a cancelled request.
//!
//! Judged when a session is asked what it holds in memory, without reading, and then what the file holds, while no
//! other request runs. Typical cause: memory is changed before the lock is taken or after it is released, so that a
//! request that is cancelled or fails in between has changed only one of the two.
//!
//! Example: a request is cancelled after the file was written and before the memory was: the session answers that r2
//! is missing, and the file has it.

use std::collections::BTreeMap;

use crate::catalogue::headline;
use crate::evidence::Evidence;
use crate::invariants::{Invariant, Needs};
use crate::observation::{Observation, name_some};
use crate::op::{NO_ANSWER, Operation, Outcome};
use crate::verdict::Judgement;

pub(super) const INVARIANT: Invariant = Invariant {
    id: "memory-matches-file",
    statement: headline(include_str!("memory_matches_file.rs")),
    source: include_str!("memory_matches_file.rs"),
    needs: Needs::Session,
    evidence: &[Evidence::Sessions],
    unjudged: "no session was asked what it believes and at once what the file holds",
    check,
};

fn check(observation: &Observation) -> Judgement {
    let counts = |records: &[String]| {
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        for record in records {
            *counts.entry(record.clone()).or_default() += 1;
        }
        counts
    };
    for memory in &observation.memories {
        let (believed, listed) = (counts(&memory.believed), counts(&memory.listed));
        let more = |one: &BTreeMap<String, i64>, other: &BTreeMap<String, i64>| {
            let count = |record: &String| other.get(record).copied().unwrap_or(0);
            one.iter().filter(|(record, n)| **n > count(record)).map(|(record, _)| record.clone()).collect()
        };
        let (only_believed, only_listed): (Vec<_>, Vec<_>) =
            (more(&believed, &listed), more(&listed, &believed));
        let told = |records: &[String]| name_some(records.iter().map(String::as_str));
        match (only_believed.is_empty(), only_listed.is_empty()) {
            (true, true) => {}
            (false, _) => {
                return Judgement::Violated(format!(
                    "the process believes in what is not in the file: {}",
                    told(&only_believed)
                ));
            }
            (true, false) => {
                return Judgement::Violated(format!(
                    "the process does not know of what is in the file: {}",
                    told(&only_listed)
                ));
            }
        }
    }
    let is_unanswered = |operation: &Operation| match &operation.outcome {
        Outcome::Failed(how) => how == NO_ANSWER,
        Outcome::Unfinished(_) | Outcome::Stuck => true,
        _ => false,
    };
    if observation.scenario == "session"
        && let Some(request) = observation.operations.iter().find(|operation| is_unanswered(operation))
    {
        return Judgement::Inconclusive(format!("a session never answered {}", request.request));
    }
    if observation.memories.is_empty() { Judgement::NotExercised } else { Judgement::Holds }
}

#[cfg(test)]
mod tests {
    use super::super::timeline::{holds, silent, violated};
    use super::check;

    #[test]
    fn what_is_believed_and_what_is_listed_are_the_same_in_any_order() {
        holds(check, "memory 1 believed a b listed b a");
        holds(check, "memory 1 believed listed");
        silent(check, "c1 list 0..1 ok = a");
    }

    #[test]
    fn a_record_more_on_either_side_violates_and_is_named() {
        violated(check, "believes in what is not in the file: b", "memory 1 believed a b listed a");
        violated(check, "does not know of what is in the file: b", "memory 1 believed a listed a b");
        violated(check, "not in the file: a", "memory 1 believed a a listed a");
    }
}

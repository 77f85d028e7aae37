//! An operation that fails leaves the earlier data whole.
//!
//! Judged if a call of an operation was made to fail, the operation was not acknowledged, and no other client ran:
//! every record acknowledged before is still there, `list` succeeds, and the data file is whole once the next
//! operation has ended. Typical causes: a file truncated before there is room for the new content, a backup restored
//! over newer data, an error taken for an empty store.
//!
//! Example: the disk is full when `add r2` overwrites the data: it exits 1, and r1, which was there before, is gone.

use crate::catalogue::headline;
use crate::evidence::Evidence;
use crate::invariants::{Invariant, Needs};
use crate::observation::{FileState, Observation, name_some};
use crate::op::{Operation, Outcome, Request};
use crate::verdict::Judgement;

pub(super) const INVARIANT: Invariant = Invariant {
    id: "failed-write-keeps-old",
    statement: headline(include_str!("failed_write_keeps_old.rs")),
    source: include_str!("failed_write_keeps_old.rs"),
    needs: Needs::Nothing,
    evidence: &[Evidence::Faults],
    unjudged: "no operation failed for a fault, or the records could not be read afterwards",
    check,
};

fn check(observation: &Observation) -> Judgement {
    if !observation.is_sequential() {
        return Judgement::NotExercised;
    }
    let mut judged = false;
    for failed in observation.operations.iter().filter(|operation| operation.was_failed()) {
        match harm(failed, observation) {
            Some(Some(harm)) => {
                let fault = failed.fault.as_deref().unwrap_or_default();
                return Judgement::Violated(format!("{} failed with {fault}, and {harm}", failed.request));
            }
            Some(None) => judged = true,
            None => {}
        }
    }
    if judged { Judgement::Holds } else { Judgement::NotExercised }
}

/// Describes how a failed operation harmed the earlier data; the outer `None` means that no later operation could look.
fn harm(failed: &Operation, observation: &Observation) -> Option<Option<String>> {
    let later = || observation.operations.iter().filter(|next| next.invoked >= failed.returned);
    let mut looked = false;
    if let Some(list) = later().find(|next| next.request == Request::List) {
        if list.tells_nothing() {
            return Some(Some(format!("then list failed: {}", list.stderr)));
        }
        looked = list.outcome == Outcome::Acknowledged;
    }
    let next_ended = later().map(|next| next.returned).min()?;
    let had_records = observation.acknowledged_by(failed.invoked).next().is_some();
    let rested = |at| at >= next_ended && observation.subject.transparent;
    for state in observation.states.iter().filter(|state| rested(state.at)) {
        looked = true;
        let what = match &state.data {
            FileState::Broken(reason) => format!("broken: {reason}"),
            FileState::Empty if had_records => "empty".to_owned(),
            FileState::Missing if had_records => "away".to_owned(),
            _ => continue,
        };
        return Some(Some(format!("the data file stays {what}")));
    }
    for view in observation.views().into_iter().filter(|view| view.at >= failed.returned) {
        looked = true;
        let counts = observation.counts(view);
        let before = observation.acknowledged_by(failed.invoked).map(|(record, _)| record);
        let lost: Vec<&str> = before.filter(|record| !counts.contains_key(record)).collect();
        if !lost.is_empty() {
            return Some(Some(format!("not in {} any more: {}", view.source, name_some(lost))));
        }
    }
    looked.then_some(None)
}

#[cfg(test)]
mod tests {
    use super::super::timeline::{holds, silent, violated};
    use super::check;

    const FAILED: &str = "c1 add a 0..10 ok\n c1 add b 20..30 failed with write-enospc\n";

    #[test]
    fn what_was_there_before_is_there_after() {
        holds(check, &format!("{FAILED} c1 list 40..41 ok = a"));
        holds(check, &format!("{FAILED} c1 list 40..41 ok = a b\n state 42 whole = a b"));
        // The store may repair itself with the next operation.
        holds(check, &format!("{FAILED} state 31 broken\n c1 list 40..41 ok = a\n state 42 whole = a"));
    }

    #[test]
    fn what_is_gone_or_cannot_be_read_any_more_violates() {
        violated(check, "not in list any more: a", &format!("{FAILED} c1 list 40..41 ok ="));
        violated(check, "then list failed", &format!("{FAILED} c1 list 40..41 failed"));
        violated(check, "then list failed", &format!("{FAILED} c1 list 40..41 busy"));
        violated(check, "then list failed", &format!("{FAILED} c1 list 40..41 timeout"));
        violated(check, "stays empty", &format!("{FAILED} c1 add c 40..50 failed\n state 60 empty"));
        violated(check, "stays broken", &format!("{FAILED} c1 add c 40..50 failed\n state 60 broken"));
    }

    #[test]
    fn an_acknowledged_operation_or_one_without_a_fault_is_not_judged() {
        silent(check, "c1 add a 0..10 ok\n c1 add b 20..30 failed\n c1 list 40..41 ok =");
        silent(check, "c1 add a 0..10 ok\n c1 add b 20..30 ok with write-eintr\n c1 list 40..41 ok =");
        silent(check, FAILED);
    }
}

//! An operation that an injected fault kept from happening does not exit 0.
//!
//! Judged if a call of an operation was made to fail and no other client ran: an `add` that is acknowledged
//! nevertheless is in the store, after a power loss too if one of its syncs failed; a `list` that succeeds reports
//! every acknowledged record and nothing else. Typical causes: an unchecked result, a sync that is retried until it
//! succeeds, an unreadable file that is taken for an empty one.
//!
//! Example: `write` fails with ENOSPC, `add r2` prints a warning and exits 0, and r2 is not in the store.

use crate::catalogue::headline;
use crate::evidence::Evidence;
use crate::invariants::{Invariant, Needs};
use crate::observation::{Observation, name_some};
use crate::op::{Operation, Outcome, Request};
use crate::verdict::Judgement;

pub(super) const INVARIANT: Invariant = Invariant {
    id: "honest-failure",
    statement: headline(include_str!("honest_failure.rs")),
    source: include_str!("honest_failure.rs"),
    needs: Needs::Nothing,
    evidence: &[Evidence::Faults],
    unjudged: "no fault was injected, or the records could not be read afterwards",
    check,
};

fn check(observation: &Observation) -> Judgement {
    let faulty = || observation.operations.iter().filter(|operation| operation.fault.is_some());
    if !observation.is_sequential() {
        return Judgement::NotExercised;
    }
    let mut judged = false;
    for operation in faulty() {
        let seen = match (&operation.outcome, &operation.request) {
            (Outcome::Acknowledged, Request::Add { record, .. }) => added(operation, record, observation),
            (Outcome::Acknowledged, Request::List) => Some(listed(operation, observation)),
            // The effects of the others are not known; an operation that failed was honest.
            (Outcome::Acknowledged, _) => None,
            _ => Some(None),
        };
        match seen {
            Some(Some(lie)) => return Judgement::Violated(lie),
            Some(None) => judged = true,
            None => {}
        }
    }
    if judged { Judgement::Holds } else { Judgement::NotExercised }
}

/// Describes that an acknowledged record is not in; the outer `None` means that no later operation could look.
fn added(add: &Operation, record: &str, observation: &Observation) -> Option<Option<String>> {
    let fault = add.fault.as_deref().unwrap_or_default();
    let is_after = |at| at >= add.returned;
    let unreadable = observation.unreadable().filter(|list| is_after(list.invoked));
    if let Some(list) = unreadable {
        return Some(Some(format!(
            "add {record} exited 0 though it suffered {fault}, and then list failed: {}",
            list.stderr
        )));
    }
    let view = observation.views().into_iter().find(|view| is_after(view.at))?;
    let is_in = observation.counts(view).contains_key(record);
    let lie = format!("add {record} exited 0 though it suffered {fault}, and it is not in {}", view.source);
    Some((!is_in).then_some(lie))
}

/// Describes that a `list` did not report the records that are in.
fn listed(list: &Operation, observation: &Observation) -> Option<String> {
    let fault = list.fault.as_deref().unwrap_or_default();
    let told = list.records.as_deref().unwrap_or_default();
    let missing: Vec<&str> = observation
        .acknowledged_by(list.invoked)
        .map(|(record, _)| record)
        .filter(|record| !told.iter().any(|one| one == record))
        .collect();
    (!missing.is_empty())
        .then(|| format!("list exited 0 though it suffered {fault}, and did not tell {}", name_some(missing)))
}

#[cfg(test)]
mod tests {
    use super::super::timeline::{holds, silent, violated};
    use super::check;

    #[test]
    fn a_failure_that_is_told_and_a_record_that_is_in_all_the_same_hold() {
        holds(check, "c1 add a 0..10 ok\n c1 add b 20..30 failed with write-enospc\n c1 list 40..41 ok = a");
        holds(check, "c1 add a 0..10 ok\n c1 add b 20..30 ok with write-eintr\n c1 list 40..41 ok = a b");
        holds(check, "c1 add a 0..10 ok\n c1 list 20..30 failed with read-eio");
    }

    #[test]
    fn an_acknowledged_record_that_is_not_in_violates() {
        let lied = "c1 add a 0..10 ok\n c1 add b 20..30 ok with write-enospc\n";
        violated(
            check,
            "add b exited 0 though it suffered write-enospc",
            &format!("{lied} c1 list 40..41 ok = a"),
        );
        violated(check, "then list failed", &format!("{lied} c1 list 40..41 failed"));
    }

    #[test]
    fn a_list_that_a_fault_failed_leaves_no_doubt_of_the_store() {
        use super::super::no_phantom_record::INVARIANT;
        let observation =
            super::super::timeline::observe("c1 add a 0..10 ok\n c1 list 20..30 failed with read-eio");
        assert!(observation.doubt_of_unreadable().is_none());
        assert_eq!(INVARIANT.judge(&observation), crate::verdict::Judgement::NotExercised);
    }

    #[test]
    fn a_list_that_tells_nothing_after_a_failed_read_violates() {
        violated(check, "did not tell a", "c1 add a 0..10 ok\n c1 list 20..30 ok with read-eio =");
    }

    #[test]
    fn without_a_fault_or_beside_others_nothing_is_said() {
        silent(check, "c1 add a 0..10 ok\n c1 list 20..30 ok =");
        silent(check, "c1 add a 0..10 ok with write-enospc");
        silent(check, "c1 add a 0..10 ok with flock-enolck\n c2 add b 5..20 ok\n c1 list 30..31 ok = b");
    }
}

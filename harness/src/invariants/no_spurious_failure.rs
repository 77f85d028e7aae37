//! No operation fails, unless busy or refused, only because another runs beside it.
//!
//! Judged in executions in which operations overlapped and nothing was injected: no kill, no fault, no power loss, no
//! cancelled request. The control has shown that each operation succeeds alone, so an overlapping one that fails, fails
//! because of the other. It is a violation if a `list` fails, if an operation ends by a signal, and if an `add` fails
//! although its record is in the store afterwards. An `add` that fails and changed nothing may mean "busy": if the target
//! gives any exit status a meaning, one without a meaning is a violation; else the invariant is inconclusive, and the
//! reason says which `--busy` decides it. Any other operation is judged in the same way as such an `add`, but only beside
//! adds and lists, because the effect of two such operations on each other is not known. A `list` of a store that may be
//! empty is not judged if the store cannot list nothing when it is alone. Typical causes: a reader opens a file that the
//! manifest named and a writer has removed, a fixed temporary name that two writers rename, an error where a second try
//! is needed.
//!
//! Example: `list` reads the name of the newest segment, `add r2` replaces that segment and removes it, and `list` exits 1
//! because the file is gone.

use crate::catalogue::headline;
use crate::evidence::Evidence;
use crate::invariants::{Invariant, Needs};
use crate::observation::Observation;
use crate::op::{CANCELLED, NO_ANSWER, Operation, Outcome, Request};
use crate::verdict::Judgement;

pub(super) const INVARIANT: Invariant = Invariant {
    id: "no-spurious-failure",
    statement: headline(include_str!("no_spurious_failure.rs")),
    source: include_str!("no_spurious_failure.rs"),
    needs: Needs::Nothing,
    evidence: &[Evidence::HeldPoints, Evidence::Pairs],
    unjudged: "no two operations overlapped without an injection",
    check,
};

fn check(observation: &Observation) -> Judgement {
    if has_injection(observation) {
        return Judgement::NotExercised;
    }
    let operations = &observation.operations;
    let mut is_good = operations.iter().all(|one| !matches!(one.outcome, Outcome::Failed(_)));
    let mut doubt = None;
    let mut have_overlapped = false;
    for one in operations {
        let beside: Vec<&Operation> =
            operations.iter().filter(|other| !std::ptr::eq(*other, one) && other.overlaps(one)).collect();
        have_overlapped |= !beside.is_empty();
        let (Outcome::Failed(status), false) = (&one.outcome, beside.is_empty()) else { continue };
        match failure(one, status, &beside, observation) {
            Judgement::Violated(seen) => return Judgement::Violated(seen),
            Judgement::Inconclusive(reason) => drop(doubt.get_or_insert(reason)),
            Judgement::Holds | Judgement::NotExercised => is_good = false,
        }
    }
    match doubt {
        Some(doubt) => Judgement::Inconclusive(doubt),
        None if is_good && have_overlapped => Judgement::Holds,
        None => Judgement::NotExercised,
    }
}

/// Returns whether this execution had an injection, beyond running operations concurrently.
fn has_injection(observation: &Observation) -> bool {
    let is_struck = |one: &Operation| {
        one.was_killed() || one.fault.is_some() || one.outcome == Outcome::Failed(CANCELLED.to_owned())
    };
    !observation.only_for.is_empty()
        || !observation.power_losses.is_empty()
        || observation.source_was_damaged
        || observation.operations.iter().any(is_struck)
}

/// Judges an operation that failed while these others ran.
fn failure(one: &Operation, status: &str, beside: &[&Operation], observation: &Observation) -> Judgement {
    let others: Vec<String> = beside.iter().take(3).map(|other| other.request.to_string()).collect();
    let said = if one.stderr.is_empty() { String::new() } else { format!(": {}", one.stderr) };
    let seen = format!("{} failed ({status}{said}) while {} ran", one.request, others.join(", "));
    // A session that ended without an answer is judged by what is lost.
    if status == NO_ANSWER || !is_judged(one, beside, observation) {
        return Judgement::NotExercised;
    }
    if status.starts_with("signal ") || one.request == Request::List {
        return Judgement::Violated(seen);
    }
    if one.added().is_some_and(|record| is_in(record, one, observation)) {
        return Judgement::Violated(format!(
            "{seen}, though it had changed something: its record is in the store"
        ));
    }
    // A session has its own words for busy and refused.
    let exit = status.strip_prefix("exit ").filter(|number| number.parse::<i32>().is_ok());
    match exit {
        Some(number) if !observation.subject.maps_statuses => Judgement::Inconclusive(format!(
            "{seen}, without any other cause; if exit {number} means that nothing was changed, say so: --busy {number}"
        )),
        _ => Judgement::Violated(seen),
    }
}

/// Returns whether the operation would have succeeded alone.
fn is_judged(one: &Operation, beside: &[&Operation], observation: &Observation) -> bool {
    let operations = &observation.operations;
    let times = operations.iter().filter(|other| other.request == one.request).count();
    let is_plain = |request: &Request| matches!(request, Request::Add { .. } | Request::List);
    match &one.request {
        Request::List => {
            let subject = &observation.subject;
            let had_records = subject.starts_with_data
                || !subject.initial_records.is_empty()
                || observation.acknowledged_by(one.invoked).next().is_some();
            // Another operation may have removed the records.
            let only_grows = operations.iter().all(|other| {
                other.added().is_some() || matches!(other.request, Request::List | Request::Init)
            });
            subject.lists_when_empty || had_records && only_grows
        }
        // A second add of the same record may fail in any order; so may one beyond a limit.
        Request::Add { record, .. } => {
            let same = operations.iter().filter(|other| other.added() == Some(record)).count();
            same == 1 && !observation.may_be_full(one)
        }
        // `guard-holds` judges these.
        Request::AddGuarded { .. } | Request::Init => false,
        Request::Recover | Request::Rebuild | Request::Other(_) => {
            times == 1 && beside.iter().all(|other| is_plain(&other.request))
        }
    }
}

/// Returns whether the record of a failed `add` was seen in the store afterwards.
fn is_in(record: &str, add: &Operation, observation: &Observation) -> bool {
    let mut later = observation.views().into_iter().filter(|view| view.at >= add.returned);
    later.any(|view| view.records.iter().any(|one| one == record))
}

#[cfg(test)]
mod tests {
    use super::super::timeline::{doubtful, holds, observe, silent, violated};
    use super::*;

    const BESIDE: &str = "c1 add a 0..1 ok\n c1 add b 10..20 ok\n c2 ";

    fn with_meaning(timeline: &str) -> Judgement {
        let mut observation = observe(timeline);
        observation.subject.maps_statuses = true;
        check(&observation)
    }

    #[test]
    fn what_ends_acknowledged_refused_or_busy_holds() {
        holds(check, &format!("{BESIDE} list 12..15 ok = a"));
        holds(check, &format!("{BESIDE} add c 12..15 busy\n c3 add d 13..16 refused"));
        silent(check, "c1 add a 0..10 ok\n c2 add b 10..20 ok");
        silent(check, "c1 add a 0..10 ok\n c2 add b 10..20 failed");
    }

    /// The reader of a store opened a segment that a writer had removed: nothing was lost, but `list` exited 1.
    #[test]
    fn a_list_that_fails_beside_an_add_violates() {
        violated(check, "list failed (exit 1) while add b ran", &format!("{BESIDE} list 12..15 failed"));
        silent(check, &format!("{BESIDE} list 22..25 failed"));
    }

    /// In many correct stores `list` exits 1 if the store has no file yet, even when it runs alone.
    #[test]
    fn a_list_of_nothing_may_fail() {
        let first = "c1 add a 0..10 ok\n c2 list 2..5 failed";
        silent(check, first);
        silent(
            check,
            &format!(
                "c1 add z 0..1 ok\n c1 clear 1..2 ok\n {}",
                first.replace("0..", "3..").replace("2..", "4..")
            ),
        );
        let mut observation = observe(first);
        observation.subject.lists_when_empty = true;
        assert!(matches!(check(&observation), Judgement::Violated(_)));
    }

    #[test]
    fn an_add_that_fails_and_is_in_violates() {
        let seen = "though it had changed something";
        violated(check, seen, &format!("{BESIDE} add c 12..15 failed\n c1 list 30..31 ok = a b c"));
    }

    #[test]
    fn an_add_that_changed_nothing_asks_for_a_meaning() {
        let failed = format!("{BESIDE} add c 12..15 failed\n c1 list 30..31 ok = a b");
        doubtful(check, &failed);
        let Judgement::Inconclusive(reason) = check(&observe(&failed)) else { panic!("{failed}") };
        assert!(reason.ends_with("if exit 1 means that nothing was changed, say so: --busy 1"), "{reason}");
        assert!(matches!(with_meaning(&failed), Judgement::Violated(_)));
    }

    #[test]
    fn an_end_by_a_signal_always_violates() {
        let mut observation = observe(&format!("{BESIDE} add c 12..15 failed"));
        observation.operations[2].outcome = Outcome::Failed("signal SIGSEGV".into());
        assert!(matches!(check(&observation), Judgement::Violated(_)));
    }

    #[test]
    fn nothing_is_said_beside_an_injection() {
        let failed = format!("{BESIDE} list 12..15 failed\n");
        for injection in [
            "c3 add k 40..50 killed",
            "c3 add k 40..50 timeout",
            "c3 add k 40..50 failed with write-eio",
            "power 60",
        ] {
            silent(check, &format!("{failed} {injection}"));
        }
        let mut observation = observe(&failed);
        observation.only_for.insert("honest-failure".to_owned());
        assert_eq!(INVARIANT.judge(&observation), Judgement::NotExercised);
        let mut observation = observe(&format!("{failed} c3 add k 40..50 failed"));
        observation.operations[3].outcome = Outcome::Failed(CANCELLED.into());
        assert_eq!(check(&observation), Judgement::NotExercised);
    }

    #[test]
    fn an_add_that_fails_alone_too_is_silent() {
        silent(check, &format!("limit 1\n{BESIDE} add c 12..15 failed"));
        silent(check, &format!("{BESIDE} add b 12..15 failed"));
    }

    #[test]
    fn another_operation_is_judged_once_and_beside_adds() {
        let rotated = "c1 add a 0..1 ok\n c1 add b 10..20 ok\n c2 rebuild 12..15 failed\n";
        doubtful(check, rotated);
        assert!(matches!(with_meaning(rotated), Judgement::Violated(_)));
        assert_eq!(with_meaning(&format!("{rotated} c3 rebuild 30..35 ok")), Judgement::NotExercised);
        assert_eq!(with_meaning(&format!("{rotated} c3 recover 14..16 ok")), Judgement::NotExercised);
    }
}

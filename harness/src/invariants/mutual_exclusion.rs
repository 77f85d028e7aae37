//! At no time are two operations inside their critical sections of one data file.
//!
//! Judged from the calls of clients that ran under the tracer together, whatever locks they took. The critical
//! section of an operation goes from its last read of the data file before its first change of it to its last change, and
//! who gives up the lock in between and reads the data anew is in another one by then; two are inside at once when an
//! effective change by one falls within the other's. A reader alone, and an append that
//! reads nothing first, have no section that a change could fall into. What a client that was killed had changed before
//! the other's next change is no intrusion either: that change may be its repair, so that such an execution is not
//! judged. Typical causes: no lock, a read before the lock, a lock on a file that is replaced, a POSIX lock that a close
//! gives up.
//!
//! Example: client 1 reads the data, client 2 reads and replaces them, client 1 replaces them by what it made of the
//! old ones: both were inside.

use crate::accesses::{Access, accesses, critical_sections};
use crate::catalogue::headline;
use crate::invariants::{Invariant, Needs};
use crate::observation::{Observation, Trace};
use crate::op::Outcome;
use crate::verdict::Judgement;

pub(super) const INVARIANT: Invariant = Invariant {
    id: "mutual-exclusion",
    statement: headline(include_str!("mutual_exclusion.rs")),
    source: include_str!("mutual_exclusion.rs"),
    needs: Needs::Nothing,
    unjudged: "no two clients that were traced together both changed the data file",
    check,
};

fn check(observation: &Observation) -> Judgement {
    let mut judged = false;
    for trace in observation.traces.iter().filter(|trace| trace.requests.len() > 1) {
        let all = accesses(&trace.calls, &observation.subject.data);
        let places = (1..).take(trace.requests.len());
        let sections: Vec<_> =
            places.map(|place| (place, critical_sections(&trace.calls, &all, place))).collect();
        let mut is_clear = sections.iter().filter(|(_, sections)| !sections.is_empty()).count() > 1;
        let each =
            sections.iter().flat_map(|(one, sections)| sections.iter().map(move |section| (one, section)));
        for (one, (from, to)) in each {
            let is_intruder = |access: &&Access| {
                access.client != *one && access.is_change && (*from..*to).contains(&access.at)
            };
            let (mended, intruders): (Vec<&Access>, Vec<&Access>) = all
                .iter()
                .filter(is_intruder)
                .partition(|access| is_mended(observation, trace, &all, access, *one));
            is_clear &= mended.is_empty();
            if let Some(intruder) = intruders.first() {
                // LMDB maps the file when it opens it, and reads it under its lock.
                if trace.calls[*from].name == "mmap" {
                    let doubt = "the store maps the data file: when it reads it is not seen";
                    return Judgement::Inconclusive(doubt.to_owned());
                }
                return Judgement::Violated(tell(trace, *one, (*from, *to), intruder));
            }
        }
        // What may be a repair tells neither way.
        judged |= is_clear;
    }
    if judged { Judgement::Holds } else { Judgement::Silent }
}

/// Whether who made the change was killed, and did nothing any more, before `one` changed the data file again. Who ended of
/// its own, and left a process that picklock ended, was not.
fn is_mended(observation: &Observation, trace: &Trace, all: &[Access], change: &Access, one: u32) -> bool {
    let last_step = trace.calls.iter().rposition(|call| call.client == change.client);
    let next_change = all.iter().find(|next| next.client == one && next.is_change && next.at > change.at);
    let was_killed = trace
        .operation(change.client, &observation.operations)
        .is_some_and(|operation| operation.outcome == Outcome::Killed && operation.still.is_some());
    was_killed && next_change.is_some_and(|next| last_step < Some(next.at))
}

fn tell(trace: &Trace, one: u32, (from, to): (usize, usize), intruder: &Access) -> String {
    let calls = &trace.calls;
    format!(
        "client {} changed the data file by {} while client {} was between its {} and its {}",
        trace.client(intruder.client),
        calls[intruder.at],
        trace.client(one),
        calls[from],
        calls[to]
    )
}

#[cfg(test)]
mod tests {
    use super::super::timeline::observe;
    use super::*;
    use crate::call::sketch;
    use crate::op::Request;

    fn judge(text: &str) -> Judgement {
        let mut observation = observe("");
        observation.subject.data = "db".into();
        let requests = vec![Request::Other("one".into()), Request::Other("two".into())];
        observation.traces = vec![Trace {
            requests,
            calls: sketch(text),
            leaks: Vec::new(),
            is_whole: true,
            ..Trace::default()
        }];
        check(&observation)
    }

    #[test]
    fn a_change_between_another_s_read_and_its_change_violates() {
        let seen = judge("1 open db 1\n 1 read 1\n 2 read 1\n 2 write 1\n 1 write 1");
        let Judgement::Violated(text) = seen else { panic!("{seen:?}") };
        assert!(text.contains("client 2 changed the data file by write(1)"), "{text}");
    }

    /// SQLite mends what a kill left and begins its own transaction then: one that came between the two was taken for an
    /// intruder.
    #[test]
    fn one_that_comes_between_a_repair_and_what_follows_it_is_no_intruder() {
        let text = "1 open db 1\n 1 lock ex 1\n 1 read 1\n 1 write 1\n 1 unlock 1\n 2 read 1\n 2 write 1\n\
                    1 lock ex 1\n 1 read 1\n 1 write 1";
        assert_eq!(judge(text), Judgement::Holds);
        let before =
            text.replace("1 unlock 1\n 2 read 1\n 2 write 1\n", "2 read 1\n 2 write 1\n 1 unlock 1\n");
        assert_eq!(judge(&before), Judgement::Holds, "the repair was over, and nothing follows from it");
        let within = text.replace(
            "1 write 1\n 1 unlock 1\n 2 read 1\n 2 write 1\n",
            "2 read 1\n 2 write 1\n 1 write 1\n 1 unlock 1\n",
        );
        assert!(matches!(judge(&within), Judgement::Violated(_)));
    }

    /// SQLite had read, and given up its shared lock; another was killed in its writes; SQLite played the journal back,
    /// which is no read of the data: the other's write lay between the read and the repair.
    #[test]
    fn what_the_killed_had_changed_before_the_other_s_repair_is_no_intrusion() {
        let told = |ended: &str, text: &str| {
            let mut observation = observe(&format!("c2 add two 0..5 {ended}\n c1 add one 0..9 ok"));
            observation.subject.data = "db".into();
            let request = |record: &str| Request::Add { record: record.into(), number: 0 };
            observation.traces = vec![Trace {
                requests: vec![request("one"), request("two")],
                calls: sketch(text),
                ..Trace::default()
            }];
            check(&observation)
        };
        let repaired = "1 open db 1\n 1 read 1\n 2 write 1\n 1 write 1";
        assert_eq!(told("killed still 4", repaired), Judgement::Silent);
        assert!(matches!(told("ok", repaired), Judgement::Violated(_)));
        // What came to its end and left a process behind, which picklock ended, is not known to be acknowledged: no more.
        assert!(matches!(told("killed", repaired), Judgement::Violated(_)));
        // It was there still when the other changed the data.
        assert!(matches!(told("killed still 4", &format!("{repaired}\n 2 sync 1")), Judgement::Violated(_)));
        // It was inside itself before it was killed.
        let within = "1 open db 1\n 2 read 1\n 1 write 1\n 2 write 1";
        assert!(matches!(told("killed still 4", within), Judgement::Violated(_)));
    }

    #[test]
    fn what_is_mapped_before_the_lock_may_be_read_under_it() {
        let mut observation = observe("");
        observation.subject.data = "db".into();
        let requests = vec![Request::Other("one".into()), Request::Other("two".into())];
        let mut calls = sketch("1 open db 1\n 1 read 1\n 2 read 1\n 2 write 1\n 1 write 1");
        calls[1].name = "mmap".into();
        observation.traces = vec![Trace { requests, calls, is_whole: true, ..Trace::default() }];
        assert!(matches!(check(&observation), Judgement::Inconclusive(_)));
    }

    #[test]
    fn one_after_the_other_holds_and_who_changes_nothing_says_nothing() {
        let whole = "1 open db 1\n 1 read 1\n 1 write 1\n 2 read 1\n 2 write 1";
        assert_eq!(judge(whole), Judgement::Holds);
        assert_eq!(judge("1 open db 1\n 1 read 1\n 2 read 1\n 2 write 1"), Judgement::Silent);
    }

    #[test]
    fn single_appends_are_never_inside_and_appends_in_two_steps_are() {
        assert_eq!(judge("1 open db 1\n 2 write 1\n 1 write 1"), Judgement::Holds);
        assert!(matches!(judge("1 open db 1\n 1 write 1\n 2 write 1\n 1 write 1"), Judgement::Violated(_)));
    }

    /// Open or create, lock, read, write: two that came to an empty folder were accused.
    #[test]
    fn who_makes_the_empty_file_in_order_to_lock_it_is_not_inside_yet() {
        assert_eq!(
            judge("1 create db 1\n 2 open db 1\n 2 read 1\n 2 write 1\n 1 read 1\n 1 write 1"),
            Judgement::Holds
        );
    }

    #[test]
    fn a_write_to_a_file_that_was_replaced_takes_no_effect() {
        let text =
            "1 open db 1\n 1 create tmp 2\n 1 read 1\n 1 rename tmp db\n 2 write 1\n 2 open db 2\n 2 write 2";
        assert_eq!(judge(text), Judgement::Holds);
    }
}

//! No operation changes bytes that another changed since it read them (the lost-update pattern over byte ranges and names).
//!
//! Judged from the calls of operations that ran under the tracer together, whatever locks they took. Two operations
//! conflict if one reads a range of bytes, or a name, another changes it, and the first changes it then without having
//! read it again. A read to the end of a file, and a look at its size, reads the range beyond the end too; a listing reads
//! all names of the folder; a look-up that fails reads the name. A replacement by rename changes the whole file. An append
//! with `O_APPEND` changes only what it adds, but an operation that appends in several writes must find nothing changed
//! between them. `O_EXCL`, `mkdir` and `link` read and change in one step. What an operation reads through a descriptor
//! after its file was replaced is the old content.
//!
//! The data file alone is judged, if any operation changes it; else all files that are changed, but for lock files and an
//! operation's own temporary files. What a killed client had changed before the other's next change is no conflict: that
//! change may be its repair, so such an execution is not judged. Reads through a map are not seen, so a conflict beside
//! one leaves a doubt. Typical causes: no lock, a read before the lock, a lock on a file that is replaced, a POSIX lock
//! that a close gives up.
//!
//! Example: client 1 reads the data, client 2 reads and replaces them, and client 1 replaces them by what it made of the
//! old ones.

use crate::catalogue::headline;
use crate::conflicts::{self, Conflict};
use crate::evidence::Evidence;
use crate::invariants::{Invariant, Needs};
use crate::observation::{Observation, Trace};
use crate::op::Outcome;
use crate::verdict::Judgement;

pub(super) const INVARIANT: Invariant = Invariant {
    id: "mutual-exclusion",
    statement: headline(include_str!("mutual_exclusion.rs")),
    source: include_str!("mutual_exclusion.rs"),
    needs: Needs::Nothing,
    evidence: &[Evidence::Pairs],
    unjudged: "no two operations that were traced together touched the same bytes or name, one of them by a change",
    check,
};

fn check(observation: &Observation) -> Judgement {
    let mut judged = false;
    for trace in observation.traces.iter().filter(|trace| trace.requests.len() > 1) {
        let is_repair = |change: usize, next: usize| is_mended(observation, trace, change, next);
        let found = conflicts::find(&trace.calls, &observation.subject.data, is_repair);
        if let Some(conflict) = found.conflict {
            // LMDB maps the file when it opens it, and reads it under its lock.
            if conflict.is_mapped {
                let doubt = "the store maps the data file: when it reads it is not seen";
                return Judgement::Inconclusive(doubt.to_owned());
            }
            return Judgement::Violated(tell(trace, &conflict));
        }
        // A possible repair is no evidence.
        judged |= found.is_common && !found.is_excused;
    }
    if judged { Judgement::Holds } else { Judgement::NotExercised }
}

/// Returns whether the client that made the change was killed, and made no further call before the other client's next
/// change. A client that ended by itself and left a process that picklock ended was not killed.
fn is_mended(observation: &Observation, trace: &Trace, change: usize, next: usize) -> bool {
    let client = trace.calls[change].client;
    let last_step = trace.calls.iter().rposition(|call| call.client == client);
    let was_killed = trace
        .operation(client, &observation.operations)
        .is_some_and(|operation| operation.outcome == Outcome::Killed && operation.still.is_some());
    was_killed && last_step < Some(next)
}

fn tell(trace: &Trace, conflict: &Conflict) -> String {
    let [read, change, next] =
        [conflict.read, conflict.change, conflict.next].map(|place| &trace.calls[place]);
    format!(
        "client {} changed {} by {change} between {read} and {next} of client {}, which did not read that again",
        trace.client(change.client),
        conflict.place,
        trace.client(next.client),
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
        let expected =
            "client 2 changed bytes 0..9 of db by write(1) between read(1) and write(1) of client 1";
        assert!(text.contains(expected), "{text}");
    }

    /// SQLite repairs what a kill left and then begins its own transaction: a client that ran between the two was
    /// reported as a violation.
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

    /// SQLite had read and released its shared lock; another client was killed during its writes; SQLite rolled the
    /// journal back, which does not read the data. So the other client's write lay between the read and the repair.
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
        assert_eq!(told("killed still 4", repaired), Judgement::NotExercised);
        assert!(matches!(told("ok", repaired), Judgement::Violated(_)));
        // If a client ended and left a process behind, which picklock ended, only its acknowledgement is unknown.
        assert!(matches!(told("killed", repaired), Judgement::Violated(_)));
        // It still ran when the other client changed the data.
        assert!(matches!(told("killed still 4", &format!("{repaired}\n 2 sync 1")), Judgement::Violated(_)));
        // It was inside its own critical section before it was killed.
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
    fn one_after_the_other_holds_and_readers_say_nothing() {
        let whole = "1 open db 1\n 1 read 1\n 1 write 1\n 2 read 1\n 2 write 1";
        assert_eq!(judge(whole), Judgement::Holds);
        assert_eq!(judge("1 open db 1\n 1 read 1\n 2 read 1\n 2 write 1"), Judgement::Holds);
        assert_eq!(judge("1 open db 1\n 1 read 1\n 2 read 1"), Judgement::NotExercised);
        let apart = "1 open db 1\n 1 read 1 0..8\n 2 read 1 8..16\n 2 write 1 8..16\n 1 write 1 0..8";
        assert_eq!(judge(apart), Judgement::NotExercised);
    }

    #[test]
    fn single_appends_are_never_inside_and_appends_in_two_steps_are() {
        assert_eq!(judge("1 open db 1\n 2 write 1\n 1 write 1"), Judgement::Holds);
        assert!(matches!(judge("1 open db 1\n 1 write 1\n 2 write 1\n 1 write 1"), Judgement::Violated(_)));
    }

    /// Open or create, lock, read, write: two clients that started in an empty directory were reported as a violation.
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

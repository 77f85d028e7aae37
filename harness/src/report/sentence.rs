//! Explains a violation in one sentence: whose read preceded whose change and was written back after it.

use crate::accesses::{Access, accesses};
use crate::call::{Call, Effect, LockChange};
use crate::locks::{Lock, Mode, Owner};
use crate::observation::{Observation, Trace};
use crate::op::Request;

/// Returns the sentence, if the calls of clients that ran together allow one.
pub fn sentence(observation: &Observation) -> Option<String> {
    let data = &observation.subject.data;
    observation.traces.iter().filter(|trace| trace.requests.len() > 1).find_map(|trace| {
        let all = accesses(&trace.calls, data);
        let lost = lost_record(observation);
        slots(trace).find_map(|late| {
            let (read, kind) = looked(&trace.calls, &all, late, data)?;
            let change = all.iter().rfind(|access| access.client == late && access.is_change)?.at;
            // Of the clients whose change came in between, take the one whose record is lost.
            let between = || {
                all.iter().filter(|access| {
                    access.client != late && access.is_change && (read..change).contains(&access.at)
                })
            };
            let is_lost = |access: &&Access| lost.is_none() || record_of(trace, access.client) == lost;
            let early = between().find(is_lost)?;
            let (c1, c2) = (trace.client(early.client), trace.client(late));
            let what = record_of(trace, early.client).map_or("its change", |record| record);
            let held = locked(&trace.calls[..read], late);
            let before = match first_lock(&trace.calls, late) {
                Some((at, file)) if at > read => format!(" before it held {file}"),
                None if makes_a_lock_file(&trace.calls[..read], late) => String::new(),
                None => " without a lock".to_owned(),
                Some((_, file)) if held.is_none() => format!(" when it had given {file} up"),
                Some((_, file)) => match same_lock(&trace.calls, early, late) {
                    Some(false) => format!(" under {file}, of which client {c1} held another file"),
                    _ => String::new(),
                },
            };
            Some(format!(
                "client {c2} {kind} {data} (call {}){before}, then client {c1} put {what} into it (call {}), and client \
                 {c2} wrote over that what it had read before (call {})",
                trace.calls[read].number, trace.calls[early.at].number, trace.calls[change].number
            ))
        })
    })
}

fn slots(trace: &Trace) -> impl Iterator<Item = u32> {
    (1..).take(trace.requests.len())
}

/// Returns the acknowledged record that is missing in the end.
fn lost_record(observation: &Observation) -> Option<&str> {
    let last = observation.views().pop()?;
    observation.missing_from(last).first().copied()
}

fn record_of(trace: &Trace, slot: u32) -> Option<&str> {
    match trace.requests.get(slot as usize - 1)? {
        Request::Add { record, .. } | Request::AddGuarded { record, .. } => Some(record),
        _ => None,
    }
}

/// Returns when a client last looked at the data file before changing it: at a read, or at an open, because the open
/// determines which file it reads.
fn looked(calls: &[Call], all: &[Access], client: u32, data: &str) -> Option<(usize, &'static str)> {
    let change = all.iter().find(|access| access.client == client && access.is_change)?.at;
    let opened = calls[..change].iter().rposition(|call| {
        call.client == client && matches!(&call.effect, Some(Effect::Opened { path, .. }) if path == data)
    });
    let read = all.iter().rfind(|access| access.client == client && !access.is_change && access.at < change);
    match (read, opened) {
        (Some(read), Some(opened)) if opened < read.at => {
            // A file that was replaced between the two is read as it was when it was opened.
            let was_replaced = all.iter().any(|access| {
                access.client != client && access.is_change && (opened..read.at).contains(&access.at)
            });
            Some(if was_replaced { (opened, "opened") } else { (read.at, "read") })
        }
        (Some(read), _) => Some((read.at, "read")),
        (None, Some(opened)) => Some((opened, "opened")),
        (None, None) => None,
    }
}

/// Whether a client created a name that only one client can create, which may be its lock.
fn makes_a_lock_file(calls: &[Call], client: u32) -> bool {
    calls.iter().filter(|call| call.client == client).any(|call| {
        let is_exclusive = call.operands().any(|operand| operand.contains("O_EXCL"));
        match &call.effect {
            Some(Effect::SymbolicLinked { .. } | Effect::FolderMade { .. } | Effect::Linked { .. }) => true,
            Some(Effect::Created { .. }) => is_exclusive,
            _ => false,
        }
    })
}

/// Returns the first exclusive lock that a client took: its call and its file.
fn first_lock(calls: &[Call], client: u32) -> Option<(usize, String)> {
    calls.iter().enumerate().filter(|(_, call)| call.client == client).find_map(|(at, call)| {
        call.locks.iter().find_map(|change| match change {
            LockChange::Taken(lock, file) if lock.mode == Mode::Exclusive => Some((at, file.clone())),
            _ => None,
        })
    })
}

/// Returns an exclusive lock that a client still holds after these calls.
fn locked(calls: &[Call], client: u32) -> Option<Lock> {
    let mut held: Vec<Lock> = Vec::new();
    for change in calls.iter().filter(|call| call.client == client).flat_map(|call| &call.locks) {
        match change {
            LockChange::Taken(lock, _) => held.push(*lock),
            LockChange::Released(lock, _) => {
                held.retain(|other| other.owner != lock.owner || other.file != lock.file);
            }
            LockChange::Refused(..) => {}
        }
    }
    held.into_iter().find(|lock| lock.mode == Mode::Exclusive)
}

/// Whether both held a lock on one file when the early client made its change; `None` if either held none.
fn same_lock(calls: &[Call], early: &Access, late: u32) -> Option<bool> {
    let (one, other) = (locked(&calls[..early.at], early.client)?, locked(&calls[..early.at], late)?);
    let is_of = |owner: Owner| matches!(owner, Owner::Description(_) | Owner::Process(_));
    (is_of(one.owner) && is_of(other.owner)).then_some(one.file == other.file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::sketch;
    use crate::invariants::timeline_for_tests as observe;

    fn told(text: &str) -> Option<String> {
        let mut observation = observe("c1 add a 0..9 ok\n c2 add b 1..10 ok\n c1 list 20..21 ok = b");
        observation.subject.data = "db".into();
        let requests = observation.operations[..2].iter().map(|one| one.request.clone()).collect();
        observation.traces = vec![Trace { requests, calls: sketch(text), ..Trace::default() }];
        sentence(&observation)
    }

    #[test]
    fn it_says_whose_read_was_too_early_and_what_was_written_over() {
        let text = told("2 open db 1\n 2 read 1\n 1 open db 1\n 1 read 1\n 1 write 1\n 2 write 1").unwrap();
        assert_eq!(
            text,
            "client 2 read db (call 2) without a lock, then client 1 put a into it (call 5), and client 2 wrote over that \
             what it had read before (call 6)"
        );
    }

    #[test]
    fn a_read_before_the_lock_is_named_as_one() {
        let text = told(
            "2 open db 1\n 2 read 1\n 1 lock ex 9\n 1 open db 1\n 1 read 1\n 1 write 1\n 1 unlock 9\n 2 lock ex 9\n 2 write 1",
        )
        .unwrap();
        assert!(text.contains("(call 2) before it held file9"), "{text}");
    }

    #[test]
    fn what_came_one_after_another_has_no_sentence() {
        assert_eq!(told("1 open db 1\n 1 read 1\n 1 write 1\n 2 open db 1\n 2 read 1\n 2 write 1"), None);
    }
}

//! Writes an execution in Chrome's trace format for Perfetto: a process for each client, a thread for each of its
//! threads, and a bar for each lock that is held.
//!
//! Calls have an order but no meaningful duration, because each was stopped: a step is shown as one millisecond. The
//! format is that of <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::call::{Call, LockChange};
use crate::observation::Observation;
use crate::report::narrative::holds;
use crate::report::parts::{Part, parts};

/// Duration of one step, in microseconds.
const STEP: usize = 1000;
/// Process id for the operations that were not traced.
const UNTRACED: u32 = 0;

/// Returns the execution as JSON, with a line feed at its end.
pub fn chrome_trace(observation: &Observation) -> String {
    let mut events = vec![named("process_name", UNTRACED, 0, "operations that were not traced")];
    let mut clients = BTreeSet::new();
    let mut step = 0;
    for part in parts(observation) {
        match part {
            Part::Operation(operation) => {
                step += 1;
                events.push(json!({
                    "ph": "X", "cat": "operation", "name": operation.request.to_string(),
                    "pid": UNTRACED, "tid": 0, "ts": step * STEP, "dur": STEP,
                    "args": { "outcome": operation.outcome, "records": operation.records, "stderr": operation.stderr },
                }));
            }
            Part::Trace(trace, _) => {
                for (place, request) in (1..).zip(&trace.requests) {
                    let client = trace.client(place);
                    if clients.insert(client) {
                        events.push(named("process_name", client, 0, &format!("client {client}: {request}")));
                    }
                }
                let before = step;
                for call in &trace.calls {
                    step += 1;
                    events.push(called(call, trace.client(call.client), step));
                }
                for (number, hold) in holds(&trace.calls, before).iter().enumerate() {
                    let place = u32::try_from(hold.lane + 1).unwrap_or(u32::MAX);
                    let name = format!("{:?} lock on {}", hold.mode, hold.file).to_lowercase();
                    // A lock that is never released is held to the end.
                    let ends = hold.to.unwrap_or(step);
                    for (phase, at) in [("b", hold.from * STEP), ("e", ends * STEP + STEP)] {
                        events.push(json!({
                            "ph": phase, "cat": "lock", "id": format!("{before}.{number}"), "name": name,
                            "pid": trace.client(place), "tid": 0, "ts": at,
                        }));
                    }
                }
                if let Some(told) = &observation.injection {
                    events.push(json!({
                        "ph": "i", "s": "g", "cat": "injection", "name": told,
                        "pid": UNTRACED, "tid": 0, "ts": (before + 1) * STEP,
                    }));
                }
            }
        }
    }
    let trace = json!({
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": { "about": "the order of calls, in which a step takes a millisecond; no durations" },
    });
    format!("{trace}\n")
}

fn named(what: &str, process: u32, thread: u32, name: &str) -> Value {
    json!({ "ph": "M", "name": what, "pid": process, "tid": thread, "args": { "name": name } })
}

fn called(call: &Call, client: u32, step: usize) -> Value {
    let locks: Vec<String> = call.locks.iter().map(told).collect();
    json!({
        "ph": "X", "cat": "call", "name": call.name, "pid": client, "tid": call.thread,
        "ts": step * STEP, "dur": STEP - STEP / 10,
        "args": {
            "call": call.to_string(), "process": call.process, "result": call.result, "locks": locks,
            "data file": call.content,
        },
    })
}

fn told(change: &LockChange) -> String {
    match change {
        LockChange::Taken(_, file) => format!("takes the lock on {file}"),
        LockChange::Released(_, file) => format!("gives up the lock on {file}"),
        LockChange::Refused(_, file) => format!("is refused the lock on {file}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::sketch;
    use crate::invariants::timeline_for_tests as observe;
    use crate::observation::Trace;

    #[test]
    fn every_call_has_a_place_of_its_own_and_every_lock_a_beginning_and_an_end() {
        let mut observation = observe("c1 add a 0..9 killed\n c2 add b 1..8 ok\n c1 list 10..11 ok = a");
        let requests = observation.operations[..2].iter().map(|one| one.request.clone()).collect();
        let calls = sketch("1 open db 1\n 1 lock ex 1\n 2 open db 1\n 1 write 1\n 1 unlock 1\n 2 lock sh 1");
        observation.traces = vec![Trace { requests, calls, ..Trace::default() }];
        let trace: Value = serde_json::from_str(&chrome_trace(&observation)).unwrap();
        let events = trace["traceEvents"].as_array().unwrap();
        let of = |phase: &str| events.iter().filter(|event| event["ph"] == phase).collect::<Vec<_>>();
        let calls: Vec<_> = of("X").into_iter().filter(|event| event["cat"] == "call").collect();
        let at: BTreeSet<u64> = calls.iter().map(|event| event["ts"].as_u64().unwrap()).collect();
        assert_eq!((calls.len(), at.len()), (6, 6));
        let (begins, ends) = (of("b"), of("e"));
        assert_eq!((begins.len(), ends.len()), (2, 2));
        for (begin, end) in begins.iter().zip(&ends) {
            assert_eq!(begin["id"], end["id"]);
            assert!(begin["ts"].as_u64() < end["ts"].as_u64());
        }
        assert!(of("M").iter().any(|event| event["args"]["name"] == "client 2: add b"));
    }
}

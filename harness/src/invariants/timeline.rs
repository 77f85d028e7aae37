//! Observations written as timelines, for the tests of the invariants.
//!
//! One line a thing, in the order of time; a time is any number, a span is `FROM..TO`:
//! ```text
//! c1 add a 0..10 ok            ok · refused · busy · failed · killed · timeout
//! c1 list 20..21 ok = a b      the records that it told
//! c1 add b 20..30 failed with write-enospc     a fault that it suffered; the same of a list
//! c1 recover 30..31 ok         the same for rebuild, and for clear, which is an operation of [ops.other]
//! state 40 whole = a b         whole · missing · empty · broken; the records in the data file
//! state 50 whole with x y      the files in the sandbox
//! torn 7 empty                 what a reader without a lock saw
//! quiet 2 2                    how many files stood there after each of the control's adds
//! shapes f#=2 {id}.txt=1       how many files of each shape stood there after one of them
//! ids-in-paths                 the target gives add a path that holds the record's name
//! limit 3                      how many records the store takes
//! power 31                     the power is lost
//! initial z                    records that were there from the start
//! ```

use std::collections::{BTreeMap, BTreeSet};

use crate::call::{Errno, sketch};
use crate::observation::{FileState, Memory, Observation, Readings, State, Subject, Trace};
use crate::op::{Limit, Operation, Outcome, Request};
use crate::verdict::Judgement;

/// Parses the observation that a timeline describes.
pub(crate) fn observe(timeline: &str) -> Observation {
    let mut observation = Observation {
        scenario: "stress".into(),
        execution: 1,
        subject: Subject { transparent: true, timeout: 1000, ..Subject::default() },
        operations: Vec::new(),
        readings: Readings::default(),
        states: Vec::new(),
        standstill: None,
        injection: None,
        traces: Vec::new(),
        usual_names: BTreeSet::new(),
        memories: Vec::new(),
        only_for: BTreeSet::new(),
        power_losses: Vec::new(),
        source_was_damaged: false,
    };
    for line in timeline.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (head, names) = match line.split_once(" = ") {
            Some((head, names)) => {
                (head, Some(names.split_whitespace().map(String::from).collect::<Vec<_>>()))
            }
            None => (line, line.ends_with(" =").then(Vec::new)),
        };
        let words: Vec<&str> = head.trim_end_matches(" =").split_whitespace().collect();
        match words.as_slice() {
            [client, "add", record, span, outcome] => {
                let request = Request::Add { record: (*record).into(), number: 0 };
                observation.operations.push(operation(client, request, span, outcome, None));
            }
            [client, "add", record, span, outcome, "with", fault] => {
                let request = Request::Add { record: (*record).into(), number: 0 };
                let operation = operation(client, request, span, outcome, None);
                observation.operations.push(Operation { fault: Some((*fault).into()), ..operation });
            }
            [client, "add", record, span, outcome, "still", since] => {
                let request = Request::Add { record: (*record).into(), number: 0 };
                let operation = operation(client, request, span, outcome, None);
                observation.operations.push(Operation { still: Some(since.parse().unwrap()), ..operation });
            }
            [client, "list", span, outcome, "with", fault] => {
                let operation = operation(client, Request::List, span, outcome, names);
                observation.operations.push(Operation { fault: Some((*fault).into()), ..operation });
            }
            [client, "list", span, outcome] => {
                observation.operations.push(operation(client, Request::List, span, outcome, names));
            }
            [client, "recover", span, outcome] => {
                observation.operations.push(operation(client, Request::Recover, span, outcome, None));
            }
            [client, "rebuild", span, outcome] => {
                observation.operations.push(operation(client, Request::Rebuild, span, outcome, None));
            }
            [client, "clear", span, outcome] => {
                let request = Request::Other("clear".into());
                observation.operations.push(operation(client, request, span, outcome, None));
            }
            ["power", at] => observation.power_losses.push(at.parse().unwrap()),
            ["emptied"] => observation.source_was_damaged = true,
            ["digests", digests @ ..] => {
                let state = observation.states.last_mut().unwrap();
                for (name, digest) in digests.iter().filter_map(|digest| digest.split_once('=')) {
                    match name {
                        "source" => state.source = Some(digest.into()),
                        name => drop(state.derived.insert(name.into(), digest.into())),
                    }
                }
            }
            ["state", at, data, rest @ ..] => observation.states.push(State {
                at: at.parse().unwrap(),
                data: file_state(data),
                records: names,
                also: BTreeMap::new(),
                files: rest.iter().skip(1).map(|file| (*file).into()).collect(),
                source: None,
                derived: BTreeMap::new(),
            }),
            ["torn", at, what] => {
                observation.readings.taken += 1;
                observation.readings.torn += 1;
                observation.readings.examples.push((at.parse().unwrap(), (*what).into()));
            }
            ["limit", limit] => observation.subject.limit = Some(limit.parse().unwrap()),
            ["read", times] => observation.readings.taken += times.parse::<u64>().unwrap(),
            ["quiet", counts @ ..] => {
                observation.subject.baseline_file_counts =
                    counts.iter().map(|count| count.parse().unwrap()).collect();
            }
            ["shapes", counts @ ..] => {
                let count = |count: &&str| count.split_once('=').map(|(s, n)| (s.into(), n.parse().unwrap()));
                observation.subject.baseline_shapes.push(counts.iter().filter_map(count).collect());
            }
            ["ids-in-paths"] => observation.subject.paths_hold_ids = true,
            ["others", shapes @ ..] => {
                observation.subject.made_by_others = shapes.iter().map(ToString::to_string).collect();
            }
            ["memory", at, "believed", records @ ..] => {
                let listed = records.iter().position(|word| *word == "listed").unwrap();
                let texts = |words: &[&str]| words.iter().map(ToString::to_string).collect();
                observation.memories.push(Memory {
                    at: at.parse().unwrap(),
                    believed: texts(&records[..listed]),
                    listed: texts(&records[listed + 1..]),
                });
            }
            ["initial", records @ ..] => {
                observation.subject.initial_records = records.iter().map(|record| (*record).into()).collect();
            }
            _ => panic!("no such line: {line}"),
        }
    }
    observation
}

/// The same, with the calls of client 1 as [`sketch`] parses them; each refused lock fails with `ENOLCK`.
pub(crate) fn observe_with(timeline: &str, calls: &str) -> Observation {
    let mut calls = sketch(calls);
    for call in calls.iter_mut().filter(|call| call.name == "flock" && call.result != Some(Ok(0))) {
        call.result = Some(Err(Errno(libc::ENOLCK)));
        call.locks.clear();
    }
    let requests = vec![Request::Other("one".into())];
    let traces = vec![Trace { requests, calls, ..Trace::default() }];
    Observation { traces, ..observe(timeline) }
}

/// Checks that the timeline is judged to hold.
#[track_caller]
pub(crate) fn holds(check: fn(&Observation) -> Judgement, timeline: &str) {
    assert_eq!(check(&observe(timeline)), Judgement::Holds, "{timeline}");
}

/// Checks that the timeline is judged a violation whose text contains `seen`.
#[track_caller]
pub(crate) fn violated(check: fn(&Observation) -> Judgement, seen: &str, timeline: &str) {
    match check(&observe(timeline)) {
        Judgement::Violated(text) if text.contains(seen) => {}
        other => panic!("{other:?} is no violation that says {seen:?}: {timeline}"),
    }
}

/// Checks that the timeline is no evidence either way.
#[track_caller]
pub(crate) fn silent(check: fn(&Observation) -> Judgement, timeline: &str) {
    assert_eq!(check(&observe(timeline)), Judgement::NotExercised, "{timeline}");
}

/// Checks that the timeline is inconclusive.
#[track_caller]
pub(crate) fn doubtful(check: fn(&Observation) -> Judgement, timeline: &str) {
    let judgement = check(&observe(timeline));
    assert!(matches!(judgement, Judgement::Inconclusive(_)), "{judgement:?}: {timeline}");
}

fn operation(
    client: &str,
    request: Request,
    span: &str,
    outcome: &str,
    records: Option<Vec<String>>,
) -> Operation {
    let (invoked, returned) = span.split_once("..").unwrap();
    Operation {
        client: client.trim_start_matches('c').parse().unwrap(),
        request,
        invoked: invoked.parse().unwrap(),
        returned: returned.parse().unwrap(),
        outcome: match outcome {
            "ok" => Outcome::Acknowledged,
            "refused" => Outcome::Refused,
            "busy" => Outcome::Busy,
            "failed" => Outcome::Failed("exit 1".into()),
            "killed" => Outcome::Killed,
            "timeout" => Outcome::Unfinished(Limit::Timeout),
            other => panic!("no such outcome: {other}"),
        },
        still: None,
        fault: None,
        stderr: String::new(),
        records,
    }
}

fn file_state(word: &str) -> FileState {
    match word {
        "whole" => FileState::Whole,
        "missing" => FileState::Missing,
        "empty" => FileState::Empty,
        "broken" => FileState::Broken("it ends too early".into()),
        other => panic!("no such state: {other}"),
    }
}

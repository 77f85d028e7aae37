//! Tests the narrative of an execution.

use super::*;
use crate::call::{Argument, sketch};
use crate::invariants::timeline_for_tests as observe;
use crate::locks::{Kind, Mode};

/// Two traced adds, with one add before them and a list after them.
fn pair(outcomes: [&str; 2], calls: &str) -> Narrative {
    let mut observation = observe(&format!(
        "c1 add a 0..1 ok\n c1 add b 2..9 {}\n c2 add c 3..8 {}\n c1 list 10..11 ok = a c",
        outcomes[0], outcomes[1]
    ));
    observation.subject.data = "db".into();
    let requests = observation.operations[1..3].iter().map(|one| one.request.clone()).collect();
    observation.traces = vec![Trace { requests, calls: sketch(calls), ..Trace::default() }];
    Narrative::new(&observation, About::default())
}

fn whys(narrative: &Narrative) -> Vec<(usize, &str)> {
    narrative.steps.iter().filter_map(|step| Some((step.number, step.why.as_deref()?))).collect()
}

#[test]
fn the_lanes_the_steps_and_what_lies_around_them() {
    let narrative = pair(["killed", "ok"], "1 open db 1\n 1 read 1\n 2 open db 1\n 2 write 1");
    let labels: Vec<_> = narrative.lanes.iter().map(|lane| lane.label.as_str()).collect();
    assert_eq!(labels, ["client 1: add b", "client 2: add c"]);
    assert_eq!(narrative.lanes[0].ending, Some(Ending { text: "killed".into(), is_kill: true }));
    let asides: Vec<_> = narrative.asides.iter().map(|aside| (aside.after, aside.text.as_str())).collect();
    assert_eq!(asides, [(0, "add a"), (4, "list")]);
    assert_eq!(narrative.asides[1].ending.as_ref().unwrap().text, "acknowledged: a c");
    let told: Vec<_> = narrative.steps.iter().map(|step| (step.lane, step.data)).collect();
    assert_eq!(told, [(0, None), (0, Some(Data::Read)), (1, None), (1, Some(Data::Changed))]);
    assert_eq!(
        (narrative.steps[0].begins.as_deref(), narrative.steps[2].begins.as_deref()),
        (Some("add b"), Some("add c"))
    );
    assert!(narrative.steps[1].ending.as_ref().unwrap().is_kill && narrative.steps[3].ending.is_some());
    assert_eq!(whys(&narrative), [(3, "client 1 was killed")]);
}

#[test]
fn a_lock_is_held_from_the_step_that_took_it_and_whoever_wants_it_waits() {
    let narrative = pair(
        ["ok", "ok"],
        "1 lock ex 1\n 2 open db 2\n 1 write 2\n 1 unlock 1\n 2 lock sh 1\n 1 stat db\n 2 read 2",
    );
    let hold = |lane, mode, from, to| Hold { lane, file: "file1".into(), kind: Kind::Flock, mode, from, to };
    assert_eq!(narrative.holds, [hold(0, Mode::Exclusive, 1, Some(4)), hold(1, Mode::Shared, 5, None)]);
    assert_eq!(
        whys(&narrative),
        [
            (2, "client 1 was stopped here, before write(2)"),
            (3, "client 2 waits for file1, which client 1 has locked"),
            (5, "client 1 was stopped here, before stat(db); client 2 gets file1, for which it waited"),
            (6, "client 2 was stopped here, before read(2)"),
            (7, "client 1 ended"),
        ]
    );
}

#[test]
fn a_lock_that_is_never_had_is_waited_for_once_somebody_has_it() {
    let mut calls = sketch("1 open db 1\n 2 open db 2\n 1 lock ex 1\n 2 stat db\n 1 write 2\n 2 lock ex 1");
    calls[5].result = None;
    calls[5].locks.clear();
    calls[5].arguments = vec![Argument::Descriptor(3, "file1".into())];
    let reasons = reasons(&Trace { calls: calls.clone(), ..Trace::default() }, &[]);
    assert_eq!(reasons[2].as_deref(), Some("client 2 was stopped here, before stat(db)"));
    assert_eq!(reasons[4].as_deref(), Some("client 2 waits for file1, which client 1 has locked"));
}

#[test]
fn several_traces_are_one_story_with_a_power_loss_between_them() {
    let mut observation = observe("c1 add a 0..1 ok\n power 2\n c1 add b 3..4 ok\n c1 list 5..6 ok =");
    let trace = |index: usize| Trace {
        requests: vec![observation.operations[index].request.clone()],
        calls: sketch("1 lock ex 1\n 1 unlock 1"),
        ..Trace::default()
    };
    observation.traces = vec![trace(0), trace(1)];
    let narrative = Narrative::new(&observation, About::default());
    let steps: Vec<_> = narrative.steps.iter().map(|step| (step.number, step.trace)).collect();
    assert_eq!(steps, [(1, 1), (2, 1), (3, 2), (4, 2)]);
    let lanes: Vec<_> = narrative.lanes.iter().map(|lane| lane.label.as_str()).collect();
    assert_eq!(lanes, ["client 1"]);
    let asides: Vec<_> = narrative.asides.iter().map(|aside| (aside.after, aside.text.as_str())).collect();
    assert_eq!(asides, [(2, "the power is lost"), (4, "list")]);
    assert_eq!((narrative.holds[1].from, narrative.holds[1].to), (3, Some(4)));
    assert_eq!(whys(&narrative), []);
}

/// A run at full speed has many operations and no trace.
#[test]
fn of_many_operations_those_are_told_that_were_named_and_those_at_both_ends() {
    let lines: Vec<String> =
        (0..100).map(|at| format!("c1 add r{at:03} {}..{} ok", at * 2, at * 2 + 1)).collect();
    let about = About { summary: "r050 is not in list".into(), ..About::default() };
    let narrative = Narrative::new(&observe(&lines.join("\n")), about);
    assert_eq!((narrative.asides.len(), narrative.asides_left_out), (11, 89));
    assert!(narrative.asides.iter().any(|aside| aside.text == "add r050"));
    assert!(narrative.lanes.is_empty() && narrative.steps.is_empty());
}

#[test]
fn whoever_reads_a_file_that_was_replaced_reads_no_data_any_more() {
    let narrative = pair(
        ["ok", "ok"],
        "1 open db 1\n 2 create tmp 2\n 2 write 2\n 2 rename tmp db\n 1 read 1\n 1 write 2",
    );
    let data: Vec<_> = narrative.steps.iter().map(|step| step.data).collect();
    assert_eq!(data, [None, None, None, Some(Data::Changed), Some(Data::ReadReplaced), Some(Data::Changed)]);
}

#[test]
fn content_is_told_line_by_line() {
    assert_eq!(on_lines("[\\n  \"a\\\\n\",\\tb\\u{1b}\\n"), "[\n  \"a\\n\",\tb\\u{1b}");
}

//! Tests the merge of shard reports.

use super::*;
use crate::report::tally::{CoverageTally, Part};
use crate::report::{ControlSummary, SCHEMA, SCOPE, TargetSummary, Tool};

/// Report of a shard in which the invariant has this result.
fn part(shard: &str, verdict: Verdict, judged: u64) -> Report {
    let counterexample = |place| Counterexample {
        case: Some(format!("case-{place}.json")),
        scenario: "crash".into(),
        place,
        summary: "seen".into(),
        replayable: true,
        known: false,
        confirmed: Vec::new(),
        diagnosis: None,
        replay: None,
        explanation: None,
        sandbox: None,
    };
    let index: u64 = shard.split('/').next().unwrap().parse().unwrap();
    let is_violated = verdict == Verdict::Violated;
    let mut report = Report {
        schema: SCHEMA,
        tool: Tool { name: "picklock".into(), version: "1.0.0".into() },
        target: TargetSummary { name: "store".into(), origin: "here".into(), ops: BTreeMap::new() },
        verdict: Verdict::Holds,
        exit: 0,
        interrupted: false,
        seed: 1,
        elapsed_ms: 7,
        shard: Some(shard.into()),
        control: ControlSummary { passed: true, reason: None },
        scenarios: vec![ScenarioSummary {
            id: "crash".into(),
            executions: 3,
            states: 2,
            coverage: Coverage::Complete,
            bound: String::new(),
            extent: CoverageTally {
                parts: vec![Part { what: "crash points of add".into(), planned: 3, made: 3 }],
                ..CoverageTally::default()
            },
            elapsed_ms: 5,
            operations: OperationCounts { acknowledged: 4, ..OperationCounts::default() },
            plan: None,
            crowd: None,
        }],
        invariants: vec![InvariantSummary {
            id: "no-lost-update".into(),
            claimed: true,
            verdict,
            judged,
            reason: (verdict == Verdict::Inconclusive).then(|| "nothing overlapped".into()),
            is_doubted: false,
            is_partial: false,
            evidence: EvidenceSummary::default(),
            counterexamples: if is_violated {
                vec![counterexample(index), counterexample(index + 4)]
            } else {
                Vec::new()
            },
            violations: if is_violated { 2 } else { 0 },
        }],
        diagnoses: Vec::new(),
        remarks: vec![Remark::new("kill-window", "same"), Remark::new("limits", format!("{shard} its own"))],
        not_covered: vec!["outside".into()],
        scope: SCOPE.to_owned(),
        estimate_ms: None,
        allow_partial: false,
    };
    report.conclude();
    report
}

fn merged(parts: Vec<Report>) -> Result<Merged, MergeError> {
    merge((1..).zip(parts).map(|(number, part)| (format!("{number}.json"), part)).collect())
}

#[test]
fn what_one_part_judged_holds_for_all_and_a_doubt_of_one_is_a_doubt_of_all() {
    let parts = || vec![part("1/2", Verdict::Inconclusive, 0), part("2/2", Verdict::Holds, 5)];
    let all = merged(parts()).unwrap();
    assert_eq!((all.report.exit, all.report.invariants[0].judged, all.missing.len()), (0, 5, 0));
    assert_eq!(all.report.scenarios[0].bound, "all 6 crash points of add");
    assert_eq!((all.report.scenarios[0].executions, all.report.scenarios[0].operations.acknowledged), (6, 8));
    let mut doubtful = parts();
    doubtful[0].invariants[0].is_doubted = true;
    assert_eq!(merged(doubtful).unwrap().report.exit, 3);
    assert_eq!(
        merged(vec![part("1/2", Verdict::Inconclusive, 0), part("2/2", Verdict::Inconclusive, 0)])
            .unwrap()
            .report
            .exit,
        3
    );
}

#[test]
fn the_counterexamples_are_those_that_a_whole_run_would_have_come_upon_first() {
    let all =
        merged(vec![part("2/2", Verdict::Violated, 2), part("1/2", Verdict::Violated, 2)]).unwrap().report;
    let places: Vec<u64> = all.invariants[0].counterexamples.iter().map(|one| one.place).collect();
    assert_eq!((all.exit, places, all.invariants[0].violations), (1, vec![1, 2, 5], 4));
}

#[test]
fn a_lost_part_leaves_everything_open_but_what_is_violated() {
    let lost = merged(vec![part("1/3", Verdict::Holds, 5), part("3/3", Verdict::Holds, 5)]).unwrap();
    assert_eq!(
        (lost.report.exit, lost.missing.iter().map(ToString::to_string).collect()),
        (3, vec!["2/3".to_owned()])
    );
    assert!(lost.report.invariants[0].reason.as_deref().unwrap().contains("shard 2/3 is missing"));
    let violated = merged(vec![part("1/2", Verdict::Violated, 2)]).unwrap().report;
    assert_eq!((violated.exit, violated.verdict), (3, Verdict::Violated));
}

#[test]
fn reports_that_are_not_of_one_run_are_refused_by_name_and_key() {
    let mut other = part("2/2", Verdict::Holds, 5);
    other.seed = 2;
    let told = |parts| merged(parts).unwrap_err().to_string();
    assert!(
        told(vec![part("1/2", Verdict::Holds, 5), other])
            .contains("1.json and 2.json are not of one run: their \"seed\"")
    );
    assert!(
        told(vec![part("1/2", Verdict::Holds, 5), part("1/2", Verdict::Holds, 5)]).contains("both shard 1/2")
    );
    assert!(told(vec![part("1/2", Verdict::Holds, 5), part("2/3", Verdict::Holds, 5)]).contains("\"shard\""));
    let mut whole = part("1/2", Verdict::Holds, 5);
    whole.shard = None;
    assert!(told(vec![whole]).contains("whole run"));
    assert!(told(Vec::new()).contains("no report"));
}

#[test]
fn what_all_parts_remark_is_said_once() {
    let all = merged(vec![part("1/2", Verdict::Holds, 5), part("2/2", Verdict::Holds, 5)]).unwrap().report;
    let told: Vec<&str> = all.remarks.iter().map(|one| one.text.as_str()).collect();
    assert_eq!(told[..3], ["same", "shard 1/2: 1/2 its own", "shard 2/2: 2/2 its own"]);
}

/// If one shard left out a scenario, half of it would never be run.
#[test]
fn shards_that_ran_other_scenarios_are_refused_unless_they_ended_early() {
    let mut other = part("2/2", Verdict::Holds, 5);
    other.scenarios.clear();
    let error = merged(vec![part("1/2", Verdict::Holds, 5), other.clone()]).unwrap_err();
    assert!(error.to_string().contains("\"scenarios\""), "{error}");
    other.interrupted = true;
    assert!(merged(vec![part("1/2", Verdict::Holds, 5), other]).is_ok());
}

#[test]
fn a_shard_that_judged_nothing_lets_nothing_hold() {
    let mut failed = part("2/2", Verdict::Holds, 5);
    failed.control.passed = false;
    (failed.scenarios, failed.invariants) = (Vec::new(), Vec::new());
    let all = merged(vec![part("1/2", Verdict::Holds, 5), failed]).unwrap().report;
    assert_eq!(
        (all.exit, all.verdict, all.invariants[0].verdict),
        (4, Verdict::Inconclusive, Verdict::Inconclusive)
    );
}

/// One shard had the known violation; another shard could not judge the invariant.
#[test]
fn a_violation_that_is_known_hides_no_doubt() {
    let mut known = part("1/2", Verdict::Violated, 2);
    known.invariants[0].counterexamples.iter_mut().for_each(|one| one.known = true);
    let holds = merged(vec![known.clone(), part("2/2", Verdict::Holds, 5)]).unwrap().report;
    assert_eq!((holds.exit, holds.verdict), (0, Verdict::Holds));
    let mut doubtful = part("2/2", Verdict::Inconclusive, 0);
    doubtful.invariants[0].is_doubted = true;
    let open = merged(vec![known, doubtful]).unwrap().report;
    assert_eq!((open.exit, open.invariants[0].reason.as_deref()), (3, Some("nothing overlapped")));
}

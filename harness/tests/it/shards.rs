//! Tests runs divided into shards.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::{expect_status, picklock, stderr, stdout};

/// A store that loses updates; it is killed, scheduled, and injected with faults and power losses.
const STORE: [&str; 7] = [
    "--add",
    "{critical} add {data} {id}",
    "--list",
    "{critical} list {data}",
    "--only",
    "crash,power-loss,interleave,interleave-crash,reentry",
    "--exhaustive",
];

fn checked(folder: &Path, more: &[&str], status: i32) -> Value {
    let output =
        picklock(folder, &["check"]).args(STORE).args(["--format", "json"]).args(more).output().unwrap();
    expect_status(&output, status);
    serde_json::from_str(&stdout(&output)).unwrap()
}

/// Returns the parts that must be equal for a whole run and its merged shards. Executions may be more, but are not
/// here.
fn essence(report: &Value) -> (Vec<Value>, Vec<Value>, u64) {
    let scenarios = report["scenarios"].as_array().unwrap();
    let executions = scenarios.iter().map(|one| one["executions"].as_u64().unwrap()).sum();
    // The bound contains the crash points, and the schedules of each plan: its classes.
    let of_scenario = |one: &Value| {
        let keys = ["id", "states", "coverage", "bound", "operations"];
        keys.into_iter().map(|key| one[key].clone()).collect::<Value>()
    };
    let of_invariant = |one: &Value| {
        let cases: Vec<&Value> =
            one["counterexamples"].as_array().unwrap().iter().map(|found| &found["case"]).collect();
        serde_json::json!([one["id"], one["verdict"], one["judged"], one["violations"], cases])
    };
    let invariants = report["invariants"].as_array().unwrap().iter().map(of_invariant).collect();
    (scenarios.iter().map(of_scenario).collect(), invariants, executions)
}

#[test]
fn the_union_of_four_shards_is_the_whole_run_and_a_lost_one_leaves_it_open() {
    let folder = tempfile::tempdir().unwrap();
    let whole = checked(folder.path(), &[], 1);
    let mut judged = BTreeSet::new();
    for index in 1..=4 {
        let shard = format!("{index}/4");
        let file = format!("{index}.json");
        let output =
            picklock(folder.path(), &["check", "--shard", &shard, "--output", &file, "--format", "json"])
                .args(STORE)
                .output()
                .unwrap();
        let report: Value =
            serde_json::from_slice(&std::fs::read(folder.path().join(&file)).unwrap()).unwrap();
        assert_eq!(report["shard"], shard.as_str(), "{}", stderr(&output));
        judged.insert(serde_json::to_string(&essence(&report).1).unwrap());
    }
    assert!(judged.len() > 1, "the shards did the same");
    let merged = |files: &[&str], status| {
        let output = picklock(folder.path(), &["merge", "--format", "json"]).args(files).output().unwrap();
        expect_status(&output, status);
        (serde_json::from_str::<Value>(&stdout(&output)).unwrap(), stderr(&output))
    };
    let (all, _) = merged(&["3.json", "1.json", "4.json", "2.json"], 1);
    // Of similar findings a run keeps the first one, and each shard has its own.
    let without_cases = |report: &Value| {
        let (scenarios, invariants, executions) = essence(report);
        let split = |mut one: Value| {
            let cases = one.as_array_mut().unwrap().pop().unwrap();
            (one, cases.as_array().unwrap().clone())
        };
        let (invariants, cases): (Vec<Value>, Vec<Vec<Value>>) = invariants.into_iter().map(split).unzip();
        ((scenarios, invariants, executions), cases)
    };
    let agrees_with_whole = |divided: &Value| {
        let (told, cases) = without_cases(divided);
        let (whole_told, whole_cases) = without_cases(&whole);
        assert_eq!(told, whole_told);
        for (of_shards, of_whole) in cases.iter().zip(&whole_cases) {
            assert!(of_whole.iter().all(|case| of_shards.contains(case)), "{of_whole:?} in {of_shards:?}");
        }
    };
    agrees_with_whole(&all);
    assert_eq!((&all["verdict"], &all["shard"]), (&"violated".into(), &Value::Null));
    let (lost, told) = merged(&["1.json", "2.json", "4.json"], 3);
    assert!(told.contains("the report of shard 3/4 is missing"), "{told}");
    let holds = |report: &Value| report.to_string().matches("\"verdict\":\"holds\"").count();
    assert_eq!((holds(&lost), holds(&all) > 3), (0, true), "what was lost might have violated anything");
    // The same with threads of one process.
    agrees_with_whole(&checked(folder.path(), &["--jobs", "3"], 1));
}

#[test]
fn what_is_no_shard_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let told = |arguments: &[&str]| {
        let output = picklock(folder.path(), arguments).output().unwrap();
        expect_status(&output, 2);
        stderr(&output)
    };
    assert!(told(&["check", "--shard", "5/4"]).contains("is no shard such as 1/4"));
    assert!(told(&["check", "--demo", "--jobs", "0"]).contains("--jobs: must be at least 1"));
    assert!(told(&["merge"]).contains("REPORT"));
    std::fs::write(folder.path().join("a.json"), "{\"schema\": 7}").unwrap();
    assert!(told(&["merge", "a.json"]).contains("has schema 7"));
    assert!(told(&["merge", "b.json"]).contains("cannot be read"));
    // A shard that was killed leaves an unfinished report file.
    std::fs::write(folder.path().join("empty.json"), "").unwrap();
    let nothing = told(&["merge", "empty.json"]);
    assert!(
        nothing.contains("did not come to its end") && nothing.contains("no report was given"),
        "{nothing}"
    );
}

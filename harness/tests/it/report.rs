use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::{expect_status, picklock, stdout};

fn schema() -> jsonschema::Validator {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/report-1.json");
    let schema: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    jsonschema::validator_for(&schema).unwrap()
}

/// Checks a report against its schema.
#[track_caller]
pub(crate) fn expect_valid(report: &Value) {
    let errors: Vec<String> =
        schema().iter_errors(report).map(|error| format!("{error} at {}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}\n{report:#}");
}

fn real_report(arguments: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let arguments: Vec<&str> = ["check", "--format", "json"].iter().chain(arguments).copied().collect();
    serde_json::from_str(&stdout(&picklock(folder.path(), &arguments).output().unwrap())).unwrap()
}

#[test]
fn reports_of_every_exit_status_are_valid() {
    for (status, arguments) in [
        (0, &["--ops", "100"][..]),
        (1, &["--add", "{critical} add {data} {id}", "--list", "{critical} list {data}"]),
        (3, &["--only", "control"]),
        (4, &["--add", "false", "--list", "false"]),
    ] {
        let report = real_report(arguments);
        assert_eq!(report["exit"], status, "{report:#}");
        expect_valid(&report);
    }
    let failed = real_report(&["--add", "false", "--list", "false"]);
    assert_eq!(failed["verdict"], "inconclusive");
    assert_eq!((&failed["scenarios"], &failed["invariants"]), (&json!([]), &json!([])));
}

/// A schema that accepts everything would be no check.
#[test]
fn a_report_with_anything_wrong_in_it_is_not_valid() {
    let report = real_report(&["--ops", "25"]);
    let mutations: [(&str, Value); 8] = [
        ("/schema", json!(2)),
        ("/verdict", json!("fine")),
        ("/exit", json!(2)),
        ("/control", json!({"passed": true})),
        ("/scenarios/0/operations/killed", json!(-1)),
        ("/scenarios/0/coverage", json!("all")),
        ("/invariants/0/judged", json!(0)),
        ("/target/ops", json!({})),
    ];
    for (pointer, value) in mutations {
        let mut broken = report.clone();
        *broken.pointer_mut(pointer).unwrap() = value;
        assert!(!schema().is_valid(&broken), "{pointer}");
    }
}

#[test]
fn the_report_goes_to_the_file_that_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let output = picklock(folder.path(), &["check", "--ops", "25", "--format", "json", "--output", "r.json"])
        .output()
        .unwrap();
    assert_eq!(stdout(&output), "");
    let report: Value =
        serde_json::from_str(&fs::read_to_string(folder.path().join("r.json")).unwrap()).unwrap();
    expect_valid(&report);
}

#[test]
fn a_pipe_gets_no_colours_and_color_always_does() {
    let folder = tempfile::tempdir().unwrap();
    let plain = picklock(folder.path(), &["check", "--ops", "25"]).output().unwrap();
    assert!(!stdout(&plain).contains('\x1b'));
    let coloured = picklock(folder.path(), &["check", "--ops", "25", "--color", "always"]).output().unwrap();
    assert!(stdout(&coloured).contains('\x1b'));
}

#[test]
fn every_id_can_be_listed_and_explained() {
    let folder = tempfile::tempdir().unwrap();
    let listed = picklock(folder.path(), &["list", "--format", "json"]).output().unwrap();
    let entries: Vec<Value> = serde_json::from_str(&stdout(&listed)).unwrap();
    assert!(entries.len() > 10);
    for entry in entries.iter().filter(|entry| entry["kind"] != "adapter") {
        let id = entry["id"].as_str().unwrap();
        let explained = picklock(folder.path(), &["explain", id]).output().unwrap();
        expect_status(&explained, 0);
        assert!(stdout(&explained).contains(entry["statement"].as_str().unwrap()));
        assert!(stdout(&explained).lines().count() > 3, "{id} is not explained");
    }
}

//! Tests the JSON report against its schema, and the other formats.

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

/// The report said "The reason stands above", but no reason was there.
#[test]
fn a_quiet_report_says_why_nothing_was_judged() {
    let folder = tempfile::tempdir().unwrap();
    crate::script(folder.path(), "store", "#!/bin/sh\necho '?'\nexit 9\n");
    let failed = picklock(folder.path(), &["check", "-q", "--", "./store"]).output().unwrap();
    expect_status(&failed, 4);
    let told = stdout(&failed);
    assert!(told.contains("FAILED") && told.contains("exit 9") && told.contains("it said: ?"), "{told}");
    let open = picklock(folder.path(), &["check", "-q", "--demo", "--only", "session,memory-matches-file"])
        .output()
        .unwrap();
    expect_status(&open, 3);
    let told = stdout(&open);
    assert!(told.contains("memory-matches-file") && told.lines().count() > 3, "{told}");
}

#[test]
fn reports_of_every_exit_status_are_valid() {
    for (status, arguments) in [
        (0, &["--demo", "--only", "inheritance,no-leaked-lock,reentry,no-self-deadlock"][..]),
        (1, &["--fail-fast", "--add", "{critical} add {data} {id}", "--list", "{critical} list {data}"]),
        (3, &["--demo", "--only", "control"]),
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
    let report = real_report(&["--demo", "--ops", "25", "--only", "stress"]);
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
    let output = picklock(
        folder.path(),
        &["check", "--demo", "--only", "stress", "--format", "json", "--output", "r.json"],
    )
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
    let plain = picklock(folder.path(), &["check", "--demo", "--only", "stress"]).output().unwrap();
    assert!(!stdout(&plain).contains('\x1b'));
    let coloured = ["check", "--demo", "--only", "stress", "--color", "always"];
    let coloured = picklock(folder.path(), &coloured).output().unwrap();
    assert!(stdout(&coloured).contains('\x1b'));
}

#[test]
fn every_id_can_be_listed_and_explained() {
    let folder = tempfile::tempdir().unwrap();
    let listed = picklock(folder.path(), &["list", "--format", "json"]).output().unwrap();
    let entries: Vec<Value> = serde_json::from_str(&stdout(&listed)).unwrap();
    assert!(entries.len() > 10);
    for entry in &entries {
        let id = entry["id"].as_str().unwrap();
        let explained = picklock(folder.path(), &["explain", id]).output().unwrap();
        expect_status(&explained, 0);
        assert!(stdout(&explained).contains(entry["statement"].as_str().unwrap()));
        assert!(stdout(&explained).lines().count() > 3, "{id} is not explained");
        assert!(stdout(&explained).contains("\nExample: "), "{id} has no example");
    }
}

/// `{critical}` without a lock: one invariant violated, others not applicable or not judged.
const UNLOCKED: [&str; 6] = [
    "--add",
    "{critical} add {data} {id}",
    "--list",
    "{critical} list {data}",
    "--only",
    "interleave,no-lost-update,valid-data,guard-holds,no-residue",
];

#[test]
fn junit_has_a_case_for_the_control_and_one_for_each_invariant_as_another_library_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let read = |arguments: &[&str], status| {
        let output =
            picklock(folder.path(), &["check", "--format", "junit"]).args(arguments).output().unwrap();
        expect_status(&output, status);
        let suites = junit_parser::from_reader(output.stdout.as_slice()).unwrap().suites;
        assert_eq!(suites.len(), 1);
        suites.into_iter().next().unwrap()
    };
    let suite = read(&UNLOCKED, 1);
    let case = |name: &str| suite.cases.iter().find(|case| case.original_name == name).unwrap();
    assert_eq!((suite.cases.len(), suite.failures, suite.errors, suite.skipped), (5, 1, 2, 1));
    assert!(case("control").status.is_success() && case("valid-data").status.is_error());
    let failure = case("no-lost-update").status.failure_as_ref();
    assert!(
        failure.text.contains("likely cause: shared-temp-name")
            && failure.text.contains("next: picklock replay")
    );
    assert!(case("no-residue").status.is_error() && case("guard-holds").status.is_skipped());
    let failed = read(&["--add", "false", "--list", "false"], 4);
    assert_eq!((failed.cases.len(), failed.errors), (1, 1));
}

#[test]
fn in_a_workflow_on_github_there_are_annotations_and_a_summary_without_being_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let summary = folder.path().join("summary.md");
    let told = |more: &[&str]| {
        let output = picklock(folder.path(), &["check"])
            .args(UNLOCKED)
            .args(more)
            .env("GITHUB_ACTIONS", "true")
            .env("GITHUB_STEP_SUMMARY", &summary)
            .output()
            .unwrap();
        expect_status(&output, 1);
        stdout(&output)
    };
    let human = told(&[]);
    // The form of a workflow command; its message is one line, however long.
    let form =
        regex::Regex::new(r"(?m)^::(error|warning|notice) title=([^:,]*(?:%3A|%2C)?[^:,]*)::(.+)$").unwrap();
    let levels: Vec<&str> = form.captures_iter(&human).map(|found| found.get(1).unwrap().as_str()).collect();
    assert_eq!(levels, ["warning", "error", "warning"], "{human}");
    assert!(human.contains("violated") && human.lines().filter(|line| line.starts_with("::")).count() == 3);
    let written = fs::read_to_string(&summary).unwrap();
    assert!(
        written.starts_with("### picklock: <code>") && written.contains("| `no-lost-update` | violated |"),
        "{written}"
    );
    // Every row has as many cells as the header.
    let rows = written.lines().filter(|line| line.starts_with('|'));
    assert!(
        rows.clone().count() == 6 && rows.into_iter().all(|row| row.matches('|').count() == 4),
        "{written}"
    );
    // Output for programs contains nothing else.
    assert!(serde_json::from_str::<Value>(&told(&["--format", "json"])).is_ok());
    let alone = told(&["--format", "github"]);
    assert_eq!(alone.lines().count(), form.captures_iter(&alone).count(), "{alone}");
}

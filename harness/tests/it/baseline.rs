//! Tests baselines of known violations.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::{expect_status, picklock, stderr, stdout};

/// A store that loses updates.
const STORE: [&str; 10] = [
    "--add",
    "{critical} add {data} {id}",
    "--list",
    "{critical} list {data}",
    "--only",
    "interleave,no-lost-update",
    "--clients",
    "2",
    "--ops",
    "1",
];

fn checked(folder: &Path, more: &[&str], status: i32) -> String {
    let output = picklock(folder, &["check"]).args(STORE).args(more).output().unwrap();
    expect_status(&output, status);
    stdout(&output)
}

#[test]
fn what_is_known_passes_until_its_day_and_what_is_gone_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("known.toml");
    let known = ["--baseline", "known.toml"];
    let update = [&known[..], &["--update-baseline"]].concat();
    // When the baseline is written for the first time, its violations are not known yet.
    checked(folder.path(), &update, 1);
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        text.contains("invariant = \"no-lost-update\"") && text.contains("diagnosis = \"shared-temp-name\""),
        "{text}"
    );
    let told = checked(folder.path(), &known, 0);
    assert!(
        told.contains("violated as the baseline knows") && told.contains("but 1 that are known"),
        "{told}"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), text, "only --update-baseline writes it");
    let json: Value =
        serde_json::from_str(&checked(folder.path(), &[&known[..], &["--format", "json"]].concat(), 0))
            .unwrap();
    crate::report::expect_valid(&json);
    assert_eq!(json["invariants"][0]["counterexamples"][0]["known"], true, "{json:#}");
    // Reasons are kept.
    fs::write(&path, text.replace("not explained yet", "#7")).unwrap();
    checked(folder.path(), &update, 0);
    assert!(fs::read_to_string(&path).unwrap().contains("#7"));
    // Entries that were not looked for stay.
    let elsewhere = format!(
        "{text}\n[[known]]\ninvariant = \"no-torn-read\"\nscenario = \"crash\"\nreason = \"#8\"\nexpires = \"2030-01-01\"\n"
    );
    fs::write(&path, elsewhere).unwrap();
    checked(folder.path(), &update, 0);
    assert!(fs::read_to_string(&path).unwrap().contains("#8"));
    // Another cause is another defect, and an expired entry counts again.
    fs::write(&path, text.replace("shared-temp-name", "read-before-lock")).unwrap();
    let told = checked(folder.path(), &known, 1);
    assert!(
        told.contains("baseline-gone") && told.contains("by read-before-lock is known and was not seen"),
        "{told}"
    );
    let day = regex::Regex::new("expires = \".*\"").unwrap();
    fs::write(&path, day.replace(&text, "expires = \"2020-01-01\"").into_owned()).unwrap();
    assert!(checked(folder.path(), &known, 1).contains("was known until 2020-01-01"));
    // A run that ends at the first violation does not end at a known one.
    fs::write(&path, &text).unwrap();
    checked(folder.path(), &[&known[..], &["--fail-fast"]].concat(), 0);
}

#[test]
fn a_baseline_that_makes_no_sense_is_refused_by_file_line_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let told = |text: &str| {
        fs::write(folder.path().join("known.toml"), text).unwrap();
        let output =
            picklock(folder.path(), &["check", "--baseline", "known.toml"]).args(STORE).output().unwrap();
        expect_status(&output, 2);
        stderr(&output)
    };
    let entry = "[[known]]\ninvariant = \"no-lost\"\nscenario = \"crash\"\nreason = \"x\"\nexpires = \"2030-01-01\"\n";
    assert!(told(entry).contains("known.toml:2: invariant: there is no \"no-lost\""));
    assert!(told("[[known]]\nwhy = 1\n").contains("known.toml:2"));
    let missing =
        picklock(folder.path(), &["check", "--baseline", "none.toml"]).args(STORE).output().unwrap();
    expect_status(&missing, 2);
    assert!(stderr(&missing).contains("--update-baseline writes it"));
}

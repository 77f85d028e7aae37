//! Tests `picklock bench`: locks and stores that are measured.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::{expect_status, picklock, script, stderr, stdout};

const SHORT: [&str; 6] = ["--runs", "1", "--time", "100ms", "--format", "json"];

fn measured(folder: &Path, arguments: &[&str], status: i32) -> Value {
    let output = picklock(folder, &["bench"]).args(SHORT).args(arguments).output().unwrap();
    expect_status(&output, status);
    serde_json::from_str(&stdout(&output)).unwrap()
}

#[test]
fn every_lock_excludes_and_every_rate_stands_beside_fairness_waits_and_a_flush() {
    let folder = tempfile::tempdir().unwrap();
    let measured = measured(folder.path(), &["--clients", "1,4", "--hold", "0s,1ms", "--html", "b.html"], 0);
    let rows = measured["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 9 * 2 * 2);
    for row in rows {
        assert_eq!(row["violations"], 0, "{row}");
        assert!(row["rate"]["median"].as_f64().unwrap() > 10.0, "{row}");
        assert!(row["wait"]["max"].as_u64() >= row["wait"]["p50"].as_u64(), "{row}");
        let jain = row["jain"].as_f64().unwrap();
        assert!((0.2..=1.0001).contains(&jain), "{row}");
        // A lock that is held for a millisecond is taken less than a thousand times a second.
        let is_held = row["hold_ns"] == 1_000_000;
        assert!(!is_held || row["rate"]["median"].as_f64().unwrap() < 1_000.0, "{row}");
    }
    assert!(measured["place"]["flush_ns"].as_u64().unwrap() > 0);
    let page = fs::read_to_string(folder.path().join("b.html")).unwrap();
    assert_eq!(page.matches("<svg role=\"img\" aria-label=").count(), 6, "a plot is missing");
    assert!(page.contains(">o-excl<") && !page.contains("NaN"));
}

/// Shows that the check of mutual exclusion can fail.
#[test]
fn who_takes_no_lock_is_found_inside_with_another() {
    let folder = tempfile::tempdir().unwrap();
    let measured = measured(folder.path(), &["--locks", "none", "--clients", "4", "--hold", "1ms"], 1);
    assert!(measured["rows"][0]["violations"].as_u64().unwrap() > 0, "{measured}");
}

#[test]
fn what_is_required_fails_the_run_where_it_is_not_so() {
    let folder = tempfile::tempdir().unwrap();
    let flock = ["--locks", "flock", "--clients", "2", "--hold", "1ms"];
    let with = |require: &[&str], status| measured(folder.path(), &[&flock, require].concat(), status);
    assert_eq!(with(&["--require", "rate>1", "--require", "p50<10s"], 0)["unmet"], serde_json::json!([]));
    let unmet = with(&["--require", "rate>1", "--require", "p99<1ns", "--require", "jain>1.5"], 1);
    assert_eq!(unmet["unmet"].as_array().unwrap().len(), 2, "{unmet}");
    let wrong = picklock(folder.path(), &["bench", "--require", "p99=1"]).output().unwrap();
    expect_status(&wrong, 2);
    assert!(stderr(&wrong).contains("write it as p99<50ms"), "{}", stderr(&wrong));
}

#[test]
fn nothing_is_written_over_by_a_measurement_that_makes_no_sense() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("old.json"), "figures").unwrap();
    let wrong: [(&[&str], &str); 4] = [
        (&["--locks", "flok"], "did you mean flock?"),
        (&["--adapter", "store-journal", "--locks", "flock"], "--locks: is about locks"),
        (&["--adapter", "store-journal", "--compare", "none.toml"], "--compare"),
        (&["--dir", "none"], "\"none\" cannot hold a sandbox"),
    ];
    for (arguments, told) in wrong {
        let output = picklock(folder.path(), &["bench", "--output", "old.json"]).args(arguments).output();
        let output = output.unwrap();
        expect_status(&output, 2);
        assert!(stderr(&output).contains(told), "{}", stderr(&output));
        assert_eq!(fs::read_to_string(folder.path().join("old.json")).unwrap(), "figures");
    }
}

#[test]
fn a_store_is_measured_one_shot_and_in_sessions_as_it_grows_and_beside_another() {
    let folder = tempfile::tempdir().unwrap();
    // It reads, waits, and writes: an update in between is lost.
    let loser = "#!/bin/sh\ncase $1 in add) old=$(cat \"$2\" 2>/dev/null); sleep 0.02; echo \"$old $3\" > \"$2\";; list) tr ' ' '\\n' < \"$2\";; esac\n";
    script(folder.path(), "loser", loser);
    let adapter = "[data]\npath = \"a.txt\"\n[ops]\nadd = [\"./loser\", \"add\", \"{data}\", \"{id}\"]\nlist = [\"./loser\", \"list\", \"{data}\"]\n";
    fs::write(folder.path().join("loser.toml"), adapter).unwrap();
    let arguments = ["--adapter", "store-journal", "--clients", "1,4", "--compare", "loser.toml"];
    let measured = measured(folder.path(), &arguments, 1);
    let rows = measured["rows"].as_array().unwrap();
    let lost = |name: &str| {
        let of = rows.iter().filter(|row| row["name"].as_str().unwrap().starts_with(name));
        of.map(|row| row["violations"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    // Four clients of a store without a lock lose updates: the time they save does not count.
    assert_eq!((lost("store-journal"), lost("loser.toml").len()), (vec![0; 4], 2), "{measured:#}");
    assert!(lost("loser.toml")[1] > 0, "{measured:#}");
    assert_eq!(measured["comparison"].as_array().unwrap().len(), 2, "{measured:#}");
    let growth = measured["growth"].as_array().unwrap();
    assert!(growth.iter().any(|one| one["name"].as_str().unwrap().ends_with("session")), "{measured:#}");
}

/// Records that can no longer be read are lost, and a store that never succeeded meets no requirement.
#[test]
fn a_store_that_fails_under_load_earns_no_figure() {
    let folder = tempfile::tempdir().unwrap();
    // It breaks once it has seven records.
    let store = "#!/bin/sh\ncase $1 in add) echo \"$3\" >> \"$2\";; list) [ $(wc -l < \"$2\") -lt 7 ] && cat \"$2\";; esac\n";
    script(folder.path(), "store", store);
    let lost = measured(folder.path(), &["--clients", "1", "--data", "a.txt", "--", "./store"], 1);
    assert!(lost["rows"][0]["violations"].as_u64().unwrap() > 5, "{lost}");
    // A session that never answers ends at the time limit of an operation.
    let mute = "[data]\npath = \"a.txt\"\n[ops]\nadd = [\"./store\", \"add\", \"{data}\", \"{id}\"]\nlist = [\"cat\", \"{data}\"]\n\
                [session]\ncommand = [\"sleep\", \"1000\"]\n[limits]\ntimeout = \"300ms\"\n";
    fs::write(folder.path().join("mute.toml"), mute).unwrap();
    let arguments = ["--clients", "1", "--adapter", "mute.toml", "--require", "p99<10s"];
    let unmet = measured(folder.path(), &arguments, 1)["unmet"].to_string();
    assert!(unmet.contains("session") && unmet.contains("nothing succeeded"), "{unmet}");
    let alone = picklock(folder.path(), &["bench", "--compare", "./store"]).output().unwrap();
    expect_status(&alone, 2);
    assert!(stderr(&alone).contains("needs a store to compare with"), "{}", stderr(&alone));
}

#[test]
fn a_store_that_does_not_work_is_not_measured() {
    let folder = tempfile::tempdir().unwrap();
    script(folder.path(), "store", "#!/bin/sh\nexit 9\n");
    let output = picklock(folder.path(), &["bench", "--", "./store"]).output().unwrap();
    expect_status(&output, 4);
    assert!(stderr(&output).contains("does not work without injections"), "{}", stderr(&output));
}

//! Tests that `holds` requires evidence, and that the report states what was tried.

use std::path::Path;

use serde_json::Value;

use crate::programs::{invariant, judge, python_script};
use crate::{expect_status, picklock, script, stderr, stdout};

/// A correct store in one process that counts to `SLOWLY` per operation, under its lock; only `sync` and `mv` are
/// separate programs.
const STORE: &str = r#"#!/bin/sh
work() { n=0; while [ $n -lt SLOWLY ]; do n=$((n + 1)); done; }
[ "$1" = list ] && { work; [ ! -e "$2" ] || cat "$2"; exit; }
exec 9>>"$2.lock" && flock 9 || exit 1
work
{ [ ! -e "$2" ] || cat "$2"; } >"$2.tmp" && echo "$3" >>"$2.tmp" && sync "$2.tmp" && mv -T "$2.tmp" "$2" || exit 1
sync "${2%/*}"
"#;

fn store(folder: &Path, slowly: u32) {
    script(folder, "store", &STORE.replace("SLOWLY", &slowly.to_string()));
}

fn verdicts(report: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    report["invariants"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["id"].as_str().unwrap(), one["verdict"].as_str().unwrap(), &one["evidence"]))
}

/// A program that takes a second per operation was found to hold on the few schedules that fit into the time.
#[test]
fn of_a_store_of_one_execution_a_second_nothing_holds_that_was_not_run() {
    let folder = tempfile::tempdir().unwrap();
    store(folder.path(), 100_000);
    let arguments = ["--budget", "15s", "--data", "db.txt", "--", "./store"];
    let report = judge(folder.path(), 3, &arguments);
    let mut open = 0;
    for (id, verdict, evidence) in verdicts(&report) {
        let complete = evidence["run"].as_u64() >= evidence["needed"].as_u64();
        assert!(verdict != "holds" || complete, "{id}: {evidence}");
        if verdict == "inconclusive" && !complete {
            open += 1;
        }
    }
    assert!(open > 5, "{report:#}");
    let lost = invariant(&report, "no-lost-update")["reason"].as_str().unwrap().to_owned();
    assert!(lost.contains("--budget"), "what is missing has no estimate: {lost}");
    assert!(report["estimate_ms"].as_u64().unwrap() > 15_000, "{}", report["estimate_ms"]);
}

/// With `--allow-partial`, checks that need more time may stay open; those that more time does not help may not.
#[test]
fn with_allow_partial_want_of_time_alone_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    store(folder.path(), 100_000);
    let checked = |ids: &str, more: &[&str], status| {
        let arguments = ["check", "--budget", "10s", "--data", "db.txt", "--only", ids];
        let output =
            picklock(folder.path(), &[&arguments, more, &["--", "./store"]].concat()).output().unwrap();
        expect_status(&output, status);
        // Joins wrapped lines into one text.
        stdout(&output).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let slow = "inheritance,interleave,no-leaked-lock,no-lost-update";
    let text = checked(slow, &[], 3);
    assert!(text.contains("--budget"), "{text}");
    let text = checked(slow, &["--allow-partial"], 0);
    assert!(text.contains("partial"), "{text}");
    let text = checked("inheritance,no-leaked-lock,linearizable", &["--allow-partial"], 3);
    assert!(text.contains("it rests on interleave, which was not chosen"), "{text}");
}

/// A fault of a call that the store did not make again counted as one that it had reported honestly.
#[test]
fn a_fault_of_a_call_that_is_not_made_again_is_no_evidence() {
    let folder = tempfile::tempdir().unwrap();
    // Each run syncs once less than the one before.
    python_script(
        folder.path(),
        "store",
        "import os, sys\n\
         verb, path = sys.argv[1:3]\n\
         if verb == 'list':\n\
         \x20 try: print(open(path).read())\n\
         \x20 except FileNotFoundError: pass\n\
         \x20 sys.exit()\n\
         runs = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), 'runs')\n\
         with open(runs, 'a') as file: file.write('.')\n\
         fd, line = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), (sys.argv[3] + '\\n').encode()\n\
         while line: line = line[os.write(fd, line):]\n\
         for _ in range(12 - os.path.getsize(runs)): os.fsync(fd)\n\
         os.fsync(fd)\n\
         os.close(fd)\n",
    );
    let arguments = ["--exhaustive", "--only", "fault,honest-failure", "--data", "db.txt", "--", "./store"];
    let report = judge(folder.path(), 3, &[&["--allow-partial"], &arguments[..]].concat());
    let honest = invariant(&report, "honest-failure");
    assert!(honest["reason"].as_str().unwrap().contains("did not reach their points"), "{honest:#}");
    assert!(honest["evidence"]["run"].as_u64() < honest["evidence"]["needed"].as_u64(), "{honest:#}");
}

#[test]
fn the_last_line_says_from_which_state_and_with_how_many_injections_it_was_tried() {
    let folder = tempfile::tempdir().unwrap();
    let output =
        picklock(folder.path(), &["check", "--demo", "--only", "reentry,no-self-deadlock"]).output().unwrap();
    expect_status(&output, 0);
    let text = stdout(&output);
    let last = text.lines().next_back().unwrap();
    assert!(last.starts_with("holds, from a store of one record, one injection at a time: "), "{last}");
    let open = picklock(folder.path(), &["check", "--demo", "--only", "control"]).output().unwrap();
    let text = stdout(&open);
    let last = text.lines().next_back().unwrap();
    assert_eq!(last.trim(), "tried from a store of one record, one injection at a time");
    let report = judge(folder.path(), 0, &["--only", "reentry,no-self-deadlock"]);
    assert_eq!(report["scope"], "from a store of one record, one injection at a time");
}

/// Without a target, the reference store was judged: a typing error in CI gave a successful run of something else.
#[test]
fn where_no_store_is_named_nothing_is_judged_and_the_nearest_adapter_file_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("a/b");
    std::fs::create_dir_all(&below).unwrap();
    let nothing = picklock(&below, &["check", "--only", "reentry,no-self-deadlock"]).output().unwrap();
    expect_status(&nothing, 2);
    assert!(stderr(&nothing).contains("no store is named") && stderr(&nothing).contains("--demo"));
    store(folder.path(), 0);
    let adapter = "[data]\npath = \"db.txt\"\n[ops]\nadd = [\"./store\", \"add\", \"{data}\", \"{id}\"]\n\
                   list = [\"./store\", \"list\", \"{data}\"]\n";
    std::fs::write(folder.path().join("picklock.toml"), adapter).unwrap();
    let found = picklock(&below, &["check", "--only", "reentry,no-self-deadlock"]).output().unwrap();
    expect_status(&found, 0);
    assert!(stdout(&found).contains("../../picklock.toml"), "{}", stdout(&found));
}

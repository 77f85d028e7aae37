//! Tests that saved cases replay.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::programs::{invariant, judge, python_script};
use crate::{expect_status, picklock, stderr, stdout};

/// A store that rewrites in place; `WRITES` is its way of writing.
const STORE: &str = "import fcntl, json, os, sys\n\
    verb, path = sys.argv[1:3]\n\
    load = lambda: json.load(open(path)) if os.path.exists(path) else []\n\
    if verb == 'list':\n  print('\\n'.join(load()))\n  sys.exit()\n\
    lock = open(path + '.lock', 'a')\n\
    fcntl.flock(lock, fcntl.LOCK_EX)\n\
    records = load() + [sys.argv[3]]\n\
    WRITES\n";
const IN_PLACE: &str = "with open(path, 'w') as new: json.dump(records, new)";

fn store(folder: &Path, writes: &str) {
    python_script(folder, "store", &STORE.replace("WRITES", writes));
}

/// Returns the first counterexample of `crash-atomic`, of a store that rewrites its file in place.
fn finding(folder: &Path) -> Value {
    store(folder, IN_PLACE);
    let report = judge(folder, 1, &["--only", "crash", "--", "./store"]);
    let violated = invariant(&report, "crash-atomic");
    assert_eq!(violated["verdict"], "violated", "{report:#}");
    violated["counterexamples"][0].clone()
}

/// Runs the command that the report prints, as a shell would.
fn run_printed(folder: &Path, finding: &Value) -> std::process::Output {
    let printed = finding["replay"].as_str().unwrap();
    let words = shell_words::split(printed).unwrap();
    assert_eq!(words[0], "picklock");
    let words: Vec<&str> = words[1..].iter().map(String::as_str).collect();
    picklock(folder, &words).output().unwrap()
}

#[test]
fn the_printed_command_reproduces_the_finding_call_by_call() {
    let folder = tempfile::tempdir().unwrap();
    let finding = finding(folder.path());
    assert_eq!((&finding["replayable"], &finding["diagnosis"]), (&true.into(), &"in-place-overwrite".into()));
    let output = run_printed(folder.path(), &finding);
    expect_status(&output, 1);
    let text = stdout(&output);
    for part in [
        "client 1: add r000002",
        "the data file holds nothing",
        "killed",
        "reproduced: crash-atomic is violated",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[test]
fn a_store_that_was_mended_without_another_way_to_the_kill_is_fixed_and_one_that_goes_another_way_diverges() {
    let folder = tempfile::tempdir().unwrap();
    let finding = finding(folder.path());
    // The same calls up to the kill, and an operation that finds the file empty knows its content: nothing is lost.
    let heals = STORE
        .replace(
            "json.load(open(path)) if os.path.exists(path) else []",
            "json.loads(open(path).read() or '[\"r000001\"]') if os.path.exists(path) else []",
        )
        .replace("WRITES", IN_PLACE);
    python_script(folder.path(), "store", &heals);
    let fixed = run_printed(folder.path(), &finding);
    expect_status(&fixed, 0);
    assert!(stdout(&fixed).contains("fixed: 3 clean runs in a row"), "{}", stdout(&fixed));
    store(
        folder.path(),
        "with open(path + '.tmp', 'w') as new: json.dump(records, new)\nos.rename(path + '.tmp', path)",
    );
    let diverged = run_printed(folder.path(), &finding);
    expect_status(&diverged, 3);
    let text = stdout(&diverged);
    assert!(text.contains("diverged at step") && text.contains("store.json"), "{text}");
}

/// Two of three cases diverged if a lock in TMPDIR had a random name, or a folder a name with the process id of a
/// child.
#[test]
fn names_of_chance_do_not_keep_a_case_from_replaying() {
    let folder = tempfile::tempdir().unwrap();
    let writes = "import shutil, tempfile\n\
        tmp = tempfile.gettempdir()\n\
        for left in os.listdir(tmp): os.unlink(os.path.join(tmp, left))\n\
        held, name = tempfile.mkstemp()\n\
        fcntl.flock(held, fcntl.LOCK_EX)\n\
        child = os.fork()\n\
        if child == 0:\n  \
          os.mkdir('%s.%d' % (path, os.getpid()))\n  \
          open('%s.%d/x' % (path, os.getpid()), 'w').close()\n  \
          os._exit(0)\n\
        os.waitpid(child, 0)\n\
        os.path.exists('%s.%d/y' % (path, child))\n\
        shutil.rmtree('%s.%d' % (path, child))\n";
    store(folder.path(), &format!("{writes}{IN_PLACE}"));
    let report = judge(folder.path(), 1, &["--only", "crash,crash-atomic", "--fail-fast", "--", "./store"]);
    let findings = invariant(&report, "crash-atomic")["counterexamples"].as_array().unwrap();
    assert!(!findings.is_empty(), "{report:#}");
    for finding in findings.iter().take(2) {
        let output = run_printed(folder.path(), finding);
        expect_status(&output, 1);
        assert!(stdout(&output).contains("reproduced: crash-atomic"), "{}", stdout(&output));
    }
}

/// A case contains commands, and may come from anyone.
#[test]
fn commands_that_are_not_those_at_hand_are_shown_and_run_only_when_the_case_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let finding = finding(folder.path());
    let case = finding["case"].as_str().unwrap();
    let refused = picklock(folder.path(), &["replay", case]).output().unwrap();
    expect_status(&refused, 2);
    assert!(stderr(&refused).contains("./store add {data} {id}") && stderr(&refused).contains("--trust"));
    let trusted = picklock(folder.path(), &["replay", case, "--trust", "--keep", "--trace", "t.json"])
        .output()
        .unwrap();
    expect_status(&trusted, 1);
    let trace: Value =
        serde_json::from_str(&fs::read_to_string(folder.path().join("t.json")).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let calls = events.iter().filter(|event| event["cat"] == "call" && event["ph"] == "X");
    assert!(calls.filter(|call| call["args"]["call"].as_str().is_some()).count() > 3, "{trace}");
    let kept = folder.path().join(case).with_extension("sandbox");
    assert!(kept.join("store.json").exists(), "{kept:?}");
}

#[test]
fn what_is_no_case_or_cannot_be_run_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let finding = finding(folder.path());
    let case = finding["case"].as_str().unwrap();
    fs::write(folder.path().join("none.json"), "[]").unwrap();
    let text = fs::read_to_string(folder.path().join(case)).unwrap();
    fs::write(folder.path().join("future.json"), text.replacen("\"schema\": 1", "\"schema\": 2", 1)).unwrap();
    fs::write(folder.path().join("store"), "#!/bin/sh\nexit 9\n").unwrap();
    for (arguments, says) in [
        (vec!["replay", "none.json"], "it is no case"),
        (vec!["replay", "future.json"], "schema 2"),
        (vec!["replay", "missing.json"], "cannot be read"),
        (vec!["replay", case, "--trust"], "the case cannot be run"),
    ] {
        let output = picklock(folder.path(), &arguments).output().unwrap();
        expect_status(&output, 2);
        assert!(stderr(&output).contains(says), "{}", stderr(&output));
    }
}

//! Tests kills at every call.

use std::process::Command;

use serde_json::Value;

use picklock::op::Request;
use picklock::persist::crash_states;
use picklock::runner::{ExecEnv, Stop, control, trace};
use picklock::sandbox::Sandbox;
use picklock::scenario::crash::{add, alone};
use picklock::scenario::script::{InjectionKind, Script};
use picklock::target::flags::Flags;

use crate::programs::{invariant, judge, python_script};
use crate::{ON_A_KIND_DISK, expect_status, script, stdout};

/// Returns a report without its times, the only part in which two equal runs may differ.
fn timeless(mut report: Value) -> Value {
    for pointer in ["/elapsed_ms", "/estimate_ms", "/scenarios/0/elapsed_ms"] {
        *report.pointer_mut(pointer).unwrap() = Value::Null;
    }
    report
}

#[test]
fn every_crash_point_is_tried_and_two_runs_give_the_same_report() {
    let folder = tempfile::tempdir().unwrap();
    let run = || judge(folder.path(), 3, &["--only", "crash"]);
    let report = run();
    let bound = report["scenarios"][0]["bound"].as_str().unwrap();
    for part in
        ["all 27 crash points of add", "all 7 crash points of list", "points of add beside another client"]
    {
        assert!(bound.contains(part), "{bound}");
    }
    assert_eq!(report["scenarios"][0]["coverage"], "complete");
    for id in ["crash-atomic", "acked-survives-crash", "recovers-after-crash", "no-residue", "valid-data"] {
        assert_eq!(invariant(&report, id)["verdict"], "holds", "{report:#}");
    }
    assert_eq!(timeless(report), timeless(run()));
}

/// A rewrite in place loses everything between its truncation and its write: a random kill hardly ever hits these two
/// calls, and this one always does.
#[test]
fn a_kill_between_truncation_and_write_is_always_found() {
    let folder = tempfile::tempdir().unwrap();
    python_script(
        folder.path(),
        "store",
        "import fcntl, json, os, sys\n\
         verb, path = sys.argv[1:3]\n\
         load = lambda: json.load(open(path)) if os.path.exists(path) else []\n\
         if verb == 'list':\n  print('\\n'.join(load()))\n  sys.exit()\n\
         lock = open(path + '.lock', 'a')\n\
         fcntl.flock(lock, fcntl.LOCK_EX)\n\
         records = load() + [sys.argv[3]]\n\
         json.dump(records, open(path, 'w'))\n",
    );
    let report = judge(folder.path(), 1, &["--only", "crash", "--fail-fast", "--", "./store"]);
    assert_eq!(invariant(&report, "crash-atomic")["verdict"], "violated", "{report:#}");
}

#[test]
fn a_lock_file_that_survives_its_owner_is_always_found() {
    let folder = tempfile::tempdir().unwrap();
    let store = "#!/bin/sh\nif [ $1 = list ]; then cat \"$2\"; exit; fi\n\
                 set -C; : > \"$2.lock\" || exit 1\n\
                 echo $3 >> \"$2\"; rm \"$2.lock\"\n";
    script(folder.path(), "store", store);
    let report = judge(folder.path(), 1, &["--only", "crash", "--data", "db.txt", "--", "./store"]);
    let recovers = invariant(&report, "recovers-after-crash");
    assert_eq!(recovers["verdict"], "violated", "{report:#}");
    // A child is killed with its parent: at every point from the creation of the lock file to its removal.
    assert!(recovers["violations"].as_u64().unwrap() >= 3, "{report:#}");
}

/// A process that is traced already, as in a container that forbids tracing, cannot be traced again.
#[test]
fn where_nobody_may_trace_the_rest_is_judged_and_the_reason_told() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("strace")
        .args([
            "-f",
            "-o",
            "/dev/null",
            env!("CARGO_BIN_EXE_picklock"),
            "check",
            "--demo",
            "--only",
            "crash",
            "--format",
            "json",
        ])
        .current_dir(folder.path())
        .output()
        .unwrap();
    expect_status(&output, 3);
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let reason = invariant(&report, "crash-atomic")["reason"].as_str().unwrap();
    assert!(reason.contains("ptrace is not allowed here"), "{reason}");
}

/// An operation that removes records according to `[session]` was killed like any other, and a correct store was
/// accused of losing records that it was asked to remove.
#[test]
fn an_operation_that_removes_records_is_no_loss() {
    let folder = tempfile::tempdir().unwrap();
    script(
        folder.path(),
        "store",
        "#!/bin/sh\nexec flock \"$1.lock\" sh -c 'echo $2 >> \"$1\"' - \"$1\" $2\n",
    );
    let adapter = "[data]\npath = \"db.txt\"\n[ops]\nadd = [\"./store\", \"{data}\", \"{id}\"]\n\
                   list = [\"cat\", \"{data}\"]\n[ops.other]\nclear = [\"truncate\", \"-s0\", \"{data}\"]\n\
                   [session]\ncommand = [\"true\"]\nremoves = [\"clear\"]\n";
    std::fs::write(folder.path().join("picklock.toml"), adapter).unwrap();
    // The configured session is not one.
    let report = judge(
        folder.path(),
        0,
        &[
            "--ops",
            "10",
            "--skip",
            "torn-write,interleave-crash,session,memory-matches-file",
            "--skip",
            ON_A_KIND_DISK,
        ],
    );
    let scenarios = report["scenarios"].as_array().unwrap();
    let crash = scenarios.iter().find(|scenario| scenario["id"] == "crash").unwrap();
    let bound = crash["bound"].as_str().unwrap();
    assert!(bound.contains("of add") && !bound.contains("clear"), "{bound}");
}

/// The states derived from the calls of one baseline run equal those left by real kills, in content, names and
/// permissions, at every crash point.
#[test]
fn derived_states_are_what_real_kills_leave() {
    let folder = tempfile::tempdir().unwrap();
    python_script(
        folder.path(),
        "store",
        "import fcntl, json, os, sys\n\
         path, record = sys.argv[1:3]\n\
         lock = open(path + '.lock', 'a')\n\
         fcntl.flock(lock, fcntl.LOCK_EX)\n\
         os.makedirs(path + '.d', exist_ok=True)\n\
         with open(path + '.log', 'a') as log: log.write(record + '\\n')\n\
         records = json.load(open(path)) if os.path.exists(path) else []\n\
         with open(path + '.tmp', 'w') as new: json.dump(records + [record], new)\n\
         os.chmod(path + '.tmp', 0o640)\n\
         if os.path.exists(path): os.replace(path, path + '.old')\n\
         os.link(path + '.tmp', path)\n\
         os.unlink(path + '.tmp')\n\
         with open(path + '.log', 'r+') as log: log.truncate(3)\n",
    );
    let flags = Flags { add: Some("./store {data} {id}".into()), ..Flags::default() };
    let target = flags.into_target(folder.path()).unwrap();
    let sandbox = Sandbox::create(None, &target.data, None, &|_| ()).unwrap();
    let stop = Stop::new().unwrap();
    let env = ExecEnv::new(&target, &sandbox, &stop, &|| ());
    let subject = control(&env).unwrap().subject;
    let request = add(2);
    assert!(matches!(request, Request::Add { .. }));
    let quiet = trace(&env, &request).unwrap();
    let after = sandbox.tree().unwrap();
    let first = env.first().unwrap();
    let before = sandbox.tree().unwrap();
    let states: Vec<_> = crash_states(&before, &quiet.calls).unwrap().collect();
    assert!(states.len() > 8 && states.last().unwrap().tree == after, "{} states", states.len());
    let points = u32::try_from(quiet.calls.len()).unwrap() + 1;
    for point in 1..=points {
        let script = alone(&request, &quiet.calls, point, InjectionKind::Kill);
        let only_the_kill = Script { acts: script.acts[..1].to_vec() };
        let played = env.play("crash", &only_the_kill, &first, &subject, 1, false).unwrap();
        assert!(played.was_injected);
        let derived = states.iter().rfind(|state| state.point <= point).unwrap();
        assert!(
            sandbox.tree().unwrap() == derived.tree,
            "at point {point}: {:?}",
            quiet.calls.get(point as usize - 1)
        );
    }
}

/// A dozen page cuts of a long write were tried, and the scenario called itself complete.
#[test]
fn what_is_left_out_of_a_long_write_is_told_and_nothing_is_called_complete() {
    let folder = tempfile::tempdir().unwrap();
    python_script(
        folder.path(),
        "store",
        "import fcntl, json, os, sys\n\
         path, record = sys.argv[1:3]\n\
         lock = open(path + '.lock', 'a')\n\
         fcntl.flock(lock, fcntl.LOCK_EX)\n\
         records = json.load(open(path))[:-1] if os.path.exists(path) else []\n\
         new = os.open(path + '.tmp', os.O_WRONLY | os.O_CREAT | os.O_TRUNC)\n\
         left = json.dumps(records + [record, 'x' * 200000]).encode()\n\
         while left: left = left[os.write(new, left):]\n\
         os.rename(path + '.tmp', path)\n",
    );
    let arguments = ["--only", "crash", "--add", "./store {data} {id}", "--records", r"regex:(r\d+)"];
    let report = judge(folder.path(), 3, &arguments);
    let scenario = crate::programs::scenario(&report, "crash");
    let bound = scenario["bound"].as_str().unwrap();
    assert!(bound.contains("left out: 35 page cuts of long writes of add"), "{bound}");
    assert_eq!(scenario["coverage"], "bounded");
    assert_eq!(invariant(&report, "crash-atomic")["verdict"], "holds", "{report:#}");
}

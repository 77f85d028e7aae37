//! Tests bugs that were found in picklock, each with its story.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use crate::programs::{invariant, judge, python_script, scenario};
use crate::{ON_A_KIND_DISK, expect_status, picklock, script};

const PICKLOCK: &str = env!("CARGO_BIN_EXE_picklock");

/// A stress round that the budget cut short had not reached all records of its plan, and the add that closes the round
/// took the number of a record already added: a correct store was accused of having it twice.
#[test]
fn a_round_that_the_budget_cuts_short_accuses_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let slow = "#!/bin/sh\nexec flock \"$2.lock\" sh -c 'sleep 0.02; echo $2 >> \"$1\"' - \"$2\" $3\n";
    script(folder.path(), "store", slow);
    let arguments = [
        "check",
        "--only",
        "stress",
        "--budget",
        "3s",
        "--format",
        "json",
        "--data",
        "db.txt",
        "--add",
        "./store add {data} {id}",
        "--list",
        "cat {data}",
    ];
    let output = picklock(folder.path(), &arguments).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(scenario(&report, "stress")["coverage"], "truncated", "{report:#}");
    assert_ne!(output.status.code(), Some(1), "{report:#}");
}

/// A worker that left its process group was not killed with its operation: it finished its torn rewrite undisturbed,
/// and a broken store held.
#[test]
fn a_process_that_leaves_the_group_is_killed_with_its_operation() {
    let folder = tempfile::tempdir().unwrap();
    python_script(
        folder.path(),
        "store",
        r#"import fcntl, json, os, sys, time
verb, path = sys.argv[1:3]
def load():
    try: return json.load(open(path))
    except FileNotFoundError: return []
if verb == "list":
    print("\n".join(load()))
    sys.exit()
if os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
os.setsid()
lock = open(path + ".lock", "a")
fcntl.flock(lock, fcntl.LOCK_EX)
records = load() + [sys.argv[3]]
with open(path, "w") as f:
    for letter in json.dumps(records):
        f.write(letter)
        f.flush()
"#,
    );
    let report = judge(
        folder.path(),
        1,
        &["--ops", "10", "--only", "stress,crash,crash-atomic", "--fail-fast", "--", "./store"],
    );
    assert_eq!(invariant(&report, "crash-atomic")["verdict"], "violated", "{report:#}");
}

/// The first line of the report met a closed pipe, and the run ended with 0 before it had begun.
#[test]
fn a_closed_output_does_not_change_the_exit_status() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = picklock(folder.path(), &["check", "--add", "false", "--list", "false"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(4));
}

/// An entry script starts a service and becomes picklock by `exec`: the service was ended with the run.
#[test]
fn children_that_were_there_before_picklock_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let commands =
        format!("sleep 300 & echo $! > pid; exec '{PICKLOCK}' check --demo --only control > report");
    let status = Command::new("sh").current_dir(folder.path()).args(["-c", &commands]).status().unwrap();
    assert_eq!(status.code(), Some(3));
    let pid = fs::read_to_string(folder.path().join("pid")).unwrap();
    assert!(Command::new("kill").arg(pid.trim()).status().unwrap().success(), "the service is gone");
}

/// `nohup` ignores SIGHUP; picklock's own handlers undid that.
#[test]
fn a_hang_up_that_is_ignored_stays_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new("nohup")
        .arg(PICKLOCK)
        .args(["check", "--demo", "--ops", "400", "--only", "stress,no-lost-update", "-q"])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    // Once the sandbox exists, the handlers are installed; every client's environment contains its path.
    let has_children = || {
        let path = format!("/proc/{0}/task/{0}/children", child.id());
        fs::read_to_string(path).is_ok_and(|children| !children.trim().is_empty())
    };
    while !has_children() {
        std::thread::yield_now();
    }
    assert!(Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// Placeholders in `[env]` were filled in once for all operations, so that all clients shared one temporary name.
#[test]
fn placeholders_in_the_environment_are_those_of_the_operation() {
    let folder = tempfile::tempdir().unwrap();
    script(
        folder.path(),
        "store",
        "#!/bin/sh\nexec flock \"$1.lock\" sh -c 'echo \"$RECORD\" >> \"$1\"' - \"$1\"\n",
    );
    let adapter = "[data]\npath = \"db.txt\"\n[ops]\nadd = [\"./store\", \"{data}\"]\nlist = [\"cat\", \"{data}\"]\n\
                   [env]\nRECORD = \"{id}\"\n";
    fs::write(folder.path().join("picklock.toml"), adapter).unwrap();
    let chosen = ["--allow-partial", "--only", "stress,interleave,no-lost-update,no-phantom-record"];
    judge(folder.path(), 0, &chosen);
}

/// `{data}` may be a folder with a file for each record, and records may be known by their numbers only.
#[test]
fn a_folder_of_records_known_by_number_holds() {
    let folder = tempfile::tempdir().unwrap();
    let store = "#!/bin/sh\nset -e\n\
                 if [ $1 = list ]; then ls \"$2\"; exit; fi\n\
                 mkdir -p \"$2\"; : > \"$2/.$3\"; mv \"$2/.$3\" \"$2/$3\"\n";
    script(folder.path(), "store", store);
    judge(
        folder.path(),
        0,
        &[
            "--allow-partial",
            "--budget",
            "12s",
            "--skip",
            ON_A_KIND_DISK,
            "--skip",
            "interleave-crash,torn-write",
            "--disclaim",
            "mutual-exclusion",
            "--disclaim",
            "no-residue",
            "--data",
            "records",
            "--add",
            "./store add {data} {n}",
            "--list",
            "./store list {data}",
        ],
    );
}

/// With a `recover` that does nothing, only that was judged, and a store that was blocked forever was reported to
/// recover.
#[test]
fn a_recover_that_does_nothing_saves_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let store = "#!/bin/sh\nif [ $1 = list ]; then cat \"$2\"; exit; fi\n\
                 set -C; i=0; until : > \"$2.lock\"; do i=$((i+1)); [ $i -lt 9 ] || exit 1; sleep 0.01; done 2> /dev/null\n\
                 echo $3 >> \"$2\"; sync \"$2\"; rm \"$2.lock\"\n";
    script(folder.path(), "store", store);
    let adapter = "[data]\npath = \"db.txt\"\n[ops]\nadd = [\"./store\", \"add\", \"{data}\", \"{id}\"]\n\
                   list = [\"./store\", \"list\", \"{data}\"]\nrecover = [\"true\"]\n";
    fs::write(folder.path().join("picklock.toml"), adapter).unwrap();
    let report = judge(folder.path(), 1, &["--only", "crash,recovers-after-crash"]);
    assert_eq!(invariant(&report, "recovers-after-crash")["verdict"], "violated", "{report:#}");
}

/// A usage error emptied the report of the run before.
#[test]
fn a_usage_error_leaves_the_last_report_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("r.json"), "the last one").unwrap();
    let output = picklock(folder.path(), &["check", "--demo", "--output", "r.json", "--only", "nonsense"])
        .output()
        .unwrap();
    expect_status(&output, 2);
    assert_eq!(fs::read_to_string(folder.path().join("r.json")).unwrap(), "the last one");
}

/// The main thread reaped orphans by waiting for any child, and so took the stops of orphans traced by a worker thread:
/// those stayed stopped forever, and concurrent operations were reported not to end.
#[test]
fn the_stop_of_an_orphan_that_is_traced_is_taken_by_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    // The orphan opens a file again and again, for longer than the main thread waits between two checks.
    let store = "#!/bin/sh\n\
                 (i=0; while [ $i -lt 4000 ]; do : < /dev/null; i=$((i+1)); done) &\n\
                 exec flock \"$1.lock\" sh -c 'echo $2 >> \"$1\"' - \"$1\" \"$2\"\n";
    script(folder.path(), "store", store);
    let arguments =
        ["--only", "crash,recovers-after-crash", "--ops", "2", "--clients", "2", "--data", "db.txt"];
    let commands = ["--add", "./store {data} {id}", "--list", "cat {data}"];
    let report = judge(folder.path(), 0, &[&arguments[..], &commands].concat());
    assert_eq!(scenario(&report, "crash")["operations"]["failed"], 0, "{report:#}");
}

/// A store that polls for the lock file of a dead process was reported to recover: its time limit was longer than the
/// scenario's share of the budget, and operations that hung when the time was up were forgotten.
#[test]
fn who_hangs_after_a_kill_until_the_time_is_up_is_not_said_to_recover() {
    let folder = tempfile::tempdir().unwrap();
    let polls = r#"data=$2
if [ "$1" = list ]; then cat "$data"; exit; fi
until (set -C; : >"$data.lock") 2>/dev/null; do sleep 0.05; done
echo "$3" >>"$data"
rm "$data.lock"
"#;
    script(folder.path(), "store", &format!("#!/bin/sh\n{polls}"));
    let only = ["--only", "crash,recovers-after-crash", "--budget", "6s", "--data", "db.txt"];
    let report = judge(folder.path(), 3, &[&only[..], &["--", "./store"]].concat());
    let told = invariant(&report, "recovers-after-crash");
    assert_eq!(told["verdict"], "inconclusive", "{told:#}");
    assert!(told["reason"].as_str().unwrap().contains("the budget ended an operation"), "{told:#}");
}

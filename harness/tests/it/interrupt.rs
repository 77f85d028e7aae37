//! Tests that an interrupted run leaves no process and no file.

use std::fs;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{interruptible, script};

/// Number of runs to end.
const RUNS: u32 = 100;
/// Maximum time until an ended run is gone.
const GONE_MAX: Duration = Duration::from_secs(10);

/// A store that leaves children in their own sessions, which the parent-death signal and process groups miss.
const STORE: &str = "#!/bin/sh
setsid sleep 1000 &
[ \"$1\" = list ] && { cat \"$2\"; exit; }
exec flock \"$2.lock\" sh -c 'echo $2 >> \"$1\"' - \"$2\" $3
";

fn start(folder: &Path, store: &Path) -> Child {
    let store = store.display();
    let (add, list) = (format!("{store} add {{data}} {{id}}"), format!("{store} list {{data}}"));
    let base = folder.join("base");
    let arguments = [
        "check",
        "--exhaustive",
        "--ops",
        "100000",
        "--data",
        "db.txt",
        "--format",
        "json",
        "--dir",
        base.to_str().unwrap(),
        "--add",
        &add,
        "--list",
        &list,
    ];
    // It runs in a group of its own, as if started by a shell.
    interruptible(folder, &arguments)
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Returns the processes whose command line or working sandbox names `folder`.
fn processes_of(folder: &Path) -> Vec<String> {
    let name = folder.to_str().unwrap();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let path = entry.path();
        if !entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        // Every process of a run has the run's own TMPDIR, which is in the base folder.
        let told = ["cmdline", "environ"].map(|file| fs::read(path.join(file)).unwrap_or_default());
        if told.iter().any(|text| String::from_utf8_lossy(text).contains(name)) {
            found.push(format!(
                "{} {}",
                path.display(),
                String::from_utf8_lossy(&told[0]).replace('\0', " ")
            ));
        }
    }
    found
}

/// Waits until `left` is empty.
#[track_caller]
fn expect_gone<T: std::fmt::Debug>(what: &str, left: impl Fn() -> Vec<T>) {
    let begun = Instant::now();
    while !left().is_empty() {
        assert!(begun.elapsed() < GONE_MAX, "{what}: {:?}", left());
        std::thread::yield_now();
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()).collect()
}

fn kill(signal: &str, process: &str) {
    let status = Command::new("kill").args([signal, "--", process]).status().unwrap();
    assert!(status.success());
}

/// Runs are ended at `RUNS` moments, spread over their first third of a second: by the signals of Ctrl-C and of a CI
/// system, and by those that cannot be handled, sent to the process, to its whole group, or to the worker.
#[test]
fn a_run_ended_at_any_moment_leaves_no_process_and_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("base");
    fs::create_dir(&base).unwrap();
    let store = script(folder.path(), "store", STORE);
    for run in 0..RUNS {
        let mut child = start(folder.path(), &store);
        let pid = child.id();
        // Covers every moment of start, control and first round: 100 steps, coprime to the kinds of ends.
        let moment = Duration::from_micros(u64::from(run * 7919 % RUNS) * 3000);
        let begun = Instant::now();
        while begun.elapsed() < moment {
            std::thread::yield_now();
        }
        let worker = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let worker = worker.split_whitespace().next().map(ToOwned::to_owned);
        let (kind, handles) = match run % 5 {
            0 => ("-INT", true),
            1 => ("-TERM", true),
            2 => ("-KILL", false),
            3 => ("-KILL to the group", false),
            _ => ("-KILL to the worker", false),
        };
        match (run % 5, worker) {
            (0..=2, _) => kill(kind, &pid.to_string()),
            (3, _) => kill("-KILL", &format!("-{pid}")),
            (_, Some(worker)) => kill("-KILL", &worker),
            (_, None) => kill("-KILL", &pid.to_string()),
        }
        let asked = Instant::now();
        let mut report = String::new();
        child.stdout.take().unwrap().read_to_string(&mut report).unwrap();
        let mut errors = String::new();
        child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        let status = child.wait().unwrap();
        if handles {
            // Before its handlers are installed, a program dies of the signal itself.
            let early = status.code().is_none() && begun.elapsed() < Duration::from_millis(500);
            assert!(status.code() == Some(130) || early, "{kind}: {status}: {errors}");
            assert!(asked.elapsed() < GONE_MAX);
            // If it is ended before it has begun, it has nothing to report.
            if status.code() == Some(130) && !errors.contains("before anything was run") {
                let report: serde_json::Value = serde_json::from_str(&report).unwrap();
                assert_eq!(report["interrupted"], true);
            }
        }
        expect_gone(&format!("run {run}, {kind}: processes are left"), || processes_of(&base));
        // A process that was killed cannot clean up, but the other of the two does.
        expect_gone(&format!("run {run}, {kind}: it said {errors:?}, and folders are left"), || {
            entries(&base)
        });
    }
}

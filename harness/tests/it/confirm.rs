use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use crate::programs::{invariant, python_script};
use crate::report::expect_valid;
use crate::{picklock, stderr, stdout};

/// Right but for the sync of the folder, which every file system here needs.
const STORE: &str = r#"import fcntl, os, sys
verb, path = sys.argv[1], sys.argv[2]
def load():
    try:
        return open(path).read().split()
    except FileNotFoundError:
        return []
if verb == "list":
    print("\n".join(load()))
    sys.exit()
lock = open(path + ".lock", "a")
fcntl.flock(lock, fcntl.LOCK_EX)
records = load() + [sys.argv[3]]
with open(path + ".tmp", "w") as f:
    f.write("\n".join(records) + "\n")
    f.flush()
    os.fsync(f.fileno())
os.rename(path + ".tmp", path)
"#;

const ARGUMENTS: [&str; 9] = [
    "check",
    "--confirm",
    "ext4",
    "--only",
    "power-loss,acked-survives-power-loss",
    "--data",
    "db.txt",
    "--",
    "./store",
];

/// Whether there can be such file systems here; said where not, since nothing is judged then.
fn can_confirm(folder: &Path) -> bool {
    let output = picklock(folder, &["check", "--confirm", "ext4", "--only", "control"]).output().unwrap();
    if output.status.code() == Some(2) {
        assert!(stderr(&output).contains("--confirm"), "{}", stderr(&output));
        println!("not run: {}", stderr(&output));
        return false;
    }
    true
}

/// The loop devices that have an image of picklock's behind them.
fn images() -> usize {
    let entries = fs::read_dir("/sys/block").unwrap().flatten();
    let behind = entries.filter_map(|entry| fs::read_to_string(entry.path().join("loop/backing_file")).ok());
    behind.filter(|path| path.contains("picklock-image")).count()
}

#[test]
fn a_missing_sync_of_the_folder_is_seen_on_a_real_file_system() {
    let folder = tempfile::tempdir().unwrap();
    if !can_confirm(folder.path()) {
        return;
    }
    python_script(folder.path(), "store", STORE);
    let output = picklock(folder.path(), &[&["check", "--format", "json"], &ARGUMENTS[1..]].concat());
    let output = { output }.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let report = serde_json::from_str(&stdout(&output)).unwrap();
    expect_valid(&report);
    let found = &invariant(&report, "acked-survives-power-loss")["counterexamples"][0];
    assert_eq!(found["confirmed"], serde_json::json!(["ext4"]), "{found}");
    let remarks = report["remarks"].to_string();
    assert!(remarks.contains("seen on ext4 in try"), "{remarks}");
}

#[test]
fn a_run_that_is_ended_while_it_confirms_leaves_no_mount_and_no_device() {
    let folder = tempfile::tempdir().unwrap();
    if !can_confirm(folder.path()) {
        return;
    }
    python_script(folder.path(), "store", STORE);
    for signal in ["-INT", "-KILL", "-TERM"] {
        let before = images();
        let base = folder.path().join(&signal[1..]);
        fs::create_dir(&base).unwrap();
        let mut command = picklock(folder.path(), &ARGUMENTS[..1]);
        command.arg("--dir").arg(&base).args(&ARGUMENTS[1..]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut has_ended = false;
        while images() <= before && !has_ended {
            has_ended = child.try_wait().unwrap().is_some();
            thread::yield_now();
        }
        // It may have come to its end between two looks, which shows nothing and is no failure.
        let _sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        child.wait().unwrap();
        while images() > before || fs::read_dir(&base).unwrap().count() > 0 {
            thread::yield_now();
        }
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        assert!(!mounts.contains(base.to_str().unwrap()), "{mounts}");
    }
}

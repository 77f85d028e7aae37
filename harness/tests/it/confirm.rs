//! Tests the confirmation of findings on real file systems.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::programs::{invariant, python_script};
use crate::report::expect_valid;
use crate::{interruptible, picklock, stderr, stdout};

/// Correct except for the missing sync of the folder, which every file system here needs.
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

/// Far more time than it takes.
const PATIENCE: Duration = Duration::from_secs(60);

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

/// Whether such file systems are available here; prints the reason if not, because nothing is judged then.
fn can_confirm(folder: &Path) -> bool {
    let output =
        picklock(folder, &["check", "--demo", "--confirm", "ext4", "--only", "control"]).output().unwrap();
    if output.status.code() == Some(2) {
        assert!(stderr(&output).contains("--confirm"), "{}", stderr(&output));
        println!("not run: {}", stderr(&output));
        return false;
    }
    true
}

/// Returns the loop devices mounted below a folder, in any namespace of any thread.
fn mounted_below(folder: &Path) -> BTreeSet<String> {
    let below = folder.to_str().unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let threads = processes.filter_map(|process| fs::read_dir(process.path().join("task")).ok());
    let tables = threads.flatten().flatten().filter_map(|thread| {
        // A thread that has ended meanwhile has none.
        fs::read_to_string(thread.path().join("mountinfo")).ok()
    });
    let mut devices = BTreeSet::new();
    for table in tables.filter(|table| table.contains(below)) {
        for line in table.lines().filter(|line| line.contains(below)) {
            let source = line.split(" - ").nth(1).and_then(|rest| rest.split(' ').nth(1));
            devices.extend(source.map(str::to_owned));
        }
    }
    devices
}

/// Whether a loop device is backed by an image of picklock.
fn has_image(device: &str) -> bool {
    let name = device.trim_start_matches("/dev/");
    fs::read_to_string(format!("/sys/block/{name}/loop/backing_file"))
        .is_ok_and(|path| path.contains("picklock-image"))
}

/// Whether something else got this device meanwhile: another test, whose images are mounted elsewhere.
fn is_another_s(device: &str) -> bool {
    mounted_below(Path::new("/")).contains(device)
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
        let base = folder.path().join(&signal[1..]);
        let cases = folder.path().join(format!("cases{signal}"));
        fs::create_dir(&base).unwrap();
        let mut command = interruptible(folder.path(), &ARGUMENTS[..1]);
        command.arg("--dir").arg(&base).arg("--cases").arg(&cases).args(&ARGUMENTS[1..]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // A finding is saved before it is confirmed: mounts from then on serve to confirm it.
        let mut devices = BTreeSet::new();
        while devices.is_empty() {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it tried anything");
            if cases.exists() {
                devices = mounted_below(&base);
            }
            thread::yield_now();
        }
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        child.wait().unwrap();
        // The kernel and the supervisor clean up after a killed process, each in its own time.
        let is_left = || {
            !mounted_below(&base).is_empty()
                || fs::read_dir(&base).unwrap().count() > 0
                || devices.iter().any(|device| has_image(device) && !is_another_s(device))
        };
        let began = Instant::now();
        while is_left() {
            assert!(began.elapsed() < PATIENCE, "{signal}: {:?} {devices:?}", mounted_below(&base));
            thread::yield_now();
        }
    }
}

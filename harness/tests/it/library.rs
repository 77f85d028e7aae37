//! Tests checks that run within `cargo test`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::script;

/// Environment variable of the killed process: the folder of its store.
const FOLDER: &str = "PICKLOCK_TEST_OF_A_KILLED_CHECK";
const PATIENCE: Duration = Duration::from_secs(60);

/// The store writes down its working folder, which is in the sandbox.
const STORE: &str = "#!/bin/sh\ndirname \"$2\" > \"${0%/*}/told.new\" && mv \"${0%/*}/told.new\" \"${0%/*}/told\"\n\
                     case $1 in add) echo \"$3\" >> \"$2\";; list) cat \"$2\";; esac\n";

/// Ctrl-C ends `cargo test` and all its tests at once: a running check left its sandbox in memory for good.
#[test]
fn a_check_whose_test_is_killed_leaves_no_folder() {
    if let Some(folder) = env::var_os(FOLDER) {
        // The process that is killed, started below.
        picklock::check(Path::new(&folder).join("store")).data("db.txt").exhaustive().assert_holds();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    script(folder.path(), "store", STORE);
    let name = "library::a_check_whose_test_is_killed_leaves_no_folder";
    let mut test = Command::new(env::current_exe().unwrap());
    test.args(["--exact", name]).current_dir(folder.path()).env(FOLDER, folder.path());
    let mut victim = test.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    let told = folder.path().join("told");
    while !told.exists() {
        assert!(victim.try_wait().unwrap().is_none() && began.elapsed() < PATIENCE, "it never began");
        std::thread::yield_now();
    }
    let sandbox = PathBuf::from(fs::read_to_string(&told).unwrap().trim());
    assert!(sandbox.exists(), "{sandbox:?}");
    victim.kill().unwrap();
    victim.wait().unwrap();
    let began = Instant::now();
    while sandbox.exists() {
        assert!(began.elapsed() < PATIENCE, "{sandbox:?} is still there");
        std::thread::yield_now();
    }
}

//! Tests of picklock as its user sees it: the program, its exit status, its reports.

mod bad_input;
mod baseline;
mod bench;
mod calls;
mod campaign;
#[cfg(feature = "campaigns")]
mod campaigns;
mod confirm;
mod copies;
mod crash;
mod evidence;
mod fault;
mod house;
mod init;
mod interrupt;
mod judge;
mod lessons;
mod library;
mod locks;
mod odd;
mod page;
mod programs;
mod replay;
mod report;
mod schedules;
mod session;
mod shards;
mod standstill;
mod trace;
mod ways;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// For `--skip` if `interleave` is not selected: the invariants that only it exercises.
pub(crate) const OF_INTERLEAVE: &str = "linearizable,mutual-exclusion";

/// For `--skip` with stores that do not expect disk failures.
pub(crate) const ON_A_KIND_DISK: &str =
    "fault,honest-failure,failed-write-keeps-old,power-loss,power-loss-atomic,acked-survives-power-loss";

/// Returns a `picklock` command with these arguments, run in `folder`.
pub(crate) fn picklock(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_picklock"));
    command.current_dir(folder).args(arguments);
    command
}

/// The same, ended by SIGINT: if the tests run in the background of a script, SIGINT would be ignored, and picklock
/// keeps it ignored.
pub(crate) fn interruptible(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("env");
    command
        .current_dir(folder)
        .args(["--default-signal=INT", env!("CARGO_BIN_EXE_picklock")])
        .args(arguments);
    command
}

/// Returns the standard output of a command.
pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Returns the standard error of a command.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asserts the exit status; prints all output if it differs.
#[track_caller]
pub(crate) fn expect_status(output: &Output, status: i32) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), stderr(output));
    assert_eq!(output.status.code(), Some(status), "\n{out}\n{err}");
}

/// Creates an executable file in `folder`.
pub(crate) fn script(folder: &Path, name: &str, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

//! Tests of picklock as its user sees it: the program, its exit status, its reports.

/// What makes no sense, and what goes wrong, gets a clear error.
mod bad_input;
/// Violations that are known.
mod baseline;
/// Locks and stores that are measured.
mod bench;
/// What calls do, as the trace has it.
mod calls;
/// What runs picklock on many machines.
mod campaign;
/// What takes minutes: `cargo test -p picklock --features campaigns --test it campaigns::`, which `ci/deep` runs.
#[cfg(feature = "campaigns")]
mod campaigns;
/// Findings that are tried on real file systems.
mod confirm;
/// Copies of stopped processes.
mod copies;
/// Kills at every call.
mod crash;
/// What holds rests on what ran, and the report says from where it was tried.
mod evidence;
/// Calls that fail.
mod fault;
/// The generated parts of the repository, and its house rules.
mod house;
/// Adapters that are written, completions and manual pages.
mod init;
/// A run that is ended at any moment leaves nothing behind.
mod interrupt;
/// Recorded histories.
mod judge;
/// Bugs that were found, each with its story.
mod lessons;
/// Checks within tests.
mod library;
/// The lock table against the system's own.
mod locks;
/// Programs of odd kinds under the tracer.
mod odd;
/// The report as a page, in a browser.
mod page;
/// Programs that nobody here wrote, and small ones that anybody would.
mod programs;
/// Cases that run again.
mod replay;
/// The JSON report and its schema.
mod report;
/// Orders of the calls of several clients.
mod schedules;
mod session;
/// Runs that are divided.
mod shards;
/// Who waits for whom when nobody can go on.
mod standstill;
/// One operation's visible calls.
mod trace;
/// Files that are reached by other ways than their plain paths.
mod ways;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// For `--skip` where `interleave` is not chosen: what rests on it alone.
pub(crate) const OF_INTERLEAVE: &str = "linearizable,mutual-exclusion";

/// For `--skip`: stores that do not expect the worst of their disk.
pub(crate) const ON_A_KIND_DISK: &str =
    "fault,honest-failure,failed-write-keeps-old,power-loss,power-loss-atomic,acked-survives-power-loss";

/// `picklock` with these arguments, run in `folder`.
pub(crate) fn picklock(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_picklock"));
    command.current_dir(folder).args(arguments);
    command
}

/// The same, which a SIGINT ends: where the tests run in the background of a script, it would be ignored, and picklock
/// leaves it so.
pub(crate) fn interruptible(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("env");
    command
        .current_dir(folder)
        .args(["--default-signal=INT", env!("CARGO_BIN_EXE_picklock")])
        .args(arguments);
    command
}

/// What a command wrote to standard output.
pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What a command wrote to standard error.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The exit status, with all that was written where it is another one.
#[track_caller]
pub(crate) fn expect_status(output: &Output, status: i32) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), stderr(output));
    assert_eq!(output.status.code(), Some(status), "\n{out}\n{err}");
}

/// A file in `folder` that can be run.
pub(crate) fn script(folder: &Path, name: &str, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

//! Traces operations with ptrace and a seccomp filter, records their visible calls, and injects into them.
//!
//! The filter stops only calls that can be visible; of the stopped calls, those on other files are resumed at once.
//! Every thread and child is followed. A [`Director`] decides what happens to each visible call before it is made: it
//! proceeds, is held, is cut short, or its process is killed there. No process waits for a lock in the kernel: a
//! process that requests a taken lock is held until the lock is free, so it is noticed at once when no process can
//! continue.
//!
//! ptrace belongs to the thread that seized the first process, so operations are traced in the thread that started
//! them. It waits only for its own tracees; if it dies, the kernel kills them all. Apart from `volume`, this is the
//! only module of the harness with `unsafe` code.

mod asleep;
mod clock;
mod descriptor;
mod effect;
mod examine;
mod filter;
mod footprints;
mod kernel;
mod machine;
mod memory;
mod names;
mod path;
mod registers;
mod shape;
mod spawn;
mod start;
mod stopped;
mod template;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::call::{Call, Traced};
use crate::explore::footprint::Footprint;
use crate::locks::Lock;

use machine::Machine;

pub use asleep::Looks;
pub use template::Templates;

/// An operation to trace.
#[derive(Clone, Debug)]
pub struct Traceable<'a> {
    /// The program: an absolute path, or a name to look up on the PATH.
    pub program: &'a Path,
    /// Its arguments.
    pub arguments: &'a [OsString],
    /// Working directory.
    pub cwd: &'a Path,
    /// Variables added to the caller's environment.
    pub environment: &'a [(OsString, OsString)],
    /// Standard input; empty if none is given.
    pub stdin: Option<&'a File>,
    /// Standard output, which can be read while the operation runs; a file of its own if none is given.
    pub stdout: Option<&'a File>,
    /// Its index among the operations of the execution. An execution never has two copies of one template, because
    /// state that a process keeps, such as its id in a shell's `$$`, is the same in both.
    pub turn: u32,
    /// Maximum size of any file, in bytes.
    pub file_max: u64,
}

/// Settings shared by all operations of one execution.
#[derive(Clone)]
pub struct Surroundings<'a> {
    /// The sandbox: actions in it are visible.
    pub sandbox: &'a Path,
    /// TMPDIR of the clients: actions in it are visible too.
    pub temporary: &'a Path,
    /// Time limit of one operation; it is killed afterwards.
    pub timeout: Duration,
    /// Time at which all operations are killed, however many there are.
    pub end: Option<Instant>,
    /// Initial lead of the scheduled clients' clock.
    pub ahead: Duration,
    /// Whether no process of an earlier operation is still alive: such a process could wake one that waits.
    pub is_alone: bool,
    /// Once this is readable, all operations are killed.
    pub stop: Option<BorrowedFd<'a>>,
    /// Whether data copied from file to file is recorded, which costs a little.
    pub is_detailed: bool,
    /// Operations run as copies of processes stopped at their first visible call, if templates are given.
    pub templates: Option<&'a Mutex<Templates>>,
    /// Reads the data without a lock, and returns what is torn, if anything. It is called after each change.
    pub reader: Option<&'a dyn Fn() -> Option<String>>,
    /// Whether the director is asked whenever all clients are at rest: a client may wait for its answer.
    pub is_interactive: bool,
    /// Whether the director chooses the next client at every visible call, and sleeps take no time.
    pub is_scheduled: bool,
    /// A file whose content is recorded with each call that changed it.
    pub shown: Option<PathBuf>,
}

/// A visible call that is about to be made, or the exit of the process that was started.
#[derive(Clone, Debug)]
pub struct Upcoming {
    /// The client.
    pub client: u32,
    /// Its index among the visible calls of the client, from 1; the exit comes after the last.
    pub index: u32,
    /// Its name, as in its manual page; also set for an exit.
    pub name: &'static str,
    /// Whether it creates a file.
    pub creates: bool,
    /// Whether it would change content or names.
    pub changes: bool,
    /// Whether it requests a lock.
    pub asks_for_lock: bool,
    /// Number of bytes to write, if that number can be reduced.
    pub length: Option<u64>,
    /// Whether it is the exit.
    pub is_exit: bool,
}

/// The action applied to a visible call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallAction {
    /// The call is made.
    Go,
    /// The call waits until the director releases the client.
    Hold,
    /// Every process of the operation is killed before the call is made.
    Kill,
    /// The process about to make the call is killed; the others continue.
    KillProcess,
    /// Another process of the operation, given by its number, is killed; the call waits until the director releases it.
    KillOther(u32),
    /// The call does nothing and fails with this error number; a `close` still releases the descriptor.
    Fail(i32),
    /// Before the call is made, its process gets a real file-size limit in the middle of the data to write.
    LimitSize,
    /// The call writes only this many bytes, as it may on a full disk; the operation continues.
    Shorten(u64),
    /// The call writes only this many bytes; then every process of the operation is killed.
    Tear(u64),
}

/// State of a client when every event that can be waited for has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientState {
    /// It has not been started yet.
    NotStarted,
    /// One of its calls is held.
    Held,
    /// It waits for a lock.
    Waits,
    /// It sleeps, or waits for something else.
    Sleeps,
    /// Its operation has ended.
    Ended,
}

/// The action taken when no client continues by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchedulerAction {
    /// Starts this client.
    Start(u32),
    /// Records that the operation of this client begins now.
    Invoke(u32),
    /// Makes the held call of this client; if it is scheduled, makes its next step and nothing else.
    Release(u32),
    /// Makes the held call of this client fail in this way; no further call of it is held.
    Fail(u32, CallAction),
    /// Kills every process of this client.
    Kill(u32),
    /// Something was done that may wake a client.
    Again,
    /// Does nothing: waiting clients keep waiting.
    Nothing,
}

/// A call that is about to start a process, a thread or a program.
#[derive(Clone, Copy, Debug)]
pub struct Spawning {
    /// The client.
    pub client: u32,
    /// Its index among such calls of the client since the client's own program was started, from 1.
    pub nth: u32,
    /// Its name, as in its manual page.
    pub name: &'static str,
}

/// Decides what happens to the calls of an execution.
pub trait Director {
    /// Returns the action for this call.
    fn treat(&mut self, upcoming: &Upcoming) -> CallAction;
    /// Returns the error number with which this call fails, or `None` if it is made.
    fn treat_spawn(&mut self, _spawning: &Spawning) -> Option<i32> {
        None
    }
    /// Returns the action when no client continues by itself although one is held or not started, or may wait for the
    /// director; the state of client 1 comes first.
    fn rest(&mut self, clients: &[ClientState]) -> SchedulerAction;
    /// Returns the next step of scheduled clients.
    fn turn(&mut self, _scene: &Snapshot<'_>) -> SchedulerAction {
        SchedulerAction::Nothing
    }
}

/// State of the scheduled clients when all are at rest.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a> {
    /// Each client; client 1 comes first.
    pub turns: &'a [ClientSnapshot],
    /// Calls that have returned since the last snapshot.
    pub calls: &'a [Call],
    /// Whether a client that is not stopped may continue by itself.
    pub may_wake: bool,
}

/// State of a scheduled client.
#[derive(Clone, Debug)]
pub struct ClientSnapshot {
    /// Its state.
    pub rest: ClientState,
    /// What its next step may access.
    pub footprint: Footprint,
    /// Whether that step is possible now.
    pub can_go: bool,
    /// Length of the sleep, if its next step is one.
    pub sleeps: Option<Duration>,
    /// Whether that step is its exit.
    pub is_exit: bool,
    /// Name of the call that is that step.
    pub name: &'static str,
    /// Whether more of its threads are stopped before a visible call.
    pub has_others: bool,
    /// Whether a timer may end its wait.
    pub has_timer: bool,
    /// Description of that step, identical in all runs that take the same path.
    pub label: String,
    /// Locks that it holds.
    pub holds: Vec<Lock>,
}

/// Why there is no trace.
#[derive(Debug, thiserror::Error)]
pub enum TracerError {
    /// The program could not be started.
    #[error("cannot start {program:?}: {why}")]
    Start {
        /// The program.
        program: PathBuf,
        /// The system's error.
        why: io::Error,
    },
    /// The system does not allow one process to trace another.
    #[error(
        "ptrace is not allowed here ({0}): a container needs the capability SYS_PTRACE or a newer kernel"
    )]
    Forbidden(Errno),
    /// Another call of the tracer failed.
    #[error("cannot {what}: {why}")]
    System {
        /// The attempted action.
        what: &'static str,
        /// The system's error.
        why: io::Error,
    },
}

impl TracerError {
    fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |why| Self::System { what, why: why.into() }
    }
}

/// Runs the operations of the clients, numbered from 1, as the director decides.
///
/// # Errors
/// Fails if a program cannot be started or traced.
pub fn run(
    surroundings: &Surroundings<'_>,
    clients: &[Traceable<'_>],
    director: &mut dyn Director,
) -> Result<Traced, TracerError> {
    let mut machine = Machine::new(surroundings, clients)?;
    let ran = machine.run(director);
    // Whatever happened, no process is left.
    let ended = machine.end_all();
    machine.refuse_unfit_copies();
    ran?;
    ended?;
    machine.into_traced()
}

/// Creates an unnamed file for the output of an operation.
fn scratch() -> Result<File, TracerError> {
    tempfile::tempfile().map_err(TracerError::system("make a file for the output"))
}

fn content(mut file: File) -> Result<Vec<u8>, TracerError> {
    /// Maximum number of bytes kept of an output.
    const KEPT: u64 = 1 << 20;
    let mut content = Vec::new();
    file.rewind()
        .and_then(|()| file.take(KEPT).read_to_end(&mut content))
        .map_err(TracerError::system("read the output"))?;
    Ok(content)
}

//! Traces operations with ptrace and a seccomp filter, records their visible calls, and injects into them.
//!
//! The filter stops the calls that can be visible, and no others; of those that stop, the ones on other files go on
//! at once. Every thread and child is followed. A [`Director`] says what becomes of each visible call before it is
//! made: it goes on, is held, is cut short, or its process dies there. Nobody waits for a lock in the kernel: who wants
//! one that is taken is held until it can be had, so that it is seen at once when nobody can go on.
//!
//! ptrace belongs to the thread that seized the first process, so operations are traced in the thread that started
//! them, which waits for its own tracees alone; if that thread dies, the kernel kills them all. This is the one room
//! with `unsafe` code.

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

/// One operation that is traced.
#[derive(Clone, Debug)]
pub struct Traceable<'a> {
    /// The program, absolute or to be found on the PATH.
    pub program: &'a Path,
    /// Its arguments.
    pub arguments: &'a [OsString],
    /// Where it runs.
    pub cwd: &'a Path,
    /// Added to the caller's environment.
    pub environment: &'a [(OsString, OsString)],
    /// What it reads; nothing where none is given.
    pub stdin: Option<&'a File>,
    /// Where its output goes, to be read meanwhile; a file of its own where none is given.
    pub stdout: Option<&'a File>,
    /// Its place among the operations of the execution: of one template there are never two copies in one execution,
    /// since what a process keeps, such as its id in a shell's `$$`, is the same in both.
    pub turn: u32,
    /// No file may grow past this, in bytes.
    pub file_max: u64,
}

/// What all operations of one execution share.
#[derive(Clone)]
pub struct Surroundings<'a> {
    /// What is done in here is visible.
    pub sandbox: &'a Path,
    /// So is what is done in here, which is the TMPDIR of the clients.
    pub temporary: &'a Path,
    /// How long one operation may run; after this it is killed.
    pub timeout: Duration,
    /// When all are killed, however many they are.
    pub end: Option<Instant>,
    /// How far the clock of scheduled clients is ahead from the start.
    pub ahead: Duration,
    /// Whether no process of an earlier operation lives on, which could wake one that waits.
    pub is_alone: bool,
    /// Once this is readable, they are killed.
    pub stop: Option<BorrowedFd<'a>>,
    /// Whether what is copied from file to file is kept, which costs a little.
    pub is_detailed: bool,
    /// Operations are run as copies of processes that are stopped at their first visible call, where there are any.
    pub templates: Option<&'a Mutex<Templates>>,
    /// Looks at the data as a reader does that takes no lock: what is torn, where anything is. It is asked after each
    /// change.
    pub reader: Option<&'a dyn Fn() -> Option<String>>,
    /// The director is asked whenever all have come to rest: a client may wait for what it says.
    pub is_interactive: bool,
    /// The director says at every visible call whose turn it is, and sleeps take no time.
    pub is_scheduled: bool,
    /// A file whose content is kept beside each call that changed it.
    pub shown: Option<PathBuf>,
}

/// A visible call that is about to be made, or the exit of the process that was started.
#[derive(Clone, Debug)]
pub struct Upcoming {
    /// The client.
    pub client: u32,
    /// Its place among the visible calls of the client, from 1; the exit comes after the last.
    pub index: u32,
    /// Its name, as in its manual page; of an exit too.
    pub name: &'static str,
    /// Whether it makes a file.
    pub creates: bool,
    /// Whether it is to change content or names.
    pub changes: bool,
    /// Whether it asks for a lock.
    pub asks_for_lock: bool,
    /// The bytes that it is to write, where that number can be cut.
    pub length: Option<u64>,
    /// Whether it is the exit.
    pub is_exit: bool,
}

/// What becomes of a visible call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallAction {
    /// It is made.
    Go,
    /// It waits until the injector lets the client go on.
    Hold,
    /// Every process of the operation is killed before it is made.
    Kill,
    /// The process that was to make it is killed; the others go on.
    KillProcess,
    /// Another process of the operation, by its number, is killed, and the call waits until the injector lets it go on.
    KillOther(u32),
    /// It does nothing and fails with this error number; a `close` gives the descriptor up all the same.
    Fail(i32),
    /// Before it is made its process gets a real limit on the size of files, in the middle of what it is to write.
    LimitSize,
    /// It writes only so many bytes, as it may on a full disk; the operation goes on.
    Shorten(u64),
    /// It writes only so many bytes, and then every process of the operation is killed.
    Tear(u64),
}

/// What a client does when all that can be waited for has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientState {
    /// It was not started yet.
    NotStarted,
    /// A call of it is held.
    Held,
    /// It waits for a lock.
    Waits,
    /// It sleeps, or waits for something else.
    Sleeps,
    /// Its operation has ended.
    Ended,
}

/// What is done when nobody goes on by himself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchedulerAction {
    /// This client is started.
    Start(u32),
    /// The operation of this client begins, as far as anybody is told.
    Invoke(u32),
    /// The held call of this client is made; where it is scheduled, its next step, and nothing else.
    Release(u32),
    /// The held call of this client fails like that; nothing else is held of it.
    Fail(u32, CallAction),
    /// Every process of this client is killed.
    Kill(u32),
    /// Something was done that may wake somebody.
    Again,
    /// Nothing: who waits, waits.
    Nothing,
}

/// A call that is about to start a process, a thread or a program.
#[derive(Clone, Copy, Debug)]
pub struct Spawning {
    /// The client.
    pub client: u32,
    /// Its place among such calls of the client since its own program was started, from 1.
    pub nth: u32,
    /// Its name, as in its manual page.
    pub name: &'static str,
}

/// Decides what becomes of the calls of an execution.
pub trait Director {
    /// What becomes of this call.
    fn treat(&mut self, upcoming: &Upcoming) -> CallAction;
    /// The error number with which this call fails; nothing, if it is made.
    fn treat_spawn(&mut self, _spawning: &Spawning) -> Option<i32> {
        None
    }
    /// What is done now that no client goes on by himself, though one is held or not started, or may wait for the
    /// director; the rest of client 1 stands first.
    fn rest(&mut self, clients: &[ClientState]) -> SchedulerAction;
    /// Whose step comes next, where clients are scheduled.
    fn turn(&mut self, _scene: &Snapshot<'_>) -> SchedulerAction {
        SchedulerAction::Nothing
    }
}

/// Where scheduled clients stand when all have come to rest.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a> {
    /// Each client, client 1 first.
    pub turns: &'a [ClientSnapshot],
    /// The calls that have returned since the last time.
    pub calls: &'a [Call],
    /// Whether somebody who is not stopped may go on by himself.
    pub may_wake: bool,
}

/// Where a scheduled client stands.
#[derive(Clone, Debug)]
pub struct ClientSnapshot {
    /// What it does.
    pub rest: ClientState,
    /// What its next step may touch.
    pub footprint: Footprint,
    /// Whether that step can be made now.
    pub can_go: bool,
    /// How long it would sleep, where that is its next step.
    pub sleeps: Option<Duration>,
    /// Whether that step is its exit.
    pub is_exit: bool,
    /// What that step is, by the name of the call.
    pub name: &'static str,
    /// Whether more of its threads stand before a visible call.
    pub has_others: bool,
    /// Whether a timer may end its wait.
    pub has_timer: bool,
    /// What that step is, in words that are the same in every run that goes the same way.
    pub label: String,
    /// The locks that it holds.
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
        /// What the system said.
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
        /// What was tried.
        what: &'static str,
        /// What the system said.
        why: io::Error,
    },
}

impl TracerError {
    fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |why| Self::System { what, why: why.into() }
    }
}

/// Runs the operations of some clients, the first of them client 1, as the injector wants it.
///
/// # Errors
/// Where a program cannot be started, or not be traced.
pub fn run(
    surroundings: &Surroundings<'_>,
    clients: &[Traceable<'_>],
    director: &mut dyn Director,
) -> Result<Traced, TracerError> {
    let mut machine = Machine::new(surroundings, clients)?;
    let ran = machine.run(director);
    // Whatever happened, nobody is left.
    let ended = machine.end_all();
    machine.refuse_unfit_copies();
    ran?;
    ended?;
    machine.into_traced()
}

/// A file without a name for what an operation writes.
fn scratch() -> Result<File, TracerError> {
    tempfile::tempfile().map_err(TracerError::system("make a file for the output"))
}

fn content(mut file: File) -> Result<Vec<u8>, TracerError> {
    /// What is kept of an output.
    const KEPT: u64 = 1 << 20;
    let mut content = Vec::new();
    file.rewind()
        .and_then(|()| file.take(KEPT).read_to_end(&mut content))
        .map_err(TracerError::system("read the output"))?;
    Ok(content)
}

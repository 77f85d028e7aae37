//! The tracer: runs an operation under ptrace and a seccomp filter, and tells its visible calls.
//!
//! The filter stops the calls that can be visible, and no others; of those that stop, the ones on other files go on
//! at once. Every thread and child is followed. ptrace belongs to the thread that seized the first process, so an
//! operation is traced in the thread that started it, which waits for its own tracees alone; if that thread dies, the
//! kernel kills them all. This is the one room with `unsafe` code.

mod descriptor;
mod examine;
mod filter;
mod memory;
mod mirror;
mod names;
mod path;
mod shape;
mod start;
mod stopped;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::Pid;

use crate::call::{End, Trace};

use mirror::Mirror;
use stopped::{Event, Stopped, wait};

/// What is traced.
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
    /// What is done in here is visible.
    pub sandbox: &'a Path,
    /// After this it is killed.
    pub timeout: Duration,
    /// Once this is readable, it is killed.
    pub stop: Option<BorrowedFd<'a>>,
    /// Every process of it is killed before the visible call of this number, or before it exits, if it has fewer.
    pub kill_before: Option<u32>,
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

/// Runs an operation to its end and tells what it did.
///
/// # Errors
/// Where the program cannot be started, or not be traced.
pub fn trace(traceable: &Traceable<'_>) -> Result<Trace, TracerError> {
    let sandbox = traceable.sandbox.canonicalize().map_err(TracerError::system("find the sandbox"))?;
    let (stdout, stderr) = (scratch()?, scratch()?);
    let started = start::start(traceable, &stdout, &stderr)?;
    let root = started.root;
    let deadline = start::Deadline::new(root, traceable.timeout, traceable.stop)?;
    let mut mirror = Mirror::new(sandbox, root);
    let mut waiting = started.release()?;
    let mut kill_before = traceable.kill_before;
    let ended = loop {
        let event = match waiting.take() {
            Some(event) => event,
            None => wait()?,
        };
        if let Some(ended) = step(event, root, &mut mirror, &mut kill_before)? {
            break ended;
        }
    };
    let timed_out = deadline.is_over();
    let survivors = mirror.living_processes();
    end_all(&mut mirror)?;
    Ok(Trace {
        calls: mirror.calls,
        end: match ended {
            _ if timed_out => End::TimedOut,
            // Wanted, and done.
            _ if traceable.kill_before.is_some() && kill_before.is_none() => End::Killed,
            ended => ended,
        },
        stdout: content(stdout)?,
        stderr: content(stderr)?,
        survivors,
        not_covered: mirror.not_covered,
    })
}

/// Takes one event in and lets its thread go on, or kills all where the call that `kill_before` names is about to be
/// made, or the exit; the end of the first process, once that has come.
fn step(
    event: Event,
    root: Pid,
    mirror: &mut Mirror,
    kill_before: &mut Option<u32>,
) -> Result<Option<End>, TracerError> {
    let resumed = match event {
        Event::Ended(thread, end) => {
            mirror.thread_ended(thread, end);
            return Ok((thread == root).then_some(end));
        }
        Event::Entry(stopped, entry) => {
            let is_visible = mirror.entry(stopped.thread(), &entry);
            let is_last = || entry.is_exit() && mirror.is_of(stopped.thread(), root);
            if kill_before.is_some_and(|point| (is_visible && mirror.next_call() >= point) || is_last()) {
                *kill_before = None;
                kill_all(mirror);
                return Ok(None);
            }
            if is_visible { stopped.run_to_exit() } else { stopped.go_on(None) }
        }
        Event::Exit(stopped, result) => {
            mirror.exit(stopped.thread(), result);
            stopped.go_on(None)
        }
        Event::Born(stopped, child) => {
            mirror.born(child);
            stopped.go_on(None)
        }
        Event::Executed(stopped, former) => {
            mirror.executed(stopped.thread(), former);
            stopped.go_on(None)
        }
        Event::Begun(stopped) => {
            mirror.born(stopped.thread());
            stopped.go_on(None)
        }
        Event::GroupStop(stopped) => stopped.stay_stopped(),
        Event::Signal(stopped, signal) => stopped.go_on(Some(signal)),
    };
    match resumed {
        // It was killed meanwhile; its end will be told.
        Ok(()) | Err(Errno::ESRCH) => Ok(None),
        Err(why) => Err(TracerError::System { what: "let a traced thread go on", why: why.into() }),
    }
}

/// Kills every process of the operation. By `kill`, since the kernel may drop a signal that is injected at such a stop.
fn kill_all(mirror: &Mirror) {
    for process in mirror.process_ids() {
        // Gone already, if it cannot be killed.
        let _killed = nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL);
    }
}

/// Kills whatever of the operation still lives, and waits for its end.
fn end_all(mirror: &mut Mirror) -> Result<(), TracerError> {
    loop {
        kill_all(mirror);
        if mirror.living_threads() == 0 {
            return Ok(());
        }
        match wait() {
            Ok(Event::Ended(thread, end)) => mirror.thread_ended(thread, end),
            // One that had just begun is killed in the next round; a stopped one dies of the kill.
            Ok(Event::Begun(stopped)) => mirror.born(Stopped::thread(&stopped)),
            Ok(_) => {}
            Err(TracerError::System { why, .. }) if why.raw_os_error() == Some(libc::ECHILD) => return Ok(()),
            Err(other) => return Err(other),
        }
    }
}

/// A file without a name for what the operation writes.
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

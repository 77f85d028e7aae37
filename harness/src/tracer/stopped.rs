//! ptrace, so that only what is stopped can be resumed, and only once: a [`Stopped`] is consumed by what resumes it.

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::unistd::Pid;

use crate::call::End;
use crate::tracer::TracerError;
use crate::tracer::filter::FOREIGN;

/// Because the thread was seized, not attached to, this event reports the first stop of a new thread, and group stops.
const PTRACE_EVENT_STOP: i32 = 128;
const PTRACE_LISTEN: libc::c_uint = 0x4208;

/// A thread that is stopped, and waits to be resumed.
#[derive(Debug)]
#[must_use = "a stopped thread stays stopped until it is resumed"]
pub(super) struct Stopped(Pid);

/// A call that is about to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) arguments: [u64; 6],
    /// Whether it is a call of another architecture, whose numbers mean other calls.
    pub(super) is_foreign: bool,
}

/// What happened to a thread.
#[derive(Debug)]
pub(super) enum Event {
    /// It is about to make a call that the filter stops.
    Entry(Stopped, Entry),
    /// The call that it was allowed to make has returned.
    Exit(Stopped, Result<i64, i32>),
    /// It created another thread or process.
    Born(Stopped, Pid),
    /// It is new.
    Begun(Stopped),
    /// Its process runs another program; its thread had this id before.
    Executed(Stopped, Pid),
    /// Its process is stopped by SIGSTOP or the like.
    GroupStop(Stopped),
    /// It is about to get a signal, by its number.
    Signal(Stopped, i32),
    /// It has ended.
    Ended(Pid, End),
}

impl Entry {
    /// Whether it asks for the process id.
    pub(super) fn asks_for_pid(&self) -> bool {
        !self.is_foreign && i64::try_from(self.number).is_ok_and(|number| number == libc::SYS_getpid)
    }

    /// Whether its process is about to exit.
    pub(super) fn is_exit(&self) -> bool {
        !self.is_foreign && i64::try_from(self.number).is_ok_and(|number| number == libc::SYS_exit_group)
    }
}

impl Event {
    /// Returns the thread of the event.
    pub(super) fn thread(&self) -> Pid {
        match self {
            Self::Entry(stopped, _)
            | Self::Exit(stopped, _)
            | Self::Born(stopped, _)
            | Self::Begun(stopped)
            | Self::Executed(stopped, _)
            | Self::GroupStop(stopped)
            | Self::Signal(stopped, _) => stopped.thread(),
            Self::Ended(thread, _) => *thread,
        }
    }
}

impl Stopped {
    pub(super) fn thread(&self) -> Pid {
        self.0
    }

    /// Returns a thread that was left stopped and whose stop is held nowhere else.
    pub(super) fn again(thread: Pid) -> Self {
        Self(thread)
    }

    /// Runs it until its next event, with this signal, by its number: real-time signals have no name.
    pub(super) fn go_on(self, signal: Option<i32>) -> Result<(), Errno> {
        let signal = usize::try_from(signal.unwrap_or(0)).unwrap_or(0);
        #[expect(unsafe_code, reason = "nix knows no real-time signals")]
        // SAFETY: the request takes a thread and a number, and touches no memory of this process.
        let resumed = unsafe { libc::ptrace(libc::PTRACE_CONT, self.0.as_raw(), 0_usize, signal) };
        Errno::result(resumed).map(drop)
    }

    /// Runs it until the call about to be made returns.
    pub(super) fn run_to_exit(self) -> Result<(), Errno> {
        ptrace::syscall(self.0, None)
    }

    /// Leaves it in its group stop until SIGCONT.
    pub(super) fn stay_stopped(self) -> Result<(), Errno> {
        #[expect(unsafe_code, reason = "nix has no PTRACE_LISTEN")]
        // SAFETY: the request takes a thread and two unused arguments, and touches no memory of this process.
        let listening = unsafe { libc::ptrace(PTRACE_LISTEN, self.0.as_raw(), 0, 0) };
        Errno::result(listening).map(drop)
    }
}

/// Waits for the next event of any thread that this thread traces.
pub(super) fn wait() -> Result<Event, TracerError> {
    loop {
        if let Some(event) = next(0)? {
            return Ok(event);
        }
    }
}

/// Waits for the next event of this one thread.
pub(super) fn wait_for(thread: Pid) -> Result<Event, TracerError> {
    loop {
        if let Some((thread, status)) = waited(thread.as_raw(), libc::__WALL)?
            && let Some(event) = decode(thread, status)
        {
            return Ok(event);
        }
    }
}

/// Returns the next event, if there is one already.
pub(super) fn poll() -> Result<Option<Event>, TracerError> {
    next(libc::WNOHANG)
}

fn next(how: i32) -> Result<Option<Event>, TracerError> {
    loop {
        match waited(-1, libc::__WALL | libc::__WNOTHREAD | how)? {
            None => return Ok(None),
            Some((thread, status)) => {
                if let Some(event) = decode(thread, status) {
                    return Ok(Some(event));
                }
            }
        }
    }
}

/// Returns the status of a thread, as the kernel reports it: the safe wrappers refuse one with a real-time signal.
fn waited(which: i32, how: i32) -> Result<Option<(Pid, i32)>, TracerError> {
    loop {
        let mut status = 0;
        #[expect(unsafe_code, reason = "the safe wrappers know no real-time signals")]
        // SAFETY: the kernel writes one number, to a place that outlives the call.
        let waited = unsafe { libc::waitpid(which, &raw mut status, how) };
        match Errno::result(waited) {
            Ok(0) => return Ok(None),
            Ok(thread) => return Ok(Some((Pid::from_raw(thread), status))),
            Err(Errno::EINTR) => {}
            Err(why) => {
                return Err(TracerError::System { what: "wait for a traced thread", why: why.into() });
            }
        }
    }
}

/// Decodes a status; `None` if the thread was killed before it could be queried.
fn decode(thread: Pid, status: i32) -> Option<Event> {
    /// The bit that `PTRACE_O_TRACESYSGOOD` adds to the signal of a stop at a call.
    const AT_A_CALL: i32 = 0x80;
    if libc::WIFEXITED(status) {
        return Some(Event::Ended(thread, End::Exited(libc::WEXITSTATUS(status))));
    }
    if libc::WIFSIGNALED(status) {
        return Some(Event::Ended(thread, End::Signalled(libc::WTERMSIG(status))));
    }
    if !libc::WIFSTOPPED(status) {
        return None;
    }
    let (stopped, signal) = (Stopped(thread), libc::WSTOPSIG(status));
    let event = match status >> 16 {
        0 if signal == libc::SIGTRAP | AT_A_CALL => Event::Exit(stopped, result(thread)?),
        0 => Event::Signal(stopped, signal),
        libc::PTRACE_EVENT_SECCOMP => Event::Entry(stopped, entry(thread)?),
        libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK => {
            Event::Born(stopped, message(thread)?)
        }
        libc::PTRACE_EVENT_EXEC => Event::Executed(stopped, message(thread)?),
        PTRACE_EVENT_STOP if signal == libc::SIGTRAP => Event::Begun(stopped),
        _ => Event::GroupStop(stopped),
    };
    Some(event)
}

fn message(thread: Pid) -> Option<Pid> {
    i32::try_from(ptrace::getevent(thread).ok()?).ok().map(Pid::from_raw)
}

fn entry(thread: Pid) -> Option<Entry> {
    let info = ptrace::syscall_info(thread).ok()?;
    if info.op != libc::PTRACE_SYSCALL_INFO_SECCOMP {
        return None;
    }
    #[expect(unsafe_code, reason = "which member of the union is there is told by `op`")]
    // SAFETY: `op` says that the kernel filled in `seccomp`.
    let call = unsafe { info.u.seccomp };
    Some(Entry { number: call.nr, arguments: call.args, is_foreign: call.ret_data == FOREIGN })
}

fn result(thread: Pid) -> Option<Result<i64, i32>> {
    let info = ptrace::syscall_info(thread).ok()?;
    if info.op != libc::PTRACE_SYSCALL_INFO_EXIT {
        return None;
    }
    #[expect(unsafe_code, reason = "which member of the union is there is told by `op`")]
    // SAFETY: `op` says that the kernel filled in `exit`.
    let exit = unsafe { info.u.exit };
    let failed = exit.is_error != 0;
    // A wait ended by a signal: the kernel decides later what result the program gets, mostly `EINTR`.
    let errno = |number: i64| match number {
        512..=514 | 516 => libc::EINTR,
        other => i32::try_from(other).unwrap_or(0),
    };
    Some(if failed { Err(errno(-exit.sval)) } else { Ok(exit.sval) })
}

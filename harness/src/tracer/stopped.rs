//! ptrace, so that only what is stopped can be resumed, and only once: a [`Stopped`] is consumed by what resumes it.

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::call::End;
use crate::tracer::TracerError;
use crate::tracer::filter::FOREIGN;

/// Since the thread was seized, and not attached to, this event tells the first stop of a new one, and group stops.
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
    /// It is a call of another architecture, whose numbers mean other things.
    pub(super) is_foreign: bool,
}

/// What happened to a thread.
#[derive(Debug)]
pub(super) enum Event {
    /// It is about to make a call that the filter stops.
    Entry(Stopped, Entry),
    /// The call that it was let into has returned.
    Exit(Stopped, Result<i64, i32>),
    /// It made another thread or process.
    Born(Stopped, Pid),
    /// It is new.
    Begun(Stopped),
    /// Its process runs another program; its thread had this number before.
    Executed(Stopped, Pid),
    /// Its process is stopped by SIGSTOP or the like.
    GroupStop(Stopped),
    /// It is about to get a signal.
    Signal(Stopped, Signal),
    /// It has ended.
    Ended(Pid, End),
}

impl Entry {
    /// Whether its process is about to exit.
    pub(super) fn is_exit(&self) -> bool {
        !self.is_foreign && i64::try_from(self.number).is_ok_and(|number| number == libc::SYS_exit_group)
    }
}

impl Event {
    /// Whom it happened to.
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

    /// A thread that was left stopped, and whose stop nobody else has.
    pub(super) fn again(thread: Pid) -> Self {
        Self(thread)
    }

    /// Lets it run until something happens.
    pub(super) fn go_on(self, signal: Option<Signal>) -> Result<(), Errno> {
        ptrace::cont(self.0, signal)
    }

    /// Lets it run until the call returns that it is about to make.
    pub(super) fn run_to_exit(self) -> Result<(), Errno> {
        ptrace::syscall(self.0, None)
    }

    /// Leaves it stopped as it wants to be, until SIGCONT.
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
        if let Some(event) = next(WaitPidFlag::empty())? {
            return Ok(event);
        }
    }
}

/// Waits for the next event of this one thread.
pub(super) fn wait_for(thread: Pid) -> Result<Event, TracerError> {
    loop {
        let waited = waitpid(thread, Some(WaitPidFlag::__WALL));
        match waited {
            Ok(status) => {
                if let Some(event) = decode(status) {
                    return Ok(event);
                }
            }
            Err(Errno::EINTR) => {}
            Err(why) => {
                return Err(TracerError::System { what: "wait for a traced thread", why: why.into() });
            }
        }
    }
}

/// The next event, where there is one already.
pub(super) fn poll() -> Result<Option<Event>, TracerError> {
    next(WaitPidFlag::WNOHANG)
}

fn next(how: WaitPidFlag) -> Result<Option<Event>, TracerError> {
    loop {
        let status = match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD | how)) {
            Ok(WaitStatus::StillAlive) => return Ok(None),
            Ok(status) => status,
            Err(Errno::EINTR) => continue,
            Err(why) => {
                return Err(TracerError::System { what: "wait for a traced thread", why: why.into() });
            }
        };
        if let Some(event) = decode(status) {
            return Ok(Some(event));
        }
    }
}

/// What a status means; nothing where the thread was killed before it could be asked.
fn decode(status: WaitStatus) -> Option<Event> {
    let event = match status {
        WaitStatus::Exited(thread, status) => Event::Ended(thread, End::Exited(status)),
        WaitStatus::Signaled(thread, signal, _) => Event::Ended(thread, End::Signalled(signal as i32)),
        WaitStatus::Stopped(thread, signal) => Event::Signal(Stopped(thread), signal),
        WaitStatus::PtraceSyscall(thread) => Event::Exit(Stopped(thread), result(thread)?),
        WaitStatus::PtraceEvent(thread, signal, event) => {
            let stopped = Stopped(thread);
            match event {
                libc::PTRACE_EVENT_SECCOMP => Event::Entry(stopped, entry(thread)?),
                libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK => {
                    Event::Born(stopped, message(thread)?)
                }
                libc::PTRACE_EVENT_EXEC => Event::Executed(stopped, message(thread)?),
                PTRACE_EVENT_STOP if signal == Signal::SIGTRAP => Event::Begun(stopped),
                _ => Event::GroupStop(stopped),
            }
        }
        WaitStatus::Continued(_) | WaitStatus::StillAlive => return None,
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
    Some(if failed { Err(i32::try_from(-exit.sval).unwrap_or(0)) } else { Ok(exit.sval) })
}

//! Runs one operation as a process: in its own group, within limits, killed if wanted, and waited for.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, kill_process_group, pidfd_open, pidfd_send_signal, prlimit,
    test_kill_process_group,
};

use crate::op::Limit;
use crate::runner::groups::{await_empty, count_group, has_died, strays_of};
use crate::runner::kill::{Kill, Trigger};
use crate::runner::touch::Events;
use crate::runner::{RunError, Stop};
use crate::target::Limits;
use crate::tracer::Looks;

/// The signal of a process that wrote past its file size limit.
pub(super) const SIGXFSZ: i32 = 25;
/// Interval between checks of the process count of a long operation.
const TICK: Duration = Duration::from_millis(250);
/// Delay before its pipes are watched. They hold the output of a short operation, and a process closes its pipes before
/// it ends: waking up for each costs more than all other work here for an operation.
const LISTEN_AFTER: Duration = Duration::from_millis(20);
/// Killed processes end at once; one that does not is stuck in the kernel, which nothing can change.
const DEATH_MAX: Duration = Duration::from_secs(10);

/// The program to start, and its environment.
#[derive(Clone, Copy)]
pub(super) struct Invocation<'a> {
    pub(super) program: &'a Path,
    pub(super) arguments: &'a [OsString],
    pub(super) cwd: &'a Path,
    /// Added to the caller's environment.
    pub(super) environment: &'a [(OsString, OsString)],
}

/// External events that may affect the operation.
#[derive(Clone, Copy)]
pub(super) struct Interference<'a> {
    pub(super) kill: Option<Kill<'a>>,
    pub(super) hard_end: Option<Instant>,
    pub(super) stop: &'a Stop,
    pub(super) on_late: &'a dyn Fn(),
    pub(super) on_start: &'a dyn Fn(Process),
    /// Whether no other operation is running, so that waiting for another process would last forever.
    pub(super) is_alone: bool,
}

/// The process group of an operation: the pid of the process that picklock started.
pub(super) type Process = Pid;

/// How an operation ended, as the system reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Exited(i32),
    Signalled(i32),
    Killed,
    Limit(Limit),
    /// It waited for itself.
    Hung,
}

/// Result of one operation.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) invoked: Instant,
    pub(super) returned: Instant,
    pub(super) end: End,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    pub(super) group: Process,
    /// Whether some process of its group is still alive.
    pub(super) has_survivors: bool,
}

/// Runs an operation until the started process has ended, which need not close its pipes.
pub(super) fn run(
    invocation: &Invocation<'_>,
    limits: &Limits,
    interference: Interference<'_>,
) -> Result<Ended, RunError> {
    let invoked = Instant::now();
    let child = Command::new(invocation.program)
        .args(invocation.arguments)
        .current_dir(invocation.cwd)
        .envs(invocation.environment.iter().map(|(key, value)| (key, value)))
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|why| RunError::Start { program: invocation.program.to_owned(), why })?;
    // From here on it is killed and waited for on every path.
    let mut child = Unreaped(Some(child));
    let mut running = Running::new(&mut child, limits)?;
    (interference.on_start)(running.group);
    let wanted = running.watch(invoked, limits, interference)?;
    if wanted.is_some() {
        running.kill()?;
    }
    running.drain();
    let (group, stdout, stderr) = (running.group, running.stdout.bytes, running.stderr.bytes);
    let status = child.wait()?;
    if wanted.is_some() {
        // The other processes of its group were killed too; once they are gone, their effects are complete.
        await_empty(group);
    }
    let returned = Instant::now();
    let end = match (status.code(), status.signal(), wanted) {
        (Some(status), ..) => End::Exited(status),
        // It may have been killed by something else just before, which cannot be distinguished.
        (_, Some(9), Some(wanted)) => wanted,
        (_, signal, _) => End::Signalled(signal.unwrap_or_default()),
    };
    // An operation past its limit is unfinished, even if it exits at the last moment.
    let end = if let Some(limit @ (End::Limit(_) | End::Hung)) = wanted { limit } else { end };
    let has_survivors = test_kill_process_group(group).is_ok();
    Ok(Ended { invoked, returned, end, stdout, stderr, group, has_survivors })
}

/// Returns the name of a signal, if it is a common one.
pub(super) fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        SIGXFSZ => "SIGXFSZ",
        31 => "SIGSYS",
        other => return other.to_string(),
    };
    name.to_owned()
}

/// A child that has not been waited for yet.
struct Unreaped(Option<Child>);

impl Unreaped {
    fn get(&mut self) -> Result<&mut Child, RunError> {
        let gone = || RunError::System { what: "find a client", why: io::Error::from_raw_os_error(3) };
        self.0.as_mut().ok_or_else(gone)
    }

    fn wait(mut self) -> Result<ExitStatus, RunError> {
        let status = self.get()?.wait().map_err(RunError::system("wait for a client"));
        self.0 = None;
        status
    }
}

impl Drop for Unreaped {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _killed = kill_process_group(Pid::from_child(child), Signal::KILL);
            let _status = child.wait();
        }
    }
}

struct Running {
    group: Process,
    ended: OwnedFd,
    stdout: Capture,
    stderr: Capture,
    /// Whether the pipes are watched.
    listens: bool,
}

struct Capture {
    pipe: Option<OwnedFd>,
    bytes: Vec<u8>,
}

impl Running {
    fn new(child: &mut Unreaped, limits: &Limits) -> Result<Self, RunError> {
        let child = child.get()?;
        // The child has not been waited for, so its pid cannot be reused.
        let group = Pid::from_child(child);
        let ended = pidfd_open(group, PidfdFlags::empty()).map_err(RunError::system("watch a client"))?;
        // Best effort, and too late for the first microseconds of a program: a client that has ended already needs no
        // limits.
        for (resource, limit) in [(Resource::Fsize, limits.file), (Resource::Core, 0)] {
            let _previous =
                prlimit(Some(group), resource, Rlimit { current: Some(limit), maximum: Some(limit) });
        }
        let stdout = Capture::new(child.stdout.take().map(OwnedFd::from))?;
        let stderr = Capture::new(child.stderr.take().map(OwnedFd::from))?;
        Ok(Self { group, ended, stdout, stderr, listens: false })
    }

    /// Watches the operation until it ends (returns `None`) or has to be killed (returns the reason).
    fn watch(
        &mut self,
        invoked: Instant,
        limits: &Limits,
        interference: Interference<'_>,
    ) -> Result<Option<End>, RunError> {
        let late = invoked.checked_add(limits.timeout);
        let mut trigger = Trigger::new(interference.kill, invoked);
        let mut tick = invoked + TICK;
        let mut looks = Looks::default();
        loop {
            let now = Instant::now();
            // An operation cut short with the whole run is as indeterminate as a planned kill.
            if interference.stop.is_requested() || interference.hard_end.is_some_and(|end| now >= end) {
                return Ok(Some(End::Killed));
            }
            if trigger.is_due(now, &self.ended) {
                return Ok(Some(End::Killed));
            }
            if late.is_some_and(|late| now >= late) {
                (interference.on_late)();
                return Ok(Some(End::Limit(Limit::Timeout)));
            }
            if now >= tick {
                if count_group(self.group) > limits.processes as usize {
                    return Ok(Some(End::Limit(Limit::Processes)));
                }
                if interference.is_alone && looks.hang(self.group.as_raw_pid()) {
                    return Ok(Some(End::Hung));
                }
                tick = now + TICK;
            }
            let listen_at = invoked + LISTEN_AFTER;
            self.listens = now >= listen_at;
            let listen_at = Some(listen_at).filter(|_| !self.listens);
            let wake = [late, trigger.wake(now), interference.hard_end, listen_at]
                .into_iter()
                .flatten()
                .fold(tick, Instant::min);
            if self.wait_until(wake, now, interference.stop, trigger.events())? {
                return Ok(None);
            }
            if (self.stdout.bytes.len() + self.stderr.bytes.len()) as u64 > limits.output {
                return Ok(Some(End::Limit(Limit::Output)));
            }
        }
    }

    /// Waits for an event, reads new output, and returns whether the operation has ended.
    fn wait_until(
        &mut self,
        wake: Instant,
        now: Instant,
        stop: &Stop,
        events: Option<&Events>,
    ) -> Result<bool, RunError> {
        let timeout = Timespec::try_from(wake.saturating_duration_since(now)).ok();
        let (ended, has_output) = {
            let mut watched = vec![PollFd::new(&self.ended, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
            let pipes = [&self.stdout, &self.stderr].into_iter().filter_map(|capture| capture.pipe.as_ref());
            let pipes = pipes.filter(|_| self.listens);
            watched.extend(pipes.map(|pipe| PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)));
            let of_output = 2..watched.len();
            watched.extend(events.map(Events::poll_fd));
            match poll(&mut watched, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(why) => return Err(RunError::System { what: "wait for a client", why: why.into() }),
            }
            let fired = |one: &PollFd<'_>| !one.revents().is_empty();
            (fired(&watched[0]), watched[of_output].iter().any(fired))
        };
        if has_output {
            self.stdout.read_some();
            self.stderr.read_some();
        }
        Ok(ended)
    }

    /// Kills every process of its group at the same instant, then escaped processes, and waits for the end of the first
    /// process.
    fn kill(&mut self) -> Result<(), RunError> {
        let strays = strays_of(self.group);
        // The child has not been waited for, so the group exists, even if its leader is dead.
        let _killed = kill_process_group(self.group, Signal::KILL);
        for stray in &strays {
            let _killed = pidfd_send_signal(stray, Signal::KILL);
        }
        for stray in &strays {
            has_died(stray, DEATH_MAX);
        }
        if has_died(&self.ended, DEATH_MAX) {
            return Ok(());
        }
        let why = io::Error::other(format!("process {} hangs in the kernel", self.group.as_raw_pid()));
        Err(RunError::System { what: "kill a client", why })
    }

    /// Reads the rest of the pipes, without waiting for processes that still hold them.
    fn drain(&mut self) {
        self.stdout.read_some();
        self.stderr.read_some();
    }
}

impl Capture {
    fn new(pipe: Option<OwnedFd>) -> Result<Self, RunError> {
        if let Some(pipe) = &pipe {
            rustix::io::ioctl_fionbio(pipe, true).map_err(RunError::system("set up a pipe"))?;
        }
        Ok(Self { pipe, bytes: Vec::new() })
    }

    /// Reads available output; at most a pipe's capacity, so that an endless writer is still bounded.
    fn read_some(&mut self) {
        let Some(pipe) = &self.pipe else { return };
        let mut buffer = [0; 16 << 10];
        for _ in 0..8 {
            match rustix::io::read(pipe, &mut buffer) {
                Ok(0) => {
                    self.pipe = None;
                    return;
                }
                Ok(count) => self.bytes.extend_from_slice(&buffer[..count]),
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

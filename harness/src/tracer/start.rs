//! Starts a process that is traced from its first instruction, and ends it at its time limit.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::call::End;
use crate::tracer::{Traceable, TracerError, asleep, filter};

/// A process that is seized, and about to run its program.
pub(super) struct Started {
    pub(super) root: Pid,
    program: PathBuf,
    failure: OwnedFd,
}

/// Starts it in a group of its own, seized with all its descendants, before it runs a single call of the program. Its
/// first events belong to the way to its program, which runs from `Event::Executed` on.
pub(super) fn start(
    traceable: &Traceable<'_>,
    stdout: &File,
    stderr: &File,
    is_scheduled: bool,
) -> Result<Started, TracerError> {
    let program = search(traceable.program);
    let prepared = Prepared::new(traceable, &program, is_scheduled)
        .map_err(|why| TracerError::Start { program: program.clone(), why })?;
    let pipe = || {
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(TracerError::system("make a pipe"))
    };
    let (behind_gate, gate) = pipe()?;
    let (failure, its_failure) = pipe()?;
    let null = File::open("/dev/null").map_err(TracerError::system("open /dev/null"))?;
    let stdin = traceable.stdin.unwrap_or(&null);
    let descriptors = [stdin.as_raw_fd(), stdout.as_raw_fd(), stderr.as_raw_fd()];
    #[expect(
        unsafe_code,
        reason = "between fork and exec the filter must be set up, which nothing safe does"
    )]
    // SAFETY: the child makes only async-signal-safe calls, on memory that was prepared before, and ends in exec or
    // `_exit`.
    let forked = unsafe {
        match libc::fork() {
            0 => prepared.become_the_program(descriptors, behind_gate.as_raw_fd(), its_failure.as_raw_fd()),
            pid => pid,
        }
    };
    if forked < 0 {
        return Err(TracerError::System { what: "fork", why: io::Error::last_os_error() });
    }
    let root = Pid::from_raw(forked);
    let options = Options::PTRACE_O_EXITKILL
        | Options::PTRACE_O_TRACESECCOMP
        | Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC;
    if let Err(why) = ptrace::seize(root, options) {
        let _killed = kill(root, Signal::SIGKILL);
        let _reaped = nix::sys::wait::waitpid(root, None);
        return Err(TracerError::Forbidden(why));
    }
    rustix::io::write(&gate, &[1]).map_err(TracerError::system("open the gate"))?;
    Ok(Started { root, program, failure })
}

impl Started {
    /// Returns what went wrong if it ended before it ran a program: the child reports it through the pipe.
    pub(super) fn failure(self) -> TracerError {
        let mut code = [0; 4];
        let read = rustix::io::read(&self.failure, &mut code);
        let code = if read.is_ok_and(|count| count == 4) { i32::from_ne_bytes(code) } else { libc::EIO };
        TracerError::Start { program: self.program, why: io::Error::from_raw_os_error(code) }
    }
}

/// Everything the child needs, prepared so that it need not allocate.
struct Prepared {
    program: CString,
    cwd: CString,
    _words: Vec<CString>,
    argv: Vec<*const libc::c_char>,
    _environment: Vec<CString>,
    envp: Vec<*const libc::c_char>,
    filter: Vec<libc::sock_filter>,
    file_max: libc::rlimit,
}

impl Prepared {
    fn new(traceable: &Traceable<'_>, program: &std::path::Path, is_scheduled: bool) -> io::Result<Self> {
        let text = |bytes: &[u8]| CString::new(bytes).map_err(io::Error::other);
        let program = text(program.as_os_str().as_bytes())?;
        let mut words = vec![program.clone()];
        for argument in traceable.arguments {
            words.push(text(argument.as_bytes())?);
        }
        let added = traceable.environment;
        let inherited = std::env::vars_os().filter(|(key, _)| added.iter().all(|(other, _)| other != key));
        let environment = inherited
            .chain(added.iter().cloned())
            .map(|(key, value): (OsString, OsString)| {
                text(&[key.as_bytes(), b"=", value.as_bytes()].concat())
            })
            .collect::<io::Result<Vec<CString>>>()?;
        let pointers = |texts: &[CString]| {
            texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
        };
        Ok(Self {
            cwd: text(traceable.cwd.as_os_str().as_bytes())?,
            argv: pointers(&words),
            envp: pointers(&environment),
            program,
            _words: words,
            _environment: environment,
            filter: filter::program(is_scheduled),
            file_max: libc::rlimit { rlim_cur: traceable.file_max, rlim_max: traceable.file_max },
        })
    }

    /// Runs the child. Reports the error number through `failure` if it cannot become the program.
    ///
    /// # Safety
    /// Only for the child of a `fork`.
    #[expect(unsafe_code, reason = "see `start`")]
    unsafe fn become_the_program(&self, descriptors: [i32; 3], gate: i32, failure: i32) -> ! {
        // SAFETY: all pointers are to memory owned by `self`, which lives in the copied memory; all calls are
        // async-signal-safe.
        unsafe {
            let filter = libc::sock_fprog {
                len: self.filter.len() as libc::c_ushort,
                filter: self.filter.as_ptr().cast_mut(),
            };
            let mut byte = 0_u8;
            let done = libc::setpgid(0, 0) == 0
                && (0..3).all(|number| libc::dup2(descriptors[number as usize], number) >= 0)
                && libc::chdir(self.cwd.as_ptr()) == 0
                // The Rust runtime ignores it, and ignored signals stay ignored across exec.
                && libc::signal(libc::SIGPIPE, libc::SIG_DFL) != libc::SIG_ERR
                // The gate is opened once this process is seized.
                && libc::read(gate, (&raw mut byte).cast(), 1) == 1
                // The store must not inherit the descriptors that picklock was given besides its standard streams.
                && libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) == 0
                && libc::setrlimit(libc::RLIMIT_FSIZE, &raw const self.file_max) == 0
                && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) == 0;
            if done {
                libc::execve(self.program.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr());
            }
            let code = *libc::__errno_location();
            libc::write(failure, (&raw const code).cast(), 4);
            libc::_exit(127)
        }
    }
}

/// Looks up a program without a slash on the PATH.
fn search(program: &std::path::Path) -> PathBuf {
    if program.as_os_str().as_bytes().contains(&b'/') {
        return program.to_owned();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|candidate| {
        rustix::fs::access(candidate, rustix::fs::Access::EXEC_OK).is_ok() && candidate.is_file()
    });
    found.unwrap_or_else(|| program.to_owned())
}

/// Ends the operations at their time limit, or when the only one is seen to be blocked forever.
pub(super) struct Deadline {
    done: Option<OwnedFd>,
    is_over: Arc<AtomicBool>,
    hangs: Arc<AtomicBool>,
    groups: Arc<Mutex<Vec<Pid>>>,
    watcher: Option<JoinHandle<()>>,
}

/// Interval between checks of an operation that may hang.
const LOOK_EVERY: Duration = Duration::from_millis(250);

impl Deadline {
    pub(super) fn new(
        timeout: Duration,
        is_alone: bool,
        stop: Option<BorrowedFd<'_>>,
    ) -> Result<Self, TracerError> {
        let stop = stop
            .map(|stop| stop.try_clone_to_owned())
            .transpose()
            .map_err(TracerError::system("duplicate a descriptor"))?;
        let (ears, done) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(TracerError::system("make a pipe"))?;
        let (is_over, hangs) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let groups = Arc::new(Mutex::new(Vec::new()));
        let watcher = Watcher {
            ears,
            stop,
            end: Instant::now().checked_add(timeout),
            is_alone,
            is_over: Arc::clone(&is_over),
            hangs: Arc::clone(&hangs),
            groups: Arc::clone(&groups),
        };
        let watcher = thread::spawn(move || watcher.watch());
        Ok(Self { done: Some(done), is_over, hangs, groups, watcher: Some(watcher) })
    }

    /// Returns how an operation ended that was ended by this deadline.
    pub(super) fn end(&self) -> End {
        if self.hangs.load(Ordering::SeqCst) { End::Stuck } else { End::TimedOut }
    }

    /// Adds a group to kill at the deadline; kills it at once if the deadline has passed.
    pub(super) fn watch(&self, group: Pid) {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.push(group);
        if self.is_over() {
            end(group);
        }
    }

    /// Removes a group whose leader was waited for: from now on its number may be reused.
    pub(super) fn forget(&self, group: Pid) {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| *other != group);
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }
}

/// State of the thread of a [`Deadline`].
struct Watcher {
    ears: OwnedFd,
    stop: Option<OwnedFd>,
    end: Option<Instant>,
    is_alone: bool,
    is_over: Arc<AtomicBool>,
    hangs: Arc<AtomicBool>,
    groups: Arc<Mutex<Vec<Pid>>>,
}

impl Watcher {
    fn watch(&self) {
        let mut looks = asleep::Looks::default();
        loop {
            let now = Instant::now();
            let left = self.end.map(|end| end.saturating_duration_since(now));
            let next = match self.is_alone {
                true => Some(left.map_or(LOOK_EVERY, |left| left.min(LOOK_EVERY))),
                false => left,
            };
            let timeout = next.and_then(|next| Timespec::try_from(next).ok());
            let mut watched = vec![PollFd::new(&self.ears, PollFlags::IN)];
            watched.extend(self.stop.iter().map(|stop| PollFd::new(stop, PollFlags::IN)));
            // The pipe is hung up as soon as all operations have ended; anything else means that their time is over, or
            // that they are due for a check.
            let Ok(woken) = poll(&mut watched, timeout.as_ref()) else { return };
            if watched.first().is_some_and(|ears| !ears.revents().is_empty()) {
                return;
            }
            let is_late = self.end.is_some_and(|end| Instant::now() >= end);
            let groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
            let hangs = woken == 0
                && !is_late
                && groups.len() == 1
                && groups.iter().all(|group| looks.hang(group.as_raw()));
            if woken > 0 || is_late || hangs {
                self.hangs.store(hangs, Ordering::SeqCst);
                self.is_over.store(true, Ordering::SeqCst);
                for group in groups.iter() {
                    end(*group);
                }
                return;
            }
        }
    }
}

/// Kills a group and its first process, which may have left it.
fn end(group: Pid) {
    let _killed = killpg(group, Signal::SIGKILL);
    let _killed = kill(group, Signal::SIGKILL);
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.done = None;
        if let Some(watcher) = self.watcher.take() {
            // It only waits and kills, and has nothing to report.
            let _ended = watcher.join();
        }
    }
}

//! Templates: a process stopped at its first visible call, of which copies are made, so that a client need not start
//! from nothing each time.
//!
//! A copy is made by a `clone` that the template is made to call instead of its own call: with `CLONE_PARENT`, so that
//! the copy is our child and not the template's, and with the address given to `set_tid_address`, which is cleared at
//! the copy's end. Then the registers of both are restored, and the copy makes the call at which the template is
//! stopped. A process can be copied if it has one thread, no child, no armed timer, no shared writable map, a current
//! folder outside the sandbox, and no descriptors but the first three and regular files opened for reading, whose
//! offsets are reset before each copy. The caller is responsible for what a copy shows: it compares it with a fresh
//! start.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Seek as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, setpgid};

use crate::tracer::path::Roots;
use crate::tracer::registers::{self, Registers};
use crate::tracer::stopped::{Event, Stopped, wait_for};
use crate::tracer::{Traceable, TracerError};

/// Maximum age of a template: time-outs computed when it was started would have expired in a copy of an old one. A
/// template that takes long to start may be older. If that makes a difference, a copy does not do what a fresh start
/// does.
const AGE_MAX: Duration = Duration::from_secs(2);
const AGE_MAX_OF_SLOW: Duration = Duration::from_secs(8);
const STARTS: u32 = 40;
/// Maximum number of templates kept at a time: the operations of one execution.
const TEMPLATES_MAX: usize = 16;

/// The templates of a run. They are ended when this value is dropped.
#[derive(Debug, Default)]
pub struct Templates {
    all: Vec<Template>,
    /// Reason why this target is not copied.
    refused: Option<String>,
    /// Whether copies see the process id of their template: what the template stored of it then fits them.
    keeps_pid: bool,
}

#[derive(Debug)]
struct Template {
    key: Key,
    process: Pid,
    began: Instant,
    age_max: Duration,
    registers: Registers,
    entry_number: u64,
    tid_address: Option<u64>,
    /// Files opened for reading, with their offsets.
    files: Vec<(OwnedFd, u64)>,
    output: (File, File),
}

/// The properties that make two starts equal.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    program: PathBuf,
    arguments: Vec<OsString>,
    cwd: PathBuf,
    environment: Vec<(OsString, OsString)>,
    turn: u32,
    /// Whether it is scheduled: its filter then stops other calls.
    is_scheduled: bool,
}

impl Key {
    fn of(traceable: &Traceable<'_>, is_scheduled: bool) -> Self {
        Self {
            program: traceable.program.to_owned(),
            arguments: traceable.arguments.to_vec(),
            cwd: traceable.cwd.to_owned(),
            environment: traceable.environment.to_vec(),
            turn: traceable.turn,
            is_scheduled,
        }
    }
}

/// A copy, stopped before the call at which its template is stopped.
pub(super) struct Copy {
    pub(super) process: Pid,
    pub(super) stopped: Stopped,
    pub(super) output: (File, File),
    pub(super) template: Pid,
}

impl Templates {
    /// Sets whether copies see the process id of their template or their own.
    pub fn keep_pid(&mut self, keeps: bool) {
        self.keeps_pid = keeps;
    }

    /// Whether copies see the process id of their template.
    pub fn keeps_pid(&self) -> bool {
        self.keeps_pid
    }

    /// Disables copies from now on, for this reason.
    pub fn refuse(&mut self, why: impl Into<String>) {
        self.end();
        self.refused.get_or_insert(why.into());
    }

    /// Returns why no copies are made.
    pub fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// Returns the process groups of the templates.
    pub fn groups(&self) -> Vec<i32> {
        self.all.iter().map(|template| template.process.as_raw()).collect()
    }

    /// Ends all templates.
    pub fn end(&mut self) {
        for template in self.all.drain(..) {
            template.end();
        }
    }

    /// Returns a copy of the template of this operation, if there is one that is not too old.
    pub(super) fn copy_of(
        &mut self,
        traceable: &Traceable<'_>,
        is_scheduled: bool,
    ) -> Result<Option<Copy>, TracerError> {
        let old = |template: &Template| template.began.elapsed() > template.age_max;
        while let Some(at) = self.all.iter().position(old) {
            self.all.remove(at).end();
        }
        let key = Key::of(traceable, is_scheduled);
        let Some(template) = self.all.iter().find(|template| template.key == key) else { return Ok(None) };
        let copy = template.copy()?;
        Ok(copy)
    }

    /// Makes a template of a process stopped at its first visible call, if it is fit for that; otherwise returns the
    /// process.
    pub(super) fn keep(
        &mut self,
        traceable: &Traceable<'_>,
        is_scheduled: bool,
        stopped: Stopped,
        number: u64,
        sandbox: &Roots,
        tid_address: Option<u64>,
        output: &(File, File),
        took: Duration,
    ) -> Result<Option<Stopped>, TracerError> {
        let process = stopped.thread();
        if self.refused.is_some() || !cfg!(target_arch = "x86_64") || traceable.stdin.is_some() {
            return Ok(Some(stopped));
        }
        let fit = match fitness(process, sandbox, output) {
            Ok(files) => files,
            Err(why) => {
                self.refuse(why);
                return Ok(Some(stopped));
            }
        };
        let clone = |file: &File| file.try_clone().map_err(TracerError::system("duplicate a descriptor"));
        let template = Template {
            key: Key::of(traceable, is_scheduled),
            process,
            began: Instant::now(),
            age_max: (took * STARTS).clamp(AGE_MAX, AGE_MAX_OF_SLOW),
            registers: registers::read(process).map_err(TracerError::system("read registers"))?,
            entry_number: number,
            tid_address,
            files: fit,
            output: (clone(&output.0)?, clone(&output.1)?),
        };
        template.begin(stopped)?;
        if self.all.len() == TEMPLATES_MAX {
            self.all.remove(0).end();
        }
        self.all.push(template);
        Ok(None)
    }
}

impl Drop for Templates {
    fn drop(&mut self) {
        self.end();
    }
}

impl Template {
    /// Moves a process stopped before its call to the stop after a call that did nothing, from which the next copies
    /// are made.
    fn begin(&self, stopped: Stopped) -> Result<(), TracerError> {
        registers::refuse(self.process, libc::ENOSYS).map_err(TracerError::system("hold a call back"))?;
        stopped.run_to_exit().map_err(TracerError::system("stop a template"))?;
        match wait_for(self.process)? {
            Event::Exit(..) => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn copy(&self) -> Result<Option<Copy>, TracerError> {
        let failed = TracerError::system("copy a template");
        for (file, offset) in &self.files {
            rustix::fs::seek(file, rustix::fs::SeekFrom::Start(*offset))
                .map_err(TracerError::system("set a file back"))?;
        }
        for output in [&self.output.0, &self.output.1] {
            let mut output = output;
            output
                .set_len(0)
                .and_then(|()| output.rewind())
                .map_err(TracerError::system("empty an output"))?;
        }
        let flags = libc::CLONE_PARENT | libc::SIGCHLD;
        // The id kept by the C library stays the template's: it identifies the owner of a recursive mutex, such as the
        // one that SQLite holds at its first visible call.
        let tid = if self.tid_address.is_some() { libc::CLONE_CHILD_CLEARTID } else { 0 };
        let arguments = [u64::from((flags | tid).unsigned_abs()), 0, 0, self.tid_address.unwrap_or(0), 0, 0];
        let number = u64::try_from(libc::SYS_clone).unwrap_or(0);
        registers::write(self.process, self.registers)
            .and_then(|()| registers::make_again(self.process, number, arguments))
            .map_err(failed)?;
        Stopped::again(self.process).go_on(None).map_err(TracerError::system("copy a template"))?;
        // The filter stops this call too.
        match wait_for(self.process)? {
            Event::Entry(stopped, _) => {
                stopped.go_on(None).map_err(TracerError::system("copy a template"))?;
            }
            other => return Err(unexpected(&other)),
        }
        let (stopped, copy) = match wait_for(self.process)? {
            Event::Born(stopped, copy) => (stopped, copy),
            other => return Err(unexpected(&other)),
        };
        stopped.run_to_exit().map_err(TracerError::system("copy a template"))?;
        match wait_for(self.process)? {
            Event::Exit(..) => {}
            other => return Err(unexpected(&other)),
        }
        let stopped = match wait_for(copy)? {
            Event::Begun(stopped) => stopped,
            other => return Err(unexpected(&other)),
        };
        registers::write(copy, self.registers)
            .and_then(|()| {
                let arguments = registers::arguments(&self.registers);
                registers::make_again(copy, self.entry_number, arguments)
            })
            .map_err(TracerError::system("set the registers of a copy"))?;
        // It has not run another program since it was created, so this is allowed (setpgid(2)).
        setpgid(copy, copy).map_err(TracerError::system("give a copy a group"))?;
        let clone = |file: &File| file.try_clone().map_err(TracerError::system("duplicate a descriptor"));
        Ok(Some(Copy {
            process: copy,
            stopped,
            output: (clone(&self.output.0)?, clone(&self.output.1)?),
            template: self.process,
        }))
    }

    fn end(self) {
        // It is our child, and nothing else waits for it.
        let _killed = kill(self.process, Signal::SIGKILL);
        while matches!(wait_for(self.process), Ok(event) if !matches!(event, Event::Ended(..))) {}
    }
}

fn unexpected(event: &Event) -> TracerError {
    TracerError::System { what: "copy a template", why: io::Error::other(format!("{event:?} came instead")) }
}

/// Returns the files that a process has open for reading, with their offsets, or why it cannot be copied.
fn fitness(process: Pid, sandbox: &Roots, output: &(File, File)) -> Result<Vec<(OwnedFd, u64)>, String> {
    let proc = PathBuf::from(format!("/proc/{process}"));
    let count = |folder: &Path| fs::read_dir(folder).map_or(0, Iterator::count);
    if count(&proc.join("task")) != 1 {
        return Err("it has several threads at its first visible call".into());
    }
    let children = fs::read_to_string(proc.join(format!("task/{process}/children"))).unwrap_or_default();
    if !children.trim().is_empty() {
        return Err("it has a child at its first visible call".into());
    }
    let maps =
        fs::read_to_string(proc.join("maps")).map_err(|why| format!("its maps cannot be read: {why}"))?;
    if maps.lines().any(|line| {
        line.split_whitespace().nth(1).is_some_and(|mode| mode.starts_with("rw") && mode.ends_with('s'))
    }) {
        return Err("it has a shared writable map at its first visible call".into());
    }
    let cwd = fs::read_link(proc.join("cwd")).map_err(|why| format!("its folder cannot be read: {why}"))?;
    if sandbox.contain(&cwd) {
        return Err("it runs in the sandbox, which is replaced for each execution".into());
    }
    let is_file = |fd: i32, file: &File| {
        let own = file.metadata().map(|own| (own.dev(), own.ino()));
        own.ok() == crate::tracer::descriptor::file(process, fd)
    };
    let is_null = fs::read_link(proc.join("fd/0")).is_ok_and(|link| link == Path::new("/dev/null"));
    if !is_null || !is_file(1, &output.0) || !is_file(2, &output.1) {
        return Err("it has put something else in the place of a standard stream".into());
    }
    let mut files = Vec::new();
    for fd in crate::tracer::descriptor::all(process).into_iter().filter(|fd| *fd > 2) {
        let link = fs::read_link(proc.join(format!("fd/{fd}"))).unwrap_or_default();
        let info = fs::read_to_string(proc.join(format!("fdinfo/{fd}"))).unwrap_or_default();
        let field = |key: &str| info.lines().find_map(|line| line.strip_prefix(key).map(str::trim));
        let flags =
            field("flags:").and_then(|flags| i32::from_str_radix(flags, 8).ok()).unwrap_or(libc::O_RDWR);
        let offset = field("pos:").and_then(|offset| offset.parse().ok()).unwrap_or(0);
        let is_regular = fs::metadata(proc.join(format!("fd/{fd}"))).is_ok_and(|metadata| metadata.is_file());
        if !is_regular || flags & libc::O_ACCMODE != libc::O_RDONLY || sandbox.contain(&link) {
            return Err(format!("it has {} open at its first visible call", link.display()));
        }
        files.push((
            get_descriptor(process, fd).map_err(|why| format!("a descriptor cannot be taken: {why}"))?,
            offset,
        ));
    }
    Ok(files)
}

/// Duplicates a descriptor of another process into this one: the same open file description.
fn get_descriptor(process: Pid, fd: i32) -> io::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(process.as_raw()).ok_or(io::ErrorKind::NotFound)?;
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
    #[expect(unsafe_code, reason = "rustix offers pidfd_getfd for descriptors that it made itself alone")]
    // SAFETY: the call takes three numbers; it returns a new descriptor that has no other owner.
    unsafe {
        let got = libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0);
        if got < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(got as i32))
    }
}

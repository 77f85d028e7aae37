//! Supervises the working process from a parent process, so that nothing of a run outlives it.
//!
//! `picklock check` starts itself once more, as the *kept* process in a group of its own, with a socket between the
//! two as its standard input. Both are subreapers: a process whose parent dies becomes the child of the nearest one
//! above. When the kept process ends, even by SIGKILL, the supervisor ends whatever it left, and removes its folders.
//! When the supervisor is killed, the socket closes, and the kept process stops, cleans up and ends. Signals that ask for
//! an end reach the supervisor and are handed on.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::signal::SigSet;
use picklock::report::exit;
use picklock::runner::Stop;
use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_process, kill_process_group, set_child_subreaper, wait, waitpid,
};
use signal_hook::consts::{SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;

/// The first argument of a kept process.
pub(crate) const MARK: &str = "--kept";
/// Signals that ask for an end.
const ENDS: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];
/// How often orphans are reaped.
const REAP_EVERY: Duration = Duration::from_millis(100);
/// How long a run that was asked to end may take to write its report; past that it is ended without one.
const LAST_WORDS: Duration = Duration::from_secs(8);

/// Starts this program again with `arguments`, keeps it, and returns its exit status.
pub(crate) fn keep(arguments: &[OsString]) -> anyhow::Result<u8> {
    set_child_subreaper(Some(getpid())).context("cannot become the supervisor of all children")?;
    let mut signals =
        Signals::new(ends().iter().chain(&[SIGTSTP, SIGCONT, SIGCHLD])).context("cannot handle signals")?;
    // Whoever becomes this program by `exec` may have children already, and they are none of its business.
    let strangers = children();
    let (link, its_link) = UnixStream::pair().context("cannot make a socket")?;
    let child = Command::new("/proc/self/exe")
        .arg(MARK)
        .args(arguments)
        .stdin(Stdio::from(OwnedFd::from(its_link)))
        // Of its own, so that a SIGKILL for this whole group leaves somebody to clean up.
        .process_group(0)
        .spawn()
        .context("cannot start the process that works")?;
    let kept = Pid::from_child(&child);
    let folders = thread::spawn(move || folders_told(link));
    let status = loop {
        let status = signals.forever().find_map(|signal| match signal {
            SIGCHLD => reap(kept),
            SIGTSTP => {
                let _stopped = kill_process_group(kept, Signal::STOP);
                let _stopped = kill_process(getpid(), Signal::STOP);
                None
            }
            SIGCONT => {
                let _goes_on = kill_process_group(kept, Signal::CONT);
                None
            }
            end => {
                let _asked = Signal::from_named_raw(end).map(|end| kill_process(kept, end));
                // Where it is stopped it would never hear of it.
                let _goes_on = kill_process_group(kept, Signal::CONT);
                None
            }
        });
        if let Some(status) = status {
            break status;
        }
    };
    end_all_children(&strangers);
    // The kept process is gone, and all who had its standard input with it.
    for folder in folders.join().unwrap_or_default() {
        // Gone already, unless it was killed.
        let _removed = fs::remove_dir_all(folder);
    }
    match (status.code(), status.signal()) {
        (Some(code), _) => Ok(u8::try_from(code).unwrap_or(exit::INTERNAL)),
        // It did not come to handle what was handed on to it.
        (None, Some(end)) if ENDS.contains(&end) => {
            // Nobody is left to tell where standard error is closed.
            let _written = writeln!(io::stderr(), "interrupted before anything was run");
            Ok(exit::INTERRUPTED)
        }
        (None, signal) => {
            anyhow::bail!("the process that did the work was ended by signal {}", signal.unwrap_or_default())
        }
    }
}

/// Runs `work` as the kept process: asked to end by a signal, or by the supervisor's death, it stops. Whatever it leaves
/// is ended.
pub(crate) fn run_supervised<F>(work: F) -> anyhow::Result<u8>
where
    F: FnOnce(&Stop, &(dyn Fn(&Path) + Sync)) -> anyhow::Result<u8> + Send + 'static,
{
    set_child_subreaper(Some(getpid())).context("cannot become the supervisor of all children")?;
    let stop = Stop::new().context("cannot make an event")?;
    let link =
        UnixStream::from(io::stdin().as_fd().try_clone_to_owned().context("cannot reach the supervisor")?);
    let mut signals = Signals::new(ends()).context("cannot handle signals")?;
    // It is no foreground group of its terminal, and must not be stopped for writing there (`stty tostop`).
    let mut terminal = SigSet::empty();
    terminal.add(nix::sys::signal::Signal::SIGTTOU);
    terminal.thread_block().context("cannot block a signal")?;
    let asked = stop.clone();
    thread::spawn(move || {
        for _ in signals.forever() {
            asked.request();
        }
    });
    let (asked, mut ears) = (stop.clone(), link.try_clone().context("cannot reach the supervisor")?);
    thread::spawn(move || {
        // The supervisor never says anything: what comes is its end.
        let _ended = io::copy(&mut ears, &mut io::sink());
        asked.request();
    });
    let (told, result) = mpsc::channel();
    let its_stop = stop.clone();
    let folders: Arc<Mutex<Vec<PathBuf>>> = Arc::default();
    let its_folders = Arc::clone(&folders);
    // Not in the main thread, which reaps: see `reap_orphans`.
    thread::spawn(move || {
        let link = Mutex::new(link);
        let made = |folder: &Path| {
            its_folders.lock().unwrap_or_else(PoisonError::into_inner).push(folder.to_owned());
            let mut line = folder.as_os_str().as_bytes().to_vec();
            line.push(b'\0');
            // A keeper that is gone removes nothing; this process does.
            let _told = link.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line);
        };
        // The main thread waits for it as long as it lives itself.
        let _told = told.send(work(&its_stop, &made));
    });
    let mut asked_at = None;
    let ended = loop {
        match result.recv_timeout(REAP_EVERY) {
            Ok(ended) => break ended,
            // Only a panic ends the thread without a word; it has been printed.
            Err(RecvTimeoutError::Disconnected) => break Ok(exit::INTERNAL),
            Err(RecvTimeoutError::Timeout) => {
                reap_orphans();
                if stop.is_requested() && asked_at.get_or_insert_with(Instant::now).elapsed() > LAST_WORDS {
                    break Err(anyhow::anyhow!(
                        "the run was asked to end and could not within {LAST_WORDS:?}"
                    ));
                }
            }
        }
    };
    end_all_children(&[]);
    if ended.is_err() {
        // What could not end within its time leaves its folders, and there may be no keeper any more to remove them.
        for folder in folders.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _removed = fs::remove_dir_all(folder);
        }
    }
    ended
}

/// The signals that ask for an end, but for those that are to be ignored, as under `nohup`.
fn ends() -> Vec<i32> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored =
        status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    let is_ignored = |signal: &i32| ignored.is_some_and(|mask| mask >> (signal - 1) & 1 == 1);
    ENDS.into_iter().filter(|signal| !is_ignored(signal)).collect()
}

/// The folders that the kept process made, told one after another until it ends.
fn folders_told(link: UnixStream) -> Vec<PathBuf> {
    let told = BufReader::new(link).split(b'\0').map_while(Result::ok);
    told.map(|folder| PathBuf::from(OsString::from_vec(folder))).collect()
}

/// Reaps the dead among the children; the status of `wanted`, if it is among them.
fn reap(wanted: Pid) -> Option<ExitStatus> {
    let mut found = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == wanted {
            found = Some(ExitStatus::from_raw(status.as_raw()));
        }
    }
    found
}

/// Reaps the dead among the orphans. They are given to the main thread, which starts nobody itself, so that no operation
/// is reaped that a client waits for.
///
/// One after another, by number: to wait for any of them would also take the stops of those that another thread of this
/// process traces, which then stay stopped for ever (`wait_consider_task` in the kernel's `exit.c`: a child that is
/// traced by its own parent's process is told of as to the tracer, whoever asks).
fn reap_orphans() {
    let main = getpid().as_raw_nonzero();
    for orphan in pids_in(&Path::new("/proc/self/task").join(main.to_string())) {
        let status =
            fs::read_to_string(format!("/proc/{}/status", orphan.as_raw_nonzero())).unwrap_or_default();
        let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let is_dead = field("State:").is_some_and(|state| state.starts_with('Z'));
        if is_dead && field("TracerPid:") == Some("0") {
            let _reaped = waitpid(Some(orphan), WaitOptions::NOHANG);
        }
    }
}

/// The children of this process, of all its threads.
fn children() -> Vec<Pid> {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    threads.flat_map(|thread| pids_in(&thread.path())).collect()
}

/// The children of one thread, by its folder in `/proc`.
fn pids_in(thread: &Path) -> Vec<Pid> {
    let list = fs::read_to_string(thread.join("children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

/// Kills and reaps every child until there is none but `strangers`. A child that dies leaves its own children to this
/// process.
fn end_all_children(strangers: &[Pid]) {
    let give_up = Instant::now() + LAST_WORDS;
    loop {
        let left: Vec<Pid> = children().into_iter().filter(|child| !strangers.contains(child)).collect();
        if left.is_empty() || Instant::now() > give_up {
            return;
        }
        for child in left {
            let _killed = kill_process(child, Signal::KILL);
        }
        // Whichever dies first; with none left there is nothing to wait for.
        let _reaped = wait(WaitOptions::NOHANG);
        thread::yield_now();
    }
}

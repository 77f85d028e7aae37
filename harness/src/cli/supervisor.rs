//! Supervises the working process from a parent process, so that nothing of a run outlives it.
//!
//! `picklock check` starts itself again as the *supervised* process, in its own group, with a socket to the supervisor
//! as standard input. Both are subreapers: a process whose parent dies becomes the child of the nearest one above.
//! When the supervised process ends, even by SIGKILL, the supervisor kills all processes that it left, and removes its
//! folders. When the supervisor is killed, the socket closes, and the supervised process stops, cleans up and exits.
//! The supervisor receives termination signals and forwards them.

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

/// First argument of a supervised process.
pub(crate) const MARK: &str = "--kept";
/// Termination signals.
const ENDS: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];
/// Interval at which orphans are reaped.
const REAP_EVERY: Duration = Duration::from_millis(100);
/// Time for a run to write its report after a termination request; after that it is ended without one.
const LAST_WORDS: Duration = Duration::from_secs(8);

/// Starts this program again with `arguments`, supervises it, and returns its exit status.
pub(crate) fn keep(arguments: &[OsString]) -> anyhow::Result<u8> {
    set_child_subreaper(Some(getpid())).context("cannot become the supervisor of all children")?;
    let mut signals =
        Signals::new(ends().iter().chain(&[SIGTSTP, SIGCONT, SIGCHLD])).context("cannot handle signals")?;
    // A process that becomes this program by `exec` may already have children; they are left alone.
    let strangers = children();
    let (link, its_link) = UnixStream::pair().context("cannot make a socket")?;
    let child = Command::new("/proc/self/exe")
        .arg(MARK)
        .args(arguments)
        .stdin(Stdio::from(OwnedFd::from(its_link)))
        // Its own group, so that a SIGKILL to the supervisor's group leaves a process to clean up.
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
                // A stopped process would never handle the signal.
                let _goes_on = kill_process_group(kept, Signal::CONT);
                None
            }
        });
        if let Some(status) = status {
            break status;
        }
    };
    end_all_children(&strangers);
    // The supervised process and all that shared its standard input have ended.
    for folder in folders.join().unwrap_or_default() {
        // Already removed, unless the process was killed.
        let _removed = fs::remove_dir_all(folder);
    }
    match (status.code(), status.signal()) {
        (Some(code), _) => Ok(u8::try_from(code).unwrap_or(exit::INTERNAL)),
        // It ended before it could handle the forwarded signal.
        (None, Some(end)) if ENDS.contains(&end) => {
            // If standard error is closed, the message cannot be printed.
            let _written = writeln!(io::stderr(), "interrupted before anything was run");
            Ok(exit::INTERRUPTED)
        }
        (None, signal) => {
            anyhow::bail!("the process that did the work was ended by signal {}", signal.unwrap_or_default())
        }
    }
}

/// Runs `work` as the supervised process. A termination signal or the supervisor's death stops it. All processes that
/// it leaves are killed.
pub(crate) fn run_supervised<F>(work: F) -> anyhow::Result<u8>
where
    F: FnOnce(&Stop, &(dyn Fn(&Path) + Sync)) -> anyhow::Result<u8> + Send + 'static,
{
    set_child_subreaper(Some(getpid())).context("cannot become the supervisor of all children")?;
    let stop = Stop::new().context("cannot make an event")?;
    let link =
        UnixStream::from(io::stdin().as_fd().try_clone_to_owned().context("cannot reach the supervisor")?);
    let mut signals = Signals::new(ends()).context("cannot handle signals")?;
    // It is not in its terminal's foreground group, and must not be stopped for writing there (`stty tostop`).
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
        // The supervisor never sends anything: the end of the stream means that it ended.
        let _ended = io::copy(&mut ears, &mut io::sink());
        asked.request();
    });
    let (told, result) = mpsc::channel();
    let its_stop = stop.clone();
    let folders: Arc<Mutex<Vec<PathBuf>>> = Arc::default();
    let its_folders = Arc::clone(&folders);
    // Not in the main thread, which reaps orphans: see `reap_orphans`.
    thread::spawn(move || {
        let link = Mutex::new(link);
        let made = |folder: &Path| {
            its_folders.lock().unwrap_or_else(PoisonError::into_inner).push(folder.to_owned());
            let mut line = folder.as_os_str().as_bytes().to_vec();
            line.push(b'\0');
            // If the supervisor has ended, this process removes the folders itself.
            let _told = link.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line);
        };
        // The main thread waits for the result as long as it runs.
        let _told = told.send(work(&its_stop, &made));
    });
    let mut asked_at = None;
    let ended = loop {
        match result.recv_timeout(REAP_EVERY) {
            Ok(ended) => break ended,
            // Only a panic ends the thread without a result; it has been printed.
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
        // A run that did not end in time leaves its folders, and there may be no supervisor left to remove them.
        for folder in folders.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _removed = fs::remove_dir_all(folder);
        }
    }
    ended
}

/// Returns the termination signals, except those that are ignored, as under `nohup`.
fn ends() -> Vec<i32> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored =
        status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    let is_ignored = |signal: &i32| ignored.is_some_and(|mask| mask >> (signal - 1) & 1 == 1);
    ENDS.into_iter().filter(|signal| !is_ignored(signal)).collect()
}

/// Reads the folders that the supervised process reports, until it ends.
fn folders_told(link: UnixStream) -> Vec<PathBuf> {
    let told = BufReader::new(link).split(b'\0').map_while(Result::ok);
    told.map(|folder| PathBuf::from(OsString::from_vec(folder))).collect()
}

/// Reaps terminated children; returns the status of `wanted` if it is one of them.
fn reap(wanted: Pid) -> Option<ExitStatus> {
    let mut found = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == wanted {
            found = Some(ExitStatus::from_raw(status.as_raw()));
        }
    }
    found
}

/// Reaps terminated orphans. They are reparented to the main thread, which starts no process itself, so that no
/// operation is reaped that a client waits for.
///
/// Waits for each by pid: waiting for any child would also take the stops of children that another thread of this
/// process traces, which would then stay stopped forever (`wait_consider_task` in the kernel's `exit.c`: a child that
/// is traced by its own parent's process is reported as to the tracer, whichever thread waits).
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

/// Returns the children of all threads of this process.
fn children() -> Vec<Pid> {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    threads.flat_map(|thread| pids_in(&thread.path())).collect()
}

/// Returns the children of one thread, given its folder in `/proc`.
fn pids_in(thread: &Path) -> Vec<Pid> {
    let list = fs::read_to_string(thread.join("children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

/// Kills and reaps children until none but `strangers` is left. The children of a killed child become children of this
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
        // Reaps whichever ended first; if no child is left, there is nothing to wait for.
        let _reaped = wait(WaitOptions::NOHANG);
        thread::yield_now();
    }
}

//! Whether a thread that is not stopped sleeps in the kernel, and what could wake it.

use std::fs;

use nix::unistd::Pid;

/// How a thread sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sleep {
    /// It does not.
    Awake,
    /// Until time has passed, or in something that is not known here.
    Other,
    /// Until a child of it ends or a signal comes.
    Child,
    /// Until another thread wakes it.
    Thread,
    /// Until the other end of this pipe, by its inode, is written, read or closed.
    Pipe(u64),
    /// Until a lock is free for which it was let into the kernel.
    Lock,
}

impl Sleep {
    /// How this thread sleeps, as `/proc` tells it.
    pub(super) fn of(thread: Pid) -> Self {
        let Ok(stat) = fs::read_to_string(format!("/proc/{thread}/stat")) else { return Self::Awake };
        let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next());
        if state != Some("S") {
            return Self::Awake;
        }
        let Ok(call) = fs::read_to_string(format!("/proc/{thread}/syscall")) else { return Self::Awake };
        let words: Vec<i64> = call
            .split_whitespace()
            .filter_map(|word| match word.strip_prefix("0x") {
                Some(hex) => u64::from_str_radix(hex, 16).ok().map(u64::cast_signed),
                None => word.parse().ok(),
            })
            .collect();
        let [number, arguments @ ..] = words.as_slice() else { return Self::Awake };
        let argument = |index: usize| arguments.get(index).copied().unwrap_or(0);
        match *number {
            libc::SYS_wait4 | libc::SYS_waitid | libc::SYS_rt_sigsuspend => Self::Child,
            libc::SYS_futex if argument(3) == 0 => Self::Thread,
            libc::SYS_flock | libc::SYS_fcntl => Self::Lock,
            libc::SYS_read | libc::SYS_write => pipe(thread, argument(0)).map_or(Self::Other, Self::Pipe),
            _ => Self::Other,
        }
    }
}

/// The inode of the pipe that a descriptor is one end of.
fn pipe(thread: Pid, descriptor: i64) -> Option<u64> {
    let link = fs::read_link(format!("/proc/{thread}/fd/{descriptor}")).ok()?;
    link.to_str()?.strip_prefix("pipe:[")?.strip_suffix(']')?.parse().ok()
}

/// Whether any process but `processes` has this pipe open.
pub(super) fn is_shared_beyond(processes: &[Pid], pipe: u64) -> bool {
    let name = format!("pipe:[{pipe}]");
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).map(Pid::from_raw);
    pids.filter(|pid| !processes.contains(pid)).any(|pid| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        open.filter_map(|entry| fs::read_link(entry.path()).ok())
            .any(|link| link.as_os_str() == name.as_str())
    })
}

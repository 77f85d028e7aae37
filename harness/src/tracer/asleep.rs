//! Decides whether a thread that is not stopped sleeps in the kernel, and what could wake it.

use std::fs;

use nix::unistd::Pid;

use crate::tracer::memory;

/// Kind of sleep of a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sleep {
    /// It does not sleep.
    Awake,
    /// Until time has passed, or in a way that is not known here.
    Other,
    /// Until a child of it ends or a signal comes.
    Child,
    /// Until another thread wakes it.
    Thread,
    /// Until the other end of one of these pipes, given by inode, is written, read or closed.
    Pipes(Vec<u64>),
    /// It has ended, but other threads of its process have not.
    Over,
    /// Until the lock is free for which it was let into the kernel.
    Lock,
}

impl Sleep {
    /// Reads from `/proc` how this thread sleeps.
    pub(super) fn of(thread: Pid) -> Self {
        let Ok(stat) = fs::read_to_string(format!("/proc/{thread}/stat")) else { return Self::Awake };
        let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next());
        // The parent of a `vfork` child sleeps uninterruptibly until the child is done.
        let is_deep = match state {
            Some("S") => false,
            Some("D") => true,
            Some("Z" | "X") => return Self::Over,
            Some("T") => return Self::Other,
            _ => return Self::Awake,
        };
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
            #[cfg(target_arch = "x86_64")]
            libc::SYS_vfork => Self::Child,
            libc::SYS_clone if waits_for_child(argument(0)) => Self::Child,
            libc::SYS_clone3
                if memory::word(thread, argument(0).cast_unsigned())
                    .is_some_and(|flags| waits_for_child(flags.cast_signed())) =>
            {
                Self::Child
            }
            // In any other uninterruptible sleep the kernel is working, such as copying memory for a fork.
            _ if is_deep => Self::Awake,
            libc::SYS_wait4 | libc::SYS_waitid | libc::SYS_rt_sigsuspend => Self::Child,
            libc::SYS_futex if argument(3) == 0 => Self::Thread,
            libc::SYS_flock | libc::SYS_fcntl => Self::Lock,
            libc::SYS_read | libc::SYS_write => {
                pipe(thread, argument(0)).map_or(Self::Other, |pipe| Self::Pipes(vec![pipe]))
            }
            #[cfg(target_arch = "x86_64")]
            libc::SYS_poll if argument(2) as i32 == -1 => polled(thread, argument(0), argument(1)),
            libc::SYS_ppoll if argument(2) == 0 => polled(thread, argument(0), argument(1)),
            _ => Self::Other,
        }
    }
}

/// Whether a thread that creates a child with these flags sleeps until the child is done, instead of continuing.
fn waits_for_child(flags: i64) -> bool {
    flags & i64::from(libc::CLONE_VFORK) != 0
}

/// Returns the number of voluntary context switches of a thread; each time it goes to sleep is one.
pub(super) fn switches(thread: Pid) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?.trim().parse().ok()
}

/// Whether a thread is stopped by its tracer.
pub(super) fn is_stopped(thread: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{thread}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next());
    state == Some("t")
}

/// Returns the pipes that a thread polls without a time limit, if it polls nothing else.
fn polled(thread: Pid, list: i64, count: i64) -> Sleep {
    // `struct pollfd` begins with the descriptor and is eight bytes long.
    let entries = usize::try_from(count).unwrap_or(0).min(64);
    let bytes = memory::bytes(thread, list.cast_unsigned(), entries * 8);
    let descriptors =
        bytes.chunks_exact(8).filter_map(|entry| Some(i32::from_ne_bytes(entry[..4].try_into().ok()?)));
    let pipes: Option<Vec<u64>> =
        descriptors.filter(|fd| *fd >= 0).map(|fd| pipe(thread, fd.into())).collect();
    pipes.filter(|pipes| !pipes.is_empty()).map_or(Sleep::Other, Sleep::Pipes)
}

/// Whether a signal is pending for a thread that is stopped before its call, which would end a wait in the kernel.
pub(super) fn has_signal(thread: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let set = |key: &str| {
        let found = status.lines().find_map(|line| line.strip_prefix(key));
        found.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0)
    };
    (set("SigPnd:") | set("ShdPnd:")) & !set("SigBlk:") & !set("SigIgn:") & !IGNORED_BY_DEFAULT != 0
}

/// SIGCHLD, SIGCONT, SIGURG and SIGWINCH end no wait of a program that does not handle them. Programs that do are rare,
/// and their waits continue afterwards.
const IGNORED_BY_DEFAULT: u64 = 1 << 16 | 1 << 17 | 1 << 22 | 1 << 27;

/// Returns the inode of the pipe that a descriptor is one end of.
fn pipe(thread: Pid, descriptor: i64) -> Option<u64> {
    let link = fs::read_link(format!("/proc/{thread}/fd/{descriptor}")).ok()?;
    link.to_str()?.strip_prefix("pipe:[")?.strip_suffix(']')?.parse().ok()
}

/// Returns the processes of a group.
fn members(group: Pid) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).map(Pid::from_raw);
    pids.filter(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The state, the parent and the group follow the name.
        let group_of = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(2));
        group_of.and_then(|number| number.parse().ok()) == Some(group.as_raw())
    })
    .collect()
}

/// Returns the threads of these processes, each with its number of context switches, if they wait only for each other:
/// for another thread, a child, or the other end of a pipe that no other process has. Two equal results mean that none
/// of them ran in between. Nothing if any of them runs, waits for something else, or may be woken by an alarm.
fn hanging(processes: &[Pid]) -> Option<Vec<(i32, u64)>> {
    let mut threads = Vec::new();
    for process in processes {
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
        if u64::from_str_radix(caught.trim(), 16).ok()? & ALARM != 0 {
            return None;
        }
        for task in fs::read_dir(format!("/proc/{process}/task")).ok()?.flatten() {
            let thread = Pid::from_raw(task.file_name().to_str()?.parse().ok()?);
            match Sleep::of(thread) {
                Sleep::Child | Sleep::Thread | Sleep::Over => {}
                Sleep::Pipes(pipes) if pipes.iter().all(|pipe| !is_shared_beyond(processes, *pipe)) => {}
                _ => return None,
            }
            threads.push((thread.as_raw(), switches(thread).unwrap_or(0)));
        }
    }
    (!threads.is_empty()).then_some(threads)
}

/// Number of equal looks after which an operation is considered to hang.
const LOOKS_ALIKE: u32 = 4;

/// Consecutive looks at an operation that runs alone, at least 0.1 s apart.
#[derive(Debug, Default)]
pub struct Looks {
    last: Option<Vec<(i32, u64)>>,
    alike: u32,
}

impl Looks {
    /// Looks at the processes of a group. Returns whether they were seen often enough waiting, without a step in
    /// between, for something that only they themselves could do.
    pub fn hang(&mut self, group: i32) -> bool {
        let now = hanging(&members(Pid::from_raw(group)));
        self.alike = if now.is_some() && now == self.last { self.alike + 1 } else { 0 };
        self.last = now;
        self.alike >= LOOKS_ALIKE
    }
}

/// SIGALRM, as a bit of a signal set.
const ALARM: u64 = 1 << (libc::SIGALRM - 1);

/// Whether any process other than `processes` has this pipe open.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// On a busy machine, a shell that copied its memory for a fork was taken to sleep until its child ends: the second
    /// client was started before the first had reached the point where it was to be held.
    #[test]
    fn who_forks_goes_on_and_only_after_vfork_sleeps_until_the_child_is_done() {
        assert!(!waits_for_child(i64::from(libc::SIGCHLD)));
        assert!(waits_for_child(i64::from(libc::CLONE_VFORK | libc::CLONE_VM | libc::SIGCHLD)));
    }
}

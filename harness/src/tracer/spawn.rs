//! The calls that start processes, threads and programs: not visible, since what they make is told by events of its own,
//! but they can be made to fail.

use nix::unistd::Pid;

use crate::tracer::memory;
use crate::tracer::stopped::Entry;

/// Numbers of these calls.
pub(super) const CALLS: &[i64] = &[
    libc::SYS_clone,
    libc::SYS_clone3,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
    libc::SYS_execve,
    libc::SYS_execveat,
];

/// Returns the name of a call that starts something, or `None` for any other call.
pub(super) fn name(entry: &Entry) -> Option<&'static str> {
    if entry.is_foreign {
        return None;
    }
    match i64::try_from(entry.number).ok()? {
        libc::SYS_clone => Some("clone"),
        libc::SYS_clone3 => Some("clone3"),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_fork => Some("fork"),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_vfork => Some("vfork"),
        libc::SYS_execve => Some("execve"),
        libc::SYS_execveat => Some("execveat"),
        _ => None,
    }
}

/// Whether it creates a thread of the same process.
pub(super) fn makes_thread(thread: Pid, entry: &Entry) -> bool {
    let flags = match name(entry) {
        Some("clone") => entry.arguments[0],
        // `struct clone_args` begins with the flags.
        Some("clone3") => memory::word(thread, entry.arguments[0]).unwrap_or(0),
        _ => 0,
    };
    flags & u64::from(libc::CLONE_THREAD.unsigned_abs()) != 0
}

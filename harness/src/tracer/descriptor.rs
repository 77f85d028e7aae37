//! Reads from `/proc` what a descriptor of another process refers to.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use nix::unistd::Pid;

use crate::locks::FileId;

/// Returns the file that a descriptor refers to.
pub(super) fn file(process: Pid, descriptor: i32) -> Option<FileId> {
    let metadata = fs::metadata(format!("/proc/{process}/fd/{descriptor}")).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Returns the size of its file, in bytes.
pub(super) fn size(process: Pid, descriptor: i32) -> Option<u64> {
    Some(fs::metadata(format!("/proc/{process}/fd/{descriptor}")).ok()?.size())
}

/// Returns the permissions of its file.
pub(super) fn mode(process: Pid, descriptor: i32) -> Option<u32> {
    Some(fs::metadata(format!("/proc/{process}/fd/{descriptor}")).ok()?.mode() & 0o7777)
}

/// Returns its position, in bytes.
pub(super) fn position(process: Pid, descriptor: i32) -> Option<u64> {
    status(process, descriptor).map(|(position, _)| position)
}

/// Returns its position, in bytes, and its flags.
pub(super) fn status(process: Pid, descriptor: i32) -> Option<(u64, i32)> {
    let info = fs::read_to_string(format!("/proc/{process}/fdinfo/{descriptor}")).ok()?;
    let value = |key: &str| info.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    Some((value("pos:")?.parse().ok()?, i32::from_str_radix(value("flags:")?, 8).ok()?))
}

/// Returns the flags that a descriptor was opened with.
pub(super) fn flags(process: Pid, descriptor: i32) -> Option<i32> {
    status(process, descriptor).map(|(_, flags)| flags)
}

/// Returns all descriptors of a process, in order.
pub(super) fn all(process: Pid) -> Vec<i32> {
    let entries = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let mut all: Vec<i32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    all.sort_unstable();
    all
}

/// Whether two descriptors share one open file description, which owns `flock` and OFD locks.
pub(super) fn share_description(one: (Pid, i32), other: (Pid, i32)) -> bool {
    /// `KCMP_FILE` of kcmp(2).
    const KCMP_FILE: i32 = 0;
    compare(KCMP_FILE, one, other)
}

/// Whether two processes share one descriptor table (`CLONE_FILES`).
pub(super) fn share_table(one: Pid, other: Pid) -> bool {
    /// `KCMP_FILES` of kcmp(2).
    const KCMP_FILES: i32 = 2;
    compare(KCMP_FILES, (one, 0), (other, 0))
}

fn compare(what: i32, one: (Pid, i32), other: (Pid, i32)) -> bool {
    #[expect(unsafe_code, reason = "nothing safe offers kcmp")]
    // SAFETY: the call takes five numbers and touches no memory of this process.
    let compared =
        unsafe { libc::syscall(libc::SYS_kcmp, one.0.as_raw(), other.0.as_raw(), what, one.1, other.1) };
    compared == 0
}

/// Whether a thread is still traced. One that was waited for is not, though it may exist until its parent has waited
/// for it too.
pub(super) fn is_traced(thread: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_some_and(|tracer| tracer.trim() != "0")
}

/// Returns the group and the parent of a thread: its process, and the process that created that one.
pub(super) fn family(thread: Pid) -> Option<(Pid, Pid)> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let number = |key: &str| {
        status.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok()).map(Pid::from_raw)
    };
    Some((number("Tgid:")?, number("PPid:")?))
}

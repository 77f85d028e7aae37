//! Finds and ends the processes of a group, and those that outlived their operation.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal, test_kill_process_group,
};

/// How long to wait for survivors to end.
const DEATH_MAX: Duration = Duration::from_secs(2);

/// Processes that outlived the operation they belong to.
#[derive(Debug, Default)]
pub(super) struct Survivors {
    groups: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Each group with the members seen in it: as long as one of them lives the group id is not reused.
    groups: Vec<(Pid, Vec<OwnedFd>)>,
    operations: u64,
}

impl Survivors {
    /// Records a group of survivors. If more than `processes_max` live in all groups, they are ended.
    pub(super) fn add(&self, group: Pid, processes_max: u32) {
        let members: Vec<OwnedFd> =
            members(group).into_iter().filter_map(|pid| open_member(pid, group)).collect();
        if members.is_empty() {
            return;
        }
        let mut known = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        known.operations += 1;
        known.groups.retain(|(_, members)| members.iter().any(is_alive));
        known.groups.push((group, members));
        let total: usize = known.groups.iter().map(|(_, members)| members.len()).sum();
        drop(known);
        if total > processes_max as usize {
            self.end();
        }
    }

    /// Ends all survivors.
    pub(super) fn end(&self) {
        let groups = std::mem::take(&mut self.groups.lock().unwrap_or_else(PoisonError::into_inner).groups);
        for (group, members) in &groups {
            if members.iter().any(is_alive) {
                // Processes that joined the group since are in it too. It may have ended meanwhile.
                let _killed = kill_process_group(*group, Signal::KILL);
            }
            end(members);
        }
    }

    /// Whether no survivor is alive.
    pub(super) fn are_none(&self) -> bool {
        let known = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        !known.groups.iter().any(|(_, members)| members.iter().any(is_alive))
    }

    /// Number of operations with survivors.
    pub(super) fn operations(&self) -> u64 {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner).operations
    }
}

/// Waits until the process behind `pidfd` has died, at most `limit`; returns whether it has.
pub(super) fn has_died(pidfd: &OwnedFd, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let mut watched = [PollFd::new(pidfd, PollFlags::IN)];
        let timeout = Timespec::try_from(left).ok();
        if poll(&mut watched, timeout.as_ref()).is_ok_and(|ready| ready > 0) {
            return true;
        }
        if left.is_zero() {
            return false;
        }
    }
}

/// Waits until a killed group is empty, at most `DEATH_MAX`.
pub(super) fn await_empty(group: Pid) {
    let end = Instant::now() + DEATH_MAX;
    // Zombies are still in the group, but run no more.
    while test_kill_process_group(group).is_ok() && !members(group).is_empty() && Instant::now() < end {
        thread::sleep(Duration::from_micros(200));
    }
}

/// Returns the descendants of the leader of `group` that have left the group, e.g. by `setsid`.
pub(super) fn strays_of(group: Pid) -> Vec<OwnedFd> {
    let mut found = Vec::new();
    let mut parents = vec![group];
    while let Some(parent) = parents.pop() {
        let tasks =
            fs::read_dir(format!("/proc/{}/task", parent.as_raw_pid())).into_iter().flatten().flatten();
        for task in tasks {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            for child in children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
                parents.push(child);
                if let Some(own) = group_of(child).filter(|own| *own != group) {
                    found.extend(open_member(child, own));
                }
            }
        }
    }
    found
}

/// Returns the processes with `mark` in their environment, which all processes of a run inherit, except those in the
/// groups of `except`.
pub(super) fn marked(mark: &[u8], except: &BTreeSet<i32>) -> Vec<OwnedFd> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    let carries = |pid: Pid| {
        let environment = fs::read(format!("/proc/{}/environ", pid.as_raw_pid())).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark)
            && group_of(pid).is_some_and(|group| !except.contains(&group.as_raw_pid()))
    };
    pids.filter(|pid| carries(*pid))
        .filter_map(|pid| {
            let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
            // The pid may have been reused in between.
            carries(pid).then_some(process)
        })
        .collect()
}

/// Kills these processes, and waits for their end.
pub(super) fn end(processes: &[OwnedFd]) {
    for process in processes {
        // It may have ended meanwhile.
        let _killed = pidfd_send_signal(process, Signal::KILL);
    }
    for process in processes {
        has_died(process, DEATH_MAX);
    }
}

/// Number of processes in `group`.
pub(super) fn count_group(group: Pid) -> usize {
    members(group).len()
}

/// Returns the living processes of `group`.
pub(super) fn members(group: Pid) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .filter(|pid| group_of(*pid) == Some(group))
        .collect()
}

/// Returns the group of a process that has not died.
fn group_of(pid: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
    // The name in brackets may hold anything: state, parent and group follow it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let group = fields.nth(1)?.parse().ok()?;
    if matches!(state, "Z" | "X") { None } else { Pid::from_raw(group) }
}

/// Opens a pidfd of a member, and checks it afterwards: the pid may have been reused in between.
fn open_member(pid: Pid, group: Pid) -> Option<OwnedFd> {
    let member = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    (group_of(pid) == Some(group)).then_some(member)
}

fn is_alive(pidfd: &OwnedFd) -> bool {
    let mut watched = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut watched, Some(&now)).is_ok_and(|ready| ready == 0)
}

//! Reads from `/proc` which process waits for which lock and which one holds it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::process::Pid;

use crate::observation::{Holder, Standstill, Waiting, WantedLock};
use crate::op::ClientId;
use crate::runner::groups::members;

/// Time between the two looks: any progress happens within it.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// System call numbers in which a process waits for a lock, or for its child.
#[cfg(target_arch = "x86_64")]
mod call {
    pub(super) const FLOCK: u64 = 73;
    pub(super) const FCNTL: u64 = 72;
    pub(super) const WAIT: [u64; 2] = [61, 247];
}
#[cfg(target_arch = "aarch64")]
mod call {
    pub(super) const FLOCK: u64 = 32;
    pub(super) const FCNTL: u64 = 25;
    pub(super) const WAIT: [u64; 2] = [260, 95];
}

/// `F_SETLKW` and `F_OFD_SETLKW`.
const WAITING_LOCK_COMMANDS: [u64; 2] = [7, 38];

/// Looks twice at the running clients.
pub(super) fn look(late: ClientId, under_way: &BTreeMap<ClientId, Pid>, folder: &Path) -> Standstill {
    let first = look_once(under_way, folder);
    thread::sleep(BETWEEN_LOOKS);
    let second = look_once(under_way, folder);
    Standstill { client: late, steady: first == second, clients: second }
}

fn look_once(under_way: &BTreeMap<ClientId, Pid>, folder: &Path) -> Vec<Waiting> {
    let members: BTreeMap<ClientId, Vec<Pid>> =
        under_way.iter().map(|(client, group)| (*client, members(*group))).collect();
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let waiting = members.iter().map(|(client, processes)| {
        let mut wants = Vec::new();
        let mut wholly = !processes.is_empty();
        for thread in processes.iter().flat_map(|process| threads(*process)) {
            match thread.waits_for() {
                Some(Wait::Lock(inode)) => {
                    let file = name_of(inode, folder);
                    let holders = holders(inode, &members, &locks);
                    let wanted = WantedLock { file, holders };
                    if !wants.contains(&wanted) {
                        wants.push(wanted);
                    }
                }
                // Its child is inspected too: it is in the same group, or unknown and then found by the locks that it
                // holds.
                Some(Wait::Child) => {}
                None => wholly = false,
            }
        }
        Waiting { client: *client, wants, wholly }
    });
    waiting.collect()
}

struct Thread {
    process: Pid,
    id: String,
}

enum Wait {
    /// For a lock on the file with this inode.
    Lock(u64),
    Child,
}

fn threads(process: Pid) -> Vec<Thread> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", process.as_raw_pid())) else { return Vec::new() };
    tasks
        .flatten()
        .map(|task| Thread { process, id: task.file_name().to_string_lossy().into_owned() })
        .collect()
}

impl Thread {
    /// Returns what the thread waits for, if that is a lock or a child.
    fn waits_for(&self) -> Option<Wait> {
        let process = self.process.as_raw_pid();
        // The call number, then its arguments in hexadecimal; `running` if it is in no call.
        let text = fs::read_to_string(format!("/proc/{process}/task/{}/syscall", self.id)).ok()?;
        let mut words = text.split_whitespace();
        let number: u64 = words.next()?.parse().ok()?;
        let argument = |word: Option<&str>| u64::from_str_radix(word?.trim_start_matches("0x"), 16).ok();
        let descriptor = argument(words.next())?;
        let command = argument(words.next())?;
        let for_lock = number == call::FLOCK
            || (number == call::FCNTL && WAITING_LOCK_COMMANDS.contains(&(command & 0xffff_ffff)));
        if for_lock {
            let file = fs::metadata(format!("/proc/{process}/fd/{}", descriptor & 0xffff_ffff)).ok()?;
            return Some(Wait::Lock(file.ino()));
        }
        call::WAIT.contains(&number).then_some(Wait::Child)
    }
}

/// Returns the holders of a lock on this inode: clients by their descriptors, others by `/proc/locks`.
fn holders(inode: u64, members: &BTreeMap<ClientId, Vec<Pid>>, locks: &str) -> Vec<Holder> {
    let mut holders: Vec<Holder> = members
        .iter()
        .filter(|(_, processes)| processes.iter().any(|process| holds(*process, inode)))
        .map(|(client, _)| Holder::Client(*client))
        .collect();
    if holders.is_empty() {
        let end = format!(":{inode}");
        // `1: FLOCK  ADVISORY  WRITE 4711 08:01:1234 0 EOF`, with `->` before the type for a waiter.
        let held = locks
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|words| words.len() > 5 && words[1] != "->" && words[5].ends_with(&end));
        holders.extend(held.map(|words| {
            let lives = Path::new("/proc").join(words[4]).exists();
            // Locks of an open file description have no owner (-1): the holder is unknown.
            if lives || words[4].starts_with('-') || words[4] == "0" { Holder::Other } else { Holder::Ended }
        }));
    }
    holders
}

/// Whether one of the process's descriptors holds a lock on this inode.
fn holds(process: Pid, inode: u64) -> bool {
    let Ok(infos) = fs::read_dir(format!("/proc/{}/fdinfo", process.as_raw_pid())) else { return false };
    let end = format!(":{inode}");
    infos.flatten().any(|info| {
        fs::read_to_string(info.path()).is_ok_and(|text| {
            text.lines()
                .filter(|line| line.starts_with("lock:") && !line.contains("->"))
                .any(|line| line.split_whitespace().any(|word| word.ends_with(&end)))
        })
    })
}

/// Returns the file's path in the sandbox, if it has one.
fn name_of(inode: u64, folder: &Path) -> String {
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.ino() == inode {
                let path = entry.path();
                return path.strip_prefix(folder).unwrap_or(&path).display().to_string();
            }
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    format!("a file that has no name any more (inode {inode})")
}

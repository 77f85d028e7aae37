//! What the diagnoses look for in a trace: who holds which lock at a call, and which files are locks by their names.

use std::collections::BTreeMap;

use crate::accesses::accesses;
use crate::call::{Argument, Call, Class, Effect, LockChange, Object};
use crate::locks::{Lock, Mode};

/// Returns the locks that a client holds just before the call at `at`, with the names of their files.
pub(super) fn held_before(calls: &[Call], client: u32, at: usize) -> Vec<(Lock, &str)> {
    let mut held: BTreeMap<(Lock, u64), &str> = BTreeMap::new();
    let own = calls[..at.min(calls.len())].iter().filter(|call| call.client == client);
    for change in own.flat_map(|call| &call.locks) {
        match change {
            LockChange::Taken(lock, name) => {
                held.retain(|(other, _), _| !is_of_same(other, lock));
                held.insert((*lock, lock.range.start), name);
            }
            LockChange::Released(lock, _) => held.retain(|(other, _), _| !is_of_same(other, lock)),
            // A refused conversion loses the held lock; this is rare and ignored here.
            LockChange::Refused(..) => {}
        }
    }
    held.into_iter().map(|((lock, _), name)| (lock, name)).collect()
}

/// Whether both locks have the same file, kind and owner, and overlap.
fn is_of_same(one: &Lock, other: &Lock) -> bool {
    (one.file, one.kind, one.owner) == (other.file, other.kind, other.owner)
        && one.range.start <= other.range.end
        && other.range.start <= one.range.end
}

/// Whether a client excludes others just before the call at `at`, by an exclusive lock or a lock file.
pub(super) fn is_locked(calls: &[Call], client: u32, at: usize) -> bool {
    held_before(calls, client, at).iter().any(|(lock, _)| lock.mode == Mode::Exclusive)
        || has_lock_file(calls, client, at)
}

/// Whether a client then holds a lock file or folder: created by it, in a way that excludes another creator, and with
/// the name of a lock.
fn has_lock_file(calls: &[Call], client: u32, at: usize) -> bool {
    lock_files(calls, client)
        .into_iter()
        .any(|(made, gone, _)| made < at && gone.is_none_or(|gone| gone >= at))
}

/// Returns the lock files that a client creates: index of the creation, index of the removal, and name.
pub(super) fn lock_files(calls: &[Call], client: u32) -> Vec<(usize, Option<usize>, &str)> {
    let own = || calls.iter().enumerate().filter(move |(_, call)| call.client == client);
    own()
        .filter_map(|(made, call)| match &call.effect {
            Some(Effect::Created { path, .. }) if has_flag(call, "O_EXCL") && is_lock_name(path) => {
                Some((made, path.as_str()))
            }
            Some(
                Effect::FolderMade { path, .. }
                | Effect::Linked { to: path, .. }
                | Effect::SymbolicLinked { path, .. },
            ) if is_lock_name(path) => Some((made, path.as_str())),
            _ => None,
        })
        .map(|(made, path)| {
            let gone = own().find(|(at, call)| {
                *at > made
                    && match &call.effect {
                        Some(Effect::Unlinked { path: gone } | Effect::FolderRemoved { path: gone }) => {
                            gone == path
                        }
                        Some(Effect::Renamed { from, .. }) => from == path,
                        _ => false,
                    }
            });
            (made, gone.map(|(at, _)| at), path)
        })
        .collect()
}

/// Whether a file has the name of a lock.
pub(super) fn is_lock_name(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default().to_lowercase();
    let is_word = |word: &str| {
        matches!(word, "lck" | "pid" | "mutex" | "lockfile" | "lockdir")
            || (word.ends_with("lock") && word != "block")
    };
    name.split(|c: char| !c.is_ascii_alphanumeric()).any(is_word)
}

/// Whether the call was made with this flag.
pub(super) fn has_flag(call: &Call, flag: &str) -> bool {
    call.arguments.iter().any(|argument| match argument {
        Argument::Flags(flags) => flags.split(['|', ' ']).any(|one| one == flag),
        _ => false,
    })
}

/// Returns the index of the call by which a client first gets an exclusive lock.
pub(super) fn first_lock(calls: &[Call], client: u32) -> Option<usize> {
    calls.iter().position(|call| {
        call.client == client
            && call
                .locks
                .iter()
                .any(|change| matches!(change, LockChange::Taken(lock, _) if lock.mode == Mode::Exclusive))
    })
}

/// Returns the number of the file that a call works on.
pub(super) fn file(call: &Call) -> Option<u32> {
    call.objects.iter().find_map(|object| match object {
        Object::File(number) => Some(*number),
        _ => None,
    })
}

/// Returns the number of the file on which a lock was taken.
pub(super) fn file_of(calls: &[Call], lock: &Lock) -> Option<u32> {
    let takes = |change: &LockChange| matches!(change, LockChange::Taken(own, _) if own == lock);
    calls.iter().find(|call| call.locks.iter().any(takes)).and_then(file)
}

/// Returns the index and client of each change of the data file.
pub(super) fn changes(calls: &[Call], data: &str) -> impl Iterator<Item = (usize, u32)> {
    accesses(calls, data)
        .into_iter()
        .filter(|access| access.is_change)
        .map(|access| (access.at, access.client))
}

/// Returns the names that a call works on.
pub(super) fn entries(call: &Call) -> impl Iterator<Item = &str> {
    call.objects.iter().filter_map(|object| match object {
        Object::Entry(path) => Some(path.as_str()),
        _ => None,
    })
}

/// Whether a client inspects `path` after the call at `at`, as a client does to check that its locked file still has
/// that name.
pub(super) fn checks_name_after(calls: &[Call], client: u32, at: usize, path: &str) -> bool {
    calls[at + 1..].iter().any(|call| {
        call.client == client && call.class == Class::Inspect && entries(call).any(|entry| entry == path)
    })
}

/// Returns the clients in a trace.
pub(super) fn clients(calls: &[Call]) -> std::collections::BTreeSet<u32> {
    calls.iter().map(|call| call.client).collect()
}

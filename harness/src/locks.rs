//! Models the lock table: which owner holds which lock on which file.
//!
//! It covers `flock`, POSIX record locks and open file description locks with the rules of Linux: `flock` and OFD locks
//! belong to the open file description and are released with its last descriptor; POSIX locks belong to the process and
//! are released when it closes *any* descriptor of the file; POSIX and OFD locks exclude each other, `flock` excludes
//! neither; converting a `flock` lock first releases the old one, and loses it if the new one is refused (flock(2),
//! fcntl(2)). A test compares it with `/proc/locks` over random sequences of calls.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A file: device and inode.
pub type FileId = (u64, u64);

/// The three kinds of locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `flock(2)`.
    Flock,
    /// `fcntl(2)` with `F_SETLK`.
    Posix,
    /// `fcntl(2)` with `F_OFD_SETLK`.
    Ofd,
}

/// Mode of a lock: shared or exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Exclusive locks.
    Shared,
    /// All locks.
    Exclusive,
}

/// Owner of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Owner {
    /// An open file description, by its number in the trace.
    Description(u32),
    /// A process, by the number of its descriptor table, which the kernel uses as the owner.
    Process(u32),
}

/// Bytes of a file, both ends included; `END` is the end of the file however far it grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Range {
    /// The first byte.
    pub start: u64,
    /// The last byte.
    pub end: u64,
}

/// Maximum end of a range.
pub const END: u64 = i64::MAX.unsigned_abs();

impl Range {
    /// The whole file.
    pub const ALL: Self = Self { start: 0, end: END };

    fn overlaps(self, other: Self) -> bool {
        self.start <= other.end && other.start <= self.end
    }
}

/// A lock that is held or requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Lock {
    /// The locked file.
    pub file: FileId,
    /// Its kind.
    pub kind: Kind,
    /// Its owner.
    pub owner: Owner,
    /// Its mode.
    pub mode: Mode,
    /// Its bytes; all of them for a `flock`.
    pub range: Range,
}

impl Lock {
    /// Returns whether the two cannot be held at once.
    pub fn conflicts(&self, other: &Self) -> bool {
        let same_space = (self.kind == Kind::Flock) == (other.kind == Kind::Flock);
        same_space
            && self.file == other.file
            && self.owner != other.owner
            && self.range.overlaps(other.range)
            && (self.mode == Mode::Exclusive || other.mode == Mode::Exclusive)
    }

    fn is_of(&self, file: FileId, kind: Kind, owner: Owner) -> bool {
        (self.file, self.kind, self.owner) == (file, kind, owner)
    }
}

/// All locks that are held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockTable {
    held: Vec<Lock>,
}

impl LockTable {
    /// Returns all locks that are held, in the order in which they were taken.
    pub fn held(&self) -> &[Lock] {
        &self.held
    }

    /// Returns the held locks that conflict with `wanted`.
    pub fn obstacles(&self, wanted: &Lock) -> Vec<Lock> {
        self.held.iter().filter(|held| held.conflicts(wanted)).copied().collect()
    }

    /// Takes `wanted` if no lock conflicts, and returns whether it did. A `flock` in another mode is released first,
    /// and is lost if the new one is refused.
    pub fn take(&mut self, wanted: Lock) -> bool {
        if wanted.kind == Kind::Flock {
            if self.held.contains(&wanted) {
                return true;
            }
            self.held.retain(|held| !held.is_of(wanted.file, wanted.kind, wanted.owner));
        }
        if !self.obstacles(&wanted).is_empty() {
            return false;
        }
        self.cut(wanted.file, wanted.kind, wanted.owner, wanted.range);
        self.held.push(wanted);
        self.merge(wanted);
        true
    }

    /// Releases what `owner` holds of this kind in `range`, and returns it.
    pub fn release(&mut self, file: FileId, kind: Kind, owner: Owner, range: Range) -> Vec<Lock> {
        self.cut(file, kind, owner, range)
    }

    /// Releases the locks of an open file description whose last descriptor is closed, and returns them.
    pub fn description_closed(&mut self, description: u32) -> Vec<Lock> {
        self.take_out(|held| held.owner == Owner::Description(description))
    }

    /// Releases the locks of a process on a file of which it closes any descriptor, and returns them.
    pub fn file_closed(&mut self, process: u32, file: FileId) -> Vec<Lock> {
        self.take_out(|held| held.owner == Owner::Process(process) && held.file == file)
    }

    /// Releases the locks of a process that has ended, and returns them. Its descriptors are closed one by one.
    pub fn process_ended(&mut self, process: u32) -> Vec<Lock> {
        self.take_out(|held| held.owner == Owner::Process(process))
    }

    fn take_out(&mut self, goes: impl Fn(&Lock) -> bool) -> Vec<Lock> {
        let (gone, kept) = self.held.iter().copied().partition(|held| goes(held));
        self.held = kept;
        gone
    }

    /// Removes `range` from the locks of `owner`: a lock that extends beyond both ends is split in two.
    fn cut(&mut self, file: FileId, kind: Kind, owner: Owner, range: Range) -> Vec<Lock> {
        let mut gone = Vec::new();
        let mut kept = Vec::new();
        for held in std::mem::take(&mut self.held) {
            if !held.is_of(file, kind, owner) || !held.range.overlaps(range) {
                kept.push(held);
                continue;
            }
            if held.range.start < range.start {
                kept.push(Lock { range: Range { start: held.range.start, end: range.start - 1 }, ..held });
            }
            if held.range.end > range.end {
                kept.push(Lock { range: Range { start: range.end + 1, end: held.range.end }, ..held });
            }
            let (start, end) = (held.range.start.max(range.start), held.range.end.min(range.end));
            gone.push(Lock { range: Range { start, end }, ..held });
        }
        self.held = kept;
        gone
    }

    /// Merges adjacent locks of one owner and mode, as the kernel does.
    fn merge(&mut self, like: Lock) {
        let (mut same, others): (Vec<Lock>, Vec<Lock>) = self
            .held
            .iter()
            .copied()
            .partition(|held| held.is_of(like.file, like.kind, like.owner) && held.mode == like.mode);
        same.sort_by_key(|lock| lock.range.start);
        let mut merged: Vec<Lock> = Vec::new();
        for lock in same {
            match merged.last_mut() {
                Some(last) if lock.range.start <= last.range.end.saturating_add(1) => {
                    last.range.end = last.range.end.max(lock.range.end);
                }
                _ => merged.push(lock),
            }
        }
        self.held = others;
        self.held.extend(merged);
    }
}

/// The open file descriptions of a trace, with the number of their descriptors in all processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Descriptions {
    references: BTreeMap<u32, u32>,
    next: u32,
}

impl Descriptions {
    /// Adds a description with one descriptor.
    pub fn open(&mut self) -> u32 {
        self.next += 1;
        self.references.insert(self.next, 1);
        self.next
    }

    /// Adds a descriptor, made by `dup` or `fork`.
    pub fn duplicate(&mut self, description: u32) {
        *self.references.entry(description).or_default() += 1;
    }

    /// Removes a descriptor; returns whether it was the last.
    pub fn close(&mut self, description: u32) -> bool {
        let Some(count) = self.references.get_mut(&description) else { return false };
        *count -= 1;
        let is_last = *count == 0;
        if is_last {
            self.references.remove(&description);
        }
        is_last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: FileId = (1, 1);

    fn lock(kind: Kind, owner: Owner, mode: Mode, start: u64, end: u64) -> Lock {
        Lock { file: FILE, kind, owner, mode, range: Range { start, end } }
    }

    #[test]
    fn a_refused_conversion_loses_the_lock_that_was_held() {
        let mut table = LockTable::default();
        let shared = |description| lock(Kind::Flock, Owner::Description(description), Mode::Shared, 0, END);
        assert!(table.take(shared(1)) && table.take(shared(2)));
        assert!(!table.take(Lock { mode: Mode::Exclusive, ..shared(1) }));
        assert_eq!(table.held(), [shared(2)]);
    }

    #[test]
    fn posix_locks_go_when_any_descriptor_is_closed_and_others_with_the_last() {
        let mut table = LockTable::default();
        let posix = lock(Kind::Posix, Owner::Process(1), Mode::Exclusive, 0, 9);
        let flock = lock(Kind::Flock, Owner::Description(1), Mode::Exclusive, 0, END);
        assert!(table.take(posix) && table.take(flock));
        assert_eq!(table.file_closed(1, FILE), [posix]);
        let mut descriptions = Descriptions::default();
        let one = descriptions.open();
        descriptions.duplicate(one);
        assert!(!descriptions.close(one));
        assert!(descriptions.close(one));
        assert_eq!(table.description_closed(one), [flock]);
    }

    #[test]
    fn the_middle_of_a_range_can_be_given_up_and_neighbours_join() {
        let mut table = LockTable::default();
        let owner = Owner::Process(1);
        assert!(table.take(lock(Kind::Posix, owner, Mode::Exclusive, 0, 9)));
        table.release(FILE, Kind::Posix, owner, Range { start: 3, end: 5 });
        let ranges = |table: &LockTable| {
            table.held().iter().map(|held| (held.range.start, held.range.end)).collect::<Vec<_>>()
        };
        assert_eq!(ranges(&table), [(0, 2), (6, 9)]);
        assert!(table.take(lock(Kind::Posix, owner, Mode::Exclusive, 3, 5)));
        assert_eq!(ranges(&table), [(0, 9)]);
    }

    #[test]
    fn posix_and_ofd_locks_exclude_each_other_and_flock_neither() {
        let mut table = LockTable::default();
        assert!(table.take(lock(Kind::Posix, Owner::Process(1), Mode::Exclusive, 0, 9)));
        assert!(!table.take(lock(Kind::Ofd, Owner::Description(1), Mode::Shared, 9, 20)));
        assert!(table.take(lock(Kind::Ofd, Owner::Description(1), Mode::Shared, 10, 20)));
        assert!(table.take(lock(Kind::Flock, Owner::Description(1), Mode::Exclusive, 0, END)));
    }
}

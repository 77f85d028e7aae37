//! What the calls of a trace ask of the disk: small changes, each there after a power loss or not, and the syncs that demand some of them.
//!
//! The changes are those of `man fsync` and of the ALICE study (Pillai et al., OSDI 2014): what is written to one page of
//! a file, the length of a file, a name that is given, taken away or moved. A rename is one change, since every file
//! system that journals makes it one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::call::{Argument, Call, Class, Effect, Object};
use crate::persist::tree::{Name, Tree, Unmodelled};

/// What is written of one page is there wholly or not at all.
pub(super) const PAGE: u64 = 4096;

/// What a trace asks of the disk.
#[derive(Clone, Debug)]
pub struct Log {
    base: Tree,
    whole: Tree,
    pub(super) changes: Vec<Change>,
    pub(super) syncs: Vec<Sync>,
    /// Bytes that a sync was to make durable which failed: the kernel has dropped them, and no later sync has them, unless
    /// their page is written again. Names and lengths are not dropped: they come with the journal, or nothing does.
    dropped: BTreeSet<usize>,
    /// Permissions of the files that were made.
    modes: BTreeMap<u32, u32>,
    calls: usize,
}

/// One change of the disk.
#[derive(Clone, Debug)]
pub(super) struct Change {
    /// The call that asked for it, from 0.
    pub(super) call: usize,
    pub(super) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A name is given.
    Put { path: String, name: Name },
    /// A name is taken away.
    Remove { path: String, name: Name },
    /// A name goes over to another path, and what had that has it no more.
    Move { from: String, to: String, name: Name },
    /// Permissions of a file.
    Mode { file: u32, mode: u32 },
    /// The length of a file: where `grown_by` is given, as the change of that number makes it longer.
    Length { file: u32, length: u64, grown_by: Option<usize> },
    /// Bytes within one page of a file.
    Bytes { file: u32, offset: u64, bytes: Arc<[u8]> },
}

/// A sync that returned without an error.
#[derive(Clone, Debug)]
pub(super) struct Sync {
    pub(super) call: usize,
    pub(super) what: Synced,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Synced {
    /// A file; its number in the tree.
    File(u32),
    /// What one write wrote that is synced by itself (`O_SYNC`): from this byte to that one, and the length it needs.
    Write { file: u32, from: u64, to: u64 },
    /// A folder; its path, `.` for the sandbox.
    Folder(String),
    /// Everything.
    All,
}

impl Synced {
    /// Whether it demands this change on any system, as fsync(2) has it.
    pub(super) fn is_about(&self, change: &Change) -> bool {
        match self {
            Self::Write { file, from, to } => match &change.what {
                What::Bytes { file: other, offset, bytes } => {
                    other == file && offset < to && offset + bytes.len() as u64 > *from
                }
                What::Length { file: other, length, .. } => other == file && length <= to,
                _ => false,
            },
            Self::File(file) => {
                change.content_of() == Some(*file)
                    || matches!(change.what, What::Mode { file: other, .. } if other == *file)
            }
            Self::Folder(path) => change.folders().contains(&path.as_str()),
            Self::All => true,
        }
    }
}

impl Change {
    /// The file whose content or length it changes.
    pub(super) fn content_of(&self) -> Option<u32> {
        match self.what {
            What::Bytes { file, .. } | What::Length { file, .. } => Some(file),
            _ => None,
        }
    }

    /// What it gives a name to, or takes one from.
    pub(super) fn named(&self) -> Option<&Name> {
        match &self.what {
            What::Put { name, .. } | What::Remove { name, .. } | What::Move { name, .. } => Some(name),
            _ => None,
        }
    }

    /// Whether it is a change of names, permissions, or a length that was asked for, and not one that data bring along.
    pub(super) fn is_metadata(&self) -> bool {
        !matches!(self.what, What::Bytes { .. } | What::Length { grown_by: Some(_), .. })
    }

    /// The folders whose entries it changes.
    pub(super) fn folders(&self) -> Vec<&str> {
        match &self.what {
            What::Put { path, .. } | What::Remove { path, .. } => vec![folder_of(path)],
            What::Move { from, to, .. } => vec![folder_of(from), folder_of(to)],
            _ => Vec::new(),
        }
    }
}

/// The folder that a path is in; `.` for the sandbox.
pub(super) fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or(".", |(folder, _)| folder)
}

impl Log {
    /// What these calls ask of a disk that has `base`, all of it durable.
    ///
    /// # Errors
    /// Where a call did something that is not modelled.
    pub fn record(base: &Tree, calls: &[Call]) -> Result<Self, Unmodelled> {
        let mut log = Self {
            base: base.clone(),
            whole: base.clone(),
            changes: Vec::new(),
            syncs: Vec::new(),
            dropped: BTreeSet::new(),
            modes: BTreeMap::new(),
            calls: calls.len(),
        };
        let mut synced_writes = BTreeSet::new();
        for (at, call) in calls.iter().enumerate() {
            log.note_synced_open(call, &mut synced_writes);
            if call.class == Class::Sync {
                log.sync(at, call);
            }
            if matches!(call.result, Some(Ok(_))) {
                log.take(at, call)?;
                let description = description(call);
                if let (Some(Effect::Written { file, offset: Some(from), length }), true) =
                    (&call.effect, description.is_some_and(|open| synced_writes.contains(&open)))
                    && let Some(file) = log.whole.number(*file)
                {
                    let what = Synced::Write { file, from: *from, to: from + length };
                    log.syncs.push(Sync { call: at, what });
                }
            }
        }
        Ok(log)
    }

    /// How many calls there were.
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// How many changes they asked for.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether nothing was changed.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// What is there when nothing is lost.
    pub fn whole(&self) -> &Tree {
        &self.whole
    }

    /// What a power loss leaves that comes when the first `after` calls have returned and takes the changes `lost`.
    pub fn remaining(&self, after: usize, lost: &[usize]) -> Tree {
        let was_asked = |number: usize| self.changes.get(number).is_some_and(|change| change.call <= after);
        self.tree(|number| was_asked(number) && !lost.contains(&number))
    }

    /// What a loss of these changes says of the store: which sync is missing, and where it belongs.
    pub fn missing_sync(&self, calls: &[Call], lost: &[usize]) -> String {
        let told = |at: usize| match calls.get(at) {
            Some(call) => format!("call {}, {call}", at + 1),
            None => "the end".to_owned(),
        };
        let lost: Vec<&Change> = lost.iter().filter_map(|number| self.changes.get(*number)).collect();
        // Content that has a name all the same tells most, then a file that did not come to its new name, then the rest.
        let moved = lost.iter().find(|change| matches!(change.what, What::Move { .. }));
        let is_named = |file: u32| {
            let lost_move = moved.and_then(|change| change.named());
            lost_move != Some(&Name::File(file))
        };
        let content = lost.iter().find(|change| change.content_of().is_some_and(is_named));
        let Some(change) = content.or(moved).or(lost.last()) else { return "nothing was lost".to_owned() };
        let Some(file) = change.content_of() else {
            return format!("{} was not on the disk: no sync of the folder came after it", told(change.call));
        };
        let is_its = |other: &&Change| other.content_of() == Some(file);
        let last = self.changes.iter().rfind(is_its).map_or(change.call, |other| other.call);
        let name = Name::File(file);
        let exposed = self.changes.iter().find(|other| {
            other.call > last && matches!(&other.what, What::Move { name: moved, .. } if *moved == name)
        });
        let before = exposed.map_or("the operation ended".to_owned(), |other| told(other.call));
        format!("{} was not on the disk: no sync of the file came between it and {before}", told(last))
    }

    /// The bytes that a failed sync dropped.
    pub fn dropped(&self) -> impl Iterator<Item = usize> {
        self.dropped.iter().copied()
    }

    /// What is there with the changes that `is_kept` names by their numbers.
    pub fn tree(&self, is_kept: impl Fn(usize) -> bool) -> Tree {
        let mut tree = self.base.clone();
        let mut lengths: BTreeMap<u32, usize> = BTreeMap::new();
        for (_, change) in self.changes.iter().enumerate().filter(|(number, _)| is_kept(*number)) {
            match &change.what {
                What::Put { path, name } => self.give(&mut tree, path, name),
                What::Remove { path, name } => take(&mut tree, path, name),
                What::Move { from, to, name } => {
                    take(&mut tree, from, name);
                    self.give(&mut tree, to, name);
                }
                What::Mode { file, mode } => tree.set_mode(*file, *mode),
                What::Length { file, length, .. } => {
                    let length = usize::try_from(*length).unwrap_or(usize::MAX);
                    // What is cut off does not come back with a later length.
                    self.content(&mut tree, *file).truncate(length);
                    lengths.insert(*file, length);
                }
                What::Bytes { file, offset, bytes } => {
                    let offset = usize::try_from(*offset).unwrap_or(usize::MAX);
                    let content = self.content(&mut tree, *file);
                    let (before, end) = (content.len(), offset + bytes.len());
                    if before < end {
                        content.resize(end, 0);
                    }
                    content[offset..end].copy_from_slice(bytes);
                    // Bytes beyond the length that the disk has are nowhere to be seen.
                    lengths.entry(*file).or_insert(before);
                }
            }
        }
        for (file, length) in lengths {
            self.content(&mut tree, file).resize(length, 0);
        }
        tree.drop_orphans();
        tree
    }

    fn content<'t>(&self, tree: &'t mut Tree, file: u32) -> &'t mut Vec<u8> {
        tree.content_mut(file, self.modes.get(&file).copied())
    }

    fn give(&self, tree: &mut Tree, path: &str, name: &Name) {
        if let Name::File(file) = name {
            // It may be new.
            self.content(tree, *file);
        }
        tree.set_name(path, Some(name.clone()));
    }

    /// The file that a sync is of.
    fn file(&self, call: &Call) -> Option<u32> {
        call.objects.iter().find_map(|object| match object {
            Object::File(number) => self.whole.number(*number),
            _ => None,
        })
    }

    fn push(&mut self, call: usize, what: What) -> usize {
        self.changes.push(Change { call, what });
        self.changes.len() - 1
    }

    fn take(&mut self, at: usize, call: &Call) -> Result<(), Unmodelled> {
        let before = self.whole.clone();
        self.whole.apply(call, None)?;
        match &call.effect {
            Some(Effect::Created { path, mode, .. }) => {
                let Some(name) = self.whole.name(path).cloned() else { return Ok(()) };
                if let Name::File(file) = name {
                    self.modes.insert(file, *mode);
                }
                self.push(at, What::Put { path: path.clone(), name });
            }
            Some(Effect::FolderMade { path, .. } | Effect::SymbolicLinked { path, .. }) => {
                if let Some(name) = self.whole.name(path).cloned() {
                    self.push(at, What::Put { path: path.clone(), name });
                }
            }
            Some(Effect::Linked { to, .. }) => {
                if let Some(name) = self.whole.name(to).cloned() {
                    self.push(at, What::Put { path: to.clone(), name });
                }
            }
            Some(Effect::Unlinked { path } | Effect::FolderRemoved { path }) => {
                if let Some(name) = before.name(path).cloned() {
                    self.push(at, What::Remove { path: path.clone(), name });
                }
            }
            // Nothing is done where both are names of one file.
            Some(Effect::Renamed { from, to }) if before.name(from) != before.name(to) => {
                if let Some(name) = before.name(from).cloned() {
                    self.push(at, What::Move { from: from.clone(), to: to.clone(), name });
                }
            }
            Some(Effect::ModeSet { path, mode }) => {
                if let Some(Name::File(file)) = self.whole.name(path) {
                    let file = *file;
                    self.push(at, What::Mode { file, mode: *mode });
                }
            }
            Some(Effect::Resized { size, file }) => {
                let Some(file) = self.whole.number(*file) else { return Ok(()) };
                if before.length(file) != Some(*size) {
                    self.push(at, What::Length { file, length: *size, grown_by: None });
                }
            }
            Some(Effect::Written { file, offset: Some(offset), length }) => {
                // A copy works on two files: this is the one that it writes.
                let (Some(file), Some(data)) = (self.whole.number(*file), &call.data) else { return Ok(()) };
                self.write(at, file, before.length(file).unwrap_or(0), *offset, *length, data);
            }
            _ => {}
        }
        Ok(())
    }

    /// One change for each page that is written, each with the length that it brings along.
    fn write(&mut self, at: usize, file: u32, mut known: u64, offset: u64, length: u64, data: &[u8]) {
        let end = offset + length;
        let mut from = offset;
        while from < end {
            let to = ((from / PAGE + 1) * PAGE).min(end);
            let index = |place: u64| usize::try_from(place - offset).unwrap_or(usize::MAX);
            let Some(bytes) = data.get(index(from)..index(to)) else { return };
            // The whole page is to be written again.
            let is_of_page = |number: &usize| {
                matches!(self.changes[*number].what, What::Bytes { file: other, offset: place, .. }
                    if other == file && place / PAGE == from / PAGE)
            };
            let again: Vec<usize> = self.dropped.iter().copied().filter(is_of_page).collect();
            self.dropped.retain(|number| !again.contains(number));
            let number = self.push(at, What::Bytes { file, offset: from, bytes: bytes.into() });
            if to > known {
                self.push(at, What::Length { file, length: to, grown_by: Some(number) });
                known = to;
            }
            from = to;
        }
    }

    fn sync(&mut self, at: usize, call: &Call) {
        // It only starts to write (sync_file_range(2)).
        if call.name == "sync_file_range" {
            return;
        }
        let what = match call.name.as_str() {
            "sync" | "syncfs" => Synced::All,
            _ => match (folder(call, &self.whole), self.file(call)) {
                (Some(folder), _) => Synced::Folder(folder),
                (None, Some(file)) => Synced::File(file),
                (None, None) => return,
            },
        };
        match call.result {
            Some(Ok(_)) => self.syncs.push(Sync { call: at, what }),
            Some(Err(_)) => {
                let is_durable = |change: &Change| {
                    self.syncs.iter().any(|sync| sync.call > change.call && sync.what.is_about(change))
                };
                let lost = (0..)
                    .zip(&self.changes)
                    .filter(|(_, change)| matches!(change.what, What::Bytes { .. }))
                    .filter(|(_, change)| what.is_about(change) && !is_durable(change))
                    .map(|(number, _)| number);
                let lost: Vec<usize> = lost.collect();
                self.dropped.extend(lost);
            }
            None => {}
        }
    }

    /// What is written through a description that was opened with `O_SYNC` or `O_DSYNC` is synced by itself.
    fn note_synced_open(&self, call: &Call, synced_writes: &mut BTreeSet<u32>) {
        let has_flag = call.arguments.iter().any(|argument| match argument {
            Argument::Flags(flags) => flags.split('|').any(|flag| matches!(flag, "O_SYNC" | "O_DSYNC")),
            _ => false,
        });
        if call.class == Class::Open && has_flag {
            synced_writes.extend(description(call));
        }
    }
}

/// Takes a name away, where it still stands for this.
fn take(tree: &mut Tree, path: &str, name: &Name) {
    if tree.name(path) == Some(name) {
        tree.set_name(path, None);
    }
}

/// The description that a call works on: of a copy, which has two, the one that it writes through.
fn description(call: &Call) -> Option<u32> {
    call.objects.iter().rev().find_map(|object| match object {
        Object::Description(number) => Some(*number),
        _ => None,
    })
}

/// The folder that a sync is of, where it is of one.
fn folder(call: &Call, tree: &Tree) -> Option<String> {
    call.arguments.iter().find_map(|argument| match argument {
        Argument::Descriptor(_, path) if path == "." || matches!(tree.name(path), Some(Name::Folder(_))) => {
            Some(path.clone())
        }
        _ => None,
    })
}

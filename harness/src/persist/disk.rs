//! Builds the log of updates and syncs from the calls of a trace.
//!
//! The changes are those of `man fsync` and of the ALICE study (Pillai et al., OSDI 2014): bytes written to one page of
//! a file, the length of a file, a name that is added, removed or moved. A rename is one change, because every
//! journaling file system makes it atomic.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::call::{Argument, Call, Class, Effect, Object};
use crate::persist::tree::{Name, Place, Tree, Unmodelled};

/// Maximum number of changes of one operation: deriving the states that a power loss may leave takes time and memory
/// quadratic in it, and no budget is checked in between.
const CHANGES_MAX: usize = 512;

/// The bytes written to one page are on the disk completely or not at all.
pub(super) const PAGE: u64 = 4096;

/// Log of the updates and syncs of a trace.
#[derive(Clone, Debug)]
pub struct Log {
    base: Tree,
    whole: Tree,
    pub(super) changes: Vec<Change>,
    pub(super) syncs: Vec<Sync>,
    /// Bytes that a failed sync was to make durable: the kernel has dropped them, and no later sync writes them unless
    /// their page is written again. Names and lengths are not dropped: they are written with the journal or not at all.
    dropped: BTreeSet<usize>,
    /// Permissions with which files and folders were created.
    modes: BTreeMap<u32, u32>,
    calls: usize,
}

/// One change of the disk.
#[derive(Clone, Debug)]
pub(super) struct Change {
    /// The call that requested it, from 0.
    pub(super) call: usize,
    pub(super) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A name is added.
    Put { place: Place, name: Name },
    /// A name is removed.
    Remove { place: Place, name: Name },
    /// A name moves to another place and replaces the entry there.
    Move { from: Place, to: Place, name: Name },
    /// Two names exchange their places.
    Exchange { places: [Place; 2], names: [Name; 2] },
    /// Permissions of a file or folder, by its number.
    Mode { of: u32, mode: u32 },
    /// An extended attribute of a file or folder; `value` is none if it is removed.
    Attribute { of: u32, name: String, value: Option<Arc<[u8]>> },
    /// The length of a file. `grown_by` is the number of the change whose bytes extend the file, if there is one.
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
    /// The content of a file, and the metadata needed to read it (`fdatasync`).
    Data(u32),
    /// One write that is synced by itself (`O_SYNC`): its range of bytes, and the length it needs.
    Write { file: u32, from: u64, to: u64 },
    /// A folder; its number in the tree.
    Folder(u32),
    /// Everything.
    All,
}

impl Synced {
    /// Whether it requires this change to be durable on any system, according to fsync(2).
    pub(super) fn is_about(&self, change: &Change) -> bool {
        match self {
            Self::Write { file, from, to } => match &change.what {
                What::Bytes { file: other, offset, bytes } => {
                    other == file && offset < to && offset + bytes.len() as u64 > *from
                }
                What::Length { file: other, length, .. } => other == file && length <= to,
                _ => false,
            },
            Self::File(file) => change.content_of() == Some(*file) || change.attribute_of() == Some(*file),
            Self::Data(file) => change.content_of() == Some(*file),
            Self::Folder(folder) => {
                change.folders().contains(folder) || change.attribute_of() == Some(*folder)
            }
            Self::All => true,
        }
    }
}

impl Change {
    /// Returns the file whose content or length it changes.
    pub(super) fn content_of(&self) -> Option<u32> {
        match self.what {
            What::Bytes { file, .. } | What::Length { file, .. } => Some(file),
            _ => None,
        }
    }

    /// Returns the file or folder whose permissions or extended attributes it changes.
    pub(super) fn attribute_of(&self) -> Option<u32> {
        match self.what {
            What::Mode { of, .. } | What::Attribute { of, .. } => Some(of),
            _ => None,
        }
    }

    /// Returns what it adds, removes or moves a name of.
    pub(super) fn named(&self) -> &[Name] {
        match &self.what {
            What::Put { name, .. } | What::Remove { name, .. } | What::Move { name, .. } => {
                std::slice::from_ref(name)
            }
            What::Exchange { names, .. } => names,
            _ => &[],
        }
    }

    /// Whether it changes names, permissions or an explicitly set length, not a length that a write extends.
    pub(super) fn is_metadata(&self) -> bool {
        !matches!(self.what, What::Bytes { .. } | What::Length { grown_by: Some(_), .. })
    }

    /// Returns the folders whose entries it changes.
    pub(super) fn folders(&self) -> Vec<u32> {
        match &self.what {
            What::Put { place, .. } | What::Remove { place, .. } => vec![place.0],
            What::Move { from, to, .. } => vec![from.0, to.0],
            What::Exchange { places: [one, other], .. } => vec![one.0, other.0],
            _ => Vec::new(),
        }
    }
}

impl Log {
    /// Records the updates and syncs of these calls on a disk that holds `base`, all of it durable.
    ///
    /// # Errors
    /// If a call did something that is not modelled.
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
                if log.changes.len() > CHANGES_MAX {
                    let why = format!("is past the {CHANGES_MAX} changes of which power losses are made");
                    return Err(Unmodelled::new(call, why));
                }
                let is_synced = description(call).is_some_and(|open| synced_writes.contains(&open))
                    || call.has_flag("RWF_DSYNC")
                    || call.has_flag("RWF_SYNC");
                if let (Some(Effect::Written { file, offset: Some(from), length, .. }), true) =
                    (&call.effect, is_synced)
                    && let Some(file) = log.whole.number(*file)
                {
                    let what = Synced::Write { file, from: *from, to: from + length };
                    log.syncs.push(Sync { call: at, what });
                }
            }
        }
        Ok(log)
    }

    /// Returns the number of calls.
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// Returns the number of changes that the calls requested.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether nothing was changed.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Returns the tree without any loss.
    pub fn whole(&self) -> &Tree {
        &self.whole
    }

    /// Returns the tree after a power loss that occurs when the first `after` calls have returned and that loses the
    /// changes `lost`.
    pub fn remaining(&self, after: usize, lost: &[usize]) -> Tree {
        let was_asked = |number: usize| self.changes.get(number).is_some_and(|change| change.call <= after);
        self.tree(|number| was_asked(number) && !lost.contains(&number))
    }

    /// Explains the loss of these changes: which sync is missing, and where it belongs.
    pub fn missing_sync(&self, calls: &[Call], lost: &[usize]) -> String {
        let told = |at: usize| match calls.get(at) {
            Some(call) => format!("call {}, {call}", at + 1),
            None => "the end".to_owned(),
        };
        let lost: Vec<&Change> = lost.iter().filter_map(|number| self.changes.get(*number)).collect();
        // Report lost content of a file whose name survived first, then a file that did not reach its new name, then
        // the rest.
        let is_move = |change: &Change| matches!(change.what, What::Move { .. } | What::Exchange { .. });
        let moved = lost.iter().find(|change| is_move(change));
        let is_named = |file: u32| !moved.is_some_and(|change| change.named().contains(&Name::File(file)));
        let content = lost.iter().find(|change| change.content_of().is_some_and(is_named));
        let Some(change) = content.or(moved).or(lost.last()) else { return "nothing was lost".to_owned() };
        let Some(file) = change.content_of() else {
            return format!("{} was not on the disk: no sync of the folder came after it", told(change.call));
        };
        let is_its = |other: &&Change| other.content_of() == Some(file);
        let last = self.changes.iter().rfind(is_its).map_or(change.call, |other| other.call);
        let name = Name::File(file);
        let exposed = self
            .changes
            .iter()
            .find(|other| other.call > last && is_move(other) && other.named().contains(&name));
        let before = exposed.map_or("the operation ended".to_owned(), |other| told(other.call));
        format!("{} was not on the disk: no sync of the file came between it and {before}", told(last))
    }

    /// Returns the bytes that a failed sync dropped.
    pub fn dropped(&self) -> impl Iterator<Item = usize> {
        self.dropped.iter().copied()
    }

    /// Builds the tree with the changes whose numbers `is_kept` accepts.
    pub fn tree(&self, is_kept: impl Fn(usize) -> bool) -> Tree {
        let mut tree = self.base.clone();
        let mut lengths: BTreeMap<u32, usize> = BTreeMap::new();
        for (_, change) in self.changes.iter().enumerate().filter(|(number, _)| is_kept(*number)) {
            match &change.what {
                What::Put { place, name } => self.give(&mut tree, place, name),
                What::Remove { place, name } => take(&mut tree, place, name),
                What::Move { from, to, name } => {
                    take(&mut tree, from, name);
                    self.give(&mut tree, to, name);
                }
                What::Exchange { places: [one, other], names: [first, second] } => {
                    self.give(&mut tree, other, first);
                    self.give(&mut tree, one, second);
                }
                What::Mode { of, mode } => {
                    self.ensure(&mut tree, *of);
                    tree.set_mode(*of, *mode);
                }
                What::Attribute { of, name, value } => {
                    self.ensure(&mut tree, *of);
                    tree.set_attribute(*of, name, value.as_deref());
                }
                What::Length { file, length, .. } => {
                    let length = usize::try_from(*length).unwrap_or(usize::MAX);
                    // Truncated bytes do not reappear with a later length.
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
                    // Bytes beyond the durable length are not visible.
                    lengths.entry(*file).or_insert(before);
                }
            }
        }
        for (file, length) in lengths {
            self.content(&mut tree, file).resize(length, 0);
        }
        tree
    }

    fn content<'t>(&self, tree: &'t mut Tree, file: u32) -> &'t mut Vec<u8> {
        tree.content_mut(file, self.modes.get(&file).copied())
    }

    fn give(&self, tree: &mut Tree, place: &Place, name: &Name) {
        if let Name::File(number) | Name::Folder(number) = name {
            self.ensure(tree, *number);
        }
        tree.set(place, Some(name.clone()));
    }

    /// Creates the file or folder of this number if it does not exist.
    fn ensure(&self, tree: &mut Tree, number: u32) {
        match self.whole.is_folder(number) {
            true => tree.ensure_folder(number, self.modes.get(&number).copied()),
            false => drop(self.content(tree, number)),
        }
    }

    /// Returns the file or folder that is synced.
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
            Some(
                Effect::Created { path, .. }
                | Effect::FolderMade { path, .. }
                | Effect::SymbolicLinked { path, .. }
                | Effect::SpecialMade { path, .. }
                | Effect::Linked { to: path, .. },
            ) => {
                let place = self.whole.place(path);
                let Some((place, name)) =
                    place.and_then(|place| Some((place.clone(), self.whole.at(&place)?)))
                else {
                    return Ok(());
                };
                let name = name.clone();
                if let Name::File(number) | Name::Folder(number) = name {
                    let mode = self.whole.mode(number).unwrap_or_default();
                    self.modes.entry(number).or_insert(mode);
                }
                self.push(at, What::Put { place, name });
            }
            Some(Effect::CreatedUnnamed { file, mode }) => {
                if let Some(file) = self.whole.number(*file) {
                    self.modes.insert(file, *mode);
                }
            }
            Some(Effect::Unlinked { path } | Effect::FolderRemoved { path }) => {
                if let (Some(place), Some(name)) = (before.place(path), before.name(path).cloned()) {
                    self.push(at, What::Remove { place, name });
                }
            }
            // rename(2) does nothing if both are names of one file.
            Some(Effect::Renamed { from, to }) if before.name(from) != before.name(to) => {
                let places = (before.place(from), before.place(to));
                if let ((Some(from), Some(to)), Some(name)) = (places, before.name(from).cloned()) {
                    self.push(at, What::Move { from, to, name });
                }
            }
            Some(Effect::Exchanged { from, to }) => {
                let places = (before.place(from), before.place(to));
                let names = (before.name(from).cloned(), before.name(to).cloned());
                if let ((Some(one), Some(other)), (Some(first), Some(second))) = (places, names) {
                    self.push(at, What::Exchange { places: [one, other], names: [first, second] });
                }
            }
            Some(Effect::ModeSet { path, mode, file }) => {
                if let Some(of) = self.whole.meant(path, *file) {
                    self.push(at, What::Mode { of, mode: *mode });
                }
            }
            Some(Effect::AttributeSet { path, file, name, mode }) => {
                if let (Some(of), Some(value)) = (self.whole.meant(path, *file), &call.data) {
                    let value = Some(value.as_slice().into());
                    self.push(at, What::Attribute { of, name: name.clone(), value });
                    if let Some(mode) = mode {
                        self.push(at, What::Mode { of, mode: *mode });
                    }
                }
            }
            Some(Effect::AttributeRemoved { path, file, name }) => {
                if let Some(of) = self.whole.meant(path, *file) {
                    self.push(at, What::Attribute { of, name: name.clone(), value: None });
                }
            }
            Some(Effect::Resized { size, file }) => {
                let Some(file) = self.whole.number(*file) else { return Ok(()) };
                if before.length(file) != Some(*size) {
                    self.push(at, What::Length { file, length: *size, grown_by: None });
                }
            }
            Some(Effect::Written { file, offset: Some(offset), length, .. }) => {
                // A copy works on two files: this is the one that it writes.
                let (Some(file), Some(data)) = (self.whole.number(*file), &call.data) else { return Ok(()) };
                self.write(at, file, before.length(file).unwrap_or(0), *offset, *length, data);
            }
            _ => {}
        }
        Ok(())
    }

    /// Adds one change for each page written, each followed by the length change that it causes.
    fn write(&mut self, at: usize, file: u32, mut known: u64, offset: u64, length: u64, data: &[u8]) {
        let end = offset + length;
        let mut from = offset;
        while from < end {
            let to = ((from / PAGE + 1) * PAGE).min(end);
            let index = |place: u64| usize::try_from(place - offset).unwrap_or(usize::MAX);
            let Some(bytes) = data.get(index(from)..index(to)) else { return };
            // The whole page is going to be written again, including its dropped bytes.
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
        // sync_file_range(2) only starts writing.
        if call.name == "sync_file_range" {
            return;
        }
        let what = match call.name.as_str() {
            "sync" | "syncfs" => Synced::All,
            name => match (self.file(call).or_else(|| folder(call, &self.whole)), name) {
                (Some(folder), _) if self.whole.is_folder(folder) => Synced::Folder(folder),
                (Some(file), "fdatasync") => Synced::Data(file),
                (Some(file), _) => Synced::File(file),
                (None, _) => return,
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

    /// Notes a description opened with `O_SYNC` or `O_DSYNC`: every write through it is synced.
    fn note_synced_open(&self, call: &Call, synced_writes: &mut BTreeSet<u32>) {
        if call.class == Class::Open && (call.has_flag("O_SYNC") || call.has_flag("O_DSYNC")) {
            synced_writes.extend(description(call));
        }
    }
}

/// Removes a name if it still refers to this.
fn take(tree: &mut Tree, place: &Place, name: &Name) {
    if tree.at(place) == Some(name) {
        tree.set(place, None);
    }
}

/// Returns the description that a call works on; for a copy, which has two, the one that it writes through.
fn description(call: &Call) -> Option<u32> {
    call.objects.iter().rev().find_map(|object| match object {
        Object::Description(number) => Some(*number),
        _ => None,
    })
}

/// Returns the folder that is synced, by the path of its descriptor.
fn folder(call: &Call, tree: &Tree) -> Option<u32> {
    call.arguments.iter().find_map(|argument| match argument {
        Argument::Descriptor(_, path) => tree.folder(path),
        _ => None,
    })
}

//! Resolves calls to the directory entries and bytes that they read and change.
//!
//! The directory entry of a name is place 0, byte `k` of its file is place `k + 1`. An access to a file through a
//! descriptor counts for all names that the file has at that moment. A file that has lost a name yields the former
//! content of that name, and a write to it changes nothing under that name.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::call::{Argument, Call, Class, Effect, Errno, LockChange, Object};

/// The entry and all bytes.
pub(super) const ALL: Range<u64> = 0..u64::MAX;
/// The entry alone.
pub(super) const ENTRY: Range<u64> = 0..1;
/// All bytes.
const BYTES: Range<u64> = 1..u64::MAX;
/// Range changed by an append with an unknown offset: no byte that was read, but the end of the file.
const TAIL: Range<u64> = 1 << 62..u64::MAX;

/// One access of one call to one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Touch {
    /// Index of the call in the trace, from 0.
    pub(super) at: usize,
    /// The operation, by its place in the trace.
    pub(super) client: u32,
    /// Name; for a listing, the folder.
    pub(super) name: String,
    pub(super) range: Range<u64>,
    pub(super) kind: Kind,
}

/// Kind of access of a call to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Read.
    Read,
    /// Read of the content before the call at this index removed the name from the file.
    ReadOld(usize),
    /// Lookup of the current name, without a read of the file's content.
    Found,
    /// Read of the entries of the folder.
    Listed,
    /// Change.
    Changed,
    /// Append: change of the bytes added at the end.
    Appended,
    /// Atomic creation, which fails if the name exists: a read and a change in one step.
    MadeAtOnce,
}

impl Kind {
    /// Whether it changes anything.
    pub(super) fn is_change(self) -> bool {
        matches!(self, Self::Changed | Self::Appended | Self::MadeAtOnce)
    }
}

/// Accesses of the calls of a trace to names.
#[derive(Debug, Default)]
pub(super) struct Touches {
    /// Accesses in the order of the calls.
    pub(super) all: Vec<Touch>,
    /// Names of files on which locks were taken or requested.
    locked: BTreeSet<String>,
    /// Creations, replacements and removals of each name: call, client and event.
    lives: BTreeMap<String, Vec<(usize, u32, Life)>>,
    /// File that each name refers to now.
    bound: BTreeMap<String, u32>,
    /// Names that each file has lost, and by which call.
    lost: BTreeMap<u32, Vec<(String, usize)>>,
    /// Known size of each file.
    ends: BTreeMap<u32, u64>,
}

/// Event in the life of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Made {
        at_once: bool,
    },
    /// Another file was put under the name.
    Got,
    Gone,
}

impl Touches {
    pub(super) fn of(calls: &[Call]) -> Self {
        let mut touches = Self::default();
        for at in 0..calls.len() {
            touches.take(calls, at);
        }
        touches
    }

    /// Returns the names that are judged: the data alone if it is changed; else all changed names except lock files and
    /// temporary files. If no others are left, locked files count as data.
    pub(super) fn judged(&self, data: &str) -> BTreeSet<&str> {
        let names = self.all.iter().filter(|touch| touch.kind.is_change()).map(|touch| touch.name.as_str());
        let changed: BTreeSet<&str> = names.collect();
        let is_below = |name: &str| name.strip_prefix(data).is_some_and(|rest| rest.starts_with('/'));
        let is_data = |name: &&str| *name == data || is_below(name);
        let is_of_data = !data.is_empty() && changed.iter().any(is_data);
        let of_interest = changed.into_iter().filter(|name| !is_of_data || is_data(name));
        let mut by_name: BTreeMap<&str, Vec<&Touch>> = BTreeMap::new();
        for touch in &self.all {
            by_name.entry(&touch.name).or_default().push(touch);
        }
        let touched = |name: &str| by_name.get(name).map(Vec::as_slice).unwrap_or_default();
        let is_content =
            |name: &&str| *name == data || !self.is_lock(name) && !self.is_temporary(name, touched(name));
        let content: BTreeSet<&str> = of_interest.filter(is_content).collect();
        let is_free = |name: &&str| *name == data || !self.locked.contains(*name);
        let free: BTreeSet<&str> = content.iter().copied().filter(is_free).collect();
        if free.is_empty() { content } else { free }
    }

    /// Whether an operation created this name atomically and removed it again.
    fn is_lock(&self, name: &str) -> bool {
        let lives = self.lives.get(name).map(Vec::as_slice).unwrap_or_default();
        lives.iter().enumerate().any(|(index, (_, client, life))| {
            let mut later = lives[index..].iter();
            *life == Life::Made { at_once: true }
                && later.any(|(_, who, life)| who == client && *life == Life::Gone)
        })
    }

    /// Whether this name was always created by the operation that removed or renamed it, and no other operation
    /// accessed it in between.
    fn is_temporary(&self, name: &str, touched: &[&Touch]) -> bool {
        let lives = self.lives.get(name).map(Vec::as_slice).unwrap_or_default();
        let is_own = |pair: &[(usize, u32, Life)]| match pair {
            [(from, client, Life::Made { .. }), (to, remover, Life::Gone)] => {
                let mut between = touched.iter().filter(|touch| (*from..*to).contains(&touch.at));
                client == remover && between.all(|touch| touch.client == *client)
            }
            _ => false,
        };
        !lives.is_empty() && lives.chunks(2).all(is_own)
    }

    fn take(&mut self, calls: &[Call], at: usize) {
        let call = &calls[at];
        self.note_locks(call);
        let entries: Vec<&str> = call.objects.iter().filter_map(entry).collect();
        match call.result {
            Some(Ok(_)) => {}
            Some(Err(Errno(libc::EEXIST))) => {
                if let Some(name) = entries.last() {
                    self.touch(at, call, name, ENTRY, Kind::Found);
                }
                return;
            }
            _ => {
                if let Some(name) = call.missed_name() {
                    self.touch(at, call, name, ALL, Kind::Read);
                }
                return;
            }
        }
        if matches!(call.class, Class::Inspect | Class::Open) {
            for name in &entries {
                self.touch(at, call, name, ENTRY, Kind::Found);
            }
        }
        if call.class == Class::Read && call.name.starts_with("getdents") {
            for folder in call.arguments.iter().filter_map(descriptor) {
                self.touch(at, call, folder, ENTRY, Kind::Listed);
            }
        }
        if let Some(effect) = &call.effect {
            self.take_effect(calls, at, effect, &entries);
        }
    }

    fn take_effect(&mut self, calls: &[Call], at: usize, effect: &Effect, entries: &[&str]) {
        let call = &calls[at];
        match effect {
            Effect::Opened { path, file } => self.bind(path, *file),
            Effect::Created { path, file, .. } => {
                self.lost.remove(file);
                self.ends.insert(*file, 0);
                self.bind(path, *file);
                let at_once = call.has_flag("O_EXCL");
                self.live(at, call, path, Life::Made { at_once });
                // Creating an empty file overwrites nothing, unless its name serves as a lock.
                if at_once {
                    self.touch(at, call, path, ENTRY, Kind::MadeAtOnce);
                }
            }
            Effect::CreatedUnnamed { file, .. } => {
                // The file is known to have no name.
                self.lost.insert(*file, Vec::new());
                self.ends.insert(*file, 0);
            }
            Effect::Read { file, offset, length, at_end } => {
                let range = match (*offset, *at_end) {
                    (Some(offset), true) => place(offset)..u64::MAX,
                    (Some(offset), false) => place(offset)..place(offset.saturating_add(*length)),
                    (None, _) => BYTES,
                };
                self.read(at, call, *file, range);
                // A read beyond the end does not show where the end is.
                let shows_end = *at_end && *length > 0 && call.name != "mmap";
                if let Some(offset) = offset.filter(|_| shows_end) {
                    self.ends.insert(*file, offset.saturating_add(*length));
                }
            }
            Effect::SizeRead { file } => {
                if let [name] = entries {
                    self.bind(name, *file);
                }
                let end = self.ends.get(file).copied().or_else(|| end_seen_later(&calls[at + 1..], *file));
                self.read(at, call, *file, place(end.unwrap_or(0))..u64::MAX);
            }
            Effect::Written { file, offset, length, appends } => {
                // A copy reads one file and writes the other.
                let source = call.objects.iter().find_map(number);
                if let Some(source) = source.filter(|source| source != file) {
                    self.read(at, call, source, BYTES);
                }
                let end = offset.map(|offset| offset.saturating_add(*length));
                let range = match (*offset, end) {
                    (Some(offset), Some(end)) => place(offset)..place(end),
                    _ if *appends => TAIL,
                    _ => BYTES,
                };
                let kind = if *appends { Kind::Appended } else { Kind::Changed };
                if *length > 0 {
                    self.change(at, call, *file, range, kind);
                }
                match (end, self.ends.get_mut(file)) {
                    (Some(end), Some(known)) => *known = end.max(*known),
                    (Some(end), None) if *appends => drop(self.ends.insert(*file, end)),
                    (Some(_), None) => {}
                    (None, _) => drop(self.ends.remove(file)),
                }
            }
            Effect::Resized { file, size } => {
                if let [name] = entries {
                    self.bind(name, *file);
                }
                let old = self.ends.insert(*file, *size);
                if old != Some(*size) {
                    let from = old.map_or(*size, |old| old.min(*size));
                    self.change(at, call, *file, place(from)..u64::MAX, Kind::Changed);
                }
            }
            Effect::Renamed { from, to } => self.rename(at, call, from, to),
            Effect::Exchanged { from, to } => self.exchange(at, call, from, to),
            Effect::Linked { from, to, file } => {
                let file = file.or_else(|| self.bound.get(from).copied());
                self.touch(at, call, to, ALL, Kind::MadeAtOnce);
                self.live(at, call, to, Life::Made { at_once: true });
                match file {
                    Some(file) => self.bind(to, file),
                    None => drop(self.bound.remove(to)),
                }
            }
            Effect::SymbolicLinked { path, .. }
            | Effect::FolderMade { path, .. }
            | Effect::SpecialMade { path, .. } => {
                self.touch(at, call, path, ALL, Kind::MadeAtOnce);
                self.live(at, call, path, Life::Made { at_once: true });
            }
            Effect::Unlinked { path } | Effect::FolderRemoved { path } => {
                self.touch(at, call, path, ALL, Kind::Changed);
                self.live(at, call, path, Life::Gone);
                self.unbind(at, path);
            }
            // Attributes are not content, and effects that are not modelled prove nothing.
            Effect::ModeSet { .. }
            | Effect::AttributeSet { .. }
            | Effect::AttributeRemoved { .. }
            | Effect::Other => {}
        }
    }

    /// Changes both names entirely; for a folder, also all known names in it.
    fn rename(&mut self, at: usize, call: &Call, from: &str, to: &str) {
        let is_at_once = call.has_flag("RENAME_NOREPLACE");
        let inner = self.bound.keys().filter_map(|name| name.strip_prefix(from)?.strip_prefix('/'));
        let inner: Vec<String> = inner.map(|name| format!("/{name}")).collect();
        for rest in [String::new()].into_iter().chain(inner) {
            let (from, to) = (format!("{from}{rest}"), format!("{to}{rest}"));
            let file = self.bound.get(&from).copied();
            self.touch(at, call, &from, ALL, Kind::Changed);
            self.live(at, call, &from, Life::Gone);
            self.unbind(at, &from);
            let kind = if is_at_once { Kind::MadeAtOnce } else { Kind::Changed };
            self.touch(at, call, &to, ALL, kind);
            self.live(at, call, &to, Life::Got);
            self.unbind(at, &to);
            if let Some(file) = file {
                self.bind(&to, file);
            }
        }
    }

    /// Changes both names entirely. `from` counts as removed and created again by this operation.
    fn exchange(&mut self, at: usize, call: &Call, from: &str, to: &str) {
        let files = [to, from].map(|name| self.bound.get(name).copied());
        for (name, file) in [from, to].into_iter().zip(files) {
            self.touch(at, call, name, ALL, Kind::Changed);
            self.unbind(at, name);
            if let Some(file) = file {
                self.bind(name, file);
            }
        }
        self.live(at, call, from, Life::Gone);
        self.live(at, call, from, Life::Made { at_once: false });
        self.live(at, call, to, Life::Got);
    }

    fn note_locks(&mut self, call: &Call) {
        for change in &call.locks {
            let (LockChange::Taken(_, path) | LockChange::Refused(_, path) | LockChange::Released(_, path)) =
                change;
            self.locked.insert(path.clone());
        }
        if call.class == Class::Lock {
            let files: Vec<u32> = call.objects.iter().filter_map(number).collect();
            let names =
                self.bound.iter().filter(|(_, file)| files.contains(file)).map(|(name, _)| name.clone());
            self.locked.extend(names);
        }
    }

    fn touch(&mut self, at: usize, call: &Call, name: &str, range: Range<u64>, kind: Kind) {
        if range.start < range.end {
            self.all.push(Touch { at, client: call.client, name: name.to_owned(), range, kind });
        }
    }

    fn live(&mut self, at: usize, call: &Call, name: &str, life: Life) {
        self.lives.entry(name.to_owned()).or_default().push((at, call.client, life));
    }

    fn bind(&mut self, name: &str, file: u32) {
        self.bound.insert(name.to_owned(), file);
    }

    fn unbind(&mut self, at: usize, name: &str) {
        if let Some(file) = self.bound.remove(name) {
            self.lost.entry(file).or_default().push((name.to_owned(), at));
        }
    }

    fn names_of(&mut self, call: &Call, file: u32) -> Vec<String> {
        let is_known = self.lost.contains_key(&file) || self.bound.values().any(|other| *other == file);
        // The file was opened before the trace began.
        let shown = call.arguments.iter().find_map(descriptor).filter(|name| !self.bound.contains_key(*name));
        if let (false, Some(name)) = (is_known, shown) {
            self.bind(name, file);
        }
        self.bound.iter().filter(|(_, other)| **other == file).map(|(name, _)| name.clone()).collect()
    }

    fn read(&mut self, at: usize, call: &Call, file: u32, range: Range<u64>) {
        for name in self.names_of(call, file) {
            self.touch(at, call, &name, range.clone(), Kind::Read);
        }
        for (name, since) in self.lost.get(&file).cloned().unwrap_or_default() {
            self.touch(at, call, &name, range.clone(), Kind::ReadOld(since));
        }
    }

    fn change(&mut self, at: usize, call: &Call, file: u32, range: Range<u64>, kind: Kind) {
        for name in self.names_of(call, file) {
            self.touch(at, call, &name, range.clone(), kind);
        }
    }
}

/// Returns the place of a byte.
fn place(byte: u64) -> u64 {
    byte.saturating_add(1)
}

/// Returns the size of a file, from the first of these calls that shows it before any other change of the file.
fn end_seen_later(calls: &[Call], file: u32) -> Option<u64> {
    let touching = calls.iter().filter_map(|call| Some((call, call.effect.as_ref()?)));
    let mut ends = touching.filter_map(|(call, effect)| match effect {
        Effect::Read { file: read, offset: Some(offset), length, at_end: true }
            if *read == file && *length > 0 && call.name != "mmap" =>
        {
            Some(Some(offset.saturating_add(*length)))
        }
        Effect::Written { file: written, offset, appends, .. } if *written == file => {
            Some(offset.filter(|_| *appends))
        }
        Effect::Resized { file: resized, .. } if *resized == file => Some(None),
        _ => None,
    });
    ends.next().flatten()
}

fn entry(object: &Object) -> Option<&str> {
    match object {
        Object::Entry(path) => Some(path),
        _ => None,
    }
}

fn number(object: &Object) -> Option<u32> {
    match object {
        Object::File(number) => Some(*number),
        _ => None,
    }
}

fn descriptor(argument: &Argument) -> Option<&str> {
    match argument {
        Argument::Descriptor(_, path) => Some(path),
        _ => None,
    }
}

//! A directory in memory: names, files with their content, and what each call does to them.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use crate::call::{Call, Effect, Object};

/// The content of a folder, with names by their paths from there.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    names: BTreeMap<String, Name>,
    files: BTreeMap<u32, File>,
    /// The files of the trace, by their numbers there.
    opened: BTreeMap<u32, u32>,
    next: u32,
}

/// What a name stands for: a file by its number, a folder by its permissions, a link by where it points.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    File(u32),
    Folder(u32),
    Link(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct File {
    /// Shared by all trees in which it is the same.
    content: Arc<Vec<u8>>,
    mode: u32,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// A file: its number, the same for all its names, its content, and its permissions.
    File(u32, &'a [u8], u32),
    /// A folder with these permissions.
    Folder(u32),
    /// A symbolic link to this path.
    Link(&'a str),
}

/// A call that did something which is not modelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmodelled {
    call: String,
    why: &'static str,
}

impl Unmodelled {
    pub(super) fn new(call: &Call, why: &'static str) -> Self {
        Self { call: call.to_string(), why }
    }
}

impl fmt::Display for Unmodelled {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.call, self.why)
    }
}

/// Two are equal where a look at the folder shows no difference: the numbers of files are of no interest, but which
/// names are one file is.
impl PartialEq for Tree {
    fn eq(&self, other: &Self) -> bool {
        let (mut pairs, mut back) = (BTreeMap::new(), BTreeMap::new());
        self.names.len() == other.names.len()
            && self.entries().zip(other.entries()).all(|((one, mine), (two, theirs))| {
                one == two
                    && match (mine, theirs) {
                        (Entry::File(own, a, mode), Entry::File(their, b, their_mode)) => {
                            a == b
                                && mode == their_mode
                                && *pairs.entry(own).or_insert(their) == their
                                && *back.entry(their).or_insert(own) == own
                        }
                        (mine, theirs) => mine == theirs,
                    }
            })
    }
}

impl Eq for Tree {}

impl Tree {
    /// Puts a file there; its number, for further names.
    pub fn put_file(&mut self, path: &str, content: Vec<u8>, mode: u32) -> u32 {
        self.next += 1;
        self.files.insert(self.next, File { content: Arc::new(content), mode });
        self.names.insert(path.to_owned(), Name::File(self.next));
        self.next
    }

    /// Gives a file a further name.
    pub fn put_name(&mut self, path: &str, file: u32) {
        self.names.insert(path.to_owned(), Name::File(file));
    }

    /// Puts a folder there.
    pub fn put_folder(&mut self, path: &str, mode: u32) {
        self.names.insert(path.to_owned(), Name::Folder(mode));
    }

    /// Puts a symbolic link there.
    pub fn put_link(&mut self, path: &str, to: &str) {
        self.names.insert(path.to_owned(), Name::Link(to.to_owned()));
    }

    /// All names, in order: a folder before what is in it.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// All names and what they stand for.
    pub fn entries(&self) -> impl Iterator<Item = (&str, Entry<'_>)> {
        self.names.iter().filter_map(|(path, name)| {
            let entry = match name {
                Name::File(number) => {
                    let file = self.files.get(number)?;
                    Entry::File(*number, &file.content, file.mode)
                }
                Name::Folder(mode) => Entry::Folder(*mode),
                Name::Link(to) => Entry::Link(to),
            };
            Some((path.as_str(), entry))
        })
    }

    /// The content of the file of this name.
    pub fn content(&self, path: &str) -> Option<&[u8]> {
        match self.names.get(path)? {
            Name::File(number) => Some(&self.files.get(number)?.content),
            Name::Folder(_) | Name::Link(_) => None,
        }
    }

    /// What a path names.
    pub(super) fn name(&self, path: &str) -> Option<&Name> {
        self.names.get(path)
    }

    /// Lets a path name something else, or nothing.
    pub(super) fn set_name(&mut self, path: &str, name: Option<Name>) {
        match name {
            Some(name) => drop(self.names.insert(path.to_owned(), name)),
            None => drop(self.names.remove(path)),
        }
    }

    /// The number here of a file of the trace.
    pub(super) fn number(&self, traced: u32) -> Option<u32> {
        self.opened.get(&traced).copied()
    }

    /// How long a file is, in bytes.
    pub(super) fn length(&self, file: u32) -> Option<u64> {
        Some(self.files.get(&file)?.content.len() as u64)
    }

    /// The content of the file of this number, which is made with these permissions where it is not there.
    pub(super) fn content_mut(&mut self, file: u32, mode: Option<u32>) -> &mut Vec<u8> {
        let new = || File { content: Arc::default(), mode: mode.unwrap_or(0o644) };
        // The next new file is another one.
        self.next = self.next.max(file);
        Arc::make_mut(&mut self.files.entry(file).or_insert_with(new).content)
    }

    pub(super) fn set_mode(&mut self, file: u32, mode: u32) {
        self.files.entry(file).and_modify(|known| known.mode = mode);
    }

    /// Takes away what is in folders that are not there.
    pub(super) fn drop_orphans(&mut self) {
        let folders: Vec<String> = self
            .names
            .iter()
            .filter(|(_, name)| matches!(name, Name::Folder(_)))
            .map(|(path, _)| path.clone())
            .collect();
        let is_there = |path: &str| {
            let mut rest = path;
            while let Some((folder, _)) = rest.rsplit_once('/') {
                if !folders.iter().any(|known| known == folder) {
                    return false;
                }
                rest = folder;
            }
            true
        };
        self.names.retain(|path, _| is_there(path));
    }

    /// A number that is the same for all trees in which a look shows no difference, and hardly for any other.
    pub fn digest(&self) -> u64 {
        let mut numbers = BTreeMap::new();
        let mut hasher = DefaultHasher::new();
        for (path, entry) in self.entries() {
            path.hash(&mut hasher);
            match entry {
                Entry::File(number, content, mode) => {
                    let next = numbers.len();
                    ('f', *numbers.entry(number).or_insert(next), content, mode).hash(&mut hasher);
                }
                Entry::Folder(mode) => ('d', mode).hash(&mut hasher),
                Entry::Link(to) => ('l', to).hash(&mut hasher),
            }
        }
        hasher.finish()
    }

    /// How many bytes all files have together.
    pub fn size(&self) -> usize {
        self.files.values().map(|file| file.content.len()).sum()
    }

    /// Does what a call did; of a write only the first `cut` bytes, where that is given.
    ///
    /// # Errors
    /// Where it did something that is not modelled.
    pub fn apply(&mut self, call: &Call, cut: Option<u64>) -> Result<(), Unmodelled> {
        let Some(effect) = &call.effect else { return Ok(()) };
        let unmodelled = |why| Err(Unmodelled::new(call, why));
        match effect {
            Effect::Read { .. } => {}
            Effect::Opened { path, file } => self.bind(path, *file),
            Effect::Created { path, file, mode } => {
                let number = self.put_file(path, Vec::new(), *mode);
                self.opened.insert(*file, number);
            }
            Effect::Written { file, offset, length } => {
                let (Some(offset), Some(data)) = (offset, &call.data) else {
                    return unmodelled("wrote what was not recorded");
                };
                let length = cut.unwrap_or(*length).min(*length);
                let (Ok(offset), Ok(length)) = (usize::try_from(*offset), usize::try_from(length)) else {
                    return unmodelled("wrote too far");
                };
                let Some(data) = data.get(..length) else { return unmodelled("wrote more than is recorded") };
                let Some(file) = self.file(*file) else { return unmodelled("wrote to an unknown file") };
                // A write of nothing beyond the end makes no file longer.
                if length == 0 {
                    return Ok(());
                }
                let Some(end) = offset.checked_add(length) else { return unmodelled("wrote too far") };
                let content = Arc::make_mut(&mut file.content);
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[offset..end].copy_from_slice(data);
            }
            Effect::Resized { file, size } => {
                let path = call.objects.iter().find_map(|object| match object {
                    Object::Entry(path) => Some(path.clone()),
                    _ => None,
                });
                if let Some(path) = path {
                    self.bind(&path, *file);
                }
                let Ok(size) = usize::try_from(*size) else { return unmodelled("made a file too long") };
                let Some(file) = self.file(*file) else { return unmodelled("cut an unknown file") };
                Arc::make_mut(&mut file.content).resize(size, 0);
            }
            Effect::Renamed { from, to } => {
                let Some(name) = self.names.get(from).cloned() else {
                    return unmodelled("renamed what is not known");
                };
                if matches!(name, Name::Folder(_)) {
                    return unmodelled("renamed a folder");
                }
                // Two names of one file: rename(2) does nothing then. Two links that say the same are two.
                let is_one = matches!(name, Name::File(_)) && self.names.get(to) == Some(&name);
                if !is_one || from == to {
                    self.names.remove(from);
                    self.names.insert(to.clone(), name);
                }
            }
            Effect::Linked { from, to } => {
                let Some(name) = self.names.get(from).cloned() else {
                    return unmodelled("linked what is not known");
                };
                self.names.insert(to.clone(), name);
            }
            Effect::SymbolicLinked { path, to } => self.put_link(path, to),
            Effect::Unlinked { path } | Effect::FolderRemoved { path } => {
                self.names.remove(path);
            }
            Effect::FolderMade { path, mode } => self.put_folder(path, *mode),
            Effect::ModeSet { path, mode } => match self.names.get_mut(path) {
                Some(Name::File(number)) => {
                    let number = *number;
                    self.files.entry(number).and_modify(|file| file.mode = *mode);
                }
                Some(Name::Folder(old)) => *old = *mode,
                _ => return unmodelled("set the permissions of what is not known"),
            },
            Effect::Other => return unmodelled("is not modelled"),
        }
        Ok(())
    }

    /// A file of the trace is the one that has this name now.
    fn bind(&mut self, path: &str, file: u32) {
        if let Some(Name::File(number)) = self.names.get(path) {
            self.opened.insert(file, *number);
        }
    }

    fn file(&mut self, file: u32) -> Option<&mut File> {
        self.files.get_mut(self.opened.get(&file)?)
    }
}

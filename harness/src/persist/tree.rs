//! Models a directory in memory: names, files and their content, and the effect of each call.
//!
//! An entry refers to its folder by number, not by path: a renamed folder keeps its entries.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use crate::call::{Call, Effect, Object, Special, TEMPORARY};

/// Number of the sandbox folder.
const ROOT: u32 = 0;
/// Number of the folder that TMPDIR names.
const TEMPORARY_ROOT: u32 = 1;
/// A path below neither of them is an entry of this folder, by its whole path, and is never laid out.
const ELSEWHERE: u32 = 2;
/// Number of every FIFO and socket: a write to one changes no file.
const NO_FILE: u32 = u32::MAX;

/// The content of a folder, with names as paths relative to it. The content of TMPDIR is below `$TMPDIR/`; that folder
/// itself always exists and is not an entry.
#[derive(Clone, Debug)]
pub struct Tree {
    entries: BTreeMap<Place, Name>,
    files: BTreeMap<u32, File>,
    folders: BTreeMap<u32, Folder>,
    /// Maps file and folder numbers of the trace to numbers here.
    opened: BTreeMap<u32, u32>,
    next: u32,
}

/// Place of an entry: the number of its folder, and its name in there.
pub(super) type Place = (u32, String);

/// Extended attributes, by their names.
pub type Attributes = BTreeMap<String, Vec<u8>>;

/// What a name refers to: a file or folder by number, a symbolic link by its target, a FIFO or socket by its
/// permissions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    File(u32),
    Folder(u32),
    Link(String),
    Special(Special, u32),
}

#[derive(Clone, Debug, Default)]
struct File {
    /// Shared by all trees that have the same content.
    content: Arc<Vec<u8>>,
    mode: u32,
    attributes: Arc<Attributes>,
}

#[derive(Clone, Debug, Default)]
struct Folder {
    mode: u32,
    attributes: Arc<Attributes>,
}

/// What a name refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entry<'a> {
    /// A file.
    File {
        /// The same for all its names.
        number: u32,
        /// All of its bytes.
        content: &'a [u8],
        /// Its permissions.
        mode: u32,
        /// Its extended attributes.
        attributes: &'a Attributes,
    },
    /// A folder.
    Folder {
        /// Its permissions.
        mode: u32,
        /// Its extended attributes.
        attributes: &'a Attributes,
    },
    /// A symbolic link to this path.
    Link(&'a str),
    /// A FIFO or a socket with these permissions.
    Special(Special, u32),
}

/// A call that did something which is not modelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmodelled {
    call: String,
    why: String,
}

impl Unmodelled {
    pub(super) fn new(call: &Call, why: impl Into<String>) -> Self {
        Self { call: call.to_string(), why: why.into() }
    }
}

impl fmt::Display for Unmodelled {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.call, self.why)
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            files: BTreeMap::new(),
            folders: BTreeMap::new(),
            opened: BTreeMap::new(),
            next: ELSEWHERE,
        }
    }
}

/// Two trees are equal if their visible content is equal: file numbers do not matter, but which names refer to one file
/// does.
impl PartialEq for Tree {
    fn eq(&self, other: &Self) -> bool {
        let (mine, theirs) = (self.entries(), other.entries());
        let (mut pairs, mut back) = (BTreeMap::new(), BTreeMap::new());
        mine.len() == theirs.len()
            && mine.into_iter().zip(theirs).all(|((one, mine), (two, theirs))| {
                let is_one_file = match (mine, theirs) {
                    (Entry::File { number: own, .. }, Entry::File { number: their, .. }) => {
                        *pairs.entry(own).or_insert(their) == their
                            && *back.entry(their).or_insert(own) == own
                    }
                    _ => true,
                };
                one == two && is_one_file && mine.numbered(0) == theirs.numbered(0)
            })
    }
}

impl Eq for Tree {}

impl Entry<'_> {
    /// Returns the same entry with another number, if it is a file.
    fn numbered(self, number: u32) -> Self {
        match self {
            Self::File { content, mode, attributes, .. } => Self::File { number, content, mode, attributes },
            other => other,
        }
    }
}

impl Tree {
    /// Adds a file and returns its number, for further names.
    pub fn put_file(&mut self, path: &str, content: Vec<u8>, mode: u32) -> u32 {
        let number = self.new_file(content, mode);
        self.put(path, Name::File(number));
        number
    }

    /// Adds another name of a file.
    pub fn put_name(&mut self, path: &str, file: u32) {
        self.put(path, Name::File(file));
    }

    /// Adds a folder.
    pub fn put_folder(&mut self, path: &str, mode: u32) {
        self.next += 1;
        self.folders.insert(self.next, Folder { mode, ..Folder::default() });
        self.put(path, Name::Folder(self.next));
    }

    /// Adds a symbolic link.
    pub fn put_link(&mut self, path: &str, to: &str) {
        self.put(path, Name::Link(to.to_owned()));
    }

    /// Adds a FIFO or a socket.
    pub fn put_special(&mut self, path: &str, special: Special, mode: u32) {
        self.put(path, Name::Special(special, mode));
    }

    /// Sets the extended attributes of the file or folder of this name.
    pub fn put_attributes(&mut self, path: &str, attributes: Attributes) {
        let attributes = Arc::new(attributes);
        match self.name(path).cloned() {
            Some(Name::File(number)) => {
                self.files.entry(number).and_modify(|file| file.attributes = attributes);
            }
            Some(Name::Folder(number)) => {
                self.folders.entry(number).and_modify(|folder| folder.attributes = attributes);
            }
            _ => {}
        }
    }

    fn put(&mut self, path: &str, name: Name) {
        if let Some(place) = self.place(path) {
            self.entries.insert(place, name);
        }
    }

    fn new_file(&mut self, content: Vec<u8>, mode: u32) -> u32 {
        self.next += 1;
        self.files.insert(self.next, File { content: Arc::new(content), mode, ..File::default() });
        self.next
    }

    /// Returns the place of this path; `None` if its folder is unknown.
    pub(super) fn place(&self, path: &str) -> Option<Place> {
        if path.starts_with('/') {
            return Some((ELSEWHERE, path.to_owned()));
        }
        let (folder, name) = path.rsplit_once('/').unwrap_or((".", path));
        Some((self.folder(folder)?, name.to_owned()))
    }

    /// Returns the number of the folder of this path.
    pub(super) fn folder(&self, path: &str) -> Option<u32> {
        if path == "." {
            return Some(ROOT);
        }
        if path == TEMPORARY {
            return Some(TEMPORARY_ROOT);
        }
        match self.name(path)? {
            Name::Folder(number) => Some(*number),
            _ => None,
        }
    }

    /// Returns all names, in order: a folder before its content.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.entries().into_iter().map(|(path, _)| path)
    }

    /// Returns all names and their entries, in order: a folder before its content.
    pub fn entries(&self) -> Vec<(String, Entry<'_>)> {
        let mut found = Vec::new();
        self.walk(ROOT, "", &mut found);
        self.walk(TEMPORARY_ROOT, &format!("{TEMPORARY}/"), &mut found);
        found
    }

    fn walk<'t>(&'t self, folder: u32, prefix: &str, found: &mut Vec<(String, Entry<'t>)>) {
        for ((_, leaf), name) in self.entries_of(folder) {
            let path = format!("{prefix}{leaf}");
            match name {
                Name::File(number) => {
                    let Some(file) = self.files.get(number) else { continue };
                    let (content, attributes) = (file.content.as_slice(), &*file.attributes);
                    found.push((path, Entry::File { number: *number, content, mode: file.mode, attributes }));
                }
                Name::Folder(number) => {
                    let Some(inner) = self.folders.get(number) else { continue };
                    let below = format!("{path}/");
                    found.push((path, Entry::Folder { mode: inner.mode, attributes: &inner.attributes }));
                    self.walk(*number, &below, found);
                }
                Name::Link(to) => found.push((path, Entry::Link(to))),
                Name::Special(special, mode) => found.push((path, Entry::Special(*special, *mode))),
            }
        }
    }

    fn entries_of(&self, folder: u32) -> impl Iterator<Item = (&Place, &Name)> {
        self.entries.range((folder, String::new())..).take_while(move |((other, _), _)| *other == folder)
    }

    /// Returns the content of the file of this name.
    pub fn content(&self, path: &str) -> Option<&[u8]> {
        match self.name(path)? {
            Name::File(number) => Some(&self.files.get(number)?.content),
            _ => None,
        }
    }

    /// Returns the extended attributes of the file or folder of this name.
    pub fn attributes(&self, path: &str) -> Option<&Attributes> {
        match self.name(path)? {
            Name::File(number) => Some(&self.files.get(number)?.attributes),
            Name::Folder(number) => Some(&self.folders.get(number)?.attributes),
            _ => None,
        }
    }

    /// Returns what a path refers to.
    pub(super) fn name(&self, path: &str) -> Option<&Name> {
        self.at(&self.place(path)?)
    }

    /// Returns the entry at a place.
    pub(super) fn at(&self, place: &Place) -> Option<&Name> {
        self.entries.get(place)
    }

    /// Sets or removes the entry at a place.
    pub(super) fn set(&mut self, place: &Place, name: Option<Name>) {
        match name {
            Some(name) => drop(self.entries.insert(place.clone(), name)),
            None => drop(self.entries.remove(place)),
        }
    }

    /// Returns the number here of a file or folder of the trace.
    pub(super) fn number(&self, traced: u32) -> Option<u32> {
        self.opened.get(&traced).copied().filter(|number| *number != NO_FILE)
    }

    /// Whether a number is that of a folder.
    pub(super) fn is_folder(&self, number: u32) -> bool {
        number < ELSEWHERE || self.folders.contains_key(&number)
    }

    /// Returns the length of a file, in bytes.
    pub(super) fn length(&self, file: u32) -> Option<u64> {
        Some(self.files.get(&file)?.content.len() as u64)
    }

    /// Returns the permissions of a file or folder.
    pub(super) fn mode(&self, number: u32) -> Option<u32> {
        let of_folder = || self.folders.get(&number).map(|folder| folder.mode);
        self.files.get(&number).map(|file| file.mode).or_else(of_folder)
    }

    /// Returns the content of the file of this number, which is created with these permissions if it does not exist.
    pub(super) fn content_mut(&mut self, file: u32, mode: Option<u32>) -> &mut Vec<u8> {
        let new = || File { mode: mode.unwrap_or(0o644), ..File::default() };
        // The next new file gets another number.
        self.next = self.next.max(file);
        Arc::make_mut(&mut self.files.entry(file).or_insert_with(new).content)
    }

    /// Creates the folder of this number if it does not exist.
    pub(super) fn ensure_folder(&mut self, number: u32, mode: Option<u32>) {
        self.next = self.next.max(number);
        let new = || Folder { mode: mode.unwrap_or(0o755), ..Folder::default() };
        self.folders.entry(number).or_insert_with(new);
    }

    /// Sets the permissions of a file or folder.
    pub(super) fn set_mode(&mut self, number: u32, mode: u32) {
        self.files.entry(number).and_modify(|file| file.mode = mode);
        self.folders.entry(number).and_modify(|folder| folder.mode = mode);
    }

    /// Sets or removes an extended attribute of a file or folder.
    pub(super) fn set_attribute(&mut self, number: u32, name: &str, value: Option<&[u8]>) {
        let file = self.files.get_mut(&number).map(|file| &mut file.attributes);
        let folder = self.folders.get_mut(&number).map(|folder| &mut folder.attributes);
        let Some(attributes) = file.or(folder) else { return };
        match value {
            Some(value) => drop(Arc::make_mut(attributes).insert(name.to_owned(), value.to_owned())),
            None => drop(Arc::make_mut(attributes).remove(name)),
        }
    }

    /// Returns a number that is equal for all trees that are equal, and almost never for others.
    pub fn digest(&self) -> u64 {
        let mut numbers = BTreeMap::new();
        let mut hasher = DefaultHasher::new();
        for (path, entry) in self.entries() {
            let number = match entry {
                Entry::File { number, .. } => {
                    let next = numbers.len() as u32;
                    *numbers.entry(number).or_insert(next)
                }
                _ => 0,
            };
            (path, entry.numbered(number)).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Returns the total size of all files, in bytes.
    pub fn size(&self) -> usize {
        self.files.values().map(|file| file.content.len()).sum()
    }

    /// Applies the effect of a call; of a write, only the first `cut` bytes, if given.
    ///
    /// # Errors
    /// If it did something that is not modelled.
    pub fn apply(&mut self, call: &Call, cut: Option<u64>) -> Result<(), Unmodelled> {
        let Some(effect) = &call.effect else { return Ok(()) };
        let unmodelled = |why| Unmodelled::new(call, why);
        let unknown_folder = || unmodelled("is in a folder that is not known");
        match effect {
            Effect::Read { .. } | Effect::SizeRead { .. } => {}
            Effect::Opened { path, file } => self.bind(path, *file),
            Effect::Created { path, file, mode } => {
                let place = self.place(path).ok_or_else(unknown_folder)?;
                let number = self.new_file(Vec::new(), *mode);
                self.entries.insert(place, Name::File(number));
                self.opened.insert(*file, number);
            }
            Effect::CreatedUnnamed { file, mode } => {
                let number = self.new_file(Vec::new(), *mode);
                self.opened.insert(*file, number);
            }
            Effect::Written { file, .. } if self.opened.get(file) == Some(&NO_FILE) => {}
            Effect::Written { file, offset, length, .. } => {
                let (Some(offset), Some(data)) = (offset, &call.data) else {
                    return Err(unmodelled("wrote what was not recorded"));
                };
                let length = cut.unwrap_or(*length).min(*length);
                let (Ok(offset), Ok(length)) = (usize::try_from(*offset), usize::try_from(length)) else {
                    return Err(unmodelled("wrote too far"));
                };
                let data = data.get(..length).ok_or_else(|| unmodelled("wrote more than is recorded"))?;
                let file = self.file(*file).ok_or_else(|| unmodelled("wrote to an unknown file"))?;
                // An empty write beyond the end does not extend the file.
                if length == 0 {
                    return Ok(());
                }
                let end = offset.checked_add(length).ok_or_else(|| unmodelled("wrote too far"))?;
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
                let size = usize::try_from(*size).map_err(|_| unmodelled("made a file too long"))?;
                let file = self.file(*file).ok_or_else(|| unmodelled("cut an unknown file"))?;
                Arc::make_mut(&mut file.content).resize(size, 0);
            }
            Effect::Renamed { from, to } => {
                let name = self.name(from).cloned().ok_or_else(|| unmodelled("renamed what is not known"))?;
                let (from, to) = (self.place(from), self.place(to).ok_or_else(unknown_folder)?);
                // If both are names of one file, rename(2) does nothing. Two links with the same target are two files.
                let is_one = matches!(name, Name::File(_)) && self.at(&to) == Some(&name);
                if let Some(from) = from.filter(|from| !is_one || *from == to) {
                    self.entries.remove(&from);
                    self.entries.insert(to, name);
                }
            }
            Effect::Exchanged { from, to } => {
                let names = (self.name(from).cloned(), self.name(to).cloned());
                let (Some(one), Some(other)) = names else {
                    return Err(unmodelled("exchanged what is not known"));
                };
                self.put(from, other);
                self.put(to, one);
            }
            Effect::Linked { from, to, file } => {
                let of_file = file.and_then(|file| self.number(file)).map(Name::File);
                let name = of_file.or_else(|| self.name(from).cloned());
                let name = name.ok_or_else(|| unmodelled("linked what is not known"))?;
                let place = self.place(to).ok_or_else(unknown_folder)?;
                self.entries.insert(place, name);
            }
            Effect::SymbolicLinked { path, to } => {
                let place = self.place(path).ok_or_else(unknown_folder)?;
                self.entries.insert(place, Name::Link(to.clone()));
            }
            Effect::Unlinked { path } | Effect::FolderRemoved { path } => {
                let place = self.place(path).ok_or_else(unknown_folder)?;
                self.entries.remove(&place);
            }
            Effect::FolderMade { path, mode } => {
                self.place(path).ok_or_else(unknown_folder)?;
                self.put_folder(path, *mode);
            }
            Effect::SpecialMade { path, special, mode } => {
                let place = self.place(path).ok_or_else(unknown_folder)?;
                self.entries.insert(place, Name::Special(*special, *mode));
            }
            Effect::ModeSet { path, mode, file } => {
                let place = self.place(path);
                let special = place.as_ref().and_then(|place| self.entries.get_mut(place));
                if let (None, Some(Name::Special(_, old))) = (file, special) {
                    *old = *mode;
                    return Ok(());
                }
                let number = self.meant(path, *file);
                let number = number.ok_or_else(|| unmodelled("set the permissions of what is not known"))?;
                self.set_mode(number, *mode);
            }
            Effect::AttributeSet { path, name, file, mode } => {
                let number = self.meant(path, *file);
                let number = number.ok_or_else(|| unmodelled("set an attribute of what is not known"))?;
                let value =
                    call.data.as_ref().ok_or_else(|| unmodelled("set an attribute that is not recorded"))?;
                self.set_attribute(number, name, Some(value));
                mode.iter().for_each(|mode| self.set_mode(number, *mode));
            }
            Effect::AttributeRemoved { path, name, file } => {
                let number = self.meant(path, *file);
                let number = number.ok_or_else(|| unmodelled("removed an attribute of what is not known"))?;
                self.set_attribute(number, name, None);
            }
            Effect::Other => return Err(unmodelled("is not modelled")),
        }
        Ok(())
    }

    /// Returns the file or folder that a call works on: by its number in the trace, if it has one, else by its path.
    pub(super) fn meant(&self, path: &str, file: Option<u32>) -> Option<u32> {
        let named = || match self.name(path)? {
            Name::File(number) | Name::Folder(number) => Some(*number),
            _ => None,
        };
        let known = file.and_then(|file| self.number(file)).or_else(named)?;
        // Attributes of the outermost folders are not modelled.
        (known > ELSEWHERE).then_some(known)
    }

    /// Maps a file or folder of the trace to the one that has this name now.
    fn bind(&mut self, path: &str, file: u32) {
        let folder = self.folder(path);
        let number = match self.name(path) {
            Some(Name::File(number)) => Some(*number),
            Some(Name::Special(..)) => Some(NO_FILE),
            _ => folder,
        };
        // If it is unknown, the number no longer refers to the previous file.
        match number {
            Some(number) => drop(self.opened.insert(file, number)),
            None => drop(self.opened.remove(&file)),
        }
    }

    fn file(&mut self, file: u32) -> Option<&mut File> {
        self.files.get_mut(self.opened.get(&file)?)
    }
}

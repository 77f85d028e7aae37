//! Simulates a disk in memory that stops in the middle of a call and loses unsynced data.
//!
//! A kill leaves the effect of every call so far, the last one possibly half done. A power loss leaves what was synced,
//! and a random part of the rest: for a file the old or the new content, or the new length with NULs; for a folder any
//! of the name changes since its last sync (the profile `posix`: the least that a disk may keep).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, How, Opened, Status};
use crate::replace::folder_of;

/// An in-memory disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Simulated {
    state: Arc<Mutex<State>>,
}

/// Event that ends the store's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misfortune {
    Kill,
    PowerLoss,
}

/// Time and kind of the event that ends the store's work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    /// Number of further modifying calls before the one that is interrupted.
    pub(crate) calls: u64,
    /// Random seed: decides how much of that call is done, and what a power loss takes.
    pub(crate) chance: u64,
    pub(crate) by: Misfortune,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<u64, Content>,
    names: BTreeMap<PathBuf, u64>,
    /// Changes of names since the last sync of their folder; next, the names before these changes.
    unsynced: Vec<Renaming>,
    synced_names: BTreeMap<PathBuf, u64>,
    last: u64,
    clock: i64,
    /// Number of further modifying calls before the one that is interrupted.
    calls_left: Option<u64>,
    chance: u64,
    is_over: bool,
    /// Whether calls of `sync` and `sync_folder` fail.
    fails_to_sync: bool,
    fails_to_sync_folders: bool,
    /// Number of calls that read content, and of calls that changed something.
    reads: u64,
    changes: u64,
}

#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    changed: i64,
}

#[derive(Clone, Debug)]
struct Renaming {
    gone: Option<PathBuf>,
    new: Option<(PathBuf, u64)>,
}

#[derive(Debug)]
struct OpenFile {
    state: Arc<Mutex<State>>,
    number: u64,
    appends: bool,
    position: Mutex<u64>,
}

impl Simulated {
    /// Sets when the store's work is interrupted; `None` lets it continue.
    pub(crate) fn cut(&self, cut: Option<Cut>) {
        let mut state = self.state();
        state.calls_left = cut.map(|cut| cut.calls);
        state.chance = cut.map_or(0, |cut| cut.chance);
    }

    /// Returns whether the interruption has happened.
    pub(crate) fn is_over(&self) -> bool {
        self.state().is_over
    }

    /// Restores the state that the next process finds.
    pub(crate) fn restart(&self, after: Misfortune) {
        let mut state = self.state();
        state.is_over = false;
        state.calls_left = None;
        if after == Misfortune::Kill {
            return;
        }
        let mut names = state.synced_names.clone();
        for change in std::mem::take(&mut state.unsynced) {
            if state.toss(2) == 0 {
                change.apply(&mut names);
            }
        }
        state.names = names.clone();
        state.synced_names = names;
        let numbers: Vec<u64> = state.files.keys().copied().collect();
        for number in numbers {
            let which = state.toss(3);
            let Some(content) = state.files.get_mut(&number) else { continue };
            match which {
                0 => content.bytes.clone_from(&content.synced),
                1 => content.synced.clone_from(&content.bytes),
                _ => {
                    let length = content.bytes.len();
                    content.bytes.clone_from(&content.synced);
                    content.bytes.resize(length, 0);
                    content.synced.clone_from(&content.bytes);
                }
            }
        }
    }

    /// Sets whether syncs fail from now on.
    pub(crate) fn fail_to_sync(&self, fails: bool) {
        self.state().fails_to_sync = fails;
    }

    /// Sets whether syncs of folders fail; other syncs are not affected.
    pub(crate) fn fail_to_sync_folders(&self, fails: bool) {
        self.state().fails_to_sync_folders = fails;
    }

    /// Returns how often content was read so far, and how often anything was changed.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let state = self.state();
        (state.reads, state.changes)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Begins a modifying call; fails after the interruption. Returns whether this is the interrupted call, of which
    /// only a part is done.
    fn change(&mut self) -> io::Result<bool> {
        if self.is_over {
            return Err(over());
        }
        self.clock += 1;
        self.changes += 1;
        match &mut self.calls_left {
            Some(0) => {
                self.is_over = true;
                Ok(true)
            }
            Some(left) => {
                *left -= 1;
                Ok(false)
            }
            None => Ok(false),
        }
    }

    /// Begins a modifying call that is done completely or not at all.
    fn change_wholly(&mut self) -> io::Result<()> {
        if self.change()? { Err(over()) } else { Ok(()) }
    }

    /// Returns a random number below `things` (a linear congruential generator, Knuth's constants).
    fn toss(&mut self, things: u64) -> u64 {
        self.chance =
            self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.chance >> 33) % things
    }

    fn new_file(&mut self) -> u64 {
        self.last += 1;
        self.files.insert(self.last, Content { changed: self.clock, ..Content::default() });
        self.last
    }

    fn rename(&mut self, change: Renaming) {
        change.apply(&mut self.names);
        self.unsynced.push(change);
    }

    fn status(&self, number: u64) -> Status {
        let content = &self.files[&number];
        Status {
            id: (1, number),
            is_file: true,
            length: content.bytes.len() as u64,
            mode: 0o600,
            owner: (0, 0),
            changed: [(content.changed, 0); 2],
        }
    }
}

impl Renaming {
    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        if let Some(gone) = &self.gone {
            names.remove(gone);
        }
        if let Some((name, number)) = &self.new {
            names.insert(name.clone(), *number);
        }
    }

    fn is_in(&self, folder: &Path) -> bool {
        let new = self.new.as_ref().map(|(name, _)| name);
        self.gone.iter().chain(new).any(|name| folder_of(name) == folder)
    }
}

fn over() -> io::Error {
    io::Error::other("the process was killed, or the power is gone")
}

impl Disk for Simulated {
    fn status(&self, path: &Path) -> io::Result<Option<Status>> {
        let state = self.state();
        if state.is_over {
            return Err(over());
        }
        Ok(state.names.get(path).map(|number| state.status(*number)))
    }

    fn open(&self, path: &Path, how: How) -> io::Result<Arc<dyn Opened>> {
        let mut state = self.state();
        if state.is_over {
            return Err(over());
        }
        let number = match (state.names.get(path).copied(), how) {
            (Some(_), How::New(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(number), _) => number,
            (None, How::Read) => return Err(io::ErrorKind::NotFound.into()),
            (None, _) => {
                state.change_wholly()?;
                let number = state.new_file();
                state.rename(Renaming { gone: None, new: Some((path.to_owned(), number)) });
                number
            }
        };
        let appends = how == How::Append;
        Ok(Arc::new(OpenFile { state: Arc::clone(&self.state), number, appends, position: Mutex::new(0) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change_wholly()?;
        let number = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        state.rename(Renaming { gone: Some(from.to_owned()), new: Some((to.to_owned(), number)) });
        Ok(())
    }

    fn link(&self, file: &Path, name: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change_wholly()?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let number = *state.names.get(file).ok_or(io::ErrorKind::NotFound)?;
        state.rename(Renaming { gone: None, new: Some((name.to_owned(), number)) });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change_wholly()?;
        state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        state.rename(Renaming { gone: Some(path.to_owned()), new: None });
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change_wholly()?;
        if state.fails_to_sync || state.fails_to_sync_folders {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let (synced, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.unsynced).into_iter().partition(|change| change.is_in(folder));
        for change in synced {
            change.apply(&mut state.synced_names);
        }
        state.unsynced = left;
        Ok(())
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let names = state.names.keys().filter(|name| folder_of(name) == folder);
        Ok(names.filter_map(|name| Some(name.file_name()?.to_str()?.to_owned())).collect())
    }
}

impl OpenFile {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, bytes: &[u8], offset: Option<u64>) -> io::Result<usize> {
        let mut state = self.state();
        let is_last = state.change()?;
        let kept = if is_last { state.toss(bytes.len() as u64 + 1) as usize } else { bytes.len() };
        let clock = state.clock;
        let content = state.files.get_mut(&self.number).expect("open files are kept");
        let at = offset.map_or(content.bytes.len(), |offset| offset as usize);
        if content.bytes.len() < at + kept {
            content.bytes.resize(at + kept, 0);
        }
        content.bytes[at..at + kept].copy_from_slice(&bytes[..kept]);
        content.changed = clock;
        if is_last { Err(over()) } else { Ok(kept) }
    }
}

impl Opened for OpenFile {
    fn status(&self) -> io::Result<Status> {
        let state = self.state();
        if state.is_over { Err(over()) } else { Ok(state.status(self.number)) }
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.state();
        if state.is_over {
            return Err(over());
        }
        state.reads += 1;
        let bytes = &state.files[&self.number].bytes;
        let from = bytes.len().min(offset as usize);
        let count = into.len().min(bytes.len() - from);
        into[..count].copy_from_slice(&bytes[from..from + count]);
        Ok(count)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        if self.appends {
            return self.put(bytes, None);
        }
        let mut position = self.position.lock().unwrap_or_else(PoisonError::into_inner);
        let count = self.put(bytes, Some(*position))?;
        *position += count as u64;
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.put(bytes, Some(offset))
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let mut state = self.state();
        state.change_wholly()?;
        let clock = state.clock;
        let content = state.files.get_mut(&self.number).expect("open files are kept");
        content.bytes.resize(length as usize, 0);
        content.changed = clock;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        state.change_wholly()?;
        if state.fails_to_sync {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let content = state.files.get_mut(&self.number).expect("open files are kept");
        content.synced.clone_from(&content.bytes);
        Ok(())
    }

    fn set_owner(&self, _: (u32, u32)) -> io::Result<()> {
        self.state().change_wholly()
    }

    fn set_mode(&self, _: u32) -> io::Result<()> {
        self.state().change_wholly()
    }
}

//! Saves the state of a command-line tool in one JSON file: save, load, or load, change and save at once.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::disk::{self, Disk, How, read_range, write_all};
use crate::document::Document;
use crate::error::{Error, ErrorKind};
use crate::lock::FileLock;
use crate::replace::{beside, create_folder, folder_of, lock_path, replace_resolved, resolve};

/// A saved session: no saver overwrites the changes of another unseen, as long as all use [`SavedSession::change`].
#[derive(Debug)]
pub struct SavedSession<T>(Document<T>);

impl<T: Serialize + DeserializeOwned + Default + Clone> SavedSession<T> {
    /// Opens the session in the file `path`; a missing folder is created now, the file with the first save.
    ///
    /// # Errors
    /// As for [`Document::open`], and [`ErrorKind::Io`] if the folder cannot be created.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        create_folder(folder_of(path.as_ref()))?;
        Document::open(path).map(Self)
    }

    /// Returns the value that was saved last, or the default if there was none.
    ///
    /// # Errors
    /// As for [`Document::read`].
    pub fn load(&self) -> Result<Arc<T>, Error> {
        self.0.read()
    }

    /// Overwrites the saved value with `value`: changes that others saved since it was loaded are lost. To modify the
    /// saved value, use [`SavedSession::change`].
    ///
    /// # Errors
    /// As for [`Document::update`].
    pub fn save(&self, value: T) -> Result<(), Error> {
        self.0.update(|saved| *saved = value)
    }

    /// Loads, changes and saves under one lock.
    ///
    /// # Errors
    /// As for [`Document::update_unless`].
    ///
    /// # Panics
    /// If `change` panics.
    pub fn change<R, E>(&self, change: impl FnOnce(&mut T) -> Result<R, E>) -> Result<Result<R, E>, Error> {
        self.0.update_unless(change)
    }
}

/// A saved session that is written in place, for a file that others hold open, or that has several names: it keeps its
/// inode. A reader without the lock may find it torn while it is written.
///
/// The new content is first written and synced to a separate file (`.NAME.redo`), before the first byte is changed; if
/// a writer was killed, the next holder of the lock writes it again. So a kill harms nothing for users of this type.
pub struct TornWhileWritten<T> {
    path: PathBuf,
    lock: FileLock,
    disk: Arc<dyn Disk>,
    value: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned + Default> TornWhileWritten<T> {
    /// Opens the session in the file `path`. Creates nothing before the first save.
    ///
    /// # Errors
    /// As for [`Document::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_on(disk::real(), path.as_ref())
    }

    pub(crate) fn open_on(disk: Arc<dyn Disk>, path: &Path) -> Result<Self, Error> {
        let path = resolve(path)?;
        let lock = FileLock::new(lock_path(&path));
        Ok(Self { path, lock, disk, value: PhantomData })
    }

    /// Returns the value that was saved last, read under the lock, or the default if there was none.
    ///
    /// # Errors
    /// Those of [`FileLock::lock`], [`ErrorKind::Corrupt`], [`ErrorKind::NotAFile`], [`ErrorKind::Io`].
    pub fn load(&self) -> Result<T, Error> {
        let _guard = self.lock.lock()?;
        self.load_locked()
    }

    /// Loads, changes and saves under one lock.
    ///
    /// # Errors
    /// As for [`TornWhileWritten::load`], and [`ErrorKind::Unserialisable`].
    ///
    /// # Panics
    /// If `change` panics.
    pub fn change<R, E>(&self, change: impl FnOnce(&mut T) -> Result<R, E>) -> Result<Result<R, E>, Error> {
        let guard = self.lock.lock()?;
        let mut value = self.load_locked()?;
        let changed = match guard.turn().act(|| change(&mut value)) {
            Ok(changed) => changed,
            refused => return Ok(refused),
        };
        let mut content = serde_json::to_vec(&value)
            .map_err(|source| Error::new("serialise", &self.path, ErrorKind::Unserialisable(source)))?;
        // JSON has no NaN: it would be written as null and never be readable again.
        serde_json::from_slice::<T>(&content)
            .map_err(|source| Error::new("serialise", &self.path, ErrorKind::Unserialisable(source)))?;
        content.push(b'\n');
        drop(replace_resolved(&*self.disk, &self.redo(), &content)?);
        self.write_in_place(&content)?;
        Ok(Ok(changed))
    }

    fn load_locked(&self) -> Result<T, Error> {
        let redo = self.redo();
        if let Some(content) = self.content(&redo)? {
            self.write_in_place(&content)?;
        }
        let Some(content) = self.content(&self.path)? else { return Ok(T::default()) };
        serde_json::from_slice(&content)
            .map_err(|place| Error::new("read", &self.path, ErrorKind::Corrupt(place.to_string())))
    }

    /// Writes the content of the redo file in place, and removes the redo file.
    fn write_in_place(&self, content: &[u8]) -> Result<(), Error> {
        let file = self.disk.open(&self.path, How::Change).map_err(Error::io("open", &self.path))?;
        let mut offset = 0;
        let written = write_all(content, |bytes| {
            let count = file.write_at(bytes, offset)?;
            offset += count as u64;
            Ok(count)
        });
        written.map_err(Error::io("write", &self.path))?;
        file.set_length(content.len() as u64).map_err(Error::io("cut", &self.path))?;
        file.sync().map_err(Error::io("sync", &self.path))?;
        // Sync the name of a new file before the only other copy is removed.
        let folder = folder_of(&self.path);
        self.disk.sync_folder(folder).map_err(Error::io("sync the folder", folder))?;
        // If a power loss restores it, it equals the saved content: the next save replaces it with its own, synced.
        let redo = self.redo();
        self.disk.remove(&redo).map_err(Error::io("remove", &redo))
    }

    fn redo(&self) -> PathBuf {
        beside(&self.path, ".", ".redo")
    }

    fn content(&self, path: &Path) -> Result<Option<Vec<u8>>, Error> {
        let file = match self.disk.open(path, How::Read) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(Error::io("open", path))?,
        };
        let status = file.status().map_err(Error::io("examine", path))?;
        if !status.is_file {
            return Err(Error::new("read", path, ErrorKind::NotAFile));
        }
        read_range(&*file, 0, status.length).map(Some).map_err(Error::io("read", path))
    }
}

impl<T> fmt::Debug for TornWhileWritten<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("TornWhileWritten").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn pushed(all: &mut Vec<u32>, number: u32) -> Result<(), ()> {
        all.push(number);
        Ok(())
    }

    #[test]
    fn the_folder_is_made_and_a_change_keeps_what_another_saved() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/session.json");
        let (one, other): (SavedSession<Vec<u32>>, SavedSession<Vec<u32>>) =
            (SavedSession::open(&path).unwrap(), SavedSession::open(&path).unwrap());
        one.save(vec![1]).unwrap();
        other.change(|all| pushed(all, 2)).unwrap().unwrap();
        one.change(|all| pushed(all, 3)).unwrap().unwrap();
        assert_eq!(*other.load().unwrap(), [1, 2, 3]);
    }

    #[test]
    fn a_file_written_in_place_keeps_its_inode_and_both_its_names() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("a"), folder.path().join("b"));
        let saved: TornWhileWritten<Vec<u32>> = TornWhileWritten::open(&path).unwrap();
        for number in 0..100 {
            saved.change(|all| pushed(all, number)).unwrap().unwrap();
        }
        fs::hard_link(&path, &other).unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        saved.change(|all| Ok::<_, ()>(all.split_off(1))).unwrap().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
        assert_eq!(fs::read_to_string(&other).unwrap(), "[0]\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "two names and the lock");
    }
}

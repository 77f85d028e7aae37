//! Keeps one value as JSON in one file, read without and changed under the lock.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::disk::{self, Disk, How, Opened, Status, read_range};
use crate::error::{Error, ErrorKind};
use crate::group::{Group, Lead};
use crate::lock::{FileLock, Guard, Turn};
use crate::replace::{lock_path, replace_resolved, resolve};

/// A value of type `T` in a JSON file, with its lock file (`NAME.lock`) beside it.
///
/// A missing file is `T::default()`; a corrupt one is an error and is never overwritten. Any number of documents, in
/// any number of threads and processes, may be open on one file. Threads that update through one `Document` at the
/// same time share one lock and one write.
///
/// An update costs as much as serialising and writing the whole value. An unchanged value is not parsed again: it is
/// recognised by the descriptor of the file it was read from, which stays open.
pub struct Document<T> {
    path: PathBuf,
    lock: FileLock,
    disk: Arc<dyn Disk>,
    /// Version that was read or written last.
    known: Mutex<Option<Version<T>>>,
    group: Group<Draft<T>, Error>,
}

/// The value of one version of the file.
struct Version<T> {
    /// Kept open while the version is cached, so that no other file can get its inode number.
    file: Arc<dyn Opened>,
    status: Status,
    value: Arc<T>,
}

/// A value, and the file that it was read from.
type Loaded<T> = (Arc<T>, Option<Arc<dyn Opened>>);

/// The state that the parts of an update work on.
struct Draft<T> {
    value: Arc<T>,
    is_changed: bool,
    /// The leader's turn.
    turn: Turn,
}

impl<T: Serialize + DeserializeOwned + Default + Clone> Document<T> {
    /// Opens the document in the file `path`. Creates nothing before the first update.
    ///
    /// A symbolic link is followed once, now, so that all its names share one lock.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if a link cannot be followed, [`ErrorKind::NotAFile`] if `path` cannot name a file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_on(disk::real(), path.as_ref())
    }

    pub(crate) fn open_on(disk: Arc<dyn Disk>, path: &Path) -> Result<Self, Error> {
        let path = resolve(path)?;
        let lock = FileLock::new(lock_path(&path));
        Ok(Self { path, lock, disk, known: Mutex::new(None), group: Group::new() })
    }

    /// Returns the path of the data file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the value that the last finished update left. Takes no lock and never waits.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if the file holds anything but one `T`, [`ErrorKind::NotAFile`], [`ErrorKind::Io`].
    pub fn read(&self) -> Result<Arc<T>, Error> {
        Ok(self.load()?.0)
    }

    /// Returns the value that was read or written last, without accessing the file; `None` if there was none.
    pub fn known_value(&self) -> Option<Arc<T>> {
        self.known().as_ref().map(|known| Arc::clone(&known.value))
    }

    /// Applies `change` to the value under the lock, and returns its result once the value is on disk.
    ///
    /// # Errors
    /// Those of [`FileLock::lock`], [`Document::read`] and [`replace`](crate::replace), and
    /// [`ErrorKind::ReadBackDiffers`] if the disk does not hold what was written.
    ///
    /// # Panics
    /// If `change` panics; other updates in the same write continue. If serialising `T` panics, all of them do.
    pub fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> Result<R, Error> {
        let changed = self.update_unless(|value| Ok::<R, std::convert::Infallible>(change(value)))?;
        Ok(changed.unwrap_or_else(|never| match never {}))
    }

    /// Like [`Document::update`], but if `change` returns an error, nothing of it is written and that error is
    /// returned.
    ///
    /// # Errors
    /// As for [`Document::update`].
    ///
    /// # Panics
    /// As [`Document::update`].
    pub fn update_unless<R, E>(
        &self,
        change: impl FnOnce(&mut T) -> Result<R, E>,
    ) -> Result<Result<R, E>, Error> {
        if self.lock.is_of_this_thread() {
            return Err(Error::new("lock", self.lock.path(), ErrorKind::WouldWaitForItself));
        }
        self.group.take_part(&Patiently { document: self, limit: None }, |draft| draft.part(change))
    }

    /// Like [`Document::update_unless`], but waits for the lock for at most `limit`.
    ///
    /// # Errors
    /// As for [`Document::update`], and [`ErrorKind::TimedOut`], with nothing changed.
    ///
    /// # Panics
    /// As [`Document::update`].
    pub fn update_within<R, E>(
        &self,
        limit: Duration,
        change: impl FnOnce(&mut T) -> Result<R, E>,
    ) -> Result<Result<R, E>, Error> {
        // Without a batch: a thread that joins one waits as long as the batch does.
        let lead = Patiently { document: self, limit: Some(limit) };
        let (mut draft, kept) = lead.begin()?;
        let changed = draft.part(change);
        let left = lead.commit(draft, kept)?;
        lead.finish(left)?;
        Ok(changed)
    }

    /// Loads the value, and keeps the file it was read from open; no file if it does not exist yet.
    fn load(&self) -> Result<Loaded<T>, Error> {
        let there = self.disk.status(&self.path).map_err(Error::io("examine", &self.path))?;
        let Some(there) = there else { return Ok((Arc::new(T::default()), None)) };
        if !there.is_file {
            return Err(Error::new("read", &self.path, ErrorKind::NotAFile));
        }
        if let Some(known) = self.known().as_ref().filter(|known| known.status == there) {
            return Ok((Arc::clone(&known.value), Some(Arc::clone(&known.file))));
        }
        let file = match self.disk.open(&self.path, How::Read) {
            Ok(file) => file,
            Err(why) => return Err(Error::io("open", &self.path)(why)),
        };
        let status = file.status().map_err(Error::io("examine", &self.path))?;
        if !status.is_file {
            return Err(Error::new("read", &self.path, ErrorKind::NotAFile));
        }
        let content = read_range(&*file, 0, status.length).map_err(Error::io("read", &self.path))?;
        let value: T = serde_json::from_slice(&content)
            .map_err(|place| Error::new("read", &self.path, ErrorKind::Corrupt(place.to_string())))?;
        let value = Arc::new(value);
        *self.known() = Some(Version { file: Arc::clone(&file), status, value: Arc::clone(&value) });
        Ok((value, Some(file)))
    }

    /// Writes a value under the lock, and verifies it by reading it back.
    fn store(&self, value: Arc<T>) -> Result<(), Error> {
        let mut content = serde_json::to_vec(&*value)
            .map_err(|source| Error::new("serialise", &self.path, ErrorKind::Unserialisable(source)))?;
        // JSON has no NaN: it would be written as null, acknowledged, and never be readable again.
        serde_json::from_slice::<T>(&content)
            .map_err(|source| Error::new("serialise", &self.path, ErrorKind::Unserialisable(source)))?;
        content.push(b'\n');
        let file = replace_resolved(&*self.disk, &self.path, &content)?;
        let there = self.disk.status(&self.path).map_err(Error::io("examine", &self.path))?;
        let status = file.status().map_err(Error::io("examine", &self.path))?;
        let read_back = read_range(&*file, 0, status.length).map_err(Error::io("read", &self.path))?;
        if there != Some(status) || read_back != content {
            return Err(Error::new("verify", &self.path, ErrorKind::ReadBackDiffers));
        }
        *self.known() = Some(Version { file, status, value });
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, Option<Version<T>>> {
        // It is replaced as a whole, so a poisoned one is still consistent.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> Draft<T> {
    /// Applies `change` to a copy, which is discarded if `change` panics or returns an error.
    fn part<R, E>(&mut self, change: impl FnOnce(&mut T) -> Result<R, E>) -> Result<R, E> {
        let mut value = T::clone(&self.value);
        let changed = self.turn.act(|| change(&mut value))?;
        self.value = Arc::new(value);
        self.is_changed = true;
        Ok(changed)
    }
}

/// Leads an update of the document, with a limit on the wait for the lock.
struct Patiently<'a, T> {
    document: &'a Document<T>,
    limit: Option<Duration>,
}

impl<'a, T: Serialize + DeserializeOwned + Default + Clone> Lead<Draft<T>, Error> for Patiently<'a, T> {
    type Kept = (Guard<'a>, Option<Arc<dyn Opened>>);
    type Left = Option<Arc<dyn Opened>>;

    fn begin(&self) -> Result<(Draft<T>, Self::Kept), Error> {
        let lock = &self.document.lock;
        let guard = match self.limit {
            None => lock.lock()?,
            Some(limit) => lock.lock_within(limit)?,
        };
        let (value, old_file) = self.document.load()?;
        let draft = Draft { value, is_changed: false, turn: guard.turn() };
        Ok((draft, (guard, old_file)))
    }

    fn commit(&self, draft: Draft<T>, (guard, old_file): Self::Kept) -> Result<Self::Left, Error> {
        if draft.is_changed {
            self.document.store(draft.value)?;
        }
        drop(guard);
        Ok(old_file)
    }

    /// The replaced file is freed with its last descriptor. Freeing its blocks takes as long as a rename, so it is done
    /// after the unlock: other processes need not wait for it, and this one does not take the lock again at once.
    fn finish(&self, old_file: Self::Left) -> Result<(), Error> {
        drop(old_file);
        Ok(())
    }
}

impl<T> fmt::Debug for Document<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Document").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    type Counts = BTreeMap<String, u64>;

    fn in_a_folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("counts.json");
        (folder, path)
    }

    #[test]
    fn a_missing_file_is_the_default_and_reading_creates_nothing() {
        let (folder, path) = in_a_folder();
        assert_eq!(*Document::<Counts>::open(&path).unwrap().read().unwrap(), Counts::new());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn updates_of_many_threads_and_handles_all_count() {
        let (_folder, path) = in_a_folder();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let document: Document<Counts> = Document::open(&path).unwrap();
                    for _ in 0..25 {
                        document.update(|all| *all.entry("n".into()).or_default() += 1).unwrap();
                    }
                });
            }
        });
        assert_eq!(Document::<Counts>::open(&path).unwrap().read().unwrap()["n"], 100);
    }

    #[test]
    fn a_refused_change_writes_nothing() {
        let (_folder, path) = in_a_folder();
        let document: Document<Counts> = Document::open(&path).unwrap();
        document.update(|all| all.insert("n".into(), 1)).unwrap();
        let before = fs::read(&path).unwrap();
        let refused = document.update_unless(|all| {
            all.clear();
            Err::<(), _>("no")
        });
        assert_eq!(refused.unwrap(), Err("no"));
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn corrupt_content_is_an_error_that_names_operation_and_path_and_is_never_overwritten() {
        let deep = "[".repeat(100_000);
        let corrupt: [&[u8]; 8] =
            [b"", b"{", b"{\"n\":1}x", b"\0\0\0\0", b"[1]", b"{\"n\":-1}", b"\xff\xfe{}", deep.as_bytes()];
        for content in corrupt {
            let (_folder, path) = in_a_folder();
            fs::write(&path, content).unwrap();
            let document: Document<Counts> = Document::open(&path).unwrap();
            for error in
                [document.read().unwrap_err(), document.update(|all| all.insert("n".into(), 1)).unwrap_err()]
            {
                assert!(matches!(error.kind(), ErrorKind::Corrupt(_)), "{error}");
                assert!(
                    error.to_string().contains("cannot read") && error.to_string().contains("counts.json")
                );
            }
            assert_eq!(fs::read(&path).unwrap(), content);
        }
    }

    #[test]
    fn a_folder_or_a_pipe_in_the_file_s_place_is_an_error_and_no_hang() {
        let (folder, path) = in_a_folder();
        fs::create_dir(&path).unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [path, pipe] {
            let error = Document::<Counts>::open(&path).unwrap().read().unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::NotAFile), "{error}");
        }
    }

    #[test]
    fn a_second_handle_in_the_closure_of_the_first_is_an_error_and_no_hang() {
        let (_folder, path) = in_a_folder();
        let (outer, inner): (Document<Counts>, Document<Counts>) =
            (Document::open(&path).unwrap(), Document::open(&path).unwrap());
        let nested = outer.update(|_| inner.update(Counts::clear)).unwrap();
        assert!(matches!(nested.unwrap_err().kind(), ErrorKind::WouldWaitForItself));
    }

    #[test]
    fn a_value_that_is_no_json_is_an_error_and_the_old_value_stays() {
        let (_folder, path) = in_a_folder();
        fs::write(&path, "{}").unwrap();
        // JSON has string keys only.
        #[derive(Clone, Default, Serialize, serde::Deserialize)]
        struct Odd(BTreeMap<Vec<u8>, u8>);
        let error = Document::<Odd>::open(&path).unwrap().update(|odd| odd.0.insert(vec![1], 1)).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Unserialisable(_)), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"{}");
    }

    proptest! {
        #![proptest_config(crate::tests::cases())]
        #[test]
        fn a_document_equals_a_map_in_memory_whatever_is_done_and_reopened(
            steps in prop::collection::vec((".{0,3}", any::<Option<u64>>(), any::<bool>()), 1..12)
        ) {
            let (_folder, path) = in_a_folder();
            let mut model = Counts::new();
            let mut document: Document<Counts> = Document::open(&path).unwrap();
            for (key, value, reopen) in steps {
                if reopen {
                    document = Document::open(&path).unwrap();
                }
                let change = |all: &mut Counts| match value {
                    Some(value) => all.insert(key.clone(), value),
                    None => all.remove(&key),
                };
                prop_assert_eq!(document.update(change).unwrap(), change(&mut model));
                prop_assert_eq!(&*document.read().unwrap(), &model);
            }
        }
    }
}

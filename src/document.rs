//! One value kept as JSON in one file, read by anybody and changed under the lock.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::marker::PhantomData;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind};
use crate::lock::{FileLock, Guard};
use crate::replace::{lock_path, replace_resolved, resolve};

/// A value of type `T` in a JSON file, with its lock file (`NAME.lock`) beside it.
///
/// A missing file is `T::default()`; a corrupt one is an error and is never overwritten. Any number of documents, in
/// any number of threads and processes, may be open on one file.
#[derive(Debug)]
pub struct Document<T> {
    path: PathBuf,
    lock: FileLock,
    value: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned + Default> Document<T> {
    /// The document in the file `path`. Nothing is created before the first update.
    ///
    /// A symbolic link is followed now, once, so that all its names share one lock.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where a link cannot be followed, [`ErrorKind::NotAFile`] where `path` can name no file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = resolve(path.as_ref())?;
        let lock = FileLock::new(lock_path(&path));
        Ok(Self { path, lock, value: PhantomData })
    }

    /// The value as the last finished update left it. Takes no lock and never waits.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] where the file holds anything but one `T`, [`ErrorKind::NotAFile`], [`ErrorKind::Io`].
    pub fn read(&self) -> Result<T, Error> {
        Ok(self.load()?.0)
    }

    /// Changes the value by `change`, under the lock, and returns what `change` returned once it is on disk.
    ///
    /// # Errors
    /// Those of [`FileLock::lock`], [`Document::read`] and [`replace`](crate::replace), and
    /// [`ErrorKind::ReadBackDiffers`] where the disk does not hold what was written.
    pub fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> Result<R, Error> {
        let changed = self.update_unless(|value| Ok::<R, std::convert::Infallible>(change(value)))?;
        Ok(changed.unwrap_or_else(|never| match never {}))
    }

    /// As [`Document::update`], but where `change` returns an error nothing is written and that error is handed on.
    ///
    /// # Errors
    /// As for [`Document::update`].
    pub fn update_unless<R, E>(
        &self,
        change: impl FnOnce(&mut T) -> Result<R, E>,
    ) -> Result<Result<R, E>, Error> {
        self.update_under(self.lock.lock()?, change)
    }

    /// As [`Document::update_unless`], but waits for the lock for at most `limit`.
    ///
    /// # Errors
    /// As for [`Document::update`], and [`ErrorKind::TimedOut`], with nothing changed.
    pub fn update_within<R, E>(
        &self,
        limit: Duration,
        change: impl FnOnce(&mut T) -> Result<R, E>,
    ) -> Result<Result<R, E>, Error> {
        self.update_under(self.lock.lock_within(limit)?, change)
    }

    fn update_under<R, E>(
        &self,
        guard: Guard<'_>,
        change: impl FnOnce(&mut T) -> Result<R, E>,
    ) -> Result<Result<R, E>, Error> {
        let (mut value, old_file) = self.load()?;
        let changed = match change(&mut value) {
            Ok(changed) => changed,
            refused => return Ok(refused),
        };
        let mut content = serde_json::to_vec(&value)
            .map_err(|source| Error::new("serialise", &self.path, ErrorKind::Unserialisable(source)))?;
        content.push(b'\n');
        replace_resolved(&self.path, &content)?;
        if self.content()?.is_none_or(|(read_back, _)| read_back != content) {
            return Err(Error::new("verify", &self.path, ErrorKind::ReadBackDiffers));
        }
        drop(guard);
        // The replaced file goes with its last descriptor. Freeing its blocks takes as long as a rename, so that is
        // done after the unlock: the others need not wait for it, and this process does not come straight back.
        drop(old_file);
        Ok(Ok(changed))
    }

    /// The value, with the file it was read from kept open; no file where there is none yet.
    fn load(&self) -> Result<(T, Option<File>), Error> {
        let Some((content, file)) = self.content()? else {
            return Ok((T::default(), None));
        };
        let value = serde_json::from_slice(&content)
            .map_err(|place| Error::new("read", &self.path, ErrorKind::Corrupt(place.to_string())))?;
        Ok((value, Some(file)))
    }

    fn content(&self) -> Result<Option<(Vec<u8>, File)>, Error> {
        // Not to wait for the other end where somebody put a pipe in the file's place.
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&self.path);
        let mut file = match opened {
            Ok(file) => file,
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(other) => return Err(Error::io("open", &self.path)(other)),
        };
        let metadata = file.metadata().map_err(Error::io("examine", &self.path))?;
        if !metadata.is_file() {
            return Err(Error::new("read", &self.path, ErrorKind::NotAFile));
        }
        let mut content = Vec::new();
        file.read_to_end(&mut content).map_err(Error::io("read", &self.path))?;
        Ok(Some((content, file)))
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
        assert_eq!(Document::<Counts>::open(&path).unwrap().read().unwrap(), Counts::new());
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
        // JSON has text keys only.
        #[derive(Default, Serialize, serde::Deserialize)]
        struct Odd(BTreeMap<Vec<u8>, u8>);
        let error = Document::<Odd>::open(&path).unwrap().update(|odd| odd.0.insert(vec![1], 1)).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Unserialisable(_)), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"{}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
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
                prop_assert_eq!(&document.read().unwrap(), &model);
            }
        }
    }
}

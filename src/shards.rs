//! Keeps a journal for each writer, and merges them; a merge may be repeated, killed and run beside writers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::disk::{self, Disk};
use crate::document::Document;
use crate::error::{Error, ErrorKind};
use crate::journal::Journal;
use crate::replace::create_folder;

/// Folder of the shards, beside the merged file.
const SHARDS: &str = "shards";
const ENDING: &str = ".jsonl";

/// Records of many writers, and the file that they are merged into.
///
/// A writer appends to its own journal (`shards/WRITER.jsonl`) and never waits for another. The merged file stores how
/// far each shard was read, and the records up to there: both change with one rename, so a merge that is killed or
/// repeated loses and duplicates nothing.
#[derive(Debug)]
pub struct Shards<T> {
    folder: PathBuf,
    disk: Arc<dyn Disk>,
    merged: Document<Merged<T>>,
}

/// Content of the merged file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Merged<T> {
    /// Number of bytes read of each shard.
    pub read_to: BTreeMap<String, u64>,
    /// The records up to there.
    pub records: Vec<T>,
}

/// Writer of one shard.
#[derive(Debug)]
pub struct ShardWriter<T>(Journal<T>);

impl<T> Default for Merged<T> {
    fn default() -> Self {
        Self { read_to: BTreeMap::new(), records: Vec::new() }
    }
}

impl<T: Serialize + DeserializeOwned + Clone> Shards<T> {
    /// Opens the shards whose merged file is `merged`. Creates the folder of the shards.
    ///
    /// # Errors
    /// As for [`Document::open`], and [`ErrorKind::Io`] if the folder cannot be created.
    pub fn open(merged: impl AsRef<Path>) -> Result<Self, Error> {
        let shards = Self::open_on(disk::real(), merged.as_ref())?;
        create_folder(&shards.folder)?;
        Ok(shards)
    }

    pub(crate) fn open_on(disk: Arc<dyn Disk>, merged: &Path) -> Result<Self, Error> {
        let merged = Document::open_on(Arc::clone(&disk), merged)?;
        let folder = merged.path().with_file_name(SHARDS);
        Ok(Self { folder, disk, merged })
    }

    /// Returns the writer of this name; any number of processes may have it at a time, and take turns.
    ///
    /// # Errors
    /// [`ErrorKind::NotAFile`] if it is not a plain name.
    pub fn writer(&self, name: &str) -> Result<ShardWriter<T>, Error> {
        let path = self.folder.join(format!("{name}{ENDING}"));
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
            return Err(Error::new("open the shard", &path, ErrorKind::NotAFile));
        }
        Journal::open_on(Arc::clone(&self.disk), &path).map(ShardWriter)
    }

    /// Adds new records of the shards to the merged file, while the writers continue. Returns the number of records.
    ///
    /// # Errors
    /// As for [`Document::update`] and [`Journal::read_durable`].
    pub fn merge(&self) -> Result<usize, Error> {
        let merged = self.merged.update_unless(|merged| match self.unmerged(merged) {
            Ok((_, new)) if new.is_empty() => Err(None),
            Ok((read_to, new)) => {
                let count = new.len();
                merged.read_to = read_to;
                merged.records.extend(new);
                Ok(count)
            }
            Err(failed) => Err(Some(failed)),
        })?;
        match merged {
            Ok(count) => Ok(count),
            Err(None) => Ok(0),
            Err(Some(failed)) => Err(failed),
        }
    }

    /// Creates an empty merged file if it does not exist.
    ///
    /// # Errors
    /// As for [`Document::update`].
    pub fn create(&self) -> Result<(), Error> {
        if self.disk.status(self.merged.path()).map_err(Error::io("examine", self.merged.path()))?.is_some() {
            return Ok(());
        }
        self.merged.update(|_| ())
    }

    /// Reads the merged file.
    ///
    /// # Errors
    /// As for [`Document::read`].
    pub fn merged(&self) -> Result<Arc<Merged<T>>, Error> {
        self.merged.read()
    }

    /// Returns all records: the merged ones, and those that are not merged yet.
    ///
    /// # Errors
    /// As for [`Shards::merge`].
    pub fn read(&self) -> Result<Vec<T>, Error> {
        let merged = self.merged.read()?;
        let mut records = merged.records.clone();
        records.extend(self.unmerged(&merged)?.1);
        Ok(records)
    }

    /// Returns the records of the shards that are not merged yet, and how far each shard is read then.
    fn unmerged(&self, merged: &Merged<T>) -> Result<(BTreeMap<String, u64>, Vec<T>), Error> {
        let mut read_to = merged.read_to.clone();
        let mut records = Vec::new();
        for name in self.disk.names(&self.folder).map_err(Error::io("list", &self.folder))? {
            let Some(writer) = name.strip_suffix(ENDING) else { continue };
            let shard = Journal::<T>::open_on(Arc::clone(&self.disk), &self.folder.join(&name))?;
            let from = read_to.get(writer).copied().unwrap_or(0);
            // Data that a power loss could take back must not count as read: other data would take its place.
            let (new, end) = shard.read_durable_from(from)?;
            records.extend(new);
            read_to.insert(writer.to_owned(), end);
        }
        Ok((read_to, records))
    }
}

impl<T: Serialize + DeserializeOwned + Clone> ShardWriter<T> {
    /// Appends a record, durably.
    ///
    /// # Errors
    /// As for [`Journal::append`].
    pub fn append(&self, record: &T) -> Result<(), Error> {
        self.0.append(record)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn merging_beside_the_writers_loses_and_doubles_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let merged = folder.path().join("merged.json");
        let is_done = AtomicBool::new(false);
        thread::scope(|scope| {
            let writers: Vec<_> = (0..3)
                .map(|writer| {
                    let merged = &merged;
                    scope.spawn(move || {
                        let shards: Shards<u32> = Shards::open(merged).unwrap();
                        let shard = shards.writer(&writer.to_string()).unwrap();
                        for number in 0..40 {
                            shard.append(&(writer * 100 + number)).unwrap();
                        }
                    })
                })
                .collect();
            for _ in 0..2 {
                scope.spawn(|| {
                    let shards: Shards<u32> = Shards::open(&merged).unwrap();
                    while !is_done.load(Ordering::Acquire) {
                        shards.merge().unwrap();
                    }
                });
            }
            for writer in writers {
                writer.join().unwrap();
            }
            is_done.store(true, Ordering::Release);
        });
        let shards: Shards<u32> = Shards::open(&merged).unwrap();
        shards.merge().unwrap();
        assert_eq!(shards.merge().unwrap(), 0);
        let mut records = shards.merged.read().unwrap().records.clone();
        records.sort_unstable();
        let all: Vec<u32> =
            (0..3).flat_map(|writer| (0..40).map(move |number| writer * 100 + number)).collect();
        assert_eq!(records, all);
        let mut read = shards.read().unwrap();
        read.sort_unstable();
        assert_eq!(read, all);
    }

    #[test]
    fn a_writer_that_is_no_plain_name_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let shards: Shards<u32> = Shards::open(folder.path().join("merged.json")).unwrap();
        for name in ["", "..", "a/b", "."] {
            assert!(matches!(shards.writer(name).unwrap_err().kind(), ErrorKind::NotAFile));
        }
    }
}

//! Keeps a journal: append-only records, one JSON line each.

mod append;
mod chain;
mod durable;
mod lines;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde::ser::Error as _;

use crate::disk::{self, Disk, How, Opened, read_range};
use crate::error::{Error, ErrorKind};
use crate::group::Group;
use crate::journal::append::{Appending, Lines};
use crate::journal::chain::{Header, is_not_found};
use crate::journal::durable::Durable;
use crate::journal::lines::{parse_all, parse_lines, whole_lines};
use crate::lock::FileLock;
use crate::queue::FileId;
use crate::replace::{lock_path, resolve};

/// Records of type `T` in a JSON Lines file, with its lock file (`NAME.lock`) beside it.
///
/// A record is one line, and lines are written at the end, so a kill leaves at most half of the last one. Half a line
/// is not a record: readers ignore it, and the next writer cuts it off. A complete line is never changed again, unless
/// a power loss filled it with NUL bytes, which JSON does not have: then it is not a record either.
///
/// A rotated or rewritten journal begins with a line that is not a record, `{"#journal":{"after":1,"last":1}}`: the
/// earlier records are in `NAME.1`, which may begin so too. Other programs that read the files must know that.
///
/// [`Journal::append`] syncs *after* it has released the lock, and returns then: writers of all processes share the
/// syncs of the disk, and a reader may see a record that is not durable yet; [`Journal::read_durable`] does not.
///
/// The cost of appending and of [`Journal::latest`] does not depend on the length of the journal.
pub struct Journal<T> {
    path: PathBuf,
    lock: FileLock,
    disk: Arc<dyn Disk>,
    /// The file that was used last, kept open.
    opened: Mutex<Option<Known>>,
    group: Group<Lines<T>, Error>,
    durable: Durable,
}

/// An open file and its identity: no other file can get this identity while it is open.
#[derive(Clone, Debug)]
struct Known {
    file: Arc<dyn Opened>,
    id: FileId,
}

/// Position in a journal: a file, by its open descriptor, and an offset in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    known: Option<Known>,
    offset: u64,
}

/// Records added since a position.
#[derive(Debug)]
pub(crate) struct Since<T> {
    /// Whether the journal was rotated or rewritten meanwhile: then these are all its records.
    pub(crate) is_anew: bool,
    pub(crate) records: Vec<T>,
}

impl<T: Serialize + DeserializeOwned + Clone> Journal<T> {
    /// Opens the journal in the file `path`. Creates nothing before the first append.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if a link cannot be followed, [`ErrorKind::NotAFile`] if `path` cannot name a file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_on(disk::real(), path.as_ref())
    }

    pub(crate) fn open_on(disk: Arc<dyn Disk>, path: &Path) -> Result<Self, Error> {
        let path = resolve(path)?;
        let lock = FileLock::new(lock_path(&path));
        Ok(Self {
            path,
            lock,
            disk,
            opened: Mutex::new(None),
            group: Group::new(),
            durable: Durable::default(),
        })
    }

    /// Returns the path of the data file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a record, and returns once it is on the disk.
    ///
    /// # Errors
    /// Those of [`FileLock::lock`]; [`ErrorKind::NotAFile`]; [`ErrorKind::Unserialisable`], with nothing written, if
    /// the record is not JSON, longer than one line, or a journal header; [`ErrorKind::Io`] with the call that failed:
    /// if that is a sync, or other threads appended too, the record may have been written. After a failed sync, this
    /// handle always returns [`ErrorKind::EarlierSyncFailed`].
    ///
    /// # Panics
    /// If serialising `record` panics.
    pub fn append(&self, record: &T) -> Result<(), Error> {
        self.append_as(record, true)
    }

    /// Like [`Journal::append`], but does not wait until the record is on the disk: it survives a kill, but not always
    /// a power loss. If another thread waits for the disk with the same handle, it may have to wait for that too.
    ///
    /// # Errors
    /// As for [`Journal::append`].
    ///
    /// # Panics
    /// As [`Journal::append`].
    pub fn append_unsynced(&self, record: &T) -> Result<(), Error> {
        self.append_as(record, false)
    }

    fn append_as(&self, record: &T, durably: bool) -> Result<(), Error> {
        let line = self.record_line(record)?;
        self.take_part(|lines| {
            lines.new.extend_from_slice(&line);
            lines.latest = None;
            lines.has_durable |= durably;
        })
    }

    /// Appends the record that `decide` makes of the latest one, under the lock; if it returns an error, nothing is
    /// appended and that error is returned. Returns the record once it is on the disk.
    ///
    /// # Errors
    /// As for [`Journal::append`], and as for [`Journal::latest`].
    ///
    /// # Panics
    /// If `decide` or serialising the record panics.
    pub fn append_after<E>(
        &self,
        decide: impl FnOnce(Option<&T>) -> Result<T, E>,
    ) -> Result<Result<T, E>, Error> {
        self.take_part(|lines| {
            let latest = lines.latest(self)?.cloned();
            let record = match lines.turn.clone().act(|| decide(latest.as_ref())) {
                Ok(record) => record,
                Err(refused) => return Ok(Err(refused)),
            };
            lines.new.extend_from_slice(&self.record_line(&record)?);
            lines.latest = Some(Some(record.clone()));
            lines.has_durable = true;
            Ok(Ok(record))
        })?
    }

    fn take_part<R>(&self, part: impl FnOnce(&mut Lines<T>) -> R) -> Result<R, Error> {
        self.refuse_nested()?;
        self.group.take_part(&Appending(self), part)
    }

    /// Returns an error if this thread already holds the lock, through any handle.
    pub(crate) fn refuse_nested(&self) -> Result<(), Error> {
        match self.lock.is_of_this_thread() {
            true => Err(Error::new("lock", self.lock.path(), ErrorKind::WouldWaitForItself)),
            false => Ok(()),
        }
    }

    /// Returns the last record. Takes no lock.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if the last complete line is not a `T`, [`ErrorKind::NotAFile`], [`ErrorKind::Io`].
    pub fn latest(&self) -> Result<Option<T>, Error> {
        loop {
            let Some((known, length)) = self.file()? else { return Ok(None) };
            let end = self.end_of_lines(&*known.file, length)?;
            match self.latest_before(&*known.file, end) {
                Err(gone) if is_not_found(&gone) && !self.is_current(known.id)? => {}
                latest => return latest,
            }
        }
    }

    /// Returns all records, those from before a rotation first. Takes no lock.
    ///
    /// # Errors
    /// As for [`Journal::latest`]; the text of [`ErrorKind::Corrupt`] says which line.
    pub fn read(&self) -> Result<Vec<T>, Error> {
        Ok(self.since(&mut Place::default())?.records)
    }

    /// Returns all records, durably: waits until the disk has what was read, so that no power loss can remove it.
    ///
    /// # Errors
    /// As for [`Journal::read`]; [`ErrorKind::EarlierSyncFailed`].
    pub fn read_durable(&self) -> Result<Vec<T>, Error> {
        let mut place = Place::default();
        let since = self.since(&mut place)?;
        if let Some(known) = place.known {
            self.durable.sync(&*known.file, &self.path)?;
            self.durable.sync_name(&*self.disk, &self.path, &known)?;
        }
        Ok(since.records)
    }

    /// Returns the records from this offset on, once they are durable, and their end. Only for a journal that is never
    /// rotated or rewritten.
    pub(crate) fn read_durable_from(&self, from: u64) -> Result<(Vec<T>, u64), Error> {
        let mut records = Vec::new();
        let there = self.file_to_read()?;
        let length = there.as_ref().map_or(0, |(_, length)| *length);
        if length < from {
            let why = format!("{from} bytes of it were read before, and there are {length}");
            return Err(Error::new("read", &self.path, ErrorKind::Corrupt(why)));
        }
        let Some((known, _)) = there.filter(|_| length > from) else { return Ok((records, from)) };
        // Read before the sync below, which is for what was read.
        let mut content = read_range(&*known.file, from, length).map_err(Error::io("read", &self.path))?;
        content.truncate(whole_lines(&content));
        if !content.is_empty() {
            self.durable.sync(&*known.file, &self.path)?;
            self.durable.sync_name(&*self.disk, &self.path, &known)?;
            parse_all(&content, from, &self.path, &mut records)?;
        }
        Ok((records, from + content.len() as u64))
    }

    /// Returns the records added since `place`, and moves `place` to the end.
    pub(crate) fn since(&self, place: &mut Place) -> Result<Since<T>, Error> {
        loop {
            let Some((known, length)) = self.file()? else {
                let is_anew = place.known.is_some();
                *place = Place::default();
                return Ok(Since { is_anew, records: Vec::new() });
            };
            let end = self.end_of_lines(&*known.file, length)?;
            let mut records = Vec::new();
            if place.known.as_ref().is_some_and(|before| before.id == known.id) {
                if end < place.offset {
                    let why =
                        format!("{} bytes of it were read before, and its lines end at {end}", place.offset);
                    return Err(Error::new("read", &self.path, ErrorKind::Corrupt(why)));
                }
                parse_lines(&*known.file, place.offset, end, &self.path, &mut records)?;
                place.offset = end;
                return Ok(Since { is_anew: false, records });
            }
            match self.read_with_earlier(&*known.file, end, &mut records) {
                // It was rewritten while it was read, and its earlier files are gone: so is this file.
                Err(gone) if is_not_found(&gone) && !self.is_current(known.id)? => {}
                // It may also have been rewritten between reading one file and the next.
                Ok(()) if self.header(&*known.file, end)?.0.is_some() && !self.is_current(known.id)? => {}
                read => {
                    read?;
                    let is_anew = place.known.is_some();
                    *place = Place { known: Some(known), offset: end };
                    return Ok(Since { is_anew, records });
                }
            }
        }
    }

    /// Returns whether the path names this file.
    fn is_current(&self, id: FileId) -> Result<bool, Error> {
        let there = self.disk.status(&self.path).map_err(Error::io("examine", &self.path))?;
        Ok(there.is_some_and(|there| there.id == id))
    }

    /// Serialises a record to a line that can be read again: JSON has no NaN and no unlimited depth. Raw text may have
    /// several lines, and a map may equal a journal header.
    fn record_line(&self, record: &T) -> Result<Vec<u8>, Error> {
        let line = self.line(record)?;
        let is_one_line = !line[..line.len() - 1].contains(&b'\n');
        let refused = match serde_json::from_slice::<T>(&line) {
            Err(unreadable) => unreadable,
            Ok(_) if !is_one_line => serde_json::Error::custom("a record is one line, and this is several"),
            Ok(_) if serde_json::from_slice::<Header>(&line).is_ok() => {
                serde_json::Error::custom("a journal begins with such a line, which is no record")
            }
            Ok(_) => return Ok(line),
        };
        Err(Error::new("serialise", &self.path, ErrorKind::Unserialisable(refused)))
    }

    fn line(&self, record: &impl Serialize) -> Result<Vec<u8>, Error> {
        let mut line = serde_json::to_vec(record)
            .map_err(|source| Error::new("serialise", &self.path, ErrorKind::Unserialisable(source)))?;
        line.push(b'\n');
        Ok(line)
    }

    /// Returns the file that the path names, if it exists, and its length; a file kept open since the last time is
    /// reused if it is still the same. A reader keeps it open for appending too.
    fn file(&self) -> Result<Option<(Known, u64)>, Error> {
        let there = self.disk.status(&self.path).map_err(Error::io("examine", &self.path))?;
        let Some(there) = there else { return Ok(None) };
        if !there.is_file {
            return Err(Error::new("read", &self.path, ErrorKind::NotAFile));
        }
        let mut opened = self.opened();
        if let Some(known) = opened.as_ref().filter(|known| known.id == there.id) {
            return Ok(Some((known.clone(), there.length)));
        }
        let appending = self.disk.open(&self.path, How::Append);
        let can_append = appending.is_ok();
        // A reader without write permission needs no more; for an appender, the first write reports it.
        let file = appending.or_else(|_| self.disk.open(&self.path, How::Read));
        let file = file.map_err(Error::io("open", &self.path))?;
        let status = file.status().map_err(Error::io("examine", &self.path))?;
        let known = Known { file, id: status.id };
        if can_append {
            *opened = Some(known.clone());
        }
        Ok(Some((known, status.length)))
    }

    /// The same for a single read, with one call less and without creating anything.
    fn file_to_read(&self) -> Result<Option<(Known, u64)>, Error> {
        let file = match self.disk.open(&self.path, How::Read) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(Error::io("open", &self.path))?,
        };
        let status = file.status().map_err(Error::io("examine", &self.path))?;
        match status.is_file {
            true => Ok(Some((Known { file, id: status.id }, status.length))),
            false => Err(Error::new("read", &self.path, ErrorKind::NotAFile)),
        }
    }

    fn opened(&self) -> MutexGuard<'_, Option<Known>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the end of the last complete line within `length`. Whatever precedes a line feed that was read is never
    /// changed again.
    fn end_of_lines(&self, file: &dyn Opened, length: u64) -> Result<u64, Error> {
        lines::end_of_lines(file, length).map_err(Error::io("read", &self.path))
    }

    /// The same under the lock: a partial line left by a killed writer or a power loss is cut off durably, so that no
    /// disk can join a later line to it.
    fn mended(&self, file: &dyn Opened, length: u64) -> Result<u64, Error> {
        let end = self.end_of_lines(file, length)?;
        if end != length {
            file.set_length(end).map_err(Error::io("cut the torn line off", &self.path))?;
            self.durable.sync(file, &self.path)?;
        }
        Ok(end)
    }
}

impl<T> fmt::Debug for Journal<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Journal").field("path", &self.path).finish_non_exhaustive()
    }
}

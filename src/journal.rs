//! A journal: records that are only ever added, one JSON line each.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::disk::{self, Disk, How, Opened, read_range, write_all};
use crate::error::{Error, ErrorKind};
use crate::group::{Group, Lead};
use crate::lock::{FileLock, Guard, Turn};
use crate::queue::FileId;
use crate::replace::{beside, folder_of, lock_path, replace_resolved, resolve};

/// How much is read at once in search of the end of a line.
const BLOCK: u64 = 4096;
/// The same, where the line is likely to be short.
const SHORT: u64 = 512;

/// Records of type `T` in a JSON Lines file, with its lock file (`NAME.lock`) beside it.
///
/// A record is one line, written by one call, so a kill leaves at most half of the last line. That is no record: no
/// reader takes it for one, and the next writer cuts it off. A line that ends is never changed again.
///
/// [`Journal::append`] syncs *after* it has given the lock up, and returns then: writers of all processes share the
/// syncs of the disk, and a reader may see a record that is not durable yet; [`Journal::read_durable`] does not.
///
/// Appending and [`Journal::latest`] cost the same however long the journal is.
pub struct Journal<T> {
    path: PathBuf,
    lock: FileLock,
    disk: Arc<dyn Disk>,
    /// The file that was used last, kept open.
    opened: Mutex<Option<Known>>,
    group: Group<Lines<T>, Error>,
    /// The file whose name this handle has seen to it that the disk has: who gave it the name may have been killed
    /// before.
    name_synced_of: Mutex<Option<Known>>,
    /// Whether a sync failed, after which the kernel may have dropped what it could not write. Held during every sync:
    /// the kernel tells an error once, and who syncs at the same time must not take it for success.
    is_broken: Mutex<bool>,
}

/// A file, and where its whole lines end.
type Whole = (Arc<dyn Opened>, u64);

/// An open file, with what it is: as long as it is open no other can become that.
#[derive(Clone, Debug)]
struct Known {
    file: Arc<dyn Opened>,
    id: FileId,
}

/// How far a journal was read: a file, by its open descriptor, and an offset in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    known: Option<Known>,
    offset: u64,
}

/// What was added since a place.
#[derive(Debug)]
pub(crate) struct Since<T> {
    /// The journal was rotated or rewritten meanwhile: these are all its records.
    pub(crate) is_anew: bool,
    pub(crate) records: Vec<T>,
}

/// The first line of a journal that was rotated or rewritten.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    #[serde(rename = "#journal")]
    journal: Continued,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Continued {
    /// The number of the file (`NAME.NUMBER`) that has the earlier records; nothing where there are none.
    after: Option<u64>,
    /// The highest number that was ever given: none is given twice, so that a slow reader cannot take one file for
    /// another.
    last: u64,
}

/// What the parts of an append work on: the end of the journal, and the lines to come.
pub(crate) struct Lines<T> {
    known: Known,
    /// Where the last whole line ends.
    end: u64,
    new: Vec<u8>,
    /// The last record, where it was looked at.
    latest: Option<Option<T>>,
    turn: Turn,
    has_durable: bool,
}

impl<T: Serialize + DeserializeOwned + Clone> Journal<T> {
    /// The journal in the file `path`. Nothing is created before the first append.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where a link cannot be followed, [`ErrorKind::NotAFile`] where `path` can name no file.
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
            name_synced_of: Mutex::new(None),
            is_broken: Mutex::new(false),
        })
    }

    /// The data file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a record, and returns once it is on the disk.
    ///
    /// # Errors
    /// Those of [`FileLock::lock`]; [`ErrorKind::Unserialisable`], with nothing written; [`ErrorKind::Io`] with the call
    /// that failed: where that is a sync, or other threads appended too, the record may be in. After a sync that failed
    /// [`ErrorKind::EarlierSyncFailed`] from then on.
    ///
    /// # Panics
    /// Where serialising `record` does.
    pub fn append(&self, record: &T) -> Result<(), Error> {
        self.append_as(record, true)
    }

    /// As [`Journal::append`], but does not wait for the disk: a kill does not lose the record, a power loss may.
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

    /// Adds the record that `decide` makes of the latest one, under the lock; where it returns an error nothing is
    /// added and that error handed on. Returns the record once it is on the disk.
    ///
    /// # Errors
    /// As for [`Journal::append`], and as for [`Journal::latest`].
    ///
    /// # Panics
    /// Where `decide` does, or serialising the record.
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

    /// An error where this thread has the lock already, by whatever handle.
    pub(crate) fn refuse_nested(&self) -> Result<(), Error> {
        match self.lock.is_of_this_thread() {
            true => Err(Error::new("lock", self.lock.path(), ErrorKind::WouldWaitForItself)),
            false => Ok(()),
        }
    }

    /// The last record. Takes no lock.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] where the last whole line is no `T`, [`ErrorKind::NotAFile`], [`ErrorKind::Io`].
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

    /// The record on the last line before `end`, which is the end of a line. Where there is only a header, that of the
    /// file before.
    fn latest_before(&self, file: &dyn Opened, end: u64) -> Result<Option<T>, Error> {
        if end == 0 {
            return Ok(None);
        }
        let read = Error::io("read", &self.path);
        let start = line_start(file, end - 1).map_err(&read)?;
        if start == 0
            && let (Some(header), _) = self.header(file, end)?
        {
            // A file that was rotated is never without records.
            return match header.journal.after {
                Some(number) => {
                    let (earlier, end) = self.earlier(number)?;
                    self.last_line(&*earlier, end)
                }
                None => Ok(None),
            };
        }
        self.last_line(file, end)
    }

    fn last_line(&self, file: &dyn Opened, end: u64) -> Result<Option<T>, Error> {
        let read = Error::io("read", &self.path);
        let start = line_start(file, end.saturating_sub(1)).map_err(&read)?;
        let line = read_range(file, start, end.saturating_sub(1)).map_err(&read)?;
        parse(&line, &self.path, "the last line").map(Some)
    }

    /// All records, those of before a rotation first. Takes no lock.
    ///
    /// # Errors
    /// As for [`Journal::latest`]; the text of [`ErrorKind::Corrupt`] says which line.
    pub fn read(&self) -> Result<Vec<T>, Error> {
        Ok(self.since(&mut Place::default())?.records)
    }

    /// All records that a power loss cannot take any more: waits until the disk has what is read.
    ///
    /// # Errors
    /// As for [`Journal::read`].
    pub fn read_durable(&self) -> Result<Vec<T>, Error> {
        let mut place = Place::default();
        let since = self.since(&mut place)?;
        if let Some(known) = place.known {
            self.sync(&*known.file)?;
            self.sync_name(&known)?;
        }
        Ok(since.records)
    }

    /// The records from this offset on that a power loss cannot take any more, and where they end. Only for a journal
    /// that is never rotated or rewritten.
    pub(crate) fn read_durable_from(&self, from: u64) -> Result<(Vec<T>, u64), Error> {
        let mut records = Vec::new();
        let there = self.file_to_read()?;
        let length = there.as_ref().map_or(0, |(_, length)| *length);
        if length < from {
            let why = format!("{from} bytes of it were read before, and there are {length}");
            return Err(Error::new("read", &self.path, ErrorKind::Corrupt(why)));
        }
        let Some((known, _)) = there.filter(|_| length > from) else { return Ok((records, from)) };
        // At once: what the sync below is for is what was read.
        let mut content = read_range(&*known.file, from, length).map_err(Error::io("read", &self.path))?;
        content.truncate(whole_lines(&content));
        if !content.is_empty() {
            self.sync(&*known.file)?;
            self.sync_name(&known)?;
            parse_all(&content, from, &self.path, &mut records)?;
        }
        Ok((records, from + content.len() as u64))
    }

    /// What was added since `place`, which moves to the end.
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
                parse_lines(&*known.file, place.offset, end, &self.path, &mut records)?;
                place.offset = end;
                return Ok(Since { is_anew: false, records });
            }
            match self.read_with_earlier(&*known.file, end, &mut records) {
                // It was written anew while it was read, and what came before is gone: so is this file.
                Err(gone) if is_not_found(&gone) && !self.is_current(known.id)? => {}
                // So it may have been while one file after another was read.
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

    /// Whether the path names this file.
    fn is_current(&self, id: FileId) -> Result<bool, Error> {
        let there = self.disk.status(&self.path).map_err(Error::io("examine", &self.path))?;
        Ok(there.is_some_and(|there| there.id == id))
    }

    /// Reads a file, after those that its header says came before it.
    fn read_with_earlier(&self, file: &dyn Opened, end: u64, records: &mut Vec<T>) -> Result<(), Error> {
        let (header, from) = self.header(file, end)?;
        // One after another, since there may be more than can be open at once.
        for number in self.earlier_numbers(header)?.into_iter().rev() {
            let (earlier, its_end) = self.earlier(number)?;
            let (_, its_from) = self.header(&*earlier, its_end)?;
            parse_lines(&*earlier, its_from, its_end, &self.path, records)?;
        }
        parse_lines(file, from, end, &self.path, records)
    }

    /// The numbers of the files that came before, the latest first.
    fn earlier_numbers(&self, header: Option<Header>) -> Result<Vec<u64>, Error> {
        let mut numbers: Vec<u64> = Vec::new();
        let mut next = header.and_then(|header| header.journal.after);
        while let Some(number) = next {
            if numbers.last().is_some_and(|later| number >= *later) {
                let why = format!("its header says that file {number} came before an earlier one");
                return Err(Error::new("read", &self.archive(number), ErrorKind::Corrupt(why)));
            }
            numbers.push(number);
            let (earlier, end) = self.earlier(number)?;
            next = self.header(&*earlier, end)?.0.and_then(|header| header.journal.after);
        }
        Ok(numbers)
    }

    /// The file of this number, and where its lines end.
    fn earlier(&self, number: u64) -> Result<Whole, Error> {
        let path = self.archive(number);
        let opened = self.disk.open(&path, How::Read).map_err(Error::io("open", &path))?;
        let length = opened.status().map_err(Error::io("examine", &path))?.length;
        let end = self.end_of_lines(&*opened, length)?;
        Ok((opened, end))
    }

    /// The path of the file of this number.
    fn archive(&self, number: u64) -> PathBuf {
        beside(&self.path, "", &format!(".{number}"))
    }

    /// The header, where there is one, and where the records begin.
    fn header(&self, file: &dyn Opened, end: u64) -> Result<(Option<Header>, u64), Error> {
        let start = read_range(file, 0, end.min(BLOCK)).map_err(Error::io("read", &self.path))?;
        let Some(first) = start.split_inclusive(|byte| *byte == b'\n').next() else { return Ok((None, 0)) };
        match serde_json::from_slice::<Header>(first) {
            Ok(header) => Ok((Some(header), first.len() as u64)),
            Err(_) => Ok((None, 0)),
        }
    }

    /// Gives the journal a new file, which continues the old one under another name (`NAME.1`, `NAME.2` …): no record
    /// is lost, doubled or moved. Whether there was anything to rotate.
    ///
    /// # Errors
    /// As for [`Journal::append`]; the file system must know hard links.
    pub fn rotate(&self) -> Result<bool, Error> {
        let guard = self.lock.lock()?;
        let Some((Known { file, id }, length)) = self.file()? else { return Ok(false) };
        let end = self.mended(&*file, length)?;
        let (header, from) = self.header(&*file, end)?;
        if from == end {
            return Ok(false);
        }
        // What is moved out of sight must be on the disk: its writers may have been killed before their syncs.
        self.sync(&*file)?;
        let mut last = header.map_or(0, |header| header.journal.last);
        let archive = loop {
            last = last.checked_add(1).ok_or_else(|| {
                Error::new("rotate", &self.path, ErrorKind::Corrupt("its header has no number left".into()))
            })?;
            let archive = self.archive(last);
            match self.disk.link(&self.path, &archive) {
                Ok(()) => break archive,
                Err(taken) if taken.kind() == io::ErrorKind::AlreadyExists => {
                    // Of a rotation of this very file that was killed; else somebody else's, or one that no header
                    // names any more.
                    let there = self.disk.status(&archive).map_err(Error::io("examine", &archive))?;
                    if there.is_some_and(|there| there.id == id) {
                        break archive;
                    }
                }
                Err(other) => return Err(Error::io("link", &archive)(other)),
            }
        };
        // The second name first: a disk may keep later changes of a folder and not this one.
        let folder = folder_of(&archive);
        self.disk.sync_folder(folder).map_err(Error::io("sync the folder", folder))?;
        let header = Header { journal: Continued { after: Some(last), last } };
        replace_resolved(&*self.disk, &self.path, &self.line(&header)?)?;
        drop(guard);
        Ok(true)
    }

    /// Writes the journal anew with the records that `keep` makes of all there are, in one file, and removes the
    /// files of before. Where `keep` returns an error nothing is changed.
    ///
    /// # Errors
    /// As for [`Journal::append`] and [`Journal::read`].
    ///
    /// # Panics
    /// Where `keep` does, or serialising.
    pub fn rewrite<E>(&self, keep: impl FnOnce(Vec<T>) -> Result<Vec<T>, E>) -> Result<Result<(), E>, Error> {
        let guard = self.lock.lock()?;
        let (header, gone) = match self.file()? {
            Some((known, length)) => {
                let end = self.end_of_lines(&*known.file, length)?;
                let (header, _) = self.header(&*known.file, end)?;
                (header, self.earlier_numbers(header)?)
            }
            None => (None, Vec::new()),
        };
        let records = match keep(self.read()?) {
            Ok(records) => records,
            Err(refused) => return Ok(Err(refused)),
        };
        let last = header.map_or(0, |header| header.journal.last);
        let mut content = Vec::new();
        if last > 0 || records.is_empty() {
            // An empty file could not be told from one that was emptied by accident.
            content = self.line(&Header { journal: Continued { after: None, last } })?;
        }
        for record in &records {
            content.extend_from_slice(&self.record_line(record)?);
        }
        replace_resolved(&*self.disk, &self.path, &content)?;
        // Nothing names them any more. Those that stay after a kill are in nobody's way.
        for number in gone {
            let archive = self.archive(number);
            self.disk.remove(&archive).map_err(Error::io("remove", &archive))?;
        }
        drop(guard);
        Ok(Ok(()))
    }

    /// The line of a record, which can be read again: JSON has no NaN, and no depth without end.
    fn record_line(&self, record: &T) -> Result<Vec<u8>, Error> {
        let line = self.line(record)?;
        serde_json::from_slice::<T>(&line)
            .map_err(|source| Error::new("serialise", &self.path, ErrorKind::Unserialisable(source)))?;
        Ok(line)
    }

    fn line(&self, record: &impl Serialize) -> Result<Vec<u8>, Error> {
        let mut line = serde_json::to_vec(record)
            .map_err(|source| Error::new("serialise", &self.path, ErrorKind::Unserialisable(source)))?;
        line.push(b'\n');
        Ok(line)
    }

    /// The file that the path names, where there is one, and its length: kept open since the last time, if it is still
    /// the same.
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
        // Whoever may only read it needs no more; who wants to append is told by the first write.
        let file = appending.or_else(|_| self.disk.open(&self.path, How::Read));
        let file = file.map_err(Error::io("open", &self.path))?;
        let status = file.status().map_err(Error::io("examine", &self.path))?;
        let known = Known { file, id: status.id };
        if can_append {
            *opened = Some(known.clone());
        }
        Ok(Some((known, status.length)))
    }

    /// The same for a single look, which takes one call less and creates nothing.
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

    /// Where the last whole line of so many bytes ends. What comes before a line feed that was seen is never changed
    /// again.
    fn end_of_lines(&self, file: &dyn Opened, length: u64) -> Result<u64, Error> {
        end_of_lines(file, length).map_err(Error::io("read", &self.path))
    }

    /// The same under the lock: what a killed writer or a power loss left of a line is cut off.
    fn mended(&self, file: &dyn Opened, length: u64) -> Result<u64, Error> {
        let end = self.end_of_lines(file, length)?;
        if end != length {
            file.set_length(end).map_err(Error::io("cut the torn line off", &self.path))?;
        }
        Ok(end)
    }

    /// Waits until the disk has what was written to this file.
    fn sync(&self, file: &dyn Opened) -> Result<(), Error> {
        let mut is_broken = self.is_broken.lock().unwrap_or_else(PoisonError::into_inner);
        if *is_broken {
            return Err(Error::new("sync", &self.path, ErrorKind::EarlierSyncFailed));
        }
        let synced = file.sync();
        // A second try would succeed, without what was dropped.
        *is_broken = synced.is_err();
        synced.map_err(Error::io("sync", &self.path))
    }

    fn refuse_if_broken(&self) -> Result<(), Error> {
        match *self.is_broken.lock().unwrap_or_else(PoisonError::into_inner) {
            true => Err(Error::new("append to", &self.path, ErrorKind::EarlierSyncFailed)),
            false => Ok(()),
        }
    }

    /// Sees to it that the disk has the name of this file too.
    fn sync_name(&self, known: &Known) -> Result<(), Error> {
        let synced_of = || self.name_synced_of.lock().unwrap_or_else(PoisonError::into_inner);
        if synced_of().as_ref().is_none_or(|before| before.id != known.id) {
            let folder = folder_of(&self.path);
            self.disk.sync_folder(folder).map_err(Error::io("sync the folder", folder))?;
            *synced_of() = Some(known.clone());
        }
        Ok(())
    }
}

impl<T: Serialize + DeserializeOwned + Clone> Lines<T> {
    /// The last record, those to be written included.
    fn latest(&mut self, journal: &Journal<T>) -> Result<Option<&T>, Error> {
        if self.latest.is_none() {
            let new = self.new.strip_suffix(b"\n").map(|new| new.rsplit(|byte| *byte == b'\n').next());
            let latest = match new.flatten() {
                Some(line) => Some(parse(line, &journal.path, "a new line")?),
                None => journal.latest_before(&*self.known.file, self.end)?,
            };
            self.latest = Some(latest);
        }
        Ok(self.latest.as_ref().and_then(Option::as_ref))
    }
}

/// Leads an append.
struct Appending<'a, T>(&'a Journal<T>);

impl<'a, T: Serialize + DeserializeOwned + Clone> Lead<Lines<T>, Error> for Appending<'a, T> {
    type Kept = Guard<'a>;
    /// The file to sync, where anybody waits for that.
    type Left = Option<Known>;

    fn begin(&self) -> Result<(Lines<T>, Guard<'a>), Error> {
        let journal = self.0;
        journal.refuse_if_broken()?;
        let guard = journal.lock.lock()?;
        let (known, length) = match journal.file()? {
            // With the reason, where this handle could only be had to read.
            Some(there) if journal.opened().is_some() => there,
            _ => {
                let path = &journal.path;
                let file =
                    journal.disk.open(path, How::Append).map_err(Error::io("open to append to", path))?;
                let status = file.status().map_err(Error::io("examine", path))?;
                let known = Known { file, id: status.id };
                *journal.opened() = Some(known.clone());
                (known, status.length)
            }
        };
        let end = journal.mended(&*known.file, length)?;
        let turn = guard.turn();
        let lines = Lines { known, end, new: Vec::new(), latest: None, turn, has_durable: false };
        Ok((lines, guard))
    }

    fn commit(&self, lines: Lines<T>, guard: Guard<'a>) -> Result<Self::Left, Error> {
        if lines.new.is_empty() {
            return Ok(None);
        }
        let mut taken = 0;
        let written = write_all(&lines.new, |bytes| {
            let count = lines.known.file.write(bytes)?;
            taken += count;
            Ok(count)
        });
        if let Err(failed) = written {
            // Whole lines are never taken back, since a reader may have seen them: of those nobody is told that they
            // are in. Where even this fails, the next writer cuts half a line off.
            let whole = lines.new[..taken].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let _taken_back = lines.known.file.set_length(lines.end + whole as u64);
            return Err(Error::io("write", &self.0.path)(failed));
        }
        drop(guard);
        Ok(lines.has_durable.then_some(lines.known))
    }

    fn finish(&self, known: Self::Left) -> Result<(), Error> {
        let Some(known) = known else { return Ok(()) };
        self.0.sync(&*known.file)?;
        self.0.sync_name(&known)
    }
}

impl<T> fmt::Debug for Journal<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Journal").field("path", &self.path).finish_non_exhaustive()
    }
}

fn is_not_found(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Io(source) if source.kind() == io::ErrorKind::NotFound)
}

/// Where the last line ends that has a line feed at its end and no NUL in it: JSON has none, and a power loss fills with
/// them what it took.
fn end_of_lines(file: &dyn Opened, length: u64) -> io::Result<u64> {
    // Nearly always it is the last line, and a short one.
    let block = read_range(file, length.saturating_sub(SHORT), length)?;
    if let Some(rest) = block.strip_suffix(b"\n")
        && let Some(before) = rest.iter().rposition(|byte| *byte == b'\n')
        && !rest[before..].contains(&0)
    {
        return Ok(length);
    }
    let mut end = line_start(file, length)?;
    while end > 0 {
        let start = line_start(file, end - 1)?;
        if !read_range(file, start, end)?.contains(&0) {
            break;
        }
        end = start;
    }
    Ok(end)
}

/// The same of lines that are in memory, from the beginning of one on: how many bytes.
fn whole_lines(content: &[u8]) -> usize {
    let start_before =
        |end: usize| content[..end].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let mut end = start_before(content.len());
    while end > 0 {
        let start = start_before(end - 1);
        if !content[start..end].contains(&0) {
            break;
        }
        end = start;
    }
    end
}

/// Where the line begins that the byte before `end` is in, or would be: behind the last line feed before `end`.
fn line_start(file: &dyn Opened, end: u64) -> io::Result<u64> {
    let mut to = end;
    let mut size = SHORT;
    while to > 0 {
        let from = to.saturating_sub(size);
        let block = read_range(file, from, to)?;
        if let Some(at) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(from + at as u64 + 1);
        }
        to = from;
        size = (size * 4).min(1 << 20);
    }
    Ok(0)
}

fn parse<T: DeserializeOwned>(line: &[u8], path: &Path, which: &str) -> Result<T, Error> {
    let corrupt = |place| Error::new("read", path, ErrorKind::Corrupt(format!("{which}: {place}")));
    serde_json::from_slice(line).map_err(corrupt)
}

fn parse_lines<T: DeserializeOwned>(
    file: &dyn Opened,
    from: u64,
    end: u64,
    path: &Path,
    records: &mut Vec<T>,
) -> Result<(), Error> {
    let content = read_range(file, from, end).map_err(Error::io("read", path))?;
    parse_all(&content, from, path, records)
}

/// The records of these lines, which are the file's from this offset on.
fn parse_all<T: DeserializeOwned>(
    content: &[u8],
    from: u64,
    path: &Path,
    records: &mut Vec<T>,
) -> Result<(), Error> {
    let lines = content.split_inclusive(|byte| *byte == b'\n');
    for (line, number) in lines.zip(1..) {
        records.push(parse(line, path, &format!("line {number} from byte {from} on"))?);
    }
    Ok(())
}

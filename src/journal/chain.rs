//! Follows the chain of rotated files: each names its predecessor in its first line.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::disk::{How, Opened, read_range};
use crate::error::{Error, ErrorKind};
use crate::journal::lines::{line_start, parse, parse_lines};
use crate::journal::{Journal, Known};
use crate::replace::{beside, put_in_place};

/// Number of bytes that are read at once to find a header.
const BLOCK: u64 = 4096;

/// A file, and the end of its complete lines.
type Whole = (Arc<dyn Opened>, u64);

/// The first line of a journal that was rotated or rewritten.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    #[serde(rename = "#journal")]
    journal: Continued,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Continued {
    /// Number of the file (`NAME.NUMBER`) with the earlier records; `None` if there are none.
    after: Option<u64>,
    /// The highest number assigned so far: no number is reused, so that a slow reader cannot mistake one file for
    /// another.
    last: u64,
}

impl<T: Serialize + DeserializeOwned + Clone> Journal<T> {
    /// Returns the record on the last line before `end`, which is the end of a line. If there is only a header, returns
    /// that of the file before.
    pub(super) fn latest_before(&self, file: &dyn Opened, end: u64) -> Result<Option<T>, Error> {
        if end == 0 {
            return Ok(None);
        }
        let read = Error::io("read", &self.path);
        let start = line_start(file, end - 1).map_err(&read)?;
        if start == 0
            && let (Some(header), _) = self.header(file, end)?
        {
            // A rotated file always has records.
            return match header.journal.after {
                Some(number) => {
                    let (earlier, end) = self.earlier(number)?;
                    last_line(&*earlier, end, &self.archive(number)).map(Some)
                }
                None => Ok(None),
            };
        }
        last_line(file, end, &self.path).map(Some)
    }

    /// Reads a file, after the earlier files that its header refers to.
    pub(super) fn read_with_earlier(
        &self,
        file: &dyn Opened,
        end: u64,
        records: &mut Vec<T>,
    ) -> Result<(), Error> {
        let (header, from) = self.header(file, end)?;
        // One after another, because there may be more than can be open at once.
        for number in self.earlier_numbers(header)?.into_iter().rev() {
            let (earlier, its_end) = self.earlier(number)?;
            let (_, its_from) = self.header(&*earlier, its_end)?;
            parse_lines(&*earlier, its_from, its_end, &self.archive(number), records)?;
        }
        parse_lines(file, from, end, &self.path, records)
    }

    /// Returns the numbers of the earlier files, the latest first.
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

    /// Opens the file of this number; returns it with the end of its lines.
    fn earlier(&self, number: u64) -> Result<Whole, Error> {
        let path = self.archive(number);
        let opened = self.disk.open(&path, How::Read).map_err(Error::io("open", &path))?;
        let length = opened.status().map_err(Error::io("examine", &path))?.length;
        let end = self.end_of_lines(&*opened, length)?;
        Ok((opened, end))
    }

    /// Returns the path of the file of this number.
    fn archive(&self, number: u64) -> PathBuf {
        beside(&self.path, "", &format!(".{number}"))
    }

    /// Returns the header, if there is one, and the start of the records.
    pub(super) fn header(&self, file: &dyn Opened, end: u64) -> Result<(Option<Header>, u64), Error> {
        let start = read_range(file, 0, end.min(BLOCK)).map_err(Error::io("read", &self.path))?;
        let Some(first) = start.split_inclusive(|byte| *byte == b'\n').next() else { return Ok((None, 0)) };
        match serde_json::from_slice::<Header>(first) {
            Ok(header) => Ok((Some(header), first.len() as u64)),
            Err(_) => Ok((None, 0)),
        }
    }

    /// Gives the journal a new file, which continues the old one under another name (`NAME.1`, `NAME.2` …): no record
    /// is lost, duplicated or moved. Returns whether there was anything to rotate.
    ///
    /// # Errors
    /// As for [`Journal::append`]; [`ErrorKind::Corrupt`] if the beginning of the journal is damaged; the file system
    /// must support hard links. If the last sync of the folder fails, the journal was rotated.
    pub fn rotate(&self) -> Result<bool, Error> {
        let guard = self.lock.lock()?;
        self.durable.refuse_if_broken(&self.path)?;
        let Some((Known { file, id }, length)) = self.file()? else { return Ok(false) };
        let end = self.mended(&*file, length)?;
        let (header, from) = self.header(&*file, end)?;
        if from == end {
            return Ok(false);
        }
        // The old file must be on the disk before it is rotated: its writers may have been killed before their syncs.
        self.durable.sync(&*file, &self.path)?;
        let mut last = header.map_or(0, |header| header.journal.last);
        loop {
            last = last.checked_add(1).ok_or_else(|| {
                Error::new("rotate", &self.path, ErrorKind::Corrupt("its header has no number left".into()))
            })?;
            let archive = self.archive(last);
            match self.disk.link(&self.path, &archive) {
                Ok(()) => break,
                Err(taken) if taken.kind() == io::ErrorKind::AlreadyExists => {
                    // Left by a killed rotation of this same file; else a foreign file, or one that no header refers to
                    // any more.
                    let there = self.disk.status(&archive).map_err(Error::io("examine", &archive))?;
                    if there.is_some_and(|there| there.id == id) {
                        break;
                    }
                }
                Err(other) => return Err(Error::io("link", &archive)(other)),
            }
        }
        // The second name first: a disk may keep later changes of a folder without this one.
        self.durable.sync_folder(&*self.disk, &self.path)?;
        let header = Header { journal: Continued { after: Some(last), last } };
        self.begin_anew(&self.line(&header)?)?;
        drop(guard);
        Ok(true)
    }

    /// Rewrites the journal with the records that `keep` makes of all existing ones, in one file, and removes the
    /// earlier files. If `keep` returns an error, nothing is changed.
    ///
    /// # Errors
    /// As for [`Journal::append`] and [`Journal::read`]. If the sync of the folder or the removal of an earlier file
    /// fails, the journal was rewritten.
    ///
    /// # Panics
    /// If `keep` or serialising panics.
    pub fn rewrite<E>(&self, keep: impl FnOnce(Vec<T>) -> Result<Vec<T>, E>) -> Result<Result<(), E>, Error> {
        let guard = self.lock.lock()?;
        self.durable.refuse_if_broken(&self.path)?;
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
            // An empty file could not be distinguished from one that was emptied by accident.
            content = self.line(&Header { journal: Continued { after: None, last } })?;
        }
        for record in &records {
            content.extend_from_slice(&self.record_line(record)?);
        }
        self.begin_anew(&content)?;
        // Nothing refers to them any more. Those that remain after a kill do no harm.
        for number in gone {
            let archive = self.archive(number);
            self.disk.remove(&archive).map_err(Error::io("remove", &archive))?;
        }
        drop(guard);
        Ok(Ok(()))
    }

    /// Replaces the journal's file durably; the old file is not kept open, so that its space is freed if it has no
    /// other name.
    fn begin_anew(&self, content: &[u8]) -> Result<(), Error> {
        let file = put_in_place(&*self.disk, &self.path, content)?;
        let id = file.status().map_err(Error::io("examine", &self.path))?.id;
        *self.opened() = None;
        self.durable.sync_name(&*self.disk, &self.path, &Known { file, id })
    }
}

/// Reads the record on the last line of the file `path`, which ends at `end`.
fn last_line<T: DeserializeOwned>(file: &dyn Opened, end: u64, path: &Path) -> Result<T, Error> {
    let read = Error::io("read", path);
    let start = line_start(file, end.saturating_sub(1)).map_err(&read)?;
    let line = read_range(file, start, end.saturating_sub(1)).map_err(&read)?;
    parse(&line, path, "the last line")
}

pub(super) fn is_not_found(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Io(source) if source.kind() == io::ErrorKind::NotFound)
}

//! Appends to a journal: concurrent threads share one lock and one sync.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::disk::{How, write_all};
use crate::error::Error;
use crate::group::Lead;
use crate::journal::lines::parse;
use crate::journal::{Journal, Known};
use crate::lock::{Guard, Turn};

/// State that the parts of an append work on: the end of the journal, and the new lines.
pub(super) struct Lines<T> {
    known: Known,
    /// End of the last complete line.
    end: u64,
    pub(super) new: Vec<u8>,
    /// The last record, if it was read already.
    pub(super) latest: Option<Option<T>>,
    pub(super) turn: Turn,
    pub(super) has_durable: bool,
}

impl<T: Serialize + DeserializeOwned + Clone> Lines<T> {
    /// Returns the last record, including those still to be written.
    pub(super) fn latest(&mut self, journal: &Journal<T>) -> Result<Option<&T>, Error> {
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
pub(super) struct Appending<'a, T>(pub(super) &'a Journal<T>);

impl<'a, T: Serialize + DeserializeOwned + Clone> Lead<Lines<T>, Error> for Appending<'a, T> {
    type Kept = Guard<'a>;
    /// The file to sync, if a thread waits for that.
    type Left = Option<Known>;

    fn begin(&self) -> Result<(Lines<T>, Guard<'a>), Error> {
        let journal = self.0;
        journal.durable.refuse_if_broken(&journal.path)?;
        let guard = journal.lock.lock()?;
        let (known, length) = match journal.file()? {
            // If this file could only be opened for reading, open it again below, to report the reason.
            Some(there) if journal.opened().as_ref().is_some_and(|known| known.id == there.0.id) => there,
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
            // Complete lines are never taken back, because a reader may have seen them: they are in the file but not
            // acknowledged. If even this fails, the next writer cuts the partial line off.
            let whole = lines.new[..taken].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let _taken_back = lines.known.file.set_length(lines.end + whole as u64);
            return Err(Error::io("write", &self.0.path)(failed));
        }
        drop(guard);
        Ok(lines.has_durable.then_some(lines.known))
    }

    fn finish(&self, known: Self::Left) -> Result<(), Error> {
        let Some(known) = known else { return Ok(()) };
        let journal = self.0;
        journal.durable.sync(&*known.file, &journal.path)?;
        journal.durable.sync_name(&*journal.disk, &journal.path, &known)
    }
}

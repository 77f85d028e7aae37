//! Splits a file into complete lines.

use std::io;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::disk::{Opened, read_range};
use crate::error::{Error, ErrorKind};

/// Number of bytes that are first read to find the end of a line, usually a short one; later reads are larger.
const SHORT: u64 = 512;

/// Returns the end of the last line that ends with a line feed and contains no NUL: JSON has none, and a power loss
/// fills lost data with NULs.
pub(super) fn end_of_lines(file: &dyn Opened, length: u64) -> io::Result<u64> {
    // Nearly always it is the last line, and a short one.
    let from = length.saturating_sub(SHORT);
    let block = read_range(file, from, length)?;
    if let Some(rest) = block.strip_suffix(b"\n")
        && let Some(before) = rest.iter().rposition(|byte| *byte == b'\n')
        && !rest[before..].contains(&0)
    {
        // A writer may have cut off a torn line since the length was read.
        return Ok(from + block.len() as u64);
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

/// The same for lines in memory, from the beginning of a line on; returns the number of bytes.
pub(super) fn whole_lines(content: &[u8]) -> usize {
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

/// Returns the start of the line that has, or would have, the byte before `end`: after the last line feed before `end`.
pub(super) fn line_start(file: &dyn Opened, end: u64) -> io::Result<u64> {
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

pub(super) fn parse<T: DeserializeOwned>(line: &[u8], path: &Path, which: &str) -> Result<T, Error> {
    let corrupt = |place| Error::new("read", path, ErrorKind::Corrupt(format!("{which}: {place}")));
    serde_json::from_slice(line).map_err(corrupt)
}

pub(super) fn parse_lines<T: DeserializeOwned>(
    file: &dyn Opened,
    from: u64,
    end: u64,
    path: &Path,
    records: &mut Vec<T>,
) -> Result<(), Error> {
    let content = read_range(file, from, end).map_err(Error::io("read", path))?;
    parse_all(&content, from, path, records)
}

/// Parses the records of these lines, which start at this offset of the file.
pub(super) fn parse_all<T: DeserializeOwned>(
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

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    /// A reader read the length of the file, with half a line at its end; a writer cut that off; the reader took the
    /// old length for the end of the lines, and reported a corrupt journal.
    #[test]
    fn a_file_that_was_cut_since_its_length_was_seen_ends_where_it_was_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        for whole in ["", "1\n", "1\n2\n", &"12345\n".repeat(1000)] {
            fs::write(&path, whole).unwrap();
            let file = File::open(&path).unwrap();
            for torn in [0, 3, 700, 5000] {
                let seen = whole.len() as u64 + torn;
                assert_eq!(
                    end_of_lines(&file, seen).unwrap(),
                    whole.len() as u64,
                    "{torn} bytes more were seen"
                );
            }
        }
    }
}

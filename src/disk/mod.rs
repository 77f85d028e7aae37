//! The file operations that the store makes: few, and behind a trait, so that tests can put a disk in their place that
//! fails and loses power where they want it.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use crate::queue::FileId;

#[cfg(test)]
pub(crate) mod simulated;

/// Status of a path, or of an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) id: FileId,
    pub(crate) is_file: bool,
    /// Length in bytes.
    pub(crate) length: u64,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    /// Times of the last changes of content and status, in seconds and nanoseconds.
    pub(crate) changed: [(i64, i64); 2],
}

/// Mode in which a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// For reading; the file must exist.
    Read,
    /// For reading and appending; created if missing.
    Append,
    /// For reading and writing at any offset, keeping the content; created if missing.
    Change,
    /// For writing; the file must not exist. Created with this mode, if one is given.
    New(Option<u32>),
}

/// An open file.
pub(crate) trait Opened: fmt::Debug + Send + Sync {
    fn status(&self) -> io::Result<Status>;
    /// Reads from `offset` on; returns the number of bytes read, 0 at the end.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes at the end if opened for appending, else where the last write ended; returns the number of bytes written.
    fn write(&self, bytes: &[u8]) -> io::Result<usize>;
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    fn set_length(&self, length: u64) -> io::Result<()>;
    /// Waits until content and length are on the disk.
    fn sync(&self) -> io::Result<()>;
    fn set_owner(&self, owner: (u32, u32)) -> io::Result<()>;
    fn set_mode(&self, mode: u32) -> io::Result<()>;
}

/// A disk with folders.
pub(crate) trait Disk: fmt::Debug + Send + Sync {
    /// Returns the status of the path itself, not of a link's target; `None` if it does not exist.
    fn status(&self, path: &Path) -> io::Result<Option<Status>>;
    fn open(&self, path: &Path, how: How) -> io::Result<Arc<dyn Opened>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Creates a second name (hard link) of a file.
    fn link(&self, file: &Path, name: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Waits until the names in a folder are on the disk.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// Returns the names of a folder's entries, sorted; none if the folder does not exist.
    fn names(&self, folder: &Path) -> io::Result<Vec<String>>;
}

/// The real disk of the machine.
#[derive(Debug)]
pub(crate) struct Real;

/// Returns the real disk of the machine.
pub(crate) fn real() -> Arc<dyn Disk> {
    Arc::new(Real)
}

impl From<&fs::Metadata> for Status {
    fn from(metadata: &fs::Metadata) -> Self {
        Self {
            id: (metadata.dev(), metadata.ino()),
            is_file: metadata.is_file(),
            length: metadata.len(),
            mode: metadata.mode() & 0o7777,
            owner: (metadata.uid(), metadata.gid()),
            changed: [(metadata.mtime(), metadata.mtime_nsec()), (metadata.ctime(), metadata.ctime_nsec())],
        }
    }
}

impl Disk for Real {
    fn status(&self, path: &Path) -> io::Result<Option<Status>> {
        match fs::symlink_metadata(path) {
            Ok(metadata) => Ok(Some(Status::from(&metadata))),
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(other) => Err(other),
        }
    }

    fn open(&self, path: &Path, how: How) -> io::Result<Arc<dyn Opened>> {
        let mut options = OpenOptions::new();
        // Do not block on the other end if a pipe is in the file's place.
        options.read(true).custom_flags(libc::O_NONBLOCK);
        match how {
            How::Read => &mut options,
            How::Append => options.append(true).create(true),
            How::Change => options.write(true).create(true),
            // Exclusive creation does not follow a planted link.
            How::New(None) => options.write(true).create_new(true),
            How::New(Some(mode)) => options.write(true).create_new(true).mode(mode),
        };
        Ok(Arc::new(options.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, file: &Path, name: &Path) -> io::Result<()> {
        fs::hard_link(file, name)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(folder) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            // Files that the store created have UTF-8 names.
            names.extend(entry?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }
}

impl Opened for File {
    fn status(&self) -> io::Result<Status> {
        Ok(Status::from(&self.metadata()?))
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, into, offset)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        (&mut &*self).write(bytes)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn set_owner(&self, (user, group): (u32, u32)) -> io::Result<()> {
        std::os::unix::fs::fchown(self, Some(user), Some(group))
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        self.set_permissions(fs::Permissions::from_mode(mode))
    }
}

/// Reads everything between two offsets, or as much of it as exists.
pub(crate) fn read_range(file: &dyn Opened, from: u64, to: u64) -> io::Result<Vec<u8>> {
    let length = usize::try_from(to.saturating_sub(from)).map_err(io::Error::other)?;
    let mut content = Vec::new();
    content.try_reserve_exact(length).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    content.resize(length, 0);
    let mut filled = 0;
    while filled < content.len() {
        match file.read_at(&mut content[filled..], from + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(interrupted) if interrupted.kind() == io::ErrorKind::Interrupted => {}
            Err(other) => return Err(other),
        }
    }
    content.truncate(filled);
    Ok(content)
}

/// Writes all bytes in as few calls as the disk accepts.
pub(crate) fn write_all(
    mut bytes: &[u8],
    mut write: impl FnMut(&[u8]) -> io::Result<usize>,
) -> io::Result<()> {
    while !bytes.is_empty() {
        match write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(interrupted) if interrupted.kind() == io::ErrorKind::Interrupted => {}
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

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

/// What stands behind a path, or an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) id: FileId,
    pub(crate) is_file: bool,
    /// In bytes.
    pub(crate) length: u64,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    /// When content and status were last changed, in seconds and nanoseconds.
    pub(crate) changed: [(i64, i64); 2],
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// To read it; it must be there.
    Read,
    /// To read it and to add at its end; created where it is missing.
    Append,
    /// To read it and to write anywhere, what it holds kept; created where it is missing.
    Change,
    /// To write it; it must not be there. With this mode, where one is given.
    New(Option<u32>),
}

/// A file that is open.
pub(crate) trait Opened: fmt::Debug + Send + Sync {
    fn status(&self) -> io::Result<Status>;
    /// Reads from `offset` on; how many bytes there were, 0 at the end.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes at the end where it was opened for that, else where the last write ended; how many bytes were taken.
    fn write(&self, bytes: &[u8]) -> io::Result<usize>;
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    fn set_length(&self, length: u64) -> io::Result<()>;
    /// Waits until content and length are on the disk.
    fn sync(&self) -> io::Result<()>;
    fn set_owner(&self, owner: (u32, u32)) -> io::Result<()>;
    fn set_mode(&self, mode: u32) -> io::Result<()>;
}

/// A disk with its folders.
pub(crate) trait Disk: fmt::Debug + Send + Sync {
    /// What the path names, itself and not what a link points to; nothing where there is nothing.
    fn status(&self, path: &Path) -> io::Result<Option<Status>>;
    fn open(&self, path: &Path, how: How) -> io::Result<Arc<dyn Opened>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name.
    fn link(&self, file: &Path, name: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Waits until the names in a folder are on the disk.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// The names of what is in a folder, sorted; none where there is no folder.
    fn names(&self, folder: &Path) -> io::Result<Vec<String>>;
}

/// The disk of the machine.
#[derive(Debug)]
pub(crate) struct Real;

/// The disk of the machine.
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
        // Not to wait for the other end where somebody put a pipe in the file's place.
        options.read(true).custom_flags(libc::O_NONBLOCK);
        match how {
            How::Read => &mut options,
            How::Append => options.append(true).create(true),
            How::Change => options.write(true).create(true),
            // Exclusive creation follows no planted link.
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
            // What the store made has a name of UTF-8.
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

/// Everything between two offsets, or what there is of it.
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

/// Writes all of it by as few calls as the disk takes it in.
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

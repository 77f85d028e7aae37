//! Defines the errors, each with its operation, path and cause.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A failed operation of the store.
#[derive(Clone, Debug)]
pub struct Error {
    operation: &'static str,
    path: PathBuf,
    /// Shared, because an update that was written for several threads fails for all of them.
    kind: Arc<ErrorKind>,
}

/// Reason of an [`Error`].
#[derive(Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system reported an error.
    Io(io::Error),
    /// The calling thread already holds this lock and would deadlock on itself.
    WouldWaitForItself,
    /// The lock is held by another holder, and the caller did not want to wait.
    Busy,
    /// The lock was held by another holder for this long, the caller's limit.
    TimedOut(Duration),
    /// The data file is not what the store wrote; the text says where. It is left unchanged.
    Corrupt(String),
    /// The path names something other than a regular file, such as a folder.
    NotAFile,
    /// The document cannot be serialised as JSON.
    Unserialisable(serde_json::Error),
    /// The content read back from disk differs from what was written.
    ReadBackDiffers,
    /// An earlier sync of this file failed, so it is unknown which later writes the disk has.
    EarlierSyncFailed,
    /// The given guard locks another file.
    WrongLock(PathBuf),
}

impl Error {
    pub(crate) fn new(operation: &'static str, path: &Path, kind: ErrorKind) -> Self {
        Self { operation, path: path.to_owned(), kind: Arc::new(kind) }
    }

    /// Returns a conversion for `map_err` after a call to the operating system.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::new(operation, path, ErrorKind::Io(source))
    }

    /// Returns the operation that failed, such as `"rename over"`.
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// Returns the file that the operation was applied to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the reason of the failure.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// Returns whether the lock was unavailable and nothing was changed, so that a retry may succeed.
    pub fn is_busy(&self) -> bool {
        matches!(*self.kind, ErrorKind::Busy | ErrorKind::TimedOut(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "cannot {} {:?}: ", self.operation, self.path)?;
        match &*self.kind {
            ErrorKind::Io(source) => write!(out, "{source}"),
            ErrorKind::WouldWaitForItself => {
                out.write_str("this thread holds the lock already and would wait for itself; drop the first guard")
            }
            ErrorKind::Busy => out.write_str("somebody else holds the lock; try again later"),
            ErrorKind::TimedOut(waited) => write!(out, "somebody else held the lock for {waited:?}; try again later"),
            ErrorKind::Corrupt(place) => {
                write!(out, "it is corrupt ({place}); it was left as it is: mend it or move it away")
            }
            ErrorKind::NotAFile => out.write_str("it is not a regular file"),
            ErrorKind::Unserialisable(source) => write!(out, "the new content is no JSON: {source}"),
            ErrorKind::ReadBackDiffers => {
                out.write_str("what was read back is not what was written: somebody writes without the lock, or the disk fails")
            }
            ErrorKind::EarlierSyncFailed => {
                out.write_str("an earlier sync of it failed, and what the disk has of it is not known; look at it, and open it anew")
            }
            ErrorKind::WrongLock(expected) => write!(out, "the guard is not that of its lock, {expected:?}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &*self.kind {
            ErrorKind::Io(source) => Some(source),
            ErrorKind::Unserialisable(source) => Some(source),
            _ => None,
        }
    }
}

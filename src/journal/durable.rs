//! Tracks durable names and failed fsyncs.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, Opened};
use crate::error::{Error, ErrorKind};
use crate::journal::Known;
use crate::replace::folder_of;

/// Durability state of one handle of a journal.
#[derive(Debug, Default)]
pub(super) struct Durable {
    /// Whether a sync failed, after which the kernel may have dropped what it could not write. Held during every sync:
    /// the kernel reports an error once, and a concurrent sync must not take that for success.
    is_broken: Mutex<bool>,
    /// The file whose name this handle has synced: the process that created the name may have been killed before its
    /// sync.
    name_synced_of: Mutex<Option<Known>>,
}

impl Durable {
    pub(super) fn refuse_if_broken(&self, path: &Path) -> Result<(), Error> {
        match *self.is_broken() {
            true => Err(Error::new("append to", path, ErrorKind::EarlierSyncFailed)),
            false => Ok(()),
        }
    }

    /// Waits until the disk has what was written to this file of the journal `path`.
    pub(super) fn sync(&self, file: &dyn Opened, path: &Path) -> Result<(), Error> {
        self.once(path, || file.sync().map_err(Error::io("sync", path)))
    }

    /// Waits until the disk has the names in the folder of the journal `path`.
    pub(super) fn sync_folder(&self, disk: &dyn Disk, path: &Path) -> Result<(), Error> {
        let folder = folder_of(path);
        self.once(path, || disk.sync_folder(folder).map_err(Error::io("sync the folder", folder)))
    }

    /// Ensures that the disk has the name of this file too.
    pub(super) fn sync_name(&self, disk: &dyn Disk, path: &Path, known: &Known) -> Result<(), Error> {
        if self.name_synced_of().as_ref().is_none_or(|before| before.id != known.id) {
            self.sync_folder(disk, path)?;
            *self.name_synced_of() = Some(known.clone());
        }
        Ok(())
    }

    /// Syncs, unless a sync failed before: a second try would succeed, without the dropped data.
    fn once(&self, path: &Path, sync: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let mut is_broken = self.is_broken();
        if *is_broken {
            return Err(Error::new("sync", path, ErrorKind::EarlierSyncFailed));
        }
        let synced = sync();
        *is_broken = synced.is_err();
        synced
    }

    fn is_broken(&self) -> MutexGuard<'_, bool> {
        self.is_broken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name_synced_of(&self) -> MutexGuard<'_, Option<Known>> {
        self.name_synced_of.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

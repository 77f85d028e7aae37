//! posix: any subset of what was not synced; a name needs the sync of its folder.
//!
//! "Calling fsync() does not necessarily ensure that the entry in the directory containing the file has also reached disk"
//! (fsync(2)). A rename is one change all the same: POSIX demands that of those who look, and no file system that journals
//! does otherwise.

use crate::catalogue::headline;
use crate::persist::disk::{Change, Log, Sync};
use crate::persist::profile::Profile;

pub(super) const PROFILE: Profile =
    Profile { id: "posix", statement: headline(include_str!("posix.rs")), needs: |_, _| Vec::new(), demands };

fn demands(_: &Log, sync: &Sync, change: &Change) -> bool {
    sync.what.is_about(change)
}

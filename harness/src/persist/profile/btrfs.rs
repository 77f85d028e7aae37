//! btrfs: the names of different files are kept or lost by themselves; a sync of a file carries its names, and nothing of any other.
//!
//! A sync writes the tree log of one inode (btrfs_log_inode), with the names that it has and the new folders that they are
//! in; everything else comes with the next commit. The length moves when the data have been written, as in xfs.

use crate::catalogue::headline;
use crate::persist::disk::{Change, Log, Sync, Synced, What};
use crate::persist::profile::{Profile, growth, latest, latest_cut, same_page};
use crate::persist::tree::Name;

pub(super) const PROFILE: Profile =
    Profile { id: "btrfs", statement: headline(include_str!("btrfs.rs")), needs, demands };

fn needs(log: &Log, number: usize) -> Vec<usize> {
    let change = &log.changes[number];
    match change.what {
        What::Bytes { file, .. } => {
            latest_cut(log, number, file).into_iter().chain(same_page(log, number)).collect()
        }
        What::Length { file, grown_by: Some(by), .. } => {
            let mut needed = growth(log, number, file);
            needed.push(by);
            needed.extend(latest_cut(log, number, file));
            needed
        }
        What::Length { file, grown_by: None, .. } => latest_cut(log, number, file).into_iter().collect(),
        What::Mode { .. } => Vec::new(),
        What::Put { .. } | What::Remove { .. } | What::Move { .. } => {
            latest(log, number, |other| other.named() == change.named()).into_iter().collect()
        }
    }
}

fn demands(log: &Log, sync: &Sync, change: &Change) -> bool {
    match &sync.what {
        Synced::All => true,
        Synced::File(file) | Synced::Write { file, .. } => {
            let name = Name::File(*file);
            sync.what.is_about(change)
                || change.named() == Some(&name)
                || is_folder_of(log, sync.call, change, &name)
        }
        Synced::Folder(_) => sync.what.is_about(change),
    }
}

/// Whether the change makes a folder that a name of the file is in by then.
fn is_folder_of(log: &Log, call: usize, change: &Change, file: &Name) -> bool {
    let What::Put { path: folder, name: Name::Folder(_) } = &change.what else { return false };
    log.changes.iter().filter(|other| other.call < call).any(|other| match &other.what {
        What::Put { path, name } | What::Move { to: path, name, .. } => {
            name == file && path.strip_prefix(folder.as_str()).is_some_and(|rest| rest.starts_with('/'))
        }
        _ => false,
    })
}

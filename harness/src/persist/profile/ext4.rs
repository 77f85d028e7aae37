//! ext4 (data=ordered): names and cuts are a prefix in their order, and any sync carries all of them; unsynced data reads as NUL.
//!
//! Its journal is one sequence, and any commit writes all of it (Documentation/filesystems/ext4/journal.rst). The length
//! that data bring along comes when they are given their place on the disk, which may be before or after. Replacing by
//! rename starts the writing of the data, and does not wait for it ("we do not guarantee that the data is securely on disk
//! before rename", Jan Kara, linux-ext4, 2022-09-01).

use crate::catalogue::headline;
use crate::persist::disk::{Change, Log, Sync, Synced, What};
use crate::persist::profile::{Profile, latest_cut, latest_metadata, same_page};

pub(super) const PROFILE: Profile =
    Profile { id: "ext4", statement: headline(include_str!("ext4.rs")), needs, demands };

fn needs(log: &Log, number: usize) -> Vec<usize> {
    match log.changes[number].what {
        What::Bytes { file, .. } | What::Length { file, grown_by: Some(_), .. } => {
            latest_cut(log, number, file).into_iter().chain(same_page(log, number)).collect()
        }
        _ => latest_metadata(log, number).into_iter().collect(),
    }
}

/// Also used for xfs, which has a single log as well.
pub(super) fn demands(log: &Log, sync: &Sync, change: &Change) -> bool {
    match &sync.what {
        Synced::All => true,
        // fdatasync commits nothing if only permissions or attributes have changed since the last sync.
        Synced::Data(file) if change.attribute_of().is_some() => {
            let is_sync_of = |other: &&Sync| {
                other.call < sync.call
                    && matches!(other.what, Synced::File(own) | Synced::Data(own) if own == *file)
            };
            let last = log.syncs.iter().rev().find(is_sync_of).map_or(0, |last| last.call);
            log.changes.iter().any(|other| {
                let is_length = matches!(other.what, What::Length { file: own, .. } if own == *file);
                is_length && (last..sync.call).contains(&other.call)
            })
        }
        Synced::Data(_) => change.is_metadata() || sync.what.is_about(change),
        Synced::File(_) | Synced::Write { .. } => change.is_metadata() || sync.what.is_about(change),
        Synced::Folder(_) => change.is_metadata(),
    }
}

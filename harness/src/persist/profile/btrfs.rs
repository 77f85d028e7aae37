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
        What::Mode { .. } | What::Attribute { .. } => Vec::new(),
        What::Put { .. } | What::Remove { .. } | What::Move { .. } | What::Exchange { .. } => {
            let of_one = |name| latest(log, number, |other| other.named().contains(name));
            change.named().iter().filter_map(of_one).collect()
        }
    }
}

fn demands(log: &Log, sync: &Sync, change: &Change) -> bool {
    match &sync.what {
        Synced::All => true,
        Synced::File(file) | Synced::Data(file) | Synced::Write { file, .. } => {
            let name = Name::File(*file);
            sync.what.is_about(change)
                || change.named().contains(&name)
                || is_folder_of(log, sync.call, change, &name)
        }
        Synced::Folder(_) => sync.what.is_about(change),
    }
}

/// Whether the change creates a folder that contains a name of the file by then.
fn is_folder_of(log: &Log, call: usize, change: &Change, file: &Name) -> bool {
    let What::Put { name: made @ Name::Folder(_), .. } = &change.what else { return false };
    let mut above: Vec<u32> = folders_of(log, call, file);
    let mut next = 0;
    while let Some(folder) = above.get(next).copied() {
        let name = Name::Folder(folder);
        if name == *made {
            return true;
        }
        let outer = folders_of(log, call, &name).into_iter().filter(|outer| !above.contains(outer));
        above.extend(outer.collect::<Vec<_>>());
        next += 1;
    }
    false
}

/// Returns the folders in which a file or folder had been given a name by then.
fn folders_of(log: &Log, call: usize, what: &Name) -> Vec<u32> {
    let changes = log.changes.iter().filter(|change| change.call < call);
    let given = changes.filter_map(|change| match &change.what {
        What::Put { place, name } | What::Move { to: place, name, .. } if name == what => Some(place.0),
        What::Exchange { places: [one, other], names: [first, second] } => match what {
            what if what == first => Some(other.0),
            what if what == second => Some(one.0),
            _ => None,
        },
        _ => None,
    });
    given.collect()
}

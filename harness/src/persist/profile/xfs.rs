//! xfs: names and cuts are a prefix in their order, and any sync carries all of them; a file is never longer than its data on the disk.
//!
//! The length on the disk moves when the data have been written (xfs_setfilesize), so that what was not synced is missing
//! or short, and not NUL.

use crate::catalogue::headline;
use crate::persist::disk::{Log, What};
use crate::persist::profile::{Profile, ext4, growth, latest_cut, latest_metadata, same_page};

pub(super) const PROFILE: Profile =
    Profile { id: "xfs", statement: headline(include_str!("xfs.rs")), needs, demands: ext4::demands };

fn needs(log: &Log, number: usize) -> Vec<usize> {
    match log.changes[number].what {
        What::Bytes { file, .. } => {
            latest_cut(log, number, file).into_iter().chain(same_page(log, number)).collect()
        }
        What::Length { file, grown_by: Some(by), .. } => {
            let mut needed = growth(log, number, file);
            needed.push(by);
            needed.extend(latest_cut(log, number, file));
            needed
        }
        _ => latest_metadata(log, number).into_iter().collect(),
    }
}

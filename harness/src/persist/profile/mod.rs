//! Defines the profiles: which unsynced updates each file system may lose.
//!
//! A profile says two things of a change: without which earlier ones it cannot be on the disk, and which syncs demand it.
//! What is known of them was read in their documentation and seen on Linux 6.18; the litmus test of the harness holds
//! each of them against the real thing.

mod btrfs;
mod ext4;
mod posix;
mod xfs;

use crate::persist::disk::{Change, Log, PAGE, Sync, What};

/// The unsynced updates that a file system may lose.
#[derive(Debug)]
pub struct Profile {
    /// Its name.
    pub id: &'static str,
    /// Which updates may be missing, in one sentence.
    pub statement: &'static str,
    /// Returns the numbers of the earlier changes that this one depends on.
    pub(super) needs: fn(&Log, usize) -> Vec<usize>,
    /// Whether a sync requires an earlier change to be durable.
    pub(super) demands: fn(&Log, &Sync, &Change) -> bool,
}

/// All profiles; a state that only the last one allows is a portability issue.
pub const ALL: &[&Profile] = &[&ext4::PROFILE, &xfs::PROFILE, &btrfs::PROFILE, &posix::PROFILE];

/// The profile of what the standard leaves open.
pub const PORTABILITY: &str = posix::PROFILE.id;

/// Returns the latest change before `number` that `is_meant` accepts.
fn latest(log: &Log, number: usize, is_meant: impl Fn(&Change) -> bool) -> Option<usize> {
    log.changes[..number].iter().rposition(is_meant)
}

/// Returns the latest change of names, permissions or an explicitly set length.
fn latest_metadata(log: &Log, number: usize) -> Option<usize> {
    latest(log, number, Change::is_metadata)
}

/// Returns the latest explicitly set length of this file, not one that a write extended: data written after it go to
/// other blocks.
fn latest_cut(log: &Log, number: usize, file: u32) -> Option<usize> {
    latest(
        log,
        number,
        |change| matches!(change.what, What::Length { file: other, grown_by: None, .. } if other == file),
    )
}

/// Returns the latest earlier bytes of the same page of this file since its last truncation: a page is written as a
/// whole, so that later bytes depend on them.
fn same_page(log: &Log, number: usize) -> Option<usize> {
    let What::Bytes { file, offset, .. } = log.changes[number].what else { return None };
    let earlier = latest(
        log,
        number,
        |change| matches!(change.what, What::Bytes { file: other, offset: at, .. } if other == file && at / PAGE == offset / PAGE),
    );
    earlier.filter(|earlier| latest_cut(log, number, file).is_none_or(|cut| cut < *earlier))
}

/// Returns all bytes that extended this file, and the length changes that they caused.
fn growth(log: &Log, number: usize, file: u32) -> Vec<usize> {
    let grown = |change: &Change| match change.what {
        What::Length { file: other, grown_by: Some(by), .. } if other == file => Some(by),
        _ => None,
    };
    (0..number).filter_map(|at| grown(&log.changes[at]).map(|by| [at, by])).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_has_a_name_of_its_own_and_the_last_is_the_standard() {
        for (index, profile) in ALL.iter().enumerate() {
            assert!(ALL[..index].iter().all(|other| other.id != profile.id));
        }
        assert_eq!(ALL.last().unwrap().id, PORTABILITY);
    }
}

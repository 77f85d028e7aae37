//! Computes the periods in which each lock was held.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::call::{Call, LockChange};
use crate::locks::{FileId, Kind, Lock, LockTable, Mode, Owner};

/// A lock, from the step that took it to the step that released it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hold {
    /// The lane of the client that took it, from 0.
    pub lane: usize,
    /// The locked file.
    pub file: String,
    /// The kind of lock.
    pub kind: Kind,
    /// Shared or exclusive.
    pub mode: Mode,
    /// The step that took it.
    pub from: usize,
    /// The step that released it; `None` if no step did.
    pub to: Option<usize>,
}

/// The locks held, updated call by call.
#[derive(Debug, Default)]
pub(super) struct Held {
    table: LockTable,
    /// The client that took each lock, and the name of its file at that time.
    takers: BTreeMap<Key, (u32, String)>,
}

/// Identifies the lock of one owner, whatever its byte range.
type Key = (FileId, Kind, Owner);

fn key(lock: &Lock) -> Key {
    (lock.file, lock.kind, lock.owner)
}

impl Held {
    /// Applies the lock changes of this call.
    pub(super) fn apply(&mut self, call: &Call) {
        for change in &call.locks {
            match change {
                LockChange::Taken(lock, file) => {
                    let _had = self.table.take(*lock);
                    self.takers.insert(key(lock), (call.client, file.clone()));
                }
                LockChange::Released(lock, _) => {
                    let _gone = self.table.release(lock.file, lock.kind, lock.owner, lock.range);
                }
                LockChange::Refused(..) => {}
            }
        }
    }

    /// Returns the clients that keep `client` from taking this lock.
    pub(super) fn keepers(&self, lock: &Lock, client: u32) -> BTreeSet<u32> {
        let takers = self.table.obstacles(lock).into_iter().filter_map(|held| self.takers.get(&key(&held)));
        takers.map(|(taker, _)| *taker).filter(|taker| *taker != client).collect()
    }

    /// Returns the other clients that hold any lock on the file of this name.
    pub(super) fn holders(&self, file: &str, client: u32) -> BTreeSet<u32> {
        let takers = self.table.held().iter().filter_map(|held| self.takers.get(&key(held)));
        let others = takers.filter(|(taker, taken)| *taker != client && taken == file);
        others.map(|(taker, _)| *taker).collect()
    }
}

/// Returns all locks of a trace that begins after `before` steps, in the order in which they were taken.
pub(in crate::report) fn holds(calls: &[Call], before: usize) -> Vec<Hold> {
    let mut held = Held::default();
    let mut open: BTreeMap<(Key, Mode), usize> = BTreeMap::new();
    let mut holds: Vec<Hold> = Vec::new();
    for (step, call) in (before + 1..).zip(calls) {
        held.apply(call);
        let now: BTreeSet<(Key, Mode)> =
            held.table.held().iter().map(|lock| (key(lock), lock.mode)).collect();
        open.retain(|lock, place| {
            let is_held = now.contains(lock);
            if !is_held && let Some(hold) = holds.get_mut(*place) {
                hold.to = Some(step);
            }
            is_held
        });
        for change in &call.locks {
            let LockChange::Taken(lock, file) = change else { continue };
            let lane = (call.client.saturating_sub(1)) as usize;
            if now.contains(&(key(lock), lock.mode)) && !open.contains_key(&(key(lock), lock.mode)) {
                open.insert((key(lock), lock.mode), holds.len());
                let file = file.clone();
                holds.push(Hold { lane, file, kind: lock.kind, mode: lock.mode, from: step, to: None });
            }
        }
    }
    holds
}

//! Indexes the steps of an execution by what they touch, so that the last conflicting step of a client is found without a search.

use std::collections::{BTreeMap, HashMap};

use crate::explore::Step;
use crate::explore::footprint::{Access, Footprint, Locking, Resource};
use crate::locks::FileId;

const KINDS: [Access; 4] = [Access::Read, Access::Write, Access::One, Access::Other];

/// Indices of some steps, in increasing order.
type Places = Vec<usize>;

/// Steps so far, by client and by what they touch.
#[derive(Debug, Default)]
pub(super) struct Index<'a> {
    width: usize,
    /// For each resource and client, the last step that touched it in each way.
    touched: HashMap<&'a Resource, Vec<[Option<usize>; KINDS.len()]>>,
    /// For each locked file, the lock operations of each client, and their steps.
    locks: HashMap<FileId, BTreeMap<(usize, Locking), Places>>,
    /// For each client, its last step that touches anything.
    any: Vec<Option<usize>>,
    /// For each client, its last step with an unknown footprint.
    unknown: Vec<Option<usize>>,
}

impl<'a> Index<'a> {
    pub(super) fn new(width: usize) -> Self {
        Self { width, any: vec![None; width], unknown: vec![None; width], ..Self::default() }
    }

    /// Adds the step at index `at`, which comes after all others.
    pub(super) fn push(&mut self, at: usize, step: &'a Step) {
        let client = step.client as usize;
        let footprint = &step.footprint;
        for (resource, access) in &footprint.touched {
            let of_clients =
                self.touched.entry(resource).or_insert_with(|| vec![[None; KINDS.len()]; self.width]);
            of_clients[client][kind(*access)] = Some(at);
        }
        for locking in &footprint.locks {
            let of_file = self.locks.entry(locking.lock().file).or_default();
            let places = of_file.entry((client, *locking)).or_default();
            if places.last() != Some(&at) {
                places.push(at);
            }
        }
        if !footprint.is_empty() {
            self.any[client] = Some(at);
        }
        if footprint.is_unknown {
            self.unknown[client] = Some(at);
        }
    }

    /// Returns, for each client, its last step so far that conflicts with this footprint and that `counts` accepts.
    pub(super) fn last_conflicting(
        &self,
        footprint: &Footprint,
        counts: &dyn Fn(usize) -> bool,
    ) -> Vec<Option<usize>> {
        if footprint.is_unknown {
            return self.any.clone();
        }
        let mut last = if footprint.is_empty() { vec![None; self.width] } else { self.unknown.clone() };
        for (resource, access) in &footprint.touched {
            let Some(of_clients) = self.touched.get(resource) else { continue };
            for (known, of_client) in last.iter_mut().zip(of_clients) {
                let conflicting = KINDS.iter().zip(of_client).filter(|(kind, _)| !access.commutes(**kind));
                *known = conflicting.map(|(_, place)| *place).chain([*known]).max().flatten();
            }
        }
        for locking in &footprint.locks {
            let of_file = self.locks.get(&locking.lock().file).into_iter().flatten();
            for ((client, _), places) in of_file.filter(|((_, other), _)| !locking.commutes(other)) {
                // Steps that do not count are checked once, and only after the last one that does.
                let is_later = |place: &usize| last[*client].is_none_or(|known| *place > known);
                let found = places.iter().rev().copied().take_while(is_later).find(|place| counts(*place));
                last[*client] = found.or(last[*client]);
            }
        }
        last
    }

    /// Whether a client has a step within `range` whose locks conflict with those of a footprint.
    pub(super) fn has_lock_conflict(
        &self,
        footprint: &Footprint,
        client: usize,
        range: &std::ops::Range<usize>,
    ) -> bool {
        footprint.locks.iter().any(|locking| {
            let of_file = self.locks.get(&locking.lock().file).into_iter().flatten();
            of_file
                .filter(|((other, _), _)| *other == client)
                .filter(|((_, other), _)| !locking.commutes(other))
                .any(|(_, places)| {
                    let first = places.partition_point(|place| *place < range.start);
                    places.get(first).is_some_and(|place| *place < range.end)
                })
        })
    }
}

fn kind(access: Access) -> usize {
    KINDS.iter().position(|kind| *kind == access).unwrap_or(0)
}

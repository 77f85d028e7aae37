//! What the store holds after a kill, a power loss or a fault: the struck operation wholly or not, and everything else.
//!
//! Shared by the invariants that differ in what struck, and in nothing else.

use std::collections::BTreeMap;

use crate::observation::{FileState, Observation, View, name_some};
use crate::op::{Nanos, Operation};
use crate::verdict::Judgement;

/// An execution with an injection, from the moment on at which the store must be correct.
pub(super) struct Aftermath<'a> {
    pub(super) observation: &'a Observation,
    /// The injection, as in "after a kill".
    pub(super) what: &'static str,
    /// Time of the injection.
    pub(super) from: Nanos,
    /// The operations it hit: their records may be there or not.
    pub(super) struck: Vec<&'a Operation>,
}

/// Describes that this `list` fails permanently, so that this number of acknowledged records is lost.
pub(super) fn fails_for_good(list: &Operation, count: usize) -> String {
    let said = if list.stderr.is_empty() { String::new() } else { format!(": {}", list.stderr) };
    let status = list.own_failure().unwrap_or_default();
    let records = if count == 1 { "record" } else { "records" };
    format!("list fails for good ({status}{said}), so that {count} acknowledged {records} cannot be read")
}

impl<'a> Aftermath<'a> {
    /// Makes the aftermath of the kills of an execution; `None` if there was no kill, or if other clients ran too,
    /// because they may be the cause.
    pub(super) fn of_kills(observation: &'a Observation) -> Option<Self> {
        let struck: Vec<&Operation> = observation.killed().collect();
        let from = struck.iter().map(|killed| killed.returned).min()?;
        let what = "a kill";
        observation.is_sequential().then_some(Self { observation, what, from, struck })
    }

    /// Makes the aftermath of the power losses of an execution; `None` if there was none.
    pub(super) fn of_power_loss(observation: &'a Observation) -> Option<Self> {
        let from = *observation.power_losses.last()?;
        let struck = observation.power_losses.iter().filter_map(|loss| {
            observation.operations.iter().rev().find(|operation| operation.invoked < *loss)
        });
        Some(Self { observation, what: "a power loss", from, struck: struck.collect() })
    }

    fn is_settled(&self, at: Nanos) -> bool {
        at > self.from && self.observation.settled_at(at)
    }

    /// Returns what the store held since, after it had the chance to recover.
    pub(super) fn views(&self) -> impl Iterator<Item = View<'a>> {
        self.observation.views().into_iter().filter(|view| self.is_settled(view.at))
    }

    /// Returns whether the injection is the cause if this record is missing. A record that was added while a killed
    /// operation was held may never have been in: then it was lost between the two, whatever was injected later.
    fn is_to_blame_for(&self, record: &str) -> bool {
        let Some(add) = self.observation.add_of(record) else { return true };
        let is_beside = self.struck.iter().any(|struck| !std::ptr::eq(*struck, add) && struck.overlaps(add));
        let was_seen =
            || self.observation.views().iter().any(|view| view.records.iter().any(|seen| seen == record));
        !is_beside || was_seen()
    }

    fn struck_records(&self) -> impl Iterator<Item = &'a str> {
        self.struck.iter().filter_map(|struck| struck.added())
    }

    /// Describes data that is neither the old state nor the result of the injected operation.
    pub(super) fn breakage(&self) -> Option<String> {
        let (observation, what) = (self.observation, self.what);
        let legible = observation.states.iter().filter(|_| observation.subject.transparent);
        for state in legible.filter(|state| self.is_settled(state.at)) {
            let has_records = || observation.acknowledged_by(state.at).next().is_some();
            let seen = match &state.data {
                FileState::Broken(reason) => format!("broken: {reason}"),
                FileState::Empty if has_records() => "empty".to_owned(),
                FileState::Missing if has_records() => "away".to_owned(),
                _ => continue,
            };
            return Some(format!("after {what} the data file stays {seen}"));
        }
        let mut first_seen: BTreeMap<&str, bool> = BTreeMap::new();
        for view in self.views() {
            let source = view.source;
            let counts = observation.counts(view);
            let doubled: Vec<&str> =
                counts.iter().filter(|(_, count)| **count > 1).map(|(record, _)| *record).collect();
            if !doubled.is_empty() {
                return Some(format!("after {what} {source} shows twice: {}", name_some(doubled)));
            }
            let is_nobodys = |record: &&str| observation.add_of(record).is_none();
            let partial: Vec<&str> = counts.keys().copied().filter(is_nobodys).collect();
            if !partial.is_empty() {
                return Some(format!(
                    "after {what} {source} shows what is no whole record: {}",
                    name_some(partial)
                ));
            }
            let mut harmed = observation.missing_from(view);
            harmed.retain(|record| self.struck_records().all(|struck| struck != *record));
            harmed.retain(|record| self.is_to_blame_for(record));
            if !harmed.is_empty() {
                return Some(format!(
                    "{what} of one operation harmed other records; not in {source} any more: {}",
                    name_some(harmed)
                ));
            }
            let before = |operation: &&&Operation| operation.returned <= view.at;
            for record in self.struck.iter().filter(before).filter_map(|struck| struck.added()) {
                let there = counts.contains_key(record);
                if *first_seen.entry(record).or_insert(there) != there {
                    let (before, now) = if there { ("not there", "there") } else { ("there", "gone") };
                    return Some(format!(
                        "the record of an add that was struck by {what} was first {before}, later {now}: {record}"
                    ));
                }
            }
        }
        None
    }

    /// Judges whether every acknowledged record is still there.
    pub(super) fn keeps_acknowledged(&self) -> Judgement {
        let mut judged = false;
        for view in self.views() {
            judged |= self.observation.acknowledged_by(view.at).next().is_some();
            let mut lost = self.observation.missing_from(view);
            lost.retain(|record| self.is_to_blame_for(record));
            if !lost.is_empty() {
                return Judgement::Violated(format!(
                    "after {} {} acknowledged records are not in {} any more: {}",
                    self.what,
                    lost.len(),
                    view.source,
                    name_some(lost)
                ));
            }
        }
        if let Some(loss) = self.unreadable_for_good() {
            return Judgement::Violated(loss);
        }
        if let Some(doubt) = self.observation.doubt_of_unreadable() {
            return Judgement::Inconclusive(doubt);
        }
        if judged { Judgement::Holds } else { Judgement::NotExercised }
    }

    /// Describes that the store cannot be read any more, so that acknowledged records are lost.
    pub(super) fn unreadable_for_good(&self) -> Option<String> {
        let list = self.observation.failing_for_good(self.from)?;
        let acknowledged = self.observation.acknowledged_by(list.invoked);
        let count = acknowledged.filter(|(record, _)| self.is_to_blame_for(record)).count();
        (count > 0).then(|| format!("after {} {}", self.what, fails_for_good(list, count)))
    }
}

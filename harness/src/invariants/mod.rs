//! The invariants: properties judged from observations alone, one small file each.
//!
//! To add one, copy the smallest file here, add it to [`ALL`], and give a fixture that breaks it: the matrix test
//! fails for an invariant that no fixture violates.

use crate::evidence::Evidence;
use crate::observation::Observation;
use crate::verdict::Judgement;

mod acked_survives_crash;
mod acked_survives_power_loss;
mod aftermath;
mod crash_atomic;
mod derived_heals;
mod failed_write_keeps_old;
mod guard_holds;
mod honest_failure;
mod linearizable;
mod memory_matches_file;
mod mutual_exclusion;
mod no_deadlock;
mod no_leaked_lock;
mod no_lost_update;
mod no_phantom_record;
mod no_residue;
mod no_self_deadlock;
mod no_spurious_failure;
mod no_torn_read;
mod power_loss_atomic;
mod recorded;
mod recovers_after_crash;
#[cfg(test)]
mod timeline;
#[cfg(test)]
pub(crate) use timeline::observe as timeline_for_tests;
mod valid_data;

/// A property of a store, and the check that judges an execution by it.
#[derive(Debug)]
pub struct Invariant {
    /// Its id, kebab-case; it never changes.
    pub id: &'static str,
    /// The property in one sentence.
    pub statement: &'static str,
    /// The source file that defines it; its header explains it.
    pub source: &'static str,
    /// Feature of the target without which the invariant does not apply.
    pub needs: Needs,
    /// The experiments that must all have run before it holds.
    pub evidence: &'static [Evidence],
    /// Why it is inconclusive if no execution could have violated it.
    pub unjudged: &'static str,
    /// Judges one execution that it applies to.
    check: fn(&Observation) -> Judgement,
}

impl Invariant {
    /// Judges one execution.
    pub fn judge(&self, observation: &Observation) -> Judgement {
        let is_meant = observation.only_for.is_empty() || observation.only_for.contains(self.id);
        if is_meant { (self.check)(observation) } else { Judgement::NotExercised }
    }
}

/// Feature of a target that an invariant requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing beyond the operations that every target has.
    Nothing,
    /// A data format in which picklock can distinguish a whole file from a broken one.
    TransparentData,
    /// A long-lived client that answers requests.
    Session,
    /// Files that the target derives from its data.
    Derived,
    /// A limit on the records.
    Guard,
    /// No limit on the records, or one with room for five kills, each followed by an add.
    RoomForFiveKills,
}

/// The catalogue, in display order.
pub const ALL: &[&Invariant] = &[
    &valid_data::INVARIANT,
    &no_torn_read::INVARIANT,
    &no_lost_update::INVARIANT,
    &no_phantom_record::INVARIANT,
    &linearizable::INVARIANT,
    &mutual_exclusion::INVARIANT,
    &no_spurious_failure::INVARIANT,
    &no_deadlock::INVARIANT,
    &no_self_deadlock::INVARIANT,
    &crash_atomic::INVARIANT,
    &acked_survives_crash::INVARIANT,
    &recovers_after_crash::INVARIANT,
    &no_leaked_lock::INVARIANT,
    &no_residue::INVARIANT,
    &honest_failure::INVARIANT,
    &failed_write_keeps_old::INVARIANT,
    &power_loss_atomic::INVARIANT,
    &acked_survives_power_loss::INVARIANT,
    &guard_holds::INVARIANT,
    &memory_matches_file::INVARIANT,
    &derived_heals::INVARIANT,
];

/// Returns the invariant with this id, if it exists.
pub fn find(id: &str) -> Option<&'static Invariant> {
    ALL.iter().copied().find(|invariant| invariant.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;

    #[test]
    fn every_id_is_reserved_and_none_comes_twice() {
        for (index, invariant) in ALL.iter().enumerate() {
            assert!(
                catalogue::INVARIANT_IDS.contains(&invariant.id),
                "{} is no id of the interface",
                invariant.id
            );
            assert!(ALL[..index].iter().all(|other| other.id != invariant.id));
        }
    }

    /// An invariant that needs no evidence would hold on anything.
    #[test]
    fn every_invariant_needs_some_evidence() {
        assert!(ALL.iter().all(|invariant| !invariant.evidence.is_empty()));
    }

    /// An execution without operations must not count as evidence.
    #[test]
    fn an_execution_in_which_nothing_happened_is_evidence_for_nothing() {
        let empty = timeline::observe("");
        for invariant in ALL {
            assert_eq!(invariant.judge(&empty), Judgement::NotExercised, "{}", invariant.id);
        }
    }
}

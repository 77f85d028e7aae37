//! Nothing is in the store that nobody added; a refused record is not there.
//!
//! Judged whenever no operation runs: every record that `list` reports, or that is in the data file, was requested
//! by some `add`, and none was refused or answered with busy. Records that were there after `init` are ignored.
//! Typical causes: half a record after a kill, an old tail behind a shorter rewrite, a refusal after the write.
//!
//! Example: `add r4` exits 3 because the store is full, and `list` reports r4 nevertheless.

use crate::catalogue::headline;
use crate::evidence::Evidence;
use crate::invariants::{Invariant, Needs};
use crate::observation::{Observation, name_some};
use crate::verdict::Judgement;

pub(super) const INVARIANT: Invariant = Invariant {
    id: "no-phantom-record",
    statement: headline(include_str!("no_phantom_record.rs")),
    source: include_str!("no_phantom_record.rs"),
    needs: Needs::Nothing,
    evidence: &[Evidence::KillPoints, Evidence::HeldPoints],
    unjudged: "the records could never be read while no operation was running",
    check,
};

fn check(observation: &Observation) -> Judgement {
    let mut judged = false;
    for view in observation.views().into_iter().filter(|view| observation.settled_at(view.at)) {
        judged = true;
        let counts = observation.counts(view);
        let unknown: Vec<&str> =
            counts.keys().copied().filter(|record| observation.add_of(record).is_none()).collect();
        if !unknown.is_empty() {
            let shown: Vec<String> = unknown.iter().map(|record| shorten(record)).collect();
            return Judgement::Violated(format!(
                "{} lists records that no operation added: {}",
                view.source,
                name_some(shown.iter().map(String::as_str))
            ));
        }
        let denied = counts.keys().copied().filter(|record| {
            observation.add_of(record).is_some_and(|add| add.returned <= view.at && add.changed_nothing())
        });
        let denied: Vec<&str> = denied.collect();
        if !denied.is_empty() {
            return Judgement::Violated(format!(
                "{} shows records whose add was refused: {}",
                view.source,
                name_some(denied)
            ));
        }
    }
    if judged { Judgement::Holds } else { Judgement::NotExercised }
}

/// Shortens a phantom record, which may be any bytes of any length.
fn shorten(record: &str) -> String {
    let mut shown: String = record.chars().take(40).collect();
    if shown.len() < record.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

#[cfg(test)]
mod tests {
    use super::super::timeline::{holds, silent, violated};
    use super::check;

    #[test]
    fn only_what_was_added_is_there() {
        holds(
            check,
            "initial z\n c1 add a 0..10 ok\n c1 add b 11..12 killed\n c1 add c 13..14 ok\n c1 list 20..21 ok = z a b c",
        );
        silent(check, "c1 add a 0..10 ok");
    }

    #[test]
    fn what_nobody_added_violates_and_is_named() {
        violated(check, "no operation added: \"x\"", "c1 add a 0..10 ok\n c1 list 20..21 ok = a x");
    }

    #[test]
    fn a_refused_record_that_is_there_violates() {
        violated(check, "refused: b", "c1 add a 0..10 ok\n c2 add b 5..9 refused\n state 20 whole = a b");
        violated(check, "refused: b", "c1 add a 0..10 ok\n c2 add b 5..9 busy\n state 20 whole = a b");
    }
}

//! A reader that takes no lock never sees a broken, empty or missing data file.
//!
//! Readers open and parse the data file while clients change it. An empty file counts as broken, and so does a
//! missing file once a record was acknowledged or if `init` left one. In JSON Lines and text a last line without its
//! line feed is a torn tail, which a reader can detect, and not a violation. Typical causes: a rewrite in place,
//! even under a correct lock, and a file that is unlinked before its successor is there.
//!
//! Example: a reader opens the file between the truncation and the write, and finds it empty.

use crate::catalogue::headline;
use crate::evidence::Evidence;
use crate::invariants::{Invariant, Needs};
use crate::observation::Observation;
use crate::verdict::Judgement;

pub(super) const INVARIANT: Invariant = Invariant {
    id: "no-torn-read",
    statement: headline(include_str!("no_torn_read.rs")),
    source: include_str!("no_torn_read.rs"),
    needs: Needs::TransparentData,
    evidence: &[Evidence::KillPoints, Evidence::HeldPoints],
    unjudged: "no reader read the data file while a client changed it",
    check,
};

fn check(observation: &Observation) -> Judgement {
    let readings = &observation.readings;
    if let Some((_, seen)) = readings.examples.first() {
        return Judgement::Violated(format!(
            "of {} readings without a lock {} were torn; the first found {seen}",
            readings.taken, readings.torn
        ));
    }
    if readings.taken > 0 { Judgement::Holds } else { Judgement::NotExercised }
}

#[cfg(test)]
mod tests {
    use super::super::timeline::{holds, silent, violated};
    use super::check;

    #[test]
    fn one_torn_reading_violates_and_none_at_all_is_no_evidence() {
        holds(check, "read 100");
        violated(check, "of 101 readings without a lock 1 were torn", "read 100\n torn 7 empty");
        silent(check, "c1 add a 0..10 ok");
    }
}

//! Every data file is whole and parses whenever no operation is under way; after a kill, once the next operation (or `recover`) has ended.
//!
//! Judged whenever no operation runs, on the data file and on the files of `[data] also`. After a kill the store may
//! repair its file, so a broken one counts only after an `add` or a `recover` had the chance to do so. A missing or
//! empty file is broken once a record was acknowledged, or if `init` left a non-empty one. Typical causes: two
//! writers in one file, a truncation made permanent by a kill, an unchecked short write.
//!
//! Example: two clients write into the file at once, and it ends as `["r1","r2"]"r3"]`.

use crate::catalogue::headline;
use crate::evidence::Evidence;
use crate::invariants::{Invariant, Needs};
use crate::observation::{FileState, Observation};
use crate::verdict::Judgement;

pub(super) const INVARIANT: Invariant = Invariant {
    id: "valid-data",
    statement: headline(include_str!("valid_data.rs")),
    source: include_str!("valid_data.rs"),
    needs: Needs::TransparentData,
    evidence: &[Evidence::KillPoints, Evidence::HeldPoints],
    unjudged: "the data file was never seen at rest",
    check,
};

fn check(observation: &Observation) -> Judgement {
    let mut judged = false;
    for state in observation.states.iter().filter(|state| observation.settled_at(state.at)) {
        let must_be_there =
            observation.subject.starts_with_data || observation.acknowledged_by(state.at).next().is_some();
        let files = std::iter::once(("the data file", &state.data))
            .chain(state.also.iter().map(|(path, state)| (path.as_str(), state)));
        for (name, file) in files {
            judged = true;
            match file {
                FileState::Whole => {}
                FileState::Broken(reason) => {
                    return Judgement::Violated(format!(
                        "{name} is broken although no operation was running: {reason}"
                    ));
                }
                FileState::Empty | FileState::Missing if !must_be_there => {}
                FileState::Empty => {
                    return Judgement::Violated(format!("{name} is empty after records were acknowledged"));
                }
                FileState::Missing => {
                    return Judgement::Violated(format!("{name} is gone after records were acknowledged"));
                }
            }
        }
    }
    if judged { Judgement::Holds } else { Judgement::NotExercised }
}

#[cfg(test)]
mod tests {
    use super::super::timeline::{holds, silent, violated};
    use super::check;

    #[test]
    fn a_whole_file_at_rest_holds_and_so_does_none_before_the_first_record() {
        holds(check, "c1 add a 0..10 ok\n state 20 whole");
        holds(check, "c1 add a 0..10 refused\n state 20 missing");
    }

    #[test]
    fn a_broken_file_at_rest_violates_and_so_does_none_after_a_record() {
        violated(check, "broken", "c1 add a 0..10 ok\n state 20 broken");
        violated(check, "empty", "c1 add a 0..10 ok\n state 20 empty");
        violated(check, "gone", "c1 add a 0..10 ok\n state 20 missing");
    }

    #[test]
    fn after_a_kill_the_store_may_mend_its_file_first() {
        silent(check, "c1 add a 0..10 killed\n state 20 broken");
        silent(check, "c1 add a 0..10 killed\n c1 list 11..12 ok\n state 20 broken");
        holds(check, "c1 add a 0..10 killed\n state 20 broken\n c1 add b 30..40 ok\n state 50 whole");
        holds(check, "c1 add a 0..10 killed\n state 20 broken\n c1 recover 30..40 ok\n state 50 whole");
        violated(check, "broken", "c1 add a 0..10 killed\n c1 add b 30..40 ok\n state 50 broken");
        violated(check, "broken", "c1 add a 0..10 killed\n c1 add b 30..40 failed\n state 50 broken");
        silent(check, "c1 add a 0..10 killed\n c1 add b 30..40 killed\n state 50 broken");
    }
}

//! Derived files, removed, emptied, cut or overwritten, are rebuilt from the source of truth, which the rebuild never changes.
//!
//! What two rebuilds in a row leave, undisturbed, is what every later one must leave again, after damage and after the
//! kill of a rebuild; of a file that differs from one rebuild to another a second later, as one with a date in it does,
//! it is asked alone that it is there and not what the damage made of it. And the data file must be the same before and after each rebuild, also
//! one that was killed. Where picklock emptied a JSON data file there is no source of truth, and what was derived while
//! there was must stay.
//! Typical cause: a file is skipped where it is there, whatever is in it; or what is derived is also where it is derived
//! from.
//!
//! Example: an index beside the data is emptied, and `rebuild` leaves it empty because its time stamp is newer than
//! that of the data.

use crate::catalogue::headline;
use crate::evidence::Evidence;
use crate::invariants::{Invariant, Needs};
use crate::observation::{FileState, Observation, State};
use crate::op::{Operation, Outcome, Request};
use crate::verdict::Judgement;

pub(super) const INVARIANT: Invariant = Invariant {
    id: "derived-heals",
    statement: headline(include_str!("derived_heals.rs")),
    source: include_str!("derived_heals.rs"),
    needs: Needs::Derived,
    evidence: &[Evidence::Damages],
    unjudged: "no derived file was damaged and rebuilt",
    check,
};

fn check(observation: &Observation) -> Judgement {
    let rebuilds: Vec<(&Operation, &State, &State)> = observation
        .operations
        .iter()
        .filter(|operation| operation.request == Request::Rebuild)
        .filter_map(|rebuild| {
            let before = observation.states.iter().rfind(|state| state.at <= rebuild.invoked)?;
            let after = observation.states.iter().find(|state| state.at >= rebuild.returned)?;
            Some((rebuild, before, after))
        })
        .collect();
    let was_emptied = |state: &State| observation.source_was_damaged && state.data == FileState::Empty;
    for (_, before, after) in &rebuilds {
        if before.source != after.source && !was_emptied(before) {
            return Judgement::Violated("a rebuild changed the data file, which it is only to read".into());
        }
    }
    let done: Vec<_> = rebuilds.iter().filter(|(rebuild, ..)| rebuild.outcome != Outcome::Killed).collect();
    let [(first, _, one), (second, _, other), later @ ..] = done.as_slice() else {
        return Judgement::NotExercised;
    };
    if first.outcome != Outcome::Acknowledged || second.outcome != Outcome::Acknowledged {
        return Judgement::Inconclusive("a rebuild without injections did not succeed".into());
    }
    if one.derived.is_empty() {
        return Judgement::Inconclusive("a rebuild without injections left none of the derived files".into());
    }
    let mut was_damaged = false;
    for (rebuild, before, after) in later {
        if was_emptied(before) {
            was_damaged = true;
            let replaced =
                other.derived.keys().find(|name| after.derived.get(*name) != before.derived.get(*name));
            if let Some(name) = replaced {
                return Judgement::Violated(format!("with the data file empty, a rebuild replaced {name}"));
            }
            continue;
        }
        let changed = |state: &State, name: &String| state.derived.get(name) != other.derived.get(name);
        was_damaged |= other.derived.keys().any(|name| changed(before, name));
        if rebuild.outcome != Outcome::Acknowledged {
            return Judgement::Violated(format!("with a damaged derived file, {}", ended(rebuild)));
        }
        for (name, right) in &other.derived {
            let now = after.derived.get(name);
            // A file that differs from run to run must at least differ from the damaged one.
            let is_repeatable =
                one.derived.get(name) == Some(right) && !observation.subject.unrepeatable.contains(name);
            let was_right = before.derived.get(name) == Some(right);
            let is_healed = match now {
                None => false,
                Some(now) if is_repeatable => now == right,
                Some(now) => was_right || before.derived.get(name) != Some(now),
            };
            if !is_healed {
                let what = if now.is_none() {
                    "is missing"
                } else {
                    "differs from the result of a rebuild without injections"
                };
                return Judgement::Violated(format!("after a rebuild {name} {what}"));
            }
        }
    }
    if was_damaged { Judgement::Holds } else { Judgement::NotExercised }
}

fn ended(rebuild: &Operation) -> String {
    match &rebuild.outcome {
        Outcome::Failed(how) => format!("the rebuild failed ({how})"),
        other => format!("the rebuild ended otherwise: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::timeline::{doubtful, holds, silent, violated};
    use super::check;

    /// Two rebuilds without injections, damage, and a third rebuild.
    fn damaged(second: &str, damage: &str, third: &str) -> String {
        format!(
            "state 0 whole with\n digests source=1\n\
             c1 rebuild 1..2 ok\n state 3 whole with\n digests source=1 a=7 b=8\n\
             c1 rebuild 4..5 ok\n state 6 whole with\n digests source=1 {second}\n\
             state 7 whole with\n digests source=1 {damage}\n\
             c1 rebuild 8..9 ok\n state 10 whole with\n digests {third}\n"
        )
    }

    #[test]
    fn what_is_rebuilt_as_it_was_holds() {
        for damage in ["a=7", "a=7 b=0"] {
            holds(check, &damaged("a=7 b=8", damage, "source=1 a=7 b=8"));
        }
        holds(check, &damaged("a=7 b=9", "a=7 b=0", "source=1 a=7 b=10"));
        silent(check, &damaged("a=7 b=8", "a=7 b=8", "source=1 a=7 b=8"));
        silent(check, "c1 add a 0..1 ok");
    }

    #[test]
    fn what_stays_damaged_or_missing_violates() {
        violated(check, "b differs from", &damaged("a=7 b=8", "a=7 b=0", "source=1 a=7 b=0"));
        violated(check, "b is missing", &damaged("a=7 b=8", "a=7", "source=1 a=7"));
        violated(check, "b differs from", &damaged("a=7 b=9", "a=7 b=0", "source=1 a=7 b=0"));
        violated(
            check,
            "failed",
            &damaged("a=7 b=8", "a=7", "source=1 a=7").replace("8..9 ok", "8..9 failed"),
        );
    }

    #[test]
    fn a_source_that_a_rebuild_changes_violates() {
        violated(check, "changed the data file", &damaged("a=7 b=8", "a=7", "source=2 a=7 b=8"));
    }

    #[test]
    fn without_a_source_of_truth_what_was_derived_must_stay() {
        let with = |third: &str| {
            format!(
                "emptied\n{}",
                damaged("a=7 b=8", "a=7 b=8", third).replace("state 7 whole", "state 7 empty")
            )
        };
        violated(check, "replaced b", &with("source=1 a=7 b=0"));
        holds(check, &with("source=1 a=7 b=8").replace("8..9 ok", "8..9 failed"));
        // A killed rebuild that empties the data file is itself the cause.
        let killed = damaged("a=7 b=8", "a=7 b=8", "source=1 a=7 b=8").replace(
            "state 7 whole with\n digests source=1",
            "c1 rebuild 7..7 killed\n state 7 empty with\n digests source=0",
        );
        violated(check, "changed the data file", &killed);
    }

    #[test]
    fn without_an_undisturbed_rebuild_that_works_nothing_is_said() {
        doubtful(check, &damaged("a=7 b=8", "a=7", "source=1 a=7 b=8").replace("4..5 ok", "4..5 failed"));
    }
}

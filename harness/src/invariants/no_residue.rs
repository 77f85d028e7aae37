//! Of five kills at one crash point, each followed by an acknowledged operation, the last leaves no more files than the first did.
//!
//! Files are counted after each acknowledged `add` that follows a kill, less the files that the same number of adds
//! leaves in the control. Where the crash point of a kill is not known, as in `stress`, a store with fixed names may
//! leave another of them at each point: only five files more than after the first kill are a violation there, and
//! fewer leave a doubt. Typical cause: a temporary file with a new name each time that nobody ever removes.

use crate::catalogue::headline;
use crate::invariants::{Invariant, Needs};
use crate::observation::{Observation, name_some};
use crate::op::Outcome;
use crate::verdict::Judgement;

pub(super) const INVARIANT: Invariant = Invariant {
    id: "no-residue",
    statement: headline(include_str!("no_residue.rs")),
    source: include_str!("no_residue.rs"),
    needs: Needs::Nothing,
    unjudged: "no five kills in one sandbox were each followed by an acknowledged operation",
    check,
};

/// Kills that are compared.
const KILLS: usize = 5;

fn check(observation: &Observation) -> Judgement {
    if !observation.is_sequential() {
        return Judgement::Silent;
    }
    // The states after each acknowledged add that followed a kill, one a kill.
    let mut after_kills = Vec::new();
    let mut last_kill = None;
    for killed in observation.killed() {
        let followed = observation.operations.iter().find(|next| {
            next.invoked >= killed.returned && next.added().is_some() && next.outcome == Outcome::Acknowledged
        });
        let Some(followed) = followed else { continue };
        if last_kill == Some(followed.invoked) {
            continue;
        }
        last_kill = Some(followed.invoked);
        after_kills.extend(observation.states.iter().find(|state| state.at >= followed.returned));
    }
    let [first, .., last] = after_kills.as_slice() else { return Judgement::Silent };
    if after_kills.len() < KILLS {
        return Judgement::Silent;
    }
    let Some(per_add) = files_per_add(&observation.subject.quiet_file_counts) else {
        return Judgement::Inconclusive(
            "undisturbed, the number of the store's files does not grow regularly with its records, so that leftovers \
             cannot be told from it"
                .into(),
        );
    };
    // An add that was killed may have happened; it is allowed its files.
    let adds_between = observation
        .operations
        .iter()
        .filter(|add| add.added().is_some() && add.invoked >= first.at && add.returned <= last.at)
        .count();
    let allowed = first.files.len() + per_add * adds_between;
    let left = last.files.len().saturating_sub(allowed);
    if left == 0 {
        return Judgement::Holds;
    }
    let new = last.files.iter().filter(|file| !first.files.contains(file)).map(String::as_str);
    let seen = format!(
        "{} kills left {left} files more than the first of them: {}",
        after_kills.len(),
        name_some(new)
    );
    if left >= KILLS {
        Judgement::Violated(seen)
    } else {
        Judgement::Inconclusive(format!("{seen}; they may be of different crash points"))
    }
}

/// How many files each further add makes in the control, where that is always the same number.
fn files_per_add(quiet_file_counts: &[usize]) -> Option<usize> {
    let steps: Vec<Option<usize>> =
        quiet_file_counts.windows(2).map(|pair| pair[1].checked_sub(pair[0])).collect();
    let first = *steps.first()?;
    if steps.iter().all(|step| *step == first) { first } else { None }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::super::timeline::{doubtful, holds, silent, violated};
    use super::check;

    /// Six kills, each followed by an add; `files` gives the files after the k-th of them.
    fn kills(quiet: &str, files: impl Fn(usize) -> Vec<String>) -> String {
        let mut text = format!("quiet {quiet}\n");
        for k in 0..6 {
            let at = k * 100;
            writeln!(text, "c1 add x{k} {}..{} killed", at, at + 10).unwrap();
            writeln!(text, "c1 add y{k} {}..{} ok", at + 20, at + 30).unwrap();
            writeln!(text, "state {} whole with {}", at + 40, files(k).join(" ")).unwrap();
        }
        text
    }

    fn names(prefix: &str, count: usize) -> Vec<String> {
        (0..count).map(|number| format!("{prefix}{number}")).collect()
    }

    #[test]
    fn the_same_number_of_files_after_each_kill_holds_even_with_a_leftover() {
        holds(check, &kills("2 2 2", |_| names("f", 2)));
        holds(check, &kills("2 2 2", |_| names("f", 3)));
    }

    #[test]
    fn a_file_more_with_each_kill_violates_and_is_named() {
        violated(check, "tmp5", &kills("2 2 2", |k| names("tmp", k + 1)));
    }

    #[test]
    fn a_few_files_more_leave_a_doubt() {
        doubtful(check, &kills("2 2 2", |k| names("tmp", 2 + k / 3)));
    }

    #[test]
    fn files_that_belong_to_records_are_no_residue() {
        holds(check, &kills("2 3 4", |k| names("record", 2 + 2 * k)));
        violated(check, "tmp", &kills("2 3 4", |k| names("tmp", 2 + 3 * k)));
        doubtful(check, &kills("2 3 3", |k| names("record", 2 + 2 * k)));
    }

    #[test]
    fn fewer_than_five_kills_are_no_evidence() {
        silent(check, "quiet 2 2\n c1 add a 0..1 killed\n c1 add b 2..3 ok\n state 4 whole with x");
    }
}

//! Of five kills at one crash point, each followed by an acknowledged operation, the last leaves no more files than the first did.
//!
//! Files are counted after each acknowledged `add` that follows a kill, less the files that the same number of adds
//! leaves in the control, without those whose names are like what other operations make there undisturbed, and without
//! those that have one fixed name, of which there is never more than one. Where the crash point of a kill is known only about, as in `stress`, a store with fixed
//! names may leave one here and another there: a violation are three files more over five kills in a row, and fewer
//! leave a doubt. Fewer than five kills that leave nothing at all are evidence too. Typical cause: a temporary file with a new name each time that nobody ever removes.
//!
//! Example: each kill leaves a `.store.json.8f3a1c` that nobody removes: after five kills there are five.

use std::collections::BTreeSet;

use crate::catalogue::headline;
use crate::invariants::{Invariant, Needs};
use crate::observation::{Observation, State, name_shape, name_some};
use crate::op::{Operation, Outcome};
use crate::verdict::Judgement;

pub(super) const INVARIANT: Invariant = Invariant {
    id: "no-residue",
    statement: headline(include_str!("no_residue.rs")),
    source: include_str!("no_residue.rs"),
    needs: Needs::RoomForFiveKills,
    unjudged: "no five kills in one sandbox were each followed by an acknowledged operation",
    check,
};

/// Kills that are compared.
const KILLS: usize = 5;
/// So many files more over that many kills do not come of fixed names.
const FILES_MORE: usize = 3;

fn check(observation: &Observation) -> Judgement {
    if !observation.is_sequential() {
        return Judgement::Silent;
    }
    // The states after each acknowledged add that followed a kill, one a kill.
    let subject = &observation.subject;
    let is_usual = |file: &String| {
        subject.made_by_others.contains(&name_shape(file)) || subject.fixed_names.contains(file)
    };
    let without_usual = |state: &State| {
        let files = state.files.iter().filter(|file| !is_usual(file)).cloned().collect();
        State { files, ..state.clone() }
    };
    let mut after_kills: Vec<State> = Vec::new();
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
        // As late as possible before the next kill: a store may tidy up in its `list`.
        let next_kill =
            observation.killed().map(|next| next.invoked).find(|invoked| *invoked >= followed.returned);
        let is_between =
            |state: &&State| state.at >= followed.returned && next_kill.is_none_or(|kill| state.at < kill);
        after_kills.extend(observation.states.iter().rfind(is_between).map(without_usual));
    }
    if after_kills.len() < KILLS {
        // What leaves nothing at all leaves nothing more the next time.
        let quiet = observation.subject.quiet_file_counts.as_slice();
        let most = quiet.iter().max().filter(|most| quiet.iter().all(|count| count == *most));
        let left_nothing = |state: &State| most.is_some_and(|most| state.files.len() <= *most);
        let is_clean = !after_kills.is_empty() && after_kills.iter().all(left_nothing);
        return if is_clean { Judgement::Holds } else { Judgement::Silent };
    }
    let Some(per_add) = files_per_add(&observation.subject.quiet_file_counts) else {
        return Judgement::Inconclusive(
            "undisturbed, the number of the store's files does not grow regularly with its records, so that leftovers \
             cannot be told from it"
                .into(),
        );
    };
    let last_view = observation.views().into_iter().rfind(|view| observation.settled_at(view.at));
    let present: BTreeSet<&str> = match last_view {
        Some(view) => observation.counts(view).into_keys().collect(),
        None if per_add == 0 => BTreeSet::new(),
        None => {
            return Judgement::Inconclusive(
                "each record has files of its own, and which records are in could not be read".into(),
            );
        }
    };
    let left_between = |first: &State, last: &State| {
        // Whether a killed add has happened, and so has files of its own, is told by what was seen in the store.
        let is_in = |add: &Operation| add.added().is_some_and(|record| present.contains(record));
        let is_between = |add: &&Operation| is_in(add) && add.invoked >= first.at && add.returned <= last.at;
        let adds = observation.operations.iter().filter(is_between).count();
        last.files.len().saturating_sub(first.files.len() + per_add * adds)
    };
    let tell = |kills: usize, first: &State, last: &State| {
        let new = last.files.iter().filter(|file| !first.files.contains(file)).map(String::as_str);
        let left = left_between(first, last);
        format!(
            "after {kills} kills there are {left} files more than after the first of them: {}",
            name_some(new)
        )
    };
    for five in after_kills.windows(KILLS) {
        if left_between(&five[0], &five[KILLS - 1]) >= FILES_MORE {
            return Judgement::Violated(tell(KILLS, &five[0], &five[KILLS - 1]));
        }
    }
    let (first, last) = (&after_kills[0], &after_kills[after_kills.len() - 1]);
    if left_between(first, last) == 0 {
        return Judgement::Holds;
    }
    let seen = tell(after_kills.len(), first, last);
    Judgement::Inconclusive(format!("{seen}; they may be of different crash points"))
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
        // Of the killed adds every other one has happened.
        writeln!(text, "c1 list 1000..1001 ok = y0 y1 y2 y3 y4 y5 x0 x2 x4").unwrap();
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
        violated(check, "tmp4", &kills("2 2 2", |k| names("tmp", k + 1)));
    }

    #[test]
    fn a_few_files_more_leave_a_doubt() {
        doubtful(check, &kills("2 2 2", |k| names("tmp", 2 + k / 2)));
    }

    #[test]
    fn files_that_belong_to_records_are_no_residue() {
        holds(check, &kills("2 3 4", |k| names("record", 2 + k + k / 2)));
        violated(check, "tmp", &kills("2 3 4", |k| names("tmp", 2 + 3 * k)));
        doubtful(check, &kills("2 3 3", |k| names("record", 2 + 2 * k)));
    }

    #[test]
    fn files_that_other_operations_make_undisturbed_are_no_residue() {
        holds(check, &format!("others store.# \n{}", kills("2 2 2", |k| names("store.", 2 + k))));
        violated(check, "tmp", &format!("others store.# \n{}", kills("2 2 2", |k| names("tmp", 2 + k))));
    }

    #[test]
    fn fewer_than_five_kills_are_evidence_only_where_nothing_is_left() {
        let killed = "quiet 2 2\n c1 add a 0..1 killed\n c1 add b 2..3 ok\n";
        silent(check, &format!("{killed} state 4 whole with x y z"));
        holds(check, &format!("{killed} state 4 whole with x y"));
        silent(check, "quiet 2 3\n c1 add a 0..1 killed\n c1 add b 2..3 ok\n state 4 whole with x y");
    }
}

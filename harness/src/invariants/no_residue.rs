//! Of five kills at one crash point, each followed by an acknowledged operation, the last leaves no more files than the first did.
//!
//! Files are counted after each acknowledged `add` that follows a kill. A file counts if its name has a shape that the
//! control never leaves at rest; the shape of a name has each row of digits as `#` and a record's name as `{id}`. Of the
//! shapes that the control leaves, those count whose number grows by the same step with each add, less that step. A shape
//! whose number goes up and down undisturbed (caches, rotation, compaction) does not count unless it grows faster than it
//! ever does undisturbed, which leaves a doubt. Files that bear the name of a record in the store do not count; if the
//! target itself gives `add` a path with the record's name, neither do those of other records. Nor do files whose names
//! are like what other operations make undisturbed, and fixed names, of which there is never more than one. If the
//! control leaves ever new shapes, files are counted whatever their names are. Files in TMPDIR do not count: the system
//! clears that folder.
//!
//! If the crash point of a kill is known only about, as in `stress`, a store with fixed names may leave one file here and
//! another there: a violation are three files more over five kills in a row, and fewer leave a doubt. Fewer than five
//! kills that leave nothing at all are evidence too. Typical cause: a temporary file with a new name each time that nobody
//! ever removes.
//!
//! Example: each kill leaves a `.store.json.8f3a1c` that nobody removes: after five kills there are five.

use std::collections::{BTreeMap, BTreeSet};

use crate::call::is_temporary;
use crate::catalogue::headline;
use crate::evidence::Evidence;
use crate::invariants::{Invariant, Needs};
use crate::observation::{Observation, State, Subject, file_shape, name_shape, name_some};
use crate::op::{Operation, Outcome};
use crate::verdict::Judgement;

pub(super) const INVARIANT: Invariant = Invariant {
    id: "no-residue",
    statement: headline(include_str!("no_residue.rs")),
    source: include_str!("no_residue.rs"),
    needs: Needs::RoomForFiveKills,
    evidence: &[Evidence::KillPoints],
    unjudged: "no five kills in one sandbox were each followed by an acknowledged operation",
    check,
};

/// Number of kills that are compared.
const KILLS: usize = 5;
/// At least this many additional files over that many kills are not explained by fixed names.
const FILES_MORE: usize = 3;

fn check(observation: &Observation) -> Judgement {
    if !observation.is_sequential() {
        return Judgement::NotExercised;
    }
    // The states after each acknowledged add that followed a kill, one for each kill.
    let subject = &observation.subject;
    let is_usual = |file: &String| {
        is_temporary(file)
            || subject.made_by_others.contains(&name_shape(file))
            || subject.fixed_names.contains(file)
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
        // As late as possible before the next kill: a store may clean up in its `list`.
        let next_kill =
            observation.killed().map(|next| next.invoked).find(|invoked| *invoked >= followed.returned);
        let is_between =
            |state: &&State| state.at >= followed.returned && next_kill.is_none_or(|kill| state.at < kill);
        after_kills.extend(observation.states.iter().rfind(is_between).map(without_usual));
    }
    let ruler = Ruler::of(observation);
    if after_kills.len() < KILLS {
        // A store that leaves nothing after its kills leaves nothing after later ones either.
        let is_clean = !after_kills.is_empty() && after_kills.iter().all(|state| ruler.left_nothing(state));
        return if is_clean { Judgement::Holds } else { Judgement::NotExercised };
    }
    let Some(per_add) = ruler.per_add else {
        return Judgement::Inconclusive(
            "undisturbed, the number of the store's files does not grow regularly with its records and their names \
             differ each time, so that leftovers cannot be told from it"
                .into(),
        );
    };
    if ruler.needs_records && ruler.present.is_none() {
        return Judgement::Inconclusive(
            "each record has files of its own, and which records are in could not be read".into(),
        );
    }
    let left_between = |first: &State, last: &State| {
        // The records in the store show which killed adds took effect, and so have files of their own.
        let adds = ruler.adds_between(first, last);
        ruler.count(last).saturating_sub(ruler.count(first) + per_add * adds)
    };
    let tell = |kills: usize, first: &State, last: &State| {
        let counted = last.files.iter().filter(|file| ruler.counts(file));
        let new = counted.filter(|file| !first.files.contains(file)).map(String::as_str);
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
        return match ruler.grows_faster(first, last) {
            Some(shape) => Judgement::Inconclusive(format!(
                "the number of files like {shape} varies without injections and grows faster after kills"
            )),
            None => Judgement::Holds,
        };
    }
    let seen = tell(after_kills.len(), first, last);
    Judgement::Inconclusive(format!("{seen}; they may be of different crash points"))
}

/// Decides which files are counted, and how many of them each add may make.
struct Ruler<'a> {
    observation: &'a Observation,
    /// Whether shapes are compared; otherwise all files count.
    by_shape: bool,
    /// Number of counted files that each further add makes; `None` if it varies and there are no shapes to compare.
    per_add: Option<usize>,
    /// Whether it matters which records are in.
    needs_records: bool,
    /// The records in the last view of the store.
    present: Option<BTreeSet<&'a str>>,
}

impl<'a> Ruler<'a> {
    fn of(observation: &'a Observation) -> Self {
        let subject = &observation.subject;
        let by_shape = subject.knows_shapes();
        let last_view = observation.views().into_iter().rfind(|view| observation.settled_at(view.at));
        let present = last_view.map(|view| observation.counts(view).into_keys().collect());
        let per_add = match by_shape {
            true => {
                let shapes: BTreeSet<&String> =
                    subject.baseline_shapes.iter().flat_map(BTreeMap::keys).collect();
                let plain = shapes.iter().filter(|shape| !shape.contains(RECORD));
                Some(plain.filter_map(|shape| files_per_add(&counts_of(subject, shape))).sum())
            }
            false => files_per_add(&subject.baseline_file_counts),
        };
        let has_records =
            || subject.baseline_shapes.iter().any(|shapes| shapes.keys().any(|one| one.contains(RECORD)));
        let needs_records =
            per_add.is_some_and(|files| files > 0) || by_shape && !subject.paths_hold_ids && has_records();
        Self { observation, by_shape, per_add, needs_records, present }
    }

    fn shape(&self, file: &str) -> String {
        file_shape(file, self.observation.operations.iter().filter_map(Operation::added))
    }

    fn is_present(&self, record: &str) -> bool {
        self.present.as_ref().is_some_and(|present| present.contains(record))
    }

    /// Returns whether a file counts.
    fn counts(&self, file: &str) -> bool {
        let subject = &self.observation.subject;
        let shape = self.shape(file);
        if !self.by_shape || !subject.has_shape(&shape) {
            return true;
        }
        match shape.contains(RECORD) {
            true => {
                let mut records = self.observation.operations.iter().filter_map(Operation::added);
                let is_of_present = records.any(|record| file.contains(record) && self.is_present(record));
                !subject.paths_hold_ids && !is_of_present
            }
            false => files_per_add(&counts_of(subject, &shape)).is_some(),
        }
    }

    fn count(&self, state: &State) -> usize {
        state.files.iter().filter(|file| self.counts(file)).count()
    }

    /// Returns how many adds between two states are in. What was seen in the store shows whether a killed add happened,
    /// and so may have files of its own.
    fn adds_between(&self, first: &State, last: &State) -> usize {
        let is_in = |add: &Operation| add.added().is_some_and(|record| self.is_present(record));
        let is_between = |add: &&Operation| is_in(add) && add.invoked >= first.at && add.returned <= last.at;
        self.observation.operations.iter().filter(is_between).count()
    }

    /// Returns a shape whose number varies without injections, but never grows as fast as here.
    fn grows_faster(&self, first: &State, last: &State) -> Option<String> {
        let subject = &self.observation.subject;
        let of =
            |state: &State, shape: &str| state.files.iter().filter(|file| self.shape(file) == shape).count();
        let shapes: BTreeSet<String> = last.files.iter().map(|file| self.shape(file)).collect();
        let irregular = shapes.into_iter().filter(|shape| {
            self.by_shape && subject.has_shape(shape) && files_per_add(&counts_of(subject, shape)).is_none()
        });
        let adds = self.adds_between(first, last);
        irregular.filter(|shape| !shape.contains(RECORD)).find(|shape| {
            let counts = counts_of(subject, shape);
            let most = counts.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or(0);
            of(last, shape) > of(first, shape) + most * adds
        })
    }

    /// Returns whether a state has no more files than without injections.
    fn left_nothing(&self, state: &State) -> bool {
        let subject = &self.observation.subject;
        let quiet = subject.baseline_file_counts.as_slice();
        let most = quiet.iter().max().filter(|most| quiet.iter().all(|count| count == *most));
        if most.is_some_and(|most| state.files.len() <= *most) {
            return true;
        }
        let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
        for file in &state.files {
            *numbers.entry(self.shape(file)).or_default() += 1;
        }
        let is_usual = |shape: &str, number: usize| {
            let counts = counts_of(subject, shape);
            // Numbered files, one or more per record, are not compared here.
            number <= counts.iter().copied().max().unwrap_or(0)
                && files_per_add(&counts).is_none_or(|step| step == 0)
        };
        let is_of_present = |file: &String| !self.counts(file);
        self.by_shape
            && numbers.iter().all(|(shape, number)| match shape.contains(RECORD) {
                true => {
                    let mut own = state.files.iter().filter(|file| self.shape(file) == *shape);
                    subject.has_shape(shape) && own.all(is_of_present)
                }
                false => is_usual(shape, *number),
            })
    }
}

/// Placeholder for a record in the shape of a name.
const RECORD: &str = "{id}";

/// Returns the number of files of a shape after each add of the control.
fn counts_of(subject: &Subject, shape: &str) -> Vec<usize> {
    subject.baseline_shapes.iter().map(|shapes| shapes.get(shape).copied().unwrap_or(0)).collect()
}

/// Returns the number of files that each further add makes in the control, if it is constant.
fn files_per_add(counts: &[usize]) -> Option<usize> {
    let steps: Vec<Option<usize>> = counts.windows(2).map(|pair| pair[1].checked_sub(pair[0])).collect();
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
        // Every other killed add happened.
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

    /// A cache, a rotated log or a compaction made the number of files irregular, and the invariant was always
    /// inconclusive.
    #[test]
    fn files_that_come_and_go_undisturbed_are_no_residue() {
        let shapes =
            "shapes db=1 log.#=1\n shapes db=1 log.#=2\n shapes db=1 log.#=1\n shapes db=1 log.#=2\n";
        let told = |files: &dyn Fn(usize) -> Vec<String>| format!("{shapes}{}", kills("2 3 2 3", files));
        let rotated = |k: usize| [names("db", 1), names("log.", 1 + k % 2)].concat();
        holds(check, &told(&rotated).replace("db0", "db"));
        let left = |k: usize| [rotated(k), names("tmp", k + 1)].concat();
        violated(check, "tmp4", &told(&left).replace("db0", "db"));
        let hoarded = |k: usize| [names("db", 1), names("log.", 1 + 3 * k)].concat();
        doubtful(check, &told(&hoarded).replace("db0", "db"));
        doubtful(check, &kills("2 3 2 3", rotated));
    }

    /// Each killed add left its lock file `{dir}/{id}.lock`, named by the adapter, and the store was blamed for them.
    #[test]
    fn files_that_the_target_names_by_records_are_no_residue() {
        let shapes = "shapes db=1 {id}.lock=1\n shapes db=1 {id}.lock=2\n shapes db=1 {id}.lock=3\n";
        let locks = |k: usize| (0..=k).flat_map(|k| [format!("x{k}.lock"), format!("y{k}.lock")]).collect();
        let killed = format!("{shapes}{}", kills("2 3 4", locks));
        holds(check, &format!("ids-in-paths\n{killed}"));
        // The file of a record that is not in is a leftover, unless the target named it.
        let all_in = killed.replace("x0 x2 x4", "x0 x1 x2 x3 x4 x5");
        holds(check, &all_in);
        violated(check, "x3.lock", &killed.replace(" x0 x2 x4", ""));
    }

    #[test]
    fn a_numbered_file_for_each_record_is_no_residue() {
        let shapes = "shapes d/#=1\n shapes d/#=2\n shapes d/#=3\n";
        holds(check, &format!("{shapes}{}", kills("1 2 3", |k| names("d/", 2 + k + k / 2))));
        violated(check, "d/2", &format!("{shapes}{}", kills("1 2 3", |k| names("d/", 2 + 3 * k))));
    }

    #[test]
    fn few_kills_that_leave_usual_shapes_are_evidence() {
        let shapes = "shapes log.#=1\n shapes log.#=2\n shapes log.#=1\n quiet 1 2 1\n";
        let killed = format!("{shapes} c1 add a 0..1 killed\n c1 add b 2..3 ok\n");
        holds(check, &format!("{killed} state 4 whole with log.4 log.5"));
        silent(check, &format!("{killed} state 4 whole with log.4 log.5 log.6"));
        silent(check, &format!("{killed} state 4 whole with log.4 tmp"));
    }

    #[test]
    fn fewer_than_five_kills_are_evidence_only_where_nothing_is_left() {
        let killed = "quiet 2 2\n c1 add a 0..1 killed\n c1 add b 2..3 ok\n";
        silent(check, &format!("{killed} state 4 whole with x y z"));
        holds(check, &format!("{killed} state 4 whole with x y"));
        silent(check, "quiet 2 3\n c1 add a 0..1 killed\n c1 add b 2..3 ok\n state 4 whole with x y");
    }
}

//! Normalizes what differs from run to run: process ids become `{pid}`, random parts of file names `{random}`.

use std::collections::BTreeSet;

use crate::call::{Argument, Call, Effect};
use crate::op::record_names_in;

/// Returns the names of the files and directories that these calls made.
pub fn made<'a>(calls: impl IntoIterator<Item = &'a Call>) -> BTreeSet<String> {
    let made = calls.into_iter().filter_map(|call| match &call.effect {
        Some(Effect::Created { path, .. } | Effect::FolderMade { path, .. }) => Some(path.clone()),
        _ => None,
    });
    made.collect()
}

/// Masks these process ids in the text, and the random parts of the names in it that were `made`, if another run made a
/// similar name, a `usual` one.
pub fn masked(text: &str, pids: &BTreeSet<i32>, made: &BTreeSet<String>, usual: &BTreeSet<String>) -> String {
    let mut masked = text.to_owned();
    // Files in a directory come before the directory, whose name is part of theirs.
    for path in made.iter().rev() {
        // A name that another run made too is fixed.
        if usual.contains(path) {
            continue;
        }
        let without_pid = without_pids(path, pids);
        let is_random = |usual: &String| random_part(&with_pid_of(usual, &without_pid), &without_pid);
        // A name that differs only in its process id is reported with that masked.
        if let Some(known) = usual.iter().find_map(is_random) {
            masked = masked.replace(path, &known);
        }
    }
    without_pids(&masked, pids)
}

/// Masks these process ids in the text.
pub fn without_pids(text: &str, pids: &BTreeSet<i32>) -> String {
    pids.iter().fold(text.to_owned(), |text, pid| without_pid(&text, &pid.to_string()))
}

/// Masks the process ids in a name that another run made, at the places where this run's name has them.
fn with_pid_of(usual: &str, masked: &str) -> String {
    let mut usual = usual.to_owned();
    for (at, mask) in masked.match_indices("{pid}") {
        let digits = usual.get(at..).map_or(0, |rest| rest.bytes().take_while(u8::is_ascii_digit).count());
        if digits > 0 && usual.get(..at) == masked.get(..at) {
            usual.replace_range(at..at + digits, mask);
        }
    }
    usual
}

/// Masks the arguments of the calls for display; their effects stay.
pub fn masked_calls(calls: &[Call], pids: &BTreeSet<i32>, usual: &BTreeSet<String>) -> Vec<Call> {
    let names = made(calls);
    let mask = |text: &mut String| *text = masked(text, pids, &names, usual);
    let mut calls = calls.to_vec();
    for argument in calls.iter_mut().flat_map(|call| &mut call.arguments) {
        if let Argument::Path(text) | Argument::Descriptor(_, text) = argument {
            mask(text);
        }
    }
    calls
}

/// Masks the random parts of the name if it is similar to one that another run made, component by component.
fn random_part(usual: &str, path: &str) -> Option<String> {
    // Records differ from run to run too, and are never masked.
    let ((usual, _), (path, records)) = (without_records(usual), without_records(path));
    if usual == path || usual.split('/').count() != path.split('/').count() {
        return None;
    }
    let parts = usual.split('/').zip(path.split('/'));
    let masked: Option<Vec<String>> = parts
        .map(|(usual, part)| if usual == part { Some(part.to_owned()) } else { random_name(usual, part) })
        .collect();
    let mut pieces = masked?.join("/").split(RECORD).map(ToOwned::to_owned).collect::<Vec<_>>().into_iter();
    let first = pieces.next()?;
    Some(pieces.zip(records).fold(first, |text, (piece, record)| text + &record + &piece))
}

/// Placeholder for a record name while names are compared: no name contains it.
const RECORD: char = '\0';

/// Replaces each record name in the text by a character, and returns these names too.
fn without_records(text: &str) -> (String, Vec<String>) {
    let (mut without, mut records, mut done) = (String::new(), Vec::new(), 0);
    for place in record_names_in(text) {
        without.push_str(&text[done..place.start]);
        without.push(RECORD);
        records.push(text[place.clone()].to_owned());
        done = place.end;
    }
    (without + &text[done..], records)
}

/// Masks the random part of one path component: names of the same length that differ in one stretch. The stretch is
/// extended over all adjacent letters, digits and `_`, because equal characters at its ends are coincidence.
fn random_name(usual: &str, path: &str) -> Option<String> {
    if usual.len() != path.len() {
        return random_number(usual, path);
    }
    let chars: Vec<char> = path.chars().collect();
    let common = usual.chars().zip(path.chars()).take_while(|(one, other)| one == other).count();
    let behind = usual.chars().rev().zip(path.chars().rev()).take_while(|(one, other)| one == other).count();
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (mut from, mut to) = (common, chars.len().checked_sub(behind)?);
    // A name with a record instead of a letter is not another try of the same name.
    if from >= to || chars[from..to].contains(&RECORD) {
        return None;
    }
    while from > 0 && is_part(chars[from - 1]) {
        from -= 1;
    }
    while to < chars.len() && is_part(chars[to]) {
        to += 1;
    }
    let (head, tail): (String, String) = (chars[..from].iter().collect(), chars[to..].iter().collect());
    Some(format!("{head}{{random}}{tail}"))
}

/// Returns whether two names may be the same name in two runs: equal except for random parts, component by component. A
/// random part is a number, such as a process id, or a stretch of letters and digits too long to be a chosen word.
pub fn is_like(one: &str, other: &str) -> bool {
    let ((one, records), (other, others)) = (without_records(one), without_records(other));
    records == others
        && one.split('/').count() == other.split('/').count()
        && one.split('/').zip(other.split('/')).all(|(one, other)| one == other || is_like_name(one, other))
}

fn is_like_name(one: &str, other: &str) -> bool {
    /// Length of the random part of `mkstemp`.
    const LETTERS_MIN: usize = 6;
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let is_part = |c: &&char| c.is_ascii_alphanumeric() || **c == '_';
    let common = one.iter().zip(&other).take_while(|(one, other)| one == other).count();
    let least = one.len().min(other.len());
    let behind = one.iter().rev().zip(other.iter().rev()).take_while(|(one, other)| one == other).count();
    let behind = behind.min(least - common);
    let reach = |is_in: &dyn Fn(&&char) -> bool| {
        let before = one[..common].iter().rev().take_while(is_in).count();
        let after = one[one.len() - behind..].iter().take_while(is_in).count();
        let stretch = |name: &[char]| name[common - before..name.len() - behind + after].to_vec();
        [stretch(&one), stretch(&other)]
    };
    let is_number = |stretch: &Vec<char>| !stretch.is_empty() && stretch.iter().all(char::is_ascii_digit);
    let [part, _] = reach(&is_part);
    let is_random = one.len() == other.len() && part.len() >= LETTERS_MIN && part.iter().all(|c| is_part(&c));
    is_random || reach(&|c| c.is_ascii_digit()).iter().all(is_number)
}

/// The same if the random part is a number, which may differ in length: it has too many digits to be a counter.
fn random_number(usual: &str, path: &str) -> Option<String> {
    const DIGITS_MIN: usize = 6;
    let common = usual.bytes().zip(path.bytes()).take_while(|(one, other)| one == other).count();
    let is_digit = |text: &str, at: usize| text.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
    let from = (0..=common).rev().take_while(|at| *at == common || is_digit(path, *at)).last()?;
    let digits = |text: &str| (from..).take_while(|at| is_digit(text, *at)).count();
    let (one, other) = (digits(usual), digits(path));
    let is_like = one.min(other) >= DIGITS_MIN && usual[from + one..] == path[from + other..];
    is_like.then(|| format!("{}{{random}}{}", &path[..from], &path[from + other..]))
}

/// Returns the positions of a number with no digit beside it.
fn alone(text: &str, number: &str) -> impl Iterator<Item = usize> {
    let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    text.match_indices(number).map(|(at, _)| at).filter(move |at| {
        let (before, after) = (&text[..*at], &text[at + number.len()..]);
        !is_digit(before.chars().next_back()) && !is_digit(after.chars().next())
    })
}

/// Returns whether a number is in a text, and not as a part of another number.
pub fn has_number(text: &str, number: &str) -> bool {
    alone(text, number).next().is_some()
}

/// Masks a process id, unless the number counts something.
fn without_pid(text: &str, pid: &str) -> String {
    let mut masked = String::new();
    let mut done = 0;
    for at in alone(text, pid) {
        let behind = at + pid.len();
        if !is_count(&text[..at], &text[behind..]) {
            masked.push_str(&text[done..at]);
            masked.push_str("{pid}");
            done = behind;
        }
    }
    masked + &text[done..]
}

/// Words before a number that counts something.
const COUNTED: [&str; 7] = ["line ", "column ", "char ", "offset ", "index ", "call ", "execution "];

/// Returns whether a number between these texts counts something, such as the line at which a program failed, or bytes.
fn is_count(before: &str, after: &str) -> bool {
    // As in `(store.js:337:9)`, and not as in `(pid:337)`.
    let place = before.strip_suffix(':').map(|file| file.rsplit([' ', '(']).next().unwrap_or(file));
    let is_line = place.is_some_and(|file| file.contains('.')) && after.starts_with([':', ')']);
    is_line || COUNTED.iter().any(|word| before.ends_with(word)) || after.starts_with(" bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_id_is_masked_where_it_is_no_part_of_another_number() {
        assert_eq!(without_pid("db.12.tmp, 312, 12", "12"), "db.{pid}.tmp, 312, {pid}");
        assert_eq!(without_pid("1212", "12"), "1212");
        assert!(has_number("db.12.tmp", "12") && !has_number("312, 1212", "12"));
    }

    /// The process id of one process equalled the line number in another's error message, so the line number was
    /// masked: two runs reported the same failure differently.
    #[test]
    fn a_line_of_a_program_and_a_count_of_bytes_are_no_process_id() {
        for told in [
            "decoder.py, line 337, in decode: line 1 column 337 (char 337)",
            "at main (store.js:337:9)",
            "broken at offset 337, from index 337",
            "in execution 337, before call 337, write(4, 337 bytes)",
        ] {
            assert_eq!(without_pid(told, "337"), told);
        }
        let named = without_pid("locked by 337 (pid:337), see db:337.tmp", "337");
        assert_eq!(named, "locked by {pid} (pid:{pid}), see db:{pid}.tmp");
    }

    /// Go and write-file-atomic use decimal numbers: the temporary names of each run were taken for one shared name.
    #[test]
    fn a_random_number_may_be_of_another_length_and_a_short_one_counts_something() {
        assert_eq!(random_part("db.868363106", "db.2924449338").as_deref(), Some("db.{random}"));
        assert_eq!(random_part("db.201971890.tmp", "db.2019718904.tmp").as_deref(), Some("db.{random}.tmp"));
        assert_eq!(random_part("db.9", "db.10"), None);
        assert_eq!(random_part("db.868363106.a", "db.2924449338.b"), None);
    }

    #[test]
    fn names_are_alike_but_for_numbers_and_long_stretches() {
        for (one, other) in [
            ("proj-aB3xQ9/db", "proj-Zq9pL2/db"),
            ("$TMPDIR/tmpu4x0fpur", "$TMPDIR/tmpluc3jldc"),
            ("lock.99/db", "lock.10234/db"),
            ("r000002.aB3xQ9", "r000002.Zq9pL2"),
        ] {
            assert!(is_like(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("db.json", "db.lock"),
            ("r000002", "r000003"),
            ("a/b", "a"),
            ("db.tmp", "db.tmp2"),
            ("old-store/db", "store-old/x"),
        ] {
            assert!(!is_like(one, other), "{one} {other}");
        }
    }

    /// `{random}` replaced the records that two clients had added, each in its own file.
    #[test]
    fn names_of_records_are_never_masked() {
        assert_eq!(random_part("records/r000002.json", "records/r000003.json"), None);
        let beside = random_part("all/r000002.aB3x.tmp", "all/r000003.Zq9p.tmp");
        assert_eq!(beside.as_deref(), Some("all/r000003.{random}.tmp"));
        assert_eq!(random_part("aB3x_r000002", "Zq9p_r000002").as_deref(), Some("{random}r000002"));
        assert_eq!(random_part("r000002.tmp", "Qx12345.tmp"), None);
    }

    /// A time stamp beside a process id was not masked, so one finding had a different text and case in each run.
    #[test]
    fn a_time_beside_a_process_id_is_masked() {
        let names = |name: &str| BTreeSet::from([name.to_owned()]);
        let mask = |made: &str, usual: &str, pid: i32| {
            masked(&format!("open({made})"), &BTreeSet::from([pid]), &names(made), &names(usual))
        };
        let masked = mask("db.4711.1732812399123", "db.812.1732812345678", 4711);
        assert_eq!(masked, "open(db.{pid}.{random})");
        assert_eq!(mask("db.4711.tmp", "db.812.tmp", 4711), "open(db.{pid}.tmp)");
    }

    /// A directory that a child made under a random name kept that name in every path through it.
    #[test]
    fn the_random_name_of_a_folder_is_masked_in_paths() {
        let names = |names: [&str; 2]| names.map(ToOwned::to_owned).into();
        let (made, usual) = (names(["proj-aB3x", "proj-aB3x/q7Wm"]), names(["proj-Zq9p", "proj-Zq9p/k2Lc"]));
        let masked = masked("rename(proj-aB3x/q7Wm, proj-aB3x/db)", &BTreeSet::new(), &made, &usual);
        assert_eq!(masked, "rename(proj-{random}/{random}, proj-{random}/db)");
    }

    #[test]
    fn a_name_that_other_runs_have_too_is_no_random_one() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        let (made, usual) = (names(&["pending.data"]), names(&["pending.data", "backlog.data"]));
        assert_eq!(masked("write(pending.data)", &BTreeSet::new(), &made, &usual), "write(pending.data)");
    }

    #[test]
    fn the_random_part_of_a_name_is_masked_and_an_equal_name_stays() {
        assert_eq!(random_part(".tmpAb12Cd", ".tmpXyZ9Qw").as_deref(), Some(".{random}"));
        assert_eq!(random_part("db.1f-2a.tmp", "db.9c-3b.tmp").as_deref(), Some("db.{random}.tmp"));
        assert_eq!(random_part("db.json", "db.json"), None);
        assert_eq!(random_part("a.tmp", "abc.tmp"), None);
        assert_eq!(random_part("tmp/one.json", "tmp.two/json"), None);
    }
}

//! Computes the signature of a trace: one line for each call, equal in all runs that behave alike.

use std::collections::{BTreeMap, BTreeSet};

use crate::call::{Argument, Call, Effect, Errno};
use crate::normalize::without_pids;

/// Describes each call: its process, name, operands and result, without what differs from run to run, such as process
/// ids, times and the names of temporary files.
pub fn steps_of(calls: &[Call], pids: &BTreeSet<i32>) -> Vec<String> {
    steps_of_all([(calls, pids)]).pop().unwrap_or_default()
}

/// Does the same for several traces in order: a later one may look at what an earlier one made.
pub fn steps_of_all<'a>(
    traces: impl IntoIterator<Item = (&'a [Call], &'a BTreeSet<i32>)>,
) -> Vec<Vec<String>> {
    let mut names = Names::default();
    (1..).zip(traces).map(|(place, (calls, pids))| names.steps(place, calls, pids)).collect()
}

/// Names that differ from run to run.
#[derive(Default)]
struct Names {
    /// Names that were made, with their replacements.
    made: BTreeMap<String, String>,
    /// Ids of all processes so far.
    pids: BTreeSet<i32>,
}

impl Names {
    fn steps(&mut self, place: usize, calls: &[Call], pids: &BTreeSet<i32>) -> Vec<String> {
        self.pids.extend(pids);
        let processes = processes(calls);
        let process = |call: &Call| processes.get(&(call.client, call.process)).copied().unwrap_or(0);
        let mut new: BTreeMap<String, String> = BTreeMap::new();
        let mut counts: BTreeMap<(u32, usize), usize> = BTreeMap::new();
        for (at, call) in calls.iter().enumerate() {
            let Some(path) = newly_named(calls, at) else { continue };
            if !new.contains_key(path) {
                // Numbered per process, because it is random which of several processes comes first.
                let count = counts.entry((call.client, process(call))).or_insert(0);
                *count += 1;
                new.insert(path.clone(), format!("{}.{} {count}", call.client, process(call)));
            }
        }
        self.made.extend(new.iter().map(|(path, turn)| (path.clone(), format!("{{new {turn}}}"))));
        let steps = calls.iter().map(|call| {
            let operands: Vec<String> = call.arguments.iter().filter_map(|one| self.named(one)).collect();
            let result = match &call.result {
                Some(Ok(_)) => String::new(),
                Some(Err(Errno(number))) => format!(" = error {number}"),
                None => " = nothing".to_owned(),
            };
            format!("{}.{} {}({}){result}", call.client, process(call), call.name, operands.join(", "))
        });
        let steps = steps.collect();
        self.made.extend(new.into_iter().map(|(path, turn)| (path, format!("{{left {place}, {turn}}}"))));
        steps
    }

    /// Replaces the name of a file that was made by its number. Process numbers are omitted: they count over all
    /// clients, and it is random which of two clients makes its first process earlier.
    fn named(&self, argument: &Argument) -> Option<String> {
        match argument {
            Argument::Path(name) | Argument::Descriptor(_, name) => Some(self.path(name)),
            Argument::Flags(text) if is_process(text) => Some("process".to_owned()),
            Argument::Flags(text) => Some(text.clone()),
            Argument::Bytes(_) | Argument::Number(_) => None,
        }
    }

    /// Returns a path without process ids and times; a part that was made is replaced by its number.
    fn path(&self, path: &str) -> String {
        let plain = |text: &str| without_times(&without_pids(text, &self.pids));
        // A suffix of the name says what became of the file.
        let name = GONE.iter().fold(path, |name, gone| name.split(gone).next().unwrap_or(name));
        let ends = [name.len()].into_iter().chain(name.rmatch_indices('/').map(|(at, _)| at));
        let known = ends.into_iter().find_map(|end| Some((self.made.get(&name[..end])?, end)));
        match known {
            Some((turn, end)) => format!("{turn}{}", plain(&path[end..])),
            None => plain(path),
        }
    }
}

/// Suffixes that the tracer adds to the name of a file that no longer has it.
const GONE: [&str; 2] = [" (deleted)", " (replaced)"];

/// Numbers the processes of each client in order of appearance.
fn processes(calls: &[Call]) -> BTreeMap<(u32, u32), usize> {
    let mut processes: BTreeMap<(u32, u32), usize> = BTreeMap::new();
    for call in calls {
        let count = processes.keys().filter(|(client, _)| *client == call.client).count();
        processes.entry((call.client, call.process)).or_insert(count + 1);
    }
    processes
}

/// Returns the name that a call gave, or was to give, to something new: such a name may be random.
fn newly_named(calls: &[Call], at: usize) -> Option<&String> {
    let call = &calls[at];
    match &call.effect {
        Some(
            Effect::Created { path, .. }
            | Effect::FolderMade { path, .. }
            | Effect::SymbolicLinked { path, .. },
        ) => Some(path),
        Some(Effect::Linked { to, .. }) => Some(to),
        // A name that its client has not looked up before, such as that of a backup copy.
        Some(Effect::Renamed { to, .. }) => {
            let is_it = |argument: &Argument| matches!(argument, Argument::Path(path) if path == to);
            let own = calls[..at].iter().filter(|earlier| earlier.client == call.client);
            let is_new = !own.into_iter().any(|earlier| earlier.arguments.iter().any(is_it));
            is_new.then_some(to)
        }
        _ => to_be_made(call),
    }
}

/// Replaces numbers with so many digits that they are a time and not a record.
fn without_times(text: &str) -> String {
    const DIGITS_MIN: usize = 8;
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let digits = rest[at..].bytes().take_while(u8::is_ascii_digit).count();
        let number = &rest[at..at + digits];
        plain.push_str(&rest[..at]);
        plain.push_str(if digits < DIGITS_MIN { number } else { "{number}" });
        rest = &rest[at + digits..];
    }
    plain + rest
}

/// Returns the name for an exclusive creation that failed because the folder did not exist: it is as random as the one
/// that is taken once the folder is made.
fn to_be_made(call: &Call) -> Option<&String> {
    let is_exclusive =
        |argument: &Argument| matches!(argument, Argument::Flags(flags) if flags.contains("O_EXCL"));
    let has_no_folder = call.result == Some(Err(Errno(libc::ENOENT)));
    let path = call.arguments.iter().find_map(|argument| match argument {
        Argument::Path(path) => Some(path),
        _ => None,
    });
    path.filter(|_| has_no_folder && call.arguments.iter().any(is_exclusive))
}

fn is_process(operand: &str) -> bool {
    operand.strip_prefix("process ").is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// git takes a random name for an object, and makes its folder if there is none: replays diverged by that name.
    #[test]
    fn a_name_that_could_not_be_taken_for_want_of_its_folder_is_as_random_as_the_next() {
        let steps = |name: &str, errno: i32, flags: &str| {
            let mut calls = crate::call::sketch("1 stat db");
            calls[0].result = Some(Err(Errno(errno)));
            calls[0].arguments = vec![Argument::Path(name.into()), Argument::Flags(flags.into())];
            steps_of(&calls, &BTreeSet::new())
        };
        let exclusive = "O_RDWR|O_CREAT|O_EXCL";
        assert_eq!(steps("03/tmp_A", libc::ENOENT, exclusive), steps("03/tmp_B", libc::ENOENT, exclusive));
        assert_ne!(steps("03/tmp_A", libc::EEXIST, exclusive), steps("03/tmp_B", libc::EEXIST, exclusive));
        assert_ne!(steps("03/tmp_A", libc::ENOENT, "O_RDWR"), steps("03/tmp_B", libc::ENOENT, "O_RDWR"));
    }

    /// Two Node stores that each start a process: the replay of a finding diverged when the other one was faster.
    #[test]
    fn a_process_is_not_told_by_its_number_among_those_of_all_clients() {
        let named = |text: &str| Names::default().named(&Argument::Flags(text.into()));
        assert_eq!(named("process 2"), named("process 4"));
        assert_eq!(Names::default().path("process.json"), "process.json");
    }

    /// Returns the steps of calls in which `NAME` is a random name and `PID` a process id.
    fn with_chance(text: &str, name: &str, pid: i32) -> Vec<Vec<String>> {
        let traces = text
            .split("then")
            .map(|text| crate::call::sketch(&text.replace("NAME", name).replace("PID", &pid.to_string())));
        let (traces, pids): (Vec<Vec<Call>>, _) = (traces.collect(), BTreeSet::from([pid]));
        steps_of_all(traces.iter().map(|calls| (calls.as_slice(), &pids)))
    }

    /// Replays diverged because of a folder with a random name, a process id in a name, a file that an earlier
    /// operation had left under its random name, and a backup copy named by the time.
    #[test]
    fn names_of_chance_are_no_difference() {
        for text in [
            "1 mkdir proj-NAME\n 1 stat proj-NAME/db\n 1 create proj-NAME/db 1",
            "1 stat lock-PID\n 1 open owner-PID/db 1",
            "1 create tmpNAME 1 then 1 stat tmpNAME\n 1 unlink tmpNAME",
            "1 create $TMPDIR/NAME 1\n 1 rename $TMPDIR/NAME db",
            "1 stat db\n 1 rename db db.2026-NAME.bak",
            "1 stat db.17328123PID.bak",
        ] {
            let (one, other) = (with_chance(text, "aB3x", 4711), with_chance(text, "Zq9p", 4822));
            assert_eq!(one, other, "{text}");
        }
        for (one, other) in [
            ("1 stat db", "1 stat lock"),
            ("1 stat r000001", "1 stat r000002"),
            ("1 mkdir a\n 1 stat a/db", "1 mkdir a\n 1 stat a/lock"),
            ("1 create a 1\n 1 create b 2 then 1 stat a", "1 create a 1\n 1 create b 2 then 1 stat b"),
            ("1 stat db\n 1 rename tmp db", "1 stat db\n 1 rename tmp lock"),
        ] {
            assert_ne!(with_chance(one, "", 1), with_chance(other, "", 1), "{one}");
        }
    }
}

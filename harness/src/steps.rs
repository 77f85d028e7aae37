//! What each call of a trace was, as words that are the same in every run that goes the same way.

use std::collections::BTreeMap;

use crate::call::{Argument, Call, Effect, Errno};

/// What each call was: whose, which, on what, and with which result, but for what differs from run to run, such as
/// process ids, times and the names of temporary files.
pub fn steps_of(calls: &[Call]) -> Vec<String> {
    let mut made: BTreeMap<&str, usize> = BTreeMap::new();
    for call in calls {
        let path = match &call.effect {
            Some(Effect::Created { path, .. } | Effect::FolderMade { path, .. }) => Some(path),
            Some(Effect::Linked { to, .. }) => Some(to),
            _ => to_be_made(call),
        };
        if let Some(path) = path {
            let next = made.len() + 1;
            made.entry(path).or_insert(next);
        }
    }
    let mut clients: BTreeMap<(u32, u32), usize> = BTreeMap::new();
    calls
        .iter()
        .map(|call| {
            let count = clients.keys().filter(|(client, _)| *client == call.client).count();
            let process = *clients.entry((call.client, call.process)).or_insert(count + 1);
            let operands: Vec<String> = call.operands().map(|operand| named(operand, &made)).collect();
            let result = match &call.result {
                Some(Ok(_)) => String::new(),
                Some(Err(Errno(number))) => format!(" = error {number}"),
                None => " = nothing".to_owned(),
            };
            format!("{}.{process} {}({}){result}", call.client, call.name, operands.join(", "))
        })
        .collect()
}

/// The name that a file was to get that nobody may have made before, in a folder that was not there: it is as random as
/// the one that is taken once the folder is made.
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

/// A file that was made during the trace goes by its turn, whatever its name. Processes are numbered as they come, of all
/// clients together: which of two clients makes its first one earlier is chance.
fn named(operand: &str, made: &BTreeMap<&str, usize>) -> String {
    match made.get(operand) {
        Some(turn) => format!("{{new {turn}}}"),
        None if is_process(operand) => "process".to_owned(),
        None => operand.to_owned(),
    }
}

fn is_process(operand: &str) -> bool {
    operand.strip_prefix("process ").is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// git takes a random name for an object, and makes the folder for it where there is none: replays diverged by that name.
    #[test]
    fn a_name_that_could_not_be_taken_for_want_of_its_folder_is_as_random_as_the_next() {
        let steps = |name: &str, errno: i32, flags: &str| {
            let mut calls = crate::call::sketch("1 stat db");
            calls[0].result = Some(Err(Errno(errno)));
            calls[0].arguments = vec![Argument::Path(name.into()), Argument::Flags(flags.into())];
            steps_of(&calls)
        };
        let exclusive = "O_RDWR|O_CREAT|O_EXCL";
        assert_eq!(steps("03/tmp_A", libc::ENOENT, exclusive), steps("03/tmp_B", libc::ENOENT, exclusive));
        assert_ne!(steps("03/tmp_A", libc::EEXIST, exclusive), steps("03/tmp_B", libc::EEXIST, exclusive));
        assert_ne!(steps("03/tmp_A", libc::ENOENT, "O_RDWR"), steps("03/tmp_B", libc::ENOENT, "O_RDWR"));
    }

    /// Two Node stores that each start a process: the replay of a finding diverged where the other one was quicker.
    #[test]
    fn a_process_is_not_told_by_its_number_among_those_of_all_clients() {
        let none = BTreeMap::new();
        assert_eq!(named("process 2", &none), named("process 4", &none));
        assert_eq!(named("process.json", &none), "process.json");
    }
}

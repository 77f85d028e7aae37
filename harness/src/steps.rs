//! What each call of a trace was, as words that are the same in every run that goes the same way.

use std::collections::BTreeMap;

use crate::call::{Call, Effect, Errno};

/// What each call was: whose, which, on what, and with which result, but for what differs from run to run, such as
/// process ids, times and the names of temporary files.
pub fn steps_of(calls: &[Call]) -> Vec<String> {
    let mut made: BTreeMap<&str, usize> = BTreeMap::new();
    for call in calls {
        let path = match &call.effect {
            Some(Effect::Created { path, .. } | Effect::FolderMade { path, .. }) => Some(path),
            Some(Effect::Linked { to, .. }) => Some(to),
            _ => None,
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

    /// Two Node stores that each start a process: the replay of a finding diverged where the other one was quicker.
    #[test]
    fn a_process_is_not_told_by_its_number_among_those_of_all_clients() {
        let none = BTreeMap::new();
        assert_eq!(named("process 2", &none), named("process 4", &none));
        assert_eq!(named("process.json", &none), "process.json");
    }
}

//! Lists reads and changes of the data file in traced calls.
//!
//! The data file is the file that the data path names at the moment. A write to a file that was replaced or removed
//! before, or to a temporary file that is not renamed to the data path, does not change it; a rename that puts another
//! file in its place does.

use crate::call::{Call, Effect, Object};

/// One access to the data file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Index of the call in the trace, from 0.
    pub at: usize,
    /// The client.
    pub client: u32,
    /// Whether it changes the data file; otherwise it reads it.
    pub is_change: bool,
}

/// Returns the accesses to the file at the path `data`, in the order of the calls.
pub fn accesses(calls: &[Call], data: &str) -> Vec<Access> {
    let mut current = first_file(calls, data);
    let mut accesses = Vec::new();
    // Names that files got during the trace, so that a rename shows which file is the data file now.
    let mut named: Vec<(String, u32)> = Vec::new();
    for (at, call) in calls.iter().enumerate() {
        let Some(effect) = &call.effect else { continue };
        if let (Some(path), Some(file)) = (entry(call), file(call)) {
            named.push((path.to_owned(), file));
        }
        let is_data = |file: &u32| current == Some(*file);
        // A copy reads one file and writes the other.
        let is_copied =
            matches!((effect, file(call)), (Effect::Written { file: to, .. }, Some(from)) if from != *to);
        if is_copied && file(call).is_some_and(|from| is_data(&from)) {
            accesses.push(Access { at, client: call.client, is_change: false });
        }
        let kind = match effect {
            Effect::Read { file, .. } if is_data(file) => Some(false),
            Effect::Written { file, length, .. } if is_data(file) && *length > 0 => Some(true),
            Effect::Resized { file, .. } if is_data(file) => Some(true),
            // Creating an empty file where none was loses no record: a process that creates it to lock it is right.
            Effect::Created { path, file, .. } | Effect::Opened { path, file } if path == data => {
                current = Some(*file);
                None
            }
            Effect::Renamed { from, to } | Effect::Linked { from, to, .. } if to == data => {
                let linked = match effect {
                    Effect::Linked { file, .. } => *file,
                    _ => None,
                };
                let named = || named.iter().rev().find(|(path, _)| path == from).map(|(_, file)| *file);
                current = linked.or_else(named);
                Some(true)
            }
            Effect::Exchanged { from, to } if [from, to].contains(&&data.to_owned()) => {
                let other = if to == data { from } else { to };
                let old = current;
                current = named.iter().rev().find(|(path, _)| path == other).map(|(_, file)| *file);
                named.extend(old.map(|old| (other.clone(), old)));
                Some(true)
            }
            Effect::Renamed { from, .. } if from == data => {
                current = None;
                Some(true)
            }
            Effect::Unlinked { path } if path == data => {
                current = None;
                Some(true)
            }
            // An effect that is not modelled is no evidence.
            _ => None,
        };
        accesses.extend(kind.map(|is_change| Access { at, client: call.client, is_change }));
    }
    accesses
}

/// Returns the critical section of a client, as indices in the trace: from its last read of the data file before its
/// first change of it, or from that change, to its last change. `None` if it changed nothing.
pub fn critical_section(accesses: &[Access], client: u32) -> Option<(usize, usize)> {
    let own = || accesses.iter().filter(move |access| access.client == client);
    let first_change = own().find(|access| access.is_change)?.at;
    let last_change = own().rfind(|access| access.is_change)?.at;
    let last_read = own().rfind(|access| !access.is_change && access.at < first_change);
    Some((last_read.map_or(first_change, |read| read.at), last_change))
}

/// Returns the file that the path named before the first call, if a call shows it.
fn first_file(calls: &[Call], data: &str) -> Option<u32> {
    calls.iter().find_map(|call| match &call.effect {
        Some(Effect::Opened { path, file }) if path == data => Some(*file),
        // An open that truncated it.
        Some(Effect::Resized { file, .. }) if entry(call) == Some(data) => Some(*file),
        _ => None,
    })
}

fn entry(call: &Call) -> Option<&str> {
    call.objects.iter().find_map(|object| match object {
        Object::Entry(path) => Some(path.as_str()),
        _ => None,
    })
}

fn file(call: &Call) -> Option<u32> {
    call.objects.iter().find_map(|object| match object {
        Object::File(number) => Some(*number),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::sketch;

    fn kinds(text: &str) -> Vec<(u32, bool)> {
        accesses(&sketch(text), "db").iter().map(|access| (access.client, access.is_change)).collect()
    }

    #[test]
    fn a_rename_is_the_change_and_what_was_written_before_is_none() {
        let text = "1 open db 1\n 1 read 1\n 1 create tmp 2\n 1 write 2\n 1 rename tmp db\n 2 read 1\n 2 write 1\n 2 read 2";
        assert_eq!(kinds(text), [(1, false), (1, true), (2, false)]);
    }

    #[test]
    fn a_write_to_the_file_itself_is_one_and_to_a_removed_one_is_none() {
        assert_eq!(kinds("1 open db 1\n 1 write 1\n 1 unlink db\n 1 write 1"), [(1, true), (1, true)]);
        assert_eq!(kinds("1 create db 1\n 1 write 1"), [(1, true)]);
        assert_eq!(kinds("1 truncate db 1\n 1 write 1"), [(1, true), (1, true)]);
    }

    /// `cat` copies with `copy_file_range`: its source file was not counted as read.
    #[test]
    fn a_copy_reads_what_it_copies_from() {
        let mut calls = sketch("1 open db 1\n 1 create tmp 2\n 1 write 2\n 1 rename tmp db");
        calls[2].objects = vec![Object::File(1), Object::File(2)];
        let all = accesses(&calls, "db");
        let shown: Vec<_> = all.iter().map(|access| (access.at, access.is_change)).collect();
        assert_eq!(shown, [(2, false), (3, true)]);
    }

    #[test]
    fn a_section_begins_with_the_last_read_before_the_first_change() {
        let text = "1 open db 1\n 1 read 1\n 1 read 1\n 1 write 1\n 1 read 1\n 1 write 1\n 2 read 1";
        let all = accesses(&sketch(text), "db");
        assert_eq!(critical_section(&all, 1), Some((2, 5)));
        assert_eq!(critical_section(&all, 2), None);
    }
}

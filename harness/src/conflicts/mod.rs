//! Finds lost updates among concurrent operations: one reads, another changes what was read, and the first then
//! overwrites it.
//!
//! An operation knows a range of bytes, or a name, after it has read or changed it. If another operation changes that
//! range, the knowledge is stale until the operation reads it again. A change of a range with stale knowledge is a
//! conflict, because it is based on content that is no longer there. Locks are not considered. `touches` resolves names
//! and selects those that are judged.

mod spans;
mod touches;

#[cfg(test)]
mod oracle;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use crate::call::Call;
use spans::Spans;
use touches::{ALL, ENTRY, Kind, Touch, Touches};

/// A lost update: an operation changed a range that another had changed since the first read it. Calls are given by
/// index in the trace, from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Place that was read and changed.
    pub place: Place,
    /// Call by which the first operation knew it.
    pub read: usize,
    /// Call by which the other operation changed it.
    pub change: usize,
    /// Call by which the first operation changed it afterwards.
    pub next: usize,
    /// Whether the first operation has mapped the file, so that it may have read it again unnoticed.
    pub is_mapped: bool,
}

/// A part of a name: its entry in the folder, bytes of its file, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    name: String,
    range: Range<u64>,
}

/// Result of the analysis of a trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// First conflict; if possible, of an operation that has not mapped the file.
    pub conflict: Option<Conflict>,
    /// Whether there was an excused conflict.
    pub is_excused: bool,
    /// Whether two operations accessed the same range, at least one of them by a change.
    pub is_common: bool,
}

/// Finds conflicts on the file at the path `data`, or on everything changed if that file is not changed. `excuses` is
/// called with the indices of a change and of the next change by the other operation.
pub fn find(calls: &[Call], data: &str, excuses: impl Fn(usize, usize) -> bool) -> Findings {
    let touches = Touches::of(calls);
    let judged = touches.judged(data);
    let mut analysis = Analysis { calls, excuses, names: BTreeMap::new(), findings: Findings::default() };
    for touch in &touches.all {
        match touch.kind {
            Kind::Listed => {
                for name in judged.iter().filter(|name| folder_of(name) == touch.name) {
                    analysis.take(name, &Touch { kind: Kind::Read, ..touch.clone() });
                }
            }
            _ => {
                if let Some(name) = judged.get(touch.name.as_str()) {
                    analysis.take(name, touch);
                }
            }
        }
    }
    analysis.findings
}

/// Returns the folder of a name, as shown in calls.
fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or(".", |(folder, _)| folder)
}

/// Knowledge of an operation about a range.
#[derive(Clone, Debug)]
enum Knowledge {
    /// As this call found or left it.
    Known(usize),
    /// Changed by others since; holds the last change of each.
    Stale { read: usize, changes: BTreeMap<u32, usize> },
}

/// Analysis state of one name.
#[derive(Default)]
struct Name {
    known: BTreeMap<u32, Spans<Knowledge>>,
    /// All changes: the call, the operation and the range.
    changes: Vec<(usize, u32, Range<u64>)>,
    /// Ranges that each operation read or changed, and ranges that it changed.
    touched: BTreeMap<u32, (Spans<()>, Spans<()>)>,
    /// First append of each operation.
    appended: BTreeMap<u32, usize>,
    /// The operations that have mapped the file.
    mapped: BTreeSet<u32>,
}

struct Analysis<'a, F> {
    calls: &'a [Call],
    excuses: F,
    names: BTreeMap<String, Name>,
    findings: Findings,
}

impl<F: Fn(usize, usize) -> bool> Analysis<'_, F> {
    fn take(&mut self, name: &str, touch: &Touch) {
        let Touch { at, client, ref range, kind, .. } = *touch;
        let state = self.names.entry(name.to_owned()).or_default();
        if kind == Kind::Found {
            state.known.entry(client).or_default().update(range, |_, _| None);
            return;
        }
        self.findings.is_common |= state.touch(touch);
        if self.calls[at].name == "mmap" {
            state.mapped.insert(client);
        }
        let own = state.known.entry(client).or_default();
        match kind {
            Kind::ReadOld(since) => {
                let others =
                    || state.changes.iter().filter(|(change, who, _)| *change >= since && *who != client);
                own.update(range, |part, old| known_of_old(at, &part, old, others()));
                return;
            }
            Kind::Changed => {
                let mut conflicts = Vec::new();
                own.update(range, |part, old| {
                    if let Some(Knowledge::Stale { read, changes }) = &old {
                        conflicts.extend(changes.values().map(|change| (part.clone(), *read, *change)));
                    }
                    old
                });
                let is_mapped = state.mapped.contains(&client);
                for (range, read, change) in conflicts {
                    let place = Place { name: name.to_owned(), range };
                    self.found(Conflict { place, read, change, next: at, is_mapped });
                }
            }
            Kind::Appended => {
                let first = *state.appended.entry(client).or_insert(at);
                let change = state.since(first, client);
                let is_mapped = state.mapped.contains(&client);
                if let Some((change, range)) = change {
                    let place = Place { name: name.to_owned(), range };
                    self.found(Conflict { place, read: first, change, next: at, is_mapped });
                }
            }
            _ => {}
        }
        let Some(state) = self.names.get_mut(name) else { return };
        if kind.is_change() {
            for (_, known) in state.known.iter_mut().filter(|(other, _)| **other != client) {
                known.update(range, |_, old| old.map(|old| old.outdated(client, at)));
            }
            state.changes.push((at, client, range.clone()));
        }
        state.known.entry(client).or_default().update(range, |_, _| Some(Knowledge::Known(at)));
    }

    fn found(&mut self, conflict: Conflict) {
        if (self.excuses)(conflict.change, conflict.next) {
            self.findings.is_excused = true;
        } else if self.findings.conflict.as_ref().is_none_or(|first| first.is_mapped && !conflict.is_mapped) {
            self.findings.conflict = Some(conflict);
        }
    }
}

impl Name {
    /// Records an access; returns whether another operation accessed the same range, and one of them changed it.
    fn touch(&mut self, touch: &Touch) -> bool {
        // An append depends on the end of the file as well as on the bytes that it adds.
        let range = match touch.kind {
            Kind::Appended => touch.range.start..u64::MAX,
            _ => touch.range.clone(),
        };
        let is_change = touch.kind.is_change();
        let is_common = self.touched.iter().filter(|(client, _)| **client != touch.client).any(
            |(_, (touched, changed))| {
                let other = if is_change { touched } else { changed };
                other.within(&range).next().is_some()
            },
        );
        let (touched, changed) = self.touched.entry(touch.client).or_default();
        touched.update(&range, |_, _| Some(()));
        if is_change {
            changed.update(&range, |_, _| Some(()));
        }
        is_common
    }

    /// Returns the first change by another operation, since the first append of this one, that it has not seen.
    fn since(&self, first: usize, client: u32) -> Option<(usize, Range<u64>)> {
        let own = self.known.get(&client)?;
        let later = self.changes.iter().filter(|(change, who, _)| *change > first && *who != client);
        let mut unseen = later.filter(|(change, _, range)| {
            !own.within(range).any(|known| matches!(known, Knowledge::Known(at) if at > change))
        });
        unseen.next().map(|(change, _, range)| (*change, range.clone()))
    }
}

impl Knowledge {
    /// Returns the knowledge after a change by another operation.
    fn outdated(self, client: u32, at: usize) -> Self {
        let (read, mut changes) = match self {
            Self::Known(read) => (read, BTreeMap::new()),
            Self::Stale { read, changes } => (read, changes),
        };
        changes.insert(client, at);
        Self::Stale { read, changes }
    }
}

/// Returns the knowledge about a part after a read at `at` of its content before these changes by others.
fn known_of_old<'c>(
    at: usize,
    part: &Range<u64>,
    old: Option<Knowledge>,
    changes: impl Iterator<Item = &'c (usize, u32, Range<u64>)>,
) -> Option<Knowledge> {
    let (read, mut all) = match old {
        // The operation knows newer content too.
        Some(Knowledge::Known(_)) => return old,
        Some(Knowledge::Stale { read, changes }) => (read, changes),
        None => (at, BTreeMap::new()),
    };
    let overlaps = |range: &Range<u64>| range.start < part.end && part.start < range.end;
    all.extend(changes.filter(|(_, _, range)| overlaps(range)).map(|(change, who, _)| (*who, *change)));
    (!all.is_empty()).then_some(Knowledge::Stale { read, changes: all })
}

/// Formats a place as in `bytes 0..8 of store.db`.
impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, range } = self;
        let from = range.start.saturating_sub(1);
        match range.end {
            _ if *range == ALL => write!(out, "all of {name}"),
            _ if *range == ENTRY => write!(out, "the name {name}"),
            u64::MAX => write!(out, "bytes {from}.. of {name}"),
            end => write!(out, "bytes {from}..{} of {name}", end - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::sketch;

    fn findings(text: &str) -> Findings {
        find(&sketch(text), "db", |_, _| false)
    }

    /// Returns the name or range in conflict.
    fn conflict(text: &str) -> Option<String> {
        findings(text).conflict.map(|conflict| conflict.place.to_string())
    }

    /// m_header and w57 read the first bytes without a lock and append: the appended bytes depend on nothing that
    /// changes.
    #[test]
    fn a_header_read_before_an_append_is_no_conflict() {
        let text = "1 open db 1\n 1 read 1 0..8\n 2 open db 1\n 2 read 1 0..8\n 2 append 1 8..20\n 1 append 1 20..32";
        assert_eq!(findings(text), Findings { is_common: true, ..Findings::default() });
        // Python reads to the end, after it has read the size.
        let text = "1 open db 1\n 1 size 1\n 1 read 1 0..8 end\n 2 append 1 8..20\n 1 append 1 20..32";
        assert_eq!(conflict(text), None);
        let written = text.replace("1 append 1 20..32", "1 write 1 8..20");
        assert_eq!(conflict(&written).as_deref(), Some("bytes 8..20 of db"));
    }

    #[test]
    fn disjoint_ranges_do_not_conflict() {
        let text = "1 open db 1\n 1 read 1 0..8\n 2 read 1 8..16\n 2 write 1 8..16\n 1 write 1 0..8";
        assert_eq!(conflict(text), None);
        assert!(!findings(text).is_common);
        assert_eq!(conflict(&text.replace("8..16", "4..12")).as_deref(), Some("bytes 4..8 of db"));
    }

    #[test]
    fn a_range_that_is_read_again_is_known() {
        let text = "1 open db 1\n 1 read 1 0..8\n 2 write 1 0..8\n 1 read 1 0..READ\n 1 write 1 0..8";
        assert_eq!(conflict(&text.replace("READ", "8")), None);
        assert_eq!(conflict(&text.replace("READ", "5")).as_deref(), Some("bytes 5..8 of db"));
    }

    #[test]
    fn the_size_is_read_from_the_end_on() {
        let text = "1 open db 1\n 2 read 1 0..8 end\n 1 size 1\n 2 write 1 8..16\n 1 write 1 FROM..20";
        assert_eq!(conflict(&text.replace("FROM", "8")).as_deref(), Some("bytes 8..16 of db"));
        assert_eq!(conflict(&text.replace("FROM", "16")), None);
        let inside = text.replace("2 write 1 8..16", "2 write 1 0..8").replace("FROM", "0");
        assert_eq!(conflict(&inside), None, "the bytes before the end were not read");
    }

    #[test]
    fn a_replacement_changes_the_whole_file() {
        let text = "1 open db 1\n 1 read 1 0..4\n 2 create tmp 2\n 2 rename tmp db\n 1 create other 3\n 1 rename other db";
        assert_eq!(conflict(text).as_deref(), Some("bytes 0..4 of db"));
        assert_eq!(conflict(&text.replace("1 read 1 0..4\n", "")), None, "blind");
    }

    #[test]
    fn an_exchange_and_a_linked_unnamed_file_replace_too() {
        let exchanged = "1 open db 1\n 1 read 1\n 2 create t 2\n 2 exchange t db\n 2 unlink t\n AGAIN\n 1 create u 3\n 1 exchange u db";
        assert_eq!(conflict(&exchanged.replace("AGAIN", "1 sync 1")).as_deref(), Some("bytes 0.. of db"));
        assert_eq!(conflict(&exchanged.replace("AGAIN", "1 open db 2\n 1 read 2")), None);
        // O_TMPFILE: the link creates the name, and fails if it exists.
        let linked = "1 miss db\n 1 unnamed 2\n 1 write 2\n 2 miss db\n 2 unnamed 3\n 2 write 3\n 2 link fd db 3\n 1 there db";
        assert_eq!(findings(linked), Findings { is_common: true, ..Findings::default() });
        let over = linked.replace("1 there db", "1 link fd t 2\n 1 rename t db");
        assert_eq!(conflict(&over).as_deref(), Some("all of db"));
    }

    /// A descriptor opened before the lock refers to the file that another operation has replaced meanwhile.
    #[test]
    fn what_is_read_from_a_replaced_file_is_old() {
        let text = "1 open db 1\n 2 create tmp 2\n 2 rename tmp db\n 1 read 1\n AGAIN\n 1 create other 3\n 1 rename other db";
        assert_eq!(conflict(&text.replace("AGAIN", "1 stat db")).as_deref(), Some("bytes 0.. of db"));
        assert_eq!(conflict(&text.replace("AGAIN", "1 open db 2\n 1 read 2")), None);
        let written = "1 open db 1\n 1 read 1\n 2 create tmp 2\n 2 rename tmp db\n 1 write 1";
        assert_eq!(conflict(written), None, "a write to it changes nothing");
    }

    #[test]
    fn a_missed_name_is_read() {
        let text = "1 miss db\n 2 create db 1\n 2 write 1\n MORE\n 1 truncate db 1\n 1 write 1";
        assert_eq!(conflict(&text.replace("MORE", "2 sync 1")).as_deref(), Some("bytes 0..9 of db"));
        assert_eq!(conflict(&text.replace("MORE", "1 open db 1\n 1 read 1")), None);
        // Creating an empty file overwrites nothing.
        assert_eq!(conflict("1 miss db\n 2 create db 1\n 1 open db 1\n 1 write 1"), None);
    }

    /// w21 counts the files of a folder, and renames its file over that of another client with the same count.
    #[test]
    fn a_listed_folder_is_read_name_by_name() {
        let text = "1 mkdir d\n 1 create d/a 1\n 2 create d/b 2\n 1 list d\n 2 list d\n 2 MOVE d/b d/1\n 1 MOVE d/a d/1";
        assert_eq!(conflict(&text.replace("MOVE", "rename")).as_deref(), Some("the name d/1"));
        // w22 links: the second link fails, and its client lists again.
        let claimed = text.replace("1 MOVE d/a d/1", "1 there d/1\n 1 list d\n 1 link d/a d/2");
        let claimed = claimed.replace("MOVE", "link");
        assert_eq!(findings(&claimed), Findings { is_common: true, ..Findings::default() });
        let listed = text.replace("1 MOVE", "1 list d\n 1 rename").replace("MOVE", "rename");
        assert_eq!(conflict(&listed), None);
    }

    #[test]
    fn several_appends_are_one_section() {
        let text = "1 open db 1\n 1 append 1 0..4\n BETWEEN\n 1 append 1 8..12";
        let between = |what: &str| conflict(&text.replace("BETWEEN", what));
        assert_eq!(between("2 append 1 4..8").as_deref(), Some("bytes 4..8 of db"));
        assert_eq!(between("2 read 1"), None);
        assert_eq!(between("2 append 1 4..8\n 1 read 1"), None);
        assert_eq!(
            between("2 create tmp 2\n 2 rename tmp db\n 1 open db 2").as_deref(),
            None,
            "a stale file"
        );
    }

    #[test]
    fn a_store_of_other_files_is_judged_by_them() {
        let text = "1 open real 1\n 1 read 1\n 2 open real 1\n 2 read 1\n 2 write 1\n 1 write 1";
        assert_eq!(conflict(text).as_deref(), Some("bytes 0..9 of real"));
        let with_data = format!("{text}\n 1 create db 2\n 1 write 2");
        assert_eq!(conflict(&with_data), None, "the data file is what is judged, if it is changed");
        // An empty data file that is only locked does not count.
        assert_eq!(conflict(&format!("1 create db 2\n {text}")).as_deref(), Some("bytes 0..9 of real"));
    }

    #[test]
    fn lock_files_and_temporary_files_do_not_count() {
        let content = "1 create real 9\n 1 write 9\n";
        let locked = "1 open l 1\n 1 lock ex 1\n 1 read 1\n 2 open l 1\n 2 try ex 1\n 2 write 1\n 1 write 1";
        assert_eq!(conflict(&format!("{content}{locked}")), None);
        let made = "1 miss l\n 2 make l 1\n 2 unlink l\n 1 make l 2\n 1 unlink l";
        assert_eq!(conflict(&format!("{content}{made}")), None);
        let temporary =
            "1 create t 2\n 1 write 2\n 1 rename t real\n 2 create t 3\n 2 write 3\n 2 rename t real";
        assert_eq!(conflict(&format!("{content}{temporary}")), None);
        // A temporary file that another client has opened is a file like any other.
        let shared = "1 create t 2\n 1 write 2\n 2 truncate t 2\n 2 write 2\n 1 rename t real";
        assert!(conflict(&format!("{content}{shared}")).is_some());
    }

    #[test]
    fn a_locked_file_that_is_all_there_is_counts() {
        let text = "1 open real 1\n 1 lock sh 1\n 1 read 1\n 2 open real 1\n 2 lock sh 1\n 2 read 1\n 2 write 1\n 1 write 1";
        assert_eq!(conflict(text).as_deref(), Some("bytes 0..9 of real"));
    }

    #[test]
    fn unknown_offsets_stand_for_the_whole_file() {
        let mut calls = sketch("1 open db 1\n 1 read 1 0..8\n 2 write 1 20..28\n 1 write 1 0..8");
        assert_eq!(find(&calls, "db", |_, _| false).conflict, None);
        if let Some(crate::call::Effect::Written { offset, .. }) = &mut calls[2].effect {
            *offset = None;
        }
        assert!(find(&calls, "db", |_, _| false).conflict.is_some());
    }
}

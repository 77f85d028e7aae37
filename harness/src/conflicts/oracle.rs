//! Compares the analysis with brute force over single bytes, on random short traces.
//!
//! The oracle is a small file system. For each byte of each name it records which client read or changed it, and when,
//! and searches for three such accesses that form a conflict.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use proptest::prelude::*;

use super::find;
use crate::call::sketch;

/// Number of bytes checked; the last represents all that follow.
const WIDTH: u64 = 32;
/// Byte number that represents the directory entry of a name.
const ENTRY: u64 = u64::MAX;
const NAMES: [&str; 2] = ["db", "t"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Knows,
    /// Found the name; has no knowledge of it that could be stale.
    Finds,
    Changes,
    Appends,
}

/// An access to a byte: time (twice the index of the call; for a read of replaced content, that of the replacing call
/// less one), call, client and kind.
type Moment = (usize, usize, u32, What);

#[derive(Default)]
struct World {
    text: String,
    calls: usize,
    names: BTreeMap<&'static str, u32>,
    /// The size of each file.
    sizes: BTreeMap<u32, u64>,
    /// Names that files have lost, and at which call.
    lost: Vec<(u32, &'static str, usize)>,
    /// The file that each client has open.
    open: BTreeMap<u32, u32>,
    moments: BTreeMap<(&'static str, u64), Vec<Moment>>,
}

impl World {
    fn line(&mut self, client: u32, text: &str) {
        writeln!(self.text, "{client} {text}").unwrap();
        self.calls += 1;
    }

    fn note(&mut self, name: &'static str, from: u64, to: u64, client: u32, what: What) {
        (from..to.min(WIDTH)).for_each(|byte| self.note_one(name, byte, client, what));
    }

    fn note_one(&mut self, name: &'static str, byte: u64, client: u32, what: What) {
        let at = self.calls - 1;
        self.moments.entry((name, byte)).or_default().push((2 * at, at, client, what));
    }

    fn note_all(&mut self, name: &'static str, client: u32, what: What) {
        self.note(name, 0, WIDTH, client, what);
        self.note_one(name, ENTRY, client, what);
    }

    fn bound(&self, file: u32) -> Vec<&'static str> {
        self.names.iter().filter(|(_, other)| **other == file).map(|(name, _)| *name).collect()
    }

    fn make(&mut self, client: u32, name: &'static str) -> u32 {
        let file = u32::try_from(self.sizes.len()).unwrap() + 1;
        self.line(client, &format!("create {name} {file}"));
        self.note_one(name, ENTRY, client, What::Finds);
        self.sizes.insert(file, 0);
        self.names.insert(name, file);
        self.open.insert(client, file);
        file
    }

    fn lose(&mut self, name: &'static str) {
        if let Some(file) = self.names.remove(name) {
            self.lost.push((file, name, self.calls - 1));
        }
    }

    fn step(&mut self, client: u32, choice: u8, a: u64, b: u64) {
        let name = NAMES[usize::from(choice & 1)];
        let (from, to) = (a.min(b), a.max(b) + 1);
        let file = self.open.get(&client).copied();
        match (choice >> 1, file, self.names.get(name).copied()) {
            (0, _, Some(file)) => {
                self.line(client, &format!("open {name} {file}"));
                self.note_one(name, ENTRY, client, What::Finds);
                self.open.insert(client, file);
            }
            (0, _, None) if a > 3 => {
                self.line(client, &format!("miss {name}"));
                self.note_all(name, client, What::Knows);
            }
            (0, _, None) => drop(self.make(client, name)),
            (1 | 2, Some(file), _) => {
                let size = self.sizes[&file];
                let (to, end) = if to >= size { (size.max(from), " end") } else { (to, "") };
                self.line(client, &format!("read {file} {from}..{to}{end}"));
                let to = if end.is_empty() { to } else { WIDTH };
                for name in self.bound(file) {
                    self.note(name, from, to, client, What::Knows);
                }
                let lost: Vec<_> =
                    self.lost.iter().filter(|lost| lost.0 == file).map(|lost| (lost.1, lost.2)).collect();
                for (name, since) in lost {
                    for byte in from..to.min(WIDTH) {
                        let moment = ((2 * since).wrapping_sub(1), self.calls - 1, client, What::Knows);
                        self.moments.entry((name, byte)).or_default().push(moment);
                    }
                }
            }
            (3 | 4, Some(file), _) => {
                self.line(client, &format!("write {file} {from}..{to}"));
                let size = self.sizes.get_mut(&file).unwrap();
                *size = to.max(*size);
                for name in self.bound(file) {
                    self.note(name, from, to, client, What::Changes);
                }
            }
            (5, Some(file), _) => {
                let size = self.sizes[&file];
                let to = size + 1;
                self.line(client, &format!("append {file} {size}..{to}"));
                self.sizes.insert(file, to);
                for name in self.bound(file) {
                    self.note(name, size, to, client, What::Appends);
                }
            }
            (6, _, Some(file)) if self.sizes[&file] > 0 => {
                self.line(client, &format!("truncate {name} {file}"));
                self.note_one(name, ENTRY, client, What::Finds);
                self.sizes.insert(file, 0);
                self.open.insert(client, file);
                for name in self.bound(file) {
                    self.note(name, 0, WIDTH, client, What::Changes);
                }
            }
            (7, _, Some(_)) => {
                let (from, to) = (name, NAMES[1 - usize::from(choice & 1)]);
                self.line(client, &format!("rename {from} {to}"));
                let file = self.names[from];
                self.lose(from);
                self.lose(to);
                self.names.insert(to, file);
                for name in NAMES {
                    self.note_all(name, client, What::Changes);
                }
            }
            _ => {}
        }
    }

    /// Whether a client knew a byte of `db`, another changed it, and the first then changed it without accessing it in
    /// between; or another changed a byte between two appends of one client.
    fn has_conflict(&self) -> bool {
        let of = |byte: u64| self.moments.get(&("db", byte)).map(Vec::as_slice).unwrap_or_default();
        let is_change = |one: &&Moment| matches!(one.3, What::Changes | What::Appends);
        let by_byte = (0..WIDTH).chain([ENTRY]).any(|byte| {
            let all = of(byte);
            all.iter().filter(|last| last.3 == What::Changes).any(|last| {
                let own = || all.iter().filter(|own| own.2 == last.2 && own.1 < last.1);
                let changes = all.iter().filter(is_change).filter(|other| other.2 != last.2);
                changes.filter(|change| change.1 < last.1).any(|change| {
                    let before = own().filter(|own| own.0 < change.0).max_by_key(|own| own.0);
                    let is_known = before.is_some_and(|own| own.3 != What::Finds);
                    is_known && !own().any(|own| own.0 > change.0)
                })
            })
        });
        let appends: Vec<(usize, u32)> = (0..WIDTH)
            .flat_map(|byte| {
                of(byte).iter().filter(|moment| moment.3 == What::Appends).map(|one| (one.1, one.2))
            })
            .collect();
        let by_append = appends.iter().any(|(first, client)| {
            let later = appends.iter().filter(|(at, other)| other == client && at > first);
            later.into_iter().any(|(last, _)| {
                let between: Vec<&Moment> = (0..WIDTH)
                    .flat_map(of)
                    .filter(is_change)
                    .filter(|one| one.1 > *first && one.1 < *last && one.2 != *client)
                    .collect();
                between.into_iter().any(|change| {
                    let is_of_change = |byte: &u64| of(*byte).iter().any(|one| one.1 == change.1);
                    let seen = |byte: u64| {
                        of(byte).iter().any(|own| own.2 == *client && own.0 > change.0 && own.1 < *last)
                    };
                    !(0..WIDTH).filter(is_of_change).any(seen)
                })
            })
        });
        by_byte || by_append
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(8000) })]

    #[test]
    fn the_analysis_finds_what_brute_force_finds(
        steps in prop::collection::vec((1..4u32, 0..16u8, 0..6u64, 0..6u64), 1..14)
    ) {
        let mut world = World::default();
        world.make(1, "db");
        for client in 1..4 {
            world.line(client, "open db 1");
            world.open.insert(client, 1);
        }
        for (client, choice, a, b) in steps {
            world.step(client, choice, a, b);
        }
        let is_changed = |((name, _), all): (&(&str, u64), &Vec<Moment>)| {
            *name == "db" && all.iter().any(|one| !matches!(one.3, What::Knows | What::Finds))
        };
        prop_assume!(world.moments.iter().any(is_changed));
        let found = find(&sketch(&world.text), "db", |_, _| false).conflict;
        prop_assert_eq!(found.is_some(), world.has_conflict(), "{}{:?}", world.text, found);
    }
}

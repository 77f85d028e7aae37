//! Defines footprints: what a step may access, and so which steps commute.
//!
//! They are conservative: what a step touches in one order and might touch in another belongs to it in both. With
//! footprints of what a step happened to do in one run, an exploration loses executions (measured over thousands of
//! random programs; `oracle.rs` shows it).

use crate::locks::{FileId, Lock};

/// Something that steps may conflict on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// What a name stands for, by its path.
    Name(String),
    /// Which names there are in a folder, by its path.
    Names(String),
    /// The content of a file, with its size and times.
    Data(FileId),
    /// All else that is known of a file: its permissions and how many names it has.
    Attributes(FileId),
    /// That what a name stands for may be emptied by an open: whatever file that is in another order.
    Emptying(String),
    /// The time between the invocation and the return of operations.
    Interval,
}

/// How a resource is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// It is looked at: commutes with every other look.
    Read,
    /// It is changed: commutes with nothing.
    Write,
    /// One side of two: commutes with its own side. One entry of a folder; an invocation.
    One,
    /// The other side. The list of a folder; a return.
    Other,
}

impl Access {
    pub(super) fn commutes(self, other: Self) -> bool {
        self == other && self != Self::Write
    }
}

/// What a step does to a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Locking {
    /// It is taken; if it `waits`, only once it can be had.
    Take {
        /// The lock.
        lock: Lock,
        /// Whether it waits for it.
        waits: bool,
    },
    /// It is asked for in vain.
    Try(Lock),
    /// It is given up.
    Free(Lock),
}

impl Locking {
    /// The lock.
    pub fn lock(&self) -> &Lock {
        match self {
            Self::Take { lock, .. } | Self::Try(lock) | Self::Free(lock) => lock,
        }
    }

    pub(super) fn commutes(&self, other: &Self) -> bool {
        let both_leave_it =
            matches!((self, other), (Self::Try(_), Self::Try(_)) | (Self::Free(_), Self::Free(_)));
        both_leave_it || !self.lock().conflicts(other.lock())
    }
}

/// All that a step may touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Names and files.
    pub touched: Vec<(Resource, Access)>,
    /// Locks.
    pub locks: Vec<Locking>,
    /// Nobody knows what it touches: it commutes with nothing that touches anything.
    pub is_unknown: bool,
}

impl Footprint {
    /// Adds a resource.
    #[must_use]
    pub fn with(mut self, resource: Resource, access: Access) -> Self {
        self.touched.push((resource, access));
        self
    }

    /// Adds what is done to a lock.
    #[must_use]
    pub fn locking(mut self, locking: Locking) -> Self {
        self.locks.push(locking);
        self
    }

    /// Whether it touches nothing, such as a sync.
    pub fn is_empty(&self) -> bool {
        self.touched.is_empty() && self.locks.is_empty() && !self.is_unknown
    }

    /// Whether the order of two steps may matter.
    pub fn conflicts(&self, other: &Self) -> bool {
        if self.is_unknown || other.is_unknown {
            return !self.is_empty() && !other.is_empty();
        }
        self.touches_the_same(other)
            || self.locks.iter().any(|one| other.locks.iter().any(|two| !one.commutes(two)))
    }

    fn touches_the_same(&self, other: &Self) -> bool {
        self.touched.iter().any(|(resource, access)| {
            other.touched.iter().any(|(same, how)| resource == same && !access.commutes(*how))
        })
    }

    /// The lock that it waits for before it can be made.
    pub fn awaited(&self) -> Option<&Lock> {
        self.locks.iter().find_map(|locking| match locking {
            Locking::Take { lock, waits: true } => Some(lock),
            _ => None,
        })
    }

    /// Whether all that makes the order of the two matter is that this one gives up the lock that `later` waits for:
    /// the other way round `later` could not have been made.
    pub fn only_admits(&self, later: &Self) -> bool {
        let Some(awaited) = later.awaited() else { return false };
        let frees = |one: &Locking| matches!(one, Locking::Free(lock) if lock.conflicts(awaited));
        let others = |one: &Locking| later.locks.iter().any(|two| !one.commutes(two)) && !frees(one);
        !self.is_unknown
            && !later.is_unknown
            && !self.touches_the_same(later)
            && self.locks.iter().any(frees)
            && !self.locks.iter().any(others)
    }
}

/// What is done to files and names, as far as the order of two such deeds matters. Paths are whole: the folders above the
/// last component are looked up too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileOp<'a> {
    /// A name is looked up, such as by `stat` or an `open` that changes nothing; and the attributes of what it stands for.
    LookUp {
        /// The name.
        path: &'a str,
        /// What it stands for.
        file: Option<FileId>,
    },
    /// A name is made, if it is not there: `open` with `O_CREAT`, `mkdir`.
    Make {
        /// The name.
        path: &'a str,
        /// Whether there is one already, so that nothing is made.
        is_there: bool,
    },
    /// What a name stands for is emptied as it is opened.
    Empty {
        /// The name.
        path: &'a str,
        /// What it stands for.
        file: Option<FileId>,
    },
    /// A name is taken away, or would be if it were there.
    Remove {
        /// The name.
        path: &'a str,
        /// What it stands for.
        file: Option<FileId>,
    },
    /// What has one name gets another, in the place of what had that; also a further name.
    Rename {
        /// The old name.
        from: &'a str,
        /// The new one.
        to: &'a str,
        /// What the two stand for.
        files: [Option<FileId>; 2],
    },
    /// Content, or its length, is looked at through a descriptor.
    Read {
        /// The file that is looked at.
        file: FileId,
        /// By this name it was opened.
        opened: &'a str,
    },
    /// Content is changed through a descriptor, or its length.
    Write {
        /// Of this file.
        file: FileId,
        /// By this name it was opened.
        opened: &'a str,
    },
    /// Attributes are looked at through a descriptor.
    Inspect {
        /// Of this file.
        file: FileId,
    },
    /// Attributes are changed.
    Change {
        /// Of this file.
        file: FileId,
    },
    /// The names in a folder are listed.
    List {
        /// The folder.
        path: &'a str,
    },
}

/// The table: what each deed touches.
impl Footprint {
    /// Adds what a deed touches.
    #[must_use]
    pub fn doing(self, deed: &FileOp<'_>) -> Self {
        use Access::{One, Other, Read, Write};
        use Resource::{Attributes, Data, Emptying, Name, Names};
        let name = |path: &str| Name(path.to_owned());
        let entry_of = |path: &str| Names(folder(path).to_owned());
        let with_file = |footprint: Self, file: &Option<FileId>, how: Access| match file {
            Some(file) => footprint.with(Attributes(*file), how),
            None => footprint,
        };
        match deed {
            FileOp::LookUp { path, file } => with_file(self.below(path).with(name(path), Read), file, Read),
            FileOp::Make { path, is_there: true } => self.below(path).with(name(path), Read),
            FileOp::Make { path, is_there: false } => {
                self.below(path).with(name(path), Write).with(entry_of(path), One)
            }
            FileOp::Empty { path, file } => {
                let footprint =
                    self.below(path).with(name(path), Read).with(Emptying((*path).to_owned()), Write);
                match file {
                    Some(file) => footprint.with(Data(*file), Write),
                    None => footprint,
                }
            }
            // In another order it would have found something to remove.
            FileOp::Remove { path, file } => {
                let footprint = self.below(path).with(name(path), Write).with(entry_of(path), One);
                with_file(footprint, file, Write)
            }
            FileOp::Rename { from, to, files } => {
                let footprint = self
                    .below(from)
                    .below(to)
                    .with(name(from), Write)
                    .with(name(to), Write)
                    .with(entry_of(from), One)
                    .with(entry_of(to), One);
                let [one, other] = files;
                with_file(with_file(footprint, one, Write), other, Write)
            }
            FileOp::Read { file, opened } => {
                self.with(Data(*file), Read).with(Emptying((*opened).to_owned()), Read)
            }
            FileOp::Write { file, opened } => {
                self.with(Data(*file), Write).with(Emptying((*opened).to_owned()), Read)
            }
            FileOp::Inspect { file } => self.with(Attributes(*file), Read),
            FileOp::Change { file } => self.with(Attributes(*file), Write),
            FileOp::List { path } => self.with(Names((*path).to_owned()), Other),
        }
    }

    /// The folders on the way to a path are looked up.
    fn below(mut self, path: &str) -> Self {
        let mut rest = folder(path);
        while !rest.is_empty() {
            self.touched.push((Resource::Name(rest.to_owned()), Access::Read));
            rest = folder(rest);
        }
        self
    }
}

/// The folder that a path lies in; empty where that is the outermost.
fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// What the invocation of an operation touches: returns that came before it.
pub fn invocation() -> Footprint {
    Footprint::default().with(Resource::Interval, Access::One)
}

/// What the return of an operation touches: invocations that come after it.
pub fn returning() -> Footprint {
    Footprint::default().with(Resource::Interval, Access::Other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(deed: &FileOp<'_>) -> Footprint {
        Footprint::default().doing(deed)
    }

    /// In another order the name stands for the file that is read, and its emptying takes what is read away.
    #[test]
    fn an_open_that_empties_a_name_conflicts_with_a_read_of_whatever_was_opened_by_it() {
        let empties = of(&FileOp::Empty { path: "db", file: Some((1, 2)) });
        let reads = |opened| of(&FileOp::Read { file: (1, 1), opened });
        assert!(empties.conflicts(&reads("db")) && !empties.conflicts(&reads("other")));
    }

    /// In another order there is something to remove.
    #[test]
    fn a_name_that_is_not_there_is_removed_as_one_that_is() {
        let removes = of(&FileOp::Remove { path: "lock", file: None });
        assert!(removes.conflicts(&of(&FileOp::LookUp { path: "lock", file: None })));
        assert!(!removes.conflicts(&of(&FileOp::LookUp { path: "db", file: None })));
    }

    /// A property of intervals is none of a class unless their ends are part of it.
    #[test]
    fn a_return_conflicts_with_an_invocation_and_two_of_a_kind_do_not() {
        assert!(returning().conflicts(&invocation()) && invocation().conflicts(&returning()));
        assert!(!invocation().conflicts(&invocation()) && !returning().conflicts(&returning()));
    }

    #[test]
    fn entries_of_one_folder_commute_and_its_list_does_not() {
        let make = |path| of(&FileOp::Make { path, is_there: false });
        assert!(!make("d/a").conflicts(&make("d/b")) && make("d/a").conflicts(&make("d/a")));
        assert!(make("d/a").conflicts(&of(&FileOp::List { path: "d" })));
        assert!(
            make("d").conflicts(&of(&FileOp::LookUp { path: "d/a", file: None })),
            "the folder on the way"
        );
    }
}

//! Defines footprints: what a step may access, and so which steps commute.
//!
//! Footprints are conservative: a resource that a step touches in one order and might touch in another belongs to its
//! footprint in both. With footprints of what a step happened to do in one run, an exploration loses executions
//! (measured over thousands of random programs; `oracle.rs` shows it).

use crate::locks::{FileId, Lock};

/// A resource on which steps may conflict.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// File that a name refers to, by path.
    Name(String),
    /// Set of names in a folder, by its path.
    Names(String),
    /// The content of a file, with its size and times.
    Data(FileId),
    /// Other attributes of a file: permissions and number of names.
    Attributes(FileId),
    /// Truncation by an open of the file that a name refers to, which may be another file in another order.
    Emptying(String),
    /// Interval between the invocation and the return of operations.
    Interval,
}

/// Kind of access to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Read: commutes with every other read.
    Read,
    /// Write: commutes with nothing.
    Write,
    /// First of two groups: commutes within its group. One entry of a folder; an invocation.
    One,
    /// Second group. The list of a folder; a return.
    Other,
}

impl Access {
    pub(super) fn commutes(self, other: Self) -> bool {
        self == other && self != Self::Write
    }
}

/// Lock operation of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Locking {
    /// Taken; if `waits`, only once the lock is available.
    Take {
        /// The lock.
        lock: Lock,
        /// Whether the step waits for the lock.
        waits: bool,
    },
    /// Requested without success.
    Try(Lock),
    /// Released.
    Free(Lock),
}

impl Locking {
    /// Returns the lock.
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

/// All resources and locks that a step may touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Names and files.
    pub touched: Vec<(Resource, Access)>,
    /// Locks.
    pub locks: Vec<Locking>,
    /// Whether the accesses are unknown: the step then commutes with nothing that touches anything.
    pub is_unknown: bool,
}

impl Footprint {
    /// Adds a resource.
    #[must_use]
    pub fn with(mut self, resource: Resource, access: Access) -> Self {
        self.touched.push((resource, access));
        self
    }

    /// Adds a lock operation.
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

    /// Returns the lock that the step must wait for.
    pub fn awaited(&self) -> Option<&Lock> {
        self.locks.iter().find_map(|locking| match locking {
            Locking::Take { lock, waits: true } => Some(lock),
            _ => None,
        })
    }

    /// Whether the two steps conflict only because this one releases the lock that `later` waits for: in the reverse
    /// order `later` would have been blocked.
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

/// A file-system operation, as far as its order relative to others matters. Paths are complete: the folders above the
/// last component are looked up too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileOp<'a> {
    /// Looks up a name and the attributes of its file, such as `stat` or an `open` that changes nothing.
    LookUp {
        /// The name.
        path: &'a str,
        /// File that it refers to.
        file: Option<FileId>,
    },
    /// Creates a name if it does not exist: `open` with `O_CREAT`, `mkdir`.
    Make {
        /// The name.
        path: &'a str,
        /// Whether the name exists already, so that nothing is created.
        is_there: bool,
    },
    /// Truncates the file of a name on open.
    Empty {
        /// The name.
        path: &'a str,
        /// File that it refers to.
        file: Option<FileId>,
    },
    /// Removes a name, or would if it existed.
    Remove {
        /// The name.
        path: &'a str,
        /// File that it refers to.
        file: Option<FileId>,
    },
    /// Renames a file, and replaces the file of the new name; also adds a further name.
    Rename {
        /// The old name.
        from: &'a str,
        /// The new name.
        to: &'a str,
        /// Files that the two names refer to.
        files: [Option<FileId>; 2],
    },
    /// Reads content or its length through a descriptor.
    Read {
        /// File that is read.
        file: FileId,
        /// Name by which it was opened.
        opened: &'a str,
    },
    /// Changes content or its length through a descriptor.
    Write {
        /// The file.
        file: FileId,
        /// Name by which it was opened.
        opened: &'a str,
    },
    /// Reads attributes through a descriptor.
    Inspect {
        /// The file.
        file: FileId,
    },
    /// Changes attributes.
    Change {
        /// The file.
        file: FileId,
    },
    /// Lists the names in a folder.
    List {
        /// The folder.
        path: &'a str,
    },
}

/// The table of what each operation touches.
impl Footprint {
    /// Adds what an operation touches.
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
            // In another order it would have found a file to remove.
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

    /// Adds lookups of the folders on the path.
    fn below(mut self, path: &str) -> Self {
        let mut rest = folder(path);
        while !rest.is_empty() {
            self.touched.push((Resource::Name(rest.to_owned()), Access::Read));
            rest = folder(rest);
        }
        self
    }
}

/// Returns the parent folder of a path; empty if that is the outermost folder.
fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Returns the footprint of an invocation, which conflicts with returns before it.
pub fn invocation() -> Footprint {
    Footprint::default().with(Resource::Interval, Access::One)
}

/// Returns the footprint of a return, which conflicts with invocations after it.
pub fn returning() -> Footprint {
    Footprint::default().with(Resource::Interval, Access::Other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(deed: &FileOp<'_>) -> Footprint {
        Footprint::default().doing(deed)
    }

    /// In another order the name refers to the file that is read, and the truncation removes what is read.
    #[test]
    fn an_open_that_empties_a_name_conflicts_with_a_read_of_whatever_was_opened_by_it() {
        let empties = of(&FileOp::Empty { path: "db", file: Some((1, 2)) });
        let reads = |opened| of(&FileOp::Read { file: (1, 1), opened });
        assert!(empties.conflicts(&reads("db")) && !empties.conflicts(&reads("other")));
    }

    /// In another order there is a file to remove.
    #[test]
    fn a_name_that_is_not_there_is_removed_as_one_that_is() {
        let removes = of(&FileOp::Remove { path: "lock", file: None });
        assert!(removes.conflicts(&of(&FileOp::LookUp { path: "lock", file: None })));
        assert!(!removes.conflicts(&of(&FileOp::LookUp { path: "db", file: None })));
    }

    /// A property of intervals is one of a class only if their ends are part of the class.
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

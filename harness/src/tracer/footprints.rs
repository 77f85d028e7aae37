//! The footprint of a call that is about to be made: what it may touch, by the table of `explore::footprint`, with the
//! files that its names refer to at this moment.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::unistd::Pid;

use crate::call::Class;
use crate::explore::footprint::{FileOp, Footprint, Locking};
use crate::locks::{FileId, Kind, Lock, Mode, Owner};
use crate::tracer::kernel::{KernelModel, Pending, Wanted};
use crate::tracer::shape::Form;
use crate::tracer::{descriptor, path};

impl KernelModel {
    /// Returns what the pending call of a thread may touch.
    pub(super) fn footprint(&self, thread: Pid) -> Footprint {
        let nothing = Footprint::default();
        let Some(call) = self.pending(thread) else { return nothing };
        let int = |index: usize| call.entry.arguments[index] as i32;
        // No call follows a symbolic link at the new name.
        let named = (0..).zip(&call.paths);
        let paths: Vec<Named> =
            named.map(|(at, path)| self.resolved(thread, path, at == 0 && call.follows())).collect();
        let first = paths.first();
        let name = call.shape.name;
        match (call.shape.form, call.shape.class) {
            (Form::Open { .. }, _) => match first {
                Some(named) => named.linked(opening(call, &named.path, named.file)),
                None => nothing,
            },
            (Form::Path { .. } | Form::Attribute { .. } | Form::Bind { .. }, class) => match first {
                Some(named) => named.linked(of_path(class, name, named)),
                // The call works on the descriptor itself.
                None => self.through(thread, int(0), class, name),
            },
            (Form::Paths { .. }, _) => match paths.as_slice() {
                [from, to] => from.linked(nothing.doing(&FileOp::Rename {
                    from: &from.path,
                    to: &to.path,
                    files: [from.file, to.file],
                })),
                _ => nothing,
            },
            (Form::Everything, _) | (_, Class::Sync) => nothing,
            (Form::Copy { from, to, .. }, _) => {
                let read = self.through(thread, int(from), Class::Read, name);
                let mut both = self.through(thread, int(to), Class::Write, name);
                both.touched.extend(read.touched);
                both
            }
            (Form::Flock | Form::Fcntl, _) => match (&call.wants, call.asks_about) {
                (Some(wanted), _) => {
                    let locking = self.locking(wanted);
                    match self.open_file(thread, int(0)).filter(|_| call.is_from_end(thread)) {
                        Some(open) => {
                            let opened = self.opened_as(&open);
                            locking.doing(&FileOp::Read { file: open.file, opened: &opened })
                        }
                        None => locking,
                    }
                }
                (None, Some(lock)) => nothing.locking(Locking::Try(lock)),
                (None, None) => nothing,
            },
            (Form::Close, _) => self.closing(thread, &[int(0)]),
            (Form::CloseRange, _) => {
                let (first, last) = (call.entry.arguments[0] as u32, call.entry.arguments[1] as u32);
                let open = self.descriptors_of(thread).into_iter();
                let closed: Vec<i32> =
                    open.filter(|fd| (first..=last).contains(&fd.unsigned_abs())).collect();
                self.closing(thread, &closed)
            }
            (Form::Duplicate { to: Some(to) }, _) => self.closing(thread, &[int(to)]),
            // It is not examined which bytes of which file are shared.
            (Form::Ioctl, _) => Footprint { is_unknown: true, ..nothing },
            (
                Form::Duplicate { to: None }
                | Form::Exit
                | Form::Timer { .. }
                | Form::TidAddress
                | Form::Protect,
                _,
            ) => nothing,
            (Form::Map, _) => self.through(thread, int(4), Class::Read, name),
            (Form::File | Form::Bytes { .. } | Form::Buffer { .. } | Form::Vector { .. }, class) => {
                self.through(thread, int(0), class, name)
            }
        }
    }

    fn resolved(&self, thread: Pid, path: &Path, follows: bool) -> Named {
        let real = follows.then(|| path::followed(thread, path, &self.sandbox)).filter(|real| real != path);
        let found = std::fs::symlink_metadata(real.as_deref().unwrap_or(path)).ok();
        Named {
            path: path::shown(real.as_deref().unwrap_or(path), &self.sandbox),
            file: found.as_ref().map(|found| (found.dev(), found.ino())),
            is_folder: found.is_some_and(|found| found.is_dir()),
            link: real.map(|_| path::shown(path, &self.sandbox)),
        }
    }

    /// Returns what the exit of a process touches: the locks that it releases.
    pub(super) fn footprint_of_exit(&self, thread: Pid) -> Footprint {
        match self.process_id(thread).is_some_and(|process| self.shares_table(process)) {
            true => Footprint::default(),
            false => self.closing(thread, &self.descriptors_of(thread)),
        }
    }

    /// Returns what the start of another program touches: the locks of close-on-exec descriptors. A shared table is
    /// copied first, so that the other processes keep their locks.
    pub(super) fn footprint_of_exec(&self, thread: Pid) -> Footprint {
        let Some(process) = self.process_id(thread).filter(|process| !self.shares_table(*process)) else {
            return Footprint::default();
        };
        let closes =
            |fd: &i32| descriptor::flags(process, *fd).is_some_and(|flags| flags & libc::O_CLOEXEC != 0);
        let closed: Vec<i32> = self.descriptors_of(thread).into_iter().filter(closes).collect();
        self.closing(thread, &closed)
    }

    /// Returns the locks that a client's processes hold.
    pub(super) fn held_by(&self, client: u32) -> Vec<Lock> {
        let is_its = |lock: &&Lock| self.clients_of(lock.owner).contains(&client);
        self.held_locks().iter().filter(is_its).copied().collect()
    }

    /// Returns what a call through a descriptor touches.
    fn through(&self, thread: Pid, fd: i32, class: Class, name: &str) -> Footprint {
        let nothing = Footprint::default();
        let Some(open) = self.open_file(thread, fd) else { return nothing };
        let (file, opened) = (open.file, self.opened_as(&open));
        match class {
            Class::Read if name.starts_with("getdents") => {
                nothing.doing(&FileOp::List { path: folder_name(&opened) })
            }
            // The open determined which file is read. Whether its name refers to another file by now distinguishes a
            // read of old data from one of new data, and `mutual-exclusion` checks that.
            Class::Read => nothing
                .doing(&FileOp::Read { file, opened: &opened })
                .doing(&FileOp::LookUp { path: &opened, file: None }),
            Class::Write => nothing.doing(&FileOp::Write { file, opened: &opened }),
            Class::Attribute => nothing.doing(&FileOp::Change { file }),
            Class::Inspect => {
                let looked =
                    nothing.doing(&FileOp::Inspect { file }).doing(&FileOp::Read { file, opened: &opened });
                // It also reports the number of names in a folder.
                match self.sandbox.real(&opened).is_dir() {
                    true => looked.doing(&FileOp::List { path: folder_name(&opened) }),
                    false => looked,
                }
            }
            _ => nothing,
        }
    }

    fn locking(&self, wanted: &Wanted) -> Footprint {
        let nothing = Footprint::default();
        let Some(lock) = wanted.lock() else {
            let any = Lock {
                file: wanted.file,
                kind: wanted.kind,
                owner: wanted.owner,
                mode: Mode::Exclusive,
                range: wanted.range,
            };
            // Held locks in that range are released.
            let mut table = self.lock_table();
            let given_up = table.release(any.file, any.kind, any.owner, any.range);
            return given_up
                .into_iter()
                .fold(nothing, |footprint, lock| footprint.locking(Locking::Free(lock)));
        };
        if self.is_conversion(&lock) {
            // A `flock` is released before it is requested in another mode.
            let is_old =
                |held: &&Lock| (held.file, held.kind, held.owner) == (lock.file, Kind::Flock, lock.owner);
            let old = self.held_locks().iter().filter(is_old);
            let given_up = old.fold(nothing, |footprint, held| footprint.locking(Locking::Free(*held)));
            return match wanted.waits {
                // It is requested in a step of its own.
                true => given_up,
                false => given_up.locking(self.tried(lock)),
            };
        }
        nothing.locking(if wanted.waits { Locking::Take { lock, waits: true } } else { self.tried(lock) })
    }

    fn tried(&self, lock: Lock) -> Locking {
        match self.obstacles(&lock).is_empty() {
            true => Locking::Take { lock, waits: false },
            false => Locking::Try(lock),
        }
    }

    /// Returns the locks that are released when these descriptors are closed, in this order.
    fn closing(&self, thread: Pid, descriptors: &[i32]) -> Footprint {
        let nothing = Footprint::default();
        let Some(process) = self.process_of(thread) else { return nothing };
        let mut counts = self.description_counts();
        let mut freed: Vec<Lock> = Vec::new();
        for fd in descriptors {
            let Some(open) = self.open_file(thread, *fd) else { continue };
            let left = counts.close(open.description);
            let goes = |held: &&Lock| match held.owner {
                Owner::Process(number) => {
                    number == process.table && held.file == open.file && !open.is_path_alone()
                }
                Owner::Description(description) => left && description == open.description,
            };
            freed.extend(self.held_locks().iter().filter(goes));
        }
        freed.sort();
        freed.dedup();
        freed.into_iter().fold(nothing, |footprint, lock| footprint.locking(Locking::Free(lock)))
    }
}

fn opening(call: &Pending, path: &str, file: Option<FileId>) -> Footprint {
    let nothing = Footprint::default();
    let creates = call.flags & libc::O_CREAT != 0;
    let footprint = match creates {
        true => nothing.doing(&FileOp::Make { path, is_there: file.is_some() }),
        false => nothing.doing(&FileOp::LookUp { path, file }),
    };
    let is_exclusive = creates && call.flags & libc::O_EXCL != 0;
    match call.flags & libc::O_TRUNC != 0 && !is_exclusive {
        true => footprint.doing(&FileOp::Empty { path, file }),
        false => footprint,
    }
}

fn of_path(class: Class, name: &str, named: &Named) -> Footprint {
    let nothing = Footprint::default();
    let (path, file) = (named.path.as_str(), named.file);
    match (class, name) {
        (Class::Name, "unlink" | "unlinkat" | "rmdir") => nothing.doing(&FileOp::Remove { path, file }),
        (Class::Name, _) => nothing.doing(&FileOp::Make { path, is_there: file.is_some() }),
        (Class::Write, _) => {
            nothing.doing(&FileOp::LookUp { path, file }).doing(&FileOp::Empty { path, file })
        }
        (Class::Attribute, _) => {
            let looked_up = nothing.doing(&FileOp::LookUp { path, file });
            file.map_or(looked_up.clone(), |file| looked_up.doing(&FileOp::Change { file }))
        }
        // It also reports the size and the times.
        (Class::Inspect, "stat" | "lstat" | "newfstatat" | "statx") => {
            let looked_up = nothing.doing(&FileOp::LookUp { path, file });
            let told =
                file.map_or(looked_up.clone(), |file| looked_up.doing(&FileOp::Read { file, opened: path }));
            if named.is_folder { told.doing(&FileOp::List { path: folder_name(path) }) } else { told }
        }
        _ => nothing.doing(&FileOp::LookUp { path, file }),
    }
}

/// What a path refers to now.
struct Named {
    /// The name of the file itself, if a link leads to it.
    path: String,
    file: Option<FileId>,
    is_folder: bool,
    /// Name of that link.
    link: Option<String>,
}

impl Named {
    /// Adds the lookup of the link, if one is followed.
    fn linked(&self, footprint: Footprint) -> Footprint {
        match &self.link {
            Some(link) => footprint.doing(&FileOp::LookUp { path: link, file: None }),
            None => footprint,
        }
    }
}

/// Returns the name of a folder as [`FileOp`]s use it for the parent of an entry: the sandbox itself has no name.
fn folder_name(shown: &str) -> &str {
    if shown == "." { "" } else { shown }
}

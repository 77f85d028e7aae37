//! What a call that is about to be made works on: its paths, descriptors and locks, and whether it is visible at all.

use nix::unistd::Pid;

use crate::call::{Argument, Class};
use crate::locks::{END, Kind, Lock, Mode, Owner, Range};
use crate::tracer::mirror::{Mirror, Pending, Wanted};
use crate::tracer::shape::{Flags, Form};
use crate::tracer::{descriptor, memory, names, path};

/// What is kept of the data of one call.
pub(super) const DATA_MAX: usize = 1 << 20;

impl Mirror {
    /// Fills in what the call works on. Nothing where it is not visible.
    pub(super) fn examine(&mut self, thread: Pid, call: &mut Pending) -> Option<()> {
        let arguments = call.entry.arguments;
        let argument = |index: usize| arguments[index];
        // Descriptors and flags are `int`: the upper half of the register is anything.
        let int = |index: usize| argument(index) as i32;
        match call.shape.form {
            Form::Open { folder, path, flags } => {
                let named = self.named(thread, folder.map(int), argument(path))?;
                let flags = match flags {
                    Flags::Argument(index) => int(index),
                    Flags::Behind(index) => memory::word(thread, argument(index))? as i32,
                    Flags::Creat => libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC,
                };
                call.appends = flags & libc::O_APPEND != 0;
                call.is_path = flags & libc::O_PATH != 0;
                call.flags = flags;
                self.add_path(call, named);
                call.look();
                call.arguments.push(Argument::Flags(names::open_flags(flags)));
            }
            Form::Path { folder, path } => {
                let is_empty = memory::bytes(thread, argument(path), 1) == [0];
                // An empty path means the descriptor itself (`AT_EMPTY_PATH`).
                match folder.map(int).filter(|_| is_empty) {
                    Some(descriptor) => self.add_descriptor(thread, call, descriptor)?,
                    None => {
                        let named = self.named(thread, folder.map(int), argument(path))?;
                        self.add_path(call, named);
                    }
                }
            }
            Form::Paths { folders, paths } => {
                let resolved = [0, 1].map(|index| {
                    let text = memory::text(thread, argument(paths[index]));
                    path::resolve(thread, folders[index].map(int), text)
                });
                resolved.iter().find(|path| self.is_visible(path))?;
                for path in resolved {
                    self.add_path(call, path);
                }
            }
            Form::Everything => {}
            Form::File => self.add_descriptor(thread, call, int(0))?,
            Form::Bytes { count } => {
                self.add_descriptor(thread, call, int(0))?;
                call.arguments.push(Argument::Bytes(argument(count)));
            }
            Form::Buffer { address, count } => {
                self.add_descriptor(thread, call, int(0))?;
                let length = usize::try_from(argument(count)).unwrap_or(usize::MAX);
                call.data = Some(memory::bytes(thread, argument(address), length.min(DATA_MAX)));
                call.arguments.push(Argument::Bytes(argument(count)));
            }
            Form::Vector { list, count } => {
                self.add_descriptor(thread, call, int(0))?;
                if call.shape.class == Class::Write {
                    let data = memory::vector(thread, argument(list), argument(count), DATA_MAX);
                    call.arguments.push(Argument::Bytes(data.len() as u64));
                    call.data = Some(data);
                }
            }
            Form::Copy { from, to, .. } => {
                let sides = [from, to].map(|side| self.open_file(thread, int(side)).map(|_| int(side)));
                sides.iter().flatten().next()?;
                for descriptor in sides.into_iter().flatten() {
                    self.add_descriptor(thread, call, descriptor)?;
                }
            }
            Form::Map => {
                // Where `mmap` has them.
                let [protection, flags, descriptor] = [2, 3, 4];
                let is_anonymous = int(flags) & libc::MAP_ANONYMOUS != 0;
                if is_anonymous {
                    return None;
                }
                self.add_descriptor(thread, call, int(descriptor))?;
                call.arguments.push(Argument::Bytes(argument(1)));
                let path = self.path_of(thread, int(descriptor));
                self.not_covered.insert(format!("the store maps {path}: when it looks at that is not seen"));
                if int(flags) & libc::MAP_SHARED != 0 && int(protection) & libc::PROT_WRITE != 0 {
                    self.not_covered.insert(format!(
                        "the store maps {path} shared and writable: such writes are not seen"
                    ));
                }
            }
            Form::Flock => {
                self.adopt(thread, int(0))?;
                self.add_descriptor(thread, call, int(0))?;
                call.arguments.push(Argument::Flags(names::flock_operation(int(1))));
                let open = self.open_file(thread, int(0))?;
                let mode = match int(1) & !libc::LOCK_NB {
                    libc::LOCK_SH => Some(Mode::Shared),
                    libc::LOCK_EX => Some(Mode::Exclusive),
                    _ => None,
                };
                let owner = Owner::Description(open.description);
                let waits = int(1) & libc::LOCK_NB == 0 && may_lock(thread, int(0), None);
                call.wants = Some(Wanted {
                    file: open.file,
                    kind: Kind::Flock,
                    owner,
                    mode,
                    range: Range::ALL,
                    waits,
                });
            }
            Form::Fcntl => self.examine_fcntl(thread, call)?,
            Form::Exit | Form::Timer { .. } | Form::TidAddress => return None,
            Form::Close => self.add_descriptor(thread, call, int(0))?,
            Form::CloseRange => {
                let (first, last) = (argument(0) as u32, argument(1) as u32);
                let open = self.process_of(thread)?.open.keys().copied();
                let range: Vec<i32> = open.filter(|fd| (first..=last).contains(&fd.unsigned_abs())).collect();
                range.first()?;
                for descriptor in range {
                    self.add_descriptor(thread, call, descriptor)?;
                }
            }
            Form::Duplicate { to } => {
                let to = to.map(int);
                let from_known = self.add_descriptor(thread, call, int(0)).is_some();
                let over_known = to.is_some_and(|to| self.open_file(thread, to).is_some());
                if !from_known && !over_known {
                    return None;
                }
                call.arguments.extend(to.map(|to| Argument::Number(to.into())));
            }
        }
        Some(())
    }

    fn examine_fcntl(&mut self, thread: Pid, call: &mut Pending) -> Option<()> {
        let (fd, command) = (call.entry.arguments[0] as i32, call.entry.arguments[1] as i32);
        match command {
            libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => {
                self.add_descriptor(thread, call, fd)?;
                call.arguments.push(Argument::Flags(names::fcntl_command(command).to_owned()));
            }
            libc::F_SETLK | libc::F_SETLKW | libc::F_OFD_SETLK | libc::F_OFD_SETLKW => {
                self.adopt(thread, fd)?;
                self.add_descriptor(thread, call, fd)?;
                let open = self.open_file(thread, fd)?;
                let is_ofd = matches!(command, libc::F_OFD_SETLK | libc::F_OFD_SETLKW);
                let (lock_type, range) = record_lock(thread, fd, call.entry.arguments[2])?;
                let mode = match lock_type {
                    libc::F_RDLCK => Some(Mode::Shared),
                    libc::F_WRLCK => Some(Mode::Exclusive),
                    _ => None,
                };
                let (kind, owner) = if is_ofd {
                    (Kind::Ofd, Owner::Description(open.description))
                } else {
                    (Kind::Posix, Owner::Process(self.process_of(thread)?.number))
                };
                call.arguments.push(Argument::Flags(names::fcntl_command(command).to_owned()));
                call.arguments.push(Argument::Flags(format!(
                    "{} {}..{}",
                    names::lock_type(lock_type),
                    range.start,
                    if range.end == END { "end".to_owned() } else { range.end.to_string() }
                )));
                let waits =
                    matches!(command, libc::F_SETLKW | libc::F_OFD_SETLKW) && may_lock(thread, fd, mode);
                call.wants = Some(Wanted { file: open.file, kind, owner, mode, range, waits });
            }
            libc::F_GETLK | libc::F_OFD_GETLK => {
                self.add_descriptor(thread, call, fd)?;
                let open = self.open_file(thread, fd)?;
                let (lock_type, range) = record_lock(thread, fd, call.entry.arguments[2])?;
                let mode = if lock_type == libc::F_RDLCK { Mode::Shared } else { Mode::Exclusive };
                let (kind, owner) = match command {
                    libc::F_OFD_GETLK => (Kind::Ofd, Owner::Description(open.description)),
                    _ => (Kind::Posix, Owner::Process(self.process_of(thread)?.number)),
                };
                call.arguments.push(Argument::Flags(names::fcntl_command(command).to_owned()));
                call.asks_about = Some(Lock { file: open.file, kind, owner, mode, range });
            }
            _ => return None,
        }
        Some(())
    }
}

impl Pending {
    /// Looks where a lock lies that is counted from the end of its file, or from where its descriptor stands.
    pub(super) fn look_at_range(&mut self, thread: Pid) {
        let (fd, address) = (self.entry.arguments[0] as i32, self.entry.arguments[2]);
        if let (Form::Fcntl, Some(wanted)) = (self.shape.form, &mut self.wants)
            && let Some((_, range)) = record_lock(thread, fd, address)
        {
            wanted.range = range;
        }
    }

    /// Whether where its lock lies depends on what is in the file.
    pub(super) fn is_from_end(&self, thread: Pid) -> bool {
        let whence =
            || memory::word(thread, self.entry.arguments[2]).map(|head| i32::from((head >> 16) as i16));
        self.shape.form == Form::Fcntl && self.wants.is_some() && whence() == Some(libc::SEEK_END)
    }
}

/// Whether the kernel would take this lock through a descriptor at all: a record lock must fit how it was opened, and
/// one that stands for a path alone has no locks. What it refuses at once is not waited for.
fn may_lock(thread: Pid, fd: i32, mode: Option<Mode>) -> bool {
    let Some(flags) = descriptor::flags(thread, fd) else { return true };
    let access = flags & libc::O_ACCMODE;
    let fits = match mode {
        Some(Mode::Shared) => access != libc::O_WRONLY,
        Some(Mode::Exclusive) => access != libc::O_RDONLY,
        None => true,
    };
    flags & libc::O_PATH == 0 && fits
}

/// Type and range of a record lock: `struct flock` has `l_type`, `l_whence`, and after padding `l_start`, `l_len`.
fn record_lock(thread: Pid, fd: i32, address: u64) -> Option<(i32, Range)> {
    let head = memory::word(thread, address)?;
    let (lock_type, whence) = (i32::from(head as i16), i32::from((head >> 16) as i16));
    let start = memory::word(thread, address + 8)?.cast_signed();
    let length = memory::word(thread, address + 16)?.cast_signed();
    let base = match whence {
        libc::SEEK_CUR => descriptor::position(thread, fd)?,
        libc::SEEK_END => descriptor::size(thread, fd)?,
        _ => 0,
    };
    let start = base.cast_signed().checked_add(start)?;
    let (first, last) = match length {
        0 => (start, i64::MAX),
        length if length > 0 => (start, start.checked_add(length)? - 1),
        // A negative length means the bytes before.
        length => (start.checked_add(length)?, start - 1),
    };
    Some((lock_type, Range { start: u64::try_from(first).ok()?, end: u64::try_from(last).ok()? }))
}

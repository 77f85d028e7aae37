//! Decodes a pending call: its paths, descriptors and locks, and whether it is visible.

use std::path::Path;

use nix::unistd::Pid;

use crate::call::{Argument, Class};
use crate::locks::{END, Kind, Lock, Mode, Owner, Range};
use crate::tracer::filter::FICLONE;
use crate::tracer::kernel::{KernelModel, Pending, Wanted};
use crate::tracer::path::Meant;
use crate::tracer::shape::{Flags, Form, Of, Value};
use crate::tracer::{descriptor, memory, names, path};

/// Maximum number of bytes kept of the data of one call.
pub(super) const DATA_MAX: usize = 1 << 20;
/// `RESOLVE_IN_ROOT` of openat2(2).
const RESOLVE_IN_ROOT: u64 = 0x10;
/// Length of `struct sockaddr_un`, with some slack.
const ADDRESS_MAX: usize = 128;

impl KernelModel {
    /// Decodes what the call works on; nothing if it is not visible.
    pub(super) fn examine(&mut self, thread: Pid, call: &mut Pending) -> Option<()> {
        let arguments = call.entry.arguments;
        let argument = |index: usize| arguments[index];
        // Descriptors and flags are `int`: the upper half of the register is undefined.
        let int = |index: usize| argument(index) as i32;
        match call.shape.form {
            Form::Open { folder, path, flags } => {
                let mut is_root = false;
                let flags = match flags {
                    Flags::Argument(index) => int(index),
                    Flags::Behind(index) => {
                        // The mode and the resolve flags follow the flags.
                        let resolve = memory::word(thread, argument(index).saturating_add(16));
                        is_root = resolve.is_some_and(|resolve| resolve & RESOLVE_IN_ROOT != 0);
                        memory::word(thread, argument(index))? as i32
                    }
                    Flags::Creat => libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC,
                };
                call.appends = flags & libc::O_APPEND != 0;
                call.is_path = flags & libc::O_PATH != 0;
                call.flags = flags;
                let meant = Meant { folder: folder.map(int), is_root, follows: call.follows() };
                let named = self.named(thread, call, meant, argument(path))?;
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
                        let follows = call.follows();
                        let meant = Meant { folder: folder.map(int), follows, ..Meant::default() };
                        let named = self.named(thread, call, meant, argument(path))?;
                        self.add_path(call, named);
                    }
                }
            }
            Form::Paths { folders, paths } => {
                let meant = [0, 1].map(|index| Meant {
                    folder: folders[index].map(int),
                    // No call follows a symbolic link at the new name.
                    follows: index == 0 && call.follows(),
                    ..Meant::default()
                });
                for path in self.two_named(thread, call, meant, paths.map(argument))? {
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
                let length = memory::vector_length(thread, argument(list), argument(count));
                call.arguments.push(Argument::Bytes(length));
                if call.shape.class == Class::Write {
                    call.data = Some(memory::vector(thread, argument(list), argument(count), DATA_MAX));
                }
                if call.vector_flags() != 0 {
                    call.arguments.push(Argument::Flags(names::vector_flags(call.vector_flags())));
                }
            }
            Form::Copy { from, to, .. } => {
                for side in [from, to] {
                    self.know(thread, int(side));
                }
                let sides = [from, to].map(|side| self.open_file(thread, int(side)).map(|_| int(side)));
                sides.iter().flatten().next()?;
                for descriptor in sides.into_iter().flatten() {
                    self.add_descriptor(thread, call, descriptor)?;
                }
            }
            Form::Map => {
                // Argument positions in `mmap`.
                let [protection, flags, descriptor] = [2, 3, 4];
                let is_anonymous = int(flags) & libc::MAP_ANONYMOUS != 0;
                if is_anonymous {
                    return None;
                }
                self.add_descriptor(thread, call, int(descriptor))?;
                call.arguments.push(Argument::Bytes(argument(1)));
                let path = self.path_of(thread, int(descriptor));
                self.not_covered.insert(format!("the store maps {path}: when it looks at that is not seen"));
                self.has_shared_map |= int(flags) & libc::MAP_SHARED != 0;
                if int(flags) & libc::MAP_SHARED != 0 && int(protection) & libc::PROT_WRITE != 0 {
                    self.not_covered.insert(map_is_written(&path));
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
            Form::Attribute { of, name, value } => {
                let is_empty = of == Of::At && memory::bytes(thread, argument(1), 1) == [0];
                match of {
                    Of::Descriptor => self.add_descriptor(thread, call, int(0))?,
                    Of::At if is_empty => self.add_descriptor(thread, call, int(0))?,
                    Of::At => {
                        let follows = call.follows();
                        let meant = Meant { folder: Some(int(0)), follows, ..Meant::default() };
                        let named = self.named(thread, call, meant, argument(1))?;
                        self.add_path(call, named);
                    }
                    Of::Path => {
                        let meant = Meant { follows: call.follows(), ..Meant::default() };
                        let named = self.named(thread, call, meant, argument(0))?;
                        self.add_path(call, named);
                    }
                }
                if let Some(name) = name {
                    let name = memory::text(thread, argument(name));
                    call.arguments.push(Argument::Flags(String::from_utf8_lossy(&name).into_owned()));
                }
                let stands = match value {
                    Some(Value::Plain { address, length }) => Some((argument(address), argument(length))),
                    // `struct xattr_args`: the address, and the length in four bytes.
                    Some(Value::Behind(index)) => {
                        let word = |at: u64| memory::word(thread, argument(index).saturating_add(at));
                        Some((word(0)?, word(8)? & u64::from(u32::MAX)))
                    }
                    None => None,
                };
                if let Some((address, length)) = stands {
                    let kept = usize::try_from(length).unwrap_or(usize::MAX).min(DATA_MAX);
                    call.data = Some(memory::bytes(thread, address, kept));
                    call.arguments.push(Argument::Bytes(length));
                }
            }
            Form::Bind { address, length } => {
                let length = usize::try_from(argument(length)).unwrap_or(0).min(ADDRESS_MAX);
                let socket = memory::bytes(thread, argument(address), length);
                let text = socket_path(&socket)?;
                let path = self.looked_up(thread, text, Meant::default());
                if !self.is_visible(&path) {
                    return None;
                }
                self.add_path(call, path);
            }
            Form::Ioctl => {
                // The other file is the third argument, or the first field of what it points to.
                let other = match argument(1) as u32 {
                    FICLONE => int(2),
                    _ => memory::word(thread, argument(2))? as i32,
                };
                let sides = [int(0), other].map(|side| self.add_descriptor(thread, call, side));
                sides.iter().flatten().next()?;
            }
            Form::Protect => {
                self.note_writable(thread, argument(0), argument(1));
                return None;
            }
            Form::Close => {
                let is_known = self.add_descriptor(thread, call, int(0));
                self.forget_elsewhere(thread, |fd| *fd == int(0));
                is_known?;
            }
            Form::CloseRange => {
                let (first, last) = (argument(0) as u32, argument(1) as u32);
                let is_in = |fd: &i32| (first..=last).contains(&fd.unsigned_abs());
                for fd in descriptor::all(thread).into_iter().filter(is_in) {
                    self.know(thread, fd);
                }
                self.forget_elsewhere(thread, is_in);
                let range: Vec<i32> = self.descriptors_of(thread).into_iter().filter(is_in).collect();
                range.first()?;
                for descriptor in range {
                    self.add_descriptor(thread, call, descriptor)?;
                }
            }
            Form::Duplicate { to } => {
                let to = to.map(int);
                if let Some(to) = to {
                    self.know(thread, to);
                    self.forget_elsewhere(thread, |fd| *fd == to);
                }
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

    /// Handles memory that becomes writable: it may include a shared map of a file.
    fn note_writable(&mut self, thread: Pid, address: u64, length: u64) {
        if !self.has_shared_map {
            return;
        }
        let maps = std::fs::read_to_string(format!("/proc/{thread}/maps")).unwrap_or_default();
        for path in shared_maps(&maps, address, address.saturating_add(length)) {
            let path = Path::new(path);
            if self.is_visible(path) {
                let path = path::shown(path, &self.sandbox);
                self.not_covered.insert(map_is_written(&path));
            }
        }
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
                    (Kind::Posix, Owner::Process(self.process_of(thread)?.table))
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
                    _ => (Kind::Posix, Owner::Process(self.process_of(thread)?.table)),
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
    /// Updates the range of a lock that is relative to the end of its file or to the position of its descriptor.
    pub(super) fn look_at_range(&mut self, thread: Pid) {
        let (fd, address) = (self.entry.arguments[0] as i32, self.entry.arguments[2]);
        if let (Form::Fcntl, Some(wanted)) = (self.shape.form, &mut self.wants)
            && let Some((_, range)) = record_lock(thread, fd, address)
        {
            wanted.range = range;
        }
    }

    /// Whether the position of its lock depends on the content of the file.
    pub(super) fn is_from_end(&self, thread: Pid) -> bool {
        let whence =
            || memory::word(thread, self.entry.arguments[2]).map(|head| i32::from((head >> 16) as i16));
        self.shape.form == Form::Fcntl && self.wants.is_some() && whence() == Some(libc::SEEK_END)
    }
}

fn map_is_written(path: &str) -> String {
    format!("the store maps {path} shared and writable: such writes are not seen")
}

/// Returns the files that are mapped shared anywhere from `start` to `end`, from lines of proc_pid_maps(5).
fn shared_maps(maps: &str, start: u64, end: u64) -> impl Iterator<Item = &str> {
    let address = |text: &str| u64::from_str_radix(text, 16).ok();
    maps.lines().filter_map(move |line| {
        let (range, rest) = line.split_once(' ')?;
        let (first, last) = range.split_once('-')?;
        let overlaps = address(first)? < end && address(last)? > start;
        let is_shared = rest.as_bytes().get(3) == Some(&b's');
        // Permissions, offset, device, inode, and the path after spaces.
        let path = rest.splitn(5, ' ').nth(4)?.trim_start();
        (overlaps && is_shared).then_some(path)
    })
}

/// Returns the path in the address of a Unix socket, if any: `struct sockaddr_un` is a family of two bytes and a path.
fn socket_path(address: &[u8]) -> Option<Vec<u8>> {
    let (family, path) = address.split_first_chunk::<2>()?;
    let is_unix = i32::from(u16::from_ne_bytes(*family)) == libc::AF_UNIX;
    let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
    // An address that begins with NUL is an abstract name, and an empty one is chosen by the kernel.
    (is_unix && !path.is_empty()).then(|| path.to_vec())
}

/// Whether the kernel accepts this lock through a descriptor at all: a record lock must match the access mode, and an
/// `O_PATH` descriptor has no locks. A lock that is refused at once is not waited for.
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

/// Decodes a record lock: `struct flock` has `l_type`, `l_whence`, and after padding `l_start`, `l_len`.
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
        // A negative length means the bytes before the start.
        length => (start.checked_add(length)?, start - 1),
    };
    Some((lock_type, Range { start: u64::try_from(first).ok()?, end: u64::try_from(last).ok()? }))
}

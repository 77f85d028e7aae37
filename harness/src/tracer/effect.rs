//! Decodes a completed call's file-system effect.

use std::fs::Metadata;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use crate::call::{Argument, Class, Effect, Object, Special};
use crate::tracer::examine::DATA_MAX;
use crate::tracer::kernel::{KernelModel, Pending};
use crate::tracer::shape::Form;
use crate::tracer::{descriptor, memory, names, path};

/// Name of a file without a name.
pub(super) const UNNAMED: &str = "(no name)";
/// Extended attribute that holds an access control list.
const ACCESS_LIST: &str = "system.posix_acl_access";

impl KernelModel {
    /// Decodes the effect of a call that has returned `value`; nothing if it changed and read nothing.
    pub(super) fn effect(&mut self, thread: Pid, call: &Pending, value: i64) -> Option<Effect> {
        let file = call.objects.iter().find_map(|object| match object {
            Object::File(number) => Some(*number),
            _ => None,
        });
        let name = call.shape.name;
        if call.shape.class == Class::Inspect {
            return self.size_read(call, file).map(|file| Effect::SizeRead { file });
        }
        if names::unknown_vector_flags(call.vector_flags()) != 0 {
            return Some(Effect::Other);
        }
        let shown = |index: usize| call.paths.get(index).map(|path| path::shown(path, &self.sandbox));
        match (call.shape.class, call.shape.form) {
            (Class::Open, Form::Open { .. }) if call.is_unnamed() => {
                Some(Effect::CreatedUnnamed { file: file?, mode: descriptor::mode(thread, value as i32)? })
            }
            (Class::Open, Form::Open { .. }) => {
                let (path, file) = (shown(0)?, file?);
                // Whether the file existed is known from before the call; if it is empty now, the call emptied it.
                let was_new = call.creates && call.was_missing;
                Some(match (was_new, call.creates) {
                    (true, _) => Effect::Created { mode: mode_of(call.paths.first()?), path, file },
                    (false, true) if !call.was_empty => Effect::Resized { file, size: 0 },
                    (false, _) => Effect::Opened { path, file },
                })
            }
            (Class::Read, Form::Map) => {
                let (length, offset) = (call.entry.arguments[1], call.entry.arguments[5]);
                let size = descriptor::size(thread, call.entry.arguments[4] as i32);
                let at_end = size.is_none_or(|size| offset.saturating_add(length) >= size);
                Some(Effect::Read { file: file?, offset: Some(offset), length, at_end })
            }
            (Class::Read, Form::Bytes { .. } | Form::Vector { .. }) => {
                let length = u64::try_from(value).ok()?;
                let asked = call.arguments.iter().find_map(|argument| match argument {
                    Argument::Bytes(count) => Some(*count),
                    _ => None,
                });
                // A read that must not wait may be short anywhere.
                let may_stop = call.vector_flags() & libc::RWF_NOWAIT != 0;
                let at_end = !may_stop && asked.is_some_and(|asked| length < asked);
                let (offset, _) = placed(thread, call, length);
                Some(Effect::Read { file: file?, offset, length, at_end })
            }
            (Class::Write, Form::Copy { from, to, count }) => {
                let length = u64::try_from(value).ok()?;
                // Copying out of the sandbox changes nothing in it.
                let Some(open) = self.open_file(thread, call.entry.arguments[to] as i32) else {
                    let offset = copied_at(thread, call, from, length);
                    let at_end = length == 0 && call.entry.arguments[count] > 0;
                    return Some(Effect::Read { file: file?, offset, length, at_end });
                };
                let offset = copied_at(thread, call, to, length);
                let file = self.files.get(&open.file)?.0;
                Some(Effect::Written { file, offset, length, appends: open.appends })
            }
            (Class::Write, _) if name == "fallocate" && call.entry.arguments[1] == 0 => {
                let size = descriptor::size(thread, call.entry.arguments[0] as i32)?;
                Some(Effect::Resized { file: file?, size })
            }
            // Space allocated without changing the length changes nothing that can be read.
            (Class::Write, _)
                if name == "fallocate" && call.entry.arguments[1] == libc::FALLOC_FL_KEEP_SIZE as u64 =>
            {
                None
            }
            (Class::Write, Form::Buffer { .. } | Form::Vector { .. }) => {
                let length = u64::try_from(value).ok()?;
                let (offset, appends) = placed(thread, call, length);
                Some(Effect::Written { file: file?, offset, length, appends })
            }
            (Class::Write, _) if name == "ftruncate" => {
                Some(Effect::Resized { file: file?, size: call.entry.arguments[1] })
            }
            (Class::Write, Form::Path { .. }) => {
                let size = call.entry.arguments[1];
                let path = call.paths.first()?;
                let known = std::fs::metadata(path).ok().and_then(|found| self.number_of(path, &found));
                Some(known.map_or(Effect::Other, |file| Effect::Resized { file, size }))
            }
            (Class::Name, Form::Paths { .. }) if name.starts_with("rename") => {
                let (from, to) = (shown(0)?, shown(1)?);
                let flags = if name == "renameat2" { call.entry.arguments[4] as u32 } else { 0 };
                Some(match flags & !libc::RENAME_NOREPLACE {
                    0 => Effect::Renamed { from, to },
                    libc::RENAME_EXCHANGE => Effect::Exchanged { from, to },
                    _ => Effect::Other,
                })
            }
            (Class::Name, Form::Paths { .. }) => {
                let found = std::fs::symlink_metadata(call.paths.get(1)?).ok();
                let known = found.and_then(|found| self.files.get(&(found.dev(), found.ino())));
                Some(Effect::Linked { from: shown(0)?, to: shown(1)?, file: known.map(|(file, _)| *file) })
            }
            (Class::Name, Form::Bind { .. }) => Some(Effect::SpecialMade {
                mode: mode_of(call.paths.first()?),
                path: shown(0)?,
                special: Special::Socket,
            }),
            (Class::Name, Form::Path { .. }) if name.starts_with("mknod") => {
                let (path, shown) = (call.paths.first()?, shown(0)?);
                let found = std::fs::symlink_metadata(path).ok()?;
                let mode = found.permissions().mode() & 0o7777;
                let kind = found.file_type();
                Some(match self.number_of(path, &found) {
                    Some(file) => Effect::Created { path: shown, file, mode },
                    None if kind.is_fifo() => {
                        Effect::SpecialMade { path: shown, special: Special::Fifo, mode }
                    }
                    None if kind.is_socket() => {
                        Effect::SpecialMade { path: shown, special: Special::Socket, mode }
                    }
                    None => Effect::Other,
                })
            }
            (Class::Name, Form::Path { .. }) => {
                let path = shown(0)?;
                let removes_folder =
                    name == "unlinkat" && call.entry.arguments[2] as i32 & libc::AT_REMOVEDIR != 0;
                Some(match name {
                    "rmdir" => Effect::FolderRemoved { path },
                    _ if removes_folder => Effect::FolderRemoved { path },
                    "symlink" | "symlinkat" => {
                        let to = memory::text(thread, call.entry.arguments[0]);
                        Effect::SymbolicLinked { path, to: String::from_utf8_lossy(&to).into_owned() }
                    }
                    "unlink" | "unlinkat" => Effect::Unlinked { path },
                    "mkdir" | "mkdirat" => Effect::FolderMade { mode: mode_of(call.paths.first()?), path },
                    _ => Effect::Other,
                })
            }
            (Class::Attribute, Form::Attribute { .. }) => self.attribute_effect(thread, call, file),
            (Class::Attribute, _) if name.contains("chmod") => {
                let mode = self.mode_now(thread, call)?;
                Some(Effect::ModeSet { path: self.meant(call, file)?, mode, file })
            }
            // The owner is set to the one that it has anyway.
            (Class::Attribute, _) if name.contains("chown") && is_own(call) => None,
            // Times are not part of the state that is laid out again.
            (Class::Attribute, _) if name.starts_with("utime") || name == "futimesat" => None,
            (Class::Write | Class::Attribute, _) => Some(Effect::Other),
            _ => None,
        }
    }

    /// Returns the bytes copied by a call that has just returned `count`; nothing if they are too many to keep.
    pub(super) fn copied(&self, thread: Pid, call: &Pending, count: i64) -> Option<Vec<u8>> {
        let Form::Copy { to, .. } = call.shape.form else { return None };
        let count = usize::try_from(count).ok().filter(|count| self.is_detailed && *count <= DATA_MAX)?;
        let offset = copied_at(thread, call, to, count as u64)?;
        let fd = call.entry.arguments[to] as i32;
        let file = std::fs::File::open(format!("/proc/{thread}/fd/{fd}")).ok()?;
        let mut data = vec![0; count];
        file.read_exact_at(&mut data, offset).ok()?;
        Some(data)
    }

    /// Returns the offset of the write that a thread is about to make.
    pub(super) fn next_offset(&self, thread: Pid) -> Option<u64> {
        let call = self.pending(thread)?;
        let fd = call.entry.arguments[0] as i32;
        let (position, flags) = descriptor::status(thread, fd)?;
        match call.appends_with(flags) {
            true => descriptor::size(thread, fd),
            false => Some(call.offset_argument().unwrap_or(position)),
        }
    }

    /// Returns the file whose size an inspecting call has just read. It gets a number if it has none, because a `stat`
    /// may come before the first open.
    fn size_read(&mut self, call: &Pending, file: Option<u32>) -> Option<u32> {
        let argument = |index: usize| call.entry.arguments[index];
        match call.shape.name {
            "fstat" => file,
            "lseek" => {
                let whence = argument(2) as i32;
                file.filter(|_| matches!(whence, libc::SEEK_END | libc::SEEK_DATA | libc::SEEK_HOLE))
            }
            "statx" if argument(3) as u32 & libc::STATX_SIZE == 0 => None,
            "stat" | "lstat" | "newfstatat" | "statx" => {
                let Some(path) = call.paths.first() else { return file };
                let found = match call.follows() {
                    true => std::fs::metadata(path),
                    false => std::fs::symlink_metadata(path),
                };
                self.number_of(path, &found.ok()?)
            }
            _ => None,
        }
    }

    /// Returns the number of the file at a path, which gets one if it has none; nothing if it is not a regular file.
    fn number_of(&mut self, path: &Path, found: &Metadata) -> Option<u32> {
        let next = u32::try_from(self.files.len() + 1).unwrap_or(u32::MAX);
        let shown = path::shown(path, &self.sandbox);
        let known = || self.files.entry((found.dev(), found.ino())).or_insert((next, shown)).0;
        found.is_file().then(known)
    }

    /// Returns the name of what a call works on: its path argument, or the name of its file.
    fn meant(&self, call: &Pending, file: Option<u32>) -> Option<String> {
        let named = call.paths.first().map(|path| path::shown(path, &self.sandbox));
        let called =
            || self.files.values().find(|(number, _)| Some(*number) == file).map(|(_, name)| name.clone());
        named.or_else(called)
    }

    /// Returns the permissions of what a call works on.
    fn mode_now(&self, thread: Pid, call: &Pending) -> Option<u32> {
        match call.paths.first() {
            Some(path) => Some(mode_of(path)),
            None => descriptor::mode(thread, call.entry.arguments[0] as i32),
        }
    }

    fn attribute_effect(&self, thread: Pid, call: &Pending, file: Option<u32>) -> Option<Effect> {
        let path = self.meant(call, file)?;
        let name = call.attribute()?.to_owned();
        if call.shape.name.contains("remove") {
            return Some(Effect::AttributeRemoved { path, file, name });
        }
        if !call.sets_access_list() {
            return Some(Effect::AttributeSet { path, file, name, mode: None });
        }
        // GNU sed, cp and mv set the mode of a new file by an access control list that says no more than the mode.
        let mode = self.mode_now(thread, call)?;
        Some(match call.data {
            Some(_) => Effect::AttributeSet { path, file, name, mode: Some(mode) },
            None => Effect::ModeSet { path, mode, file },
        })
    }

    /// Returns the access control list that the kernel keeps after a set; nothing if it says no more than the mode.
    pub(super) fn access_list(&self, thread: Pid, call: &Pending) -> Option<Vec<u8>> {
        let through = || PathBuf::from(format!("/proc/{thread}/fd/{}", call.entry.arguments[0] as i32));
        let path = call.paths.first().cloned().unwrap_or_else(through);
        let mut value = vec![0; DATA_MAX];
        let length = rustix::fs::getxattr(path, ACCESS_LIST, &mut value).ok()?;
        value.truncate(length);
        Some(value)
    }

    /// Gives a file without a name its first one.
    pub(super) fn linked(&mut self, paths: &[PathBuf]) {
        let Some(to) = paths.get(1) else { return };
        let Ok(found) = std::fs::symlink_metadata(to) else { return };
        let shown = path::shown(to, &self.sandbox);
        if let Some((_, name)) = self.files.get_mut(&(found.dev(), found.ino()))
            && name == UNNAMED
        {
            *name = shown;
        }
    }
}

impl Pending {
    /// Whether it opens a file without a name.
    pub(super) fn is_unnamed(&self) -> bool {
        self.flags & libc::O_TMPFILE == libc::O_TMPFILE
    }

    /// Whether it exchanges two names.
    pub(super) fn exchanges(&self) -> bool {
        self.shape.name == "renameat2" && self.entry.arguments[4] as u32 == libc::RENAME_EXCHANGE
    }

    /// Returns the name of the extended attribute that it works on.
    fn attribute(&self) -> Option<&str> {
        self.arguments.iter().find_map(|argument| match argument {
            Argument::Flags(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Whether it sets the access control list, which includes the permissions.
    pub(super) fn sets_access_list(&self) -> bool {
        self.shape.name.contains("set") && self.attribute() == Some(ACCESS_LIST)
    }

    /// Returns the flags of a `preadv2` or `pwritev2`, and none for any other call.
    pub(super) fn vector_flags(&self) -> i32 {
        match self.shape.name {
            "preadv2" | "pwritev2" => self.entry.arguments[5] as i32,
            _ => 0,
        }
    }

    /// Whether it writes at the end of the file regardless of its offset, through a descriptor with these flags.
    fn appends_with(&self, flags: i32) -> bool {
        let own = self.vector_flags();
        let by_descriptor = flags & libc::O_APPEND != 0 && own & libc::RWF_NOAPPEND == 0;
        self.shape.class == Class::Write && (own & libc::RWF_APPEND != 0 || by_descriptor)
    }

    /// Returns the offset argument of a call; such a call leaves the position of its descriptor unchanged. For calls
    /// with flags, −1 means the position.
    fn offset_argument(&self) -> Option<u64> {
        let offset = self.entry.arguments[3];
        match self.shape.name {
            "pread64" | "preadv" | "pwrite64" | "pwritev" => Some(offset),
            "preadv2" | "pwritev2" => Some(offset).filter(|offset| *offset != u64::MAX),
            _ => None,
        }
    }
}

/// Returns the offset of the `length` bytes that a call has just read or written, and whether they were appended.
fn placed(thread: Pid, call: &Pending, length: u64) -> (Option<u64>, bool) {
    let fd = call.entry.arguments[0] as i32;
    // The current flags are read, because `F_SETFL` may have changed them.
    let Some((position, flags)) = descriptor::status(thread, fd) else { return (None, false) };
    let appends = call.appends_with(flags);
    let offset = match call.offset_argument() {
        // With `O_APPEND` Linux appends whatever the offset (pwrite(2), BUGS), and does not move the position.
        Some(_) if appends => descriptor::size(thread, fd).and_then(|size| size.checked_sub(length)),
        Some(offset) => Some(offset),
        None => position.checked_sub(length),
    };
    (offset, appends)
}

/// Returns the start offset of one side of a copy of `length` bytes that has just returned: from the pointer, if one
/// was given, otherwise from the descriptor's position.
fn copied_at(thread: Pid, call: &Pending, side: usize, length: u64) -> Option<u64> {
    let pointer = match (call.shape.name, side) {
        // `sendfile` has a pointer only for the side that it reads.
        ("sendfile", 0) => 0,
        ("sendfile", _) => call.entry.arguments[2],
        _ => call.entry.arguments[side + 1],
    };
    let end = match pointer {
        0 => descriptor::position(thread, call.entry.arguments[side] as i32)?,
        address => memory::word(thread, address)?,
    };
    end.checked_sub(length)
}

/// Whether a `chown` sets the user and the group that all our files have.
fn is_own(call: &Pending) -> bool {
    let first = if call.shape.name == "fchownat" { 2 } else { 1 };
    let is = |value: u64, own: u32| value as u32 == own || value as u32 == u32::MAX;
    is(call.entry.arguments[first], nix::unistd::geteuid().as_raw())
        && is(call.entry.arguments[first + 1], nix::unistd::getegid().as_raw())
}

/// Returns the current permissions at a path.
fn mode_of(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).map_or(0, |metadata| metadata.permissions().mode() & 0o7777)
}

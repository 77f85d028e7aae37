//! What a call that has returned came to in the sandbox.

use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;

use nix::unistd::Pid;

use crate::call::{Class, Effect, Object};
use crate::tracer::examine::DATA_MAX;
use crate::tracer::mirror::{Mirror, Pending};
use crate::tracer::shape::Form;
use crate::tracer::{descriptor, memory, path};

impl Mirror {
    /// What a call came to that has returned `value`; nothing where it changed and read nothing.
    pub(super) fn effect(&self, thread: Pid, call: &Pending, value: i64) -> Option<Effect> {
        let file = call.objects.iter().find_map(|object| match object {
            Object::File(number) => Some(*number),
            _ => None,
        });
        let shown = |index: usize| call.paths.get(index).map(|path| path::shown(path, &self.sandbox));
        let name = call.shape.name;
        match (call.shape.class, call.shape.form) {
            (Class::Open, Form::Open { .. }) => {
                let (path, file) = (shown(0)?, file?);
                // Whether there was a file before is known from before the call; what is empty now was emptied then.
                let was_new = call.creates && call.was_missing;
                Some(match (was_new, call.creates) {
                    (true, _) => Effect::Created { mode: mode_of(call.paths.first()?), path, file },
                    (false, true) if !call.was_empty => Effect::Resized { file, size: 0 },
                    (false, _) => Effect::Opened { path, file },
                })
            }
            (Class::Read, _) if name != "getdents64" => Some(Effect::Read { file: file? }),
            (Class::Write, Form::Copy { to, .. }) => {
                let length = u64::try_from(value).ok()?;
                // What is copied out of the sandbox changes nothing in there.
                let Some(open) = self.open_file(thread, call.entry.arguments[to] as i32) else {
                    return Some(Effect::Read { file: file? });
                };
                let offset = if self.is_detailed { copied_to(thread, call, to, length) } else { None };
                Some(Effect::Written { file: self.files.get(&open.file)?.0, offset, length })
            }
            (Class::Write, _) if name == "fallocate" && call.entry.arguments[1] == 0 => {
                let size = descriptor::size(thread, call.entry.arguments[0] as i32)?;
                Some(Effect::Resized { file: file?, size })
            }
            // Room that is set aside without a new length changes nothing that can be read.
            (Class::Write, _)
                if name == "fallocate" && call.entry.arguments[1] == libc::FALLOC_FL_KEEP_SIZE as u64 =>
            {
                None
            }
            (Class::Write, Form::Buffer { .. } | Form::Vector { .. }) => {
                let length = u64::try_from(value).ok()?;
                let offset = if self.is_detailed { self.offset(thread, call, length) } else { None };
                Some(Effect::Written { file: file?, offset, length })
            }
            (Class::Write, _) if name == "ftruncate" => {
                Some(Effect::Resized { file: file?, size: call.entry.arguments[1] })
            }
            (Class::Write, Form::Path { .. }) => {
                let size = call.entry.arguments[1];
                let path = call.paths.first()?;
                let known = self.files.values().find(|(_, name)| *name == path::shown(path, &self.sandbox));
                Some(known.map_or(Effect::Other, |(file, _)| Effect::Resized { file: *file, size }))
            }
            (Class::Name, Form::Paths { .. }) if name.starts_with("rename") => {
                let is_plain =
                    name != "renameat2" || call.entry.arguments[4] as u32 & !libc::RENAME_NOREPLACE == 0;
                let (from, to) = (shown(0)?, shown(1)?);
                Some(if is_plain { Effect::Renamed { from, to } } else { Effect::Other })
            }
            (Class::Name, Form::Paths { .. }) => Some(Effect::Linked { from: shown(0)?, to: shown(1)? }),
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
            (Class::Attribute, Form::Path { .. }) if name.contains("chmod") => {
                Some(Effect::ModeSet { mode: mode_of(call.paths.first()?), path: shown(0)? })
            }
            (Class::Attribute, Form::File) if name == "fchmod" => {
                let path = self.files.values().find(|(number, _)| Some(*number) == file)?.1.clone();
                Some(Effect::ModeSet { path, mode: call.entry.arguments[1] as u32 & 0o7777 })
            }
            // An access list is a mode too: GNU sed, cp and mv set the mode of a new file by one.
            (Class::Attribute, Form::Path { .. }) if name.ends_with("xattr") => {
                Some(Effect::ModeSet { mode: mode_of(call.paths.first()?), path: shown(0)? })
            }
            (Class::Attribute, Form::File) if name.ends_with("xattr") => {
                let path = self.files.values().find(|(number, _)| Some(*number) == file)?.1.clone();
                let mode = descriptor::mode(thread, call.entry.arguments[0] as i32)?;
                Some(Effect::ModeSet { path, mode })
            }
            // An owner that is the one it has anyway.
            (Class::Attribute, _) if name.contains("chown") && is_own(call) => None,
            // Times are not part of what is laid out again.
            (Class::Attribute, _) if name == "utimensat" => None,
            (Class::Write | Class::Attribute, _) => Some(Effect::Other),
            _ => None,
        }
    }

    /// What a call copied that has just returned with this number of bytes; nothing of what is too much to keep.
    pub(super) fn copied(&self, thread: Pid, call: &Pending, count: i64) -> Option<Vec<u8>> {
        let Form::Copy { to, .. } = call.shape.form else { return None };
        let count = usize::try_from(count).ok().filter(|count| self.is_detailed && *count <= DATA_MAX)?;
        let offset = copied_to(thread, call, to, count as u64)?;
        let fd = call.entry.arguments[to] as i32;
        let file = std::fs::File::open(format!("/proc/{thread}/fd/{fd}")).ok()?;
        let mut data = vec![0; count];
        file.read_exact_at(&mut data, offset).ok()?;
        Some(data)
    }

    /// Where the write will begin that a thread is about to make.
    pub(super) fn next_offset(&self, thread: Pid) -> Option<u64> {
        let call = self.pending(thread)?;
        let fd = call.entry.arguments[0] as i32;
        match self.open_file(thread, fd)?.appends {
            true => descriptor::size(thread, fd),
            false if call.shape.name.starts_with("pwrite") => Some(call.entry.arguments[3]),
            false => descriptor::position(thread, fd),
        }
    }

    /// Where a write of `length` bytes began that has just returned.
    fn offset(&self, thread: Pid, call: &Pending, length: u64) -> Option<u64> {
        let fd = call.entry.arguments[0] as i32;
        let open = self.open_file(thread, fd)?;
        if call.shape.name.starts_with("pwrite") {
            // With `O_APPEND` Linux appends whatever offset is given (pwrite(2), BUGS).
            return match open.appends {
                true => descriptor::size(thread, fd)?.checked_sub(length),
                false => Some(call.entry.arguments[3]),
            };
        }
        descriptor::position(thread, fd)?.checked_sub(length)
    }
}

/// Where a copy of `length` bytes began that has just returned: behind a pointer, where one was given, else where the
/// descriptor stood.
fn copied_to(thread: Pid, call: &Pending, to: usize, length: u64) -> Option<u64> {
    let pointer = if call.shape.name == "sendfile" { 0 } else { call.entry.arguments[to + 1] };
    let end = match pointer {
        0 => descriptor::position(thread, call.entry.arguments[to] as i32)?,
        address => memory::word(thread, address)?,
    };
    end.checked_sub(length)
}

/// Whether a `chown` gives a file to the user and the group that all of ours are.
fn is_own(call: &Pending) -> bool {
    let first = if call.shape.name == "fchownat" { 2 } else { 1 };
    let is = |value: u64, own: u32| value as u32 == own || value as u32 == u32::MAX;
    is(call.entry.arguments[first], nix::unistd::geteuid().as_raw())
        && is(call.entry.arguments[first + 1], nix::unistd::getegid().as_raw())
}

/// The permissions of what stands there now.
fn mode_of(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).map_or(0, |metadata| metadata.permissions().mode() & 0o7777)
}

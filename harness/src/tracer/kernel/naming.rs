//! Numbers and names files, and decides which are visible.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use crate::call::{Argument, Class, Object};
use crate::locks::FileId;
use crate::tracer::kernel::{KernelModel, Pending};
use crate::tracer::memory;
use crate::tracer::path::{self, Meant};
use crate::tracer::shape::Form;

/// Suffix that the system adds to the path of a file without one, such as a file created without a name.
const NO_NAME: &[u8] = b" (deleted)";

impl Pending {
    /// Whether it works on the target of a symbolic link in which its first path ends, and not on the link.
    pub(in crate::tracer) fn follows(&self) -> bool {
        let has = |flag: i32| self.flags & flag != 0;
        let may = |index: usize| self.entry.arguments[index] as i32 & libc::AT_SYMLINK_NOFOLLOW == 0;
        match (self.shape.form, self.shape.class, self.shape.name) {
            (Form::Open { .. }, ..) => !(has(libc::O_NOFOLLOW) || has(libc::O_CREAT) && has(libc::O_EXCL)),
            (_, _, "linkat") => self.entry.arguments[4] as i32 & libc::AT_SYMLINK_FOLLOW != 0,
            (_, Class::Name, _) => false,
            (_, _, "lstat" | "lchown" | "readlink" | "readlinkat") => false,
            (_, _, "lsetxattr" | "lgetxattr" | "llistxattr" | "lremovexattr") => false,
            (_, _, "newfstatat" | "utimensat" | "fchmodat2" | "faccessat2") => may(3),
            (_, _, "statx" | "setxattrat" | "getxattrat" | "listxattrat" | "removexattrat") => may(2),
            (_, _, "fchownat") => may(4),
            _ => true,
        }
    }

    /// Whether it moves or removes something with a name: afterwards a link may take that name.
    fn takes_names_away(&self) -> bool {
        self.shape.class == Class::Name && {
            let name = self.shape.name;
            name.starts_with("rename") || name.starts_with("unlink") || name == "rmdir"
        }
    }
}

impl KernelModel {
    pub(in crate::tracer) fn is_visible(&self, path: &Path) -> bool {
        self.sandbox.contain(path) || self.locked_elsewhere.contains(path)
    }

    /// Returns the path that an argument names, if it is visible.
    pub(in crate::tracer) fn named(
        &mut self,
        thread: Pid,
        call: &Pending,
        meant: Meant,
        address: u64,
    ) -> Option<PathBuf> {
        let path = self.looked_up(thread, memory::text(thread, address), meant);
        if self.is_visible(&path) {
            return Some(path);
        }
        if call.takes_names_away() {
            self.elsewhere.change();
        }
        None
    }

    /// Returns the two paths of a call that names two, if one of them is visible.
    pub(in crate::tracer) fn two_named(
        &mut self,
        thread: Pid,
        call: &Pending,
        meant: [Meant; 2],
        addresses: [u64; 2],
    ) -> Option<[PathBuf; 2]> {
        let texts = addresses.map(|address| memory::text(thread, address));
        let [from, to] = [0, 1].map(|index| self.looked_up(thread, texts[index].clone(), meant[index]));
        let are_visible = [&from, &to].map(|path| self.is_visible(path));
        if call.takes_names_away() && are_visible.contains(&false) {
            self.elsewhere.change();
        }
        are_visible.iter().find(|is_visible| **is_visible)?;
        let [old, new] = texts;
        // A path that is not visible is reported as the call has it. So is a file in the sandbox that has no name yet.
        let told = |is_visible: bool, path: PathBuf, text: Vec<u8>, meant: Meant| {
            let has_no_name = path.as_os_str().as_bytes().ends_with(NO_NAME);
            if is_visible && !has_no_name { path } else { path::told(thread, meant.folder, text) }
        };
        Some([told(are_visible[0], from, old, meant[0]), told(are_visible[1], to, new, meant[1])])
    }

    /// Resolves a path text in the context of a thread.
    pub(in crate::tracer) fn looked_up(&mut self, thread: Pid, text: Vec<u8>, meant: Meant) -> PathBuf {
        path::resolve(thread, text, meant, &self.sandbox, &mut self.elsewhere)
    }

    pub(in crate::tracer) fn add_path(&self, call: &mut Pending, path: PathBuf) {
        let shown = path::shown(&path, &self.sandbox);
        call.arguments.push(Argument::Path(shown.clone()));
        call.objects.push(Object::Entry(shown));
        call.paths.push(path);
    }

    /// Returns the name of a file.
    pub(in crate::tracer) fn shown(&self, file: FileId) -> String {
        self.files.get(&file).map(|(_, path)| path.clone()).unwrap_or_default()
    }

    /// Renames the files with the old name; a file that had the new name has none afterwards.
    pub(super) fn renamed(&mut self, paths: &[PathBuf]) {
        let [from, to] = paths else { return };
        let (from, to) = (path::shown(from, &self.sandbox), path::shown(to, &self.sandbox));
        for (_, path) in self.files.values_mut() {
            if *path == to {
                path.push_str(" (replaced)");
            } else if *path == from {
                path.clone_from(&to);
            } else if let Some(inner) = path.strip_prefix(&from).filter(|inner| inner.starts_with('/')) {
                *path = format!("{to}{inner}");
            }
        }
    }

    /// Exchanges two names in the names of files.
    pub(super) fn exchanged(&mut self, paths: &[PathBuf]) {
        let [one, other] = paths else { return };
        let (one, other) = (path::shown(one, &self.sandbox), path::shown(other, &self.sandbox));
        for (_, path) in self.files.values_mut() {
            let inner =
                |name: &str| path.strip_prefix(name).filter(|rest| rest.is_empty() || rest.starts_with('/'));
            let new = match (inner(&one), inner(&other)) {
                (Some(rest), _) => format!("{other}{rest}"),
                (_, Some(rest)) => format!("{one}{rest}"),
                _ => continue,
            };
            *path = new;
        }
    }

    pub(super) fn unlinked(&mut self, paths: &[PathBuf]) {
        let Some(path) = paths.first().map(|path| path::shown(path, &self.sandbox)) else { return };
        for (_, known) in self.files.values_mut().filter(|(_, known)| *known == path) {
            known.push_str(" (deleted)");
        }
    }
}

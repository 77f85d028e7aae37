//! What files are called, and which of them are seen.

use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use crate::call::{Argument, Object};
use crate::locks::FileId;
use crate::tracer::mirror::{Mirror, Pending};
use crate::tracer::{memory, path};

impl Mirror {
    pub(in crate::tracer) fn is_visible(&self, path: &Path) -> bool {
        path.starts_with(&self.sandbox) || self.locked_elsewhere.contains(path)
    }

    /// The path that an argument names, where that is visible.
    pub(in crate::tracer) fn named(&self, thread: Pid, folder: Option<i32>, address: u64) -> Option<PathBuf> {
        let path = path::resolve(thread, folder, memory::text(thread, address));
        self.is_visible(&path).then_some(path)
    }

    pub(in crate::tracer) fn add_path(&self, call: &mut Pending, path: PathBuf) {
        let shown = path::shown(&path, &self.sandbox);
        call.arguments.push(Argument::Path(shown.clone()));
        call.objects.push(Object::Entry(shown));
        call.paths.push(path);
    }

    /// What a file is called.
    pub(in crate::tracer) fn shown(&self, file: FileId) -> String {
        self.files.get(&file).map(|(_, path)| path.clone()).unwrap_or_default()
    }

    /// What was called by the old name is called by the new one, and what had the new name has none.
    pub(super) fn renamed(&mut self, paths: &[PathBuf]) {
        let [from, to] = paths else { return };
        let (from, to) = (path::shown(from, &self.sandbox), path::shown(to, &self.sandbox));
        for (_, path) in self.files.values_mut() {
            if *path == to {
                path.push_str(" (replaced)");
            } else if *path == from {
                path.clone_from(&to);
            }
        }
    }

    pub(super) fn unlinked(&mut self, paths: &[PathBuf]) {
        let Some(path) = paths.first().map(|path| path::shown(path, &self.sandbox)) else { return };
        for (_, known) in self.files.values_mut().filter(|(_, known)| *known == path) {
            known.push_str(" (deleted)");
        }
    }
}

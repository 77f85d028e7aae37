//! Models descriptor tables: which descriptor refers to which open file description.

use std::collections::BTreeMap;
use std::path::Path;

use nix::unistd::Pid;

use crate::call::{Argument, LockChange, Object};
use crate::locks::{Descriptions, FileId};
use crate::tracer::kernel::{KernelModel, Pending};
use crate::tracer::{descriptor, path};

#[derive(Clone, Copy)]
pub(in crate::tracer) struct OpenFile {
    pub(in crate::tracer) description: u32,
    pub(in crate::tracer) file: FileId,
    pub(in crate::tracer) appends: bool,
    /// Whether it represents only a path (`O_PATH`): closing it releases no POSIX lock.
    pub(super) is_path: bool,
    /// Index of the name that it was opened by.
    pub(super) name: usize,
}

impl OpenFile {
    /// Whether it represents only a path.
    pub(in crate::tracer) fn is_path_alone(&self) -> bool {
        self.is_path
    }
}

impl KernelModel {
    /// Returns a copy of the open file descriptions.
    pub(in crate::tracer) fn description_counts(&self) -> Descriptions {
        self.descriptions.clone()
    }

    /// Returns the name that a file was opened by.
    pub(in crate::tracer) fn opened_as(&self, open: &OpenFile) -> String {
        self.names.get(open.name).cloned().unwrap_or_default()
    }

    pub(in crate::tracer) fn open_file(&self, thread: Pid, fd: i32) -> Option<OpenFile> {
        self.open_of(thread)?.get(&fd).copied()
    }

    /// Adds a descriptor to the call; nothing if it is not open on anything visible.
    pub(in crate::tracer) fn add_descriptor(
        &mut self,
        thread: Pid,
        call: &mut Pending,
        fd: i32,
    ) -> Option<()> {
        self.know(thread, fd);
        let open = self.open_file(thread, fd)?;
        let (number, path) = self.files.get(&open.file)?;
        call.arguments.push(Argument::Descriptor(fd, path.clone()));
        call.objects.push(Object::File(*number));
        call.objects.push(Object::Description(open.description));
        Some(())
    }

    pub(in crate::tracer) fn path_of(&self, thread: Pid, fd: i32) -> String {
        let open = self.open_file(thread, fd);
        open.and_then(|open| self.files.get(&open.file)).map(|(_, path)| path.clone()).unwrap_or_default()
    }

    /// Records the file of a new descriptor; the file gets a number in the trace if it has none.
    pub(super) fn opened(
        &mut self,
        thread: Pid,
        fd: i32,
        shown: String,
        (appends, is_path): (bool, bool),
    ) -> Option<[Object; 2]> {
        let file = descriptor::file(thread, fd)?;
        let next = u32::try_from(self.files.len() + 1).unwrap_or(u32::MAX);
        let number = self.files.entry(file).or_insert((next, String::new())).0;
        // The file's own name, regardless of the link it was opened by.
        let name = self.name(&path::shown(&path::of_descriptor(thread, fd), &self.sandbox));
        self.files.insert(file, (number, shown));
        let description = self.descriptions.open();
        let table = self.table_of(thread)?;
        table.elsewhere.remove(&fd);
        table.open.insert(fd, OpenFile { description, file, appends, is_path, name });
        Some([Object::File(number), Object::Description(description)])
    }

    /// Starts tracking a descriptor that is locked and was not visible so far, with all descriptors of its file.
    pub(in crate::tracer) fn adopt(&mut self, thread: Pid, fd: i32) -> Option<()> {
        self.know(thread, fd);
        if self.open_file(thread, fd).is_some() {
            return Some(());
        }
        self.locks_older_descriptor = true;
        let path = path::of_descriptor(thread, fd);
        self.locked_elsewhere.insert(path.clone());
        self.take_in(thread, fd, &path)
    }

    /// Looks up once where a descriptor is open that no open here created: it may have come through a socket, from
    /// another process, by a handle, or be older than everything seen so far.
    pub(in crate::tracer) fn know(&mut self, thread: Pid, fd: i32) {
        let Some(table) = self.table_of(thread) else { return };
        if table.open.contains_key(&fd) || table.elsewhere.contains(&fd) {
            return;
        }
        let path = path::of_descriptor(thread, fd);
        if self.sandbox.contain(&path) {
            let _taken_in = self.take_in(thread, fd, &path);
        } else if let Some(table) = self.table_of(thread).filter(|_| !path.as_os_str().is_empty()) {
            table.elsewhere.insert(fd);
        }
    }

    /// Forgets these descriptors, which are being closed or will soon be open on something else.
    pub(in crate::tracer) fn forget_elsewhere(&mut self, thread: Pid, are: impl Fn(&i32) -> bool) {
        if let Some(table) = self.table_of(thread) {
            table.elsewhere.retain(|fd| !are(fd));
        }
    }

    /// Starts tracking every descriptor of the file that this one is open on, in any process.
    fn take_in(&mut self, thread: Pid, fd: i32, path: &Path) -> Option<()> {
        let file = descriptor::file(thread, fd)?;
        let next = u32::try_from(self.files.len() + 1).unwrap_or(u32::MAX);
        let shown = path::shown(path, &self.sandbox);
        let name = self.name(&shown);
        self.files.entry(file).or_insert((next, shown.clone()));
        // One process per table.
        let processes: BTreeMap<u32, Pid> =
            self.processes.iter().map(|(pid, process)| (process.table, *pid)).collect();
        let mut known: Vec<((Pid, i32), u32)> = Vec::new();
        for (table, process) in &processes {
            let open = self.tables.get(table).into_iter().flat_map(|table| &table.open);
            let of_file = open.filter(|(_, open)| open.file == file);
            known.extend(of_file.map(|(fd, open)| ((*process, *fd), open.description)));
        }
        let is_new = known.is_empty();
        for (table, process) in &processes {
            for other in descriptor::all(*process) {
                let is_known = known.iter().any(|(known, _)| *known == (*process, other));
                if is_known || descriptor::file(*process, other) != Some(file) {
                    continue;
                }
                let shared =
                    known.iter().find(|(known, _)| descriptor::share_description(*known, (*process, other)));
                let description = match shared {
                    Some((_, description)) => {
                        self.descriptions.duplicate(*description);
                        *description
                    }
                    None => self.descriptions.open(),
                };
                known.push(((*process, other), description));
                let flags = descriptor::flags(*process, other).unwrap_or(0);
                let open = OpenFile {
                    description,
                    file,
                    appends: flags & libc::O_APPEND != 0,
                    is_path: flags & libc::O_PATH != 0,
                    name,
                };
                if let Some(table) = self.tables.get_mut(table) {
                    table.elsewhere.remove(&other);
                    table.open.insert(other, open);
                }
            }
        }
        if is_new && self.sandbox.contain(path) {
            self.not_covered.insert(format!(
                "{shown} was reached by a descriptor that no open here made: what was done by it before is not seen"
            ));
        }
        self.open_file(thread, fd).map(drop)
    }

    pub(super) fn name(&mut self, shown: &str) -> usize {
        let known = self.names.iter().position(|name| name == shown);
        known.unwrap_or_else(|| {
            self.names.push(shown.to_owned());
            self.names.len() - 1
        })
    }

    pub(super) fn duplicate(&mut self, thread: Pid, from: i32, to: i32) -> Vec<LockChange> {
        if from == to {
            return Vec::new();
        }
        let released = self.close(thread, to);
        let Some(open) = self.open_file(thread, from) else { return released };
        self.descriptions.duplicate(open.description);
        if let Some(table) = self.table_of(thread) {
            table.elsewhere.remove(&to);
            table.open.insert(to, open);
        }
        released
    }

    /// Closes a descriptor: releases the process's POSIX locks on its file, and with the last descriptor of the
    /// description also its own locks.
    pub(super) fn close(&mut self, thread: Pid, fd: i32) -> Vec<LockChange> {
        let Some(owner) = self.process_of(thread).map(|process| process.table) else { return Vec::new() };
        let table = self.tables.get_mut(&owner);
        let Some(open) = table.and_then(|table| table.open.remove(&fd)) else { return Vec::new() };
        let mut released = match open.is_path {
            true => Vec::new(),
            false => self.table.file_closed(owner, open.file),
        };
        if self.descriptions.close(open.description) {
            released.extend(self.table.description_closed(open.description));
        }
        released.into_iter().map(|lock| LockChange::Released(lock, self.shown(lock.file))).collect()
    }
}

//! The mirror: which descriptor of which process is open on what, and who holds which lock, kept up to date from the
//! calls themselves. The kernel stays the judge: what a call did is taken from its result.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use crate::call::{Argument, Call, Class, End, Errno, LockChange, Object};
use crate::locks::{Descriptions, END, FileId, Kind, Lock, LockTable, Mode, Owner, Range};
use crate::tracer::shape::{self, Flags, Form, Shape};
use crate::tracer::stopped::Entry;
use crate::tracer::{descriptor, memory, names, path};

/// What is kept of the data of one call.
const DATA_MAX: usize = 1 << 20;
/// `CLOSE_RANGE_CLOEXEC`: nothing is closed before the exec.
const CLOSE_LATER: u64 = 4;

pub(super) struct Mirror {
    pub(super) calls: Vec<Call>,
    pub(super) not_covered: BTreeSet<String>,
    sandbox: PathBuf,
    threads: BTreeMap<Pid, Thread>,
    processes: BTreeMap<Pid, Process>,
    descriptions: Descriptions,
    table: LockTable,
    /// Files by their numbers in the trace, and what they were last called.
    files: BTreeMap<FileId, (u32, String)>,
    /// Files outside the sandbox that somebody locked: from then on they are visible.
    locked_elsewhere: BTreeSet<PathBuf>,
    started: (u32, u32),
}

struct Thread {
    process: Pid,
    number: u32,
    pending: Option<Pending>,
}

#[derive(Default)]
struct Process {
    number: u32,
    open: BTreeMap<i32, OpenFile>,
}

#[derive(Clone, Copy)]
struct OpenFile {
    description: u32,
    file: FileId,
}

/// A visible call that was let in and has not returned.
struct Pending {
    shape: &'static Shape,
    entry: Entry,
    arguments: Vec<Argument>,
    objects: Vec<Object>,
    data: Option<Vec<u8>>,
    paths: Vec<PathBuf>,
    wants: Option<Wanted>,
    creates: bool,
}

/// What a call asks of the locks: a lock, or no lock, on a range.
#[derive(Clone, Copy)]
struct Wanted {
    file: FileId,
    kind: Kind,
    owner: Owner,
    mode: Option<Mode>,
    range: Range,
}

impl Mirror {
    pub(super) fn new(sandbox: PathBuf, root: Pid) -> Self {
        let mut mirror = Self {
            calls: Vec::new(),
            not_covered: BTreeSet::new(),
            sandbox,
            threads: BTreeMap::new(),
            processes: BTreeMap::new(),
            descriptions: Descriptions::default(),
            table: LockTable::default(),
            files: BTreeMap::new(),
            locked_elsewhere: BTreeSet::new(),
            started: (0, 0),
        };
        mirror.add_thread(root, root);
        mirror
    }

    /// The number that the next visible call will have.
    pub(super) fn next_call(&self) -> u32 {
        u32::try_from(self.calls.len() + 1).unwrap_or(u32::MAX)
    }

    /// Whether a thread belongs to this process.
    pub(super) fn is_of(&self, thread: Pid, process: Pid) -> bool {
        self.threads.get(&thread).is_some_and(|known| known.process == process)
    }

    pub(super) fn living_threads(&self) -> usize {
        self.threads.len()
    }

    pub(super) fn living_processes(&self) -> usize {
        self.processes.len()
    }

    pub(super) fn process_ids(&self) -> Vec<Pid> {
        self.processes.keys().copied().collect()
    }

    /// A thread is about to make a call; whether that is visible, so that its result is wanted.
    pub(super) fn entry(&mut self, thread: Pid, entry: &Entry) -> bool {
        if entry.is_foreign {
            self.not_covered.insert("calls of a 32-bit program are not decoded, and so not seen".to_owned());
            return false;
        }
        let Some(shape) = shape::find(entry.number) else { return false };
        let mut call = Pending {
            shape,
            entry: *entry,
            arguments: Vec::new(),
            objects: Vec::new(),
            data: None,
            paths: Vec::new(),
            wants: None,
            creates: false,
        };
        if self.examine(thread, &mut call).is_none() {
            return false;
        }
        if let Some(known) = self.threads.get_mut(&thread) {
            known.pending = Some(call);
        }
        true
    }

    /// Fills in what the call works on. Nothing where it is not visible.
    fn examine(&mut self, thread: Pid, call: &mut Pending) -> Option<()> {
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
                let is_new = flags & libc::O_CREAT != 0 && std::fs::symlink_metadata(&named).is_err();
                call.creates = is_new || flags & libc::O_TRUNC != 0;
                self.add_path(call, named);
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
            Form::Copy { from, to } => {
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
                if int(flags) & libc::MAP_SHARED != 0 && int(protection) & libc::PROT_WRITE != 0 {
                    let path = self.path_of(thread, int(descriptor));
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
                call.wants =
                    Some(Wanted { file: open.file, kind: Kind::Flock, owner, mode, range: Range::ALL });
            }
            Form::Fcntl => self.examine_fcntl(thread, call)?,
            Form::Exit => return None,
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
                call.wants = Some(Wanted { file: open.file, kind, owner, mode, range });
            }
            _ => return None,
        }
        Some(())
    }

    /// The call of a thread has returned.
    pub(super) fn exit(&mut self, thread: Pid, result: Result<i64, i32>) {
        let Some(mut call) = self.threads.get_mut(&thread).and_then(|known| known.pending.take()) else {
            return;
        };
        let mut locks = Vec::new();
        let int = |index: usize| call.entry.arguments[index] as i32;
        match (call.shape.form, result) {
            (Form::Open { .. }, Ok(fd)) => {
                let shown =
                    call.paths.first().map(|path| path::shown(path, &self.sandbox)).unwrap_or_default();
                if let Some(open) = self.opened(thread, fd as i32, shown) {
                    call.objects.extend(open);
                }
            }
            // A descriptor is gone even where `close` reports an error; EBADF means that there was none.
            (Form::Close, _) => locks = self.close(thread, int(0)),
            (Form::CloseRange, Ok(_)) if call.entry.arguments[2] & CLOSE_LATER == 0 => {
                let (first, last) = (call.entry.arguments[0] as u32, call.entry.arguments[1] as u32);
                let open =
                    self.process_of(thread).map(|process| process.open.keys().copied().collect::<Vec<_>>());
                for fd in open
                    .unwrap_or_default()
                    .into_iter()
                    .filter(|fd| (first..=last).contains(&fd.unsigned_abs()))
                {
                    locks.extend(self.close(thread, fd));
                }
            }
            (Form::Duplicate { .. }, Ok(new)) => locks = self.duplicate(thread, int(0), new as i32),
            (Form::Fcntl, Ok(new)) if call.wants.is_none() => {
                locks = self.duplicate(thread, int(0), new as i32);
            }
            (Form::Paths { .. }, Ok(_)) if call.shape.name.starts_with("rename") => self.renamed(&call.paths),
            (Form::Path { .. }, Ok(_)) if call.shape.name.starts_with("unlink") => self.unlinked(&call.paths),
            _ => {}
        }
        if let Some(wanted) = call.wants {
            locks.extend(self.lock(wanted, result));
        }
        self.tell(thread, call, Some(result.map_err(Errno)), locks);
    }

    /// A thread has ended.
    pub(super) fn thread_ended(&mut self, thread: Pid, end: End) {
        if let Some(pending) = self.threads.get_mut(&thread).and_then(|known| known.pending.take()) {
            self.tell(thread, pending, None, Vec::new());
        }
        let Some(ended) = self.threads.get(&thread) else { return };
        let (process, number) = (ended.process, ended.number);
        let is_last = self.threads.values().filter(|other| other.process == process).count() == 1;
        if is_last {
            let open: Vec<i32> = self
                .processes
                .get(&process)
                .map(|known| known.open.keys().copied().collect())
                .unwrap_or_default();
            let mut locks = Vec::new();
            for fd in &open {
                locks.extend(self.close(thread, *fd));
            }
            let process_number = self.processes.remove(&process).map_or(0, |process| process.number);
            if !open.is_empty() {
                let status = match end {
                    End::Exited(status) => Argument::Number(status.into()),
                    End::Signalled(signal) => Argument::Flags(format!("killed by signal {signal}")),
                    End::Killed | End::TimedOut => Argument::Flags("killed".into()),
                };
                self.push(process_number, number, "exit", vec![status], None, locks);
            }
        }
        self.threads.remove(&thread);
    }

    /// There is a new thread or process.
    pub(super) fn born(&mut self, thread: Pid) {
        if self.threads.contains_key(&thread) {
            return;
        }
        let Some((process, parent)) = descriptor::family(thread) else { return };
        let is_process = process == thread;
        self.add_thread(thread, process);
        if !is_process {
            return;
        }
        let inherited = self.processes.get(&parent).map(|parent| parent.open.clone()).unwrap_or_default();
        for open in inherited.values() {
            self.descriptions.duplicate(open.description);
        }
        let has_some = !inherited.is_empty();
        let child = self.processes.entry(process).or_default();
        child.open = inherited;
        let child_number = child.number;
        if let (true, Some(parent_number)) =
            (has_some, self.processes.get(&parent).map(|parent| parent.number))
        {
            let by = self.threads.get(&parent).map_or(0, |thread| thread.number);
            let argument = Argument::Flags(format!("process {child_number}"));
            self.push(parent_number, by, "fork", vec![argument], Some(Ok(0)), Vec::new());
        }
    }

    /// A process runs another program: its other threads are gone, and so are descriptors that close on exec.
    pub(super) fn executed(&mut self, thread: Pid, former: Pid) {
        let Some(known) = self.threads.remove(&former).or_else(|| self.threads.remove(&thread)) else {
            return;
        };
        let (process, number) = (known.process, known.number);
        self.threads.retain(|_, other| other.process != process);
        self.threads.insert(thread, Thread { process, number, pending: None });
        let there = descriptor::all(thread);
        let Some(tracked) = self.processes.get(&process) else { return };
        let process_number = tracked.number;
        let closed: Vec<i32> = tracked.open.keys().copied().filter(|fd| !there.contains(fd)).collect();
        if tracked.open.is_empty() {
            return;
        }
        let mut locks = Vec::new();
        for fd in closed {
            locks.extend(self.close(thread, fd));
        }
        let program = std::fs::read_link(format!("/proc/{thread}/exe")).unwrap_or_default();
        let argument = Argument::Path(path::shown(&program, &self.sandbox));
        self.push(process_number, number, "execve", vec![argument], Some(Ok(0)), locks);
    }

    fn add_thread(&mut self, thread: Pid, process: Pid) {
        self.started.1 += 1;
        self.threads.insert(thread, Thread { process, number: self.started.1, pending: None });
        if !self.processes.contains_key(&process) {
            self.started.0 += 1;
            self.processes.insert(process, Process { number: self.started.0, open: BTreeMap::new() });
        }
    }

    fn process_of(&self, thread: Pid) -> Option<&Process> {
        self.processes.get(&self.threads.get(&thread)?.process)
    }

    fn open_file(&self, thread: Pid, fd: i32) -> Option<OpenFile> {
        self.process_of(thread)?.open.get(&fd).copied()
    }

    fn is_visible(&self, path: &Path) -> bool {
        path.starts_with(&self.sandbox) || self.locked_elsewhere.contains(path)
    }

    /// The path that an argument names, where that is visible.
    fn named(&self, thread: Pid, folder: Option<i32>, address: u64) -> Option<PathBuf> {
        let path = path::resolve(thread, folder, memory::text(thread, address));
        self.is_visible(&path).then_some(path)
    }

    fn add_path(&self, call: &mut Pending, path: PathBuf) {
        let shown = path::shown(&path, &self.sandbox);
        call.arguments.push(Argument::Path(shown.clone()));
        call.objects.push(Object::Entry(shown));
        call.paths.push(path);
    }

    /// Adds a descriptor to the call. Nothing where it is not open on anything visible.
    fn add_descriptor(&self, thread: Pid, call: &mut Pending, fd: i32) -> Option<()> {
        let open = self.open_file(thread, fd)?;
        let (number, path) = self.files.get(&open.file)?;
        call.arguments.push(Argument::Descriptor(fd, path.clone()));
        call.objects.push(Object::File(*number));
        call.objects.push(Object::Description(open.description));
        Some(())
    }

    fn path_of(&self, thread: Pid, fd: i32) -> String {
        let open = self.open_file(thread, fd);
        open.and_then(|open| self.files.get(&open.file)).map(|(_, path)| path.clone()).unwrap_or_default()
    }

    /// The file of a new descriptor, which gets a number in the trace where it has none.
    fn opened(&mut self, thread: Pid, fd: i32, shown: String) -> Option<[Object; 2]> {
        let file = descriptor::file(thread, fd)?;
        let next = u32::try_from(self.files.len() + 1).unwrap_or(u32::MAX);
        let number = self.files.entry(file).or_insert((next, String::new())).0;
        self.files.insert(file, (number, shown));
        let description = self.descriptions.open();
        let process = self.threads.get(&thread)?.process;
        self.processes.get_mut(&process)?.open.insert(fd, OpenFile { description, file });
        Some([Object::File(number), Object::Description(description)])
    }

    /// Takes a descriptor in that somebody locks and that was not visible so far, with all that share its file.
    fn adopt(&mut self, thread: Pid, fd: i32) -> Option<()> {
        if self.open_file(thread, fd).is_some() {
            return Some(());
        }
        let file = descriptor::file(thread, fd)?;
        let path = path::of_descriptor(thread, fd);
        self.locked_elsewhere.insert(path.clone());
        let next = u32::try_from(self.files.len() + 1).unwrap_or(u32::MAX);
        self.files.entry(file).or_insert((next, path::shown(&path, &self.sandbox)));
        let mut adopted: Vec<((Pid, i32), u32)> = Vec::new();
        for process in self.process_ids() {
            for other in descriptor::all(process) {
                if descriptor::file(process, other) != Some(file) {
                    continue;
                }
                let shared =
                    adopted.iter().find(|(known, _)| descriptor::share_description(*known, (process, other)));
                let description = match shared {
                    Some((_, description)) => {
                        self.descriptions.duplicate(*description);
                        *description
                    }
                    None => self.descriptions.open(),
                };
                adopted.push(((process, other), description));
                if let Some(process) = self.processes.get_mut(&process) {
                    process.open.entry(other).or_insert(OpenFile { description, file });
                }
            }
        }
        self.open_file(thread, fd).map(drop)
    }

    fn duplicate(&mut self, thread: Pid, from: i32, to: i32) -> Vec<LockChange> {
        if from == to {
            return Vec::new();
        }
        let released = self.close(thread, to);
        let Some(open) = self.open_file(thread, from) else { return released };
        self.descriptions.duplicate(open.description);
        let process = self.threads.get(&thread).map(|thread| thread.process);
        if let Some(process) = process.and_then(|process| self.processes.get_mut(&process)) {
            process.open.insert(to, open);
        }
        released
    }

    /// A descriptor is closed: POSIX locks of the process on its file go, and with the last one of the description its
    /// own locks.
    fn close(&mut self, thread: Pid, fd: i32) -> Vec<LockChange> {
        let Some(process) = self.threads.get(&thread).map(|thread| thread.process) else { return Vec::new() };
        let Some(process) = self.processes.get_mut(&process) else { return Vec::new() };
        let Some(open) = process.open.remove(&fd) else { return Vec::new() };
        let mut released = self.table.file_closed(process.number, open.file);
        if self.descriptions.close(open.description) {
            released.extend(self.table.description_closed(open.description));
        }
        released.into_iter().map(|lock| LockChange::Released(lock, self.name_of(lock.file))).collect()
    }

    fn lock(&mut self, wanted: Wanted, result: Result<i64, i32>) -> Vec<LockChange> {
        let Wanted { file, kind, owner, mode, range } = wanted;
        let name = self.name_of(file);
        let Some(mode) = mode else {
            let released =
                if result.is_ok() { self.table.release(file, kind, owner, range) } else { Vec::new() };
            return released.into_iter().map(|lock| LockChange::Released(lock, name.clone())).collect();
        };
        let lock = Lock { file, kind, owner, mode, range };
        let before = self.table.clone();
        let taken = match result {
            Ok(_) => self.table.take(lock),
            Err(libc::EAGAIN | libc::EACCES) => self.table.take(lock),
            Err(_) => return Vec::new(),
        };
        if taken != result.is_ok() {
            // Somebody holds it whom nobody here sees, such as another program.
            self.not_covered.insert(format!("a lock on {name} is also used by a process that is not traced"));
            if result.is_err() {
                self.table = before;
            }
        }
        vec![if result.is_ok() { LockChange::Taken(lock, name) } else { LockChange::Refused(lock, name) }]
    }

    fn name_of(&self, file: FileId) -> String {
        self.files.get(&file).map(|(_, path)| path.clone()).unwrap_or_default()
    }

    /// What was called by the old name is called by the new one, and what had the new name has none.
    fn renamed(&mut self, paths: &[PathBuf]) {
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

    fn unlinked(&mut self, paths: &[PathBuf]) {
        let Some(path) = paths.first().map(|path| path::shown(path, &self.sandbox)) else { return };
        for (_, known) in self.files.values_mut().filter(|(_, known)| *known == path) {
            known.push_str(" (deleted)");
        }
    }

    fn tell(
        &mut self,
        thread: Pid,
        call: Pending,
        result: Option<Result<i64, Errno>>,
        locks: Vec<LockChange>,
    ) {
        let process = self.process_of(thread).map_or(0, |process| process.number);
        let thread = self.threads.get(&thread).map_or(0, |thread| thread.number);
        // `fcntl` is a lock call only where it asks for a lock.
        let is_duplicate = call.shape.form == Form::Fcntl && call.wants.is_none();
        self.calls.push(Call {
            number: u32::try_from(self.calls.len() + 1).unwrap_or(u32::MAX),
            process,
            thread,
            name: call.shape.name.to_owned(),
            arguments: call.arguments,
            result,
            objects: call.objects,
            class: if is_duplicate { Class::Open } else { call.shape.class },
            creates: call.creates,
            data: call.data,
            locks,
        });
    }

    fn push(
        &mut self,
        process: u32,
        thread: u32,
        name: &str,
        arguments: Vec<Argument>,
        result: Option<Result<i64, Errno>>,
        locks: Vec<LockChange>,
    ) {
        self.calls.push(Call {
            number: u32::try_from(self.calls.len() + 1).unwrap_or(u32::MAX),
            process,
            thread,
            name: name.to_owned(),
            arguments,
            result,
            objects: Vec::new(),
            class: Class::Process,
            creates: false,
            data: None,
            locks,
        });
    }
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

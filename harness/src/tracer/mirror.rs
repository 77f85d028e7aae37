//! The mirror: which descriptor of which process is open on what, and who holds which lock, kept up to date from the
//! calls themselves. The kernel stays the judge: what a call did is taken from its result.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use crate::call::{Argument, Call, Class, Effect, End, Errno, Leak, LockChange, Object};
use crate::locks::{Descriptions, FileId, Kind, Lock, LockTable, Mode, Owner, Range};
use crate::tracer::shape::{self, Form, Shape, TimerValue};
use crate::tracer::stopped::Entry;
use crate::tracer::{descriptor, memory, path};

/// `CLOSE_RANGE_CLOEXEC`: nothing is closed before the exec.
const CLOSE_LATER: u64 = 4;

pub(super) struct Mirror {
    pub(super) calls: Vec<Call>,
    pub(super) not_covered: BTreeSet<String>,
    pub(super) sandbox: PathBuf,
    threads: BTreeMap<Pid, Thread>,
    processes: BTreeMap<Pid, Process>,
    descriptions: Descriptions,
    table: LockTable,
    /// Files by their numbers in the trace, and what they were last called.
    pub(super) files: BTreeMap<FileId, (u32, String)>,
    /// Files outside the sandbox that somebody locked: from then on they are visible.
    locked_elsewhere: BTreeSet<PathBuf>,
    started: (u32, u32),
    /// Where threads have said that their C library keeps their id.
    pub(super) tid_addresses: BTreeMap<Pid, u64>,
    /// Whether a lock was asked for on a descriptor that was open before anything visible was done.
    pub(super) locks_older_descriptor: bool,
    /// The ids of all processes that ever were.
    pub(super) pids: BTreeSet<i32>,
    /// Who took the locks that are held: process and client.
    takers: BTreeMap<(FileId, Kind, Owner), (u32, u32)>,
    /// Whether it is looked up where in a file each write goes.
    pub(super) is_detailed: bool,
    /// The names that files were opened by.
    names: Vec<String>,
}

struct Thread {
    process: Pid,
    number: u32,
    pending: Option<Pending>,
}

#[derive(Default)]
pub(super) struct Process {
    pub(super) number: u32,
    pub(super) client: u32,
    pub(super) open: BTreeMap<i32, OpenFile>,
    /// Whether a timer of its own may still end a wait.
    has_timer: bool,
}

#[derive(Clone, Copy)]
pub(super) struct OpenFile {
    pub(super) description: u32,
    pub(super) file: FileId,
    pub(super) appends: bool,
    /// It stands for a path alone (`O_PATH`): its close gives no POSIX lock up.
    is_path: bool,
    /// The name that it was opened by, as a place among all.
    name: usize,
}

impl OpenFile {
    /// Whether it stands for a path alone.
    pub(super) fn is_path_alone(&self) -> bool {
        self.is_path
    }
}

impl Pending {
    /// Looks whether an open finds a file, and what is in it.
    pub(super) fn look(&mut self) {
        if !matches!(self.shape.form, Form::Open { .. }) {
            return;
        }
        // A link is followed, unless it is in the way.
        let found = self.paths.first().and_then(|path| std::fs::metadata(path).ok());
        let is_new = self.flags & libc::O_CREAT != 0 && found.is_none();
        self.was_missing = is_new;
        self.creates = is_new || self.flags & libc::O_TRUNC != 0;
        self.was_empty = found.is_some_and(|found| found.is_file() && found.len() == 0);
    }
}

/// A visible call that was let in and has not returned.
pub(super) struct Pending {
    pub(super) shape: &'static Shape,
    pub(super) entry: Entry,
    pub(super) arguments: Vec<Argument>,
    pub(super) objects: Vec<Object>,
    pub(super) data: Option<Vec<u8>>,
    pub(super) paths: Vec<PathBuf>,
    pub(super) wants: Option<Wanted>,
    pub(super) creates: bool,
    /// Whether there was no file of that name before.
    pub(super) was_missing: bool,
    pub(super) appends: bool,
    pub(super) is_path: bool,
    /// The flags of an open.
    pub(super) flags: i32,
    /// Whether what an open empties was empty before.
    pub(super) was_empty: bool,
    /// The lock that it asks about, without taking it.
    pub(super) asks_about: Option<Lock>,
}

/// What a call asks of the locks: a lock, or no lock, on a range.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) file: FileId,
    pub(super) kind: Kind,
    pub(super) owner: Owner,
    pub(super) mode: Option<Mode>,
    pub(super) range: Range,
    /// Whether it is waited for.
    pub(super) waits: bool,
}

impl Wanted {
    /// The lock, where it is one that is to be had.
    pub(super) fn lock(&self) -> Option<Lock> {
        let Self { file, kind, owner, range, .. } = *self;
        self.mode.map(|mode| Lock { file, kind, owner, mode, range })
    }
}

impl Mirror {
    pub(super) fn new(sandbox: PathBuf, is_detailed: bool) -> Self {
        Self {
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
            tid_addresses: BTreeMap::new(),
            locks_older_descriptor: false,
            pids: BTreeSet::new(),
            takers: BTreeMap::new(),
            is_detailed,
            names: Vec::new(),
        }
    }

    /// A client's first process runs its program.
    pub(super) fn client_started(&mut self, client: u32, root: Pid) {
        self.add_thread(root, root, client);
    }

    /// A client's first process is a template from now on, and this copy of it takes its place.
    pub(super) fn replaced_by_copy(&mut self, template: Pid, copy: Pid) {
        if let Some(thread) = self.threads.remove(&template) {
            self.threads.insert(copy, Thread { process: copy, pending: None, ..thread });
        }
        if let Some(process) = self.processes.remove(&template) {
            self.processes.insert(copy, process);
        }
        self.pids.remove(&template.as_raw());
        self.pids.insert(copy.as_raw());
    }

    /// The place that the next visible call of a client will have among its calls.
    pub(super) fn next_call_of(&self, client: u32) -> u32 {
        u32::try_from(self.calls.iter().filter(|call| call.client == client).count() + 1).unwrap_or(u32::MAX)
    }

    pub(super) fn client_of(&self, thread: Pid) -> Option<u32> {
        self.process_of(thread).map(|process| process.client)
    }

    /// The process that a thread belongs to.
    pub(super) fn process_id(&self, thread: Pid) -> Option<Pid> {
        self.threads.get(&thread).map(|known| known.process)
    }

    /// All living threads.
    pub(super) fn threads(&self) -> impl Iterator<Item = Pid> {
        self.threads.keys().copied()
    }

    /// The living processes of a client.
    pub(super) fn processes_of(&self, client: u32) -> Vec<Pid> {
        let of_client = self.processes.iter().filter(|(_, process)| process.client == client);
        of_client.map(|(pid, _)| *pid).collect()
    }

    pub(super) fn process_ids(&self) -> Vec<Pid> {
        self.processes.keys().copied().collect()
    }

    /// Whether a timer of any process of the client may still end a wait.
    pub(super) fn has_timer(&self, client: u32) -> bool {
        self.processes.values().any(|process| process.client == client && process.has_timer)
    }

    /// The call that a thread was let into, or is about to make.
    pub(super) fn pending(&self, thread: Pid) -> Option<&Pending> {
        self.threads.get(&thread)?.pending.as_ref()
    }

    /// The call that a thread is let into will not be made: it does nothing to the locks.
    pub(super) fn asks_for_no_lock(&mut self, thread: Pid) {
        if let Some(pending) = self.threads.get_mut(&thread).and_then(|known| known.pending.as_mut()) {
            pending.wants = None;
        }
    }

    /// Who keeps this lock from being had.
    pub(super) fn obstacles(&self, lock: &Lock) -> Vec<Lock> {
        self.table.obstacles(lock)
    }

    /// Whether the owner has a `flock` there already, in another mode, which it loses when it asks for this one.
    pub(super) fn is_conversion(&self, lock: &Lock) -> bool {
        let is_other = |held: &&Lock| {
            (held.file, held.kind, held.owner) == (lock.file, lock.kind, lock.owner) && held.mode != lock.mode
        };
        lock.kind == Kind::Flock && self.table.held().iter().any(|held| is_other(&held))
    }

    /// The clients whose living processes can hold a lock of this owner.
    pub(super) fn clients_of(&self, owner: Owner) -> BTreeSet<u32> {
        let has = |process: &&Process| match owner {
            Owner::Process(number) => process.number == number,
            Owner::Description(description) => {
                process.open.values().any(|open| open.description == description)
            }
        };
        self.processes.values().filter(has).map(|process| process.client).collect()
    }

    /// The locks that outlived their takers, which belonged to clients whose operations have `ended`.
    pub(super) fn leaks(&self, ended: &[u32]) -> Vec<Leak> {
        let lives = |number: u32| self.processes.values().any(|process| process.number == number);
        let held = self.table.held().iter().filter_map(|held| {
            let (process, client) = self.takers.get(&(held.file, held.kind, held.owner))?;
            let is_left =
                ended.contains(client) && !lives(*process) && !self.clients_of(held.owner).is_empty();
            is_left.then(|| Leak { client: *client, file: self.name_of(held.file), kind: held.kind })
        });
        held.collect()
    }

    /// Whether a call may be one that is visible: not one of those that only set a timer.
    pub(super) fn may_be_visible(&self, entry: &Entry) -> bool {
        let shape = shape::find(entry.number).filter(|_| !entry.is_foreign);
        shape.is_some_and(|shape| !matches!(shape.form, Form::Timer { .. } | Form::TidAddress))
    }

    /// A thread is about to make a call; whether that is visible, so that its result is wanted.
    pub(super) fn entry(&mut self, thread: Pid, entry: &Entry) -> bool {
        if entry.is_foreign {
            self.not_covered.insert("calls of a 32-bit program are not decoded, and so not seen".to_owned());
            return false;
        }
        let Some(shape) = shape::find(entry.number) else { return false };
        if let Form::Timer { value } = shape.form {
            self.note_timer(thread, entry, value);
            return false;
        }
        if shape.form == Form::TidAddress {
            self.tid_addresses.insert(thread, entry.arguments[0]);
            return false;
        }
        let mut call = Pending {
            shape,
            entry: *entry,
            arguments: Vec::new(),
            objects: Vec::new(),
            data: None,
            paths: Vec::new(),
            wants: None,
            creates: false,
            was_missing: false,
            appends: false,
            is_path: false,
            flags: 0,
            was_empty: false,
            asks_about: None,
        };
        if self.examine(thread, &mut call).is_none() {
            return false;
        }
        if let Some(known) = self.threads.get_mut(&thread) {
            known.pending = Some(call);
        }
        true
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
                if let Some(open) = self.opened(thread, fd as i32, shown, (call.appends, call.is_path)) {
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
            (Form::Fcntl, Ok(new)) if call.wants.is_none() && call.asks_about.is_none() => {
                locks = self.duplicate(thread, int(0), new as i32);
            }
            (Form::Paths { .. }, Ok(_)) if call.shape.name.starts_with("rename") => self.renamed(&call.paths),
            (Form::Path { .. }, Ok(_)) if call.shape.name.starts_with("unlink") => self.unlinked(&call.paths),
            _ => {}
        }
        if let Some(wanted) = call.wants {
            locks.extend(self.lock(thread, wanted, result));
        }
        if let (Form::Copy { .. }, Ok(count)) = (call.shape.form, result) {
            call.data = self.copied(thread, &call, count);
        }
        let effect = result.ok().and_then(|value| self.effect(thread, &call, value));
        self.tell(thread, call, Some(result.map_err(Errno)), effect, locks);
    }

    /// A thread was let into the kernel without waiting, only so that it gives up the lock that it converts, and will
    /// make its call again: nothing is told of it.
    pub(super) fn gave_up_for_conversion(&mut self, thread: Pid, wholly: bool) {
        let pending = self.threads.get_mut(&thread).and_then(|known| known.pending.take());
        let Some(lock) = pending.and_then(|call| call.wants?.lock()) else { return };
        if wholly {
            self.table.release(lock.file, lock.kind, lock.owner, lock.range);
        } else {
            self.table.take(lock);
        }
    }

    /// What a thread is about to do: the call with its flags; of a lock, on what.
    pub(super) fn label(&self, thread: Pid) -> String {
        let Some(call) = self.pending(thread) else { return String::new() };
        let is_lock = call.shape.class == Class::Lock;
        let shown = call.arguments.iter().filter_map(|argument| match argument {
            Argument::Flags(flags) => Some(flags.as_str()),
            Argument::Descriptor(_, name) if is_lock => Some(name.as_str()),
            _ => None,
        });
        std::iter::once(call.shape.name).chain(shown).collect::<Vec<_>>().join(" ")
    }

    /// The lock that a thread is about to wait for, whether it can be had or not.
    pub(super) fn awaited(&self, thread: Pid) -> Option<Lock> {
        self.pending(thread)?.wants.filter(|wanted| wanted.waits)?.lock()
    }

    /// A call that was held is made now: what it finds may be another than when it came.
    pub(super) fn look_again(&mut self, thread: Pid) {
        if let Some(call) = self.threads.get_mut(&thread).and_then(|known| known.pending.as_mut()) {
            call.look();
            call.look_at_range(thread);
        }
    }

    pub(super) fn held_locks(&self) -> &[Lock] {
        self.table.held()
    }

    /// A table to try things out in.
    pub(super) fn lock_table(&self) -> LockTable {
        self.table.clone()
    }

    /// The same of the open file descriptions.
    pub(super) fn description_counts(&self) -> Descriptions {
        self.descriptions.clone()
    }

    /// The name that a file was opened by.
    pub(super) fn opened_as(&self, open: &OpenFile) -> String {
        self.names.get(open.name).cloned().unwrap_or_default()
    }

    /// A thread has ended.
    pub(super) fn thread_ended(&mut self, thread: Pid, end: End) {
        if let Some(pending) = self.threads.get_mut(&thread).and_then(|known| known.pending.take()) {
            self.tell(thread, pending, None, None, Vec::new());
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
            let (process_number, client) =
                self.processes.remove(&process).map_or((0, 0), |process| (process.number, process.client));
            if !open.is_empty() {
                let status = match end {
                    End::Exited(status) => Argument::Number(status.into()),
                    End::Signalled(signal) => Argument::Flags(format!("killed by signal {signal}")),
                    End::Killed | End::TimedOut | End::Stuck => Argument::Flags("killed".into()),
                };
                self.push((client, process_number, number), "exit", vec![status], None, locks);
            }
        }
        self.threads.remove(&thread);
    }

    /// There is a new thread or process, made by the thread `maker` where that is known.
    pub(super) fn born(&mut self, thread: Pid, maker: Option<Pid>) {
        if self.threads.contains_key(&thread) {
            return;
        }
        // One that was killed before its maker told of it has ended already, and will not end once more.
        if !descriptor::is_traced(thread) {
            return;
        }
        let Some((process, parent)) = descriptor::family(thread) else { return };
        // With `CLONE_PARENT` the parent is not who made it.
        let parent = maker.and_then(|maker| self.process_id(maker)).unwrap_or(parent);
        let is_process = process == thread;
        let client = self.processes.get(&process).or(self.processes.get(&parent)).map(|known| known.client);
        // Whoever made it is stopped meanwhile, and will tell of it.
        let Some(client) = client else { return };
        self.add_thread(thread, process, client);
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
            self.push((client, parent_number, by), "fork", vec![argument], Some(Ok(0)), Vec::new());
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
        let (process_number, client) = (tracked.number, tracked.client);
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
        self.push((client, process_number, number), "execve", vec![argument], Some(Ok(0)), locks);
    }

    fn add_thread(&mut self, thread: Pid, process: Pid, client: u32) {
        self.started.1 += 1;
        self.threads.insert(thread, Thread { process, number: self.started.1, pending: None });
        self.pids.insert(process.as_raw());
        if !self.processes.contains_key(&process) {
            self.started.0 += 1;
            let new = Process { number: self.started.0, client, ..Process::default() };
            self.processes.insert(process, new);
        }
    }

    /// A timer is set, or stopped by setting it to nothing.
    fn note_timer(&mut self, thread: Pid, entry: &Entry, value: TimerValue) {
        let is_set = match value {
            TimerValue::Seconds(index) => entry.arguments[index] as u32 != 0,
            // Behind the interval stands when it goes off: two numbers each.
            TimerValue::Behind(index) => (2..4).any(|word| {
                memory::word(thread, entry.arguments[index].saturating_add(word * 8))
                    .is_some_and(|part| part != 0)
            }),
        };
        let process = self.process_id(thread);
        if let Some(process) = process.and_then(|process| self.processes.get_mut(&process)) {
            process.has_timer = is_set;
        }
    }

    pub(super) fn process_of(&self, thread: Pid) -> Option<&Process> {
        self.processes.get(&self.threads.get(&thread)?.process)
    }

    pub(super) fn open_file(&self, thread: Pid, fd: i32) -> Option<OpenFile> {
        self.process_of(thread)?.open.get(&fd).copied()
    }

    pub(super) fn is_visible(&self, path: &Path) -> bool {
        path.starts_with(&self.sandbox) || self.locked_elsewhere.contains(path)
    }

    /// The path that an argument names, where that is visible.
    pub(super) fn named(&self, thread: Pid, folder: Option<i32>, address: u64) -> Option<PathBuf> {
        let path = path::resolve(thread, folder, memory::text(thread, address));
        self.is_visible(&path).then_some(path)
    }

    pub(super) fn add_path(&self, call: &mut Pending, path: PathBuf) {
        let shown = path::shown(&path, &self.sandbox);
        call.arguments.push(Argument::Path(shown.clone()));
        call.objects.push(Object::Entry(shown));
        call.paths.push(path);
    }

    /// Adds a descriptor to the call. Nothing where it is not open on anything visible.
    pub(super) fn add_descriptor(&self, thread: Pid, call: &mut Pending, fd: i32) -> Option<()> {
        let open = self.open_file(thread, fd)?;
        let (number, path) = self.files.get(&open.file)?;
        call.arguments.push(Argument::Descriptor(fd, path.clone()));
        call.objects.push(Object::File(*number));
        call.objects.push(Object::Description(open.description));
        Some(())
    }

    pub(super) fn path_of(&self, thread: Pid, fd: i32) -> String {
        let open = self.open_file(thread, fd);
        open.and_then(|open| self.files.get(&open.file)).map(|(_, path)| path.clone()).unwrap_or_default()
    }

    /// The file of a new descriptor, which gets a number in the trace where it has none.
    fn opened(
        &mut self,
        thread: Pid,
        fd: i32,
        shown: String,
        (appends, is_path): (bool, bool),
    ) -> Option<[Object; 2]> {
        let file = descriptor::file(thread, fd)?;
        let next = u32::try_from(self.files.len() + 1).unwrap_or(u32::MAX);
        let number = self.files.entry(file).or_insert((next, String::new())).0;
        // Its own name, whatever link it was opened by.
        let name = self.name(&path::shown(&path::of_descriptor(thread, fd), &self.sandbox));
        self.files.insert(file, (number, shown));
        let description = self.descriptions.open();
        let process = self.threads.get(&thread)?.process;
        self.processes
            .get_mut(&process)?
            .open
            .insert(fd, OpenFile { description, file, appends, is_path, name });
        Some([Object::File(number), Object::Description(description)])
    }

    /// Takes a descriptor in that somebody locks and that was not visible so far, with all that share its file.
    pub(super) fn adopt(&mut self, thread: Pid, fd: i32) -> Option<()> {
        if self.open_file(thread, fd).is_some() {
            return Some(());
        }
        let file = descriptor::file(thread, fd)?;
        self.locks_older_descriptor = true;
        let path = path::of_descriptor(thread, fd);
        self.locked_elsewhere.insert(path.clone());
        let next = u32::try_from(self.files.len() + 1).unwrap_or(u32::MAX);
        let shown = path::shown(&path, &self.sandbox);
        let name = self.name(&shown);
        self.files.entry(file).or_insert((next, shown));
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
                    process.open.entry(other).or_insert(OpenFile {
                        description,
                        file,
                        appends: false,
                        is_path: false,
                        name,
                    });
                }
            }
        }
        self.open_file(thread, fd).map(drop)
    }

    fn name(&mut self, shown: &str) -> usize {
        let known = self.names.iter().position(|name| name == shown);
        known.unwrap_or_else(|| {
            self.names.push(shown.to_owned());
            self.names.len() - 1
        })
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
        let mut released = match open.is_path {
            true => Vec::new(),
            false => self.table.file_closed(process.number, open.file),
        };
        if self.descriptions.close(open.description) {
            released.extend(self.table.description_closed(open.description));
        }
        released.into_iter().map(|lock| LockChange::Released(lock, self.name_of(lock.file))).collect()
    }

    fn lock(&mut self, thread: Pid, wanted: Wanted, result: Result<i64, i32>) -> Vec<LockChange> {
        let Wanted { file, kind, owner, mode, range, .. } = wanted;
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
        if let (Ok(_), Some(process)) = (result, self.process_of(thread)) {
            self.takers.insert((file, kind, owner), (process.number, process.client));
        }
        vec![if result.is_ok() { LockChange::Taken(lock, name) } else { LockChange::Refused(lock, name) }]
    }

    /// What a file is called.
    pub(super) fn shown(&self, file: FileId) -> String {
        self.name_of(file)
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
        effect: Option<Effect>,
        locks: Vec<LockChange>,
    ) {
        let (process, client) =
            self.process_of(thread).map_or((0, 0), |process| (process.number, process.client));
        let thread = self.threads.get(&thread).map_or(0, |thread| thread.number);
        // `fcntl` is a lock call only where it asks for a lock.
        let is_duplicate =
            call.shape.form == Form::Fcntl && call.wants.is_none() && call.asks_about.is_none();
        self.calls.push(Call {
            number: u32::try_from(self.calls.len() + 1).unwrap_or(u32::MAX),
            client,
            process,
            thread,
            name: call.shape.name.to_owned(),
            arguments: call.arguments,
            result,
            objects: call.objects,
            class: if is_duplicate { Class::Open } else { call.shape.class },
            creates: call.creates,
            effect,
            data: call.data,
            content: None,
            locks,
        });
    }

    fn push(
        &mut self,
        (client, process, thread): (u32, u32, u32),
        name: &str,
        arguments: Vec<Argument>,
        result: Option<Result<i64, Errno>>,
        locks: Vec<LockChange>,
    ) {
        self.calls.push(Call {
            number: u32::try_from(self.calls.len() + 1).unwrap_or(u32::MAX),
            client,
            process,
            thread,
            name: name.to_owned(),
            arguments,
            result,
            objects: Vec::new(),
            class: Class::Process,
            creates: false,
            effect: None,
            data: None,
            content: None,
            locks,
        });
    }
}

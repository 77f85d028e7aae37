//! Models the kernel: which descriptor of which process is open on what, and who holds which lock, kept up to date from the
//! calls themselves. The kernel decides: the effect of a call is taken from its result.

mod descriptors;
mod family;
mod locked;
mod naming;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use nix::unistd::Pid;

use crate::call::{Argument, Call, Class, Effect, Errno, LockChange, Object};
use crate::locks::{Descriptions, FileId, Kind, Lock, LockTable, Owner};
use crate::tracer::effect::UNNAMED;
use crate::tracer::kernel::family::{Process, Table, Thread};
pub(super) use crate::tracer::kernel::locked::Wanted;
use crate::tracer::path::{self, Elsewhere, Roots};
use crate::tracer::shape::{self, Form, Shape};
use crate::tracer::stopped::Entry;

/// `CLOSE_RANGE_CLOEXEC`: nothing is closed before the exec.
const CLOSE_LATER: u64 = 4;

pub(super) struct KernelModel {
    pub(super) calls: Vec<Call>,
    pub(super) not_covered: BTreeSet<String>,
    /// Folders in which operations are visible.
    pub(super) sandbox: Roots,
    /// Paths outside these folders, as far as they are known.
    elsewhere: Elsewhere,
    threads: BTreeMap<Pid, Thread>,
    processes: BTreeMap<Pid, Process>,
    /// Descriptor tables, by their numbers.
    tables: BTreeMap<u32, Table>,
    tables_made: u32,
    descriptions: Descriptions,
    table: LockTable,
    /// Files, with their numbers in the trace and their latest names.
    pub(super) files: BTreeMap<FileId, (u32, String)>,
    /// Files outside the sandbox that were locked: from then on they are visible.
    locked_elsewhere: BTreeSet<PathBuf>,
    started: (u32, u32),
    /// Addresses where the C libraries of the threads store their ids, as the threads reported them.
    pub(super) tid_addresses: BTreeMap<Pid, u64>,
    /// Whether a lock was requested on a descriptor that was open before the first visible call.
    pub(super) locks_older_descriptor: bool,
    /// Ids of all processes that ever existed.
    pub(super) pids: BTreeSet<i32>,
    /// Process and client that took each held lock.
    takers: BTreeMap<(FileId, Kind, Owner), (u32, u32)>,
    /// Whether data copied from file to file is kept.
    pub(super) is_detailed: bool,
    /// Whether a file was ever mapped shared.
    pub(super) has_shared_map: bool,
    /// Names that files were opened by.
    names: Vec<String>,
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
    /// Whether no file of that name existed before.
    pub(super) was_missing: bool,
    pub(super) appends: bool,
    pub(super) is_path: bool,
    /// Flags of an open.
    pub(super) flags: i32,
    /// Whether the file that an open empties was empty before.
    pub(super) was_empty: bool,
    /// The lock that it asks about without taking it.
    pub(super) asks_about: Option<Lock>,
}

impl Pending {
    /// Returns the number of bytes that it is to write, if that number can be cut.
    pub(super) fn length(&self) -> Option<u64> {
        match self.shape.form {
            Form::Buffer { .. } | Form::Vector { .. } => Some(self.data.as_ref()?.len() as u64),
            Form::Copy { count, .. } => Some(self.entry.arguments[count]),
            _ => None,
        }
    }

    /// Checks whether an open finds a file, and whether that is empty.
    pub(super) fn look(&mut self) {
        if !matches!(self.shape.form, Form::Open { .. }) {
            return;
        }
        // A link is followed, unless it is in the way.
        let found = self.paths.first().and_then(|path| std::fs::metadata(path).ok());
        let is_new = self.flags & libc::O_CREAT != 0 && found.is_none() || self.is_unnamed();
        self.was_missing = is_new;
        self.creates = is_new || self.flags & libc::O_TRUNC != 0;
        self.was_empty = found.is_some_and(|found| found.is_file() && found.len() == 0);
    }
}

impl KernelModel {
    pub(super) fn new(sandbox: Roots, is_detailed: bool) -> Self {
        Self {
            calls: Vec::new(),
            not_covered: BTreeSet::new(),
            sandbox,
            elsewhere: Elsewhere::default(),
            threads: BTreeMap::new(),
            processes: BTreeMap::new(),
            tables: BTreeMap::new(),
            tables_made: 0,
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
            has_shared_map: false,
            names: Vec::new(),
        }
    }

    /// Returns the number that the next visible call of a client will have among its calls.
    pub(super) fn next_call_of(&self, client: u32) -> u32 {
        u32::try_from(self.calls.iter().filter(|call| call.client == client).count() + 1).unwrap_or(u32::MAX)
    }

    /// Returns the call that a thread was let into, or is about to make.
    pub(super) fn pending(&self, thread: Pid) -> Option<&Pending> {
        self.threads.get(&thread)?.pending.as_ref()
    }

    /// Whether a call may be visible; calls that only set a timer are not.
    pub(super) fn may_be_visible(&self, entry: &Entry) -> bool {
        let shape = shape::find(entry.number).filter(|_| !entry.is_foreign);
        shape.is_some_and(|shape| !matches!(shape.form, Form::Timer { .. } | Form::TidAddress))
    }

    /// Records that a thread is about to make a call. Returns whether it is visible, so that its result is needed.
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

    /// Records that the call of a thread has returned.
    pub(super) fn exit(&mut self, thread: Pid, result: Result<i64, i32>) {
        let Some(mut call) = self.threads.get_mut(&thread).and_then(|known| known.pending.take()) else {
            return;
        };
        let mut locks = Vec::new();
        let int = |index: usize| call.entry.arguments[index] as i32;
        match (call.shape.form, result) {
            (Form::Open { .. }, Ok(fd)) => {
                let shown = match call.is_unnamed() {
                    true => UNNAMED.to_owned(),
                    false => {
                        call.paths.first().map(|path| path::shown(path, &self.sandbox)).unwrap_or_default()
                    }
                };
                if let Some(open) = self.opened(thread, fd as i32, shown, (call.appends, call.is_path)) {
                    call.objects.extend(open);
                }
            }
            // A descriptor is closed even if `close` reports an error; EBADF means that there was none.
            (Form::Close, _) => locks = self.close(thread, int(0)),
            (Form::CloseRange, Ok(_)) if call.entry.arguments[2] & CLOSE_LATER == 0 => {
                let (first, last) = (call.entry.arguments[0] as u32, call.entry.arguments[1] as u32);
                // Before it closes any, it may get a table of its own (`CLOSE_RANGE_UNSHARE`).
                if let Some(process) = self.process_id(thread) {
                    self.part_tables(process);
                }
                let open = self.descriptors_of(thread).into_iter();
                for fd in open.filter(|fd| (first..=last).contains(&fd.unsigned_abs())) {
                    locks.extend(self.close(thread, fd));
                }
            }
            (Form::Duplicate { .. }, Ok(new)) => locks = self.duplicate(thread, int(0), new as i32),
            (Form::Fcntl, Ok(new)) if call.wants.is_none() && call.asks_about.is_none() => {
                locks = self.duplicate(thread, int(0), new as i32);
            }
            (Form::Paths { .. }, Ok(_)) if call.exchanges() => self.exchanged(&call.paths),
            (Form::Paths { .. }, Ok(_)) if call.shape.name.starts_with("rename") => self.renamed(&call.paths),
            (Form::Paths { .. }, Ok(_)) => self.linked(&call.paths),
            (Form::Attribute { .. }, Ok(_)) if call.sets_access_list() => {
                call.data = self.access_list(thread, &call);
            }
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

    /// Describes what a thread is about to do: the call with its flags, and for a lock the file.
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

    /// Repeats the checks when a held call is made: it may find something different from when it arrived.
    pub(super) fn look_again(&mut self, thread: Pid) {
        if let Some(call) = self.threads.get_mut(&thread).and_then(|known| known.pending.as_mut()) {
            call.look();
            call.look_at_range(thread);
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
        // `fcntl` is a lock call only if it requests a lock.
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

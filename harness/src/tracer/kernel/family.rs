//! Models the threads and processes of each client, from creation to exit.

use std::collections::{BTreeMap, BTreeSet};

use nix::unistd::Pid;

use crate::call::{Argument, End};
use crate::tracer::kernel::descriptors::OpenFile;
use crate::tracer::kernel::{KernelModel, Pending};
use crate::tracer::shape::TimerValue;
use crate::tracer::stopped::Entry;
use crate::tracer::{descriptor, memory, path};

/// A living thread.
pub(super) struct Thread {
    pub(super) process: Pid,
    pub(super) number: u32,
    pub(super) pending: Option<Pending>,
}

/// A living process.
#[derive(Default)]
pub(in crate::tracer) struct Process {
    pub(in crate::tracer) number: u32,
    pub(in crate::tracer) client: u32,
    /// Number of its descriptor table, which owns the POSIX locks.
    pub(in crate::tracer) table: u32,
    /// Whether one of its timers may still end a wait.
    pub(super) has_timer: bool,
}

/// The descriptors of a process, or of several that share them (`CLONE_FILES`).
#[derive(Default)]
pub(super) struct Table {
    pub(super) open: BTreeMap<i32, OpenFile>,
    /// Descriptors known to be open on nothing visible.
    pub(super) elsewhere: BTreeSet<i32>,
}

impl KernelModel {
    /// Records that a client's first process runs its program.
    pub(in crate::tracer) fn client_started(&mut self, client: u32, root: Pid) {
        self.add_thread(root, root, client);
    }

    /// Replaces a client's first process, which is a template from now on, by this copy of it.
    pub(in crate::tracer) fn replaced_by_copy(&mut self, template: Pid, copy: Pid) {
        if let Some(thread) = self.threads.remove(&template) {
            self.threads.insert(copy, Thread { process: copy, pending: None, ..thread });
        }
        if let Some(process) = self.processes.remove(&template) {
            self.processes.insert(copy, process);
        }
        self.pids.remove(&template.as_raw());
        self.pids.insert(copy.as_raw());
    }

    pub(in crate::tracer) fn client_of(&self, thread: Pid) -> Option<u32> {
        self.process_of(thread).map(|process| process.client)
    }

    /// Returns the process that a thread belongs to.
    pub(in crate::tracer) fn process_id(&self, thread: Pid) -> Option<Pid> {
        self.threads.get(&thread).map(|known| known.process)
    }

    /// Returns the number of a thread, in order of creation.
    pub(in crate::tracer) fn thread_number(&self, thread: Pid) -> u32 {
        self.threads.get(&thread).map_or(u32::MAX, |known| known.number)
    }

    /// Returns all living threads.
    pub(in crate::tracer) fn threads(&self) -> impl Iterator<Item = Pid> {
        self.threads.keys().copied()
    }

    /// Returns the living processes of a client.
    pub(in crate::tracer) fn processes_of(&self, client: u32) -> Vec<Pid> {
        let of_client = self.processes.iter().filter(|(_, process)| process.client == client);
        of_client.map(|(pid, _)| *pid).collect()
    }

    /// Returns the living process with this number, if it belongs to the client.
    pub(in crate::tracer) fn process_of_number(&self, client: u32, number: u32) -> Option<Pid> {
        let is_it = |process: &Process| (process.client, process.number) == (client, number);
        self.processes.iter().find(|(_, process)| is_it(process)).map(|(pid, _)| *pid)
    }

    pub(in crate::tracer) fn process_ids(&self) -> Vec<Pid> {
        self.processes.keys().copied().collect()
    }

    /// Whether a timer of any process of the client may still end a wait.
    pub(in crate::tracer) fn has_timer(&self, client: u32) -> bool {
        self.processes.values().any(|process| process.client == client && process.has_timer)
    }

    /// Records the end of a thread.
    pub(in crate::tracer) fn thread_ended(&mut self, thread: Pid, end: End) {
        if let Some(pending) = self.threads.get_mut(&thread).and_then(|known| known.pending.take()) {
            self.tell(thread, pending, None, None, Vec::new());
        }
        let Some(ended) = self.threads.get(&thread) else { return };
        let (process, number) = (ended.process, ended.number);
        let is_last = self.threads.values().filter(|other| other.process == process).count() == 1;
        if is_last {
            // Shared descriptors stay open.
            let open = match self.sharers(process).is_empty() {
                true => self.descriptors_of(thread),
                false => Vec::new(),
            };
            let mut locks = Vec::new();
            for fd in &open {
                locks.extend(self.close(thread, *fd));
            }
            if let Some(known) = self.processes.get(&process).filter(|_| self.sharers(process).is_empty()) {
                self.tables.remove(&known.table);
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

    /// Records a new thread or process, created by the thread `maker` if that is known.
    pub(in crate::tracer) fn born(&mut self, thread: Pid, maker: Option<Pid>) {
        if self.threads.contains_key(&thread) {
            return;
        }
        // A thread that was killed before its creator reported it has ended already, and will not end again.
        if !descriptor::is_traced(thread) {
            return;
        }
        let Some((process, parent)) = descriptor::family(thread) else { return };
        // With `CLONE_PARENT` the parent is not its creator.
        let parent = maker.and_then(|maker| self.process_id(maker)).unwrap_or(parent);
        let is_process = process == thread;
        let client = self.processes.get(&process).or(self.processes.get(&parent)).map(|known| known.client);
        // The creator is stopped meanwhile, and will report it.
        let Some(client) = client else { return };
        self.add_thread(thread, process, client);
        if !is_process {
            return;
        }
        let parent_table = self.processes.get(&parent).map(|parent| parent.table);
        let table = match parent_table.filter(|_| descriptor::share_table(parent, process)) {
            Some(shared) => shared,
            None => self.copied_table(parent_table),
        };
        let has_some = self.tables.get(&table).is_some_and(|table| !table.open.is_empty());
        let child = self.processes.entry(process).or_default();
        child.table = table;
        let child_number = child.number;
        if let (true, Some(parent_number)) =
            (has_some, self.processes.get(&parent).map(|parent| parent.number))
        {
            let by = self.threads.get(&parent).map_or(0, |thread| thread.number);
            let argument = Argument::Flags(format!("process {child_number}"));
            self.push((client, parent_number, by), "fork", vec![argument], Some(Ok(0)), Vec::new());
        }
    }

    /// Records an exec: the other threads of the process are gone, and so are its close-on-exec descriptors.
    pub(in crate::tracer) fn executed(&mut self, thread: Pid, former: Pid) {
        let Some(known) = self.threads.remove(&former).or_else(|| self.threads.remove(&thread)) else {
            return;
        };
        let (process, number) = (known.process, known.number);
        self.threads.retain(|_, other| other.process != process);
        self.threads.insert(thread, Thread { process, number, pending: None });
        let there = descriptor::all(thread);
        self.part_tables(process);
        let Some(tracked) = self.processes.get(&process) else { return };
        let (process_number, client) = (tracked.number, tracked.client);
        let Some(table) = self.tables.get_mut(&tracked.table) else { return };
        table.elsewhere.clear();
        let closed: Vec<i32> = table.open.keys().copied().filter(|fd| !there.contains(fd)).collect();
        if table.open.is_empty() {
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

    /// Creates a table with the same content as this one.
    fn copied_table(&mut self, of: Option<u32>) -> u32 {
        let open = of.and_then(|of| self.tables.get(&of)).map(|table| table.open.clone());
        for open in open.iter().flat_map(BTreeMap::values) {
            self.descriptions.duplicate(open.description);
        }
        let elsewhere = of.and_then(|of| self.tables.get(&of)).map(|table| table.elsewhere.clone());
        let new = Table { open: open.unwrap_or_default(), elsewhere: elsewhere.unwrap_or_default() };
        self.tables_made += 1;
        self.tables.insert(self.tables_made, new);
        self.tables_made
    }

    /// Returns the other processes that share the descriptors of this one.
    fn sharers(&self, process: Pid) -> Vec<Pid> {
        let table = self.processes.get(&process).map(|known| known.table);
        let others = self.processes.iter().filter(|(other, _)| **other != process);
        others.filter(|(_, other)| Some(other.table) == table).map(|(other, _)| *other).collect()
    }

    /// Whether other processes share the descriptors of this one.
    pub(in crate::tracer) fn shares_table(&self, process: Pid) -> bool {
        !self.sharers(process).is_empty()
    }

    /// Separates the table of a process that no longer shares its descriptors with others, after an exec or `unshare`.
    pub(super) fn part_tables(&mut self, process: Pid) {
        let others = self.sharers(process);
        let has_parted = |other: &Pid| !descriptor::share_table(process, *other);
        if others.is_empty() || !others.iter().all(has_parted) {
            return;
        }
        let shared = self.processes.get(&process).map(|known| known.table);
        let own = self.copied_table(shared);
        if let Some(known) = self.processes.get_mut(&process) {
            known.table = own;
        }
    }

    /// Returns what the process of a thread has open that is visible.
    pub(in crate::tracer) fn open_of(&self, thread: Pid) -> Option<&BTreeMap<i32, OpenFile>> {
        Some(&self.tables.get(&self.process_of(thread)?.table)?.open)
    }

    /// Returns the descriptors of that, in order.
    pub(in crate::tracer) fn descriptors_of(&self, thread: Pid) -> Vec<i32> {
        self.open_of(thread).map(|open| open.keys().copied().collect()).unwrap_or_default()
    }

    pub(super) fn table_of(&mut self, thread: Pid) -> Option<&mut Table> {
        let table = self.process_of(thread)?.table;
        self.tables.get_mut(&table)
    }

    pub(super) fn add_thread(&mut self, thread: Pid, process: Pid, client: u32) {
        self.started.1 += 1;
        self.threads.insert(thread, Thread { process, number: self.started.1, pending: None });
        self.pids.insert(process.as_raw());
        if !self.processes.contains_key(&process) {
            self.started.0 += 1;
            let table = self.copied_table(None);
            let new = Process { number: self.started.0, client, table, ..Process::default() };
            self.processes.insert(process, new);
        }
    }

    /// Records that a timer is set, or stopped by setting it to zero.
    pub(super) fn note_timer(&mut self, thread: Pid, entry: &Entry, value: TimerValue) {
        let is_set = match value {
            TimerValue::Seconds(index) => entry.arguments[index] as u32 != 0,
            // The expiration time follows the interval: two numbers each.
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

    pub(in crate::tracer) fn process_of(&self, thread: Pid) -> Option<&Process> {
        self.processes.get(&self.threads.get(&thread)?.process)
    }
}

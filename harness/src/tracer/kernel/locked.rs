//! Models held locks, their owners, and the result of a lock call.

use std::collections::BTreeSet;

use nix::unistd::Pid;

use crate::call::{Leak, LockChange};
use crate::locks::{FileId, Kind, Lock, LockTable, Mode, Owner, Range};
use crate::tracer::kernel::KernelModel;
use crate::tracer::kernel::family::Process;

/// Lock request of a call: a lock, or an unlock, on a range.
#[derive(Clone, Copy)]
pub(in crate::tracer) struct Wanted {
    pub(in crate::tracer) file: FileId,
    pub(in crate::tracer) kind: Kind,
    pub(in crate::tracer) owner: Owner,
    pub(in crate::tracer) mode: Option<Mode>,
    pub(in crate::tracer) range: Range,
    /// Whether the call waits for it.
    pub(in crate::tracer) waits: bool,
}

impl Wanted {
    /// Returns the lock, unless the request is an unlock.
    pub(in crate::tracer) fn lock(&self) -> Option<Lock> {
        let Self { file, kind, owner, range, .. } = *self;
        self.mode.map(|mode| Lock { file, kind, owner, mode, range })
    }
}

impl KernelModel {
    /// Drops the lock request of a thread's call that will not be made.
    pub(in crate::tracer) fn asks_for_no_lock(&mut self, thread: Pid) {
        if let Some(pending) = self.threads.get_mut(&thread).and_then(|known| known.pending.as_mut()) {
            pending.wants = None;
        }
    }

    /// Returns the held locks that conflict with this one.
    pub(in crate::tracer) fn obstacles(&self, lock: &Lock) -> Vec<Lock> {
        self.table.obstacles(lock)
    }

    /// Whether the owner already holds a `flock` there in another mode, which it loses when it requests this one.
    pub(in crate::tracer) fn is_conversion(&self, lock: &Lock) -> bool {
        let is_other = |held: &&Lock| {
            (held.file, held.kind, held.owner) == (lock.file, lock.kind, lock.owner) && held.mode != lock.mode
        };
        lock.kind == Kind::Flock && self.table.held().iter().any(|held| is_other(&held))
    }

    /// Returns the clients whose living processes can hold a lock of this owner.
    pub(in crate::tracer) fn clients_of(&self, owner: Owner) -> BTreeSet<u32> {
        let has = |process: &&Process| match owner {
            Owner::Process(number) => process.table == number,
            Owner::Description(description) => self
                .tables
                .get(&process.table)
                .is_some_and(|table| table.open.values().any(|open| open.description == description)),
        };
        self.processes.values().filter(has).map(|process| process.client).collect()
    }

    /// Returns the locks that outlived the processes that took them, for clients whose operations have `ended`.
    pub(in crate::tracer) fn leaks(&self, ended: &[u32]) -> Vec<Leak> {
        let lives = |number: u32| self.processes.values().any(|process| process.number == number);
        let held = self.table.held().iter().filter_map(|held| {
            let (process, client) = self.takers.get(&(held.file, held.kind, held.owner))?;
            let is_left =
                ended.contains(client) && !lives(*process) && !self.clients_of(held.owner).is_empty();
            is_left.then(|| Leak { client: *client, file: self.shown(held.file), kind: held.kind })
        });
        held.collect()
    }

    /// Handles a thread that was let into the kernel without waiting, only to release the lock that it converts, and
    /// that will make its call again: the call is not recorded.
    pub(in crate::tracer) fn gave_up_for_conversion(&mut self, thread: Pid, wholly: bool) {
        let pending = self.threads.get_mut(&thread).and_then(|known| known.pending.take());
        let Some(lock) = pending.and_then(|call| call.wants?.lock()) else { return };
        if wholly {
            self.table.release(lock.file, lock.kind, lock.owner, lock.range);
        } else {
            self.table.take(lock);
        }
    }

    /// Returns the lock that a thread is about to wait for, whether it is free or not.
    pub(in crate::tracer) fn awaited(&self, thread: Pid) -> Option<Lock> {
        self.pending(thread)?.wants.filter(|wanted| wanted.waits)?.lock()
    }

    pub(in crate::tracer) fn held_locks(&self) -> &[Lock] {
        self.table.held()
    }

    /// Returns a copy of the lock table to try things out in.
    pub(in crate::tracer) fn lock_table(&self) -> LockTable {
        self.table.clone()
    }

    pub(super) fn lock(&mut self, thread: Pid, wanted: Wanted, result: Result<i64, i32>) -> Vec<LockChange> {
        let Wanted { file, kind, owner, mode, range, .. } = wanted;
        let name = self.shown(file);
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
            // A process that is not traced holds it, such as another program.
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
}

//! Queues all handles on one lock file within a process before one of them asks the kernel.
//!
//! `flock` belongs to the open file description, so two handles of one process on one path exclude each other like
//! separate processes, and a thread that takes both would wait for itself forever. Here the process knows its own
//! holders: a second thread waits in order of arrival, and a thread that would wait for itself gets an error.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::sync::thread::{self, ThreadId};
use crate::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Device and inode: the identity of a lock file, whatever its name.
pub(crate) type FileId = (u64, u64);

/// How long a caller is ready to wait.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    Forever,
    Until(Instant),
    None,
}

impl Patience {
    /// Returns whether the caller stops waiting.
    pub(crate) fn is_over(self) -> bool {
        match self {
            Self::Forever => false,
            Self::Until(end) => Instant::now() >= end,
            Self::None => true,
        }
    }
}

/// Reason why a caller did not get its turn.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    WouldWaitForItself,
    PatienceOver,
}

/// The queues of this process, by the identity of their lock files.
#[derive(Debug)]
pub(crate) struct Table {
    queues: Mutex<BTreeMap<FileId, Weak<Queue>>>,
}

/// The threads of this process that wait for, or hold, one lock file.
#[derive(Debug)]
pub(crate) struct Queue {
    turns: Mutex<Turns>,
    next: Condvar,
}

#[derive(Debug)]
struct Turns {
    holder: Option<ThreadId>,
    /// A thread that does its part of an update under the lock of the holder, which waits for it.
    acting: Option<ThreadId>,
    waiting: VecDeque<u64>,
    tickets: u64,
}

impl Table {
    /// Creates an empty table.
    pub(crate) fn new() -> Self {
        Self { queues: Mutex::new(BTreeMap::new()) }
    }

    /// Returns the one queue that this process has for the lock file `id`.
    pub(crate) fn queue_of(&self, id: FileId) -> Arc<Queue> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get(&id).and_then(Weak::upgrade) {
            return queue;
        }
        queues.retain(|_, queue| queue.strong_count() > 0);
        let queue = Arc::new(Queue::new());
        queues.insert(id, Arc::downgrade(&queue));
        queue
    }
}

impl Queue {
    pub(crate) fn new() -> Self {
        let turns = Turns { holder: None, acting: None, waiting: VecDeque::new(), tickets: 0 };
        Self { turns: Mutex::new(turns), next: Condvar::new() }
    }

    /// Waits for the calling thread's turn; [`Queue::leave`] ends it.
    pub(crate) fn enter(&self, patience: Patience) -> Result<(), Refusal> {
        let mut turns = self.turns();
        if turns.is_of_this_thread() {
            return Err(Refusal::WouldWaitForItself);
        }
        let ticket = turns.tickets;
        turns.tickets += 1;
        turns.waiting.push_back(ticket);
        while turns.holder.is_some() || turns.waiting.front() != Some(&ticket) {
            if patience.is_over() {
                turns.waiting.retain(|waiting| *waiting != ticket);
                // The next in the queue may be first now.
                self.next.notify_all();
                return Err(Refusal::PatienceOver);
            }
            turns = match patience {
                Patience::Until(end) => {
                    let left = end.saturating_duration_since(Instant::now());
                    self.next.wait_timeout(turns, left).unwrap_or_else(PoisonError::into_inner).0
                }
                Patience::Forever | Patience::None => {
                    self.next.wait(turns).unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
        turns.waiting.pop_front();
        turns.holder = Some(thread::current().id());
        Ok(())
    }

    /// Ends the turn that [`Queue::enter`] began.
    pub(crate) fn leave(&self) {
        let mut turns = self.turns();
        turns.holder = None;
        let somebody_waits = !turns.waiting.is_empty();
        drop(turns);
        if somebody_waits {
            self.next.notify_all();
        }
    }

    /// Runs `part` in the calling thread on behalf of the holder of the turn, which waits for it.
    pub(crate) fn act<R>(&self, part: impl FnOnce() -> R) -> R {
        /// Ends the part, also on a panic.
        struct Acting<'a>(&'a Queue);
        impl Drop for Acting<'_> {
            fn drop(&mut self) {
                self.0.turns().acting = None;
            }
        }
        self.turns().acting = Some(thread::current().id());
        let _acting = Acting(self);
        part()
    }

    /// Returns the number of arrivals so far.
    #[cfg(test)]
    pub(crate) fn arrivals(&self) -> u64 {
        self.turns().tickets
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        // No caller's code runs under this mutex, so a poisoned one is still consistent.
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turns {
    fn is_of_this_thread(&self) -> bool {
        let this_thread = Some(thread::current().id());
        self.holder == this_thread || self.acting == this_thread
    }
}

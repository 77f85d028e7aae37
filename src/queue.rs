//! The queue inside one process: all handles on one lock file take turns here before one of them asks the kernel.
//!
//! `flock` belongs to the open file description, so two handles of one process on one path exclude each other like
//! strangers, and a thread that takes both would wait for itself without an end. Here the process knows its own
//! holders: a second thread waits in order of arrival, and a thread that would wait for itself is told so.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, ThreadId};
use std::time::Instant;

/// Device and inode: what a lock file is, whatever its name.
pub(crate) type FileId = (u64, u64);

/// Until when a caller is ready to wait.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    Forever,
    Until(Instant),
    None,
}

impl Patience {
    /// Whether the caller goes away rather than wait any longer.
    pub(crate) fn is_over(self) -> bool {
        match self {
            Self::Forever => false,
            Self::Until(end) => Instant::now() >= end,
            Self::None => true,
        }
    }
}

/// Why a caller did not get its turn.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    WouldWaitForItself,
    PatienceOver,
}

/// The threads of this process that want, or have, one lock file.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    turns: Mutex<Turns>,
    next: Condvar,
}

#[derive(Debug, Default)]
struct Turns {
    holder: Option<ThreadId>,
    waiting: VecDeque<u64>,
    tickets: u64,
}

static QUEUES: Mutex<BTreeMap<FileId, Weak<Queue>>> = Mutex::new(BTreeMap::new());

impl Queue {
    /// The one queue that this process has for the lock file `id`.
    pub(crate) fn of(id: FileId) -> Arc<Self> {
        let mut queues = QUEUES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get(&id).and_then(Weak::upgrade) {
            return queue;
        }
        queues.retain(|_, queue| queue.strong_count() > 0);
        let queue = Arc::new(Self::default());
        queues.insert(id, Arc::downgrade(&queue));
        queue
    }

    /// Waits for the calling thread's turn; [`Queue::leave`] ends it.
    pub(crate) fn enter(&self, patience: Patience) -> Result<(), Refusal> {
        let this_thread = thread::current().id();
        let mut turns = self.turns();
        if turns.holder == Some(this_thread) {
            return Err(Refusal::WouldWaitForItself);
        }
        let ticket = turns.tickets;
        turns.tickets += 1;
        turns.waiting.push_back(ticket);
        while turns.holder.is_some() || turns.waiting.front() != Some(&ticket) {
            if patience.is_over() {
                turns.waiting.retain(|waiting| *waiting != ticket);
                // The one behind may be first now.
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
        turns.holder = Some(this_thread);
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

    fn turns(&self) -> MutexGuard<'_, Turns> {
        // No code of a caller runs under this mutex, so that a poisoned one is still consistent.
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_thread_s_second_turn_is_refused_and_the_first_goes_on() {
        let queue = Queue::default();
        queue.enter(Patience::Forever).unwrap();
        assert_eq!(queue.enter(Patience::Forever), Err(Refusal::WouldWaitForItself));
        queue.leave();
        queue.enter(Patience::None).unwrap();
    }

    #[test]
    fn turns_come_in_the_order_of_arrival_and_one_that_left_does_not_block_the_others() {
        let queue = Queue::default();
        let (done, order) = mpsc::channel();
        queue.enter(Patience::Forever).unwrap();
        thread::scope(|scope| {
            for number in 0..6 {
                let (queue, done) = (&queue, done.clone());
                let patience = if number % 2 == 0 {
                    Patience::Forever
                } else {
                    Patience::Until(Instant::now() + Duration::from_millis(1))
                };
                scope.spawn(move || {
                    let entered = queue.enter(patience);
                    done.send((number, entered.is_ok())).unwrap();
                    if entered.is_ok() {
                        queue.leave();
                    }
                });
                // Every thread stands in the queue, or has left it, before the next one comes.
                while queue.turns().tickets < number + 2 {
                    thread::yield_now();
                }
            }
            let left: Vec<(u64, bool)> = order.iter().take(3).collect();
            assert!(left.iter().all(|(number, entered)| number % 2 == 1 && !entered), "{left:?}");
            queue.leave();
            let came: Vec<(u64, bool)> = order.iter().take(3).collect();
            assert_eq!(came, [(0, true), (2, true), (4, true)]);
        });
    }

    #[test]
    fn handles_share_a_queue_only_while_one_is_alive() {
        let first = Queue::of((7, 7));
        assert!(Arc::ptr_eq(&first, &Queue::of((7, 7))));
        first.enter(Patience::Forever).unwrap();
        drop(first);
        Queue::of((7, 7)).enter(Patience::None).unwrap();
    }
}

//! Implements group commit: threads of one process that update a file at the same time share one lock and one sync.
//!
//! The first thread to arrive leads: it takes the lock, and meanwhile others join. Then each thread does its own part,
//! one after another in order of arrival and in its own thread, on what the leader read; the leader writes the combined
//! result, and all return. A thread that arrives after the lock was acquired joins the next batch, whose leader waits
//! for this one. So the next batch grows while this one runs, and no thread waits for others to join.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use crate::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The batches of one file. `S` is the state that the parts work on, `E` the error of a failed batch.
#[derive(Debug)]
pub(crate) struct Group<S, E> {
    gate: Mutex<Gate<S, E>>,
    opened: Condvar,
}

#[derive(Debug)]
struct Gate<S, E> {
    /// The batch that can still be joined.
    forming: Option<Arc<Batch<S, E>>>,
    /// Whether a batch holds, or waits for, the lock.
    is_running: bool,
}

#[derive(Debug)]
struct Batch<S, E> {
    shared: Mutex<Shared<S, E>>,
}

#[derive(Debug)]
struct Shared<S, E> {
    /// Condition variables of the batch's threads, the leader first.
    seats: Vec<Arc<Condvar>>,
    /// Index of the thread whose part is next.
    turn: usize,
    /// State that the parts work on; `None` while a thread works on it.
    state: Option<S>,
    outcome: Option<Outcome<E>>,
}

#[derive(Clone, Debug)]
enum Outcome<E> {
    Done,
    Failed(E),
    /// The leader panicked outside its own part.
    Broken,
}

/// Steps of a leader for its batch.
pub(crate) trait Lead<S, E> {
    /// Resources that the leader keeps during the parts, such as the lock.
    type Kept;
    /// Remaining work that is done after the next batch may begin.
    type Left;
    /// Takes the lock and reads.
    fn begin(&self) -> Result<(S, Self::Kept), E>;
    /// Writes the result of the parts, and releases the lock.
    fn commit(&self, state: S, kept: Self::Kept) -> Result<Self::Left, E>;
    /// Does what needs no lock, before any thread of the batch returns.
    fn finish(&self, left: Self::Left) -> Result<(), E>;
}

impl<S, E: Clone> Group<S, E> {
    pub(crate) fn new() -> Self {
        Self { gate: Mutex::new(Gate { forming: None, is_running: false }), opened: Condvar::new() }
    }

    /// Does `part` in a batch, as its leader if there is none to join; returns the result of `part` once the batch is
    /// written and finished.
    pub(crate) fn take_part<R>(
        &self,
        lead: &impl Lead<S, E>,
        part: impl FnOnce(&mut S) -> R,
    ) -> Result<R, E> {
        let (batch, place) = self.join();
        if place == 0 { self.lead(&batch, lead, part) } else { batch.follow(place, part) }
    }

    fn join(&self) -> (Arc<Batch<S, E>>, usize) {
        let mut gate = self.gate();
        let batch = gate.forming.get_or_insert_with(|| {
            let shared = Shared { seats: Vec::new(), turn: 0, state: None, outcome: None };
            Arc::new(Batch { shared: Mutex::new(shared) })
        });
        let batch = Arc::clone(batch);
        let mut shared = batch.shared();
        shared.seats.push(Arc::new(Condvar::new()));
        let place = shared.seats.len() - 1;
        drop(shared);
        (batch, place)
    }

    fn lead<R>(
        &self,
        batch: &Batch<S, E>,
        lead: &impl Lead<S, E>,
        part: impl FnOnce(&mut S) -> R,
    ) -> Result<R, E> {
        let mut gate = self.gate();
        while gate.is_running {
            gate = self.opened.wait(gate).unwrap_or_else(PoisonError::into_inner);
        }
        gate.is_running = true;
        drop(gate);
        let begun = catch_unwind(AssertUnwindSafe(|| lead.begin()));
        self.gate().forming = None;
        let (mut state, kept) = match begun {
            Ok(Ok(begun)) => begun,
            Ok(Err(failed)) => {
                self.let_next_begin();
                batch.end(Outcome::Failed(failed.clone()));
                return Err(failed);
            }
            Err(panic) => {
                self.let_next_begin();
                batch.end(Outcome::Broken);
                resume_unwind(panic);
            }
        };
        let own = catch_unwind(AssertUnwindSafe(|| part(&mut state)));
        let state = batch.hand_round(state);
        let committed = catch_unwind(AssertUnwindSafe(|| lead.commit(state, kept)));
        self.let_next_begin();
        let finished = committed.and_then(|committed| match committed {
            Ok(left) => catch_unwind(AssertUnwindSafe(|| lead.finish(left))),
            Err(failed) => Ok(Err(failed)),
        });
        let outcome = match &finished {
            Ok(Ok(())) => Outcome::Done,
            Ok(Err(failed)) => Outcome::Failed(failed.clone()),
            Err(_) => Outcome::Broken,
        };
        batch.end(outcome);
        match (own, finished) {
            (Err(panic), _) | (_, Err(panic)) => resume_unwind(panic),
            (Ok(own), Ok(finished)) => finished.map(|()| own),
        }
    }

    fn let_next_begin(&self) {
        self.gate().is_running = false;
        // Only the leader of the one forming batch can wait there.
        self.opened.notify_one();
    }

    fn gate(&self) -> MutexGuard<'_, Gate<S, E>> {
        // No caller's code runs under this mutex, so a poisoned one is still consistent.
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S, E: Clone> Batch<S, E> {
    /// Lets the other threads do their parts, after the leader's, and returns the state.
    fn hand_round(&self, state: S) -> S {
        let mut shared = self.shared();
        shared.state = Some(state);
        shared.turn = 1;
        loop {
            if shared.turn == shared.seats.len()
                && let Some(state) = shared.state.take()
            {
                return state;
            }
            shared.wake_next();
            shared = self.wait(shared, 0);
        }
    }

    fn follow<R>(&self, place: usize, part: impl FnOnce(&mut S) -> R) -> Result<R, E> {
        let mut shared = self.shared();
        let mut state = loop {
            if let Some(outcome) = shared.outcome.clone() {
                // The batch ended before this part was done, so it failed.
                return outcome.of(None);
            }
            if shared.turn == place
                && let Some(state) = shared.state.take()
            {
                break state;
            }
            shared = self.wait(shared, place);
        };
        drop(shared);
        let own = catch_unwind(AssertUnwindSafe(|| part(&mut state)));
        let mut shared = self.shared();
        shared.state = Some(state);
        shared.turn += 1;
        shared.wake_next();
        let own = match own {
            Ok(own) => own,
            Err(panic) => {
                drop(shared);
                resume_unwind(panic)
            }
        };
        loop {
            if let Some(outcome) = shared.outcome.clone() {
                return outcome.of(Some(own));
            }
            shared = self.wait(shared, place);
        }
    }

    fn end(&self, outcome: Outcome<E>) {
        let mut shared = self.shared();
        shared.outcome = Some(outcome);
        for seat in shared.seats.iter().skip(1) {
            seat.notify_one();
        }
    }

    fn wait<'a>(
        &'a self,
        shared: MutexGuard<'a, Shared<S, E>>,
        place: usize,
    ) -> MutexGuard<'a, Shared<S, E>> {
        let seat = Arc::clone(&shared.seats[place]);
        seat.wait(shared).unwrap_or_else(PoisonError::into_inner)
    }

    fn shared(&self) -> MutexGuard<'_, Shared<S, E>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S, E> Shared<S, E> {
    /// Wakes the thread whose part is next: after the last one, the leader.
    fn wake_next(&self) {
        self.seats[self.turn % self.seats.len()].notify_one();
    }
}

impl<E> Outcome<E> {
    fn of<R>(self, own: Option<R>) -> Result<R, E> {
        match (self, own) {
            (Self::Done, Some(own)) => Ok(own),
            (Self::Failed(failed), _) => Err(failed),
            (Self::Done | Self::Broken, _) => panic!("the thread that wrote for this one panicked"),
        }
    }
}

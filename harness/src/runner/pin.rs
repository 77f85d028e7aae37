//! Keeps the calling thread, and what it starts, on one processor: a stop of a traced process costs several times as
//! much where the tracer runs on another one.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_getcpu, sched_setaffinity};

/// Keeps the thread pinned while it lives.
#[derive(Debug)]
pub struct Pinned {
    before: Option<CpuSet>,
    here: usize,
}

/// Processors to which threads of this process are pinned.
static TAKEN: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());

impl Pinned {
    /// Pins the thread to its current processor, or, if another thread of this process is pinned to that, to a free
    /// one. If that is not allowed, the thread runs on any processor, and slower.
    #[must_use = "the thread is pinned as long as this lives"]
    #[expect(clippy::new_without_default, reason = "what it does is no default")]
    pub fn new() -> Self {
        let before = sched_getaffinity(None::<Pid>).ok();
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let here = sched_getcpu();
        let is_free =
            |cpu: &usize| !taken.contains(cpu) && before.as_ref().is_some_and(|allowed| allowed.is_set(*cpu));
        let here = std::iter::once(here).chain(0..CpuSet::MAX_CPU).find(is_free).unwrap_or(here);
        let mut alone = CpuSet::new();
        alone.set(here);
        let is_pinned = before.is_some() && sched_setaffinity(None::<Pid>, &alone).is_ok();
        if is_pinned {
            taken.insert(here);
        }
        Self { before: before.filter(|_| is_pinned), here }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // It was allowed before.
            let _restored = sched_setaffinity(None::<Pid>, before);
            TAKEN.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.here);
        }
    }
}

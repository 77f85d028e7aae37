//! Keeps the calling thread, and what it starts, on one processor: a stop of a traced process costs several times as
//! much where the tracer runs on another one.

use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_getcpu, sched_setaffinity};

/// The thread is pinned as long as this lives.
#[derive(Debug)]
pub struct Pinned {
    before: Option<CpuSet>,
}

impl Pinned {
    /// Pins the thread to the processor that it runs on. Where that is not allowed it runs anywhere, and slower.
    #[must_use = "the thread is pinned as long as this lives"]
    #[expect(clippy::new_without_default, reason = "what it does is no default")]
    pub fn new() -> Self {
        let before = sched_getaffinity(None::<Pid>).ok();
        let mut here = CpuSet::new();
        here.set(sched_getcpu());
        let is_pinned = before.is_some() && sched_setaffinity(None::<Pid>, &here).is_ok();
        Self { before: before.filter(|_| is_pinned) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // It was allowed before.
            let _restored = sched_setaffinity(None::<Pid>, before);
        }
    }
}

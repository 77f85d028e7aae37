//! Requests the early end of a run and wakes all waiters.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// A handle to end a run; clones ask for the same end.
#[derive(Clone, Debug)]
pub struct Stop {
    shared: Arc<(AtomicBool, OwnedFd)>,
}

impl Stop {
    /// Creates a handle of a run whose end is not yet requested.
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub fn new() -> std::io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { shared: Arc::new((AtomicBool::new(false), event)) })
    }

    /// Requests the end. Running operations are killed.
    pub fn request(&self) {
        self.shared.0.store(true, Ordering::SeqCst);
        // A full counter is already readable, which is sufficient.
        let _written = rustix::io::write(&self.shared.1, &1_u64.to_ne_bytes());
    }

    /// Whether the end was requested.
    pub fn is_requested(&self) -> bool {
        self.shared.0.load(Ordering::SeqCst)
    }
}

/// Readable from the request on.
impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.1.as_fd()
    }
}

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
    /// A run that nobody asked to end yet.
    ///
    /// # Errors
    /// Where the process has no descriptor left.
    pub fn new() -> std::io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { shared: Arc::new((AtomicBool::new(false), event)) })
    }

    /// Asks for the end. Operations under way are killed.
    pub fn request(&self) {
        self.shared.0.store(true, Ordering::SeqCst);
        // A counter that is full is readable already, which is all that is wanted.
        let _written = rustix::io::write(&self.shared.1, &1_u64.to_ne_bytes());
    }

    /// Whether somebody asked.
    pub fn is_requested(&self) -> bool {
        self.shared.0.load(Ordering::SeqCst)
    }
}

/// Readable once the end was asked for, and from then on.
impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.1.as_fd()
    }
}

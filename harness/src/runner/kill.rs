//! Decides when an operation is killed: after a time, or at its n-th access of its folder.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use crate::runner::groups::has_died;
use crate::runner::touch::Events;

/// Maximum time of busy polling for touches without a pause.
const BUSY_MAX: Duration = Duration::from_millis(20);

/// The kill that is planned for one operation.
#[derive(Clone, Copy)]
pub(super) enum Kill<'a> {
    /// This long after the start of the operation.
    After(Duration),
    /// At its n-th touch of the watched folders, n from 1. From `busily_from` on the events are polled without a pause:
    /// a fast store proceeds faster than a blocked thread wakes up.
    AtTouch { events: &'a Events, n: u32, busily_from: Option<Duration> },
}

/// A pending kill.
pub(super) struct Trigger<'a> {
    kill: Option<Kill<'a>>,
    invoked: Instant,
    touches: u32,
}

impl<'a> Trigger<'a> {
    pub(super) fn new(kill: Option<Kill<'a>>, invoked: Instant) -> Self {
        Self { kill, invoked, touches: 0 }
    }

    /// Whether the kill is due. May poll busily for a while, or until the process behind `ended` ends.
    pub(super) fn is_due(&mut self, now: Instant, ended: &OwnedFd) -> bool {
        match self.kill {
            None => false,
            Some(Kill::After(after)) => now >= self.invoked + after,
            Some(Kill::AtTouch { events, n, busily_from }) => {
                self.touches += events.take();
                if busily_from.is_some_and(|from| now >= self.invoked + from) {
                    let end = now + BUSY_MAX;
                    while self.touches < n && Instant::now() < end && !has_died(ended, Duration::ZERO) {
                        self.touches += events.take();
                    }
                }
                self.touches >= n
            }
        }
    }

    /// Returns when to check again, even if no event arrives.
    pub(super) fn wake(&self, now: Instant) -> Option<Instant> {
        let after = match self.kill? {
            Kill::After(after) => Some(after),
            Kill::AtTouch { busily_from, .. } => busily_from,
        };
        after.map(|after| self.invoked + after).filter(|wake| now < *wake)
    }

    /// Returns the events that wake it early.
    pub(super) fn events(&self) -> Option<&'a Events> {
        match self.kill {
            Some(Kill::AtTouch { events, .. }) => Some(events),
            _ => None,
        }
    }
}

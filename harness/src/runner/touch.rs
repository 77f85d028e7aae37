//! Records when an operation accesses its folder, so that random kills fall near accesses.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

/// Maximum number of events that are taken at once.
const AT_ONCE: u32 = 1000;

/// A watch of folders, until it is finished.
pub(super) struct TouchWatch {
    finished: OwnedFd,
    watcher: JoinHandle<Option<Touches<Instant>>>,
}

/// The touches of one operation; times are instants, or durations since its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touches<T> {
    /// Time of the first touch.
    pub first: T,
    /// Time of the last touch.
    pub last: T,
    /// Number of touches.
    pub count: u32,
}

/// Events in folders: enough to know when something happened, not what.
pub(super) struct Events {
    descriptor: OwnedFd,
}

impl Events {
    /// Watches these folders; those that cannot be watched are skipped. Returns `None` if none can.
    pub(super) fn of(folders: &[&Path], what: WatchFlags) -> Option<Self> {
        let descriptor = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
        let watched =
            folders.iter().filter(|folder| inotify::add_watch(&descriptor, **folder, what).is_ok()).count();
        (watched > 0).then_some(Self { descriptor })
    }

    /// As [`Events::of`], for all kinds of events in a folder and its files.
    pub(super) fn of_all_kinds(folders: &[&Path]) -> Option<Self> {
        Self::of(folders, WatchFlags::ALL_EVENTS)
    }

    /// Readable if an event is pending.
    pub(super) fn poll_fd(&self) -> PollFd<'_> {
        PollFd::from_borrowed_fd(self.descriptor.as_fd(), PollFlags::IN)
    }

    /// Returns the number of events since the last call.
    pub(super) fn take(&self) -> u32 {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.descriptor, &mut buffer);
        let mut count = 0;
        // Events may arrive faster than they are read: the rest is left for the next call.
        while count < AT_ONCE && reader.next().is_ok() {
            count += 1;
        }
        count
    }
}

impl TouchWatch {
    /// Starts the watch. Returns `None` if the folders cannot be watched.
    pub(super) fn start(folders: &[&Path]) -> Option<Self> {
        let events = Events::of_all_kinds(folders)?;
        let finished = eventfd(0, EventfdFlags::CLOEXEC).ok()?;
        let told = finished.try_clone().ok()?;
        let watcher = thread::spawn(move || {
            let mut touched: Option<Touches<Instant>> = None;
            loop {
                let mut watched = [events.poll_fd(), PollFd::new(&told, PollFlags::IN)];
                if poll(&mut watched, None).is_err() {
                    continue;
                }
                let now = Instant::now();
                let is_finished = !watched[1].revents().is_empty();
                if !watched[0].revents().is_empty() {
                    let touches = touched.get_or_insert(Touches { first: now, last: now, count: 0 });
                    touches.last = now;
                    touches.count += events.take();
                }
                if is_finished {
                    return touched;
                }
            }
        });
        Some(Self { finished, watcher })
    }

    /// Returns the touches since the start.
    pub(super) fn finish(self) -> Option<Touches<Instant>> {
        let _told = rustix::io::write(&self.finished, &1_u64.to_ne_bytes());
        self.watcher.join().ok().flatten()
    }
}

//! Reads and parses the data file without a lock while clients change it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::WatchFlags;
use rustix::time::{ClockId, clock_gettime};

use crate::observation::{FileState, Readings};
use crate::runner::touch::Events;
use crate::runner::{Stop, nanos};
use crate::sandbox;
use crate::target::Format;

/// CPU share of a reader: it rests this many nanoseconds for each nanosecond of work, so it uses 2.5 % of one core.
const REST_PER_WORK: u64 = 39;
/// Maximum wait for a change before it reads anyway.
const PATIENCE: Duration = Duration::from_millis(10);
/// Maximum number of torn readings whose descriptions are saved.
const EXAMPLES: usize = 5;

/// Data that a reader needs to detect a torn reading.
pub(super) struct Reader<'a> {
    pub(super) data: &'a Path,
    pub(super) format: Format,
    /// Whether the data file existed before the first operation.
    pub(super) starts_with_data: bool,
    /// Set once a record was acknowledged.
    pub(super) acknowledged: &'a AtomicBool,
}

impl Reader<'_> {
    /// Reads until `done` is requested; returns the readings and the processor time used. `clock` is the start of the
    /// execution.
    pub(super) fn read_until(&self, done: &Stop, clock: Instant) -> (Readings, Duration) {
        let mut readings = Readings::default();
        let folder = self.data.parent().unwrap_or(self.data);
        let changes = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE;
        let events = Events::of(&[folder], changes);
        let mut rested = Instant::now();
        let mut worked = thread_time();
        while !done.is_requested() {
            self.wait_for_change(events.as_ref(), done);
            self.read(&mut readings, clock);
            // Reading at full speed would distort the measurement: the clients need the processors.
            let work = thread_time().saturating_sub(worked);
            let owed = work.saturating_mul(REST_PER_WORK).saturating_sub(nanos(rested.elapsed()));
            rest(Duration::from_nanos(owed), done);
            rested = Instant::now();
            worked = thread_time();
        }
        (readings, Duration::from_nanos(thread_time()))
    }

    fn wait_for_change(&self, events: Option<&Events>, done: &Stop) {
        let mut watched = vec![PollFd::new(done, PollFlags::IN)];
        watched.extend(events.map(Events::poll_fd));
        let patience = Timespec::try_from(PATIENCE).ok();
        // It reads now, whether the wait was interrupted or not.
        let _ready = poll(&mut watched, patience.as_ref());
        if let Some(events) = events {
            events.take();
        }
    }

    fn read(&self, readings: &mut Readings, clock: Instant) {
        // Loaded before the read: an acknowledgement during the read need not be visible in the file.
        let must_be_there = self.starts_with_data || self.acknowledged.load(Ordering::SeqCst);
        let (_, state) = sandbox::read(self.data, self.format);
        readings.taken += 1;
        let seen = match state {
            FileState::Whole => return,
            FileState::Missing if !must_be_there => return,
            // For line formats an empty file is equivalent to no file; a JSON file is never empty.
            FileState::Empty if !must_be_there && self.format.has_lines() => return,
            FileState::Missing => "no data file".to_owned(),
            FileState::Empty => "an empty data file".to_owned(),
            FileState::Broken(why) => format!("a broken data file: {why}"),
        };
        readings.torn += 1;
        if readings.examples.len() < EXAMPLES {
            readings.examples.push((nanos(clock.elapsed()), seen));
        }
    }
}

/// Rests for this time, or until `done` is requested.
fn rest(owed: Duration, done: &Stop) {
    let mut watched = [PollFd::new(done, PollFlags::IN)];
    let owed = Timespec::try_from(owed).ok();
    // If interrupted, it rests a little less.
    let _ready = poll(&mut watched, owed.as_ref());
}

/// Returns the processor time of this thread, in nanoseconds.
fn thread_time() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

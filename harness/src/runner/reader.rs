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

/// The share of one core that a reader may use: for each nanosecond at work so many at rest, which makes 2.5 %.
const REST_PER_WORK: u64 = 39;
/// How long it waits for a change before it reads all the same.
const PATIENCE: Duration = Duration::from_millis(10);
/// Torn readings that are kept in words.
const EXAMPLES: usize = 5;

/// What a reader must know to tell a torn reading.
pub(super) struct Reader<'a> {
    pub(super) data: &'a Path,
    pub(super) format: Format,
    /// Whether the data file was there before the first operation.
    pub(super) starts_with_data: bool,
    /// Set once a record was acknowledged.
    pub(super) acknowledged: &'a AtomicBool,
}

impl Reader<'_> {
    /// Reads until `done` is asked for; what was seen, and the processor time that it took. `clock` is when the
    /// execution began.
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
            // Whoever reads at full speed would measure itself: the clients need the processors.
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
        // Interrupted or not, it is time to look.
        let _ready = poll(&mut watched, patience.as_ref());
        if let Some(events) = events {
            events.take();
        }
    }

    fn read(&self, readings: &mut Readings, clock: Instant) {
        // Before the file: an acknowledgement that comes while it is read need not be in it.
        let must_be_there = self.starts_with_data || self.acknowledged.load(Ordering::SeqCst);
        let (_, state) = sandbox::read(self.data, self.format);
        readings.taken += 1;
        let seen = match state {
            FileState::Whole => return,
            FileState::Missing if !must_be_there => return,
            // Lines of which there are none yet are as good as no file; no JSON is never empty.
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

/// Rests for so long, or until `done` is asked for.
fn rest(owed: Duration, done: &Stop) {
    let mut watched = [PollFd::new(done, PollFlags::IN)];
    let owed = Timespec::try_from(owed).ok();
    // Interrupted, it rests a little less.
    let _ready = poll(&mut watched, owed.as_ref());
}

/// The processor time that this thread has used, in nanoseconds.
fn thread_time() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

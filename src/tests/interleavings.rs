//! The queue and the group commit under loom: every interleaving of their locks and waits, within the stated bounds.
//!
//! A separate test target, which compiles `queue.rs` and `group.rs` once more with loom's types instead of the standard
//! library's. Loom runs at most four threads besides the first. A wait with a time limit has no limit here.

#[path = "../group.rs"]
mod group;
#[path = "../queue.rs"]
#[expect(dead_code, reason = "only what a test uses is used here")]
mod queue;

/// Synchronisation primitives of both modules.
mod sync {
    pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
    pub(crate) use loom::thread;
    pub(crate) use std::sync::PoisonError;
}

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use group::{Group, Lead};
use queue::{Patience, Refusal, Table};

/// Runs `model` through all interleavings with at most `preemptions` preemptions (`PICKLOCK_PREEMPTIONS` overrides it),
/// and prints the number of interleavings.
fn explore(what: &str, preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let tried = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tried);
    let mut builder = loom::model::Builder::new();
    let deeper = std::env::var("PICKLOCK_PREEMPTIONS").ok().and_then(|bound| bound.parse().ok());
    let preemptions = deeper.unwrap_or(preemptions);
    builder.preemption_bound = Some(preemptions);
    // Loom checks its limits only at intervals, and ends silently once they are exceeded.
    builder.checkpoint_interval = 1;
    builder.max_permutations = None;
    builder.max_duration = None;
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let tried = tried.load(Ordering::Relaxed);
    println!("{what}: {tried} interleavings, at most {preemptions} preemptions");
    assert!(tried > 1, "{what}: only {tried} tried");
}

/// Detects two threads inside at once.
#[derive(Default)]
struct Alone(AtomicUsize);

impl Alone {
    fn visit(&self) {
        assert_eq!(self.0.fetch_add(1, Ordering::SeqCst), 0, "two are inside at once");
        loom::thread::yield_now();
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn turns_exclude_each_other_and_all_come() {
    explore("three threads, two turns and an impatient one", 3, || {
        let table = Arc::new(Table::new());
        let alone = Arc::new(Alone::default());
        let patient: Vec<_> = (0..2)
            .map(|_| {
                let (table, alone) = (Arc::clone(&table), Arc::clone(&alone));
                loom::thread::spawn(move || {
                    // Each thread has its own handle.
                    let queue = table.queue_of((1, 2));
                    queue.enter(Patience::Forever).unwrap();
                    alone.visit();
                    assert_eq!(queue.enter(Patience::Forever), Err(Refusal::WouldWaitForItself));
                    queue.leave();
                })
            })
            .collect();
        let queue = table.queue_of((1, 2));
        match queue.enter(Patience::None) {
            Ok(()) => {
                alone.visit();
                queue.leave();
            }
            Err(refused) => assert_eq!(refused, Refusal::PatienceOver),
        }
        for thread in patient {
            thread.join().unwrap();
        }
    });
}

/// A file in memory that detects concurrent writes, and counts writes.
#[derive(Default)]
struct File {
    alone: Alone,
    content: std::sync::Mutex<Vec<u32>>,
    writes: AtomicUsize,
    fails: bool,
}

impl Lead<Vec<u32>, &'static str> for Arc<File> {
    type Kept = ();
    type Left = ();

    fn begin(&self) -> Result<(Vec<u32>, ()), &'static str> {
        assert_eq!(self.alone.0.fetch_add(1, Ordering::SeqCst), 0, "two batches run at once");
        Ok((self.content.lock().unwrap().clone(), ()))
    }

    fn commit(&self, state: Vec<u32>, (): ()) -> Result<(), &'static str> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.alone.0.fetch_sub(1, Ordering::SeqCst);
        if self.fails {
            return Err("full");
        }
        *self.content.lock().unwrap() = state;
        Ok(())
    }

    fn finish(&self, (): ()) -> Result<(), &'static str> {
        Ok(())
    }
}

/// Three threads each add a number; one is refused. Acknowledged numbers are in the file once, and nothing else.
fn add_from_three_threads(fails: bool) {
    let file = Arc::new(File { fails, ..File::default() });
    let group = Arc::new(Group::new());
    let add = |number: u32| {
        let (file, group) = (Arc::clone(&file), Arc::clone(&group));
        move || {
            group.take_part(&file, |all: &mut Vec<u32>| {
                if number == 2 {
                    return Err("refused");
                }
                all.push(number);
                Ok(())
            })
        }
    };
    let threads = [loom::thread::spawn(add(1)), loom::thread::spawn(add(2))];
    let own = add(3)();
    let [first, second] = threads.map(|thread| thread.join().unwrap());
    let mut content = file.content.lock().unwrap().clone();
    content.sort_unstable();
    if fails {
        assert_eq!((first, second, own), (Err("full"), Err("full"), Err("full")));
        assert_eq!(content, []);
    } else {
        assert_eq!((first, second, own), (Ok(Ok(())), Ok(Err("refused")), Ok(Ok(()))));
        assert_eq!(content, [1, 3]);
    }
    let writes = file.writes.load(Ordering::SeqCst);
    assert!((1..=3).contains(&writes), "{writes} writes");
}

#[test]
fn what_a_batch_acknowledges_is_written_once_and_a_refused_part_is_refused_alone() {
    explore("a group of three", 3, || add_from_three_threads(false));
}

#[test]
fn a_batch_that_fails_fails_for_all_of_it() {
    explore("a group of three on a full disk", 3, || add_from_three_threads(true));
}

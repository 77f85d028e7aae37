//! Implements an exclusive lock between processes, and between the threads of one, on a dedicated lock file.

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind};
use crate::queue::{FileId, Patience, Queue, Refusal, Table};

/// Interval between tries of a lock if the caller set a time limit: `flock` itself has none.
const RETRY_EVERY: Duration = Duration::from_millis(1);

thread_local! {
    /// The lock files that this thread holds, or for whose holder it acts.
    static OWN: RefCell<Vec<FileId>> = const { RefCell::new(Vec::new()) };
}

/// Queues of all lock files that this process has open.
static QUEUES: LazyLock<Table> = LazyLock::new(Table::new);

/// A lock on a dedicated file, created when it is first needed and never removed.
///
/// The lock is `flock(2)`: it belongs to the open file, ends with the process however that ends, and is not passed
/// on across `exec`. Several `FileLock`s on one path in one process queue like those of several processes.
///
/// Never put it on a file that is renamed over or unlinked; if the file was replaced all the same, this is detected
/// after the lock is acquired, and the new file is locked instead.
#[derive(Debug)]
pub struct FileLock {
    path: PathBuf,
    opened: Mutex<Option<Arc<Opened>>>,
}

#[derive(Debug)]
struct Opened {
    file: File,
    id: FileId,
    queue: Arc<Queue>,
}

/// The held lock; dropping it unlocks, on every path, including a panic.
///
/// It stays in the thread that took it, because that is the thread that would wait for itself.
///
/// ```compile_fail
/// fn must_not_compile<T: Send>(_: T) {}
/// must_not_compile(picklock_store::FileLock::new("a.lock").lock().unwrap());
/// ```
#[derive(Debug)]
#[must_use = "the lock is released when the guard is dropped"]
pub struct Guard<'lock> {
    lock: &'lock FileLock,
    opened: Arc<Opened>,
    stays_in_its_thread: PhantomData<*const ()>,
}

impl FileLock {
    /// Creates a lock on the file `path`. Opens and creates nothing before the lock is first taken.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), opened: Mutex::new(None) }
    }

    /// Returns the path of the lock file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the lock, waiting without a limit; a signal does not end the wait.
    ///
    /// # Errors
    /// [`ErrorKind::WouldWaitForItself`] if this thread already holds it, [`ErrorKind::Io`] if the file cannot be
    /// opened or the file system does not support locks.
    pub fn lock(&self) -> Result<Guard<'_>, Error> {
        self.acquire(Patience::Forever).map_err(|kind| Error::new("lock", &self.path, kind))
    }

    /// Takes the lock if it is free.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if it is held, else as for [`FileLock::lock`].
    pub fn try_lock(&self) -> Result<Guard<'_>, Error> {
        self.acquire(Patience::None).map_err(|kind| Error::new("lock", &self.path, kind))
    }

    /// Takes the lock, waiting for at most `limit`.
    ///
    /// # Errors
    /// [`ErrorKind::TimedOut`] if it was held all the time, else as for [`FileLock::lock`].
    pub fn lock_within(&self, limit: Duration) -> Result<Guard<'_>, Error> {
        let patience = Instant::now().checked_add(limit).map_or(Patience::Forever, Patience::Until);
        self.acquire(patience).map_err(|kind| {
            let kind = if matches!(kind, ErrorKind::Busy) { ErrorKind::TimedOut(limit) } else { kind };
            Error::new("lock", &self.path, kind)
        })
    }

    /// Whether the calling thread holds the lock, by any handle, or acts for its holder: it would wait for itself.
    pub(crate) fn is_of_this_thread(&self) -> bool {
        // Nearly always it holds none. What counts is the file that the path names now, not the one opened once.
        OWN.with_borrow(|own| !own.is_empty() && id_of_path(&self.path).is_ok_and(|id| own.contains(&id)))
    }

    fn acquire(&self, patience: Patience) -> Result<Guard<'_>, ErrorKind> {
        loop {
            let opened = self.opened()?;
            opened.queue.enter(patience).map_err(|refusal| match refusal {
                Refusal::WouldWaitForItself => ErrorKind::WouldWaitForItself,
                Refusal::PatienceOver => ErrorKind::Busy,
            })?;
            if let Err(refused) = lock_file(&opened.file, patience) {
                opened.queue.leave();
                return Err(refused);
            }
            // From here on the guard releases both, whatever happens.
            OWN.with_borrow_mut(|own| own.push(opened.id));
            let guard = Guard { lock: self, opened, stays_in_its_thread: PhantomData };
            if guard.opened.id == id_of_path(&self.path)? {
                return Ok(guard);
            }
            // The path now names another file, which newcomers would lock: this lock excludes nothing.
            *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = None;
            drop(guard);
        }
    }

    fn opened(&self) -> Result<Arc<Opened>, ErrorKind> {
        let mut slot = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = &*slot {
            return Ok(Arc::clone(opened));
        }
        // Not truncated, and no link followed: the target of a planted link must not be emptied or created. The
        // descriptor is closed on exec, as the standard library does for every file.
        let mut options = OpenOptions::new();
        // Do not block on the other end if a pipe is in the file's place.
        options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = options.clone().write(true).create(true).truncate(false).open(&self.path);
        // A process that may only read the file can still lock it on a local file system, such as a reader on a
        // read-only one; if the lock needs more, it fails.
        let file = file.or_else(|refused| match refused.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                options.open(&self.path).map_err(|_| refused)
            }
            _ => Err(refused),
        });
        let file = file.map_err(ErrorKind::Io)?;
        let metadata = file.metadata().map_err(ErrorKind::Io)?;
        if !metadata.is_file() {
            return Err(ErrorKind::NotAFile);
        }
        let id = (metadata.dev(), metadata.ino());
        let opened = Arc::new(Opened { file, id, queue: QUEUES.queue_of(id) });
        *slot = Some(Arc::clone(&opened));
        Ok(opened)
    }
}

impl Guard<'_> {
    /// Returns the path of the held lock file.
    pub fn path(&self) -> &Path {
        &self.lock.path
    }

    /// Returns a handle with which other threads act for this one, which waits for them.
    pub(crate) fn turn(&self) -> Turn {
        Turn { queue: Arc::clone(&self.opened.queue), id: self.opened.id }
    }

    /// Returns whether `path` names the held file, however it is spelled.
    pub(crate) fn holds(&self, path: &Path) -> bool {
        id_of_path(path).is_ok_and(|id| id == self.opened.id)
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // The kernel refuses an unlock only for a bad descriptor, and this one is open. First the file, then the queue:
        // the next thread in the queue must not find the file still locked.
        disown(self.opened.id);
        let _unlocked = fs4::FileExt::unlock(&self.opened.file);
        self.opened.queue.leave();
    }
}

/// The turn of a thread, in which others may act for it.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    queue: Arc<Queue>,
    id: FileId,
}

impl Turn {
    /// Runs `part` in the calling thread on behalf of the holder of the turn: it must not wait for the lock.
    pub(crate) fn act<R>(&self, part: impl FnOnce() -> R) -> R {
        /// Ends the part, also on a panic.
        struct Acting(FileId);
        impl Drop for Acting {
            fn drop(&mut self) {
                disown(self.0);
            }
        }
        OWN.with_borrow_mut(|own| own.push(self.id));
        let _acting = Acting(self.id);
        self.queue.act(part)
    }
}

/// Removes one entry of the lock file from those that this thread holds.
fn disown(id: FileId) {
    OWN.with_borrow_mut(|own| {
        if let Some(at) = own.iter().rposition(|other| *other == id) {
            own.swap_remove(at);
        }
    });
}

fn id_of_path(path: &Path) -> Result<FileId, ErrorKind> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok((metadata.dev(), metadata.ino())),
        // No file has inode 0, so no held file matches.
        Err(gone) if gone.kind() == io::ErrorKind::NotFound => Ok((0, 0)),
        Err(other) => Err(ErrorKind::Io(other)),
    }
}

fn lock_file(file: &File, patience: Patience) -> Result<(), ErrorKind> {
    if let Patience::Forever = patience {
        loop {
            match fs4::FileExt::lock(file) {
                Err(interrupted) if interrupted.kind() == io::ErrorKind::Interrupted => {}
                done => return done.map_err(ErrorKind::Io),
            }
        }
    }
    loop {
        match fs4::FileExt::try_lock(file) {
            Ok(()) => return Ok(()),
            Err(fs4::TryLockError::WouldBlock) if patience.is_over() => return Err(ErrorKind::Busy),
            Err(fs4::TryLockError::WouldBlock) => thread::sleep(RETRY_EVERY),
            Err(fs4::TryLockError::Error(interrupted))
                if interrupted.kind() == io::ErrorKind::Interrupted => {}
            Err(fs4::TryLockError::Error(other)) => return Err(ErrorKind::Io(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

    use super::*;

    /// Waits until the kernel lists a waiter for the lock file `path`, which is that thread.
    fn wait_for_waiter<T>(path: &Path, waiter: &thread::ScopedJoinHandle<'_, T>) {
        let inode = fs::metadata(path).unwrap().ino();
        let file = format!(":{inode} ");
        while !fs::read_to_string("/proc/locks")
            .unwrap()
            .lines()
            .any(|l| l.contains("->") && l.contains(&file))
        {
            assert!(!waiter.is_finished(), "it did not wait for the lock");
            thread::yield_now();
        }
    }

    fn in_a_folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.lock");
        (folder, path)
    }

    #[test]
    fn a_thread_that_would_wait_for_itself_is_told_so() {
        let (_folder, path) = in_a_folder();
        let (first, second) = (FileLock::new(&path), FileLock::new(&path));
        let guard = first.lock().unwrap();
        for refused in [second.lock(), second.try_lock(), first.lock_within(Duration::from_secs(60))] {
            assert!(matches!(refused.unwrap_err().kind(), ErrorKind::WouldWaitForItself));
        }
        drop(guard);
        drop(second.lock().unwrap());
    }

    #[test]
    fn two_handles_on_one_path_in_one_process_take_turns() {
        let (_folder, path) = in_a_folder();
        let counter = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let lock = FileLock::new(&path);
                    for _ in 0..100 {
                        let _guard = lock.lock().unwrap();
                        // A non-atomic update: only the lock makes it atomic.
                        let seen = counter.load(Ordering::Relaxed);
                        thread::yield_now();
                        counter.store(seen + 1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(counter.into_inner(), 400);
    }

    #[test]
    fn a_lock_held_by_a_stranger_is_busy_or_times_out_and_the_queue_goes_on() {
        let (_folder, path) = in_a_folder();
        // A separate open file description, outside this process's queue: to the kernel, another process.
        let stranger = File::create(&path).unwrap();
        fs4::FileExt::lock(&stranger).unwrap();
        let lock = FileLock::new(&path);
        assert!(matches!(lock.try_lock().unwrap_err().kind(), ErrorKind::Busy));
        let late = lock.lock_within(Duration::from_millis(5)).unwrap_err();
        assert!(matches!(late.kind(), ErrorKind::TimedOut(_)), "{late}");
        assert!(late.is_busy() && late.to_string().contains("a.lock"), "{late}");
        fs4::FileExt::unlock(&stranger).unwrap();
        drop(lock.try_lock().unwrap());
    }

    #[test]
    fn a_panic_under_the_guard_unlocks() {
        let (_folder, path) = in_a_folder();
        let lock = FileLock::new(&path);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _guard = lock.lock().unwrap();
            std::panic::resume_unwind(Box::new("under the guard"));
        }));
        assert!(panicked.is_err());
        drop(FileLock::new(&path).try_lock().unwrap());
    }

    /// If the file was replaced meanwhile, a waiter that wakes holds a lock that no newcomer sees (portalocker 115,
    /// filelock 27): it must lock the new file instead.
    #[test]
    fn a_lock_file_replaced_while_somebody_waits_is_noticed() {
        let (folder, path) = in_a_folder();
        let stranger = File::create(&path).unwrap();
        fs4::FileExt::lock(&stranger).unwrap();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let lock = FileLock::new(&path);
                let guard = lock.lock().unwrap();
                guard.holds(&path)
            });
            wait_for_waiter(&path, &waiter);
            let other = folder.path().join("other");
            File::create(&other).unwrap();
            fs::rename(&other, &path).unwrap();
            fs4::FileExt::unlock(&stranger).unwrap();
            assert!(waiter.join().unwrap(), "the waiter holds the replaced file");
        });
    }

    /// `flock` is not restarted if the handler was installed without `SA_RESTART`; every wrapper passes EINTR on (uv
    /// 15996, cloud-hypervisor 8402), and a store that takes it for a failure loses the update.
    #[test]
    fn a_signal_does_not_end_the_wait() {
        static SIGNALS: AtomicUsize = AtomicUsize::new(0);
        extern "C" fn count(_: i32) {
            SIGNALS.fetch_add(1, Ordering::SeqCst);
        }
        let action = SigAction::new(SigHandler::Handler(count), SaFlags::empty(), SigSet::empty());
        #[expect(unsafe_code, reason = "a handler without SA_RESTART can be had no other way")]
        // SAFETY: the handler only adds to an atomic, which is async-signal-safe.
        unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();

        let (_folder, path) = in_a_folder();
        let stranger = File::create(&path).unwrap();
        fs4::FileExt::lock(&stranger).unwrap();
        let (told, thread_id) = mpsc::channel();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                told.send(nix::sys::pthread::pthread_self()).unwrap();
                FileLock::new(&path).lock().map(drop)
            });
            let thread_id = thread_id.recv().unwrap();
            for sent in 1..=3 {
                wait_for_waiter(&path, &waiter);
                nix::sys::pthread::pthread_kill(thread_id, Signal::SIGUSR1).unwrap();
                while SIGNALS.load(Ordering::SeqCst) < sent {
                    thread::yield_now();
                }
            }
            wait_for_waiter(&path, &waiter);
            assert!(!waiter.is_finished());
            fs4::FileExt::unlock(&stranger).unwrap();
            waiter.join().unwrap().unwrap();
        });
    }

    #[test]
    fn a_planted_link_or_a_folder_in_place_of_the_lock_file_is_an_error_and_harms_nobody() {
        let (folder, path) = in_a_folder();
        let victim = folder.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        let refused = FileLock::new(&path).lock().map(drop).unwrap_err();
        assert_eq!((refused.operation(), refused.path()), ("lock", path.as_path()));
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(FileLock::new(&path).lock().unwrap_err().kind(), ErrorKind::Io(_)));
    }

    #[test]
    fn the_lock_does_not_pass_to_a_child_across_exec() {
        let (_folder, path) = in_a_folder();
        let lock = FileLock::new(&path);
        let guard = lock.lock().unwrap();
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        drop(guard);
        // The child lives until its input ends; it must not hold the lock.
        drop(FileLock::new(&path).try_lock().unwrap());
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    }
}

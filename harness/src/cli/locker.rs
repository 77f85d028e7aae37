//! Implements a process that takes a lock repeatedly for `picklock bench`, and counts in a file that only the lock
//! protects.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use picklock::bench::figures::Latencies;
use picklock::bench::locks::{COUNTER, COUNTER_BYTES, Told};
use picklock_store::FileLock;
use rustix::fs::FlockOperation;
use rustix::time::{ClockId, clock_gettime};

/// Time between two attempts to take a lock on which a client cannot block.
const POLL_EVERY: Duration = Duration::from_millis(1);

/// Runs `KIND FOLDER CLIENT HOLD` and returns the exit status.
pub(crate) fn run(arguments: &[OsString]) -> u8 {
    let words: Vec<String> = arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let done = match words.as_slice() {
        [kind, folder, client, hold] => match (client.parse(), hold.parse()) {
            (Ok(client), Ok(hold)) => serve(kind, Path::new(folder), client, Duration::from_nanos(hold)),
            _ => Err(io::Error::other("CLIENT and HOLD are numbers")),
        },
        _ => Err(io::Error::other("usage: KIND FOLDER CLIENT HOLD")),
    };
    match done {
        Ok(()) => 0,
        Err(why) => {
            // If standard error is closed, the error cannot be reported.
            let _written = writeln!(io::stderr(), "picklock-locker: {why}");
            1
        }
    }
}

fn serve(kind: &str, folder: &Path, client: u64, hold: Duration) -> io::Result<()> {
    let counter =
        Counter { file: OpenOptions::new().read(true).write(true).open(folder.join(COUNTER))?, client };
    let mut lock = Lock::open(kind, folder)?;
    println!("ready");
    let mut line = String::new();
    while io::stdin().read_line(&mut line)? > 0 {
        let time = line.trim().parse().map(Duration::from_nanos).map_err(io::Error::other)?;
        let told = contend(&mut lock, &counter, hold, time)?;
        println!("{}", serde_json::to_string(&told)?);
        line.clear();
    }
    Ok(())
}

fn contend(lock: &mut Lock, counter: &Counter, hold: Duration, time: Duration) -> io::Result<Told> {
    let (mut waits, mut handovers, mut count) = (Latencies::default(), Latencies::default(), 0);
    let end = Instant::now() + time;
    loop {
        let asked = Instant::now();
        if asked >= end {
            break;
        }
        let mut inside = || -> io::Result<()> {
            let seen = counter.enter(&mut handovers)?;
            if !hold.is_zero() {
                thread::sleep(hold);
            }
            counter.leave(seen)
        };
        let had = lock.with(end, &mut || {
            waits.add(nanos(asked.elapsed()), 1);
            inside()
        })?;
        match had {
            true => count += 1,
            // A wait without success counts as a wait too, and is often the longest.
            false => waits.add(nanos(asked.elapsed()), 1),
        }
    }
    Ok(Told { count, waits: waits.seen(), handovers: handovers.seen() })
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Counter file that all clients increment.
struct Counter {
    file: File,
    client: u64,
}

impl Counter {
    /// Returns the count after the lock was taken; records the time of a handover from another client.
    fn enter(&self, handovers: &mut Latencies) -> io::Result<u64> {
        let mut bytes = [0; COUNTER_BYTES];
        self.file.read_exact_at(&mut bytes, 0)?;
        let [count, last, left] = [0, 8, 16]
            .map(|at| bytes[at..].first_chunk().map_or(0, |chunk: &[u8; 8]| u64::from_ne_bytes(*chunk)));
        if last != 0 && last != self.client {
            handovers.add(now().saturating_sub(left), 1);
        }
        Ok(count)
    }

    fn leave(&self, seen: u64) -> io::Result<()> {
        let bytes = [seen + 1, self.client, now()].map(u64::to_ne_bytes).concat();
        self.file.write_all_at(&bytes, 0)
    }
}

/// Nanoseconds of a clock that all processes share.
fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// A lock that is taken repeatedly; its file is opened once if the lock belongs to an open file.
enum Lock {
    Flock(File),
    Posix(File),
    Ofd(File),
    Std(File),
    Fs4(File),
    FdCrate(fd_lock::RwLock<File>),
    Exclusive(PathBuf),
    Folder(PathBuf),
    Store(FileLock),
    None,
}

impl Lock {
    fn open(kind: &str, folder: &Path) -> io::Result<Self> {
        let path = folder.join("lock");
        let file = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        Ok(match kind {
            "flock" => Self::Flock(file()?),
            "posix" => Self::Posix(file()?),
            "ofd" => Self::Ofd(file()?),
            "std" => Self::Std(file()?),
            "fs4" => Self::Fs4(file()?),
            "fd-lock" => Self::FdCrate(fd_lock::RwLock::new(file()?)),
            "o-excl" => Self::Exclusive(path),
            "mkdir" => Self::Folder(path),
            "store" => Self::Store(FileLock::new(path)),
            "none" => Self::None,
            other => return Err(io::Error::other(format!("there is no lock {other:?}"))),
        })
    }

    /// Runs `inside` while holding the lock. Returns whether it got the lock before `end`; later it does not count.
    fn with(&mut self, end: Instant, inside: &mut dyn FnMut() -> io::Result<()>) -> io::Result<bool> {
        let in_time = |inside: &mut dyn FnMut() -> io::Result<()>| -> io::Result<bool> {
            // A wait past the end counts as a wait, but `inside` does not run.
            if Instant::now() >= end {
                return Ok(false);
            }
            inside().map(|()| true)
        };
        match self {
            Self::Flock(file) => {
                rustix::fs::flock(&*file, FlockOperation::LockExclusive)?;
                let had = in_time(inside);
                rustix::fs::flock(&*file, FlockOperation::Unlock)?;
                had
            }
            Self::Posix(file) => {
                fcntl(&*file, FcntlArg::F_SETLKW(&whole(libc::F_WRLCK)))?;
                let had = in_time(inside);
                fcntl(&*file, FcntlArg::F_SETLK(&whole(libc::F_UNLCK)))?;
                had
            }
            Self::Ofd(file) => {
                fcntl(&*file, FcntlArg::F_OFD_SETLKW(&whole(libc::F_WRLCK)))?;
                let had = in_time(inside);
                fcntl(&*file, FcntlArg::F_OFD_SETLK(&whole(libc::F_UNLCK)))?;
                had
            }
            Self::Std(file) => {
                file.lock()?;
                let had = in_time(inside);
                file.unlock()?;
                had
            }
            Self::Fs4(file) => {
                fs4::FileExt::lock(file)?;
                let had = in_time(inside);
                fs4::FileExt::unlock(file)?;
                had
            }
            Self::FdCrate(lock) => {
                let _guard = lock.write()?;
                in_time(inside)
            }
            Self::Exclusive(path) => {
                let make = || OpenOptions::new().write(true).create_new(true).open(&*path).map(drop);
                poll(end, make, || fs::remove_file(&*path), inside)
            }
            Self::Folder(path) => {
                poll(end, || DirBuilder::new().create(&*path), || fs::remove_dir(&*path), inside)
            }
            Self::None => in_time(inside),
            Self::Store(lock) => {
                let _guard = lock.lock().map_err(io::Error::other)?;
                in_time(inside)
            }
        }
    }
}

fn whole(kind: i32) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
}

/// Tries to create a file or folder that only one client can create, until it succeeds or the time is up.
fn poll(
    end: Instant,
    make: impl Fn() -> io::Result<()>,
    remove: impl Fn() -> io::Result<()>,
    inside: &mut dyn FnMut() -> io::Result<()>,
) -> io::Result<bool> {
    loop {
        match make() {
            Ok(()) => {
                let done = inside();
                remove()?;
                return done.map(|()| true);
            }
            Err(taken) if taken.kind() == io::ErrorKind::AlreadyExists => {}
            Err(other) => return Err(other),
        }
        if Instant::now() >= end {
            return Ok(false);
        }
        thread::sleep(POLL_EVERY);
    }
}

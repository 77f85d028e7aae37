//! Compares the reference store with its peers in one run: locks and single updates with criterion, then several
//! processes and threads.
//!
//! `cargo bench -p picklock-benches --bench store` runs criterion; with `-- --table` it prints the table of the README
//! instead, which `ci/speed` inserts. All sides of a row take turns on one disk (`PICKLOCK_BENCH_DIR`, else the folder
//! of the build), because the speed of a shared machine varies; the table shows medians over the turns.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::hint::black_box;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use atomic_write_file::AtomicWriteFile;
use criterion::Criterion;
use picklock_store::{Document, FileLock, Journal};
use rusqlite::Connection;
use rustix::fs::{FlockOperation, fdatasync, flock, fsync};

const TURNS: usize = 5;
/// Duration of one side of a turn.
const TURN: Duration = Duration::from_millis(700);
const PROCESSES: u32 = 8;
const THREADS: u32 = 16;
/// First argument of a worker process that this one starts.
const WORKER: &str = "--worker";

/// Work to be measured, repeated on files in a folder.
type Work = Box<dyn FnMut() + Send>;

/// A document of about one kilobyte.
type Value = Vec<String>;

fn value() -> Value {
    (0..16).map(|number| format!("{number:060}")).collect()
}

fn lock_of_the_store(folder: &Path) -> Work {
    let lock = FileLock::new(folder.join("a.lock"));
    Box::new(move || drop(lock.lock().unwrap()))
}

/// Makes the bare calls with the same guarantee: the lock, and the check that the path still names the locked file.
fn bare_lock(folder: &Path) -> Work {
    let path = folder.join("a.lock");
    let file = File::create(&path).unwrap();
    Box::new(move || {
        flock(&file, FlockOperation::LockExclusive).unwrap();
        let (held, there) = (file.metadata().unwrap(), fs::symlink_metadata(&path).unwrap());
        assert_eq!((held.dev(), held.ino()), (there.dev(), there.ino()));
        flock(&file, FlockOperation::Unlock).unwrap();
    })
}

fn bare_pair(folder: &Path) -> Work {
    let file = File::create(folder.join("a.lock")).unwrap();
    Box::new(move || {
        flock(&file, FlockOperation::LockExclusive).unwrap();
        flock(&file, FlockOperation::Unlock).unwrap();
    })
}

fn fs4(folder: &Path) -> Work {
    let file = File::create(folder.join("a.lock")).unwrap();
    Box::new(move || {
        fs4::FileExt::lock(&file).unwrap();
        fs4::FileExt::unlock(&file).unwrap();
    })
}

fn fd_lock(folder: &Path) -> Work {
    let mut lock = fd_lock::RwLock::new(File::create(folder.join("a.lock")).unwrap());
    Box::new(move || drop(lock.write().unwrap()))
}

/// Commits a transaction that is then durable, like an append to the journal.
fn redb(folder: &Path) -> Work {
    const RECORDS: redb::TableDefinition<'_, u64, &str> = redb::TableDefinition::new("record");
    let database = redb::Database::create(folder.join("a.redb")).unwrap();
    let (record, mut next) = ("r".repeat(200), 0);
    Box::new(move || {
        let transaction = database.begin_write().unwrap();
        transaction.open_table(RECORDS).unwrap().insert(next, record.as_str()).unwrap();
        transaction.commit().unwrap();
        next += 1;
    })
}

fn document(folder: &Path) -> Work {
    let document: Document<Value> = Document::open(folder.join("a.json")).unwrap();
    document
        .update(|all| {
            if all.is_empty() {
                *all = value();
            }
        })
        .unwrap();
    Box::new(move || document.update(|all| all.rotate_left(1)).unwrap())
}

/// Locks, writes, syncs, renames and syncs the folder, and does nothing else.
fn bare_update(folder: &Path) -> Work {
    let (path, temporary) = (folder.join("a.json"), folder.join(".a.json.tmp"));
    let lock = OpenOptions::new().create(true).append(true).open(folder.join("a.lock")).unwrap();
    let content = serde_json::to_vec(&value()).unwrap();
    let folder = folder.to_owned();
    Box::new(move || {
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        let mut file = File::create(&temporary).unwrap();
        file.write_all(&content).unwrap();
        fdatasync(&file).unwrap();
        fs::rename(&temporary, &path).unwrap();
        fsync(File::open(&folder).unwrap()).unwrap();
        flock(&lock, FlockOperation::Unlock).unwrap();
    })
}

fn atomic_write_file(folder: &Path) -> Work {
    let path = folder.join("a.json");
    let content = serde_json::to_vec(&value()).unwrap();
    Box::new(move || {
        let mut file = AtomicWriteFile::open(&path).unwrap();
        file.write_all(&content).unwrap();
        file.commit().unwrap();
    })
}

fn journal(folder: &Path) -> Work {
    let journal: Journal<String> = Journal::open(folder.join("a.jsonl")).unwrap();
    let record = "r".repeat(200);
    Box::new(move || journal.append(&record).unwrap())
}

fn sqlite(folder: &Path) -> Work {
    let connection = Connection::open(folder.join("a.db")).unwrap();
    connection.busy_timeout(Duration::from_secs(60)).unwrap();
    // Several start at once, and only the change to WAL does not wait.
    while connection.pragma_update(None, "journal_mode", "wal").is_err() {
        thread::sleep(Duration::from_millis(5));
    }
    connection.pragma_update(None, "synchronous", "full").unwrap();
    connection.execute("create table if not exists record (text text)", ()).unwrap();
    let record = "r".repeat(200);
    Box::new(move || {
        connection.execute_batch("begin immediate").unwrap();
        connection.execute("insert into record values (?1)", [&record]).unwrap();
        connection.execute_batch("commit").unwrap();
    })
}

/// A kind of work: its name, and the function that begins it in a folder.
type Kind = (&'static str, fn(&Path) -> Work);

const KINDS: &[Kind] = &[
    ("lock", lock_of_the_store),
    ("bare-lock", bare_lock),
    ("bare-pair", bare_pair),
    ("fs4", fs4),
    ("fd-lock", fd_lock),
    ("document", document),
    ("bare-update", bare_update),
    ("atomic-write-file", atomic_write_file),
    ("journal", journal),
    ("sqlite", sqlite),
    ("redb", redb),
];

fn work(kind: &str, folder: &Path) -> Work {
    KINDS.iter().find(|(name, _)| *name == kind).unwrap().1(folder)
}

fn folder() -> tempfile::TempDir {
    let base = env::var_os("PICKLOCK_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    fs::create_dir_all(&base).unwrap();
    tempfile::tempdir_in(base).unwrap()
}

/// Returns how often the work was done, and the longest time of one.
fn run(work: &mut Work, time: Duration) -> (u64, Duration) {
    let (began, mut count, mut longest) = (Instant::now(), 0, Duration::ZERO);
    while began.elapsed() < time {
        let one = Instant::now();
        work();
        longest = longest.max(one.elapsed());
        count += 1;
    }
    (count, longest)
}

/// Result of several workers: sum of their rates, Jain's index of their shares, and the longest time of one.
#[derive(Clone, Copy)]
struct Rate {
    per_second: f64,
    jain: f64,
    longest: Duration,
}

impl Rate {
    fn of(all: &[(u64, Duration)], time: Duration) -> Self {
        let counts: Vec<f64> = all.iter().map(|(count, _)| *count as f64).collect();
        let sum: f64 = counts.iter().sum();
        let squares: f64 = counts.iter().map(|count| count * count).sum();
        let longest = all.iter().map(|(_, longest)| *longest).max().unwrap_or_default();
        Self {
            per_second: sum / time.as_secs_f64(),
            jain: sum * sum / (counts.len() as f64 * squares),
            longest,
        }
    }
}

fn alone(kind: &str) -> Rate {
    let folder = folder();
    let mut work = work(kind, folder.path());
    Rate::of(&[run(&mut work, TURN)], TURN)
}

fn in_processes(kind: &str) -> Rate {
    let folder = folder();
    // The initial files are made by one worker alone.
    work(kind, folder.path())();
    let children: Vec<_> = (0..PROCESSES)
        .map(|_| {
            let mut command = Command::new(env::current_exe().unwrap());
            command.arg(WORKER).arg(kind).arg(folder.path()).stdin(Stdio::null()).stdout(Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    let told: Vec<(u64, Duration)> = children
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let (count, longest) = text.trim().split_once(' ').unwrap();
            (count.parse().unwrap(), Duration::from_nanos(longest.parse().unwrap()))
        })
        .collect();
    Rate::of(&told, TURN)
}

/// Measures threads that update one document: through one shared handle, or one after another.
fn in_threads(shares: bool) -> Rate {
    let folder = folder();
    let document: Document<Value> = Document::open(folder.path().join("a.json")).unwrap();
    document.update(|all| *all = value()).unwrap();
    let turn = Mutex::new(());
    let told: Vec<(u64, Duration)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let (document, turn) = (&document, &turn);
                    let (began, mut count, mut longest) = (Instant::now(), 0, Duration::ZERO);
                    while began.elapsed() < TURN {
                        let one = Instant::now();
                        let _alone = (!shares).then(|| turn.lock().unwrap());
                        document.update(|all| all.rotate_left(1)).unwrap();
                        longest = longest.max(one.elapsed());
                        count += 1;
                    }
                    (count, longest)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    Rate::of(&told, TURN)
}

/// Prints the median of each figure over the turns, and of its ratio to that of a peer in the same turn.
fn table() {
    println!("| what | rate | beside | ratio | aim |");
    println!("| --- | ---: | --- | ---: | --- |");
    type Side<'a> = &'a dyn Fn() -> Rate;
    let rows: [(&str, Side<'_>, &str, Side<'_>, &str); 9] = [
        (
            "lock and unlock",
            &|| alone("lock"),
            "the bare calls of the same promise",
            &|| alone("bare-lock"),
            "≥ 0.91 (1.1× the time)",
        ),
        ("lock and unlock", &|| alone("lock"), "the bare pair", &|| alone("bare-pair"), ""),
        (
            "durable update of 1 KB",
            &|| alone("document"),
            "the bare calls",
            &|| alone("bare-update"),
            "≥ 0.95",
        ),
        (
            "durable update of 1 KB",
            &|| alone("document"),
            "atomic-write-file",
            &|| alone("atomic-write-file"),
            "≥ 1.2",
        ),
        (
            "durable update, 8 processes",
            &|| in_processes("document"),
            "the bare calls, 8 processes",
            &|| in_processes("bare-update"),
            "Jain ≥ 0.95",
        ),
        ("durable append", &|| alone("journal"), "SQLite (WAL, FULL)", &|| alone("sqlite"), "≥ 0.9"),
        (
            "durable append, 8 processes",
            &|| in_processes("journal"),
            "SQLite (WAL, FULL), 8 processes",
            &|| in_processes("sqlite"),
            "≥ 6",
        ),
        ("update, 16 threads", &|| in_threads(true), "without group commit", &|| in_threads(false), "≥ 5"),
        ("append after 1 GB", &|| after(1 << 30), "after 1 KB", &|| after(1 << 10), "flat"),
    ];
    for (what, ours, beside, theirs, aim) in rows {
        let turns: Vec<(Rate, Rate)> = (0..TURNS).map(|_| (ours(), theirs())).collect();
        let rate = median(turns.iter().map(|(ours, _)| ours.per_second));
        let ratio = median(turns.iter().map(|(ours, theirs)| ours.per_second / theirs.per_second));
        let jain = median(turns.iter().map(|(ours, _)| ours.jain));
        let longest = median(turns.iter().map(|(ours, _)| ours.longest.as_secs_f64() * 1000.0));
        let shares = if jain < 0.9999 || what.contains("processes") {
            format!(" (Jain {jain:.2}, longest {longest:.1} ms)")
        } else {
            String::new()
        };
        println!("| {what} | {rate:.0}/s{shares} | {beside} | {ratio:.2} | {aim} |");
    }
    let (short, long) = (latest(1 << 10), latest(1 << 30));
    println!("| latest record of 1 GB | {:.1} µs | of 1 KB | {:.2} | flat |", long * 1e6, long / short);
    let folder = folder();
    let document: Document<Value> = Document::open(folder.path().join("a.json")).unwrap();
    document.update(|all| *all = vec!["x".repeat(1000); 1000]).unwrap();
    let unchanged = seconds_of(|| drop(black_box(document.read().unwrap())));
    let anew = seconds_of(|| {
        let document: Document<Value> = Document::open(folder.path().join("a.json")).unwrap();
        drop(black_box(document.read().unwrap()));
    });
    println!(
        "| read of an unchanged 1 MB | {:.1} µs | opened and parsed | {:.5} | parses nothing |",
        unchanged * 1e6,
        unchanged / anew
    );
}

/// Measures appends to a journal that already has this many bytes.
fn after(bytes: u64) -> Rate {
    let folder = folder();
    fill(folder.path(), bytes);
    let mut work = work("journal", folder.path());
    Rate::of(&[run(&mut work, TURN)], TURN)
}

/// Measures the time to read the latest record of a journal of this many bytes, in seconds.
fn latest(bytes: u64) -> f64 {
    let folder = folder();
    fill(folder.path(), bytes);
    let journal: Journal<String> = Journal::open(folder.path().join("a.jsonl")).unwrap();
    seconds_of(|| drop(black_box(journal.latest().unwrap())))
}

fn fill(folder: &Path, bytes: u64) {
    let mut file = File::create(folder.join("a.jsonl")).unwrap();
    let line = format!("\"{}\"\n", "r".repeat(253));
    let block = line.repeat(4096);
    let mut left = bytes;
    while left > 0 {
        let part = block.len().min(usize::try_from(left).unwrap()) / line.len().max(1) * line.len();
        if part == 0 {
            break;
        }
        file.write_all(&block.as_bytes()[..part]).unwrap();
        left -= part as u64;
    }
    file.sync_all().unwrap();
}

fn seconds_of(mut what: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..200)
        .map(|_| {
            let began = Instant::now();
            what();
            began.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let [WORKER, kind, folder] = words.as_slice() {
        let mut work = work(kind, Path::new(folder));
        let (count, longest) = run(&mut work, TURN);
        println!("{count} {}", longest.as_nanos());
    } else if words.contains(&"--table") {
        table();
    } else {
        let mut criterion = Criterion::default().configure_from_args();
        for (kind, make) in KINDS {
            let folder = folder();
            let mut work = make(folder.path());
            criterion.bench_function(kind, |bencher| bencher.iter(&mut work));
        }
        criterion.final_summary();
    }
}

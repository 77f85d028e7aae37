//! Lock primitives, taken by several processes in turn. What the processes do is the business of whoever is started for it:
//! `picklock` under the name [`LOCKER`].

use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::figures::{Figure, Latencies, jain};
use super::{Measure, Row};
use crate::runner::Stop;

/// Name under which the program takes a lock repeatedly: KIND FOLDER CLIENT HOLD-IN-NANOSECONDS.
pub const LOCKER: &str = "picklock-locker";
/// Duration of an initial run that does not count.
const WARM_UP: Duration = Duration::from_millis(40);

/// A lock primitive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Primitive {
    /// Its name.
    pub id: &'static str,
    /// Its description.
    pub statement: &'static str,
}

/// All measured primitives, in the order of the table.
pub const ALL: &[Primitive] = &[
    Primitive { id: "flock", statement: "flock(2), of an open file" },
    Primitive { id: "posix", statement: "fcntl(2) with F_SETLKW, of a process" },
    Primitive { id: "ofd", statement: "fcntl(2) with F_OFD_SETLKW, of an open file" },
    Primitive { id: "std", statement: "std::fs::File::lock" },
    Primitive { id: "fs4", statement: "the crate fs4" },
    Primitive { id: "fd-lock", statement: "the crate fd-lock" },
    Primitive { id: "o-excl", statement: "a file made with O_EXCL, tried again every millisecond" },
    Primitive { id: "mkdir", statement: "a folder made with mkdir(2), tried again every millisecond" },
    Primitive {
        id: "store",
        statement: "the guard of the reference store, which looks whether the file was replaced",
    },
];

/// No lock: shows that two clients inside at once are detected. It is measured only if named.
const NONE: Primitive = Primitive { id: "none", statement: "no lock at all" };

/// Returns the primitive with this id.
pub fn find(id: &str) -> Option<Primitive> {
    ALL.iter().chain([&NONE]).copied().find(|one| one.id == id)
}

/// Report of one process on one run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Number of acquisitions.
    pub count: u64,
    /// Waiting times in nanoseconds, each with its count; includes the unsuccessful wait at the end.
    pub waits: Vec<(u64, u64)>,
    /// Times from the release by another process to the acquisition by this one, in nanoseconds, each with its count.
    pub handovers: Vec<(u64, u64)>,
}

/// File of the counter that each process increments while it holds the lock.
pub const COUNTER: &str = "counter";
/// Size of its content: number of acquisitions, last holder, and time of that holder's release.
pub const COUNTER_BYTES: usize = 24;

/// All runs of one line of the table.
#[derive(Default)]
struct Cell {
    rates: Vec<f64>,
    waits: Latencies,
    handovers: Latencies,
    /// Number of acquisitions of each client, over all runs.
    counts: Vec<u64>,
    jains: Vec<f64>,
    violations: u64,
}

/// Measures these primitives in `folder`, with processes of `program`; calls `tick` after each run.
///
/// # Errors
/// If a process cannot be started, or does not report its results.
pub fn measure(
    primitives: &[Primitive],
    measure: &Measure,
    folder: &Path,
    program: &Path,
    stop: &Stop,
    tick: &dyn Fn(),
) -> io::Result<Vec<Row>> {
    let mut lines: Vec<(Primitive, u32, Duration, Cell)> = Vec::new();
    for hold in &measure.holds {
        for clients in &measure.clients {
            lines.extend(primitives.iter().map(|one| (*one, *clients, *hold, Cell::default())));
        }
    }
    // Each round measures all lines in turn, so that a busy moment of the machine affects all alike.
    for round in 0..=measure.runs {
        for (primitive, clients, hold, cell) in &mut lines {
            if stop.is_requested() {
                break;
            }
            let time = if round == 0 { WARM_UP } else { measure.time };
            let (all, count) = run(primitive.id, *clients, *hold, time, folder, program)?;
            if round > 0 {
                cell.take(&all, count, time);
            }
            tick();
        }
    }
    Ok(lines
        .into_iter()
        .map(|(primitive, clients, hold, cell)| cell.into_row(primitive.id, clients, hold))
        .collect())
}

/// Returns the report of each process, and the final value of their shared counter.
fn run(
    kind: &str,
    clients: u32,
    hold: Duration,
    time: Duration,
    folder: &Path,
    program: &Path,
) -> io::Result<(Vec<Told>, u64)> {
    let folder = tempfile::Builder::new().prefix("locks-").tempdir_in(folder)?;
    std::fs::write(folder.path().join(COUNTER), [0; COUNTER_BYTES])?;
    let mut lockers: Vec<Locker> = (1..=clients)
        .map(|client| Locker::start(kind, client, hold, folder.path(), program))
        .collect::<io::Result<_>>()?;
    for locker in &mut lockers {
        locker.await_ready()?;
    }
    for locker in &mut lockers {
        locker.go(time)?;
    }
    let all = lockers.iter_mut().map(Locker::told).collect::<io::Result<_>>()?;
    let counter = std::fs::read(folder.path().join(COUNTER))?;
    let count = counter.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
    Ok((all, count))
}

/// A process that takes the lock; it ends when its standard input closes, however this process ends.
struct Locker {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Locker {
    fn start(kind: &str, client: u32, hold: Duration, folder: &Path, program: &Path) -> io::Result<Self> {
        let mut child = Command::new(program)
            .arg0(LOCKER)
            .args([OsString::from(kind), folder.into()])
            .args([client.to_string(), hold.as_nanos().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let answers = child.stdout.take().map(BufReader::new).ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self { child, answers })
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.answers.read_line(&mut line)? {
            0 => Err(io::Error::other("a process that takes a lock ended early; see its message above")),
            _ => Ok(line),
        }
    }

    fn await_ready(&mut self) -> io::Result<()> {
        self.line().map(drop)
    }

    fn go(&mut self, time: Duration) -> io::Result<()> {
        let input = self.child.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        writeln!(input, "{}", time.as_nanos())
    }

    fn told(&mut self) -> io::Result<Told> {
        let line = self.line()?;
        serde_json::from_str(&line).map_err(io::Error::other)
    }
}

impl Drop for Locker {
    fn drop(&mut self) {
        // It has reported everything, or is no longer wanted.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Cell {
    fn take(&mut self, all: &[Told], counted: u64, time: Duration) {
        let count: u64 = all.iter().map(|one| one.count).sum();
        self.rates.push(count as f64 / time.as_secs_f64());
        self.violations += count.abs_diff(counted);
        self.counts.resize(all.len(), 0);
        for (total, one) in self.counts.iter_mut().zip(all) {
            *total += one.count;
            one.waits.iter().for_each(|(nanos, count)| self.waits.add(*nanos, *count));
            one.handovers.iter().for_each(|(nanos, count)| self.handovers.add(*nanos, *count));
        }
        self.jains.push(jain(&all.iter().map(|one| one.count as f64).collect::<Vec<_>>()));
    }

    fn into_row(self, name: &str, clients: u32, hold: Duration) -> Row {
        let total = self.counts.iter().sum::<u64>().max(1) as f64;
        let share = |count: Option<&u64>| count.map_or(0.0, |count| *count as f64 / total);
        Row {
            name: name.to_owned(),
            clients,
            hold_ns: u64::try_from(hold.as_nanos()).unwrap_or(u64::MAX),
            rate: Figure::of(&self.rates),
            wait: self.waits.latency(),
            handover_ns: self.handovers.median(),
            jain: Figure::of(&self.jains).median,
            shares: (share(self.counts.iter().min()), share(self.counts.iter().max())),
            violations: self.violations,
            failed: 0,
            of_flushes: 0.0,
        }
    }
}

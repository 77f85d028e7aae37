//! Measures the stress scenario beside a bare loop that starts the same processes and kills the same share.
//!
//! Run it with `cargo build --release && cargo bench -p picklock-benches --bench stress [-- PROGRAM ARGUMENT…]`. Both
//! sides start the same plan of operations in fresh folders on one file system, in turn, so that a machine whose speed
//! drifts slows both; the result is the median of the ratios. PROGRAM follows the plain convention; without one the
//! embedded store is driven.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use picklock::check::{Options, check};
use picklock::op::Request;
use picklock::runner::Stop;
use picklock::scenario::stress::{CLIENTS, OPERATIONS, Plan, Repertoire, Round, Step};
use picklock::selection::Selection;
use picklock::target::Target;
use picklock::target::flags::Flags;

const PAIRS: u64 = 9;
/// Share of an operation's time after which kills begin.
const LATE: f64 = 0.8;

fn main() {
    let program: Vec<String> = env::args().skip(1).filter(|word| word != "--bench").collect();
    let picklock = built_binary();
    let target = if program.is_empty() {
        Target::embedded(Path::new("/"))
    } else {
        Flags::default()
            .into_plain_target(&program, Path::new("."))
            .expect("a program of the plain convention")
    };
    println!(
        "{:>4}  {:>12}  {:>12}  {:>6}  {:>7}  {:>7}  {:>8}",
        "run", "stress op/s", "bare op/s", "ratio", "killed", "killed", "readers"
    );
    let mut ratios = Vec::new();
    for seed in 1..=PAIRS {
        let stress = stress(&target, &picklock, seed);
        let bare = bare_loop(&target, &picklock, seed);
        let ratio = stress.rate() / bare.rate();
        println!(
            "{seed:>4}  {:>12.0}  {:>12.0}  {ratio:>6.3}  {:>6.1}%  {:>6.1}%  {:>7.1}%",
            stress.rate(),
            bare.rate(),
            100.0 * stress.killed_share,
            100.0 * bare.killed_share,
            100.0 * stress.readers_share,
        );
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "\nratio: median {:.3}, from {:.3} to {:.3}",
        ratios[ratios.len() / 2],
        ratios[0],
        ratios[ratios.len() - 1]
    );
    println!(
        "killed: of stress, of the bare loop; readers: processor time of the unlocked reader, of one core"
    );
}

struct Figures {
    operations: u64,
    elapsed: Duration,
    killed_share: f64,
    readers_share: f64,
}

impl Figures {
    fn rate(&self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64()
    }
}

/// Returns the program that the workspace built beside this benchmark.
fn built_binary() -> PathBuf {
    let own = env::current_exe().expect("a path of this program");
    let binary = own.ancestors().nth(2).expect("a target folder").join("picklock");
    assert!(binary.exists(), "{binary:?} is not there: cargo build --release first");
    binary
}

fn stress(target: &Target, picklock: &Path, seed: u64) -> Figures {
    let options = Options {
        seed,
        budget: None,
        multi_call: Some(picklock.to_owned()),
        selection: Selection::new(&["stress".into()], &[]).expect("a scenario"),
        ..Options::default()
    };
    let report = check(target, &options, &Stop::new().expect("an event"), &()).expect("a report");
    let crowd = report.scenarios[0].crowd.expect("a crowd");
    Figures {
        operations: crowd.operations,
        elapsed: Duration::from_secs_f64(crowd.elapsed_ms / 1e3),
        killed_share: crowd.killed as f64 / crowd.operations as f64,
        readers_share: crowd.readers_cpu_ms / crowd.elapsed_ms,
    }
}

fn bare_loop(target: &Target, picklock: &Path, seed: u64) -> Figures {
    let repertoire = Repertoire { list: target.ops.list.is_some(), ..Repertoire::default() };
    let plan = Plan::new(seed, CLIENTS, OPERATIONS, &repertoire);
    let (operations, killed) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut elapsed = Duration::ZERO;
    for round in &plan.rounds {
        let Round::Crowd(clients) = round else { continue };
        let folder = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
        let store = folder.path().join("picklock-store");
        std::os::unix::fs::symlink(picklock, &store).expect("a link");
        let dir = folder.path().join("sandbox");
        fs::create_dir(&dir).expect("a folder");
        let mean = AtomicU64::new(5_000_000);
        let began = Instant::now();
        thread::scope(|scope| {
            let (dir, store, mean, operations, killed) = (&dir, &store, &mean, &operations, &killed);
            for (_, steps) in clients {
                scope.spawn(move || {
                    for step in steps {
                        let was_killed = bare_operation(target, dir, store, step, mean);
                        operations.fetch_add(1, Ordering::Relaxed);
                        killed.fetch_add(u64::from(was_killed), Ordering::Relaxed);
                    }
                });
            }
        });
        elapsed += began.elapsed();
    }
    let (operations, killed) = (operations.into_inner(), killed.into_inner());
    Figures { operations, elapsed, killed_share: killed as f64 / operations as f64, readers_share: 0.0 }
}

/// Starts the process, kills it if the plan says so, and waits: it records, bounds and inspects nothing.
fn bare_operation(target: &Target, dir: &Path, store: &Path, step: &Step, mean: &AtomicU64) -> bool {
    let (command, id) = match &step.request {
        Request::Add { record, .. } => (&target.ops.add, record.clone()),
        _ => (target.ops.list.as_ref().expect("list"), String::new()),
    };
    let values = picklock::target::Values {
        dir: dir.to_owned(),
        data: dir.join("store.json"),
        id,
        store: store.to_owned(),
        ..picklock::target::Values::default()
    };
    let (program, arguments) = command.render(&values, Path::new("."));
    let began = Instant::now();
    let mut child = Command::new(program)
        .args(arguments)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a process");
    if let Some(fraction) = step.kill {
        // Like the scenario, do not kill during program start: the store works on its folder towards the end.
        let moment = mean.load(Ordering::Relaxed) as f64 * (LATE + (1.0 - LATE) * fraction);
        let moment = Duration::from_nanos(moment as u64);
        thread::sleep(moment.saturating_sub(began.elapsed()));
        child.kill().expect("a kill");
        return !child.wait().expect("an end").success();
    }
    child.wait().expect("an end");
    let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
    mean.store((mean.load(Ordering::Relaxed) * 7 + took) / 8, Ordering::Relaxed);
    false
}

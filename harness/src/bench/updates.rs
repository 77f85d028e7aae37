//! Measures updates per second of a store, by clients and by records, one-shot and in a session, and beside another
//! store.

use std::collections::BTreeSet;
use std::path::Path;

use super::figures::{Figure, Latencies, jain};
use super::{Comparison, Growth, Measure, Row};
use crate::report::exit;
use crate::runner::{self, Control, ExecEnv, RunError, Served, Stop};
use crate::sandbox::Sandbox;
use crate::target::{Target, UsageError};

/// Maximum number of updates of one client to measure the growth of their cost, and their maximum time.
const GROWTH_UPDATES: u32 = 1000;
const GROWTH_TIME: std::time::Duration = std::time::Duration::from_secs(4);
/// Number of parts they are divided into.
const GROWTH_PARTS: usize = 5;

/// Errors that prevent a measurement.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The arguments make no sense.
    #[error("{0}")]
    Usage(#[from] UsageError),
    /// The store does not work without injections.
    #[error("{0} does not work without injections: {1}")]
    Control(String, String),
    /// The harness itself failed.
    #[error("{0}")]
    Run(#[from] RunError),
}

impl BenchError {
    /// Returns the exit status of this error.
    pub fn exit(&self) -> u8 {
        match self {
            Self::Usage(_) => exit::USAGE,
            Self::Control(..) => exit::CONTROL_FAILED,
            Self::Run(_) => exit::INTERNAL,
        }
    }
}

/// Results of all stores.
#[derive(Clone, Debug, Default)]
pub struct Updates {
    /// One line for each store, way to drive it and number of clients.
    pub rows: Vec<Row>,
    /// Growth of the cost of an update.
    pub growth: Vec<Growth>,
    /// Comparisons of the first store with the second.
    pub comparison: Vec<Comparison>,
}

/// A store, one way to drive it, and its environment.
struct Driven<'a> {
    name: String,
    env: ExecEnv<'a>,
    in_session: bool,
}

/// All runs of one line of the table.
#[derive(Default)]
struct Cell {
    rates: Vec<f64>,
    took: Latencies,
    counts: Vec<u64>,
    jains: Vec<f64>,
    lost: u64,
    failed: u64,
}

/// Measures these stores and compares the first with each of the others; each has its own sandbox on the file system of
/// `dir`.
///
/// # Errors
/// If one of them does not work, or the harness itself failed.
pub fn measure(
    targets: &[&Target],
    measure: &Measure,
    dir: Option<&Path>,
    multi_call: &Path,
    stop: &Stop,
    made: &dyn Fn(&Path),
    tick: &dyn Fn(),
) -> Result<Updates, BenchError> {
    let mut sandboxes = Vec::new();
    for target in targets {
        sandboxes.push(Sandbox::in_dir(dir, &target.data, Some(multi_call), made)?);
    }
    let measured = measure_in(targets, &sandboxes, measure, stop, tick);
    for sandbox in sandboxes {
        sandbox.remove().map_err(|why| RunError::System { what: "remove the sandbox", why })?;
    }
    measured
}

fn measure_in(
    targets: &[&Target],
    sandboxes: &[Sandbox],
    measure: &Measure,
    stop: &Stop,
    tick: &dyn Fn(),
) -> Result<Updates, BenchError> {
    let mut all = Vec::new();
    for (target, sandbox) in targets.iter().zip(sandboxes) {
        for in_session in [false, true] {
            if in_session && target.session.is_none() {
                continue;
            }
            let how = if in_session { "session" } else { "one-shot" };
            let env = ExecEnv::new(target, sandbox, stop, &|| ());
            all.push(Driven { name: format!("{} {how}", target.name), env, in_session });
        }
    }
    for driven in all.iter().filter(|driven| !driven.in_session) {
        let Control { failure, .. } = match runner::control(&driven.env) {
            Err(RunError::Stopped) => return Ok(Updates::default()),
            control => control?,
        };
        if let Some(why) = failure {
            return Err(BenchError::Control(driven.env.target.name.clone(), why));
        }
    }
    let mut lines: Vec<(usize, u32, Cell)> = Vec::new();
    for clients in &measure.clients {
        lines.extend((0..all.len()).map(|driven| (driven, *clients, Cell::default())));
    }
    // One extra round does not count. Each round measures all lines in turn, so that a busy moment affects all alike.
    for round in 0..=measure.runs {
        for (driven, clients, cell) in &mut lines {
            if stop.is_requested() {
                break;
            }
            let time = if round == 0 { measure.time / 5 } else { measure.time };
            let driven = &all[*driven];
            let began = std::time::Instant::now();
            let served = runner::throughput(&driven.env, *clients, time, u32::MAX, driven.in_session)?;
            let took = began.elapsed();
            if round > 0 {
                let there = runner::records(&driven.env)?;
                // A store that can no longer be read has lost all its records.
                let target = driven.env.target;
                let can_tell = target.ops.list.is_some() || target.data.records.is_some();
                let there = there.or_else(|| (can_tell && !stop.is_requested()).then(Vec::new));
                cell.take(&served, took.as_secs_f64(), there);
            }
            tick();
        }
    }
    let mut updates = Updates { comparison: compared(&all, &lines), ..Updates::default() };
    for driven in &all {
        if !stop.is_requested() {
            updates.growth.extend(growth(driven)?);
        }
        tick();
    }
    updates.rows =
        lines.into_iter().map(|(driven, clients, cell)| cell.into_row(&all[driven].name, clients)).collect();
    Ok(updates)
}

/// Compares the first store with each other one driven in the same way, run by run: what slowed one slowed both.
fn compared(all: &[Driven<'_>], lines: &[(usize, u32, Cell)]) -> Vec<Comparison> {
    let mut comparisons = Vec::new();
    for (driven, clients, cell) in lines {
        let of_first = lines.iter().find(|(first, same, _)| {
            same == clients
                && first < driven
                && all[*first].in_session == all[*driven].in_session
                && !std::ptr::eq(all[*first].env.target, all[*driven].env.target)
        });
        let Some((_, _, first)) = of_first else { continue };
        let ratios: Vec<f64> =
            first.rates.iter().zip(&cell.rates).filter(|(_, b)| **b > 0.0).map(|(a, b)| a / b).collect();
        let (other, ratio) = (all[*driven].name.clone(), Figure::of(&ratios));
        comparisons.push(Comparison { other, clients: *clients, ratio });
    }
    comparisons
}

fn growth(driven: &Driven<'_>) -> Result<Vec<Growth>, RunError> {
    let served = runner::throughput(&driven.env, 1, GROWTH_TIME, GROWTH_UPDATES, driven.in_session)?;
    let took: Vec<u64> = served.into_iter().flat_map(|one| one.took).collect();
    let size = took.len() / GROWTH_PARTS;
    if size == 0 {
        return Ok(Vec::new());
    }
    let parts = took.chunks_exact(size).take(GROWTH_PARTS).enumerate();
    Ok(parts
        .map(|(place, part)| {
            let mut sorted = part.to_vec();
            sorted.sort_unstable();
            let records = (place * size + size / 2) as u64;
            Growth { name: driven.name.clone(), records, update_ns: sorted[size / 2] }
        })
        .collect())
}

impl Cell {
    fn take(&mut self, served: &[Served], seconds: f64, there: Option<Vec<String>>) {
        let count: usize = served.iter().map(|one| one.took.len()).sum();
        self.rates.push(count as f64 / seconds);
        self.counts.resize(served.len(), 0);
        for (total, one) in self.counts.iter_mut().zip(served) {
            *total += one.took.len() as u64;
            self.failed += one.failed;
            one.took.iter().for_each(|nanos| self.took.add(*nanos, 1));
        }
        self.jains.push(jain(&served.iter().map(|one| one.took.len() as f64).collect::<Vec<_>>()));
        if let Some(there) = there {
            let there: BTreeSet<&str> = there.iter().map(String::as_str).collect();
            let acknowledged = served.iter().flat_map(|one| &one.records);
            self.lost += acknowledged.filter(|record| !there.contains(record.as_str())).count() as u64;
        }
    }

    fn into_row(self, name: &str, clients: u32) -> Row {
        let total = self.counts.iter().sum::<u64>().max(1) as f64;
        let share = |count: Option<&u64>| count.map_or(0.0, |count| *count as f64 / total);
        Row {
            name: name.to_owned(),
            clients,
            hold_ns: 0,
            rate: Figure::of(&self.rates),
            wait: self.took.latency(),
            handover_ns: None,
            jain: Figure::of(&self.jains).median,
            shares: (share(self.counts.iter().min()), share(self.counts.iter().max())),
            violations: self.lost,
            failed: self.failed,
            of_flushes: 0.0,
        }
    }
}

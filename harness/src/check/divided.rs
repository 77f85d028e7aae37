//! Divides a run over threads, each with one shard of it.

use std::path::Path;
use std::thread;

use crate::check::{CheckError, Options, Watcher, judge, milliseconds};
use crate::report::merge::join;
use crate::report::narrative::Narrative;
use crate::report::{Counterexample, Report};
use crate::runner::{RunError, Stop};
use crate::shard::Shard;
use crate::target::{Target, UsageError};

/// Judges `target` in `jobs` concurrent parts, each in its own sandbox; makes a narrative of each counterexample of the
/// report if `tells`.
///
/// # Errors
/// As in [`check`](crate::check::check); if there are several, that of the first part.
pub fn check_in_parts(
    target: &Target,
    options: &Options,
    jobs: u32,
    stop: &Stop,
    watcher: &dyn Watcher,
    tells: bool,
) -> Result<(Report, Vec<Narrative>), CheckError> {
    options.usable(jobs)?;
    let shard = options.shard;
    let parts = parts(shard, jobs)?;
    let began = std::time::Instant::now();
    let run = |(job, part): (usize, &Shard)| {
        let options = Options { shard: *part, ..options.clone() };
        match job {
            0 => judge(target, &options, stop, watcher, tells),
            _ => judge(target, &options, stop, &OneOfMany(watcher), tells),
        }
    };
    let all: Vec<Result<(Report, Vec<Narrative>), CheckError>> = thread::scope(|scope| {
        let threads: Vec<_> = parts.iter().enumerate().map(|part| scope.spawn(move || run(part))).collect();
        let panicked = || RunError::System {
            what: "go on with one part of the run",
            why: std::io::Error::other("its thread panicked"),
        };
        threads.into_iter().map(|one| one.join().unwrap_or_else(|_| Err(panicked().into()))).collect()
    });
    let (mut reports, mut narratives) = (Vec::new(), Vec::new());
    for one in all {
        let (report, told) = one?;
        reports.push(report);
        narratives.extend(told);
    }
    let mut report = join(&reports, shard);
    report.elapsed_ms = milliseconds(began.elapsed());
    narratives.retain(|narrative| {
        let is_its = |one: &Counterexample| one.replay == narrative.about.replay;
        let of = report.invariants.iter().find(|one| one.id == narrative.about.invariant);
        of.is_some_and(|one| one.counterexamples.iter().any(is_its))
    });
    Ok((report, narratives))
}

/// Divides a shard into one part for each job.
///
/// # Errors
/// If there would be more parts than a run can be divided into.
pub(super) fn parts(shard: Shard, jobs: u32) -> Result<Vec<Shard>, UsageError> {
    let parts: Option<Vec<Shard>> = (0..jobs).map(|job| part(shard, job, jobs)).collect();
    parts.ok_or_else(|| {
        UsageError::new("--jobs", format!("the shard {shard} cannot be divided into {jobs} more"))
    })
}

/// Returns the part of a shard that one of `jobs` jobs runs; together they run the whole shard.
fn part(shard: Shard, job: u32, jobs: u32) -> Option<Shard> {
    let index = job.checked_mul(shard.of())?.checked_add(shard.index())?;
    Shard::new(index, shard.of().checked_mul(jobs)?)
}

/// Does not report scenarios: only one part reports which scenario is running.
struct OneOfMany<'a>(&'a dyn Watcher);

impl Watcher for OneOfMany<'_> {
    fn made(&self, folder: &Path) {
        self.0.made(folder);
    }

    fn operation(&self) {
        self.0.operation();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_jobs_of_a_part_have_together_what_the_part_has() {
        let whole = Shard::new(2, 3).unwrap();
        let jobs: Vec<Shard> = (0..4).map(|job| part(whole, job, 4).unwrap()).collect();
        for place in 0..100 {
            let count = jobs.iter().filter(|job| job.has("crash", place)).count();
            // The start of a scenario is the same for both.
            assert_eq!(count, usize::from(whole.has("crash", place)), "{place}");
        }
    }
}

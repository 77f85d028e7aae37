//! Runs the control: the store has to work without injections, and its traits are recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::call::is_temporary;
use crate::observation::{FileState, State, Subject, file_shape};
use crate::op::{Operation, Outcome, Request, record_name};
use crate::runner::touch::{TouchWatch, Touches};
use crate::runner::{ExecEnv, RunError, nanos, program_of};
use crate::scenario::control::ADDS;
use crate::target::RECORDS_UNREADABLE;

/// Result of the control.
#[derive(Clone, Debug)]
pub struct Control {
    /// Why the store does not work without injections; `None` if it does.
    pub failure: Option<String>,
    /// Number of operations.
    pub operations: u64,
    /// Properties of the store that the judges need.
    pub subject: Subject,
    /// Timing that kills need.
    pub timing: Timing,
}

/// Median durations of a baseline `add`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// From its start to its end.
    pub whole: Duration,
    /// Its accesses to the sandbox; `None` if none was seen.
    pub touches: Option<Touches<Duration>>,
}

/// Runs the control. The result of `init` is the initial state of every later execution.
///
/// # Errors
/// If the harness itself fails; a failure of the store is not an error but the result.
pub fn control(env: &ExecEnv<'_>) -> Result<Control, RunError> {
    let mut run = ControlRun { env, clock: Instant::now(), operations: 0, subject: env.subject() };
    let mut timing = Timing::default();
    let failure = match run.prepare() {
        Ok(()) => run.adds(&mut timing).err(),
        failed => failed.err(),
    };
    let failure = match failure {
        None => None,
        Some(Failure::Store(reason)) => Some(reason),
        Some(Failure::Harness(RunError::Start { program, why })) if is_of_the_program(&why) => Some(format!(
            "{program:?} could not be started: {why}. Is it made for this machine, and is the interpreter on its first \
             line there?"
        )),
        Some(Failure::Harness(error)) => return Err(error),
    };
    Ok(Control { failure, operations: run.operations, subject: run.subject, timing })
}

/// Whether a start failed because of the program, not because of what this machine lacks.
fn is_of_the_program(why: &io::Error) -> bool {
    use std::io::ErrorKind::{ExecutableFileBusy, NotFound, PermissionDenied};
    // 8 is `ENOEXEC`, which has no `ErrorKind`.
    matches!(why.kind(), NotFound | PermissionDenied | ExecutableFileBusy) || why.raw_os_error() == Some(8)
}

struct ControlRun<'a> {
    env: &'a ExecEnv<'a>,
    clock: Instant,
    operations: u64,
    subject: Subject,
}

enum Failure {
    Store(String),
    Harness(RunError),
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        Self::Harness(error)
    }
}

impl ControlRun<'_> {
    fn prepare(&mut self) -> Result<(), Failure> {
        let target = self.env.target;
        self.env.lay()?;
        if target.ops.init.is_some() {
            self.succeed(Request::Init)?;
            self.env.sandbox.keep_as_old().map_err(RunError::system("keep what init left"))?;
        }
        let old = self.look();
        self.subject.starts_with_data = matches!(old.data, FileState::Whole) && self.subject.transparent;
        self.subject.initial_records.extend(old.records.clone().unwrap_or_default());
        if target.ops.list.is_some() {
            // Before the first record a store may report that there is nothing to list.
            let listed = self.operate(Request::List)?;
            if target.ops.init.is_some() && listed.outcome != Outcome::Acknowledged {
                return Err(self.failed(&listed));
            }
            self.subject.lists_when_empty = listed.outcome == Outcome::Acknowledged;
            self.subject.initial_records.extend(listed.records.unwrap_or_default());
        }
        Ok(self.env.lay()?)
    }

    fn adds(&mut self, timing: &mut Timing) -> Result<(), Failure> {
        let target = self.env.target;
        let adds = target.limit_of_plain_add().map_or(ADDS, |limit| limit.min(ADDS));
        let mut expected = BTreeSet::new();
        let (mut wholes, mut firsts, mut lasts, mut counts) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for number in 1..=adds {
            let record = record_name(number);
            let folders = self.env.sandbox.folders();
            let watch = TouchWatch::start(&folders.iter().map(PathBuf::as_path).collect::<Vec<_>>());
            let started = Instant::now();
            let added = self.succeed(Request::Add { record: record.clone(), number });
            let touched = watch.and_then(TouchWatch::finish);
            let added = added?;
            wholes.push(Duration::from_nanos(added.returned - added.invoked));
            if let Some(touched) = touched {
                firsts.push(touched.first.saturating_duration_since(started));
                lasts.push(touched.last.saturating_duration_since(started));
                counts.push(touched.count);
            }
            expected.insert(record);
            let mut state = self.look();
            // Files left in TMPDIR are no residue of the store.
            let own = state.files.iter().filter(|file| !is_temporary(file));
            self.subject.baseline_file_counts.push(own.count());
            self.subject.baseline_shapes.push(shapes(&state, &expected));
            if target.ops.list.is_some() {
                // Before `list` the records may be elsewhere.
                state.records = None;
            }
            self.check_file(&state, &expected)?;
            if target.ops.list.is_some() {
                let listed = self.succeed(Request::List)?;
                let records = listed.records.unwrap_or_default();
                self.check_records("list", "--listed", &records, &expected)?;
                // The file after `list`, which may have repaired or moved things, must agree with it.
                let state = self.look();
                // `list` may make files of its own, or remove some.
                if let Some(before) = self.subject.baseline_shapes.last_mut() {
                    for (shape, count) in shapes(&state, &expected) {
                        let most = before.entry(shape).or_default();
                        *most = count.max(*most);
                    }
                }
                self.check_file(&state, &expected)?;
                if target.data.records.is_some() && state.records.is_none() {
                    return Err(Failure::Store(
                        "the records cannot be read from the data file; mend --records".into(),
                    ));
                }
            }
        }
        *timing = Timing { whole: median(wholes), touches: None };
        if !firsts.is_empty() {
            timing.touches =
                Some(Touches { first: median(firsts), last: median(lasts), count: median(counts) });
        }
        Ok(())
    }

    fn check_file(&self, state: &State, expected: &BTreeSet<String>) -> Result<(), Failure> {
        let target = self.env.target;
        let data = target.data.path.display();
        let fail = |reason: String| Err(Failure::Store(reason));
        if self.subject.transparent {
            let after = format!("after an acknowledged add the data file {data}");
            match &state.data {
                FileState::Whole => {}
                FileState::Missing => {
                    let there = state.files.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
                    let there = if there.is_empty() { "nothing".to_owned() } else { there };
                    return fail(format!(
                        "{after} is not there (in the sandbox: {there}); name the right one with --data"
                    ));
                }
                FileState::Empty => return fail(format!("{after} is empty; name the right one with --data")),
                FileState::Broken(why) if why.starts_with(RECORDS_UNREADABLE) => {
                    return fail(format!("in {data}, {why}; mend --records"));
                }
                FileState::Broken(why) => {
                    return fail(format!(
                        "{after} is no {}: {why}; say what it is with --data-format (json, jsonl, text or opaque)",
                        target.data.format
                    ));
                }
            }
            if let Some((file, state)) = state.also.iter().find(|(_, state)| **state != FileState::Whole) {
                return fail(format!("after an acknowledged add the file {file} of data.also is {state:?}"));
            }
        }
        match (&target.data.records, &state.records) {
            (Some(_), Some(records)) => self.check_records("the data file", "--records", records, expected),
            _ => Ok(()),
        }
    }

    fn check_records(
        &self,
        source: &str,
        flag: &str,
        records: &[String],
        expected: &BTreeSet<String>,
    ) -> Result<(), Failure> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for record in records.iter().filter(|record| !self.subject.initial_records.contains(*record)) {
            *counts.entry(record).or_default() += 1;
        }
        let missing: Vec<&str> =
            expected.iter().map(String::as_str).filter(|record| !counts.contains_key(record)).collect();
        let foreign: Vec<String> = counts
            .keys()
            .filter(|record| !expected.contains(**record))
            .take(3)
            .map(|record| format!("{record:?}"))
            .collect();
        let reason = if !missing.is_empty() {
            let shown = if foreign.is_empty() {
                String::new()
            } else {
                format!(", which shows {} instead", foreign.join(", "))
            };
            format!("the acknowledged record {} is not in {source}{shown}", missing.join(", "))
        } else if !foreign.is_empty() {
            format!("{source} lists records that no operation added: {}", foreign.join(", "))
        } else if counts.values().any(|count| *count > 1) {
            format!("{source} shows a record more than once")
        } else {
            return Ok(());
        };
        Err(Failure::Store(format!(
            "{reason}; if the store is right, say how its records are read with {flag}"
        )))
    }

    fn look(&self) -> State {
        self.env.sandbox.look(self.env.target, nanos(self.clock.elapsed()))
    }

    fn operate(&mut self, request: Request) -> Result<Operation, RunError> {
        self.operations += 1;
        self.env.operate(1, request, self.clock, None, &|| (), &|_| ())
    }

    fn succeed(&mut self, request: Request) -> Result<Operation, Failure> {
        let operation = self.operate(request)?;
        if operation.outcome == Outcome::Acknowledged { Ok(operation) } else { Err(self.failed(&operation)) }
    }

    fn failed(&self, operation: &Operation) -> Failure {
        let limits = &self.env.target.limits;
        let how = match &operation.outcome {
            Outcome::Failed(status) => format!("failed ({status})"),
            Outcome::Refused => "was refused".to_owned(),
            Outcome::Busy => "found the store busy, although no other client ran".to_owned(),
            Outcome::Unfinished(crate::op::Limit::Timeout) => {
                format!("did not end within {:?} (limits.timeout)", limits.timeout)
            }
            Outcome::Stuck => "could not go on".to_owned(),
            Outcome::Unfinished(limit) => format!("went past its limit, limits.{limit}"),
            Outcome::Acknowledged | Outcome::Killed => "ended oddly".to_owned(),
        };
        let said = if operation.stderr.is_empty() {
            "it said nothing".to_owned()
        } else {
            format!("it said: {}", operation.stderr)
        };
        let program = self
            .env
            .command(&operation.request)
            .map(|command| program_of(command, &self.env.target.folder).display().to_string())
            .unwrap_or_default();
        Failure::Store(format!("{} {how}; {said} (program {program})", operation.request))
    }
}

/// Counts the files of each shape in the sandbox.
fn shapes(state: &State, records: &BTreeSet<String>) -> BTreeMap<String, usize> {
    let mut shapes = BTreeMap::new();
    for file in state.files.iter().filter(|file| !is_temporary(file)) {
        *shapes.entry(file_shape(file, records.iter().map(String::as_str))).or_default() += 1;
    }
    shapes
}

fn median<T: Copy + Default + Ord>(mut values: Vec<T>) -> T {
    values.sort();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

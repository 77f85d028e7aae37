//! Runs scenarios: operations as processes, clients as threads; it never judges.

mod baseline;
mod confirm;
mod control;
mod crash;
mod direct;
mod event;
mod execute;
mod experiments;
mod exploring;
mod fresh;
mod groups;
mod interleave;
mod kill;
mod pin;
mod playing;
mod power_cut;
mod power_loss;
mod prepare;
mod process;
mod reader;
mod schedule;
mod session;
mod shrink;
mod stop;
mod stress;
mod sweep;
mod throughput;
mod touch;
mod traced;
mod waits;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::call::TEMPORARY;
use crate::observation::Subject;
use crate::op::{ClientId, Limit, Nanos, Operation, Outcome, Request};
use crate::sandbox::Sandbox;
use crate::target::{Command, Target, Values};
use crate::tracer::Templates;

pub use confirm::{ConfirmError, Confirming, Variation, confirm, variations};
pub use control::{Control, Timing, control};
pub use event::{Kills, SweepControl, SweepEvent, SweepSummary, Trial};
pub use execute::{First, Played};
pub use experiments::Pass;
pub use interleave::{ExplorationLimits, classes};
pub use pin::Pinned;
pub use prepare::{Prepared, prepare};
pub use stop::Stop;
pub use stress::{Cut, Stress, stress};
pub use sweep::sweep;
pub use traced::{TraceError, trace};

pub use throughput::{Served, records, throughput};

use groups::Survivors;
use kill::Kill;
use process::{Ended, Invocation, Process};
pub use touch::Touches;

/// Number of operations between two searches for escaped processes that are still alive.
const STRAYS_EVERY: u64 = 32;
/// Maximum length of the saved tail of standard error: enough for a message.
const STDERR_CHARACTERS: usize = 400;

/// Execution environment of a scenario: runs the operations of one target in one sandbox.
pub struct ExecEnv<'a> {
    /// The store under test.
    pub target: &'a Target,
    /// The sandbox that the store works in.
    pub sandbox: &'a Sandbox,
    /// Ends the run early.
    pub stop: &'a Stop,
    /// No operation is started after this time.
    pub soft_end: Option<Instant>,
    /// After this time, operations are killed and nothing more is judged.
    pub hard_end: Option<Instant>,
    /// Templates that operations under the tracer are copied from, if they can be copied.
    pub templates: Option<Mutex<Templates>>,
    /// Whether traces show the content of the data file after each change.
    pub shows_content: bool,
    /// Called after every operation, for progress.
    pub on_operation: &'a (dyn Fn() + Sync),
    survivors: Survivors,
    /// Whether an add that has ended leaves its work to surviving processes, which picklock ends under the tracer.
    works_on: AtomicBool,
    /// Process groups of the running operations.
    under_way: Mutex<BTreeSet<i32>>,
    /// Number of operations that have ended.
    ended: AtomicU64,
    /// Whether any untraced operation ran since the last search for escaped processes: all descendants of a traced
    /// operation are traced too, and ended with it.
    may_have_strays: AtomicBool,
    /// The longest run time of operations cut short by the hard end, in milliseconds.
    cut_after: AtomicU64,
    /// Whether an operation was aborted that polled without progress.
    polled: AtomicBool,
    /// After this time, a round starts no operation, so that each round gets its share of the time.
    round_end: Mutex<Option<Instant>>,
}

/// Why a run cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The user asked for an end, or the hard end came.
    #[error("stopped")]
    Stopped,
    /// A process could not be started.
    #[error("cannot start {program:?}: {why}")]
    Start {
        /// The program.
        program: PathBuf,
        /// The system's error.
        why: io::Error,
    },
    /// The sandbox could not be laid out.
    #[error("cannot lay out the sandbox {path:?}: {why}")]
    Sandbox {
        /// The sandbox.
        path: PathBuf,
        /// The system's error.
        why: io::Error,
    },
    /// A call that the harness itself depends on failed.
    #[error("cannot {what}: {why}")]
    System {
        /// The action that failed.
        what: &'static str,
        /// The system's error.
        why: io::Error,
    },
}

impl RunError {
    pub(crate) fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |why| Self::System { what, why: why.into() }
    }
}

impl<'a> ExecEnv<'a> {
    /// Creates an environment without a time limit.
    pub fn new(
        target: &'a Target,
        sandbox: &'a Sandbox,
        stop: &'a Stop,
        on_operation: &'a (dyn Fn() + Sync),
    ) -> Self {
        Self {
            target,
            sandbox,
            stop,
            soft_end: None,
            hard_end: None,
            templates: None,
            shows_content: false,
            on_operation,
            survivors: Survivors::default(),
            works_on: AtomicBool::new(false),
            under_way: Mutex::default(),
            ended: AtomicU64::new(0),
            may_have_strays: AtomicBool::new(true),
            cut_after: AtomicU64::new(0),
            polled: AtomicBool::new(false),
            round_end: Mutex::default(),
        }
    }

    /// Lays the sandbox out for the next execution, after ending survivors of the last one.
    fn lay(&self) -> Result<(), RunError> {
        self.end_survivors();
        let laid = self.sandbox.lay().and_then(|()| match self.target.ops.init {
            None => self.sandbox.make_parent(),
            Some(_) => Ok(()),
        });
        laid.map_err(|why| RunError::Sandbox { path: self.sandbox.dir(), why })
    }

    /// Ends every process that outlived its operation.
    pub fn end_survivors(&self) {
        self.survivors.end();
        if !self.may_have_strays.swap(false, Ordering::Relaxed) {
            return;
        }
        // A killed process may just have started another one.
        for _ in 0..10 {
            let strays = self.strays();
            if strays.is_empty() {
                return;
            }
            groups::end(&strays);
        }
    }

    /// Finds the processes of this run, in whatever group or session, that are in no group of a running operation: all
    /// have the run's own folder for temporary files in their environment.
    fn strays(&self) -> Vec<OwnedFd> {
        let mark = [b"TMPDIR=", self.sandbox.tmp().as_os_str().as_encoded_bytes()].concat();
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Templates run on purpose.
        under_way.extend(self.with_templates(|templates| templates.groups()).unwrap_or_default());
        groups::marked(&mark, &under_way)
    }

    /// Ends escaped processes, if there are more of them than the process limit of one operation.
    fn bound_strays(&self) {
        if self.ended.fetch_add(1, Ordering::Relaxed) % STRAYS_EVERY == STRAYS_EVERY - 1 {
            let strays = self.strays();
            if strays.len() > self.target.limits.processes as usize {
                groups::end(&strays);
            }
        }
    }

    /// Whether operations are being cut short, so that nothing more can be judged.
    pub fn is_cut(&self) -> bool {
        self.stop.is_requested() || self.hard_end.is_some_and(|end| Instant::now() >= end)
    }

    /// Whether no operation is running, and no survivors are alive.
    fn is_alone(&self) -> bool {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).is_empty() && self.survivors.are_none()
    }

    /// Records how long operations begun at this time had run when the hard end cut them short.
    fn cut(&self, began: Instant) -> RunError {
        if !self.stop.is_requested() {
            let ran = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.cut_after.fetch_max(ran, Ordering::Relaxed);
        }
        RunError::Stopped
    }

    /// Returns and resets the longest run time of operations cut short by the time limit; `None` if none was.
    pub fn take_longest_cut(&self) -> Option<Duration> {
        let ran = self.cut_after.swap(0, Ordering::Relaxed);
        (ran > 0).then(|| Duration::from_millis(ran))
    }

    /// Records that an operation was aborted that polled without progress.
    fn note_polling(&self) {
        self.polled.store(true, Ordering::Relaxed);
    }

    /// Returns and resets whether an operation was aborted that polled without progress.
    pub fn take_polling(&self) -> bool {
        self.polled.swap(false, Ordering::Relaxed)
    }

    /// Number of operations that left surviving processes.
    pub fn operations_with_survivors(&self) -> u64 {
        self.survivors.operations()
    }

    /// Whether the time of the whole scenario is up.
    fn is_time_up(&self) -> bool {
        self.stop.is_requested() || self.soft_end.is_some_and(|end| Instant::now() >= end)
    }

    /// Whether this round should start no further operation.
    fn is_over(&self) -> bool {
        let round_end = *self.round_end.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_time_up() || round_end.is_some_and(|end| Instant::now() >= end)
    }

    /// Gives the next round its share of the time left for `rounds`.
    fn begin_round(&self, rounds: usize) {
        let share = self.soft_end.map(|end| {
            let now = Instant::now();
            now + end.saturating_duration_since(now) / u32::try_from(rounds).unwrap_or(u32::MAX).max(1)
        });
        *self.round_end.lock().unwrap_or_else(PoisonError::into_inner) = share;
    }

    fn command(&self, request: &Request) -> Option<&'a Command> {
        let ops = &self.target.ops;
        match request {
            Request::Init => ops.init.as_ref(),
            Request::Add { .. } => Some(&ops.add),
            Request::AddGuarded { .. } => self.target.guard.as_ref().and_then(|guard| guard.add.as_ref()),
            Request::List => ops.list.as_ref(),
            Request::Recover => ops.recover.as_ref(),
            Request::Rebuild => self.target.derived.as_ref().map(|derived| &derived.rebuild),
            Request::Other(name) => ops.other.get(name),
        }
    }

    /// Runs one operation to its end. `clock` is the start of the execution; `kill` is the time of the kill, if it
    /// lives that long; `on_late` is called just before an operation past its time limit is killed.
    fn operate(
        &self,
        client: ClientId,
        request: Request,
        clock: Instant,
        kill: Option<Kill<'_>>,
        on_late: &dyn Fn(),
        on_start: &dyn Fn(Process),
    ) -> Result<Operation, RunError> {
        self.may_have_strays.store(true, Ordering::Relaxed);
        let values = self.values(client, &request);
        let (program, arguments, cwd) = self.render(&request, &values);
        let environment = self.environment(&values);
        let invocation =
            Invocation { program: &program, arguments: &arguments, cwd: &cwd, environment: &environment };
        let group = Cell::new(None);
        let on_start = |process: Process| {
            group.set(Some(process));
            self.under_way.lock().unwrap_or_else(PoisonError::into_inner).insert(process.as_raw_pid());
            on_start(process);
        };
        let interference = process::Interference {
            kill,
            hard_end: self.hard_end,
            stop: self.stop,
            on_late,
            on_start: &on_start,
            is_alone: self.is_alone(),
        };
        let ended = process::run(&invocation, &self.target.limits, interference);
        if let Some(group) = group.get() {
            self.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&group.as_raw_pid());
        }
        let ended = ended?;
        if ended.has_survivors {
            self.survivors.add(ended.group, self.target.limits.processes);
        }
        self.bound_strays();
        (self.on_operation)();
        let outcome = self.outcome_or_limit(&ended);
        let mut operation = Operation {
            client,
            stderr: self.said(&outcome, &ended.stdout, &ended.stderr),
            outcome,
            invoked: nanos(ended.invoked.duration_since(clock)),
            returned: nanos(ended.returned.duration_since(clock)),
            still: None,
            fault: None,
            records: None,
            request,
        };
        if operation.request == Request::List && operation.outcome == Outcome::Acknowledged {
            self.take_listing(&mut operation, &ended.stdout);
        }
        Ok(operation)
    }

    /// Parses the output of a successful `list`.
    fn take_listing(&self, operation: &mut Operation, stdout: &[u8]) {
        match self.target.data.listed.names_in_listing(stdout) {
            Ok(records) => operation.records = Some(self.target.record_names(records)),
            Err(why) => operation.outcome = Outcome::Failed(format!("exit 0, but it printed {why}")),
        }
    }

    /// Returns the program of a request, its arguments, and its working directory.
    fn render(&self, request: &Request, values: &Values) -> (PathBuf, Vec<OsString>, PathBuf) {
        // An operation that the target lacks is never requested.
        let command = self.command(request).unwrap_or(&self.target.ops.add);
        let (program, arguments) = command.render(values, &self.target.folder);
        (program, arguments, self.cwd(values))
    }

    fn cwd(&self, values: &Values) -> PathBuf {
        match &self.target.cwd {
            Some(cwd) => self.target.folder.join(cwd.render(values)),
            None => self.target.folder.clone(),
        }
    }

    /// Returns the environment of one operation in addition to the caller's.
    fn environment(&self, values: &Values) -> Vec<(OsString, OsString)> {
        let own = [("TMPDIR".into(), self.sandbox.tmp().into_os_string())];
        own.into_iter()
            .chain(self.target.env.iter().map(|(key, value)| (key.into(), value.render(values))))
            .collect()
    }

    /// Returns the message of an operation; some programs report errors on standard output.
    fn said(&self, outcome: &Outcome, stdout: &[u8], stderr: &[u8]) -> String {
        let is_silent = stderr.is_empty() && matches!(outcome, Outcome::Failed(_));
        self.printable(if is_silent { stdout } else { stderr })
    }

    /// Formats the end of an output as one line of text, without the location of the sandbox.
    fn printable(&self, bytes: &[u8]) -> String {
        let text = String::from_utf8_lossy(bytes)
            .replace(&*self.sandbox.dir().to_string_lossy(), "{dir}")
            .replace(&*self.sandbox.tmp().to_string_lossy(), TEMPORARY);
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let skipped = line.chars().count().saturating_sub(STDERR_CHARACTERS);
        let mut shown: String = line.chars().skip(skipped).flat_map(char::escape_debug).collect();
        // `escape_debug` is for literals: quotes need no escape here.
        shown = shown.replace("\\'", "'").replace("\\\"", "\"");
        if skipped > 0 { format!("…{shown}") } else { shown }
    }

    /// Returns the outcome; an operation that failed because a file reached its size limit counts as unfinished.
    fn outcome_or_limit(&self, ended: &Ended) -> Outcome {
        let outcome = self.outcome(ended);
        let is_failure = matches!(outcome, Outcome::Failed(_));
        if is_failure && self.sandbox.largest_file() >= self.target.limits.file {
            return Outcome::Unfinished(Limit::File);
        }
        outcome
    }

    fn outcome(&self, ended: &Ended) -> Outcome {
        match &ended.end {
            process::End::Killed => Outcome::Killed,
            process::End::Hung => Outcome::Stuck,
            process::End::Limit(limit) => Outcome::Unfinished(*limit),
            process::End::Exited(0) => Outcome::Acknowledged,
            process::End::Exited(status) if self.target.exit.refused.contains(status) => Outcome::Refused,
            process::End::Exited(status) if self.target.exit.busy.contains(status) => Outcome::Busy,
            process::End::Exited(status) => Outcome::Failed(format!("exit {status}")),
            // The kernel sends this signal if a file would grow past its limit.
            process::End::Signalled(process::SIGXFSZ) => Outcome::Unfinished(Limit::File),
            process::End::Signalled(signal) => {
                Outcome::Failed(format!("signal {}", process::signal_name(*signal)))
            }
        }
    }

    /// Returns what the judges know before the control has run.
    fn subject(&self) -> Subject {
        Subject {
            transparent: self.target.data.format != crate::target::Format::Opaque,
            timeout: nanos(self.target.limits.timeout),
            data: self.target.data.path.display().to_string(),
            maps_statuses: !self.target.exit.refused.is_empty() || !self.target.exit.busy.is_empty(),
            paths_hold_ids: self.target.ops.add.paths_hold_id(),
            limit: self.target.limit_of_plain_add(),
            guarded_limit: self
                .target
                .guard
                .as_ref()
                .filter(|guard| guard.add.is_some())
                .map(|guard| guard.limit),
            ..Subject::default()
        }
    }
}

impl Drop for ExecEnv<'_> {
    fn drop(&mut self) {
        self.end_survivors();
    }
}

/// Returns the program of a command, for messages.
fn program_of(command: &Command, folder: &Path) -> PathBuf {
    command.render(&Values::default(), folder).0
}

/// Returns the name of an operation, without the record.
pub(crate) fn name_of(request: &Request) -> &str {
    match request {
        Request::Init => "init",
        Request::Add { .. } => "add",
        Request::AddGuarded { .. } => "guarded add",
        Request::List => "list",
        Request::Recover => "recover",
        Request::Rebuild => "rebuild",
        Request::Other(name) => name,
    }
}

fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}

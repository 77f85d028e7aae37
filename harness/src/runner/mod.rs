//! How scenarios are run: operations as processes, clients as threads; never what is correct.

mod control;
mod groups;
mod kill;
mod process;
mod reader;
mod stop;
mod stress;
mod touch;
mod trace;
mod waits;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::observation::Subject;
use crate::op::{ClientId, Limit, Nanos, Operation, Outcome, Request};
use crate::sandbox::Sandbox;
use crate::target::{Command, Target, Values};

pub use control::{Control, Timing, control};
pub use stop::Stop;
pub use stress::{Cut, Stress, stress};

use groups::Survivors;
use kill::Kill;
use process::{Ended, Invocation, Process};
pub use touch::Touches;
pub use trace::{TraceError, trace};

/// What is kept of standard error: enough for a message, from its end.
const STDERR_CHARACTERS: usize = 400;

/// What a scenario needs to run operations of one target in one sandbox.
pub struct Stage<'a> {
    /// The store under test.
    pub target: &'a Target,
    /// Where it works.
    pub sandbox: &'a Sandbox,
    /// Ends everything early.
    pub stop: &'a Stop,
    /// Past this, no operation is started.
    pub soft_end: Option<Instant>,
    /// Past this, operations are killed and nothing more is judged.
    pub hard_end: Option<Instant>,
    /// Told of every operation that ended, for progress.
    pub on_operation: &'a (dyn Fn() + Sync),
    environment: Vec<(OsString, OsString)>,
    survivors: Survivors,
}

/// Why a run cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Somebody asked for an end, or the hard end came.
    #[error("stopped")]
    Stopped,
    /// A process could not be started.
    #[error("cannot start {program:?}: {why}")]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// The sandbox could not be laid out.
    #[error("cannot lay out the sandbox {path:?}: {why}")]
    Sandbox {
        /// The sandbox.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// A call that the harness itself depends on failed.
    #[error("cannot {what}: {why}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        why: io::Error,
    },
}

impl RunError {
    fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |why| Self::System { what, why: why.into() }
    }
}

impl<'a> Stage<'a> {
    /// A stage without an end in time.
    pub fn new(
        target: &'a Target,
        sandbox: &'a Sandbox,
        stop: &'a Stop,
        on_operation: &'a (dyn Fn() + Sync),
    ) -> Self {
        let values = sandbox.values();
        let mut environment = vec![("TMPDIR".into(), sandbox.tmp().into_os_string())];
        environment.extend(target.env.iter().map(|(key, value)| (key.into(), value.render(&values))));
        Self {
            target,
            sandbox,
            stop,
            soft_end: None,
            hard_end: None,
            on_operation,
            environment,
            survivors: Survivors::default(),
        }
    }

    /// Lays the sandbox out for the next execution; whatever lives on from the last one is ended first.
    fn lay(&self) -> Result<(), RunError> {
        self.end_survivors();
        self.sandbox.lay().map_err(|why| RunError::Sandbox { path: self.sandbox.dir(), why })
    }

    /// Ends every process that outlived its operation.
    pub fn end_survivors(&self) {
        self.survivors.end();
    }

    /// How many operations left processes behind that outlived them.
    pub fn operations_with_survivors(&self) -> u64 {
        self.survivors.operations()
    }

    /// Whether no further operation should be started.
    fn is_over(&self) -> bool {
        self.stop.is_requested() || self.soft_end.is_some_and(|end| Instant::now() >= end)
    }

    fn command(&self, request: &Request) -> Option<&'a Command> {
        let ops = &self.target.ops;
        match request {
            Request::Init => ops.init.as_ref(),
            Request::Add { .. } => Some(&ops.add),
            Request::List => ops.list.as_ref(),
            Request::Recover => ops.recover.as_ref(),
            Request::Other(name) => ops.other.get(name),
        }
    }

    /// Runs one operation to its end. `clock` is when the execution began; `kill` when it is killed, if it lives that
    /// long; `on_late` is called when it is past its time limit, just before it is killed for that.
    fn operate(
        &self,
        client: ClientId,
        request: Request,
        clock: Instant,
        kill: Option<Kill<'_>>,
        on_late: &dyn Fn(),
        on_start: &dyn Fn(Process),
    ) -> Result<Operation, RunError> {
        let (id, n) = match &request {
            Request::Add { record, number } => (record.clone(), *number),
            _ => (String::new(), 0),
        };
        let values = Values { id, n, client, ..self.sandbox.values() };
        let (program, arguments, cwd) = self.render(&request, &values);
        let invocation = Invocation {
            program: &program,
            arguments: &arguments,
            cwd: &cwd,
            environment: &self.environment,
        };
        let ended = process::run(
            &invocation,
            &self.target.limits,
            process::Interference { kill, hard_end: self.hard_end, stop: self.stop, on_late, on_start },
        )?;
        if ended.has_survivors {
            self.survivors.add(ended.group, self.target.limits.processes);
        }
        (self.on_operation)();
        let mut operation = Operation {
            client,
            outcome: self.outcome(&ended),
            invoked: nanos(ended.invoked.duration_since(clock)),
            returned: nanos(ended.returned.duration_since(clock)),
            stderr: self.printable(&ended.stderr),
            records: None,
            request,
        };
        if operation.request == Request::List && operation.outcome == Outcome::Acknowledged {
            match self.target.data.listed.names_in_listing(&ended.stdout) {
                Ok(records) => operation.records = Some(records),
                Err(why) => operation.outcome = Outcome::Failed(format!("exit 0, but it printed {why}")),
            }
        }
        Ok(operation)
    }

    /// The program of a request, its arguments, and the folder that it runs in.
    fn render(&self, request: &Request, values: &Values) -> (PathBuf, Vec<OsString>, PathBuf) {
        // What the target does not have is never asked for.
        let command = self.command(request).unwrap_or(&self.target.ops.add);
        let (program, arguments) = command.render(values, &self.target.folder);
        let cwd = match &self.target.cwd {
            Some(cwd) => self.target.folder.join(cwd.render(values)),
            None => self.target.folder.clone(),
        };
        (program, arguments, cwd)
    }

    /// The end of what was written, as one line of text; where the sandbox was is of no interest.
    fn printable(&self, bytes: &[u8]) -> String {
        let text = String::from_utf8_lossy(bytes).replace(&*self.sandbox.dir().to_string_lossy(), "{dir}");
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let skipped = line.chars().count().saturating_sub(STDERR_CHARACTERS);
        let mut shown: String = line.chars().skip(skipped).flat_map(char::escape_debug).collect();
        // `escape_debug` is for literals: quotes need no escape here.
        shown = shown.replace("\\'", "'").replace("\\\"", "\"");
        if skipped > 0 { format!("…{shown}") } else { shown }
    }

    fn outcome(&self, ended: &Ended) -> Outcome {
        match &ended.end {
            process::End::Killed => Outcome::Killed,
            process::End::Limit(limit) => Outcome::Unfinished(*limit),
            process::End::Exited(0) => Outcome::Acknowledged,
            process::End::Exited(status) if self.target.exit.refused.contains(status) => Outcome::Refused,
            process::End::Exited(status) if self.target.exit.busy.contains(status) => Outcome::Busy,
            process::End::Exited(status) => Outcome::Failed(format!("exit {status}")),
            // The kernel's own way to say that a file would grow past its limit.
            process::End::Signalled(process::SIGXFSZ) => Outcome::Unfinished(Limit::File),
            process::End::Signalled(signal) => {
                Outcome::Failed(format!("signal {}", process::signal_name(*signal)))
            }
        }
    }

    /// What the judges know before the control has run.
    fn subject(&self) -> Subject {
        Subject {
            transparent: self.target.data.format != crate::target::Format::Opaque,
            timeout: nanos(self.target.limits.timeout),
            ..Subject::default()
        }
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        self.end_survivors();
    }
}

/// The program that a message can call by.
fn program_of(command: &Command, folder: &Path) -> PathBuf {
    command.render(&Values::default(), folder).0
}

fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}

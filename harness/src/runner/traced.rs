//! Runs operations under the tracer.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::call::Traced;
use crate::observation::{FileState, Memory};
use crate::op::{ClientId, Operation, Request};
use crate::runner::direct::ScriptInjector;
use crate::runner::session::SessionDriver;
use crate::runner::{ExecEnv, RunError};
use crate::sandbox::read;
use crate::scenario::script::{Step, clients_of};
use crate::target::{Format, Values};
use crate::tracer::TracerError;
use crate::tracer::{self, Director, Surroundings, Templates, Traceable};

/// Maximum number of operations traced at once.
const TURN: u32 = 64;

/// Why there is no trace of an operation.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The harness could not do its part.
    #[error("{0}")]
    Run(#[from] RunError),
    /// The tracer failed.
    #[error("{0}")]
    Tracer(#[from] TracerError),
    /// A preceding operation failed.
    #[error("{0} did not succeed, which comes before the operation that is traced; it said: {1}")]
    Before(String, String),
}

/// How operations are traced.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct How {
    pub(super) is_detailed: bool,
    /// Whether the injector talks with a client.
    pub(super) is_interactive: bool,
    /// Whether the injector schedules the clients.
    pub(super) is_scheduled: bool,
    /// Whether torn reads are not checked, because the data file may not exist yet.
    pub(super) is_unread: bool,
    /// Index of the first operation among those of the execution.
    pub(super) turn: u32,
    pub(super) may_copy: bool,
    /// Replaces the target's time limit, if it is shorter.
    pub(super) timeout: Option<Duration>,
    /// How far the clock is ahead, because sleeps were skipped before.
    pub(super) ahead: Duration,
}

impl How {
    /// Enables scheduling of the clients.
    pub(super) fn scheduled(self) -> Self {
        Self { is_scheduled: true, ..self }
    }
}

/// Result of sessions that were led through their steps.
pub(super) struct Led {
    pub(super) traced: Traced,
    pub(super) operations: Vec<Operation>,
    pub(super) memories: Vec<Memory>,
    /// Index of the first visible call of each step among those of the session, if it made any.
    pub(super) first_calls: Vec<Option<u32>>,
    pub(super) was_held: bool,
    /// Number of sessions.
    pub(super) sessions: u32,
    /// The concurrent one-shot operations, in the order of their start.
    pub(super) one_shots: Vec<Request>,
}

impl ExecEnv<'_> {
    /// Traces one baseline operation in the current sandbox.
    pub(super) fn trace_quietly(&self, request: &Request) -> Result<Traced, TraceError> {
        self.trace(
            std::slice::from_ref(request),
            &mut ScriptInjector::new(None),
            How { is_detailed: true, ..How::default() },
        )
    }

    /// The same as a copy of a template; `None` if this target is not copied.
    pub(super) fn trace_copy(
        &self,
        request: &Request,
        timeout: Duration,
    ) -> Result<Option<Traced>, TraceError> {
        let how = How { is_detailed: true, may_copy: true, timeout: Some(timeout), ..How::default() };
        let traced = self.trace(std::slice::from_ref(request), &mut ScriptInjector::new(None), how)?;
        Ok(Some(traced).filter(|traced| traced.has_copies))
    }

    /// Whether operations run as copies.
    pub(super) fn copies(&self) -> bool {
        self.with_templates(|templates| templates.refused().is_none()).unwrap_or(false)
    }

    /// Makes no more copies from now on, for this reason.
    pub(super) fn refuse_copies(&self, why: &str) {
        self.with_templates(|templates| templates.refuse(why));
    }

    pub(crate) fn with_templates<T>(&self, what: impl FnOnce(&mut Templates) -> T) -> Option<T> {
        let templates = self.templates.as_ref()?;
        Some(what(&mut templates.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Traces operations in the current sandbox, with `injection` as the only disturbance.
    pub(super) fn trace(
        &self,
        requests: &[Request],
        directing: &mut ScriptInjector<'_>,
        how: How,
    ) -> Result<Traced, TraceError> {
        let asked: Vec<(ClientId, Request)> = (1..).zip(requests.iter().cloned()).collect();
        self.trace_of(&asked, directing, how)
    }

    /// The same for requests of these clients, controlled by a director.
    pub(super) fn trace_of(
        &self,
        asked: &[(ClientId, Request)],
        director: &mut dyn Director,
        how: How,
    ) -> Result<Traced, TraceError> {
        let rendered: Vec<_> = asked
            .iter()
            .map(|(client, request)| {
                let client = *client;
                let values = self.values(client, request);
                (self.render(request, &values), self.environment(&values))
            })
            .collect();
        let traceables: Vec<Traceable<'_>> = (0..)
            .zip(&rendered)
            .map(|(place, ((program, arguments, cwd), environment))| Traceable {
                program,
                arguments,
                cwd,
                environment,
                stdin: None,
                stdout: None,
                // Two equal operations that run at once are never copies of the same process.
                turn: how.turn * TURN + place,
                file_max: self.target.limits.file,
            })
            .collect();
        let mut traced = self.run_traced(&traceables, director, how)?;
        let set_uid = traceables.iter().find(|traceable| is_set_uid(traceable.program));
        traced.not_covered.extend(set_uid.map(|traceable| {
            let program = traceable.program.display();
            format!("{program} is set-uid, and runs without its privilege under the tracer")
        }));
        Ok(traced)
    }

    /// Leads sessions through these steps, with concurrent one-shot operations, and returns their operations and what
    /// they believed. The sessions are the first clients, one-shot operations the next, in the order of their start.
    pub(super) fn trace_session(&self, steps: &[Step]) -> Result<Option<Led>, TraceError> {
        let Some(session) = &self.target.session else { return Ok(None) };
        let (sessions, one_shots) = clients_of(steps);
        let mut rendered = Vec::new();
        let (mut stdins, mut inputs, mut stdouts) = (Vec::new(), Vec::new(), Vec::new());
        for client in 1..=sessions {
            let values = Values { client, ..self.sandbox.values() };
            let (program, arguments) = session.command.render(&values, &self.target.folder);
            rendered.push(((program, arguments, self.cwd(&values)), self.environment(&values)));
            let (stdin, input) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
                .map_err(RunError::system("make the input of a session"))?;
            stdins.push(File::from(stdin));
            inputs.push(File::from(input));
            stdouts.push(tempfile::tempfile().map_err(RunError::system("make a file for the output"))?);
        }
        for (client, request) in (sessions + 1..).zip(&one_shots) {
            let values = self.values(client, request);
            rendered.push((self.render(request, &values), self.environment(&values)));
        }
        let traceables: Vec<Traceable<'_>> = rendered
            .iter()
            .enumerate()
            .map(|(index, ((program, arguments, cwd), environment))| Traceable {
                program,
                arguments,
                cwd,
                environment,
                stdin: stdins.get(index),
                stdout: stdouts.get(index),
                turn: u32::try_from(index).unwrap_or(u32::MAX),
                file_max: self.target.limits.file,
            })
            .collect();
        let how = How { is_interactive: true, ..How::default() };
        let mut leading = SessionDriver::new(steps, inputs, &stdouts);
        let traced = self.run_traced(&traceables, &mut leading, how)?;
        let first_calls = leading.firsts.clone();
        let was_held = leading.was_held;
        let ends = traced.operations.iter().take(sessions as usize);
        let ends: Vec<_> = ends.map(|ended| (ended, self.printable(&ended.stderr))).collect();
        let (operations, memories) = leading.into_operations(&ends);
        let one_shots = one_shots.into_iter().cloned().collect();
        Ok(Some(Led { traced, operations, memories, first_calls, was_held, sessions, one_shots }))
    }

    fn run_traced(
        &self,
        traceables: &[Traceable<'_>],
        director: &mut dyn Director,
        how: How,
    ) -> Result<Traced, TraceError> {
        if self.is_cut() {
            return Err(RunError::Stopped.into());
        }
        let timeout = how.timeout.unwrap_or(self.target.limits.timeout).min(self.target.limits.timeout);
        let (data, format) = (self.sandbox.data(), self.target.data.format);
        // The store's first record was acknowledged: from then on the file must exist and be whole.
        let reader = || match read(&data, format).1 {
            FileState::Whole => None,
            FileState::Missing => Some("no data file".to_owned()),
            FileState::Empty => Some("an empty data file".to_owned()),
            FileState::Broken(why) => Some(format!("a broken data file: {why}")),
        };
        let can_read = format != Format::Opaque;
        let surroundings = Surroundings {
            sandbox: &self.sandbox.dir(),
            temporary: &self.sandbox.tmp(),
            timeout,
            end: self.hard_end,
            ahead: how.ahead,
            is_alone: traceables.len() == 1 && self.survivors.are_none(),
            stop: Some(self.stop.as_fd()),
            is_detailed: how.is_detailed,
            templates: self.templates.as_ref().filter(|_| how.may_copy),
            reader: (can_read && !how.is_unread).then_some(&reader),
            shown: self.shows_content.then(|| self.sandbox.data()),
            is_interactive: how.is_interactive,
            is_scheduled: how.is_scheduled,
        };
        let began = Instant::now();
        let traced = tracer::run(&surroundings, traceables, director)?;
        // An execution that was cut short is no evidence: it may have been waiting for nothing.
        if self.is_cut() { Err(self.cut(began).into()) } else { Ok(traced) }
    }

    pub(super) fn values(&self, client: ClientId, request: &Request) -> Values {
        let (id, n) = match request {
            Request::Add { record, number } | Request::AddGuarded { record, number } => {
                (record.clone(), *number)
            }
            _ => (String::new(), 0),
        };
        Values { id, n, client, ..self.sandbox.values() }
    }
}

/// Whether a program is set-user-ID or set-group-ID.
fn is_set_uid(program: &Path) -> bool {
    let mode = std::fs::metadata(program).map_or(0, |metadata| metadata.permissions().mode());
    mode & 0o6000 != 0
}

/// Traces a baseline run of one operation, on a store that holds its first record; of `init`, in an empty sandbox.
///
/// # Errors
/// If a preceding operation failed, or it cannot be traced.
pub fn trace(env: &ExecEnv<'_>, request: &Request) -> Result<Traced, TraceError> {
    if *request == Request::Init {
        env.lay()?;
    } else {
        env.first()?;
    }
    env.trace_quietly(request)
}

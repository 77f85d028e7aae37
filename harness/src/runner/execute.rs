//! Plays a script: one execution, from a fresh sandbox with the store's first record to an observation.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::call::{Argument, Call, End, Ended, Errno, Stuck, Traced};
use crate::explore::Explorer;
use crate::fault::{Fault, What};
use crate::observation::{
    FileState, Holder, Memory, Observation, Readings, Standstill, State, Subject, Trace, Waiting, WantedLock,
};
use crate::op::{ClientId, Limit, Nanos, Operation, Outcome, Request};
use crate::persist::{Log, Tree};
use crate::runner::direct::Directing;
use crate::runner::schedule::{Following, Scheduled};
use crate::runner::session::Leading;
use crate::runner::{RunError, Stage, nanos};
use crate::sandbox::read;
use crate::scenario::crash::add;
use crate::scenario::fault::OF_A_DROPPED_SYNC;
use crate::scenario::power_loss::JUDGED_BY as POWER_LOSS;
use crate::scenario::script::{Act, Disturbance, Loss, Misfortune, Script, Step};
use crate::target::{Format, Values};
use crate::tracer::TracerError;
use crate::tracer::{self, Director, Surroundings, Templates, Traceable};

/// More operations are never traced at once.
const TURN: u32 = 64;
/// Torn readings of one execution that are kept.
const EXAMPLES_MAX: usize = 3;

/// Why there is no trace of an operation.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The harness could not do its part.
    #[error("{0}")]
    Run(#[from] RunError),
    /// The tracer could not.
    #[error("{0}")]
    Tracer(#[from] TracerError),
    /// What comes before did not work.
    #[error("{0} did not succeed, which comes before the operation that is traced; it said: {1}")]
    Before(String, String),
}

/// The store with its first record in it, as every script finds it.
#[derive(Clone, Debug)]
pub struct First {
    operation: Operation,
    state: State,
    /// Names of the files that quiet runs made since.
    pub(super) usual_names: BTreeSet<String>,
}

/// What playing a script came to.
#[derive(Debug)]
pub struct Played {
    /// What it showed.
    pub observation: Observation,
    /// What the traces say is not seen.
    pub not_covered: Vec<String>,
    /// Whether what was to be disturbed was.
    pub was_disturbed: bool,
    /// Whether a second client waited for the first.
    pub second_waited: bool,
    /// Whether any operation was a copy of a template.
    pub has_copies: bool,
}

impl Stage<'_> {
    /// Lets the store add its first record, and keeps what it left for every script to begin with.
    ///
    /// # Errors
    /// Where the store fails, or the harness cannot do its part.
    pub fn first(&self) -> Result<First, TraceError> {
        self.lay()?;
        let clock = Instant::now();
        if self.target.ops.init.is_some() && !self.sandbox.has_old() {
            self.succeed(Request::Init, clock)?;
        }
        let operation = self.succeed(add(1), clock)?;
        if self.target.ops.list.is_some() {
            // What a helper that lives on has still to do for it is done by then, as it was in the control.
            self.operate(1, Request::List, clock, None, &|| (), &|_| ())?;
        }
        self.end_survivors();
        let mut state = self.sandbox.look(self.target, nanos(clock.elapsed()));
        if self.target.ops.list.is_some() {
            // Before `list` the records may stand elsewhere.
            state.records = None;
        }
        self.sandbox.keep_as_first().map_err(RunError::system("keep the state with one record"))?;
        Ok(First { operation, state, usual_names: BTreeSet::new() })
    }

    /// Lets the store make itself, where it has an `init`, and keeps what that left for every execution to begin with.
    pub(super) fn init(&self) -> Result<(), TraceError> {
        self.lay()?;
        if self.target.ops.init.is_some() {
            self.succeed(Request::Init, Instant::now())?;
            self.end_survivors();
            self.sandbox.keep_as_old().map_err(RunError::system("keep what init left"))?;
        }
        Ok(())
    }

    fn succeed(&self, request: Request, clock: Instant) -> Result<Operation, TraceError> {
        let operation = self.operate(1, request, clock, None, &|| (), &|_| ())?;
        if operation.outcome != Outcome::Acknowledged {
            if self.is_cut() {
                return Err(RunError::Stopped.into());
            }
            return Err(TraceError::Before(operation.request.to_string(), operation.stderr));
        }
        Ok(operation)
    }

    pub(super) fn lay_first(&self) -> Result<(), RunError> {
        self.end_survivors();
        self.sandbox.lay_first().map_err(|why| RunError::Sandbox { path: self.sandbox.dir(), why })
    }

    /// Plays a script; where `may_copy`, its operations as copies of templates, where there are some.
    ///
    /// # Errors
    /// Where the harness could not do its part, may not trace, or the time is over.
    pub fn play(
        &self,
        scenario: &str,
        script: &Script,
        first: &First,
        subject: &Subject,
        execution: u32,
        may_copy: bool,
    ) -> Result<Played, TraceError> {
        self.lay_first()?;
        let mut playing = Playing::new(self, first, may_copy);
        for act in &script.acts {
            playing.act(act)?;
        }
        self.end_survivors();
        Ok(playing.into_observation(scenario, script, first, subject, execution))
    }

    /// Plays a script with clients on a schedule, which the explorer chooses.
    ///
    /// # Errors
    /// As [`Stage::play`].
    pub(super) fn play_explored(
        &self,
        scenario: &str,
        script: &Script,
        first: &First,
        subject: &Subject,
        execution: u32,
        explorer: &mut dyn Explorer,
    ) -> Result<(Option<Played>, Scheduled), TraceError> {
        self.lay_first()?;
        let mut playing = Playing::new(self, first, true);
        let mut scheduled = Scheduled::default();
        for act in &script.acts {
            match act {
                Act::Interleave(interleaving) => scheduled = playing.interleave(interleaving, explorer)?,
                other => playing.act(other)?,
            }
            if scheduled.was_abandoned {
                return Ok((None, scheduled));
            }
        }
        self.end_survivors();
        let mut script = script.clone();
        script.schedule(&scheduled.schedule);
        Ok((Some(playing.into_observation(scenario, &script, first, subject, execution)), scheduled))
    }

    /// Lays out what a kill or a power loss left, as derived from the calls of a quiet run, and asks the store what it
    /// makes of it.
    ///
    /// # Errors
    /// Where the harness could not do its part, or the time is over.
    pub fn play_state(
        &self,
        scenario: &str,
        tree: &Tree,
        script: &Script,
        first: &First,
        subject: &Subject,
        execution: u32,
    ) -> Result<Observation, TraceError> {
        self.end_survivors();
        self.sandbox.lay_tree(tree).map_err(|why| RunError::Sandbox { path: self.sandbox.dir(), why })?;
        let mut playing = Playing::new(self, first, true);
        for act in &script.acts {
            match act {
                Act::Trace { requests, .. } => playing.was_killed_then(requests),
                Act::Anew => {
                    playing.operations.clear();
                    playing.states.clear();
                }
                Act::PowerLoss { request, loss } => playing.lost_power_then(request, loss),
                other => playing.act(other)?,
            }
        }
        self.end_survivors();
        Ok(playing.into_observation(scenario, script, first, subject, execution).observation)
    }

    /// The derived files that two undisturbed rebuilds, a second apart, make differently.
    pub(super) fn unrepeatable(&self) -> Result<BTreeSet<String>, TraceError> {
        /// Longer than a second, which is what most dates are told in.
        const APART: Duration = Duration::from_millis(1100);
        self.lay_first()?;
        let clock = Instant::now();
        let rebuilt = || {
            self.operate(1, Request::Rebuild, clock, None, &|| (), &|_| ())?;
            Ok::<_, RunError>(self.sandbox.look(self.target, nanos(clock.elapsed())).derived)
        };
        let one = rebuilt()?;
        std::thread::sleep(APART);
        let other = rebuilt()?;
        Ok(one
            .into_iter()
            .filter(|(name, digest)| other.get(name) != Some(digest))
            .map(|(name, _)| name)
            .collect())
    }

    /// Traces one operation, undisturbed, in the sandbox as it stands.
    pub(super) fn trace_quietly(&self, request: &Request) -> Result<Traced, TraceError> {
        self.trace(
            std::slice::from_ref(request),
            &mut Directing::new(None),
            How { is_detailed: true, ..How::default() },
        )
    }

    /// The same as a copy of a template; nothing where this target is not copied.
    pub(super) fn trace_copy(
        &self,
        request: &Request,
        timeout: Duration,
    ) -> Result<Option<Traced>, TraceError> {
        let how = How { is_detailed: true, may_copy: true, timeout: Some(timeout), ..How::default() };
        let traced = self.trace(std::slice::from_ref(request), &mut Directing::new(None), how)?;
        Ok(Some(traced).filter(|traced| traced.has_copies))
    }

    /// Whether operations are run as copies.
    pub(super) fn copies(&self) -> bool {
        self.with_templates(|templates| templates.refused().is_none()).unwrap_or(false)
    }

    /// No copies are made from now on, for this reason.
    pub(super) fn refuse_copies(&self, why: &str) {
        self.with_templates(|templates| templates.refuse(why));
    }

    pub(crate) fn with_templates<T>(&self, what: impl FnOnce(&mut Templates) -> T) -> Option<T> {
        let templates = self.templates.as_ref()?;
        Some(what(&mut templates.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Traces operations, undisturbed but for `disturbance`, in the sandbox as it stands.
    pub(super) fn trace(
        &self,
        requests: &[Request],
        directing: &mut Directing<'_>,
        how: How,
    ) -> Result<Traced, TraceError> {
        let asked: Vec<(ClientId, Request)> = (1..).zip(requests.iter().cloned()).collect();
        self.trace_of(&asked, directing, how)
    }

    /// The same for requests of these clients, as a director wants it.
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
                // Two that are asked the same at once are never copies of one.
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

    /// Leads a session through these steps: the operations that it was asked, and what it believed.
    pub(super) fn trace_session(&self, steps: &[Step]) -> Result<Option<Led>, TraceError> {
        let Some(session) = &self.target.session else { return Ok(None) };
        let values = Values { client: 1, ..self.sandbox.values() };
        let (program, arguments) = session.command.render(&values, &self.target.folder);
        let environment = self.environment(&values);
        let cwd = self.cwd(&values);
        let (stdin, input) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(RunError::system("make the input of a session"))?;
        let (stdin, input) = (File::from(stdin), File::from(input));
        let stdout = tempfile::tempfile().map_err(RunError::system("make a file for the output"))?;
        let traceable = Traceable {
            program: &program,
            arguments: &arguments,
            cwd: &cwd,
            environment: &environment,
            stdin: Some(&stdin),
            stdout: Some(&stdout),
            turn: 0,
            file_max: self.target.limits.file,
        };
        let how = How { is_interactive: true, ..How::default() };
        let mut leading = Leading::new(steps, input, &stdout);
        let traced = self.run_traced(&[traceable], &mut leading, how)?;
        let first_calls = leading.firsts.clone();
        let was_held = leading.was_held;
        let (operations, memories) = match traced.operations.first() {
            Some(ended) => leading.into_operations(ended, &self.printable(&ended.stderr)),
            None => Default::default(),
        };
        Ok(Some(Led { traced, operations, memories, first_calls, was_held }))
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
        // The store's first record was acknowledged: from then on the file is there and whole.
        let reader = || match read(&data, format).1 {
            FileState::Whole => None,
            FileState::Missing => Some("no data file".to_owned()),
            FileState::Empty => Some("an empty data file".to_owned()),
            FileState::Broken(why) => Some(format!("a broken data file: {why}")),
        };
        let can_read = format != Format::Opaque;
        let surroundings = Surroundings {
            sandbox: &self.sandbox.dir(),
            timeout: self
                .hard_end
                .map_or(timeout, |end| timeout.min(end.saturating_duration_since(Instant::now()))),
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
        // What was cut short tells nothing, but that it may have waited for nobody.
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

pub(super) struct Playing<'a> {
    pub(super) stage: &'a Stage<'a>,
    clock: Instant,
    /// What the first operation took: the execution's time goes on from there.
    offset: Duration,
    pub(super) operations: Vec<Operation>,
    states: Vec<State>,
    pub(super) traces: Vec<Trace>,
    memories: Vec<Memory>,
    only_for: BTreeSet<String>,
    power_losses: Vec<Nanos>,
    source_was_damaged: bool,
    readings: Readings,
    standstill: Option<Standstill>,
    not_covered: Vec<String>,
    pub(super) was_disturbed: bool,
    second_waited: bool,
    /// Whether the last act killed an operation.
    pub(super) was_just_killed: bool,
    /// How many operations there were.
    pub(super) turn: u32,
    /// Whether operations may be run as copies.
    may_copy: bool,
    pub(super) has_copies: bool,
    /// Whether the store has acknowledged a record: from then on its data is there and whole.
    has_data: bool,
}

/// How operations are traced.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct How {
    is_detailed: bool,
    /// Whether the director talks with a client.
    is_interactive: bool,
    /// Whether the director schedules the clients.
    is_scheduled: bool,
    /// Whether nobody looks at the data meanwhile, since there may be none.
    is_unread: bool,
    /// The place of the first among the operations of the execution.
    pub(super) turn: u32,
    may_copy: bool,
    /// Instead of the target's.
    timeout: Option<Duration>,
}

impl How {
    /// With clients on a schedule.
    pub(super) fn scheduled(self) -> Self {
        Self { is_scheduled: true, ..self }
    }
}

impl<'a> Playing<'a> {
    fn new(stage: &'a Stage<'a>, first: &First, may_copy: bool) -> Self {
        Self {
            stage,
            clock: Instant::now(),
            offset: Duration::from_nanos(first.state.at + 1),
            operations: vec![first.operation.clone()],
            states: vec![first.state.clone()],
            traces: Vec::new(),
            memories: Vec::new(),
            only_for: BTreeSet::new(),
            power_losses: Vec::new(),
            source_was_damaged: false,
            readings: Readings::default(),
            standstill: None,
            not_covered: Vec::new(),
            was_disturbed: false,
            second_waited: false,
            was_just_killed: false,
            turn: 0,
            may_copy,
            has_copies: false,
            has_data: true,
        }
    }

    fn into_observation(
        self,
        scenario: &str,
        script: &Script,
        first: &First,
        subject: &Subject,
        execution: u32,
    ) -> Played {
        let mut operations = self.operations;
        operations.sort_by_key(|operation| operation.invoked);
        Played {
            observation: Observation {
                scenario: scenario.to_owned(),
                execution,
                subject: subject.clone(),
                operations,
                readings: self.readings,
                states: self.states,
                standstill: self.standstill,
                disturbance: script.told(),
                traces: self.traces,
                memories: self.memories,
                only_for: self.only_for,
                power_losses: self.power_losses,
                source_was_damaged: self.source_was_damaged,
                usual_names: first.usual_names.clone(),
            },
            not_covered: self.not_covered,
            was_disturbed: self.was_disturbed,
            second_waited: self.second_waited,
            has_copies: self.has_copies,
        }
    }

    /// The first of these requests was killed, and what it left was laid out.
    fn was_killed_then(&mut self, requests: &[Request]) {
        let now = nanos(self.now());
        self.was_just_killed = true;
        self.operations.extend(requests.first().map(|request| Operation {
            client: 1,
            request: request.clone(),
            invoked: now,
            returned: now + 1,
            still: None,
            fault: None,
            outcome: Outcome::Killed,
            stderr: String::new(),
            records: None,
        }));
    }

    /// This request was answered, or not any more, when the power was lost, and what is left was laid out.
    fn lost_power_then(&mut self, request: &Request, loss: &Loss) {
        let now = nanos(self.now());
        self.operations.push(Operation {
            client: 1,
            request: request.clone(),
            invoked: now,
            returned: now + 1,
            still: None,
            fault: None,
            outcome: if loss.is_after_end { Outcome::Acknowledged } else { Outcome::Killed },
            stderr: String::new(),
            records: None,
        });
        self.power_is_lost_at(now + 2);
    }

    fn power_is_lost_at(&mut self, at: Nanos) {
        self.power_losses.push(at);
        self.was_just_killed = true;
        self.only_for = POWER_LOSS.map(ToOwned::to_owned).into();
        // What comes after it is later.
        self.offset += Duration::from_nanos(at.saturating_sub(nanos(self.now())) + 1);
    }

    /// An operation, undisturbed but for the end of it, and what is left of what it did.
    fn lose_power(&mut self, request: &Request, loss: &Loss) -> Result<(), TraceError> {
        let before = self.stage.sandbox.tree().map_err(RunError::system("read the sandbox"))?;
        let began = self.now();
        let traced = self.stage.trace_quietly(request)?;
        self.turn += 1;
        (self.stage.on_operation)();
        let Some(ended) = traced.operations.first() else { return Err(RunError::Stopped.into()) };
        let mut operation = self.operation(ended, request.clone(), began, false);
        if loss.is_after_end {
            // What lives on was ended by the power: the answer was heard before.
            operation.outcome = outcome(self.stage, ended.end);
        } else {
            operation.outcome = Outcome::Killed;
            operation.records = None;
        }
        self.operations.push(operation);
        let log = Log::record(&before, &traced.calls);
        self.stage.end_survivors();
        if let Ok(log) = log {
            let lost: Vec<usize> = loss.lost.iter().filter_map(|lost| usize::try_from(*lost).ok()).collect();
            let is_there = lost.iter().all(|lost| *lost < log.len());
            let after = usize::try_from(loss.after).unwrap_or(usize::MAX);
            self.was_disturbed |= is_there && after <= log.calls();
            let tree = log.remaining(after, &lost);
            let dir = self.stage.sandbox.dir();
            self.stage.sandbox.lay_tree(&tree).map_err(|why| RunError::Sandbox { path: dir, why })?;
        }
        self.keep(vec![request.clone()], traced, true, began);
        let now = nanos(self.now());
        self.power_is_lost_at(now);
        Ok(())
    }

    pub(super) fn now(&self) -> Duration {
        self.offset + self.clock.elapsed()
    }

    fn act(&mut self, act: &Act) -> Result<(), TraceError> {
        match act {
            Act::Look => self.look(false),
            Act::Damage { file, damage } => {
                self.stage
                    .sandbox
                    .change(file, |content| damage.of(content))
                    .map_err(RunError::system("damage a file"))?;
                self.was_disturbed = true;
                self.look(false);
                self.only_for = BTreeSet::from(["derived-heals".to_owned()]);
                self.source_was_damaged |= Path::new(file) == self.stage.target.data.path;
            }
            Act::Operate(request) => {
                self.operate(request.clone())?;
                self.look(false);
            }
            Act::OperateAs { client, request } => {
                self.operate_as(*client, request.clone())?;
                self.look(false);
            }
            Act::Recover => {
                if self.was_just_killed && self.stage.target.ops.recover.is_some() {
                    self.operate(Request::Recover)?;
                    self.look(false);
                }
            }
            Act::List => {
                let has_list = self.stage.target.ops.list.is_some();
                if !has_list || self.operate(Request::List)? == Outcome::Acknowledged {
                    self.look(true);
                }
            }
            Act::Trace { requests, disturbance } => self.trace(requests, disturbance.as_ref())?,
            Act::Anew => {
                self.stage.lay()?;
                self.operations.clear();
                self.states.clear();
                self.has_data = false;
            }
            Act::Interleave(interleaving) => {
                self.interleave(interleaving, &mut Following::new(&interleaving.schedule))?;
            }
            Act::PowerLoss { request, loss } => self.lose_power(request, loss)?,
            Act::Session { steps } => self.session(steps)?,
        }
        Ok(())
    }

    pub(super) fn how(&self) -> How {
        How { turn: self.turn, may_copy: self.may_copy, is_unread: !self.has_data, ..How::default() }
    }

    fn operate(&mut self, request: Request) -> Result<Outcome, TraceError> {
        self.operate_as(1, request)
    }

    /// One operation, undisturbed: as a copy of a template where there may be some, since that is quicker.
    fn operate_as(&mut self, client: ClientId, request: Request) -> Result<Outcome, TraceError> {
        if self.may_copy && self.stage.copies() {
            return self.operate_copy(client, request);
        }
        let began = self.now();
        let clock = Instant::now();
        let mut operation = self.stage.operate(client, request, clock, None, &|| (), &|_| ())?;
        operation.invoked += nanos(began);
        operation.returned += nanos(began);
        let outcome = operation.outcome.clone();
        self.operations.push(operation);
        if self.stage.is_cut() { Err(self.stage.cut(clock).into()) } else { Ok(outcome) }
    }

    fn operate_copy(&mut self, client: ClientId, request: Request) -> Result<Outcome, TraceError> {
        let began = self.now();
        let asked = [(client, request)];
        let traced = self.stage.trace_of(&asked, &mut Directing::new(None), self.how())?;
        self.has_copies |= traced.has_copies;
        self.turn += 1;
        (self.stage.on_operation)();
        let [(_, request)] = asked;
        let Some(ended) = traced.operations.first() else { return Err(RunError::Stopped.into()) };
        let mut operation = self.operation(ended, request, began, false);
        operation.client = client;
        if let Some(standstill) = standstill(&traced.stuck) {
            self.standstill.get_or_insert(standstill);
        }
        let outcome = operation.outcome.clone();
        self.operations.push(operation);
        Ok(outcome)
    }

    /// Looks at the files. Only after `list` do the records have to stand where the target says.
    pub(super) fn look(&mut self, is_after_list: bool) {
        let mut state = self.stage.sandbox.look(self.stage.target, nanos(self.now()));
        if self.stage.target.ops.list.is_some() && !is_after_list {
            state.records = None;
        }
        self.states.push(state);
    }

    fn trace(&mut self, requests: &[Request], disturbance: Option<&Disturbance>) -> Result<(), TraceError> {
        let began = self.now();
        let mut directing = Directing::new(disturbance);
        let fault = disturbance.and_then(Disturbance::fault);
        // What a sync drops that fails is found in the details of the calls.
        let synced = fault.filter(|fault| fault.is_of_sync());
        let before = synced.and_then(|_| self.stage.sandbox.tree().ok());
        let how = How { is_detailed: synced.is_some(), ..self.how() };
        let traced = self.stage.trace(requests, &mut directing, how)?;
        self.has_copies |= traced.has_copies;
        self.turn += 1;
        self.was_disturbed |= match fault {
            Some(fault) => directing.has_failed && came_short(fault, &traced.calls),
            None => disturbance.is_none() || directing.is_done,
        };
        self.second_waited |= directing.second_waited;
        self.was_just_killed = false;
        let partly = disturbance.is_some_and(|disturbance| disturbance.what == Misfortune::KillProcess);
        for ended in &traced.operations {
            let Some(request) = index(ended.client).and_then(|index| requests.get(index)) else { continue };
            let mut operation = self.operation(ended, request.clone(), began, partly && ended.client == 1);
            let suffered = directing.has_failed && ended.client == 1;
            if let Some(fault) = fault.filter(|fault| suffered && came_short(fault, &traced.calls)) {
                operation.fault = Some(fault.id.to_owned());
                // The limit that it came to is not the target's.
                if operation.outcome == Outcome::Unfinished(Limit::File) {
                    operation.outcome = Outcome::Failed("signal SIGXFSZ".to_owned());
                }
            }
            self.was_just_killed |= operation.outcome == Outcome::Killed;
            self.operations.push(operation);
            (self.stage.on_operation)();
        }
        let is_acknowledged =
            self.operations.last().is_some_and(|last| last.outcome == Outcome::Acknowledged);
        if let Some(before) = before.filter(|_| is_acknowledged) {
            self.drop_unsynced(&before, &traced.calls)?;
        }
        self.keep(requests.to_vec(), traced, disturbance.is_none(), began);
        self.look(false);
        Ok(())
    }

    /// After a sync that failed the kernel takes what it was to write for written: a power loss shows that it is not.
    fn drop_unsynced(&mut self, before: &Tree, calls: &[Call]) -> Result<(), TraceError> {
        let log = match Log::record(before, calls) {
            Ok(log) => log,
            Err(unmodelled) => {
                let text = format!("what a failed sync drops is not derived: {unmodelled}");
                self.not_covered.push(text);
                return Ok(());
            }
        };
        let dropped: Vec<usize> = log.dropped().collect();
        if !dropped.is_empty() {
            self.stage.end_survivors();
            let dir = self.stage.sandbox.dir();
            let left = log.remaining(log.calls(), &dropped);
            self.stage.sandbox.lay_tree(&left).map_err(|why| RunError::Sandbox { path: dir, why })?;
            self.only_for = BTreeSet::from([OF_A_DROPPED_SYNC.to_owned()]);
            // The power was lost: a store that has a `recover` is to be asked that first.
            self.was_just_killed = true;
        }
        Ok(())
    }

    pub(super) fn keep(&mut self, requests: Vec<Request>, traced: Traced, is_whole: bool, began: Duration) {
        if let Some(standstill) = standstill(&traced.stuck) {
            self.standstill.get_or_insert(standstill);
        }
        self.readings.taken += traced.readings;
        self.readings.torn += traced.torn.len() as u64;
        let left = EXAMPLES_MAX.saturating_sub(self.readings.examples.len());
        let torn = traced.torn.into_iter().take(left);
        self.readings.examples.extend(torn.map(|(at, seen)| (nanos(began + at), seen)));
        let came_to_an_end =
            traced.operations.iter().all(|ended| matches!(ended.end, End::Exited(_) | End::Signalled(_)));
        self.not_covered.extend(traced.not_covered);
        self.traces.push(Trace {
            requests,
            clients: Vec::new(),
            calls: traced.calls.into_iter().map(without_data).collect(),
            leaks: traced.leaks,
            is_whole: is_whole && came_to_an_end,
            is_stuck: !traced.stuck.is_empty(),
            pids: traced.pids,
        });
    }

    pub(super) fn operation(
        &self,
        ended: &Ended,
        request: Request,
        began: Duration,
        was_maimed: bool,
    ) -> Operation {
        let outcome = match outcome(self.stage, ended.end) {
            // What outlived it was ended by picklock, and may have been about to do its work.
            Outcome::Acknowledged if ended.survivors > 0 => Outcome::Killed,
            // Of an operation that lost a process only an acknowledgement says anything.
            other if was_maimed && other != Outcome::Acknowledged && other != Outcome::Stuck => {
                Outcome::Killed
            }
            other => other,
        };
        let mut operation = Operation {
            client: ended.client,
            invoked: nanos(began + ended.invoked),
            returned: nanos(began + ended.returned),
            still: ended.still.map(|still| nanos(began + still)),
            fault: None,
            stderr: self.stage.printable(&ended.stderr),
            records: None,
            outcome,
            request,
        };
        if operation.request == Request::List && operation.outcome == Outcome::Acknowledged {
            self.stage.take_listing(&mut operation, &ended.stdout);
        }
        operation
    }

    fn session(&mut self, steps: &[Step]) -> Result<(), TraceError> {
        let began = self.now();
        let Some(led) = self.stage.trace_session(steps)? else { return Ok(()) };
        let is_quiet = steps.iter().all(|step| step.held.is_none());
        self.was_disturbed |= is_quiet || led.was_held;
        let later = nanos(began);
        self.operations.extend(led.operations.into_iter().map(|mut operation| {
            operation.invoked += later;
            operation.returned += later;
            operation
        }));
        self.memories
            .extend(led.memories.into_iter().map(|memory| Memory { at: memory.at + later, ..memory }));
        // Only after `list` do the records have to stand where the target says.
        let touched =
            self.operations.iter().rfind(|one| matches!(one.request, Request::Add { .. } | Request::List));
        let has_listed =
            touched.is_some_and(|one| one.request == Request::List && one.outcome == Outcome::Acknowledged);
        self.keep(vec![Request::Other("session".into())], led.traced, is_quiet, began);
        self.look(has_listed);
        Ok(())
    }
}

/// A session that was led through its steps.
pub(super) struct Led {
    pub(super) traced: Traced,
    operations: Vec<Operation>,
    memories: Vec<Memory>,
    /// The place of the first visible call of each step among those of the session, where it made any.
    pub(super) first_calls: Vec<Option<u32>>,
    was_held: bool,
}

/// Whether a limit was come to: a write that stays within it suffers nothing. All other faults are suffered where they hit.
fn came_short(fault: &Fault, calls: &[Call]) -> bool {
    let asked = |call: &Call| {
        call.arguments.iter().find_map(|argument| match argument {
            Argument::Bytes(count) => i64::try_from(*count).ok(),
            _ => None,
        })
    };
    fault.what != What::SizeLimit
        || calls.iter().filter(|call| call.client == 1 && fault.hits.names(&call.name, false)).any(|call| {
            match call.result {
                Some(Ok(written)) => asked(call).is_some_and(|asked| written < asked),
                Some(Err(Errno(number))) => number == libc::EFBIG,
                None => true,
            }
        })
}

/// Whether a program has the privilege of its owner or group.
fn is_set_uid(program: &Path) -> bool {
    let mode = std::fs::metadata(program).map_or(0, |metadata| metadata.permissions().mode());
    mode & 0o6000 != 0
}

fn without_data(call: Call) -> Call {
    Call { data: None, ..call }
}

fn index(client: ClientId) -> Option<usize> {
    usize::try_from(client).ok()?.checked_sub(1)
}

fn outcome(stage: &Stage<'_>, end: End) -> Outcome {
    let exit = &stage.target.exit;
    match end {
        End::Killed => Outcome::Killed,
        End::TimedOut => Outcome::Unfinished(Limit::Timeout),
        End::Stuck => Outcome::Stuck,
        End::Exited(0) => Outcome::Acknowledged,
        End::Exited(status) if exit.refused.contains(&status) => Outcome::Refused,
        End::Exited(status) if exit.busy.contains(&status) => Outcome::Busy,
        End::Exited(status) => Outcome::Failed(format!("exit {status}")),
        End::Signalled(super::process::SIGXFSZ) => Outcome::Unfinished(Limit::File),
        End::Signalled(signal) => Outcome::Failed(format!("signal {}", super::process::signal_name(signal))),
    }
}

/// Who waited for whom when nobody could go on. Whoever holds a lock and is not stuck himself has ended: a process
/// that he left behind has it.
fn standstill(stuck: &[Stuck]) -> Option<Standstill> {
    let holder = |client: &ClientId| match stuck.iter().any(|stuck| stuck.client == *client) {
        true => Holder::Client(*client),
        false => Holder::Ended,
    };
    let clients: Vec<Waiting> = stuck
        .iter()
        .map(|stuck| Waiting {
            client: stuck.client,
            wholly: stuck.wholly,
            wants: stuck
                .wants
                .iter()
                .map(|(file, holders)| WantedLock {
                    file: file.clone(),
                    holders: holders.iter().map(holder).collect(),
                })
                .collect(),
        })
        .collect();
    let first = clients.iter().find(|waiting| !waiting.wants.is_empty())?.client;
    Some(Standstill { client: first, steady: true, clients })
}

/// What a quiet run under the tracer shows of one operation of a store that holds its first record; of `init`, in an
/// empty sandbox.
///
/// # Errors
/// Where something before it failed, or it cannot be traced.
pub fn trace(stage: &Stage<'_>, request: &Request) -> Result<Traced, TraceError> {
    if *request == Request::Init {
        stage.lay()?;
    } else {
        stage.first()?;
    }
    stage.trace_quietly(request)
}

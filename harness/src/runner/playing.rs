//! Keeps the state of a script that is running.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::call::{Argument, Call, End, Ended, Errno, Stuck, Traced};
use crate::fault::{Fault, What};
use crate::observation::{
    Holder, Memory, Observation, Readings, Standstill, State, Subject, Trace, Waiting, WantedLock,
};
use crate::op::{ClientId, Limit, Nanos, Operation, Outcome, Request};
use crate::runner::direct::ScriptInjector;
use crate::runner::schedule::ReplayScheduler;
use crate::runner::traced::{How, TraceError};
use crate::runner::{ExecEnv, First, Played, RunError, nanos};
use crate::scenario::script::{Act, Injection, InjectionKind, Script, Step};

/// Maximum number of torn readings that are saved for one execution.
const EXAMPLES_MAX: usize = 3;

pub(super) struct ScriptRun<'a> {
    pub(super) env: &'a ExecEnv<'a>,
    pub(super) clock: Instant,
    /// Duration of the first operation: the execution's time continues from there.
    pub(super) offset: Duration,
    pub(super) operations: Vec<Operation>,
    pub(super) states: Vec<State>,
    pub(super) traces: Vec<Trace>,
    pub(super) memories: Vec<Memory>,
    pub(super) only_for: BTreeSet<String>,
    pub(super) power_losses: Vec<Nanos>,
    pub(super) source_was_damaged: bool,
    pub(super) readings: Readings,
    pub(super) standstill: Option<Standstill>,
    pub(super) not_covered: Vec<String>,
    pub(super) was_injected: bool,
    pub(super) second_waited: bool,
    /// Whether the last act killed an operation.
    pub(super) was_just_killed: bool,
    /// How far the clock of later operations is ahead: skipped time is never undone.
    pub(super) ahead: Duration,
    /// Number of operations so far.
    pub(super) turn: u32,
    /// Whether operations may run as copies.
    pub(super) may_copy: bool,
    pub(super) has_copies: bool,
    /// Whether the store has acknowledged a record: from then on its data file must exist and be whole.
    pub(super) has_data: bool,
}

impl<'a> ScriptRun<'a> {
    pub(super) fn new(env: &'a ExecEnv<'a>, first: &First, may_copy: bool) -> Self {
        Self {
            env,
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
            was_injected: false,
            second_waited: false,
            was_just_killed: false,
            ahead: Duration::ZERO,
            turn: 0,
            may_copy,
            has_copies: false,
            has_data: true,
        }
    }

    pub(super) fn into_observation(
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
                injection: script.told(),
                traces: self.traces,
                memories: self.memories,
                only_for: self.only_for,
                power_losses: self.power_losses,
                source_was_damaged: self.source_was_damaged,
                usual_names: first.usual_names.clone(),
            },
            not_covered: self.not_covered,
            was_injected: self.was_injected,
            second_waited: self.second_waited,
            has_copies: self.has_copies,
        }
    }

    /// Records that the first of these requests was killed, and that the resulting state was laid out.
    pub(super) fn was_killed_then(&mut self, requests: &[Request]) {
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

    pub(super) fn now(&self) -> Duration {
        self.offset + self.clock.elapsed()
    }

    pub(super) fn act(&mut self, act: &Act) -> Result<(), TraceError> {
        match act {
            Act::Look => self.look(false),
            Act::Damage { file, damage } => {
                self.env
                    .sandbox
                    .change(file, |content| damage.of(content))
                    .map_err(RunError::system("damage a file"))?;
                self.was_injected = true;
                self.look(false);
                self.only_for = BTreeSet::from(["derived-heals".to_owned()]);
                self.source_was_damaged |= Path::new(file) == self.env.target.data.path;
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
                if self.was_just_killed && self.env.target.ops.recover.is_some() {
                    self.operate(Request::Recover)?;
                    self.look(false);
                }
            }
            Act::List => {
                let has_list = self.env.target.ops.list.is_some();
                if !has_list || self.operate(Request::List)? == Outcome::Acknowledged {
                    self.look(true);
                }
            }
            Act::Trace { requests, injection } => self.trace(requests, injection.as_ref())?,
            Act::Anew => {
                self.env.lay()?;
                self.operations.clear();
                self.states.clear();
                self.has_data = false;
            }
            Act::Interleave(interleaving) => {
                self.interleave(interleaving, &mut ReplayScheduler::new(&interleaving.schedule))?;
            }
            Act::PowerLoss { request, loss } => self.lose_power(request, loss)?,
            Act::Session { steps } => self.session(steps)?,
        }
        Ok(())
    }

    pub(super) fn how(&self) -> How {
        How { turn: self.turn, may_copy: self.may_copy, is_unread: !self.has_data, ..How::default() }
    }

    pub(super) fn operate(&mut self, request: Request) -> Result<Outcome, TraceError> {
        self.operate_as(1, request)
    }

    /// Runs one baseline operation: as a copy of a template if possible, because that is faster.
    pub(super) fn operate_as(&mut self, client: ClientId, request: Request) -> Result<Outcome, TraceError> {
        if !self.ahead.is_zero() {
            return self.operate_ahead(client, request);
        }
        if self.may_copy && self.env.copies() {
            return self.operate_copy(client, request);
        }
        let began = self.now();
        let clock = Instant::now();
        let mut operation = self.env.operate(client, request, clock, None, &|| (), &|_| ())?;
        operation.invoked += nanos(began);
        operation.returned += nanos(began);
        let outcome = operation.outcome.clone();
        self.operations.push(operation);
        if self.env.is_cut() { Err(self.env.cut(clock).into()) } else { Ok(outcome) }
    }

    pub(super) fn operate_copy(&mut self, client: ClientId, request: Request) -> Result<Outcome, TraceError> {
        let began = self.now();
        let asked = [(client, request)];
        let traced = self.env.trace_of(&asked, &mut ScriptInjector::new(None), self.how())?;
        self.has_copies |= traced.has_copies;
        self.turn += 1;
        (self.env.on_operation)();
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

    /// Looks at the files. The records must be in the place given by the target only after `list`.
    pub(super) fn look(&mut self, is_after_list: bool) {
        let mut state = self.env.sandbox.look(self.env.target, nanos(self.now()));
        if self.env.target.ops.list.is_some() && !is_after_list {
            state.records = None;
        }
        self.states.push(state);
    }

    pub(super) fn trace(
        &mut self,
        requests: &[Request],
        injection: Option<&Injection>,
    ) -> Result<(), TraceError> {
        let began = self.now();
        let mut directing = ScriptInjector::new(injection);
        let fault = injection.and_then(Injection::fault);
        // The details of the calls show which data a failed sync drops.
        let synced = fault.filter(|fault| fault.is_of_sync());
        let before = synced.and_then(|_| self.env.sandbox.tree().ok());
        // A copy does not repeat the process starts before the first visible call.
        let is_of_spawn =
            injection.is_some_and(|injection| matches!(injection.what, InjectionKind::FailSpawn { .. }));
        let usual = self.how();
        let how = How { is_detailed: synced.is_some(), may_copy: usual.may_copy && !is_of_spawn, ..usual };
        let traced = self.env.trace(requests, &mut directing, how)?;
        self.has_copies |= traced.has_copies;
        self.turn += 1;
        self.was_injected |= match fault {
            Some(fault) => directing.has_failed && came_short(fault, &traced.calls),
            None => injection.is_none() || directing.is_done,
        };
        self.second_waited |= directing.second_waited;
        self.was_just_killed = false;
        let partly = injection.is_some_and(|injection| {
            matches!(injection.what, InjectionKind::KillProcess | InjectionKind::KillOther { .. })
        });
        for ended in &traced.operations {
            let Some(request) = index(ended.client).and_then(|index| requests.get(index)) else { continue };
            let mut operation = self.operation(ended, request.clone(), began, partly && ended.client == 1);
            let suffered = directing.has_failed && ended.client == 1;
            if let Some(fault) = fault.filter(|fault| suffered && came_short(fault, &traced.calls)) {
                operation.fault = Some(fault.id.to_owned());
                // The file limit was an injection, not the target's limit.
                if operation.outcome == Outcome::Unfinished(Limit::File) {
                    operation.outcome = Outcome::Failed("signal SIGXFSZ".to_owned());
                }
            }
            self.was_just_killed |= operation.outcome == Outcome::Killed;
            self.operations.push(operation);
            (self.env.on_operation)();
        }
        let is_acknowledged =
            self.operations.last().is_some_and(|last| last.outcome == Outcome::Acknowledged);
        if let Some(before) = before.filter(|_| is_acknowledged) {
            self.drop_unsynced(&before, &traced.calls)?;
        }
        self.keep(requests.to_vec(), traced, injection.is_none(), began);
        self.look(false);
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
        let outcome = match outcome(self.env, ended.end) {
            // Its surviving processes were ended by picklock before they finished its work.
            Outcome::Acknowledged if ended.survivors > 0 && self.env.works_on.load(Ordering::Relaxed) => {
                Outcome::Killed
            }
            // For an operation that lost a process, only an acknowledgement is meaningful.
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
            stderr: self.env.said(&outcome, &ended.stdout, &ended.stderr),
            records: None,
            outcome,
            request,
        };
        if operation.request == Request::List && operation.outcome == Outcome::Acknowledged {
            self.env.take_listing(&mut operation, &ended.stdout);
        }
        operation
    }

    pub(super) fn session(&mut self, steps: &[Step]) -> Result<(), TraceError> {
        let began = self.now();
        let Some(led) = self.env.trace_session(steps)? else { return Ok(()) };
        let is_quiet = steps.iter().all(|step| step.held.is_none());
        self.was_injected |= is_quiet || led.was_held;
        let later = nanos(began);
        self.operations.extend(led.operations.into_iter().map(|mut operation| {
            operation.invoked += later;
            operation.returned += later;
            operation
        }));
        for (client, request) in (led.sessions + 1..).zip(&led.one_shots) {
            let ended = led.traced.operations.iter().find(|ended| ended.client == client);
            let Some(ended) = ended else { continue };
            let operation = self.operation(ended, request.clone(), began, false);
            self.operations.push(operation);
        }
        self.memories
            .extend(led.memories.into_iter().map(|memory| Memory { at: memory.at + later, ..memory }));
        // The records must be in the place given by the target only after `list`.
        let touched =
            self.operations.iter().rfind(|one| matches!(one.request, Request::Add { .. } | Request::List));
        let has_listed =
            touched.is_some_and(|one| one.request == Request::List && one.outcome == Outcome::Acknowledged);
        let sessions = (0..led.sessions).map(|_| Request::Other("session".into()));
        self.keep(sessions.chain(led.one_shots).collect(), led.traced, is_quiet, began);
        self.look(has_listed);
        Ok(())
    }
}

/// Whether a write reached the injected size limit: writes within it are not affected. All other faults take effect
/// wherever they are injected.
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

fn without_data(call: Call) -> Call {
    Call { data: None, ..call }
}

fn index(client: ClientId) -> Option<usize> {
    usize::try_from(client).ok()?.checked_sub(1)
}

pub(super) fn outcome(env: &ExecEnv<'_>, end: End) -> Outcome {
    let exit = &env.target.exit;
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

/// Describes which client waits for which at a deadlock. A holder of a lock that is not stuck itself has ended: a
/// process that it left behind holds the lock.
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

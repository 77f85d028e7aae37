//! Kills an operation before each of its visible calls, and lets the store go on.

use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::time::Instant;

use crate::call::{End, Trace};
use crate::observation::{Observation, Readings, State};
use crate::op::{Limit, Operation, Outcome, Request, record_name};
use crate::runner::{Control, Cut, RunError, Stage, TraceError, nanos};
use crate::scenario::crash::{KILLS_ALIKE, points};
use crate::target::Values;
use crate::tracer::{self, Traceable};

/// How the scenario went, beside what it showed.
#[derive(Clone, Debug, Default)]
pub struct Crash {
    /// The operations that were killed, each with its number of crash points, and how many of them were tried.
    pub operations: Vec<(String, usize, usize)>,
    /// Why points were left out, if any were.
    pub cut: Option<Cut>,
    /// What the traces say is not seen.
    pub not_covered: Vec<String>,
}

/// Runs the scenario, handing every execution to `sink`, which may end it.
///
/// # Errors
/// Where the harness could not do its part, or may not trace.
pub fn crash(
    stage: &Stage<'_>,
    control: &Control,
    sink: &mut dyn FnMut(Observation) -> ControlFlow<()>,
) -> Result<Crash, TraceError> {
    let mut done = Crash::default();
    let ops = &stage.target.ops;
    let other = stage.target.harmless_ops().map(|name| Request::Other(name.to_owned()));
    let requests = std::iter::once(add(2)).chain(ops.list.is_some().then_some(Request::List)).chain(other);
    let mut execution = 0;
    for request in requests {
        if stage.is_time_up() {
            done.cut = Some(cut(stage));
            return Ok(done);
        }
        let quiet = match crate::runner::trace(stage, &request) {
            Err(TraceError::Run(RunError::Stopped)) => {
                done.cut = Some(cut(stage));
                return Ok(done);
            }
            quiet => quiet?,
        };
        done.not_covered.extend(quiet.not_covered.iter().cloned());
        let changes: Vec<u32> =
            quiet.calls.iter().filter(|call| call.is_change()).map(|call| call.number).collect();
        let calls = u32::try_from(quiet.calls.len()).unwrap_or(u32::MAX);
        let chosen = points(calls, &changes);
        done.operations.push((request.to_string(), quiet.calls.len() + 1, 0));
        for point in chosen {
            if stage.is_time_up() {
                done.cut = Some(cut(stage));
                return Ok(done);
            }
            let mut cycle = Cycle::new(stage, control)?;
            let ran = cycle.run(&request, point);
            execution += 1;
            // A store that does not make the same calls each time may have ended before the point was reached.
            let was_killed = cycle.operations.iter().any(|operation| operation.outcome == Outcome::Killed);
            let flow = sink(cycle.into_observation(execution));
            match ran {
                Ok(()) => {}
                Err(TraceError::Run(RunError::Stopped)) => {
                    done.cut = Some(cut(stage));
                    return Ok(done);
                }
                Err(other) => return Err(other),
            }
            if let Some((_, _, tried)) = done.operations.last_mut() {
                *tried += usize::from(was_killed);
            }
            if flow.is_break() {
                done.cut = Some(Cut::FailFast);
                return Ok(done);
            }
        }
    }
    Ok(done)
}

fn cut(stage: &Stage<'_>) -> Cut {
    if stage.stop.is_requested() { Cut::Interrupted } else { Cut::Budget }
}

fn add(number: u32) -> Request {
    Request::Add { record: record_name(number), number }
}

/// One execution: an add, the operation that is killed, and what comes after it.
struct Cycle<'a> {
    stage: &'a Stage<'a>,
    control: &'a Control,
    clock: Instant,
    operations: Vec<Operation>,
    states: Vec<State>,
    adds: u32,
}

impl<'a> Cycle<'a> {
    fn new(stage: &'a Stage<'a>, control: &'a Control) -> Result<Self, RunError> {
        stage.lay()?;
        Ok(Self {
            stage,
            control,
            clock: Instant::now(),
            operations: Vec::new(),
            states: Vec::new(),
            adds: 0,
        })
    }

    fn run(&mut self, request: &Request, point: u32) -> Result<(), TraceError> {
        self.add()?;
        for _ in 0..KILLS_ALIKE {
            let killed = match request {
                Request::Add { .. } => self.next_add(),
                other => other.clone(),
            };
            let outcome = self.kill(killed, point)?;
            if outcome == Outcome::Killed && self.stage.target.ops.recover.is_some() {
                self.operate(Request::Recover)?;
                self.look();
            }
            self.list_and_look()?;
            self.add()?;
            self.list_and_look()?;
            // Where nothing is left behind, nothing can pile up.
            if outcome != Outcome::Killed || !self.left_something() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether there are more files than the same number of adds leaves undisturbed.
    fn left_something(&self) -> bool {
        let quiet = &self.control.subject.quiet_file_counts;
        let most = quiet.iter().copied().max().unwrap_or(0);
        self.states.last().is_some_and(|state| state.files.len() > most)
    }

    fn next_add(&mut self) -> Request {
        self.adds += 1;
        add(self.adds)
    }

    fn add(&mut self) -> Result<(), RunError> {
        let request = self.next_add();
        self.operate(request)?;
        self.look();
        Ok(())
    }

    /// What `list` tells, and the records that are in the file then.
    fn list_and_look(&mut self) -> Result<(), RunError> {
        if self.stage.target.ops.list.is_some() && self.operate(Request::List)? == Outcome::Acknowledged {
            self.states.push(self.state());
        }
        Ok(())
    }

    fn operate(&mut self, request: Request) -> Result<Outcome, RunError> {
        let operation = self.stage.operate(1, request, self.clock, None, &|| (), &|_| ())?;
        let outcome = operation.outcome.clone();
        self.operations.push(operation);
        if self.stage.is_cut() { Err(RunError::Stopped) } else { Ok(outcome) }
    }

    fn state(&self) -> State {
        self.stage.sandbox.look(self.stage.target, nanos(self.clock.elapsed()))
    }

    fn look(&mut self) {
        let mut state = self.state();
        if self.stage.target.ops.list.is_some() {
            // Before `list` the records may stand elsewhere.
            state.records = None;
        }
        self.states.push(state);
    }

    fn kill(&mut self, request: Request, point: u32) -> Result<Outcome, TraceError> {
        let invoked = nanos(self.clock.elapsed());
        let trace = self.stage.traced(&request, Some(point))?;
        (self.stage.on_operation)();
        let outcome = outcome(self.stage, &trace);
        self.operations.push(Operation {
            client: 1,
            request,
            invoked,
            returned: nanos(self.clock.elapsed()),
            outcome: outcome.clone(),
            stderr: self.stage.printable(&trace.stderr),
            records: None,
        });
        Ok(outcome)
    }

    fn into_observation(self, execution: u32) -> Observation {
        self.stage.end_survivors();
        Observation {
            scenario: "crash".into(),
            execution,
            subject: self.control.subject.clone(),
            operations: self.operations,
            readings: Readings::default(),
            states: self.states,
            standstill: None,
        }
    }
}

fn outcome(stage: &Stage<'_>, trace: &Trace) -> Outcome {
    let exit = &stage.target.exit;
    match trace.end {
        End::Killed => Outcome::Killed,
        End::TimedOut => Outcome::Unfinished(Limit::Timeout),
        End::Exited(0) => Outcome::Acknowledged,
        End::Exited(status) if exit.refused.contains(&status) => Outcome::Refused,
        End::Exited(status) if exit.busy.contains(&status) => Outcome::Busy,
        End::Exited(status) => Outcome::Failed(format!("exit {status}")),
        End::Signalled(signal) => Outcome::Failed(format!("signal {signal}")),
    }
}

impl Stage<'_> {
    /// Runs one operation under the tracer, killed before its visible call `kill_before` where one is given.
    pub(super) fn traced(&self, request: &Request, kill_before: Option<u32>) -> Result<Trace, TraceError> {
        if self.is_cut() {
            return Err(RunError::Stopped.into());
        }
        let (id, n) = match request {
            Request::Add { record, number } => (record.clone(), *number),
            _ => (String::new(), 0),
        };
        let values = Values { id, n, client: 1, ..self.sandbox.values() };
        let (program, arguments, cwd) = self.render(request, &values);
        let sandbox = self.sandbox.dir();
        let environment = self.environment(&values);
        let traceable = Traceable {
            program: &program,
            arguments: &arguments,
            cwd: &cwd,
            environment: &environment,
            sandbox: &sandbox,
            timeout: self.hard_end.map_or(self.target.limits.timeout, |end| {
                self.target.limits.timeout.min(end.saturating_duration_since(Instant::now()))
            }),
            stop: Some(self.stop.as_fd()),
            kill_before,
        };
        let trace = tracer::trace(&traceable)?;
        // What was cut short tells nothing.
        if self.is_cut() { Err(RunError::Stopped.into()) } else { Ok(trace) }
    }
}

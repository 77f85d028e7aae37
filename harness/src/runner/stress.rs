//! Runs the rounds of a stress plan: clients as threads, a reader beside them, a look at the store afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::observation::{Observation, Readings, Standstill, State};
use crate::op::{ClientId, Limit, Operation, Outcome, Request, record_name};
use crate::runner::control::{Control, Timing};
use crate::runner::kill::Kill;
use crate::runner::reader::Reader;
use crate::runner::touch::Events;
use crate::runner::{ExecEnv, RunError, Stop, nanos, waits};
use crate::scenario::stress::{Plan, Round, Step};
use crate::shard::Shard;

/// Number of rounds with hung clients after which the rest is skipped.
const HUNG_ROUNDS_MAX: u32 = 2;
/// Maximum number of retries of a kill that came too late.
const TRIES: u32 = 3;
/// If a store uses its folder for less than this time, it is watched by busy polling.
const QUICK: Duration = Duration::from_millis(2);

/// How the scenario went, in addition to its observations.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stress {
    /// Rounds that were planned.
    pub planned: usize,
    /// Rounds that were completed.
    pub rounds: usize,
    /// Why the others were not, if any.
    pub cut: Option<Cut>,
    /// Totals of all crowds.
    pub crowd: CrowdTotals,
}

/// Totals of all crowds.
#[derive(Clone, Copy, Debug, Default)]
pub struct CrowdTotals {
    /// Number of operations.
    pub operations: u64,
    /// Number of killed operations.
    pub killed: u64,
    /// Time from the first start to the last end in each crowd, summed.
    pub elapsed: Duration,
    /// Processor time of the concurrent readers.
    pub readers_cpu: Duration,
}

/// Why rounds of the plan were skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The budget was spent.
    Budget,
    /// Clients did not end in two rounds.
    Hung,
    /// Enough violations were found, because of `--fail-fast`.
    FailFast,
    /// The user requested the end.
    Interrupted,
}

/// Runs the rounds of `plan` in this shard of the run, and passes each execution and its place to `sink`, which may end
/// the run.
///
/// # Errors
/// If the harness could not do its part.
pub fn stress(
    env: &ExecEnv<'_>,
    plan: &Plan,
    control: &Control,
    shard: Shard,
    sink: &mut dyn FnMut(u64, Observation) -> ControlFlow<()>,
) -> Result<Stress, RunError> {
    let all = (0..).zip(&plan.rounds);
    let rounds: Vec<(u64, &Round)> = all.filter(|(place, _)| shard.has("stress", *place)).collect();
    let mut done = Stress { planned: rounds.len(), ..Stress::default() };
    let mut hung = 0;
    for (index, (place, round)) in rounds.iter().enumerate() {
        if env.is_time_up() {
            done.cut = Some(if env.stop.is_requested() { Cut::Interrupted } else { Cut::Budget });
            return Ok(done);
        }
        env.begin_round(rounds.len() - index);
        let mut execution = Execution::new(env, control, round)?;
        let ran = match round {
            Round::Crowd(clients) => execution.crowd(clients, &mut done),
            Round::Lone(steps) => execution.lone(steps),
        };
        let is_hung = execution.is_hung();
        // Clients start no more operations once the round's time is over.
        let is_whole = execution.operations.len() as u64 >= round.operations();
        let observation = execution.into_observation(u32::try_from(place + 1).unwrap_or(u32::MAX));
        // Observations from before the stop still count.
        let flow = sink(*place, observation);
        match ran {
            Ok(()) => {}
            Err(RunError::Stopped) => {
                done.cut = Some(if env.stop.is_requested() { Cut::Interrupted } else { Cut::Budget });
                return Ok(done);
            }
            Err(other) => return Err(other),
        }
        done.rounds += usize::from(is_whole);
        if flow.is_break() {
            done.cut = Some(Cut::FailFast);
            return Ok(done);
        }
        hung += u32::from(is_hung);
        if hung == HUNG_ROUNDS_MAX {
            done.cut = Some(Cut::Hung);
            return Ok(done);
        }
    }
    if done.rounds < rounds.len() {
        done.cut = Some(Cut::Budget);
    }
    Ok(done)
}

/// A running round.
struct Execution<'a> {
    env: &'a ExecEnv<'a>,
    control: &'a Control,
    clock: Instant,
    operations: Vec<Operation>,
    states: Vec<State>,
    readings: Readings,
    standstill: Option<Standstill>,
    /// The next number that no record of the plan has.
    next_number: u32,
}

/// State shared by the clients of a crowd.
struct Crowd<'a> {
    env: &'a ExecEnv<'a>,
    clock: Instant,
    acknowledged: AtomicBool,
    /// The process group of every client with a running operation.
    under_way: Mutex<BTreeMap<ClientId, Pid>>,
    standstill: Mutex<Option<Standstill>>,
    hung: AtomicBool,
    pace: Pace,
}

/// The current duration of operations, used to place kills within them.
struct Pace {
    timing: Timing,
    /// Factor by which a program starts more slowly than in the control.
    slowdown: f64,
    /// Moving average of the duration of an operation, in nanoseconds.
    mean: AtomicU64,
    /// Latest placement of kills in an operation, in thousandths: reduced if many came too late.
    reach: AtomicU64,
}

impl<'a> Execution<'a> {
    fn new(env: &'a ExecEnv<'a>, control: &'a Control, round: &Round) -> Result<Self, RunError> {
        env.lay()?;
        Ok(Self {
            env,
            control,
            clock: Instant::now(),
            operations: Vec::new(),
            states: Vec::new(),
            readings: Readings::default(),
            standstill: None,
            next_number: round.last_number() + 1,
        })
    }

    fn crowd(&mut self, clients: &[(ClientId, Vec<Step>)], done: &mut Stress) -> Result<(), RunError> {
        let crowd = Crowd {
            env: self.env,
            clock: self.clock,
            acknowledged: AtomicBool::new(false),
            under_way: Mutex::default(),
            standstill: Mutex::default(),
            hung: AtomicBool::new(false),
            pace: Pace::new(self.control.timing, clients.len()),
        };
        let data = self.env.sandbox.data();
        let reader = self.control.subject.transparent.then(|| Reader {
            data: &data,
            format: self.env.target.data.format,
            starts_with_data: self.control.subject.starts_with_data,
            acknowledged: &crowd.acknowledged,
        });
        let readers_done = Stop::new().map_err(RunError::system("prepare a reader"))?;
        let began = Instant::now();
        let mut failed = None;
        thread::scope(|scope| {
            let reader = reader.map(|reader| {
                let (done, clock) = (&readers_done, self.clock);
                scope.spawn(move || reader.read_until(done, clock))
            });
            let clients: Vec<_> = clients
                .iter()
                .map(|(client, steps)| {
                    let crowd = &crowd;
                    scope.spawn(move || crowd.client(*client, steps))
                })
                .collect();
            for client in clients {
                let (operations, error) =
                    client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                self.operations.extend(operations);
                failed = failed.take().or(error);
            }
            done.crowd.operations += self.operations.len() as u64;
            done.crowd.killed +=
                self.operations.iter().filter(|one| one.outcome == Outcome::Killed).count() as u64;
            done.crowd.elapsed += began.elapsed();
            readers_done.request();
            if let Some(reader) = reader {
                let (readings, cpu) = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                self.readings = readings;
                done.crowd.readers_cpu += cpu;
            }
        });
        self.operations.sort_by_key(|operation| operation.invoked);
        self.standstill = crowd.standstill.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = failed {
            return Err(error);
        }
        // A reading counts only if a client wrote at the same time, as in any crowd with an add.
        if !self.operations.iter().any(|operation| operation.added().is_some()) {
            self.readings = Readings::default();
        }
        self.look_in_peace()
    }

    /// Checks the store after the crowd has ended: recovers it, lists, adds one record, and lists again.
    fn look_in_peace(&mut self) -> Result<(), RunError> {
        self.recover_after_a_kill()?;
        self.look();
        self.list_and_look()?;
        let request = self.next_add();
        self.operate(request, None)?;
        self.look();
        self.list_and_look()
    }

    fn lone(&mut self, steps: &[Step]) -> Result<(), RunError> {
        for step in steps {
            if self.env.is_over() {
                return Ok(());
            }
            let mut outcome = self.kill(step.request.clone(), step.kill, 0)?;
            // A kill may come too late, because the machine has other work too. The next one comes one touch earlier.
            for earlier in 1..=self.tries() {
                if step.kill.is_none() || outcome != Outcome::Acknowledged {
                    break;
                }
                let request = self.next_add();
                outcome = self.kill(request, step.kill, earlier)?;
            }
            if outcome == Outcome::Killed {
                self.recover_after_a_kill()?;
            } else {
                self.look();
                self.list_and_look()?;
            }
            if self.is_hung() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Runs an operation, killed at `fraction` of its work if that is given; retries kill earlier.
    fn kill(&mut self, request: Request, fraction: Option<f64>, earlier: u32) -> Result<Outcome, RunError> {
        let Some(fraction) = fraction else { return self.operate(request, None) };
        let folders = self.env.sandbox.folders();
        let folders: Vec<&Path> = folders.iter().map(PathBuf::as_path).collect();
        let moments = Moments { timing: self.control.timing, events: Events::of_all_kinds(&folders) };
        self.operate(request, Some(moments.kill(fraction, earlier)))
    }

    /// Number of retries of a kill that came too late. A target with a record limit has no room for them.
    fn tries(&self) -> u32 {
        if self.env.target.limit_of_plain_add().is_some() { 0 } else { TRIES }
    }

    /// Returns an `add` outside the plan: a round that was cut short may not have run all planned ones.
    fn next_add(&mut self) -> Request {
        let number = self.next_number;
        self.next_number += 1;
        Request::Add { record: record_name(number), number }
    }

    fn recover_after_a_kill(&mut self) -> Result<(), RunError> {
        let killed = self.operations.iter().any(Operation::was_killed);
        if killed && self.env.target.ops.recover.is_some() {
            self.operate(Request::Recover, None)?;
        }
        Ok(())
    }

    /// Lists the records, then looks at the file: before `list` a store may keep records elsewhere.
    fn list_and_look(&mut self) -> Result<(), RunError> {
        if self.env.target.ops.list.is_some() && self.operate(Request::List, None)? == Outcome::Acknowledged {
            self.states.push(self.state());
        }
        Ok(())
    }

    fn operate(&mut self, request: Request, kill: Option<Kill<'_>>) -> Result<Outcome, RunError> {
        let under_way = Mutex::new(None);
        let standstill = Mutex::new(None);
        let folder = self.env.sandbox.dir();
        let on_late = || {
            let group: Option<Pid> = *under_way.lock().unwrap_or_else(PoisonError::into_inner);
            let under_way = group.map(|group| (1, group)).into_iter().collect();
            *standstill.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(waits::look(1, &under_way, &folder));
        };
        let on_start = |group| *under_way.lock().unwrap_or_else(PoisonError::into_inner) = Some(group);
        let operation = self.env.operate(1, request, self.clock, kill, &on_late, &on_start)?;
        let outcome = operation.outcome.clone();
        self.operations.push(operation);
        self.standstill =
            self.standstill.take().or(standstill.into_inner().unwrap_or_else(PoisonError::into_inner));
        if self.env.is_cut() { Err(RunError::Stopped) } else { Ok(outcome) }
    }

    fn look(&mut self) {
        let mut state = self.state();
        if self.env.target.ops.list.is_some() {
            state.records = None;
        }
        self.states.push(state);
    }

    fn state(&self) -> State {
        self.env.sandbox.look(self.env.target, nanos(self.clock.elapsed()))
    }

    fn is_hung(&self) -> bool {
        self.operations.iter().any(|operation| operation.outcome == Outcome::Unfinished(Limit::Timeout))
    }

    fn into_observation(self, execution: u32) -> Observation {
        self.env.end_survivors();
        Observation {
            scenario: "stress".into(),
            execution,
            subject: self.control.subject.clone(),
            operations: self.operations,
            readings: self.readings,
            states: self.states,
            standstill: self.standstill,
            injection: None,
            traces: Vec::new(),
            usual_names: BTreeSet::new(),
            memories: Vec::new(),
            only_for: BTreeSet::new(),
            power_losses: Vec::new(),
            source_was_damaged: false,
        }
    }
}

impl Crowd<'_> {
    /// Runs one client's operations, and returns the error that stopped it, if any.
    fn client(&self, client: ClientId, steps: &[Step]) -> (Vec<Operation>, Option<RunError>) {
        let mut operations = Vec::with_capacity(steps.len());
        for step in steps {
            if self.env.is_over() || self.hung.load(Ordering::SeqCst) {
                break;
            }
            let kill = step.kill.map(|fraction| Kill::After(self.pace.kill_after(fraction)));
            let on_late = || self.look_at_waits(client);
            let on_start = |group| {
                self.under_way.lock().unwrap_or_else(PoisonError::into_inner).insert(client, group);
            };
            let request = step.request.clone();
            let operation = self.env.operate(client, request, self.clock, kill, &on_late, &on_start);
            self.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&client);
            let operation = match operation {
                Ok(operation) => operation,
                Err(error) => return (operations, Some(error)),
            };
            match &operation.outcome {
                Outcome::Acknowledged if operation.added().is_some() => {
                    self.acknowledged.store(true, Ordering::SeqCst);
                    self.pace.took(operation.returned - operation.invoked);
                    self.pace.adapt(step.kill.is_some().then_some(false));
                }
                Outcome::Killed => self.pace.adapt(Some(true)),
                Outcome::Unfinished(Limit::Timeout) => self.hung.store(true, Ordering::SeqCst),
                _ => {}
            }
            operations.push(operation);
            if self.env.is_cut() {
                return (operations, Some(RunError::Stopped));
            }
        }
        (operations, None)
    }

    /// The first client past its limit records the waits of all: once it is killed, the others may continue.
    fn look_at_waits(&self, late: ClientId) {
        let mut standstill = self.standstill.lock().unwrap_or_else(PoisonError::into_inner);
        if standstill.is_none() {
            let under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner).clone();
            *standstill = Some(waits::look(late, &under_way, &self.env.sandbox.dir()));
        }
    }
}

impl Pace {
    fn new(timing: Timing, clients: usize) -> Self {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let slowdown = (clients as f64 / processors as f64).max(1.0);
        let mean = timing.whole.as_nanos() as f64 * slowdown;
        Self { timing, slowdown, mean: AtomicU64::new(mean as u64), reach: AtomicU64::new(1000) }
    }

    fn took(&self, nanos: u64) {
        let mean = self.mean.load(Ordering::Relaxed);
        self.mean.store((mean * 7 + nanos) / 8, Ordering::Relaxed);
    }

    /// Adapts the reach after a planned kill: a late one moves the next kills earlier.
    fn adapt(&self, came_in_time: Option<bool>) {
        let Some(came_in_time) = came_in_time else { return };
        let reach = self.reach.load(Ordering::Relaxed);
        let reach = if came_in_time { reach + 20 } else { reach * 9 / 10 };
        self.reach.store(reach.clamp(200, 1000), Ordering::Relaxed);
    }

    /// Returns when to kill, counted from the start of the operation: at this fraction of the time in which the store
    /// uses its folder, as measured in the control and scaled to the crowd; of the whole time if no touch was seen.
    fn kill_after(&self, fraction: f64) -> Duration {
        let whole = self.timing.whole.as_nanos().max(1) as f64;
        let mean = self.mean.load(Ordering::Relaxed) as f64;
        let first = self.timing.touches.map_or(0.0, |touches| touches.first.as_nanos() as f64);
        // Start-up is slowed by the share of the processors; any further delay is waiting for the lock.
        let from = first * (mean / whole).clamp(1.0, self.slowdown);
        let reach = self.reach.load(Ordering::Relaxed) as f64 / 1000.0;
        Duration::from_nanos((reach * (from + fraction * (mean.max(from) - from))) as u64)
    }
}

/// When to kill the operations of a lone client: at one of the touches counted in the control.
struct Moments {
    timing: Timing,
    events: Option<Events>,
}

impl Moments {
    /// Returns a kill at this fraction of the touches, or this number of touches earlier.
    fn kill(&self, fraction: f64, earlier: u32) -> Kill<'_> {
        let (Some(touches), Some(events)) = (self.timing.touches, &self.events) else {
            return Kill::After(self.timing.whole.mul_f64(fraction) / (1 + earlier));
        };
        if earlier > 1 {
            // Its touches are not seen in time: it works in unwatched folders, or too fast.
            return Kill::After(self.timing.whole.mul_f64(fraction) / earlier);
        }
        let n = (1 + (fraction * f64::from(touches.count)) as u32).saturating_sub(earlier).max(1);
        // On a single processor busy polling would stop the store from running.
        let is_quick = touches.last - touches.first < QUICK
            && thread::available_parallelism().is_ok_and(|n| n.get() > 1);
        Kill::AtTouch { events, n, busily_from: is_quick.then(|| touches.first / 2) }
    }
}

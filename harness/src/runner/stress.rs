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

/// Rounds in which clients did not end before the rest is given up.
const HUNG_ROUNDS_MAX: u32 = 2;
/// How often a kill that came too late is tried again.
const TRIES: u32 = 3;
/// A store that is done with its folder in less time than this is watched busily.
const QUICK: Duration = Duration::from_millis(2);

/// How the scenario went, beside what it showed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stress {
    /// Rounds that were to be run.
    pub planned: usize,
    /// Rounds that were run to their end.
    pub rounds: usize,
    /// Why the others were not, if there are others.
    pub cut: Option<Cut>,
    /// What all crowds together did.
    pub crowd: CrowdTotals,
}

/// What all crowds together did.
#[derive(Clone, Copy, Debug, Default)]
pub struct CrowdTotals {
    /// Operations.
    pub operations: u64,
    /// Those of them that were killed.
    pub killed: u64,
    /// From the first start to the last end in each.
    pub elapsed: Duration,
    /// Processor time of the readers beside them.
    pub readers_cpu: Duration,
}

/// Why rounds of the plan were left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The budget was spent.
    Budget,
    /// Clients did not end in two rounds.
    Hung,
    /// Enough was seen, by `--fail-fast`.
    FailFast,
    /// Somebody asked for the end.
    Interrupted,
}

/// Runs the rounds of `plan` that this shard of the run has, handing every execution and its place to `sink`, which may
/// end it.
///
/// # Errors
/// Where the harness could not do its part.
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
        // Clients start nothing more once the round's time is over.
        let is_whole = execution.operations.len() as u64 >= round.operations();
        let observation = execution.into_observation(u32::try_from(place + 1).unwrap_or(u32::MAX));
        // What an execution showed before it was stopped still counts.
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

/// One round under way.
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

/// What the clients of a crowd share.
struct Crowd<'a> {
    env: &'a ExecEnv<'a>,
    clock: Instant,
    acknowledged: AtomicBool,
    /// The process group of every client that has an operation under way.
    under_way: Mutex<BTreeMap<ClientId, Pid>>,
    standstill: Mutex<Option<Standstill>>,
    hung: AtomicBool,
    pace: Pace,
}

/// How long operations take here and now, to place kills within them.
struct Pace {
    timing: Timing,
    /// How much slower a program starts than in the control.
    slowdown: f64,
    /// A moving mean of how long an operation takes, in nanoseconds.
    mean: AtomicU64,
    /// Up to where in an operation kills are placed, in thousandths: less where many came too late.
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
        // A reading counts only where somebody wrote meanwhile, which is so in a crowd that added anything.
        if !self.operations.iter().any(|operation| operation.added().is_some()) {
            self.readings = Readings::default();
        }
        self.look_in_peace()
    }

    /// The store after the crowd has gone: it mends itself, tells its records, takes one more, and tells them again.
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
            // A kill may come too late, since the machine has other work too. The next one comes a touch earlier.
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

    /// An operation that is killed at `fraction` of its work, where one is given; a later try comes earlier.
    fn kill(&mut self, request: Request, fraction: Option<f64>, earlier: u32) -> Result<Outcome, RunError> {
        let Some(fraction) = fraction else { return self.operate(request, None) };
        let folders = self.env.sandbox.folders();
        let folders: Vec<&Path> = folders.iter().map(PathBuf::as_path).collect();
        let moments = Moments { timing: self.control.timing, events: Events::of_all_kinds(&folders) };
        self.operate(request, Some(moments.kill(fraction, earlier)))
    }

    /// How often a kill is tried again that came too late. A target with a limit has no room for it.
    fn tries(&self) -> u32 {
        if self.env.target.limit_of_plain_add().is_some() { 0 } else { TRIES }
    }

    /// An `add` beyond those that are planned: a round that was cut short may not have come to all of those.
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

    /// What `list` tells, and the records that are in the file then: before, a store may keep them elsewhere.
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
    /// One client's operations, and why it could not go on, if it could not.
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

    /// The first client past its limit looks for all: once it is killed, the others may go on.
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

    /// After a kill that was wanted: it came in time, or it came too late and the next ones should come earlier.
    fn adapt(&self, came_in_time: Option<bool>) {
        let Some(came_in_time) = came_in_time else { return };
        let reach = self.reach.load(Ordering::Relaxed);
        let reach = if came_in_time { reach + 20 } else { reach * 9 / 10 };
        self.reach.store(reach.clamp(200, 1000), Ordering::Relaxed);
    }

    /// When to kill, counted from the start of the operation: at this fraction of the time in which the store works
    /// on its folder, as the control saw it and as the crowd stretches it; of the whole time where nothing was seen.
    fn kill_after(&self, fraction: f64) -> Duration {
        let whole = self.timing.whole.as_nanos().max(1) as f64;
        let mean = self.mean.load(Ordering::Relaxed) as f64;
        let first = self.timing.touches.map_or(0.0, |touches| touches.first.as_nanos() as f64);
        // Starting up takes longer by the share of the processors; all that is longer still is waiting for the lock.
        let from = first * (mean / whole).clamp(1.0, self.slowdown);
        let reach = self.reach.load(Ordering::Relaxed) as f64 / 1000.0;
        Duration::from_nanos((reach * (from + fraction * (mean.max(from) - from))) as u64)
    }
}

/// When a lone client's operations are killed: at one of the touches that the control counted.
struct Moments {
    timing: Timing,
    events: Option<Events>,
}

impl Moments {
    /// At this fraction of the touches, or so many touches earlier.
    fn kill(&self, fraction: f64, earlier: u32) -> Kill<'_> {
        let (Some(touches), Some(events)) = (self.timing.touches, &self.events) else {
            return Kill::After(self.timing.whole.mul_f64(fraction) / (1 + earlier));
        };
        if earlier > 1 {
            // Its touches do not tell in time: it works where nobody watches, or too fast.
            return Kill::After(self.timing.whole.mul_f64(fraction) / earlier);
        }
        let n = (1 + (fraction * f64::from(touches.count)) as u32).saturating_sub(earlier).max(1);
        // With one processor alone, watching all the time would keep the store from working.
        let is_quick = touches.last - touches.first < QUICK
            && thread::available_parallelism().is_ok_and(|n| n.get() > 1);
        Kill::AtTouch { events, n, busily_from: is_quick.then(|| touches.first / 2) }
    }
}

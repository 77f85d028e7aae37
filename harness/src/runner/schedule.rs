//! Runs clients on a schedule: from an explorer, which says whose turn it is, to the tracer, and back from what the calls
//! did to the steps that the explorer hears of.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::call::{Call, Class, End, Errno, LockChange};
use crate::explore::footprint::{Access, Footprint, Locking, invocation, returning};
use crate::explore::{Choice, Explorer, Pending, Step};
use crate::op::{ClientId, Outcome, Request};
use crate::runner::playing::ScriptRun;
use crate::runner::traced::How;
use crate::runner::{RunError, TraceError};
use crate::scenario::script::{Interleaving, KillAt};
use crate::tracer::{CallAction, ClientSnapshot, ClientState, Director, SchedulerAction, Snapshot, Upcoming};

/// Number of equal requests of a client without success and without a sleep, before it waits for a change.
const SPINS_MAX: usize = 20;
/// Maximum number of steps of one execution; longer ones have too many orders to explore.
const STEPS_MAX: usize = 2000;
/// Maximum number of times in one execution that time passes for clients in a sleep, because no other can run.
const PATIENCE: u32 = 2000;

/// Slots of the tracer for the operations of some clients: the first operation of each client, then the second of each
/// that has one, and so on. With one operation per client, the slots are the clients.
#[derive(Clone, Debug)]
pub(super) struct Slots {
    /// The client of each slot, from 1, and the index of the operation among those of the client.
    owners: Vec<(ClientId, usize)>,
}

impl Slots {
    pub(super) fn of(clients: &[Vec<Request>]) -> Self {
        let most = clients.iter().map(Vec::len).max().unwrap_or(0);
        let round = |round: usize| {
            (1..)
                .zip(clients)
                .filter(move |(_, requests)| requests.len() > round)
                .map(move |(client, _)| (client, round))
        };
        Self { owners: (0..most).flat_map(round).collect() }
    }

    /// Returns the client and the request of each slot.
    pub(super) fn requests(&self, clients: &[Vec<Request>]) -> Vec<(ClientId, Request)> {
        let asked = |(client, place): &(ClientId, usize)| {
            Some((*client, clients.get(*client as usize - 1)?.get(*place)?.clone()))
        };
        self.owners.iter().filter_map(asked).collect()
    }

    /// Returns the client whose operation runs in a slot.
    pub(super) fn client(&self, slot: u32) -> ClientId {
        self.owners.get(slot as usize - 1).map_or(slot, |(client, _)| *client)
    }

    fn slot(&self, client: ClientId, place: usize) -> Option<u32> {
        let at = self.owners.iter().position(|owner| *owner == (client, place))?;
        u32::try_from(at + 1).ok()
    }
}

/// Result of a scheduled execution, in addition to its observation.
#[derive(Clone, Debug, Default)]
pub(super) struct Scheduled {
    /// The client of each step.
    pub(super) schedule: Vec<ClientId>,
    /// Number of visible calls that had returned before each step.
    pub(super) calls_before: Vec<u32>,
    /// A one-word name of each step.
    pub(super) names: Vec<String>,
    /// The steps.
    pub(super) steps: Vec<Step>,
    /// The explorer abandoned the execution.
    pub(super) was_abandoned: bool,
    /// The planned kill of a client took place.
    pub(super) has_killed: bool,
    /// Two threads of a client were before a visible call at the same time: their order was random.
    pub(super) has_unscheduled_threads: bool,
    /// A client was still running, without visible calls, when all others had stopped.
    pub(super) has_sleepers: bool,
    /// A client slept until something changed, or continued to poll without a change.
    pub(super) has_polled: bool,
    /// Time passed for a client in a sleep, because no other client could run.
    pub(super) time_passed: bool,
    /// An operation left surviving processes, which are not scheduled.
    pub(super) has_survivors: bool,
    /// A client waited for a lock with a timer, and might have given up while others ran.
    pub(super) has_timers: bool,
    /// It had more than the maximum number of steps.
    pub(super) is_too_long: bool,
    /// A chosen step could not be made: the store diverged.
    pub(super) has_diverged: bool,
}

/// Lets the explorer schedule the tracer's clients.
pub(super) struct Scheduling<'a> {
    explorer: &'a mut dyn Explorer,
    slots: Slots,
    clients: Vec<Client>,
    kill: Option<KillAt>,
    /// Footprints of invocations and returns.
    interval: [Footprint; 2],
    /// The running step.
    under_way: Option<UnderWay>,
    passed: u32,
    /// Number of calls reported so far.
    seen_calls: usize,
    pub(super) done: Scheduled,
}

struct UnderWay {
    client: ClientId,
    slot: u32,
    footprint: Footprint,
    /// Footprint of the call itself, if it was treated as a wait.
    own: Footprint,
    is_sleep: bool,
    /// Whether the step includes the return of the operation.
    returns: bool,
}

/// A step of a client that changed nothing.
#[derive(Clone, Debug, PartialEq)]
struct Attempt {
    footprint: Footprint,
    /// Whether the step failed to get an exclusive resource: a lock, or a new name.
    is_vain: bool,
}

/// A client and its progress.
#[derive(Clone, Debug, Default)]
struct Client {
    /// Index of its current operation.
    place: usize,
    is_invoked: bool,
    /// Number of visible calls of its current operation.
    calls: u32,
    /// Its steps since its last sleep or change.
    iteration: Vec<Attempt>,
    /// Whether these steps changed anything.
    has_changed: bool,
    /// Whether others changed something that it had looked at since.
    is_woken: bool,
    /// Whether it has done nothing since its last sleep.
    has_slept: bool,
    /// Number of times that it may continue after a sleep without a change.
    wakes: u32,
}

impl Client {
    /// Whether the client polls: it looks again at what it has seen, until something changes.
    fn waits_in(&self, turn: &ClientSnapshot) -> bool {
        if self.has_changed || self.is_woken {
            return false;
        }
        match turn.sleeps {
            // A client that sleeps repeatedly polls something that is not visible.
            Some(_) => !self.iteration.is_empty() || self.has_slept,
            // A successful call makes progress, such as the next part of a long read.
            None => {
                let alike = self
                    .iteration
                    .iter()
                    .filter(|attempt| attempt.is_vain && attempt.footprint == turn.footprint);
                alike.count() >= SPINS_MAX
            }
        }
    }

    /// Returns the footprint of its polling: what it waits to see changed.
    fn watched(&self) -> Footprint {
        let mut watched = Footprint::default();
        for Attempt { footprint, .. } in &self.iteration {
            watched.is_unknown |= footprint.is_unknown;
            for (resource, access) in &footprint.touched {
                let how = if *access == Access::Other { Access::Other } else { Access::Read };
                watched.touched.push((resource.clone(), how));
            }
            watched.locks.extend(footprint.locks.iter().map(|locking| Locking::Try(*locking.lock())));
        }
        watched
    }
}

impl<'a> Scheduling<'a> {
    pub(super) fn new(explorer: &'a mut dyn Explorer, interleaving: &Interleaving, slots: Slots) -> Self {
        let client = Client { wakes: interleaving.wakes, ..Client::default() };
        Self {
            explorer,
            slots,
            clients: vec![client; interleaving.clients.len()],
            kill: interleaving.kill,
            interval: match interleaving.ignores_real_time {
                true => Default::default(),
                false => [invocation(), returning()],
            },
            under_way: None,
            passed: 0,
            seen_calls: 0,
            done: Scheduled::default(),
        }
    }

    /// Completes the last step at the end of the execution, if it is still open. `calls` are all calls of the
    /// execution.
    pub(super) fn end(&mut self, calls: &[Call]) {
        let slot = self.under_way.as_ref().map(|step| step.slot);
        let new = calls.get(self.seen_calls..).unwrap_or_default();
        let own: Vec<&Call> = new.iter().filter(|call| Some(call.client) == slot).collect();
        let had_step = self.under_way.is_some();
        self.complete(&own, true);
        if had_step {
            self.explorer.end(&[]);
        }
    }

    /// Records that the running step has been made.
    fn complete(&mut self, calls: &[&Call], has_ended: bool) {
        let Some(step) = self.under_way.take() else { return };
        let UnderWay { client, mut footprint, own: own_footprint, is_sleep, returns, .. } = step;
        // When a child ends it releases locks, which nothing could predict.
        for change in calls.iter().flat_map(|call| &call.locks) {
            if let LockChange::Released(lock, _) = change
                && !footprint.locks.contains(&Locking::Free(*lock))
            {
                footprint.locks.push(Locking::Free(*lock));
            }
        }
        if has_ended && !returns {
            footprint.touched.extend(self.interval[1].touched.iter().cloned());
        }
        let has_changed = calls.iter().any(|call| has_effect(call));
        let awaited = |other: &Client| has_changed && other.watched().conflicts(&footprint);
        let index = client as usize - 1;
        for (other, known) in self.clients.iter_mut().enumerate() {
            if other != index && awaited(known) {
                known.is_woken = true;
            }
        }
        let own = &mut self.clients[index];
        if is_sleep {
            own.iteration.clear();
            (own.has_changed, own.is_woken, own.has_slept) = (false, false, true);
        } else if !footprint.is_empty() {
            let is_vain = calls.iter().any(|call| is_refusal(call));
            let attempt = Attempt { footprint: own_footprint, is_vain };
            // Repeated reads are one look at the same thing.
            if is_vain || !own.iteration.contains(&attempt) {
                own.iteration.push(attempt);
            }
            own.has_slept = false;
            own.has_changed |= has_changed;
        }
        if has_ended {
            let wakes = own.wakes;
            *own = Client { place: own.place + 1, wakes, ..Client::default() };
        }
        let step = Step { client, footprint };
        self.done.steps.push(step.clone());
        self.explorer.executed(step);
    }

    fn is_killed_now(&self, client: ClientId, turn: &ClientSnapshot) -> bool {
        let state = &self.clients[client as usize - 1];
        self.kill.is_some_and(|kill| {
            kill.client == client && state.place == 0 && (state.calls + 1 == kill.before || turn.is_exit)
        })
    }

    /// Lists the next step of each client.
    fn pending(&mut self, scene: &Snapshot<'_>) -> Vec<Pending> {
        let mut pending = Vec::new();
        let mut sleepers: Vec<(Duration, usize)> = Vec::new();
        for client in (1..).take(self.clients.len()) {
            let state = &self.clients[client as usize - 1];
            let Some(turn) = self.turn_of(client, scene) else { continue };
            if !state.is_invoked {
                pending.push(Pending { client, footprint: self.interval[0].clone(), is_enabled: true });
                continue;
            }
            if turn.rest != ClientState::Held {
                self.done.has_sleepers = true;
                continue;
            }
            self.done.has_unscheduled_threads |= turn.has_others;
            if self.is_killed_now(client, turn) {
                let footprint = turn
                    .holds
                    .iter()
                    .fold(self.interval[1].clone(), |all, lock| all.locking(Locking::Free(*lock)));
                pending.push(Pending { client, footprint, is_enabled: true });
                continue;
            }
            let mut footprint = turn.footprint.clone();
            let mut is_enabled = turn.can_go;
            self.done.has_timers |= !is_enabled && turn.has_timer;
            if turn.is_exit {
                footprint.touched.extend(self.interval[1].touched.iter().cloned());
            }
            if state.waits_in(turn) {
                self.done.has_polled = true;
                if state.wakes == 0 {
                    is_enabled = false;
                    sleepers.push((turn.sleeps.unwrap_or_default(), pending.len()));
                    footprint = state.watched();
                    footprint.touched.extend(turn.footprint.touched.iter().cloned());
                    footprint.locks.extend(turn.footprint.locks.iter().copied());
                }
            } else if turn.sleeps.is_some() && state.is_woken && state.wakes == 0 {
                footprint = state.watched();
            }
            pending.push(Pending { client, footprint, is_enabled });
        }
        if pending.iter().all(|one| !one.is_enabled) && self.passed < PATIENCE {
            // No client can change anything: time passes for the one that wakes first.
            if let Some((_, first)) = sleepers.into_iter().min() {
                self.passed += 1;
                self.done.time_passed = true;
                pending[first].is_enabled = true;
            }
        }
        pending
    }

    fn turn_of<'s>(&self, client: ClientId, scene: &Snapshot<'s>) -> Option<&'s ClientSnapshot> {
        let place = self.clients[client as usize - 1].place;
        scene.turns.get(self.slots.slot(client, place)? as usize - 1)
    }

    fn has_sleeper(&self, scene: &Snapshot<'_>) -> bool {
        let rests = (1..).take(self.clients.len()).filter_map(|client| self.turn_of(client, scene));
        rests.into_iter().any(|turn| turn.rest == ClientState::Sleeps)
    }

    /// Returns the next operation to be started, which is one whose client has no other running.
    fn to_start(&self, scene: &Snapshot<'_>) -> Option<u32> {
        (1..).take(self.clients.len()).find_map(|client| {
            let slot = self.slots.slot(client, self.clients[client as usize - 1].place)?;
            let turn = scene.turns.get(slot as usize - 1)?;
            (turn.rest == ClientState::NotStarted).then_some(slot)
        })
    }

    fn go(&mut self, client: ClientId, pending: &[Pending], scene: &Snapshot<'_>) -> SchedulerAction {
        let place = self.clients[client as usize - 1].place;
        let chosen = pending.iter().find(|one| one.client == client && one.is_enabled);
        let (Some(slot), Some(chosen), Some(turn)) =
            (self.slots.slot(client, place), chosen, self.turn_of(client, scene))
        else {
            self.done.has_diverged = true;
            return self.give_up(pending);
        };
        let is_killed = self.is_killed_now(client, turn);
        let waits = self.clients[client as usize - 1].waits_in(turn);
        let state = &mut self.clients[client as usize - 1];
        let is_invocation = !std::mem::replace(&mut state.is_invoked, true);
        let is_sleep = !is_invocation && turn.sleeps.is_some();
        if !is_invocation && !is_sleep {
            state.calls += 1;
        }
        if !is_invocation && waits {
            state.wakes = state.wakes.saturating_sub(1);
        }
        self.done.schedule.push(client);
        self.done.calls_before.push(u32::try_from(self.seen_calls).unwrap_or(u32::MAX));
        self.done.names.push(match (is_invocation, is_killed) {
            (true, _) => "invocation".to_owned(),
            (false, true) => "kill".to_owned(),
            (false, false) if turn.label.is_empty() => turn.name.to_owned(),
            (false, false) => turn.label.clone(),
        });
        let returns = !is_invocation && (turn.is_exit || is_killed);
        self.under_way = Some(UnderWay {
            client,
            slot,
            footprint: chosen.footprint.clone(),
            own: turn.footprint.clone(),
            is_sleep,
            returns,
        });
        match (is_invocation, is_killed) {
            (true, _) => SchedulerAction::Invoke(slot),
            (false, true) => {
                self.done.has_killed = true;
                self.kill = None;
                SchedulerAction::Kill(slot)
            }
            (false, false) => SchedulerAction::Release(slot),
        }
    }

    fn give_up(&mut self, pending: &[Pending]) -> SchedulerAction {
        self.explorer.end(pending);
        SchedulerAction::Nothing
    }
}

impl Director for Scheduling<'_> {
    fn treat(&mut self, _upcoming: &Upcoming) -> CallAction {
        CallAction::Go
    }

    fn rest(&mut self, _clients: &[ClientState]) -> SchedulerAction {
        SchedulerAction::Nothing
    }

    fn turn(&mut self, scene: &Snapshot<'_>) -> SchedulerAction {
        self.seen_calls += scene.calls.len();
        if let Some(step) = &self.under_way {
            let slot = step.slot;
            let has_ended =
                scene.turns.get(slot as usize - 1).is_some_and(|turn| turn.rest == ClientState::Ended);
            let calls: Vec<&Call> = scene.calls_of(slot).collect();
            self.complete(&calls, has_ended);
        }
        if let Some(slot) = self.to_start(scene) {
            return SchedulerAction::Start(slot);
        }
        let pending = self.pending(scene);
        if pending.iter().all(|one| !one.is_enabled) {
            // A client in a sleep that is not scheduled may wake.
            if self.has_sleeper(scene) || scene.may_wake {
                self.done.has_sleepers = true;
                return SchedulerAction::Again;
            }
            return self.give_up(&pending);
        }
        if self.done.schedule.len() >= STEPS_MAX {
            (self.done.was_abandoned, self.done.is_too_long) = (true, true);
            return self.give_up(&pending);
        }
        match self.explorer.choose(&pending) {
            Choice::Go(client) => self.go(client, &pending, scene),
            Choice::Abandon => {
                self.done.was_abandoned = true;
                self.give_up(&pending)
            }
        }
    }
}

/// Whether a call failed to get an exclusive resource.
fn is_refusal(call: &Call) -> bool {
    let is_lock = call.class == Class::Lock;
    match &call.result {
        Some(Err(Errno(libc::EEXIST))) => true,
        Some(Err(Errno(libc::EAGAIN | libc::EACCES))) => is_lock,
        _ => false,
    }
}

/// Whether a call changed anything visible to others: the content of a file, names, or the owner of a lock.
fn has_effect(call: &Call) -> bool {
    let changes_lock =
        call.locks.iter().any(|change| matches!(change, LockChange::Taken(..) | LockChange::Released(..)));
    let is_open = call.class == Class::Open;
    let changes_files = match &call.effect {
        Some(effect) => effect.is_change(),
        None => call.is_change() && !is_open && call.class != Class::Attribute,
    };
    changes_lock || changes_files
}

/// Replays a schedule, and continues by default after its end.
#[derive(Debug)]
pub(super) struct ReplayScheduler<'a> {
    schedule: &'a [ClientId],
    at: usize,
    last: Option<ClientId>,
    /// Skips steps that cannot be taken, instead of diverging.
    is_lenient: bool,
}

impl<'a> ReplayScheduler<'a> {
    pub(super) fn new(schedule: &'a [ClientId]) -> Self {
        Self { schedule, at: 0, last: None, is_lenient: false }
    }

    /// Replays the schedule as far as possible.
    pub(super) fn leniently(schedule: &'a [ClientId]) -> Self {
        Self { is_lenient: true, ..Self::new(schedule) }
    }
}

impl Explorer for ReplayScheduler<'_> {
    fn begin(&mut self) -> bool {
        true
    }

    fn choose(&mut self, pending: &[Pending]) -> Choice {
        let may_go = || pending.iter().filter(|one| one.is_enabled).map(|one| one.client);
        let can_go = |client: &ClientId| may_go().any(|other| other == *client);
        while self.is_lenient && self.schedule.get(self.at).is_some_and(|client| !can_go(client)) {
            self.at += 1;
        }
        let wanted = self.schedule.get(self.at).copied();
        self.at += 1;
        let next =
            wanted.or_else(|| may_go().find(|client| Some(*client) == self.last)).or_else(|| may_go().min());
        self.last = next;
        next.map_or(Choice::Abandon, Choice::Go)
    }

    fn executed(&mut self, _step: Step) {}

    fn end(&mut self, _blocked: &[Pending]) {}
}

impl ScriptRun<'_> {
    /// Runs one baseline operation with the clock where it was: alone on a schedule, so that its sleeps take no time
    /// either.
    pub(super) fn operate_ahead(
        &mut self,
        client: ClientId,
        request: Request,
    ) -> Result<Outcome, TraceError> {
        let began = self.now();
        let alone = Interleaving {
            clients: vec![vec![request.clone()]],
            wakes: 0,
            kill: None,
            schedule: Vec::new(),
            ignores_real_time: true,
        };
        let mut following = ReplayScheduler::new(&[]);
        let mut scheduling = Scheduling::new(&mut following, &alone, Slots::of(&alone.clients));
        let how = How { ahead: self.ahead, ..self.how().scheduled() };
        let traced = self.env.trace_of(&[(client, request.clone())], &mut scheduling, how)?;
        scheduling.end(&traced.calls);
        self.ahead = traced.ahead;
        self.has_copies |= traced.has_copies;
        self.turn += 1;
        (self.env.on_operation)();
        let Some(ended) = traced.operations.first() else { return Err(RunError::Stopped.into()) };
        let mut operation = self.operation(ended, request, began, false);
        operation.client = client;
        if operation.outcome == Outcome::Killed {
            // It was aborted because it polled longer than the limit.
            self.env.note_polling();
        }
        let outcome = operation.outcome.clone();
        self.operations.push(operation);
        Ok(outcome)
    }

    /// Runs the operations of some clients under the tracer, on the explorer's schedule.
    pub(super) fn interleave(
        &mut self,
        interleaving: &Interleaving,
        explorer: &mut dyn Explorer,
    ) -> Result<Scheduled, TraceError> {
        let began = self.now();
        let slots = Slots::of(&interleaving.clients);
        let asked = slots.requests(&interleaving.clients);
        let mut scheduling = Scheduling::new(explorer, interleaving, slots.clone());
        let how = How { ahead: self.ahead, ..self.how().scheduled() };
        let mut traced = self.env.trace_of(&asked, &mut scheduling, how)?;
        self.ahead = traced.ahead;
        scheduling.end(&traced.calls);
        let mut done = scheduling.done;
        done.has_survivors = traced.operations.iter().any(|ended| ended.survivors > 0);
        self.has_copies |= traced.has_copies;
        self.was_just_killed = false;
        if done.was_abandoned {
            return Ok(done);
        }
        for ended in &traced.operations {
            let Some((client, request)) = asked.get(ended.client as usize - 1).cloned() else { continue };
            let mut operation = self.operation(ended, request, began, false);
            operation.client = client;
            self.was_just_killed |= ended.end == End::Killed;
            self.operations.push(operation);
            (self.env.on_operation)();
        }
        for stuck in &mut traced.stuck {
            stuck.client = slots.client(stuck.client);
            for (_, holders) in &mut stuck.wants {
                let of_clients: BTreeSet<ClientId> = holders.iter().map(|slot| slots.client(*slot)).collect();
                *holders = of_clients.into_iter().collect();
            }
        }
        self.was_injected |= interleaving.kill.is_none() || done.has_killed;
        self.turn += 1;
        let (owners, requests): (Vec<ClientId>, Vec<Request>) = asked.into_iter().unzip();
        self.keep(requests, traced, interleaving.kill.is_none(), began);
        if let Some(trace) = self.traces.last_mut().filter(|_| owners.len() > interleaving.clients.len()) {
            trace.clients = owners;
        }
        self.look(false);
        Ok(done)
    }
}

//! Runs scheduled clients: each stops at every visible call and goes on one step at a time.

use std::thread;
use std::time::Duration;

use crate::call::Call;
use crate::explore::footprint::Footprint;
use crate::tracer::asleep::Sleep;
use crate::tracer::clock::{self, Timed};
use crate::tracer::machine::{Change, Held, LOOK_MAX, LOOK_MIN, Machine, Waiting, poll_or_none, resumed};
use crate::tracer::stopped::{Entry, Event, Stopped};
use crate::tracer::{
    ClientSnapshot, ClientState, Director, SchedulerAction, Snapshot, TracerError, registers,
};

/// Maximum number of yields while looking for an event, before it checks which threads sleep.
const YIELDS_MAX: u32 = 200;

/// The next action of a stopped client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// A visible call.
    Call,
    /// The exit of its first process.
    Exit,
    /// The exit of another process, which releases locks.
    OtherExit,
    /// The start of another program, which closes descriptors that hold locks.
    Exec,
    /// A sleep of this length.
    Sleep(Duration),
}

impl Machine<'_> {
    /// Returns the next event, or `None` if all threads are at rest.
    pub(super) fn next_scheduled_event(&mut self) -> Result<Option<Event>, TracerError> {
        let mut pause = LOOK_MIN;
        let mut yields = 0;
        loop {
            if let Some(event) = poll_or_none()? {
                return Ok(Some(event));
            }
            let is_starting = self.clients.iter().any(|client| client.starting.is_some());
            let held = self.held.len() + self.waiting.len() + self.freed.len();
            if !is_starting && !self.has_dying() && self.kernel.threads().count() == held {
                return Ok(None);
            }
            if yields < YIELDS_MAX {
                yields += 1;
                thread::yield_now();
                continue;
            }
            if self.is_at_rest() {
                return poll_or_none();
            }
            if self.deadline.is_over() {
                return Ok(None);
            }
            thread::sleep(pause);
            pause = (pause * 2).min(LOOK_MAX);
        }
    }

    /// Handles a thread of a scheduled client that is about to make a call.
    pub(super) fn scheduled_entry(&mut self, stopped: Stopped, entry: &Entry) -> Result<(), TracerError> {
        let thread = stopped.thread();
        let Some(client) = self.kernel.client_of(thread) else { return resumed(stopped.go_on(None)) };
        let has_ended = self.has_ended(client);
        if let Some(timed) = clock::of(thread, entry, self.ahead) {
            match timed {
                Timed::Sleep(span) if !has_ended => {
                    self.held.push(self.held_before(stopped, Before::Sleep(span)));
                    return Ok(());
                }
                Timed::Ask(asked) if !self.ahead.is_zero() => {
                    self.changed.insert(thread, Change::Clock(asked));
                    return resumed(stopped.run_to_exit());
                }
                _ => return resumed(stopped.go_on(None)),
            }
        }
        let is_visible = self.kernel.entry(thread, entry);
        let process = self.kernel.process_id(thread);
        let is_of_root = process.is_some_and(|process| self.root_of(process).is_some());
        let is_exit = entry.is_exit() && is_of_root;
        // Clients that wait for such a lock depend on it: if it were not a step of its own, different orders would be
        // taken for equivalent.
        let frees = entry.is_exit() && !is_of_root && !self.kernel.footprint_of_exit(thread).locks.is_empty();
        if !is_visible && !is_exit && !frees {
            return resumed(stopped.go_on(None));
        }
        if has_ended {
            // Processes left behind by an operation are not scheduled.
            return if is_visible { self.admit(stopped) } else { resumed(stopped.go_on(None)) };
        }
        let stopped = match is_visible && self.kernel.next_call_of(client) == 1 {
            true => match self.make_template(client, stopped, entry)? {
                Some(stopped) => stopped,
                None => return Ok(()),
            },
            false => stopped,
        };
        let before = match (is_visible, is_exit) {
            (true, _) => Before::Call,
            (false, true) => Before::Exit,
            (false, false) => Before::OtherExit,
        };
        self.held.push(self.held_before(stopped, before));
        Ok(())
    }

    pub(super) fn held_before(&self, stopped: Stopped, before: Before) -> Held {
        Held { thread: stopped.thread(), stopped, since: self.began.elapsed(), before }
    }

    /// Called when all threads are at rest: passes a snapshot to the director, and carries out its choice.
    pub(super) fn take_turn(&mut self, director: &mut dyn Director) -> Result<(), TracerError> {
        if self.deadline.is_over() {
            self.held.clear();
            self.waiting.clear();
            self.is_given_up |=
                self.clients.iter().all(|client| client.root.is_none() || client.returned.is_some());
            return self.pause();
        }
        self.go_on_after_the_end()?;
        let may_wake = self.running().iter().any(|(_, sleep)| matches!(sleep, Sleep::Awake | Sleep::Other));
        let turns: Vec<ClientSnapshot> =
            (1..).zip(&self.clients).map(|(number, client)| self.turn(number, client)).collect();
        let calls = self.kernel.calls.get(self.told_calls..).unwrap_or_default();
        let wanted = director.turn(&Snapshot { turns: &turns, calls, may_wake });
        self.told_calls = self.kernel.calls.len();
        match wanted {
            SchedulerAction::Start(number) => self.start(number),
            SchedulerAction::Invoke(number) => {
                let now = self.began.elapsed();
                if let Some(client) = self.client(number) {
                    client.invoked = now;
                }
                Ok(())
            }
            SchedulerAction::Release(number) => self.make_step(number),
            SchedulerAction::Kill(number) => {
                self.kill_client(number);
                Ok(())
            }
            SchedulerAction::Again | SchedulerAction::Fail(..) => self.pause(),
            SchedulerAction::Nothing => self.give_up(),
        }
    }

    /// Handles the case that no client is to continue: those waiting for a lock are stuck, unless a timer may end their
    /// wait.
    fn give_up(&mut self) -> Result<(), TracerError> {
        let waits = |held: &Held| self.kernel.awaited(held.thread);
        let Some(at) = self.held.iter().position(|held| {
            waits(held).is_some()
                && self.kernel.client_of(held.thread).is_some_and(|one| self.kernel.has_timer(one))
        }) else {
            let (blocked, held): (Vec<Held>, Vec<Held>) = std::mem::take(&mut self.held)
                .into_iter()
                .partition(|held| held.before == Before::Call && waits(held).is_some());
            self.held = held;
            for Held { thread, stopped, .. } in blocked {
                if let Some(lock) = self.kernel.awaited(thread) {
                    self.waiting.push(Waiting { thread, stopped, lock: Some(lock), file: lock.file });
                }
            }
            if !self.waiting.is_empty() && self.held.is_empty() {
                self.stuck = self.who_is_stuck(&self.running());
            }
            self.is_given_up = true;
            return Ok(());
        };
        let held = self.held.remove(at);
        resumed(held.stopped.run_to_exit())
    }

    fn turn(&self, number: u32, client: &super::Client<'_>) -> ClientSnapshot {
        let first = self.next_held(number).map(|at| &self.held[at]);
        let of_client = |held: &&Held| self.kernel.client_of(held.thread) == Some(number);
        let others = self.held.iter().filter(of_client).count() > 1;
        let rest = match (client.root, client.returned) {
            (None, _) => ClientState::NotStarted,
            (_, Some(_)) => ClientState::Ended,
            _ if first.is_some() => ClientState::Held,
            _ => ClientState::Sleeps,
        };
        let mut turn = ClientSnapshot {
            rest,
            footprint: Footprint::default(),
            can_go: first.is_some(),
            sleeps: None,
            is_exit: false,
            name: "",
            has_others: others,
            has_timer: self.kernel.has_timer(number),
            label: String::new(),
            holds: if first.is_some() { self.kernel.held_by(number) } else { Vec::new() },
        };
        match first.map(|held| (held.before, held.thread)) {
            Some((Before::Call, thread)) => {
                turn.footprint = self.kernel.footprint(thread);
                turn.name = self.kernel.pending(thread).map_or("", |pending| pending.shape.name);
                turn.can_go = first.is_some_and(|held| self.can_go(held));
                turn.label = self.kernel.label(thread);
            }
            Some((Before::Exit, thread)) => {
                turn.footprint = self.kernel.footprint_of_exit(thread);
                (turn.is_exit, turn.name) = (true, "exit");
            }
            Some((Before::OtherExit, thread)) => {
                turn.footprint = self.kernel.footprint_of_exit(thread);
                (turn.name, turn.label) = ("exit", "exit of a process".to_owned());
            }
            Some((Before::Exec, thread)) => {
                turn.footprint = self.kernel.footprint_of_exec(thread);
                (turn.name, turn.label) = ("execve", "execve of another program".to_owned());
            }
            Some((Before::Sleep(span), _)) => (turn.sleeps, turn.name) = (Some(span), "sleep"),
            None => {}
        }
        turn
    }

    /// Returns the index of the client's next stopped thread. Threads that can continue come first, then the oldest:
    /// the order in which they stopped is random.
    fn next_held(&self, number: u32) -> Option<usize> {
        let held = self.held.iter().enumerate();
        let of_client = held.filter(|(_, held)| self.kernel.client_of(held.thread) == Some(number));
        let order = |held: &Held| (!self.can_go(held), self.kernel.thread_number(held.thread));
        of_client.min_by_key(|(_, held)| order(held)).map(|(at, _)| at)
    }

    /// Whether the next action of a stopped thread is possible now.
    fn can_go(&self, held: &Held) -> bool {
        let awaited = self.kernel.awaited(held.thread).filter(|_| held.before == Before::Call);
        awaited.is_none_or(|lock| {
            self.kernel.is_conversion(&lock)
                || self.kernel.obstacles(&lock).is_empty()
                || self.closes_posix_cycle(&lock)
        })
    }

    /// Releases the processes left by an operation that has ended: they are no longer scheduled.
    pub(super) fn let_survivors_go(&mut self, number: u32) {
        let (left, held): (Vec<Held>, Vec<Held>) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|held| self.kernel.client_of(held.thread) == Some(number));
        self.held = held;
        self.freed.extend(left);
    }

    /// Resumes the processes that outlived their operation.
    fn go_on_after_the_end(&mut self) -> Result<(), TracerError> {
        for Held { stopped, before, .. } in std::mem::take(&mut self.freed) {
            match before {
                Before::Call => self.admit(stopped)?,
                Before::Exit | Before::OtherExit | Before::Exec | Before::Sleep(_) => {
                    resumed(stopped.go_on(None))?;
                }
            }
        }
        Ok(())
    }

    /// Makes the step of the client's first stopped thread that can continue.
    fn make_step(&mut self, number: u32) -> Result<(), TracerError> {
        let Some(at) = self.next_held(number) else { return Ok(()) };
        let Held { thread, stopped, before, .. } = self.held.remove(at);
        self.active = number;
        match before {
            Before::Exit | Before::OtherExit | Before::Exec => resumed(stopped.go_on(None)),
            Before::Sleep(span) => {
                self.ahead = self.ahead.saturating_add(span);
                registers::refuse(thread, 0).map_err(TracerError::system("skip a sleep"))?;
                resumed(stopped.go_on(None))
            }
            Before::Call => {
                self.kernel.look_again(thread);
                self.admit(stopped)
            }
        }
    }
}

/// Access to the calls that have returned since the last snapshot.
impl Snapshot<'_> {
    /// Returns the calls of this client.
    pub fn calls_of(&self, client: u32) -> impl Iterator<Item = &Call> {
        self.calls.iter().filter(move |call| call.client == client)
    }
}

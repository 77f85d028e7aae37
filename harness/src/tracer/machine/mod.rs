//! The machine: takes in one event after another, keeps who runs, who is held and who waits for a lock, and sees when
//! no client can make progress.

mod call;
mod client;
mod rest;
mod schedule;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::call::{Class, End, Leak, Spawn, Stuck};
use crate::locks::{FileId, Lock};
use crate::tracer::clock::{self, Asked};
use crate::tracer::kernel::{KernelModel, Pending};
use crate::tracer::path::Roots;
use crate::tracer::start::{Deadline, Started};
use crate::tracer::stopped::{Entry, Event, Stopped, poll, wait};
use crate::tracer::{CallAction, Director, Surroundings, Traceable, TracerError, Upcoming, spawn};

use schedule::Before;

/// Pause between two checks for sleeping threads: short at first, because most calls are.
const LOOK_MIN: Duration = Duration::from_micros(50);
const LOOK_MAX: Duration = Duration::from_millis(5);
/// Time limit of a session with many requests, as a multiple of that of one operation.
const SESSION_TIMES: u32 = 3;
/// Consecutive unsuccessful attempts to get a lock after which other clients come first.
const SPINS_MAX: u32 = 50;
/// Maximum time to wait until surviving processes sleep.
const SURVIVORS_MAX: Duration = Duration::from_millis(500);

pub(super) struct Machine<'a> {
    surroundings: &'a Surroundings<'a>,
    clients: Vec<Client<'a>>,
    kernel: KernelModel,
    deadline: Deadline,
    began: Instant,
    held: Vec<Held>,
    /// Calls of surviving processes, which are made as soon as all have come to rest.
    freed: Vec<Held>,
    waiting: Vec<Waiting>,
    /// Calls of clients that do not have the turn, with their entries.
    parked: Vec<(Pid, Stopped, Entry)>,
    /// Unsuccessful lock attempts of each client since it last changed something.
    spins: BTreeMap<u32, u32>,
    /// Client that tried so often that the others have to come first.
    yielded: Option<u32>,
    /// Client that has the turn: the calls of all others wait until it has come to rest.
    active: u32,
    /// Threads that were let into a call that may change a lock, with the locked file.
    in_flight: BTreeMap<Pid, FileId>,
    /// What to do when a call returns that was changed at its entry.
    changed: BTreeMap<Pid, Change>,
    /// Threads that repeat a call which the injector has already seen.
    again: BTreeSet<Pid>,
    /// Number of reads of the data, and when it was found torn.
    readings: u64,
    torn: Vec<(Duration, String)>,
    /// Last content of the shown file; nothing if there was none.
    last_content: Option<Vec<u8>>,
    /// Starts of processes, threads and programs.
    spawns: Vec<Spawn>,
    stuck: Vec<Stuck>,
    leaks: Vec<Leak>,
    /// How far the clock of scheduled clients is ahead.
    ahead: Duration,
    /// Number of calls reported to the injector of scheduled clients.
    told_calls: usize,
    /// Consecutive looks at which all threads slept, though some had been awake in between.
    restless: Cell<u32>,
    /// Whether clients are no longer waited for.
    is_given_up: bool,
}

struct Client<'a> {
    traceable: &'a Traceable<'a>,
    output: Option<(File, File)>,
    /// State of its start, until its program runs.
    starting: Option<Started>,
    root: Option<Pid>,
    /// When its process was started.
    started: Duration,
    invoked: Duration,
    returned: Option<(Duration, End)>,
    survivors: usize,
    still: Option<Duration>,
    /// Whether it is a copy of a template.
    is_copy: bool,
    /// The process that it is a copy of.
    made_of: Option<Pid>,
    /// Whether the director wanted all of it dead.
    is_killed: bool,
    /// Whether one of its processes was killed alone: the operation then ends with the last of the others.
    is_maimed: bool,
}

/// A call that is not made until the injector releases its client.
struct Held {
    thread: Pid,
    stopped: Stopped,
    since: Duration,
    /// What it is about to do.
    before: Before,
}

/// A call that is not made until a lock is free.
struct Waiting {
    thread: Pid,
    stopped: Stopped,
    lock: Option<Lock>,
    file: FileId,
}

/// What to do when a call returns that was changed at its entry.
enum Change {
    /// Restores an argument, because the kernel keeps the registers; then kills all processes, if requested.
    Argument { index: usize, value: u64, then_kill: bool },
    /// Restores a number in memory.
    Memory { address: u64, value: u64, index: usize, argument: u64, then_kill: bool },
    /// Makes the call again.
    Again(Entry),
    /// Reports that the call failed with this error number.
    Result(i32),
    /// Answers a call that asked for the time with a time that is ahead.
    Clock(Asked),
}

impl<'a> Machine<'a> {
    pub(super) fn new(
        surroundings: &'a Surroundings<'a>,
        traceables: &'a [Traceable<'a>],
    ) -> Result<Self, TracerError> {
        let real = |folder: &Path| folder.canonicalize().map_err(TracerError::system("find the sandbox"));
        let sandbox =
            Roots { sandbox: real(surroundings.sandbox)?, temporary: real(surroundings.temporary)? };
        let clients = traceables.iter().map(|traceable| Client {
            traceable,
            output: None,
            starting: None,
            root: None,
            started: Duration::ZERO,
            invoked: Duration::ZERO,
            returned: None,
            survivors: 0,
            still: None,
            is_copy: false,
            made_of: None,
            is_killed: false,
            is_maimed: false,
        });
        Ok(Self {
            surroundings,
            clients: clients.collect(),
            kernel: KernelModel::new(sandbox, surroundings.is_detailed),
            // The time of one operation for each client, because one waits while another has the turn.
            deadline: Deadline::new(
                span_of(surroundings, traceables.len()),
                surroundings.is_alone,
                surroundings.stop,
            )?,
            began: Instant::now(),
            held: Vec::new(),
            freed: Vec::new(),
            waiting: Vec::new(),
            parked: Vec::new(),
            spins: BTreeMap::new(),
            yielded: None,
            active: 1,
            in_flight: BTreeMap::new(),
            changed: BTreeMap::new(),
            again: BTreeSet::new(),
            last_content: surroundings.shown.as_ref().and_then(|path| std::fs::read(path).ok()),
            readings: 0,
            torn: Vec::new(),
            spawns: Vec::new(),
            stuck: Vec::new(),
            leaks: Vec::new(),
            ahead: surroundings.ahead,
            told_calls: 0,
            restless: Cell::new(0),
            is_given_up: false,
        })
    }

    /// Runs until every client that was started has ended, or none can make progress.
    pub(super) fn run(&mut self, director: &mut dyn Director) -> Result<(), TracerError> {
        while !self.is_over() {
            match self.next_event()? {
                Some(event) => self.take(event, director)?,
                None if self.surroundings.is_scheduled => self.take_turn(director)?,
                None => self.come_to_rest(director)?,
            }
            self.wake()?;
        }
        if !self.deadline.is_over() {
            self.look_at_survivors(director)?;
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        let started = || self.numbered().filter(|(_, client)| client.root.is_some());
        let all_done = started().all(|(number, client)| self.is_done(number, client));
        // A client that was not started yet may still be.
        let none_to_start = self.clients.iter().all(|client| client.root.is_some());
        self.is_given_up || (all_done && none_to_start) || (self.deadline.is_over() && all_ended(started()))
    }

    fn numbered(&self) -> impl Iterator<Item = (u32, &Client<'a>)> {
        (1..).zip(self.clients.iter())
    }

    fn client(&mut self, number: u32) -> Option<&mut Client<'a>> {
        self.clients.get_mut(usize::try_from(number).ok()?.checked_sub(1)?)
    }

    /// Returns the next event; nothing if all clients that can run by themselves are at rest, and another could run.
    fn next_event(&mut self) -> Result<Option<Event>, TracerError> {
        if self.surroundings.is_scheduled {
            return self.next_scheduled_event();
        }
        let mut pause = LOOK_MIN;
        loop {
            let nobody_is_held = self.held.is_empty() && self.waiting.is_empty() && self.parked.is_empty();
            if !self.surroundings.is_interactive
                && nobody_is_held
                && self.clients.iter().all(|client| client.root.is_some())
                && !self.has_maimed()
            {
                return wait().map(Some);
            }
            if let Some(event) = poll_or_none()? {
                return Ok(Some(event));
            }
            if self.is_at_rest() {
                // A thread that ended between the two looks appears to sleep; its event has arrived by now.
                return poll_or_none();
            }
            if self.deadline.is_over() {
                return Ok(None);
            }
            thread::sleep(pause);
            pause = (pause * 2).min(LOOK_MAX);
        }
    }

    fn has_maimed(&self) -> bool {
        self.clients.iter().any(|client| client.is_maimed)
    }

    /// Returns the client whose first process is this thread.
    fn root_of(&self, thread: Pid) -> Option<u32> {
        self.numbered().find(|(_, client)| client.root == Some(thread)).map(|(number, _)| number)
    }

    fn take(&mut self, event: Event, director: &mut dyn Director) -> Result<(), TracerError> {
        if let Some(event) = self.take_on_the_way(event)? {
            self.take_running(event, director)?;
        }
        Ok(())
    }

    /// Handles events of a child before its program runs: until then nothing that it does is the store's.
    fn take_on_the_way(&mut self, event: Event) -> Result<Option<Event>, TracerError> {
        let Some(number) = self.root_of(event.thread()) else { return Ok(Some(event)) };
        let Some(started) = self.client(number).and_then(|client| client.starting.take()) else {
            return Ok(Some(event));
        };
        match event {
            Event::Executed(stopped, _) => {
                self.hide_clock(stopped.thread());
                self.kernel.client_started(number, stopped.thread());
                resumed(stopped.go_on(None))?;
                return Ok(None);
            }
            Event::Ended(root, _) if self.deadline.is_over() => {
                self.deadline.forget(root);
                let (now, end) = (self.began.elapsed(), self.deadline.end());
                if let Some(client) = self.client(number) {
                    client.returned = Some((now, end));
                }
                return Ok(None);
            }
            Event::Ended(root, _) => {
                self.deadline.forget(root);
                self.client(number).map(|client| client.root.take());
                return Err(started.failure());
            }
            Event::Entry(stopped, _)
            | Event::Exit(stopped, _)
            | Event::Begun(stopped)
            | Event::Born(stopped, _) => resumed(stopped.go_on(None))?,
            Event::Signal(stopped, signal) => resumed(stopped.go_on(Some(signal)))?,
            Event::GroupStop(stopped) => resumed(stopped.stay_stopped())?,
        }
        if let Some(client) = self.client(number) {
            client.starting = Some(started);
        }
        Ok(None)
    }

    fn take_running(&mut self, event: Event, director: &mut dyn Director) -> Result<(), TracerError> {
        match event {
            Event::Ended(thread, end) => {
                self.ended(thread, end);
                Ok(())
            }
            Event::Entry(stopped, entry) if entry.asks_for_pid() => self.tell_pid(stopped),
            Event::Entry(stopped, entry) => match spawn::name(&entry) {
                Some(name) => self.spawn(stopped, &entry, name, director),
                None => self.entry(stopped, &entry, director),
            },
            Event::Exit(stopped, result) => self.exit(stopped, result),
            Event::Born(stopped, child) => {
                self.kernel.born(child, Some(stopped.thread()));
                resumed(stopped.go_on(None))
            }
            Event::Executed(stopped, former) => {
                self.hide_clock(stopped.thread());
                self.kernel.executed(stopped.thread(), former);
                self.forget_the_gone();
                resumed(stopped.go_on(None))
            }
            Event::Begun(stopped) => {
                self.kernel.born(stopped.thread(), None);
                let client = self.kernel.client_of(stopped.thread());
                // Its parent was killed while it was being created.
                if client.is_some_and(|number| self.client(number).is_some_and(|client| client.is_killed)) {
                    kill_processes(&[stopped.thread()]);
                    return Ok(());
                }
                resumed(stopped.go_on(None))
            }
            Event::GroupStop(stopped) => resumed(stopped.stay_stopped()),
            Event::Signal(stopped, signal) => resumed(stopped.go_on(Some(signal))),
        }
    }

    fn hide_clock(&self, thread: Pid) {
        if self.surroundings.is_scheduled {
            clock::hide_fast_clock(thread);
        }
    }

    fn ended(&mut self, thread: Pid, end: End) {
        let now = self.began.elapsed();
        let is_over = self.deadline.is_over();
        let root_of = self.root_of(thread);
        let owner = self.kernel.client_of(thread);
        self.kernel.thread_ended(thread, end);
        self.forget_the_gone();
        let Some(number) = root_of else {
            // An operation that lost a process ends with the last of the others.
            let is_last = |number: &u32| self.kernel.processes_of(*number).is_empty();
            if let Some(client) = owner.filter(is_last).and_then(|number| self.client(number))
                && client.is_maimed
                && let Some((returned, _)) = &mut client.returned
            {
                *returned = now;
            }
            return;
        };
        self.deadline.forget(thread);
        let survivors = self.kernel.processes_of(number).len();
        let unfinished = self.deadline.end();
        let Some(client) = self.client(number) else { return };
        let end = if client.is_killed {
            End::Killed
        } else if is_over {
            unfinished
        } else {
            end
        };
        client.survivors = if client.is_killed { 0 } else { survivors };
        client.returned = Some((now, end));
        if survivors > 0 && self.surroundings.is_scheduled {
            self.let_survivors_go(number);
        }
    }

    /// Drops everything that waits for threads that are gone.
    fn forget_the_gone(&mut self) {
        let living: BTreeSet<Pid> = self.kernel.threads().collect();
        self.held.retain(|held| living.contains(&held.thread));
        self.freed.retain(|held| living.contains(&held.thread));
        self.waiting.retain(|waiting| living.contains(&waiting.thread));
        self.parked.retain(|(thread, ..)| living.contains(thread));
        self.in_flight.retain(|thread, _| living.contains(thread));
        self.changed.retain(|thread, _| living.contains(thread));
    }

    fn entry(
        &mut self,
        stopped: Stopped,
        entry: &Entry,
        director: &mut dyn Director,
    ) -> Result<(), TracerError> {
        if self.surroundings.is_scheduled {
            return self.scheduled_entry(stopped, entry);
        }
        let thread = stopped.thread();
        let owner = self.kernel.client_of(thread);
        let has_turn = |client: u32| client == self.active || self.has_ended(self.active);
        // A client that tries repeatedly lets the others run, and a client that runs while another dies waits for that.
        let spins = owner.and_then(|client| self.spins.get(&client)).copied().unwrap_or(0);
        let some_wait = !self.parked.is_empty() || !self.held.is_empty();
        let yields = spins >= SPINS_MAX && some_wait && owner == Some(self.active);
        let waits_for_death = self.has_dying()
            && owner.is_some_and(|client| {
                self.clients.iter().zip(1..).any(|(known, number)| number == client && !known.is_killed)
            });
        if (yields || waits_for_death) && self.kernel.may_be_visible(entry) {
            if let (true, Some(client)) = (yields, owner) {
                self.spins.remove(&client);
                self.yielded = Some(client);
            }
            self.parked.push((thread, stopped, *entry));
            return Ok(());
        }
        if owner.is_some_and(|client| !has_turn(client) && !self.has_ended(client))
            && self.kernel.may_be_visible(entry)
        {
            self.parked.push((thread, stopped, *entry));
            return Ok(());
        }
        let is_visible = self.kernel.entry(thread, entry);
        let process = self.kernel.process_id(thread);
        let is_exit = entry.is_exit() && process.is_some_and(|process| self.root_of(process).is_some());
        let Some(client) = self.kernel.client_of(thread).filter(|_| is_visible || is_exit) else {
            return resumed(stopped.go_on(None));
        };
        let index = self.kernel.next_call_of(client);
        let stopped = match is_visible && index == 1 {
            true => match self.make_template(client, stopped, entry)? {
                Some(stopped) => stopped,
                None => return Ok(()),
            },
            false => stopped,
        };
        let pending = self.kernel.pending(thread).filter(|_| is_visible);
        let length = pending.and_then(Pending::length);
        // The injector does not control what an operation leaves behind when it has ended.
        let has_ended = self.has_ended(client);
        let was_seen = self.again.remove(&thread);
        let treatment = match has_ended || was_seen {
            true => CallAction::Go,
            false => director.treat(&Upcoming {
                client,
                index,
                name: pending.map_or("exit", |pending| pending.shape.name),
                creates: pending.is_some_and(|pending| pending.creates && pending.was_missing),
                changes: pending.is_some_and(|pending| {
                    pending.creates || matches!(pending.shape.class, Class::Write | Class::Name)
                }),
                asks_for_lock: pending
                    .and_then(|pending| pending.wants)
                    .is_some_and(|wanted| wanted.mode.is_some()),
                length,
                is_exit,
            }),
        };
        match treatment {
            CallAction::Hold => {
                self.held.push(Held { thread, stopped, since: self.began.elapsed(), before: Before::Call });
                Ok(())
            }
            CallAction::Kill => {
                self.kill_client(client);
                Ok(())
            }
            CallAction::KillProcess => {
                if let Some(client) = self.client(client) {
                    client.is_maimed = true;
                }
                kill_processes(&process.into_iter().collect::<Vec<_>>());
                Ok(())
            }
            CallAction::KillOther(number) => {
                let other = self.kernel.process_of_number(client, number).filter(|pid| Some(*pid) != process);
                if let (Some(client), true) = (self.client(client), other.is_some()) {
                    client.is_maimed = true;
                }
                kill_processes(&other.into_iter().collect::<Vec<_>>());
                self.held.push(Held { thread, stopped, since: self.began.elapsed(), before: Before::Call });
                Ok(())
            }
            CallAction::Go if is_exit => resumed(stopped.go_on(None)),
            CallAction::Go => self.admit(stopped),
            CallAction::Fail(errno) => self.fail(stopped, errno),
            CallAction::LimitSize => self.limit_size(stopped, length.unwrap_or(0)),
            CallAction::Shorten(length) => self.shorten(stopped, length, false),
            CallAction::Tear(length) => self.shorten(stopped, length, true),
        }
    }

    fn has_ended(&self, number: u32) -> bool {
        let client = usize::try_from(number).ok().and_then(|number| self.clients.get(number.checked_sub(1)?));
        client.is_none_or(|client| self.is_done(number, client))
    }

    /// Whether an operation has ended; one that lost a process ends only with the last of the others.
    fn is_done(&self, number: u32, client: &Client<'_>) -> bool {
        client.returned.is_some() && (!client.is_maimed || self.kernel.processes_of(number).is_empty())
    }
}

/// Returns the time that these operations may take together.
fn span_of(surroundings: &Surroundings<'_>, operations: usize) -> Duration {
    let times =
        u32::try_from(operations).unwrap_or(1) * if surroundings.is_interactive { SESSION_TIMES } else { 1 };
    let span = surroundings.timeout.saturating_mul(times);
    surroundings.end.map_or(span, |end| span.min(end.saturating_duration_since(Instant::now())))
}

fn all_ended<'b, 'a: 'b>(mut clients: impl Iterator<Item = (u32, &'b Client<'a>)>) -> bool {
    clients.all(|(_, client)| client.returned.is_some())
}

fn poll_or_none() -> Result<Option<Event>, TracerError> {
    match poll() {
        // No process exists yet.
        Err(TracerError::System { why, .. }) if why.raw_os_error() == Some(libc::ECHILD) => Ok(None),
        polled => polled,
    }
}

/// Kills processes by `kill`, because the kernel may drop a signal that is injected at such a stop.
fn kill_processes(processes: &[Pid]) {
    for process in processes {
        // If it cannot be killed, it is gone already.
        let _killed = kill(*process, Signal::SIGKILL);
    }
}

fn resumed(resumed: Result<(), Errno>) -> Result<(), TracerError> {
    match resumed {
        // It was killed meanwhile; its end will be reported.
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(why) => Err(TracerError::System { what: "let a traced thread go on", why: io::Error::from(why) }),
    }
}

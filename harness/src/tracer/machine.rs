//! The machine: takes in one event after another, keeps who runs, who is held and who waits for a lock, and sees when
//! nobody can go on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::call::{Call, End, Ended, Leak, Stuck, Traced};
use crate::locks::{FileId, Kind, Lock, Owner};
use crate::tracer::asleep::{self, Sleep};
use crate::tracer::mirror::Mirror;
use crate::tracer::shape::Form;
use crate::tracer::start::{self, Deadline, Started};
use crate::tracer::stopped::{Entry, Event, Stopped, poll, wait};
use crate::tracer::{
    Director, Move, Rest, Surroundings, Templates, Traceable, TracerError, Treatment, Upcoming, content,
    memory, registers, scratch, template,
};

/// Between two looks at who sleeps: short at first, since most calls are.
const LOOK_MIN: Duration = Duration::from_micros(50);
const LOOK_MAX: Duration = Duration::from_millis(5);
/// Vain tries to get a lock, one after another, after which others come first.
const SPINS_MAX: u32 = 50;
/// How long it is waited until those that outlived their operation have come to sleep.
const SURVIVORS_MAX: Duration = Duration::from_millis(500);

pub(super) struct Machine<'a> {
    surroundings: &'a Surroundings<'a>,
    clients: Vec<Client<'a>>,
    mirror: Mirror,
    deadline: Deadline,
    began: Instant,
    held: Vec<Held>,
    waiting: Vec<Waiting>,
    /// Calls of clients whose turn it is not, with what they are.
    parked: Vec<(Pid, Stopped, Entry)>,
    /// How often each client tried in vain to get a lock, since it last changed something.
    spins: BTreeMap<u32, u32>,
    /// Who tried so often that the others have to come first.
    yielded: Option<u32>,
    /// Whose turn it is: the calls of all others wait until this one has come to rest.
    active: u32,
    /// Threads that were let into a call that may change a lock, by the locked file.
    in_flight: BTreeMap<Pid, FileId>,
    /// What is to be done when a call returns that was changed on its way in.
    changed: BTreeMap<Pid, Change>,
    /// Threads that make a call again which the director has seen already.
    again: BTreeSet<Pid>,
    /// How often the data was looked at, and when it was found torn.
    readings: u64,
    torn: Vec<(Duration, String)>,
    /// What the shown file held last; nothing where there was none.
    last_content: Option<Vec<u8>>,
    stuck: Vec<Stuck>,
    leaks: Vec<Leak>,
    /// No client is waited for any more.
    is_given_up: bool,
}

struct Client<'a> {
    traceable: &'a Traceable<'a>,
    output: Option<(File, File)>,
    /// On its way to its program.
    starting: Option<Started>,
    root: Option<Pid>,
    invoked: Duration,
    returned: Option<(Duration, End)>,
    survivors: usize,
    still: Option<Duration>,
    /// It is a copy of a template.
    is_copy: bool,
    /// The director wanted all of it dead.
    is_killed: bool,
    /// One of its processes was killed alone: the operation ends with the last of the others.
    is_maimed: bool,
}

/// A call that is not made until the director lets its client go on.
struct Held {
    thread: Pid,
    stopped: Stopped,
    since: Duration,
}

/// A call that is not made until a lock can be had.
struct Waiting {
    thread: Pid,
    stopped: Stopped,
    lock: Option<Lock>,
    file: FileId,
}

/// What is to be done when a call returns that was changed on its way in.
enum Change {
    /// An argument is set back to what it was, for the kernel keeps the registers; then all are killed, where wanted.
    Argument { index: usize, value: u64, then_kill: bool },
    /// A number in memory is set back.
    Memory { address: u64, value: u64, index: usize, argument: u64, then_kill: bool },
    /// The call is made again.
    Again(Entry),
}

impl<'a> Machine<'a> {
    pub(super) fn new(
        surroundings: &'a Surroundings<'a>,
        traceables: &'a [Traceable<'a>],
    ) -> Result<Self, TracerError> {
        let sandbox = surroundings.sandbox.canonicalize().map_err(TracerError::system("find the sandbox"))?;
        let clients = traceables.iter().map(|traceable| Client {
            traceable,
            output: None,
            starting: None,
            root: None,
            invoked: Duration::ZERO,
            returned: None,
            survivors: 0,
            still: None,
            is_copy: false,
            is_killed: false,
            is_maimed: false,
        });
        Ok(Self {
            surroundings,
            clients: clients.collect(),
            mirror: Mirror::new(sandbox, surroundings.is_detailed),
            // The time of one operation for each of them, since one waits while another has its turn.
            deadline: Deadline::new(
                surroundings.timeout * u32::try_from(traceables.len()).unwrap_or(1),
                surroundings.stop,
            )?,
            began: Instant::now(),
            held: Vec::new(),
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
            stuck: Vec::new(),
            leaks: Vec::new(),
            is_given_up: false,
        })
    }

    /// Runs until every client that was started has ended, or nobody can go on.
    pub(super) fn run(&mut self, director: &mut dyn Director) -> Result<(), TracerError> {
        while !self.is_over() {
            match self.next_event()? {
                Some(event) => self.take(event, director)?,
                None => self.come_to_rest(director)?,
            }
            self.wake()?;
        }
        if self.surroundings.waits_for_survivors && !self.deadline.is_over() {
            self.look_at_survivors(director)?;
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        let is_done = |client: &Client<'_>, number: u32| match client.returned {
            None => false,
            Some(_) => !client.is_maimed || self.mirror.processes_of(number).is_empty(),
        };
        let started = || self.numbered().filter(|(_, client)| client.root.is_some());
        let all_done = started().all(|(number, client)| is_done(client, number));
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

    /// The next event; nothing where all who can go on by themselves have come to rest, and somebody else could.
    fn next_event(&mut self) -> Result<Option<Event>, TracerError> {
        let mut pause = LOOK_MIN;
        loop {
            let nobody_is_held = self.held.is_empty() && self.waiting.is_empty() && self.parked.is_empty();
            if nobody_is_held && self.clients.iter().all(|client| client.root.is_some()) && !self.has_maimed()
            {
                return wait().map(Some);
            }
            if let Some(event) = poll_or_none()? {
                return Ok(Some(event));
            }
            if self.is_at_rest() || self.deadline.is_over() {
                return Ok(None);
            }
            thread::sleep(pause);
            pause = (pause * 2).min(LOOK_MAX);
        }
    }

    fn has_maimed(&self) -> bool {
        self.clients.iter().any(|client| client.is_maimed)
    }

    /// The threads that are neither held nor wait for a lock, with what they do.
    fn running(&self) -> Vec<(Pid, Sleep)> {
        let is_running = |thread: &Pid| {
            !self.held.iter().any(|held| held.thread == *thread)
                && !self.parked.iter().any(|(parked, ..)| parked == thread)
                && !self.waiting.iter().any(|waiting| waiting.thread == *thread)
        };
        self.mirror.threads().filter(is_running).map(|thread| (thread, Sleep::of(thread))).collect()
    }

    /// Whether any process is there still that was killed: until it is gone its locks are.
    fn has_dying(&self) -> bool {
        self.numbered()
            .any(|(number, client)| client.is_killed && !self.mirror.processes_of(number).is_empty())
    }

    fn is_at_rest(&self) -> bool {
        self.clients.iter().all(|client| client.starting.is_none())
            && !self.has_dying()
            && self.running().iter().all(|(_, sleep)| *sleep != Sleep::Awake)
    }

    /// Nobody goes on by himself: the director lets somebody, or nobody can.
    fn come_to_rest(&mut self, director: &mut dyn Director) -> Result<(), TracerError> {
        if self.deadline.is_over() {
            // The first process of each was killed; the others follow at the end.
            self.held.clear();
            self.waiting.clear();
            self.parked.clear();
            self.is_given_up |=
                self.clients.iter().all(|client| client.root.is_none() || client.returned.is_some());
            return self.pause();
        }
        // A signal would have ended the wait of one that waits in the kernel, so it goes there.
        if let Some(at) = self.waiting.iter().position(|waiting| asleep::has_signal(waiting.thread)) {
            let waiting = self.waiting.remove(at);
            return resumed(waiting.stopped.run_to_exit());
        }
        let is_spinner =
            |thread: Pid| self.yielded.is_some() && self.mirror.client_of(thread) == self.yielded;
        let others_wait = self.parked.iter().any(|(thread, ..)| !is_spinner(*thread));
        let some_are_held = self.held.iter().any(|held| !is_spinner(held.thread));
        if others_wait || (!self.parked.is_empty() && !some_are_held) {
            return self.give_turn(director);
        }
        let rests: Vec<Rest> = self.numbered().map(|(number, client)| self.rest_of(number, client)).collect();
        let can_be_moved = rests.iter().any(|rest| matches!(rest, Rest::NotStarted | Rest::Held));
        let wanted = if can_be_moved { director.rest(&rests) } else { Move::Nothing };
        match wanted {
            Move::Start(number) => return self.start(number),
            Move::Release(number) => return self.release(number),
            Move::Kill(number) => {
                self.kill_client(number);
                return Ok(());
            }
            Move::Nothing => {}
        }
        let running = self.running();
        let has_timer = |number: u32| self.mirror.has_timer(number);
        // Whoever has a timer may be woken by it, so it waits in the kernel, as it would have from the beginning.
        if let Some(at) = self
            .waiting
            .iter()
            .position(|waiting| self.mirror.client_of(waiting.thread).is_some_and(has_timer))
        {
            let waiting = self.waiting.remove(at);
            return resumed(waiting.stopped.run_to_exit());
        }
        let may_wake = |(thread, sleep): &(Pid, Sleep)| match sleep {
            Sleep::Awake | Sleep::Other => true,
            Sleep::Lock => self.mirror.client_of(*thread).is_none_or(has_timer),
            Sleep::Over => false,
            Sleep::Child | Sleep::Thread | Sleep::Pipes(_) => {
                self.mirror.client_of(*thread).is_some_and(has_timer)
            }
        };
        let nobody_started_waits = rests.iter().all(|rest| matches!(rest, Rest::NotStarted | Rest::Ended));
        if nobody_started_waits && !self.has_maimed() {
            self.is_given_up = true;
            return Ok(());
        }
        if !self.waiting.is_empty() && !running.iter().any(may_wake) {
            self.stuck = self.who_is_stuck(&running);
            self.is_given_up = true;
            return Ok(());
        }
        self.pause()
    }

    fn pause(&self) -> Result<(), TracerError> {
        thread::sleep(LOOK_MAX);
        Ok(())
    }

    fn rest_of(&self, number: u32, client: &Client<'_>) -> Rest {
        let is_of = |thread: Pid| self.mirror.client_of(thread) == Some(number);
        match (client.root, client.returned) {
            (None, _) => Rest::NotStarted,
            (_, Some(_)) => Rest::Ended,
            _ if self.held.iter().any(|held| is_of(held.thread)) => Rest::Held,
            _ if self.waiting.iter().any(|waiting| is_of(waiting.thread)) => Rest::Waits,
            _ => Rest::Sleeps,
        }
    }

    /// Who waits for what, now that nobody can go on.
    fn who_is_stuck(&self, running: &[(Pid, Sleep)]) -> Vec<Stuck> {
        let processes = self.mirror.process_ids();
        let unfinished =
            self.numbered().filter(|(_, client)| client.root.is_some() && client.returned.is_none());
        let told = unfinished.map(|(number, _)| {
            let of_client = |thread: &Pid| self.mirror.client_of(*thread) == Some(number);
            let waiting = self.waiting.iter().filter(|waiting| of_client(&waiting.thread));
            let wants = waiting
                .filter_map(|waiting| {
                    let lock = waiting.lock?;
                    let holders = self.mirror.obstacles(&lock);
                    let clients: BTreeSet<u32> =
                        holders.iter().flat_map(|held| self.mirror.clients_of(held.owner)).collect();
                    Some((self.mirror.shown(lock.file), clients.into_iter().collect()))
                })
                .collect();
            let waits_for_its_own = |sleep: &Sleep| match sleep {
                Sleep::Child | Sleep::Thread | Sleep::Over => true,
                Sleep::Pipes(pipes) => pipes.iter().all(|pipe| !asleep::is_shared_beyond(&processes, *pipe)),
                Sleep::Awake | Sleep::Other | Sleep::Lock => false,
            };
            let wholly = running
                .iter()
                .filter(|(thread, _)| of_client(thread))
                .all(|(_, sleep)| waits_for_its_own(sleep));
            Stuck { client: number, wants, wholly }
        });
        told.collect()
    }

    /// Gives the turn to the first client that waits for it, now that the one whose turn it was has come to rest.
    fn give_turn(&mut self, director: &mut dyn Director) -> Result<(), TracerError> {
        let clients = || self.parked.iter().filter_map(|(thread, ..)| self.mirror.client_of(*thread));
        let other = clients().filter(|client| Some(*client) != self.yielded).min();
        let Some(next) = other.or_else(|| clients().min()) else {
            self.parked.clear();
            return Ok(());
        };
        if other.is_none() {
            self.yielded = None;
        }
        self.active = next;
        let (freed, parked): (Vec<_>, Vec<_>) =
            self.parked.drain(..).partition(|(thread, ..)| self.mirror.client_of(*thread) == Some(next));
        self.parked = parked;
        freed.into_iter().try_for_each(|(_, stopped, entry)| self.entry(stopped, &entry, director))
    }

    fn start(&mut self, number: u32) -> Result<(), TracerError> {
        let now = self.began.elapsed();
        self.active = number;
        let templates = self.surroundings.templates;
        let Some(client) = self.client(number) else { return Ok(()) };
        if let Some(templates) = templates {
            let copy = held(templates).copy_of(client.traceable)?;
            if let Some(copy) = copy {
                client.invoked = now;
                return self.go_on_as_copy(number, copy, None);
            }
        }
        let output = (scratch()?, scratch()?);
        let started = start::start(client.traceable, &output.0, &output.1)?;
        let root = started.root;
        client.output = Some(output);
        client.root = Some(root);
        client.invoked = now;
        client.starting = Some(started);
        self.deadline.watch(root);
        Ok(())
    }

    /// A client goes on as a copy of a template: of `template`, where that was its own process so far.
    fn go_on_as_copy(
        &mut self,
        number: u32,
        copy: template::Copy,
        template: Option<Pid>,
    ) -> Result<(), TracerError> {
        let template::Copy { process, stopped, output } = copy;
        match template {
            Some(template) => {
                self.deadline.forget(template);
                self.mirror.replaced_by_copy(template, process);
            }
            None => self.mirror.client_started(number, process),
        }
        self.deadline.watch(process);
        if let Some(client) = self.client(number) {
            client.output = Some(output);
            client.root = Some(process);
            client.is_copy = true;
        }
        // It makes the call that its template is stopped at.
        resumed(stopped.go_on(None))
    }

    /// At the first visible call of a client: makes a template of it, and lets a copy go on in its place. The thread is
    /// given back where that cannot be.
    fn make_template(
        &mut self,
        number: u32,
        stopped: Stopped,
        entry: &Entry,
    ) -> Result<Option<Stopped>, TracerError> {
        let Some(templates) = self.surroundings.templates else { return Ok(Some(stopped)) };
        let process = stopped.thread();
        let tid_address = self.mirror.tid_addresses.get(&process).copied();
        let has_timer = self.mirror.has_timer(number);
        let sandbox = self.mirror.sandbox.clone();
        let Some(client) = self.client(number) else { return Ok(Some(stopped)) };
        let traceable = client.traceable;
        let is_fit = !client.is_copy && client.root == Some(process) && !has_timer;
        let Some(output) = client.output.as_ref().filter(|_| is_fit) else { return Ok(Some(stopped)) };
        let mut templates = held(templates);
        let left = templates.keep(traceable, stopped, entry.number, &sandbox, tid_address, output)?;
        if left.is_some() {
            return Ok(left);
        }
        let copy = templates.copy_of(traceable)?;
        drop(templates);
        match copy {
            Some(copy) => self.go_on_as_copy(number, copy, Some(process)).map(|()| None),
            None => Ok(None),
        }
    }

    fn release(&mut self, number: u32) -> Result<(), TracerError> {
        let (freed, held): (Vec<Held>, Vec<Held>) =
            self.held.drain(..).partition(|held| self.mirror.client_of(held.thread) == Some(number));
        self.held = held;
        self.active = number;
        for held in freed {
            self.admit(held.stopped)?;
        }
        Ok(())
    }

    fn kill_client(&mut self, number: u32) {
        let now = self.began.elapsed();
        let (dead, held): (Vec<Held>, Vec<Held>) =
            self.held.drain(..).partition(|held| self.mirror.client_of(held.thread) == Some(number));
        self.held = held;
        let processes = self.mirror.processes_of(number);
        self.waiting.retain(|waiting| self.mirror.client_of(waiting.thread) != Some(number));
        self.parked.retain(|(thread, ..)| self.mirror.client_of(*thread) != Some(number));
        if let Some(client) = self.client(number) {
            client.is_killed = true;
            client.still = Some(dead.iter().map(|held| held.since).min().unwrap_or(now));
        }
        kill_processes(&processes);
    }

    /// The client whose first process a thread is.
    fn root_of(&self, thread: Pid) -> Option<u32> {
        self.numbered().find(|(_, client)| client.root == Some(thread)).map(|(number, _)| number)
    }

    fn take(&mut self, event: Event, director: &mut dyn Director) -> Result<(), TracerError> {
        if let Some(event) = self.take_on_the_way(event)? {
            self.take_running(event, director)?;
        }
        Ok(())
    }

    /// Until its program runs, nothing that a child of ours does is the store's.
    fn take_on_the_way(&mut self, event: Event) -> Result<Option<Event>, TracerError> {
        let Some(number) = self.root_of(event.thread()) else { return Ok(Some(event)) };
        let Some(started) = self.client(number).and_then(|client| client.starting.take()) else {
            return Ok(Some(event));
        };
        match event {
            Event::Executed(stopped, _) => {
                self.mirror.client_started(number, stopped.thread());
                resumed(stopped.go_on(None))?;
                return Ok(None);
            }
            Event::Ended(root, _) if self.deadline.is_over() => {
                self.deadline.forget(root);
                let now = self.began.elapsed();
                if let Some(client) = self.client(number) {
                    client.returned = Some((now, End::TimedOut));
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
            Event::Entry(stopped, entry) => self.entry(stopped, &entry, director),
            Event::Exit(stopped, result) => self.exit(stopped, result),
            Event::Born(stopped, child) => {
                self.mirror.born(child, Some(stopped.thread()));
                resumed(stopped.go_on(None))
            }
            Event::Executed(stopped, former) => {
                self.mirror.executed(stopped.thread(), former);
                self.forget_the_gone();
                resumed(stopped.go_on(None))
            }
            Event::Begun(stopped) => {
                self.mirror.born(stopped.thread(), None);
                let client = self.mirror.client_of(stopped.thread());
                // Its parent was killed while it was born.
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

    fn ended(&mut self, thread: Pid, end: End) {
        let now = self.began.elapsed();
        let is_over = self.deadline.is_over();
        let root_of = self.root_of(thread);
        self.mirror.thread_ended(thread, end);
        self.forget_the_gone();
        let Some(number) = root_of else { return };
        self.deadline.forget(thread);
        let survivors = self.mirror.processes_of(number).len();
        let Some(client) = self.client(number) else { return };
        let end = if client.is_killed {
            End::Killed
        } else if is_over {
            End::TimedOut
        } else {
            end
        };
        client.survivors = if client.is_killed { 0 } else { survivors };
        client.returned = Some((now, end));
    }

    /// Of a thread that is gone nothing is waited for.
    fn forget_the_gone(&mut self) {
        let living: BTreeSet<Pid> = self.mirror.threads().collect();
        self.held.retain(|held| living.contains(&held.thread));
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
        let thread = stopped.thread();
        let owner = self.mirror.client_of(thread);
        let has_turn = |client: u32| client == self.active || self.has_ended(self.active);
        // Who tries again and again gives the others a chance, and who runs while another dies waits for that.
        let spins = owner.and_then(|client| self.spins.get(&client)).copied().unwrap_or(0);
        let some_wait = !self.parked.is_empty() || !self.held.is_empty();
        let yields = spins >= SPINS_MAX && some_wait && owner == Some(self.active);
        let waits_for_death = self.has_dying()
            && owner.is_some_and(|client| {
                self.clients.iter().zip(1..).any(|(known, number)| number == client && !known.is_killed)
            });
        if (yields || waits_for_death) && self.mirror.may_be_visible(entry) {
            if let (true, Some(client)) = (yields, owner) {
                self.spins.remove(&client);
                self.yielded = Some(client);
            }
            self.parked.push((thread, stopped, *entry));
            return Ok(());
        }
        if owner.is_some_and(|client| !has_turn(client) && !self.has_ended(client))
            && self.mirror.may_be_visible(entry)
        {
            self.parked.push((thread, stopped, *entry));
            return Ok(());
        }
        let is_visible = self.mirror.entry(thread, entry);
        let process = self.mirror.process_id(thread);
        let is_exit = entry.is_exit() && process.is_some_and(|process| self.root_of(process).is_some());
        let Some(client) = self.mirror.client_of(thread).filter(|_| is_visible || is_exit) else {
            return resumed(stopped.go_on(None));
        };
        let index = self.mirror.next_call_of(client);
        let stopped = match is_visible && index == 1 {
            true => match self.make_template(client, stopped, entry)? {
                Some(stopped) => stopped,
                None => return Ok(()),
            },
            false => stopped,
        };
        let pending = self.mirror.pending(thread).filter(|_| is_visible);
        let length = pending.and_then(|pending| match pending.shape.form {
            Form::Buffer { .. } | Form::Vector { .. } => Some(pending.data.as_ref()?.len() as u64),
            _ => None,
        });
        let name = pending.map_or("exit_group", |pending| pending.shape.name);
        // Nobody directs what an operation leaves behind when it has ended.
        let has_ended = self.has_ended(client);
        let was_seen = self.again.remove(&thread);
        let treatment = match has_ended || was_seen {
            true => Treatment::Go,
            false => director.treat(&Upcoming { client, index, name, length, is_exit }),
        };
        match treatment {
            Treatment::Hold => {
                self.held.push(Held { thread, stopped, since: self.began.elapsed() });
                Ok(())
            }
            Treatment::Kill => {
                self.kill_client(client);
                Ok(())
            }
            Treatment::KillProcess => {
                if let Some(client) = self.client(client) {
                    client.is_maimed = true;
                }
                kill_processes(&process.into_iter().collect::<Vec<_>>());
                Ok(())
            }
            Treatment::Go if is_exit => resumed(stopped.go_on(None)),
            Treatment::Go => self.admit(stopped),
            Treatment::Shorten(length) => self.shorten(stopped, length, false),
            Treatment::Tear(length) => self.shorten(stopped, length, true),
        }
    }

    fn has_ended(&self, number: u32) -> bool {
        let client = usize::try_from(number).ok().and_then(|number| self.clients.get(number.checked_sub(1)?));
        client.is_none_or(|client| client.returned.is_some())
    }

    /// Lets a thread make its visible call, as soon as the lock that it asks for can be had.
    fn admit(&mut self, stopped: Stopped) -> Result<(), TracerError> {
        let thread = stopped.thread();
        let Some(pending) = self.mirror.pending(thread) else { return resumed(stopped.go_on(None)) };
        let (entry, wanted) = (pending.entry, pending.wants);
        let Some(wanted) = wanted else { return resumed(stopped.run_to_exit()) };
        let file = wanted.file;
        if self.in_flight.values().any(|other| *other == file) {
            // In which order the two came to the kernel would not be known.
            self.waiting.push(Waiting { thread, stopped, lock: None, file });
            return Ok(());
        }
        let taken = wanted.lock().filter(|lock| wanted.waits && !self.mirror.obstacles(lock).is_empty());
        if let Some(lock) = taken {
            if self.closes_posix_cycle(&lock) {
                registers::refuse(thread, libc::EDEADLK).map_err(TracerError::system("refuse a call"))?;
                return resumed(stopped.run_to_exit());
            }
            if self.mirror.is_conversion(&lock) {
                // The kernel gives the old lock up before it waits for the new one: so it is made to, without a
                // wait.
                let refusing = entry.arguments[1] | u64::from(libc::LOCK_NB.unsigned_abs());
                registers::set_argument(thread, 1, refusing).map_err(TracerError::system("change a call"))?;
                self.changed.insert(thread, Change::Again(entry));
                self.in_flight.insert(thread, file);
                return resumed(stopped.run_to_exit());
            }
            self.waiting.push(Waiting { thread, stopped, lock: Some(lock), file });
            return Ok(());
        }
        self.in_flight.insert(thread, file);
        resumed(stopped.run_to_exit())
    }

    /// Whether a wait for this lock would close a cycle of POSIX locks alone, which the kernel refuses (fcntl(2)).
    fn closes_posix_cycle(&self, wanted: &Lock) -> bool {
        let Owner::Process(_) = wanted.owner else { return false };
        if wanted.kind != Kind::Posix {
            return false;
        }
        let mut seen = BTreeSet::new();
        let mut next: Vec<Owner> = self.mirror.obstacles(wanted).iter().map(|held| held.owner).collect();
        while let Some(owner) = next.pop() {
            if owner == wanted.owner {
                return true;
            }
            if !seen.insert(owner) {
                continue;
            }
            let waits = self.waiting.iter().filter_map(|waiting| waiting.lock);
            for lock in waits.filter(|lock| lock.kind == Kind::Posix && lock.owner == owner) {
                next.extend(self.mirror.obstacles(&lock).iter().map(|held| held.owner));
            }
        }
        false
    }

    /// Lets a write do only part of its work: a real one, by a smaller count.
    fn shorten(&mut self, stopped: Stopped, length: u64, then_kill: bool) -> Result<(), TracerError> {
        let thread = stopped.thread();
        let Some(pending) = self.mirror.pending(thread) else { return resumed(stopped.go_on(None)) };
        let change = match pending.shape.form {
            Form::Buffer { count, .. } => {
                let value = registers::set_argument(thread, count, length)
                    .map_err(TracerError::system("shorten a write"))?;
                Change::Argument { index: count, value, then_kill }
            }
            Form::Vector { list, count } => {
                // The list is cut behind the buffer in which the length ends, and that one is made shorter.
                let (list, buffers) = (pending.entry.arguments[list], pending.entry.arguments[count]);
                let mut left = length;
                let mut found = None;
                for buffer in 0..buffers {
                    let address = list + buffer * 16 + 8;
                    let Some(size) = memory::word(thread, address) else { break };
                    if left <= size {
                        found = Some((buffer + 1, address, size));
                        break;
                    }
                    left -= size;
                }
                let Some((kept, address, value)) = found else { return resumed(stopped.run_to_exit()) };
                memory::set_word(thread, address, left).map_err(TracerError::system("shorten a write"))?;
                let argument = registers::set_argument(thread, count, kept)
                    .map_err(TracerError::system("shorten a write"))?;
                Change::Memory { address, value, index: count, argument, then_kill }
            }
            _ => return self.admit(stopped),
        };
        self.changed.insert(thread, change);
        resumed(stopped.run_to_exit())
    }

    fn exit(&mut self, stopped: Stopped, result: Result<i64, i32>) -> Result<(), TracerError> {
        let thread = stopped.thread();
        self.in_flight.remove(&thread);
        let set_back = |index, value| {
            registers::set_argument(thread, index, value).map_err(TracerError::system("set a register back"))
        };
        let then_kill = match self.changed.remove(&thread) {
            Some(Change::Again(entry)) => {
                self.mirror.gave_up_for_conversion(thread);
                registers::make_again(thread, entry.number, entry.arguments)
                    .map_err(TracerError::system("let a call be made again"))?;
                self.again.insert(thread);
                return resumed(stopped.go_on(None));
            }
            Some(Change::Argument { index, value, then_kill }) => {
                set_back(index, value)?;
                then_kill
            }
            Some(Change::Memory { address, value, index, argument, then_kill }) => {
                set_back(index, argument)?;
                memory::set_word(thread, address, value).map_err(TracerError::system("set memory back"))?;
                then_kill
            }
            None => false,
        };
        let wants_lock = self.mirror.pending(thread).is_some_and(|pending| pending.wants.is_some());
        self.mirror.exit(thread, result);
        self.note_spin(thread, wants_lock, result);
        self.show_content();
        if let Some(client) = self.mirror.client_of(thread).filter(|_| then_kill) {
            self.kill_client(client);
            return Ok(());
        }
        resumed(stopped.go_on(None))
    }

    /// Counts the vain tries of a client, until it changes something.
    fn note_spin(&mut self, thread: Pid, wants_lock: bool, result: Result<i64, i32>) {
        let Some(client) = self.mirror.client_of(thread) else { return };
        let has_changed = self.mirror.calls.last().is_some_and(Call::is_change);
        let is_vain = matches!(result, Err(libc::EEXIST)) || (wants_lock && result.is_err());
        if has_changed {
            self.spins.remove(&client);
        } else if is_vain {
            *self.spins.entry(client).or_insert(0) += 1;
        }
    }

    /// After a change: a look at the data as a reader without a lock has it, and what the shown file holds.
    fn show_content(&mut self) {
        let now = self.began.elapsed();
        let Some(call) = self.mirror.calls.last_mut().filter(|call| call.is_change()) else { return };
        if let Some(reader) = self.surroundings.reader {
            self.readings += 1;
            self.torn.extend(reader().map(|seen| (now, format!("{seen}, after {call}"))));
        }
        let Some(path) = &self.surroundings.shown else { return };
        let content = std::fs::read(path).ok();
        if content != self.last_content {
            call.content = Some(content.as_deref().map_or_else(|| "no file".to_owned(), shortened));
            self.last_content = content;
        }
    }

    /// Lets those go on whose lock can be had now, the first that came first.
    fn wake(&mut self) -> Result<(), TracerError> {
        loop {
            let can_go = |waiting: &Waiting| {
                !self.in_flight.values().any(|file| *file == waiting.file)
                    && waiting.lock.is_none_or(|lock| self.mirror.obstacles(&lock).is_empty())
            };
            let Some(at) = self.waiting.iter().position(can_go) else { return Ok(()) };
            let waiting = self.waiting.remove(at);
            // Whoever gets the lock that he waited for goes on at once, and the one who gave it up after him.
            if let Some(client) = self.mirror.client_of(waiting.thread).filter(|_| waiting.lock.is_some()) {
                self.active = client;
            }
            self.admit(waiting.stopped)?;
        }
    }

    /// Waits until those that outlived their operation sleep or have ended, and looks at the locks that they have.
    fn look_at_survivors(&mut self, director: &mut dyn Director) -> Result<(), TracerError> {
        let unharmed = self.numbered().filter(|(_, client)| !client.is_killed && !client.is_maimed);
        let ended: Vec<u32> = unharmed
            .filter(|(_, client)| matches!(client.returned, Some((_, End::Exited(_) | End::Signalled(_)))))
            .map(|(number, _)| number)
            .collect();
        let end = Instant::now() + SURVIVORS_MAX;
        while !self.mirror.leaks(&ended).is_empty() && Instant::now() < end {
            match poll_or_none()? {
                Some(event) => self.take(event, director)?,
                None if self.is_at_rest() => break,
                None => thread::sleep(LOOK_MIN),
            }
            self.wake()?;
        }
        self.leaks = self.mirror.leaks(&ended);
        Ok(())
    }

    /// A copy shares its older descriptors with its template, and so would its locks on them be shared.
    pub(super) fn refuse_unfit_copies(&self) {
        let is_unfit = self.mirror.locks_older_descriptor && self.clients.iter().any(|client| client.is_copy);
        if let Some(templates) = self.surroundings.templates.filter(|_| is_unfit) {
            held(templates).refuse("it locks a descriptor that it had before its first visible call");
        }
    }

    /// Kills whatever still lives, and waits for its end.
    pub(super) fn end_all(&mut self) -> Result<(), TracerError> {
        self.held.clear();
        self.waiting.clear();
        self.parked.clear();
        loop {
            let starting: Vec<Pid> = self
                .clients
                .iter()
                .filter(|client| client.starting.is_some())
                .filter_map(|client| client.root)
                .collect();
            kill_processes(&starting);
            kill_processes(&self.mirror.process_ids());
            if starting.is_empty() && self.mirror.threads().next().is_none() {
                return Ok(());
            }
            match wait() {
                Ok(Event::Ended(thread, end)) => {
                    if let Some(number) = self.root_of(thread) {
                        self.client(number).map(|client| client.starting.take());
                        self.deadline.forget(thread);
                    }
                    self.mirror.thread_ended(thread, end);
                }
                // One that had just begun is killed in the next round; a stopped one dies of the kill.
                Ok(Event::Begun(stopped)) => self.mirror.born(stopped.thread(), None),
                Ok(_) => {}
                Err(TracerError::System { why, .. }) if why.raw_os_error() == Some(libc::ECHILD) => {
                    return Ok(());
                }
                Err(other) => return Err(other),
            }
        }
    }

    pub(super) fn into_traced(self) -> Result<Traced, TracerError> {
        let is_stuck = !self.stuck.is_empty();
        let has_copies = self.clients.iter().any(|client| client.is_copy);
        let now = self.began.elapsed();
        let mut operations = Vec::new();
        for (client, number) in self.clients.into_iter().zip(1..) {
            let Some((stdout, stderr)) = client.output else { continue };
            let (returned, end) =
                client.returned.unwrap_or((now, if is_stuck { End::Stuck } else { End::TimedOut }));
            operations.push(Ended {
                client: number,
                end,
                stdout: content(stdout)?,
                stderr: content(stderr)?,
                survivors: client.survivors,
                invoked: client.invoked,
                returned,
                still: client.still.filter(|_| end == End::Killed),
            });
        }
        Ok(Traced {
            calls: self.mirror.calls,
            operations,
            stuck: self.stuck,
            leaks: self.leaks,
            readings: self.readings,
            torn: self.torn,
            not_covered: self.mirror.not_covered,
            pids: self.mirror.pids,
            has_copies,
        })
    }
}

/// The templates; whoever panicked with them left them as they were.
fn held(templates: &Mutex<Templates>) -> MutexGuard<'_, Templates> {
    templates.lock().unwrap_or_else(PoisonError::into_inner)
}

fn all_ended<'b, 'a: 'b>(mut clients: impl Iterator<Item = (u32, &'b Client<'a>)>) -> bool {
    clients.all(|(_, client)| client.returned.is_some())
}

/// Content as a person reads it in one line.
fn shortened(content: &[u8]) -> String {
    /// What is shown of it, in characters, from its end: that is where most files change.
    const SHOWN: usize = 120;
    let text = String::from_utf8_lossy(content);
    let count = text.chars().count();
    let tail: String = text.chars().skip(count.saturating_sub(SHOWN)).flat_map(char::escape_debug).collect();
    let tail = tail.replace("\\\"", "\"");
    match count {
        0 => "nothing".to_owned(),
        1..=SHOWN => tail,
        _ => format!("…{tail}"),
    }
}

fn poll_or_none() -> Result<Option<Event>, TracerError> {
    match poll() {
        // Nobody is there yet.
        Err(TracerError::System { why, .. }) if why.raw_os_error() == Some(libc::ECHILD) => Ok(None),
        polled => polled,
    }
}

/// Kills processes. By `kill`, since the kernel may drop a signal that is injected at such a stop.
fn kill_processes(processes: &[Pid]) {
    for process in processes {
        // Gone already, if it cannot be killed.
        let _killed = kill(*process, Signal::SIGKILL);
    }
}

fn resumed(resumed: Result<(), Errno>) -> Result<(), TracerError> {
    match resumed {
        // It was killed meanwhile; its end will be told.
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(why) => Err(TracerError::System { what: "let a traced thread go on", why: io::Error::from(why) }),
    }
}

//! Starts and ends a client, as a process or as a copy of one.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use nix::unistd::Pid;

use crate::call::{End, Ended, Traced};
use crate::tracer::descriptor;
use crate::tracer::kernel::Pending;
use crate::tracer::machine::{Held, LOOK_MIN, Machine, SURVIVORS_MAX, kill_processes, poll_or_none, resumed};
use crate::tracer::stopped::{Entry, Event, Stopped, poll};
use crate::tracer::{CallAction, Director, Templates, TracerError, content, scratch, template};
use crate::tracer::{registers, start};

impl<'a> Machine<'a> {
    pub(super) fn start(&mut self, number: u32) -> Result<(), TracerError> {
        let now = self.began.elapsed();
        self.active = number;
        let templates = self.surroundings.templates;
        let is_scheduled = self.surroundings.is_scheduled;
        let Some(client) = self.client(number) else { return Ok(()) };
        if let Some(templates) = templates {
            let copy = held(templates).copy_of(client.traceable, is_scheduled)?;
            if let Some(copy) = copy {
                client.invoked = now;
                return self.go_on_as_copy(number, copy, None);
            }
        }
        let stdout = match client.traceable.stdout {
            Some(stdout) => stdout.try_clone().map_err(TracerError::system("duplicate a descriptor"))?,
            None => scratch()?,
        };
        let output = (stdout, scratch()?);
        let started = start::start(client.traceable, &output.0, &output.1, is_scheduled)?;
        let root = started.root;
        client.output = Some(output);
        client.root = Some(root);
        client.invoked = now;
        client.started = now;
        client.starting = Some(started);
        self.deadline.watch(root);
        Ok(())
    }

    /// Continues a client as a copy of a template: of `template`, if that was its own process so far.
    pub(super) fn go_on_as_copy(
        &mut self,
        number: u32,
        copy: template::Copy,
        template: Option<Pid>,
    ) -> Result<(), TracerError> {
        let template::Copy { process, stopped, output, template: made_of } = copy;
        match template {
            Some(template) => {
                self.deadline.forget(template);
                self.kernel.replaced_by_copy(template, process);
            }
            None => self.kernel.client_started(number, process),
        }
        self.deadline.watch(process);
        if let Some(client) = self.client(number) {
            client.output = Some(output);
            client.root = Some(process);
            client.is_copy = true;
            client.made_of = Some(made_of);
        }
        // It makes the call at which its template is stopped.
        resumed(stopped.go_on(None))
    }

    /// At the first visible call of a client: makes a template of it, and continues with a copy in its place. Returns
    /// the thread if that is not possible.
    pub(super) fn make_template(
        &mut self,
        number: u32,
        stopped: Stopped,
        entry: &Entry,
    ) -> Result<Option<Stopped>, TracerError> {
        let Some(templates) = self.surroundings.templates else { return Ok(Some(stopped)) };
        let process = stopped.thread();
        let now = self.began.elapsed();
        let tid_address = self.kernel.tid_addresses.get(&process).copied();
        let has_timer = self.kernel.has_timer(number);
        let sandbox = self.kernel.sandbox.clone();
        let is_scheduled = self.surroundings.is_scheduled;
        let Some(client) = self.client(number) else { return Ok(Some(stopped)) };
        let traceable = client.traceable;
        let is_fit = !client.is_copy && client.root == Some(process) && !has_timer;
        let took = now.saturating_sub(client.started);
        let Some(output) = client.output.as_ref().filter(|_| is_fit) else { return Ok(Some(stopped)) };
        let mut templates = held(templates);
        let left = templates.keep(
            traceable,
            is_scheduled,
            stopped,
            entry.number,
            &sandbox,
            tid_address,
            output,
            took,
        )?;
        if left.is_some() {
            return Ok(left);
        }
        let copy = templates.copy_of(traceable, is_scheduled)?;
        drop(templates);
        match copy {
            Some(copy) => self.go_on_as_copy(number, copy, Some(process)).map(|()| None),
            None => Ok(None),
        }
    }

    /// Answers a copy that asks for its process id: with the id of its template, if it is to keep that.
    pub(super) fn tell_pid(&self, stopped: Stopped) -> Result<(), TracerError> {
        let thread = stopped.thread();
        let keeps = self.surroundings.templates.is_some_and(|templates| held(templates).keeps_pid());
        let made_of =
            self.root_of(thread).and_then(|number| self.numbered().find(|(other, _)| *other == number));
        if let Some(template) = made_of.and_then(|(_, client)| client.made_of).filter(|_| keeps) {
            registers::answer(thread, template.as_raw()).map_err(TracerError::system("answer a call"))?;
        }
        resumed(stopped.go_on(None))
    }

    pub(super) fn release(&mut self, number: u32) -> Result<(), TracerError> {
        let (freed, held): (Vec<Held>, Vec<Held>) =
            self.held.drain(..).partition(|held| self.kernel.client_of(held.thread) == Some(number));
        self.held = held;
        self.active = number;
        for held in freed {
            self.admit(held.stopped)?;
        }
        Ok(())
    }

    /// Makes the held calls of a client fail.
    pub(super) fn fail_held(&mut self, number: u32, treatment: CallAction) -> Result<(), TracerError> {
        let (freed, held): (Vec<Held>, Vec<Held>) =
            self.held.drain(..).partition(|held| self.kernel.client_of(held.thread) == Some(number));
        self.held = held;
        self.active = number;
        for held in freed {
            match treatment {
                CallAction::Fail(errno) => self.fail(held.stopped, errno)?,
                CallAction::LimitSize => {
                    let length = self.kernel.pending(held.thread).and_then(Pending::length).unwrap_or(0);
                    self.limit_size(held.stopped, length)?;
                }
                _ => self.admit(held.stopped)?,
            }
        }
        Ok(())
    }

    pub(super) fn kill_client(&mut self, number: u32) {
        let now = self.began.elapsed();
        let (dead, held): (Vec<Held>, Vec<Held>) =
            self.held.drain(..).partition(|held| self.kernel.client_of(held.thread) == Some(number));
        self.held = held;
        let processes = self.kernel.processes_of(number);
        self.waiting.retain(|waiting| self.kernel.client_of(waiting.thread) != Some(number));
        self.parked.retain(|(thread, ..)| self.kernel.client_of(*thread) != Some(number));
        if let Some(client) = self.client(number) {
            client.is_killed = true;
            client.still = Some(dead.iter().map(|held| held.since).min().unwrap_or(now));
        }
        kill_processes(&processes);
    }

    /// Waits until surviving processes sleep or have ended, then looks at the locks that they hold.
    pub(super) fn look_at_survivors(&mut self, director: &mut dyn Director) -> Result<(), TracerError> {
        let unharmed = self.numbered().filter(|(_, client)| !client.is_killed && !client.is_maimed);
        let ended: Vec<u32> = unharmed
            .filter(|(_, client)| matches!(client.returned, Some((_, End::Exited(_) | End::Signalled(_)))))
            .map(|(number, _)| number)
            .collect();
        let end = Instant::now() + SURVIVORS_MAX;
        while !self.kernel.leaks(&ended).is_empty() && Instant::now() < end {
            match poll_or_none()? {
                Some(event) => self.take(event, director)?,
                None if self.is_at_rest() => break,
                None => thread::sleep(LOOK_MIN),
            }
            self.wake()?;
        }
        self.leaks = self.kernel.leaks(&ended);
        Ok(())
    }

    /// Refuses copies that lock older descriptors: they share these, and thus the locks, with their template.
    pub(in crate::tracer) fn refuse_unfit_copies(&self) {
        let is_unfit = self.kernel.locks_older_descriptor && self.clients.iter().any(|client| client.is_copy);
        if let Some(templates) = self.surroundings.templates.filter(|_| is_unfit) {
            held(templates).refuse("it locks a descriptor that it had before its first visible call");
        }
    }

    /// Kills all processes that are still alive, and waits for their end.
    pub(in crate::tracer) fn end_all(&mut self) -> Result<(), TracerError> {
        self.held.clear();
        self.freed.clear();
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
            kill_processes(&self.kernel.process_ids());
            if starting.is_empty() && self.kernel.threads().next().is_none() {
                return Ok(());
            }
            // With templates there is always a process to wait for, so processes that are gone must not be waited for.
            let gone: Vec<Pid> =
                self.kernel.threads().filter(|thread| !descriptor::is_traced(*thread)).collect();
            for thread in gone {
                self.kernel.thread_ended(thread, End::Killed);
            }
            let event = match poll() {
                Ok(None) => {
                    thread::sleep(LOOK_MIN);
                    continue;
                }
                Ok(Some(event)) => Ok(event),
                Err(other) => Err(other),
            };
            match event {
                Ok(Event::Ended(thread, end)) => {
                    if let Some(number) = self.root_of(thread) {
                        self.client(number).map(|client| client.starting.take());
                        self.deadline.forget(thread);
                    }
                    self.kernel.thread_ended(thread, end);
                }
                // A process that had just begun is killed in the next round; a stopped one dies of the kill.
                Ok(Event::Begun(stopped)) => self.kernel.born(stopped.thread(), None),
                Ok(_) => {}
                Err(TracerError::System { why, .. }) if why.raw_os_error() == Some(libc::ECHILD) => {
                    return Ok(());
                }
                Err(other) => return Err(other),
            }
        }
    }

    pub(in crate::tracer) fn into_traced(self) -> Result<Traced, TracerError> {
        let is_stuck = !self.stuck.is_empty();
        let is_late = self.deadline.is_over();
        let has_copies = self.clients.iter().any(|client| client.is_copy);
        let now = self.began.elapsed();
        let mut operations = Vec::new();
        for (client, number) in self.clients.into_iter().zip(1..) {
            let Some((stdout, stderr)) = client.output else { continue };
            // An operation that was given up while there was time left exceeded no limit.
            let unfinished = match (is_stuck, is_late) {
                (true, _) => End::Stuck,
                (false, true) => self.deadline.end(),
                (false, false) => End::Killed,
            };
            let (returned, end) = client.returned.unwrap_or((now, unfinished));
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
            calls: self.kernel.calls,
            operations,
            spawns: self.spawns,
            stuck: self.stuck,
            leaks: self.leaks,
            readings: self.readings,
            torn: self.torn,
            not_covered: self.kernel.not_covered,
            pids: self.kernel.pids,
            ahead: self.ahead,
            has_copies,
        })
    }
}

/// Locks the templates; a thread that panicked with them left them as they were.
fn held(templates: &Mutex<Templates>) -> MutexGuard<'_, Templates> {
    templates.lock().unwrap_or_else(PoisonError::into_inner)
}

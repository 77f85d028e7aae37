//! Handles a visible call at entry and exit: held, granted its lock, cut short, or repeated.

use std::collections::BTreeSet;

use rustix::process::Pid as RawPid;

use crate::call::Spawn;
use crate::locks::{Kind, Lock, Owner};
use crate::tracer::machine::schedule::Before;
use crate::tracer::machine::{Change, Machine, Waiting, resumed};
use crate::tracer::shape::Form;
use crate::tracer::stopped::{Entry, Stopped};
use crate::tracer::{Director, Spawning, TracerError, memory, registers, spawn};

impl<'a> Machine<'a> {
    /// Lets a thread make its visible call, as soon as the lock that it requests is free.
    pub(super) fn admit(&mut self, stopped: Stopped) -> Result<(), TracerError> {
        let thread = stopped.thread();
        let Some(pending) = self.kernel.pending(thread) else { return resumed(stopped.go_on(None)) };
        let (entry, wanted) = (pending.entry, pending.wants);
        let Some(wanted) = wanted else { return resumed(stopped.run_to_exit()) };
        let file = wanted.file;
        if self.in_flight.values().any(|other| *other == file) {
            // Otherwise it would be unknown in which order the two reached the kernel.
            self.waiting.push(Waiting { thread, stopped, lock: None, file });
            return Ok(());
        }
        let converts = |lock: &Lock| self.surroundings.is_scheduled && self.kernel.is_conversion(lock);
        if wanted.waits && wanted.lock().is_some_and(|lock| converts(&lock)) {
            // As in the kernel, others may come in between: releasing the old lock is a step of its own.
            let giving_up = u64::from(libc::LOCK_UN.unsigned_abs());
            registers::set_argument(thread, 1, giving_up).map_err(TracerError::system("change a call"))?;
            self.changed.insert(thread, Change::Again(entry));
            return resumed(stopped.run_to_exit());
        }
        let taken = wanted.lock().filter(|lock| wanted.waits && !self.kernel.obstacles(lock).is_empty());
        if let Some(lock) = taken {
            if self.closes_posix_cycle(&lock) {
                registers::refuse(thread, libc::EDEADLK).map_err(TracerError::system("refuse a call"))?;
                return resumed(stopped.run_to_exit());
            }
            if self.kernel.is_conversion(&lock) && !self.surroundings.is_scheduled {
                // The kernel releases the old lock before it waits for the new one, so it is made to do that without
                // waiting.
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

    /// Whether a wait for this lock would close a cycle of POSIX locks only, which the kernel refuses (fcntl(2)).
    pub(super) fn closes_posix_cycle(&self, wanted: &Lock) -> bool {
        let Owner::Process(_) = wanted.owner else { return false };
        if wanted.kind != Kind::Posix {
            return false;
        }
        let mut seen = BTreeSet::new();
        let mut next: Vec<Owner> = self.kernel.obstacles(wanted).iter().map(|held| held.owner).collect();
        while let Some(owner) = next.pop() {
            if owner == wanted.owner {
                return true;
            }
            if !seen.insert(owner) {
                continue;
            }
            let held = self.held.iter().filter_map(|held| self.kernel.awaited(held.thread));
            let waits = self.waiting.iter().filter_map(|waiting| waiting.lock).chain(held);
            for lock in waits.filter(|lock| lock.kind == Kind::Posix && lock.owner == owner) {
                next.extend(self.kernel.obstacles(&lock).iter().map(|held| held.owner));
            }
        }
        false
    }

    /// Makes a write do only part of its work: a real one, with a smaller count.
    pub(super) fn shorten(
        &mut self,
        stopped: Stopped,
        length: u64,
        then_kill: bool,
    ) -> Result<(), TracerError> {
        let thread = stopped.thread();
        let Some(pending) = self.kernel.pending(thread) else { return resumed(stopped.go_on(None)) };
        let change = match pending.shape.form {
            Form::Buffer { count, .. } | Form::Copy { count, .. } => {
                let value = registers::set_argument(thread, count, length)
                    .map_err(TracerError::system("shorten a write"))?;
                Change::Argument { index: count, value, then_kill }
            }
            Form::Vector { list, count } => {
                // The list is cut after the buffer in which the length ends, and that buffer is made shorter.
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

    /// Makes a call fail. A descriptor is closed after any `close` (close(2)), so that is made, and its result changed.
    pub(super) fn fail(&mut self, stopped: Stopped, errno: i32) -> Result<(), TracerError> {
        let thread = stopped.thread();
        let Some(pending) = self.kernel.pending(thread) else { return resumed(stopped.go_on(None)) };
        if pending.shape.form == Form::Close {
            self.changed.insert(thread, Change::Result(errno));
            return resumed(stopped.run_to_exit());
        }
        self.kernel.asks_for_no_lock(thread);
        registers::refuse(thread, errno).map_err(TracerError::system("refuse a call"))?;
        resumed(stopped.run_to_exit())
    }

    /// Handles a thread that is about to start a process, a thread or a program: nothing waits for that, but it may
    /// fail.
    pub(super) fn spawn(
        &mut self,
        stopped: Stopped,
        entry: &Entry,
        name: &'static str,
        director: &mut dyn Director,
    ) -> Result<(), TracerError> {
        let thread = stopped.thread();
        let client = self.kernel.client_of(thread).filter(|client| !self.has_ended(*client));
        let Some(client) = client else { return resumed(stopped.go_on(None)) };
        let nth = 1 + self.spawns.iter().filter(|spawn| spawn.client == client).count();
        self.spawns.push(Spawn {
            client,
            process: self.kernel.process_of(thread).map_or(0, |process| process.number),
            name: name.to_owned(),
            is_thread: spawn::makes_thread(thread, entry),
            after_calls: self.kernel.next_call_of(client) - 1,
        });
        let nth = u32::try_from(nth).unwrap_or(u32::MAX);
        if let Some(errno) = director.treat_spawn(&Spawning { client, nth, name }) {
            registers::refuse(thread, errno).map_err(TracerError::system("refuse a call"))?;
        } else if self.surroundings.is_scheduled
            && name.starts_with("execve")
            && !self.kernel.footprint_of_exec(thread).locks.is_empty()
        {
            // A client that waits for such a lock depends on the exec, so it is a step of its own.
            self.held.push(self.held_before(stopped, Before::Exec));
            return Ok(());
        }
        resumed(stopped.go_on(None))
    }

    /// Limits the file size of a process to the middle of what it is about to write.
    pub(super) fn limit_size(&mut self, stopped: Stopped, length: u64) -> Result<(), TracerError> {
        let thread = stopped.thread();
        let offset = self.kernel.next_offset(thread);
        let process = self.kernel.process_id(thread).and_then(|process| RawPid::from_raw(process.as_raw()));
        let client = self.kernel.client_of(thread);
        let allowed =
            client.and_then(|client| self.client(client)).map_or(0, |client| client.traceable.file_max);
        if let (Some(offset), Some(process)) = (offset, process) {
            // Never more than it was allowed, which only root could set.
            let most = (offset + length / 2).min(allowed);
            let limit = rustix::process::Rlimit { current: Some(most), maximum: Some(most) };
            // A process that has lowered its own limit further keeps that.
            let _limited = rustix::process::prlimit(Some(process), rustix::process::Resource::Fsize, limit);
        }
        self.admit(stopped)
    }

    pub(super) fn exit(&mut self, stopped: Stopped, result: Result<i64, i32>) -> Result<(), TracerError> {
        let thread = stopped.thread();
        let mut result = result;
        self.in_flight.remove(&thread);
        let set_back = |index, value| {
            registers::set_argument(thread, index, value).map_err(TracerError::system("set a register back"))
        };
        let then_kill = match self.changed.remove(&thread) {
            Some(Change::Again(entry)) => {
                self.kernel.gave_up_for_conversion(thread, self.surroundings.is_scheduled);
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
            Some(Change::Clock(asked)) => {
                // If it cannot be answered that way, the process gets the real time.
                let _answered = result.ok().and_then(|result| asked.answer(thread, result, self.ahead));
                return resumed(stopped.go_on(None));
            }
            Some(Change::Result(errno)) => {
                registers::set_failure(thread, errno)
                    .map_err(TracerError::system("change the result of a call"))?;
                result = Err(errno);
                false
            }
            None => false,
        };
        let wants_lock = self.kernel.pending(thread).is_some_and(|pending| pending.wants.is_some());
        self.kernel.exit(thread, result);
        self.note_spin(thread, wants_lock, result);
        self.show_content();
        if let Some(client) = self.kernel.client_of(thread).filter(|_| then_kill) {
            self.kill_client(client);
            return Ok(());
        }
        resumed(stopped.go_on(None))
    }

    /// After a change: reads the data as a reader without a lock does, and records the content of the shown file.
    pub(super) fn show_content(&mut self) {
        let now = self.began.elapsed();
        let Some(call) = self.kernel.calls.last_mut().filter(|call| call.is_change()) else { return };
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

    /// Resumes the threads whose lock is free by now, in order of arrival.
    pub(super) fn wake(&mut self) -> Result<(), TracerError> {
        loop {
            let can_go = |waiting: &Waiting| {
                !self.in_flight.values().any(|file| *file == waiting.file)
                    && waiting.lock.is_none_or(|lock| self.kernel.obstacles(&lock).is_empty())
            };
            let Some(at) = self.waiting.iter().position(can_go) else { return Ok(()) };
            let waiting = self.waiting.remove(at);
            // A thread that gets the lock it waited for runs at once, and the one that released it runs after it.
            if let Some(client) = self.kernel.client_of(waiting.thread).filter(|_| waiting.lock.is_some()) {
                self.active = client;
            }
            self.admit(waiting.stopped)?;
        }
    }
}

/// Returns content as one line for a person to read.
fn shortened(content: &[u8]) -> String {
    /// Number of characters shown, from the end: that is where most files change.
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

//! Detects when clients can make no progress, which may go on, and which are deadlocked.

use std::collections::BTreeSet;
use std::thread;

use nix::unistd::Pid;

use crate::call::{Call, Stuck};
use crate::tracer::asleep::{self, Sleep};
use crate::tracer::machine::{Client, LOOK_MAX, Machine, resumed};
use crate::tracer::{ClientState, Director, SchedulerAction, TracerError};

/// Consecutive looks at which all threads slept, though some had been awake in between, after which they are at rest.
const RESTLESS_MAX: u32 = 50;

/// A thread, its kind of sleep, and how often it had gone to sleep by then.
type Look = (Pid, Sleep, Option<u64>);

/// Whether there was a moment at which all of these threads slept. They were looked at one after another: a thread that
/// was seen to sleep may have been woken by one that was looked at later and slept by then. So several threads are
/// looked at twice: a thread that sleeps both times, and went to sleep no more often, slept all the while.
fn slept_at_once(first: &[Look], again: impl FnOnce() -> Vec<Look>) -> bool {
    first.iter().all(|(_, sleep, _)| *sleep != Sleep::Awake) && (first.len() < 2 || first == again())
}

impl<'a> Machine<'a> {
    /// Returns the threads that are neither held nor waiting for a lock, with what they do.
    pub(super) fn running(&self) -> Vec<(Pid, Sleep)> {
        let is_running = |thread: &Pid| {
            !self.held.iter().chain(&self.freed).any(|held| held.thread == *thread)
                && !self.parked.iter().any(|(parked, ..)| parked == thread)
                && !self.waiting.iter().any(|waiting| waiting.thread == *thread)
        };
        self.kernel.threads().filter(is_running).map(|thread| (thread, Sleep::of(thread))).collect()
    }

    /// Whether any killed process still exists: until it is gone, its locks exist too.
    pub(super) fn has_dying(&self) -> bool {
        self.numbered()
            .any(|(number, client)| client.is_killed && !self.kernel.processes_of(number).is_empty())
    }

    pub(super) fn is_at_rest(&self) -> bool {
        self.clients.iter().all(|client| client.starting.is_none())
            && !self.has_dying()
            && self.stopped_threads().all(asleep::is_stopped)
            && self.all_sleep()
    }

    fn all_sleep(&self) -> bool {
        let look = || -> Vec<Look> {
            let running = self.running().into_iter();
            running.map(|(thread, sleep)| (thread, sleep, asleep::switches(thread))).collect()
        };
        let first = look();
        if first.iter().any(|(_, sleep, _)| *sleep == Sleep::Awake) {
            self.restless.set(0);
            return false;
        }
        // A thread that polls more often than two looks take is never seen to sleep all the while.
        let looks = self.restless.get();
        let is_at_rest = looks >= RESTLESS_MAX || slept_at_once(&first, look);
        self.restless.set(if is_at_rest { 0 } else { looks + 1 });
        is_at_rest
    }

    /// Returns the threads that are held, parked or waiting for a lock, all of them stopped by the tracer. A thread
    /// that is no longer stopped is about to end.
    fn stopped_threads(&self) -> impl Iterator<Item = Pid> {
        let held = self.held.iter().map(|held| held.thread);
        let waiting = self.waiting.iter().map(|waiting| waiting.thread);
        held.chain(waiting).chain(self.parked.iter().map(|(thread, ..)| *thread))
    }

    /// Handles the state in which no client continues by itself: the injector resumes one, or none can make progress.
    pub(super) fn come_to_rest(&mut self, director: &mut dyn Director) -> Result<(), TracerError> {
        if self.deadline.is_over() {
            // The first process of each client was killed; the others follow at the end.
            self.held.clear();
            self.waiting.clear();
            self.parked.clear();
            self.is_given_up |=
                self.clients.iter().all(|client| client.root.is_none() || client.returned.is_some());
            return self.pause();
        }
        // A signal would have ended a wait in the kernel, so the thread goes there.
        if let Some(at) = self.waiting.iter().position(|waiting| asleep::has_signal(waiting.thread)) {
            let waiting = self.waiting.remove(at);
            return resumed(waiting.stopped.run_to_exit());
        }
        let is_spinner =
            |thread: Pid| self.yielded.is_some() && self.kernel.client_of(thread) == self.yielded;
        let others_wait = self.parked.iter().any(|(thread, ..)| !is_spinner(*thread));
        // In a session the spinning thread may be another thread of the same client.
        let some_are_held =
            self.held.iter().any(|held| self.surroundings.is_interactive || !is_spinner(held.thread));
        if others_wait || (!self.parked.is_empty() && !some_are_held) {
            return self.give_turn(director);
        }
        let running = self.running();
        let has_timer = |number: u32| self.kernel.has_timer(number);
        let may_wake = |(thread, sleep): &(Pid, Sleep)| match sleep {
            Sleep::Awake | Sleep::Other => true,
            Sleep::Lock => self.kernel.client_of(*thread).is_none_or(has_timer),
            Sleep::Over => false,
            Sleep::Child | Sleep::Thread | Sleep::Pipes(_) => {
                self.kernel.client_of(*thread).is_some_and(has_timer)
            }
        };
        // A thread that something else may wake may still release the lock.
        let may_go_on = self.surroundings.is_interactive && running.iter().any(may_wake);
        let rested = |(number, client): (u32, &Client<'_>)| match self.rest_of(number, client) {
            ClientState::Waits if may_go_on => ClientState::Sleeps,
            rest => rest,
        };
        let rests: Vec<ClientState> = self.numbered().map(rested).collect();
        let can_be_moved =
            rests.iter().any(|rest| matches!(rest, ClientState::NotStarted | ClientState::Held));
        let is_asked = can_be_moved || self.surroundings.is_interactive;
        let wanted = if is_asked { director.rest(&rests) } else { SchedulerAction::Nothing };
        match wanted {
            SchedulerAction::Start(number) => return self.start(number),
            SchedulerAction::Release(number) => return self.release(number),
            SchedulerAction::Fail(number, treatment) => return self.fail_held(number, treatment),
            SchedulerAction::Kill(number) => {
                self.kill_client(number);
                return Ok(());
            }
            SchedulerAction::Again | SchedulerAction::Invoke(_) => return Ok(()),
            SchedulerAction::Nothing => {}
        }
        // A client with a timer may be woken by it, so it waits in the kernel, as it would have from the beginning.
        if let Some(at) = self
            .waiting
            .iter()
            .position(|waiting| self.kernel.client_of(waiting.thread).is_some_and(has_timer))
        {
            let waiting = self.waiting.remove(at);
            return resumed(waiting.stopped.run_to_exit());
        }
        let nobody_started_waits =
            rests.iter().all(|rest| matches!(rest, ClientState::NotStarted | ClientState::Ended));
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

    pub(super) fn pause(&self) -> Result<(), TracerError> {
        thread::sleep(LOOK_MAX);
        Ok(())
    }

    pub(super) fn rest_of(&self, number: u32, client: &Client<'_>) -> ClientState {
        let is_of = |thread: Pid| self.kernel.client_of(thread) == Some(number);
        match (client.root, client.returned) {
            (None, _) => ClientState::NotStarted,
            (_, Some(_)) if self.is_done(number, client) => ClientState::Ended,
            _ if self.held.iter().any(|held| is_of(held.thread)) => ClientState::Held,
            _ if self.waiting.iter().any(|waiting| is_of(waiting.thread)) => ClientState::Waits,
            _ => ClientState::Sleeps,
        }
    }

    /// Returns which client waits for what, now that none can make progress.
    pub(super) fn who_is_stuck(&self, running: &[(Pid, Sleep)]) -> Vec<Stuck> {
        let processes = self.kernel.process_ids();
        let unfinished =
            self.numbered().filter(|(_, client)| client.root.is_some() && client.returned.is_none());
        let told = unfinished.map(|(number, _)| {
            let of_client = |thread: &Pid| self.kernel.client_of(*thread) == Some(number);
            let waiting = self.waiting.iter().filter(|waiting| of_client(&waiting.thread));
            let wants = waiting
                .filter_map(|waiting| {
                    let lock = waiting.lock?;
                    let holders = self.kernel.obstacles(&lock);
                    let clients: BTreeSet<u32> =
                        holders.iter().flat_map(|held| self.kernel.clients_of(held.owner)).collect();
                    Some((self.kernel.shown(lock.file), clients.into_iter().collect()))
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

    /// Gives the turn to the first client that waits for it, after the client with the turn has come to rest.
    pub(super) fn give_turn(&mut self, director: &mut dyn Director) -> Result<(), TracerError> {
        let clients = || self.parked.iter().filter_map(|(thread, ..)| self.kernel.client_of(*thread));
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
            self.parked.drain(..).partition(|(thread, ..)| self.kernel.client_of(*thread) == Some(next));
        self.parked = parked;
        freed.into_iter().try_for_each(|(_, stopped, entry)| self.entry(stopped, &entry, director))
    }

    /// Counts the unsuccessful attempts of a client, until it changes something.
    pub(super) fn note_spin(&mut self, thread: Pid, wants_lock: bool, result: Result<i64, i32>) {
        let Some(client) = self.kernel.client_of(thread) else { return };
        let has_changed = self.kernel.calls.last().is_some_and(Call::is_change);
        let is_vain = matches!(result, Err(libc::EEXIST)) || (wants_lock && result.is_err());
        if has_changed {
            self.spins.remove(&client);
        } else if is_vain {
            *self.spins.entry(client).or_insert(0) += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second client was taken to have come to rest while its threads woke each other: the first was resumed too
    /// early, and cases of Node's stores replayed two times of three on a busy machine.
    #[test]
    fn threads_that_wake_each_other_between_two_looks_are_not_at_rest() {
        let [one, other] = [Pid::from_raw(1), Pid::from_raw(2)];
        let look = |sleep, switches| (one, sleep, Some(switches));
        let asleep = [look(Sleep::Thread, 7), (other, Sleep::Thread, Some(9))];
        assert!(slept_at_once(&asleep, || asleep.to_vec()));
        let mut woken = asleep.clone();
        woken[0] = look(Sleep::Thread, 8);
        assert!(!slept_at_once(&asleep, || woken.to_vec()), "it slept both times, and was awake between");
        woken[0] = look(Sleep::Awake, 7);
        assert!(!slept_at_once(&asleep, || woken.to_vec()), "it is awake by now");
        assert!(!slept_at_once(&woken, || asleep.to_vec()), "it was awake first");
        assert!(!slept_at_once(&asleep, || asleep[..1].to_vec()), "one has ended");
        assert!(slept_at_once(&asleep[..1], || unreachable!("one thread is looked at once")));
    }
}

//! Injects kills, cuts and faults into a script's operations.

use crate::fault::{Fault, FaultId, What};
use crate::scenario::script::{Injection, InjectionKind};
use crate::tracer::{CallAction, ClientState, Director, SchedulerAction, Spawning, Upcoming};

/// Starts one client after another, each when the previous one can go no further, and injects into client 1.
pub(super) struct ScriptInjector<'a> {
    injection: Option<&'a Injection>,
    /// Whether a call was made to fail.
    pub(super) has_failed: bool,
    /// Whether the injection has happened, or can no longer happen.
    pub(super) is_done: bool,
    /// The persistent fault, once it has begun.
    staying: Option<FaultId>,
    /// Whether client 2 had not ended when it could go no further.
    pub(super) second_waited: bool,
}

impl<'a> ScriptInjector<'a> {
    pub(super) fn new(injection: Option<&'a Injection>) -> Self {
        Self { injection, has_failed: false, is_done: false, staying: None, second_waited: false }
    }
}

impl Director for ScriptInjector<'_> {
    fn treat(&mut self, upcoming: &Upcoming) -> CallAction {
        if let Some(FaultId(fault)) = self.staying.filter(|_| upcoming.client == 1) {
            if hits(fault, upcoming) && fault.may_stay {
                return failing(fault);
            }
            // Further attempts to take the lock make the path longer, but change nothing.
            if let Some(InjectionKind::FailBeside { held, .. }) = self.injection.map(|one| one.what)
                && !self.is_done
                && ((upcoming.index >= held && upcoming.changes) || upcoming.is_exit)
            {
                return CallAction::Hold;
            }
            return CallAction::Go;
        }
        let Some(injection) = self.injection.filter(|_| !self.is_done && upcoming.client == 1) else {
            return CallAction::Go;
        };
        let what = injection.what;
        let is_of_spawn = matches!(what, InjectionKind::FailSpawn { .. });
        if is_of_spawn || upcoming.index < injection.point && !upcoming.is_exit {
            return CallAction::Go;
        }
        let is_held = matches!(
            what,
            InjectionKind::Hold
                | InjectionKind::KillBesideWaiter
                | InjectionKind::KillWaiter
                | InjectionKind::KillOther { .. }
                | InjectionKind::FailInside { .. }
        );
        if let InjectionKind::Fail { fault, .. }
        | InjectionKind::FailBeside { fault, .. }
        | InjectionKind::FailInside { fault } = what
            && !hits(fault.0, upcoming)
        {
            // The store took another path.
            self.is_done = true;
            return CallAction::Go;
        }
        self.is_done = !is_held && !matches!(what, InjectionKind::FailBeside { .. });
        match what {
            InjectionKind::Fail { fault, stays } => {
                self.has_failed = true;
                self.staying = Some(fault).filter(|_| stays);
                failing(fault.0)
            }
            InjectionKind::FailBeside { fault, .. } => {
                self.has_failed = true;
                self.staying = Some(fault);
                failing(fault.0)
            }
            InjectionKind::Kill => CallAction::Kill,
            InjectionKind::KillProcess => CallAction::KillProcess,
            // A call that does not write more than `length` bytes, or writes nothing, is not the intended one.
            InjectionKind::Tear(length) if upcoming.length.is_some_and(|whole| whole > length) => {
                CallAction::Tear(length)
            }
            InjectionKind::Shorten(length) if upcoming.length.is_some_and(|whole| whole > length) => {
                CallAction::Shorten(length)
            }
            InjectionKind::Tear(_) | InjectionKind::Shorten(_) | InjectionKind::FailSpawn { .. } => {
                CallAction::Go
            }
            InjectionKind::KillOther { process } => CallAction::KillOther(process),
            InjectionKind::Hold
            | InjectionKind::FailInside { .. }
            | InjectionKind::KillBesideWaiter
            | InjectionKind::KillWaiter => CallAction::Hold,
        }
    }

    fn treat_spawn(&mut self, spawning: &Spawning) -> Option<i32> {
        let what = self.injection.map(|injection| injection.what);
        let Some(InjectionKind::FailSpawn { fault: FaultId(fault), nth }) = what else { return None };
        let What::Errno(errno) = fault.what else { return None };
        let is_meant = spawning.client == 1 && spawning.nth == nth && fault.hits.names(spawning.name, false);
        self.has_failed |= is_meant;
        is_meant.then_some(errno)
    }

    fn rest(&mut self, clients: &[ClientState]) -> SchedulerAction {
        if let Some(next) = (1..).zip(clients).find(|(_, rest)| **rest == ClientState::NotStarted) {
            return SchedulerAction::Start(next.0);
        }
        let is_first_time = !self.is_done;
        self.is_done = true;
        if is_first_time {
            self.second_waited = clients.get(1).is_some_and(|rest| *rest != ClientState::Ended);
        }
        match self.injection.map(|injection| injection.what) {
            // A client that has ended need not be killed.
            Some(InjectionKind::KillWaiter) if is_first_time && self.second_waited => {
                SchedulerAction::Kill(2)
            }
            Some(InjectionKind::FailInside { fault }) if is_first_time => {
                self.has_failed = true;
                SchedulerAction::Fail(1, failing(fault.0))
            }
            Some(
                InjectionKind::KillWaiter
                | InjectionKind::Hold
                | InjectionKind::KillOther { .. }
                | InjectionKind::FailInside { .. }
                | InjectionKind::FailBeside { .. },
            ) => SchedulerAction::Release(1),
            Some(InjectionKind::KillBesideWaiter) => SchedulerAction::Kill(1),
            _ => SchedulerAction::Nothing,
        }
    }
}

/// Whether a fault can apply to a call that is about to be made.
fn hits(fault: &Fault, upcoming: &Upcoming) -> bool {
    fault.hits.names(upcoming.name, upcoming.creates) && (upcoming.asks_for_lock || !fault.is_of_lock())
}

fn failing(fault: &Fault) -> CallAction {
    match fault.what {
        What::Errno(errno) => CallAction::Fail(errno),
        What::SizeLimit => CallAction::LimitSize,
    }
}

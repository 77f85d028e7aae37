//! Who directs the tracer: from a disturbance, as data, to what becomes of each call.

use crate::fault::{Fault, FaultId, What};
use crate::scenario::script::{Disturbance, Misfortune};
use crate::tracer::{Director, Move, Rest, Spawning, Treatment, Upcoming};

/// Starts one client after another, each when the one before has come to rest, and disturbs client 1.
pub(super) struct Directing<'a> {
    disturbance: Option<&'a Disturbance>,
    /// Whether a call was made to fail.
    pub(super) has_failed: bool,
    /// Whether it has happened, or can no more.
    pub(super) is_done: bool,
    /// The fault that stays, once it has begun.
    staying: Option<FaultId>,
    /// Whether client 2 had not ended when it had gone as far as it could.
    pub(super) second_waited: bool,
}

impl<'a> Directing<'a> {
    pub(super) fn new(disturbance: Option<&'a Disturbance>) -> Self {
        Self { disturbance, has_failed: false, is_done: false, staying: None, second_waited: false }
    }
}

impl Director for Directing<'_> {
    fn treat(&mut self, upcoming: &Upcoming) -> Treatment {
        if let Some(FaultId(fault)) = self.staying.filter(|_| upcoming.client == 1) {
            if hits(fault, upcoming) && fault.may_stay {
                return failing(fault);
            }
            // Tries to get the lock all the same make the way longer, and change nothing.
            if let Some(Misfortune::FailBeside { held, .. }) = self.disturbance.map(|one| one.what)
                && !self.is_done
                && ((upcoming.index >= held && upcoming.changes) || upcoming.is_exit)
            {
                return Treatment::Hold;
            }
            return Treatment::Go;
        }
        let Some(disturbance) = self.disturbance.filter(|_| !self.is_done && upcoming.client == 1) else {
            return Treatment::Go;
        };
        let what = disturbance.what;
        let is_of_spawn = matches!(what, Misfortune::FailSpawn { .. });
        if is_of_spawn || upcoming.index < disturbance.point && !upcoming.is_exit {
            return Treatment::Go;
        }
        let is_held = matches!(
            what,
            Misfortune::Hold
                | Misfortune::KillBesideWaiter
                | Misfortune::KillWaiter
                | Misfortune::KillOther { .. }
                | Misfortune::FailInside { .. }
        );
        if let Misfortune::Fail { fault, .. }
        | Misfortune::FailBeside { fault, .. }
        | Misfortune::FailInside { fault } = what
            && !hits(fault.0, upcoming)
        {
            // The store went another way.
            self.is_done = true;
            return Treatment::Go;
        }
        self.is_done = !is_held && !matches!(what, Misfortune::FailBeside { .. });
        match what {
            Misfortune::Fail { fault, stays } => {
                self.has_failed = true;
                self.staying = Some(fault).filter(|_| stays);
                failing(fault.0)
            }
            Misfortune::FailBeside { fault, .. } => {
                self.has_failed = true;
                self.staying = Some(fault);
                failing(fault.0)
            }
            Misfortune::Kill => Treatment::Kill,
            Misfortune::KillProcess => Treatment::KillProcess,
            // A call that writes less than is to be left of it, or nothing at all, is another one than was meant.
            Misfortune::Tear(length) if upcoming.length.is_some_and(|whole| whole > length) => {
                Treatment::Tear(length)
            }
            Misfortune::Shorten(length) if upcoming.length.is_some_and(|whole| whole > length) => {
                Treatment::Shorten(length)
            }
            Misfortune::Tear(_) | Misfortune::Shorten(_) | Misfortune::FailSpawn { .. } => Treatment::Go,
            Misfortune::KillOther { process } => Treatment::KillOther(process),
            Misfortune::Hold
            | Misfortune::FailInside { .. }
            | Misfortune::KillBesideWaiter
            | Misfortune::KillWaiter => Treatment::Hold,
        }
    }

    fn treat_spawn(&mut self, spawning: &Spawning) -> Option<i32> {
        let what = self.disturbance.map(|disturbance| disturbance.what);
        let Some(Misfortune::FailSpawn { fault: FaultId(fault), nth }) = what else { return None };
        let What::Errno(errno) = fault.what else { return None };
        let is_meant = spawning.client == 1 && spawning.nth == nth && fault.hits.names(spawning.name, false);
        self.has_failed |= is_meant;
        is_meant.then_some(errno)
    }

    fn rest(&mut self, clients: &[Rest]) -> Move {
        if let Some(next) = (1..).zip(clients).find(|(_, rest)| **rest == Rest::NotStarted) {
            return Move::Start(next.0);
        }
        let is_first_time = !self.is_done;
        self.is_done = true;
        if is_first_time {
            self.second_waited = clients.get(1).is_some_and(|rest| *rest != Rest::Ended);
        }
        match self.disturbance.map(|disturbance| disturbance.what) {
            // One that has ended has nothing to be killed for.
            Some(Misfortune::KillWaiter) if is_first_time && self.second_waited => Move::Kill(2),
            Some(Misfortune::FailInside { fault }) if is_first_time => {
                self.has_failed = true;
                Move::Fail(1, failing(fault.0))
            }
            Some(
                Misfortune::KillWaiter
                | Misfortune::Hold
                | Misfortune::KillOther { .. }
                | Misfortune::FailInside { .. }
                | Misfortune::FailBeside { .. },
            ) => Move::Release(1),
            Some(Misfortune::KillBesideWaiter) => Move::Kill(1),
            _ => Move::Nothing,
        }
    }
}

/// Whether a fault may hit a call that is about to be made.
fn hits(fault: &Fault, upcoming: &Upcoming) -> bool {
    fault.hits.names(upcoming.name, upcoming.creates) && (upcoming.asks_for_lock || !fault.is_of_lock())
}

fn failing(fault: &Fault) -> Treatment {
    match fault.what {
        What::Errno(errno) => Treatment::Fail(errno),
        What::SizeLimit => Treatment::LimitSize,
    }
}

//! Makes a schedule that violates something worth reading: with the fewest clients and switches; and finds from where on it
//! could not be saved, and the nearest schedule that passes.

use std::time::{Duration, Instant};

use crate::case::{Explanation, NoReturn, Swap};
use crate::explore::Explorer;
use crate::explore::bounded::Bounded;
use crate::explore::prefixed::Prefixed;
use crate::explore::races::Order;
use crate::explore::sequential::Sequential;
use crate::op::ClientId;
use crate::runner::schedule::{ReplayScheduler, Scheduled};
use crate::runner::sweep::Sweep;
use crate::runner::{First, SweepControl, SweepEvent, TraceError, Trial};
use crate::scenario::interleave::Plan;
use crate::scenario::script::KillAt;

/// Maximum number of executions with fewer clients, in search of a smaller counterexample.
const SMALLER_MAX: u32 = 400;
/// Maximum number of executions to reduce its switches.
const MERGES_MAX: u32 = 60;
/// Continuations tried from one step, before the execution counts as lost from there on.
const WAYS_MAX: u32 = 60;
/// Maximum number of swaps tried to find one that passes.
const SWAPS_MAX: usize = 80;

/// Time limit for shrinking and explaining a counterexample.
const PATIENCE: Duration = Duration::from_secs(8);

/// A violating schedule.
#[derive(Clone)]
pub(super) struct Failing {
    pub(super) plan: Plan,
    pub(super) scheduled: Scheduled,
}

/// The kill in the tried executions, and the time limit.
struct Trying {
    kill: Option<KillAt>,
    end: Instant,
}

impl Trying {
    fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }
}

impl Sweep<'_> {
    /// Returns the smallest counterexample found with the same violation, and its explanation.
    pub(super) fn shrink(
        &mut self,
        first: &First,
        kill: Option<KillAt>,
        failing: Failing,
    ) -> Result<(Failing, Explanation), TraceError> {
        let now = Instant::now();
        let most =
            self.env.soft_end.map_or(PATIENCE, |end| PATIENCE.min(end.saturating_duration_since(now) / 3));
        let end = |part: u32| Trying { kill, end: now + most / 4 * part };
        let smaller = self.with_fewer_clients(first, &end(1), &failing)?;
        let smaller = self.with_fewer_switches(first, &end(2), smaller.unwrap_or(failing))?;
        let nearest = self.nearest(first, &end(3), &smaller)?;
        let point_of_no_return = self.point_of_no_return(first, &end(4), &smaller)?;
        Ok((smaller, Explanation { sentence: None, point_of_no_return, nearest }))
    }

    /// Runs one execution and returns whether it has the violation; `None` if the explorer abandoned it.
    fn try_one(
        &mut self,
        first: &First,
        plan: &Plan,
        trying: &Trying,
        trial: Trial,
        explorer: &mut dyn Explorer,
    ) -> Result<Option<(Scheduled, bool)>, TraceError> {
        let script = plan.script(Vec::new(), trying.kill);
        let (scenario, subject) = (self.scenario, self.subject.clone());
        let (played, scheduled) =
            self.env.play_explored(scenario, &script, first, &subject, self.execution + 1, explorer)?;
        let Some(played) = played else { return Ok(None) };
        let shown = SweepEvent::Trial { observation: &played.observation, trial };
        let is_violation = (self.sink)(shown) == SweepControl::Found;
        Ok(Some((scheduled, is_violation)))
    }

    /// Tries all pairs of its clients, with up to one preemption first.
    fn with_fewer_clients(
        &mut self,
        first: &First,
        trying: &Trying,
        failing: &Failing,
    ) -> Result<Option<Failing>, TraceError> {
        let count = failing.plan.clients.len();
        if count < 3 {
            return Ok(None);
        }
        let mut left = SMALLER_MAX;
        let pairs = (0..count).flat_map(|one| (one + 1..count).map(move |other| [one, other]));
        // The killed client must be part of the pair.
        let pairs: Vec<[usize; 2]> = pairs.filter(|pair| trying.kill.is_none() || pair[0] == 0).collect();
        // With at most one preemption first, then all inequivalent schedules.
        for is_any in [false, true] {
            for pair in &pairs {
                let clients: Vec<_> = pair.iter().map(|index| failing.plan.clients[*index].clone()).collect();
                let plan = Plan { clients, what: failing.plan.what.clone(), ..failing.plan.clone() };
                let (mut bounded, mut sequential) = (Bounded::new(1), Sequential::default());
                let explorer: &mut dyn Explorer = if is_any { &mut sequential } else { &mut bounded };
                while left > 0 && !trying.is_over() && explorer.begin() {
                    left -= 1;
                    if let Some((scheduled, true)) =
                        self.try_one(first, &plan, trying, Trial::Smaller, explorer)?
                    {
                        return Ok(Some(Failing { plan, scheduled }));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Merges turns of one client, if the schedule still has the same violation.
    fn with_fewer_switches(
        &mut self,
        first: &First,
        trying: &Trying,
        mut failing: Failing,
    ) -> Result<Failing, TraceError> {
        let mut left = MERGES_MAX;
        let mut at = 0;
        loop {
            let turns = turns_of(&failing.scheduled.schedule);
            let Some(joined) = joined(&turns, at / 2, at % 2 == 1) else { return Ok(failing) };
            if left == 0 || trying.is_over() {
                return Ok(failing);
            }
            left -= 1;
            let schedule: Vec<ClientId> =
                joined.iter().flat_map(|(client, steps)| std::iter::repeat_n(*client, *steps)).collect();
            let plan = failing.plan.clone();
            let tried = self.try_one(
                first,
                &plan,
                trying,
                Trial::Smaller,
                &mut ReplayScheduler::leniently(&schedule),
            )?;
            match tried {
                Some((scheduled, true)) if turns_of(&scheduled.schedule).len() < turns.len() => {
                    failing.scheduled = scheduled;
                }
                _ => at += 1,
            }
        }
    }

    /// Finds the first step after which no continuation passes.
    fn point_of_no_return(
        &mut self,
        first: &First,
        trying: &Trying,
        failing: &Failing,
    ) -> Result<Option<NoReturn>, TraceError> {
        let schedule = &failing.scheduled.schedule;
        let (mut lost, mut saved, mut is_exact) = (schedule.len(), 0, true);
        // At its end the execution is lost; the search is for the first such step.
        while saved + 1 < lost && !trying.is_over() {
            let middle = (lost + saved) / 2;
            let mut rest = Sequential::default();
            let mut explorer = Prefixed::new(&schedule[..middle], &mut rest);
            let mut left = WAYS_MAX;
            let mut can_pass = false;
            let mut are_all = false;
            while !can_pass && left > 0 && !trying.is_over() {
                if !explorer.begin() {
                    are_all = true;
                    break;
                }
                left -= 1;
                let tried = self.try_one(first, &failing.plan, trying, Trial::Any, &mut explorer)?;
                can_pass = matches!(tried, Some((_, false)));
            }
            if can_pass {
                saved = middle;
            } else {
                (lost, is_exact) = (middle, is_exact && are_all);
            }
        }
        Ok(failing
            .scheduled
            .calls_before
            .get(lost)
            .or(failing.scheduled.calls_before.last())
            .map(|calls| NoReturn { after: *calls, is_exact }))
    }

    /// Finds the last race whose reversal passes.
    fn nearest(
        &mut self,
        first: &First,
        trying: &Trying,
        failing: &Failing,
    ) -> Result<Option<Swap>, TraceError> {
        let Scheduled { schedule, steps, calls_before, .. } = &failing.scheduled;
        let order = Order::of(steps);
        for reversal in order.swaps(SWAPS_MAX) {
            if trying.is_over() {
                break;
            }
            let mut rest = schedule[reversal.at..].to_vec();
            let clients = order.clients(&reversal);
            for client in &clients {
                if let Some(at) = rest.iter().position(|other| other == client) {
                    rest.remove(at);
                }
            }
            let swapped = [&schedule[..reversal.at], &clients, &rest].concat();
            let tried = self.try_one(
                first,
                &failing.plan,
                trying,
                Trial::Any,
                &mut ReplayScheduler::leniently(&swapped),
            )?;
            if matches!(tried, Some((_, false))) {
                let call = |step: usize| calls_before.get(step).map(|calls| calls + 1);
                return Ok(call(reversal.at)
                    .zip(call(reversal.later))
                    .map(|(earlier, later)| Swap { earlier, later }));
            }
        }
        Ok(None)
    }
}

/// Returns the turns of a schedule: each client with its number of consecutive steps.
fn turns_of(schedule: &[ClientId]) -> Vec<(ClientId, usize)> {
    schedule.chunk_by(|one, next| one == next).filter_map(|turn| Some((*turn.first()?, turn.len()))).collect()
}

/// Merges the `at`-th turn that has a later one of the same client with that one, in the place of the first or of the
/// second.
fn joined(turns: &[(ClientId, usize)], at: usize, is_late: bool) -> Option<Vec<(ClientId, usize)>> {
    let has_next = |index: &usize| turns[index + 1..].iter().any(|(client, _)| *client == turns[*index].0);
    let index = (0..turns.len()).filter(has_next).nth(at)?;
    let next = turns.iter().skip(index + 1).position(|(client, _)| *client == turns[index].0)? + index + 1;
    let mut joined = turns.to_vec();
    let (kept, gone) = if is_late { (next, index) } else { (index, next) };
    joined[kept].1 += joined[gone].1;
    joined.remove(gone);
    Some(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_of_one_client_are_put_together_in_the_place_of_either() {
        let turns = turns_of(&[1, 1, 2, 1, 2, 3]);
        assert_eq!(turns, [(1, 2), (2, 1), (1, 1), (2, 1), (3, 1)]);
        assert_eq!(joined(&turns, 0, false).unwrap(), [(1, 3), (2, 1), (2, 1), (3, 1)]);
        assert_eq!(joined(&turns, 1, false).unwrap(), [(1, 2), (2, 2), (1, 1), (3, 1)]);
        assert_eq!(joined(&turns, 0, true).unwrap(), [(2, 1), (1, 3), (2, 1), (3, 1)]);
        assert_eq!(joined(&turns, 2, false), None);
    }
}

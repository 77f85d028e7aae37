//! Chooses which clients are scheduled together, what is killed of them, and how much of the time each of these plans has.

use std::time::Instant;

use crate::explore::Explorer as _;
use crate::explore::sequential::Sequential;
use crate::op::Request;
use crate::runner::pin::Pinned;
use crate::runner::quiet::Quiet;
use crate::runner::showing::Kills;
use crate::runner::sweep::Sweep;
use crate::runner::{First, Stage, TraceError};
use crate::scenario::interleave::{CLIENTS_MAX, FILLED_MAX, Limited, OPERATIONS_MAX, Plan, WAKES, plans};
use crate::scenario::script::KillAt;
use crate::scenario::{crash, interleave, interleave_crash};
use crate::shard::Shard;

/// How many schedules are to be run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Breadth {
    /// Clients at once; nothing for the default.
    pub clients: Option<u32>,
    /// Operations of each client; nothing for the default.
    pub operations: Option<u32>,
    /// All schedules with at most so many preemptions, and no others.
    pub preemptions: Option<u32>,
    /// The shard of a divided run that this is.
    pub shard: Shard,
    /// Of all chance.
    pub seed: u64,
}

impl Sweep<'_> {
    pub(super) fn interleave(
        &mut self,
        first: &First,
        all: &[Quiet<'_>],
        is_crash: bool,
    ) -> Result<(), TraceError> {
        let requests: Vec<Request> = all.iter().map(|one| one.request.clone()).collect();
        let default = if is_crash { interleave_crash::CLIENTS } else { interleave::CLIENTS };
        let clients = self.breadth.clients.unwrap_or(default);
        if clients > CLIENTS_MAX {
            self.leave_out(format!(
                "{} of {clients} clients, more than are scheduled at once",
                clients - CLIENTS_MAX
            ));
        }
        if self.breadth.operations.is_some_and(|operations| operations > OPERATIONS_MAX) {
            self.leave_out(format!("more than {OPERATIONS_MAX} operations of one client"));
        }
        if self.limited().is_some_and(|limited| limited.limit > FILLED_MAX) {
            self.leave_out(format!("clients at the limit, since it is above {FILLED_MAX}"));
        }
        let has_places = self.stage.target.ops.add.names_client();
        let plans = plans(&requests, clients, self.breadth.operations, self.limited(), has_places);
        if is_crash {
            let is_of_all = |plan: &&Plan| plan.clients.len() == clients.clamp(1, CLIENTS_MAX) as usize;
            let Some(plan) = plans.iter().find(is_of_all) else { return Ok(()) };
            return self.interleave_kills(first, plan, all);
        }
        // All schedules of one plan are one place: which of them there are, only those that were run tell.
        let mut plans: Vec<(u64, Plan)> =
            plans.into_iter().filter_map(|plan| Some((self.next_place()?, plan))).collect();
        let mut index = 0;
        while let Some((place, plan)) = plans.get(index).cloned() {
            self.place = place;
            let left = plans.len() - index;
            let tried = self.explore(first, &plan, None, self.share(left))?;
            // Where sleeps are part of it, time may pass while others could go on: as far as two clients show that.
            if tried.has_polled && plan.wakes == 0 && place == 0 {
                let mut patient = plan.clone();
                patient.clients.truncate(2);
                patient.wakes = WAKES;
                patient.what = format!(
                    "{} clients that add and sleep up to {WAKES} times in vain",
                    patient.clients.len()
                );
                plans.insert(index + 1, (place, patient));
            }
            if self.done.cut.is_some() {
                return Ok(());
            }
            index += 1;
        }
        Ok(())
    }

    fn interleave_kills(&mut self, first: &First, plan: &Plan, all: &[Quiet<'_>]) -> Result<(), TraceError> {
        let Some(quiet) = all.first() else { return Ok(()) };
        // The calls differ in number where others are there: one point more stands for its exit, whenever that is.
        let points = crash::points(&quiet.traced.calls);
        let points: Vec<(u64, u32)> =
            points.into_iter().filter_map(|point| Some((self.next_place()?, point))).collect();
        let (count, mut schedules, mut complete) = (points.len(), 0, 0_u64);
        for (index, (place, before)) in points.into_iter().enumerate() {
            self.place = place;
            let kill = KillAt { client: 1, before };
            let was_truncated = std::mem::replace(&mut self.done.is_truncated, false);
            let explored = self.explore(first, plan, Some(kill), self.share(count - index));
            complete += u64::from(!self.done.is_truncated);
            self.done.is_truncated |= was_truncated;
            let is_over = match &explored {
                Ok(tried) => {
                    schedules += tried.executions;
                    self.done.cut.is_some()
                }
                Err(_) => true,
            };
            if is_over || index + 1 == count {
                self.done.killed =
                    Some(Kills { plan: plan.what.clone(), schedules, complete, points: count as u64 });
            }
            explored?;
            if is_over {
                return Ok(());
            }
        }
        Ok(())
    }

    fn limited(&self) -> Option<Limited> {
        let guard = self.stage.target.guard.as_ref()?;
        // What was there before the first add is in too.
        let there = u32::try_from(self.subject.initial_records.len()).unwrap_or(u32::MAX);
        Some(Limited { limit: guard.limit.checked_sub(there)?, has_own_form: guard.add.is_some() })
    }

    /// What is left of the time for this scenario, for each of so many plans. Where somebody set the bound, most plans come to
    /// it long before, so that the next one may take twice its share.
    fn share(&self, plans: usize) -> Option<Instant> {
        let now = Instant::now();
        let left = self.stage.soft_end?.saturating_duration_since(now);
        let plans = u32::try_from(plans).unwrap_or(u32::MAX).max(1);
        Some(match self.breadth.preemptions {
            Some(_) => now + left.saturating_mul(2) / plans.saturating_add(1),
            None => now + left / plans,
        })
    }
}

/// How many schedules of these clients differ in more than the order of independent steps; each of them is run. With
/// `intervals`, invocations and returns of operations are steps too, and their order counts.
///
/// # Errors
/// Where the harness could not do its part, may not trace, or a schedule that begins as another went another way.
pub fn classes(stage: &Stage<'_>, clients: Vec<Vec<Request>>, intervals: bool) -> Result<u64, TraceError> {
    let _pinned = Pinned::new();
    let first = stage.first()?;
    let plan = Plan { what: String::new(), before: Vec::new(), clients, is_from_nothing: false, wakes: 0 };
    let mut script = plan.script(Vec::new(), None);
    script.count_intervals(intervals);
    let mut sequential = Sequential::default();
    while sequential.begin() {
        stage.play_explored("interleave", &script, &first, &stage.subject(), 1, &mut sequential)?;
    }
    Ok(sequential.executions())
}

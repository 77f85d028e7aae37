//! Chooses which clients are scheduled together, where one is killed, and the share of time of each plan.

use std::time::Instant;

use crate::explore::Explorer as _;
use crate::explore::sequential::Sequential;
use crate::op::Request;
use crate::runner::event::Kills;
use crate::runner::experiments::{Group, Pass};
use crate::runner::pin::Pinned;
use crate::runner::prepare::Prepared;
use crate::runner::sweep::Sweep;
use crate::runner::{ExecEnv, TraceError};
use crate::scenario::interleave::{CLIENTS_MAX, FILLED_MAX, Limited, OPERATIONS_MAX, Plan, WAKES, plans};
use crate::scenario::script::KillAt;
use crate::scenario::{crash, interleave, interleave_crash};
use crate::shard::Shard;

/// Limits on the schedules to be run.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExplorationLimits {
    /// Concurrent clients; `None` for the default.
    pub clients: Option<u32>,
    /// Operations of each client; `None` for the default.
    pub operations: Option<u32>,
    /// If set, runs all schedules with at most this number of preemptions, and no others.
    pub preemptions: Option<u32>,
    /// The shard of a divided run that this is.
    pub shard: Shard,
    /// Random seed.
    pub seed: u64,
}

/// Lists the plans whose schedules are run.
pub(super) fn schedule_plans(
    env: &ExecEnv<'_>,
    prepared: &Prepared,
    breadth: ExplorationLimits,
) -> Vec<Plan> {
    let requests: Vec<Request> = prepared.quiet.iter().map(|one| one.request.clone()).collect();
    let clients = breadth.clients.unwrap_or(interleave::CLIENTS);
    let limited = limited(env, prepared);
    plans(&requests, clients, breadth.operations, limited, env.target.ops.add.names_client())
}

/// Returns the plan in whose schedules client 1 is killed, and the calls before which the kill happens.
pub(super) fn kill_plan(
    env: &ExecEnv<'_>,
    prepared: &Prepared,
    breadth: ExplorationLimits,
) -> Option<(Plan, Vec<u32>)> {
    let clients = breadth.clients.unwrap_or(interleave_crash::CLIENTS);
    let breadth = ExplorationLimits { clients: Some(clients), ..breadth };
    let is_of_all = |plan: &Plan| plan.clients.len() == clients.clamp(1, CLIENTS_MAX) as usize;
    let plan = schedule_plans(env, prepared, breadth).into_iter().find(is_of_all)?;
    // With other clients the number of calls differs: one more point is its exit, whenever that happens.
    Some((plan, crash::points(&prepared.quiet.first()?.traced.calls)))
}

fn limited(env: &ExecEnv<'_>, prepared: &Prepared) -> Option<Limited> {
    let guard = env.target.guard.as_ref()?;
    // Records from before the first add count too.
    let there = u32::try_from(prepared.subject.initial_records.len()).unwrap_or(u32::MAX);
    Some(Limited { limit: guard.limit.checked_sub(there)?, has_own_form: guard.add.is_some() })
}

impl Sweep<'_> {
    /// Records what no plan covers.
    pub(super) fn note_what_schedules_leave_out(&mut self) {
        let clients = self.breadth.clients.unwrap_or(0);
        if clients > CLIENTS_MAX {
            self.leave_out(format!(
                "{} of {clients} clients, more than are scheduled at once",
                clients - CLIENTS_MAX
            ));
        }
        if self.breadth.operations.is_some_and(|operations| operations > OPERATIONS_MAX) {
            self.leave_out(format!("more than {OPERATIONS_MAX} operations of one client"));
        }
        if self.env.target.guard.as_ref().is_some_and(|guard| guard.limit > FILLED_MAX) {
            self.leave_out(format!("clients at the limit, because it is above {FILLED_MAX}"));
        }
    }

    /// Explores the schedules of one plan. All share one place, because which schedules exist is known only from runs.
    pub(super) fn schedules(
        &mut self,
        prepared: &Prepared,
        group: &Group,
        plan: &Plan,
        open: &[(usize, u64)],
        plans_left: usize,
    ) -> Result<(), TraceError> {
        let Some((number, place)) = open.first() else { return Ok(()) };
        self.place = *place;
        let end = match self.pass {
            Pass::Early => self.env.soft_end,
            Pass::Remaining => self.share(plans_left),
        };
        let tried = self.explore(&prepared.first, plan, None, end)?;
        if tried.covers_one_preemption {
            self.note_ran(group, *number, true);
        } else if self.pass == Pass::Remaining && !self.is_over(end) {
            self.note_ran(group, *number, false);
        }
        // If clients poll with sleeps, time may pass while others could run: explored with two clients.
        if tried.has_polled
            && plan.wakes == 0
            && *place == 0
            && self.done.cut.is_none()
            && self.pass == Pass::Remaining
        {
            let mut patient = plan.clone();
            patient.clients.truncate(2);
            patient.wakes = WAKES;
            patient.what = format!(
                "{} clients that add and sleep up to {WAKES} times unsuccessfully",
                patient.clients.len()
            );
            self.explore(&prepared.first, &patient, None, self.share(plans_left))?;
        }
        Ok(())
    }

    /// Explores the schedules of one plan with a kill of client 1 before each of its calls in turn.
    pub(super) fn kill_schedules(
        &mut self,
        prepared: &Prepared,
        plan: &Plan,
        points: &[u32],
        open: &[(usize, u64)],
    ) -> Result<(), TraceError> {
        let (count, mut schedules, mut complete) = (open.len(), 0, 0_u64);
        for (index, (number, place)) in open.iter().enumerate() {
            let Some(before) = points.get(*number) else { continue };
            self.place = *place;
            let kill = KillAt { client: 1, before: *before };
            let was_truncated = std::mem::replace(&mut self.done.is_truncated, false);
            let explored = self.explore(&prepared.first, plan, Some(kill), self.share(count - index));
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

    /// Divides the remaining time of this scenario among this number of plans. If the user set the bound, most plans
    /// reach it early, so the next one may take twice its share.
    fn share(&self, plans: usize) -> Option<Instant> {
        let now = Instant::now();
        let left = self.env.soft_end?.saturating_duration_since(now);
        let plans = u32::try_from(plans).unwrap_or(u32::MAX).max(1);
        Some(match self.breadth.preemptions {
            Some(_) => now + left.saturating_mul(2) / plans.saturating_add(1),
            None => now + left / plans,
        })
    }
}

/// Counts the inequivalent schedules of these clients by running each of them. With `intervals`, invocations and
/// returns of operations are steps too, and their order counts.
///
/// # Errors
/// If the harness could not do its part, may not trace, or a schedule with the same prefix continued differently.
pub fn classes(env: &ExecEnv<'_>, clients: Vec<Vec<Request>>, intervals: bool) -> Result<u64, TraceError> {
    let _pinned = Pinned::new();
    let first = env.first()?;
    let plan = Plan { what: String::new(), before: Vec::new(), clients, is_from_nothing: false, wakes: 0 };
    let mut script = plan.script(Vec::new(), None);
    script.count_intervals(intervals);
    let mut sequential = Sequential::default();
    while sequential.begin() {
        env.play_explored("interleave", &script, &first, &env.subject(), 1, &mut sequential)?;
    }
    Ok(sequential.executions())
}

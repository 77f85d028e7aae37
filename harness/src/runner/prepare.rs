//! Prepares a target for all scenarios: its first record, baseline runs of its operations, and the list of experiments.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::evidence::Evidence;
use crate::normalize::{made, masked_calls};
use crate::observation::{Subject, Trace};
use crate::op::Request;
use crate::runner::baseline::{BaselineRun, Noted};
use crate::runner::experiments::{Group, places, planned};
use crate::runner::interleave::ExplorationLimits;
use crate::runner::pin::Pinned;
use crate::runner::{Control, ExecEnv, First, TraceError};
use crate::scenario::crash::add;
use crate::scenario::session;

/// The calls of an `add` in a session as text, and the names that it usually makes.
type SessionCalls = (Vec<String>, BTreeSet<String>);

/// Data shared by all scenarios of a run.
pub struct Prepared {
    pub(super) first: First,
    /// Baseline runs of `add`, `list` and the other operations, `add` first.
    pub(super) quiet: Vec<BaselineRun>,
    /// A baseline run of the first `add`, on the store as `init` left it.
    pub(super) first_add: BaselineRun,
    /// A baseline run of the rebuild of derived files, if there are some.
    pub(super) rebuild: Option<BaselineRun>,
    /// The calls of an `add` in a session, and the names that it makes.
    pub(super) session: Option<SessionCalls>,
    /// The experiments of each scenario.
    pub(super) groups: BTreeMap<&'static str, Vec<Group>>,
    /// Experiments that ran, by group and number.
    pub(super) ran: BTreeSet<(String, usize)>,
    /// Number of executions of each scenario.
    pub(super) executions: BTreeMap<&'static str, u32>,
    /// Known facts about the target.
    pub subject: Subject,
    /// Parts that the traces report as not covered.
    pub not_covered: BTreeSet<String>,
    /// The baseline runs, as input for diagnoses.
    pub traces: Vec<Trace>,
}

impl Prepared {
    /// Returns the number of experiments of each kind that this shard runs in a scenario, and the expected time of
    /// each.
    pub fn expected(
        &self,
        scenario: &'static str,
        breadth: ExplorationLimits,
    ) -> BTreeMap<Evidence, (u64, Duration)> {
        let mut expected: BTreeMap<Evidence, (u64, Duration)> = BTreeMap::new();
        let groups = self.groups.get(scenario).map(Vec::as_slice).unwrap_or_default();
        for (group, places) in groups.iter().zip(places(groups, scenario, breadth.shard)) {
            let Some(kind) = group.evidence else { continue };
            let entry = expected.entry(kind).or_default();
            let own = places.into_iter().flatten().count() as u64;
            *entry = (entry.0 + own, entry.1.max(group.cost(self)));
        }
        expected
    }

    /// Duration of the baseline run of an operation, including the start of its process.
    pub(super) fn time_of(&self, op: usize) -> Duration {
        let ended = self.quiet.get(op).and_then(|quiet| quiet.traced.operations.first());
        ended.map_or(Duration::from_millis(10), |ended| ended.returned.saturating_sub(ended.invoked))
    }
}

/// Prepares the data shared by all scenarios. The baseline runs are traced.
///
/// # Errors
/// If the harness could not do its part, may not trace, or the time is over.
pub fn prepare(
    env: &ExecEnv<'_>,
    control: &Control,
    breadth: ExplorationLimits,
    scenarios: &[&'static str],
) -> Result<Prepared, TraceError> {
    let _pinned = Pinned::new();
    let mut noted = Noted { subject: control.subject.clone(), ..Noted::default() };
    let mut first = env.first()?;
    let ops = &env.target.ops;
    let other = env.target.harmless_ops().map(|name| Request::Other(name.to_owned()));
    let list = ops.list.is_some().then_some(Request::List);
    let requests: Vec<Request> = std::iter::once(add(2)).chain(list).chain(other).collect();
    let mut quiet = Vec::new();
    for request in &requests {
        let one = env.quiet(request, &mut noted)?;
        first.usual_names.extend(made(&one.traced.calls));
        quiet.push(one);
    }
    let first_add = env.first_add()?;
    let has = |scenario: &str| scenarios.contains(&scenario);
    let rebuild = match env.target.derived.is_some() && has("crash") {
        true => {
            noted.subject.unrepeatable = env.unrepeatable()?;
            Some(env.quiet(&Request::Rebuild, &mut noted)?)
        }
        false => None,
    };
    let session = if has("session") { env.session_calls(&mut noted)? } else { None };
    let mut prepared = Prepared {
        first,
        quiet,
        first_add,
        rebuild,
        session,
        groups: BTreeMap::new(),
        ran: BTreeSet::new(),
        executions: BTreeMap::new(),
        subject: noted.subject,
        not_covered: noted.not_covered,
        traces: noted.traces,
    };
    for scenario in scenarios {
        let groups = planned(env, &prepared, scenario, breadth);
        prepared.groups.insert(scenario, groups);
    }
    Ok(prepared)
}

impl ExecEnv<'_> {
    /// Makes a baseline run of the first `add`.
    fn first_add(&self) -> Result<BaselineRun, TraceError> {
        let request = add(1);
        self.lay()?;
        let before = self.sandbox.tree();
        let traced = self.trace_quietly(&request)?;
        let after = self.sandbox.tree();
        // A second run shows what differs from run to run.
        self.lay()?;
        let again = self.trace_quietly(&request)?;
        self.end_survivors();
        let calls = masked_calls(&traced.calls, &traced.pids, &made(&again.calls));
        let traced = crate::call::Traced { calls, ..traced };
        // It was acknowledged before, otherwise there would be no first record.
        Ok(BaselineRun { request, traced, trees: before.ok().zip(after.ok()), succeeds: true })
    }

    /// Returns the visible calls of an `add` in a baseline session, and the names that it makes.
    fn session_calls(&self, noted: &mut Noted) -> Result<Option<SessionCalls>, TraceError> {
        self.lay_first()?;
        let Some(led) = self.trace_session(&session::quiet())? else { return Ok(None) };
        let start = |step: usize| usize::try_from(led.first_calls.get(step).copied().flatten()?).ok();
        let Some(from) = start(session::ADD).map(|from| from.saturating_sub(1)) else {
            noted
                .not_covered
                .insert("an add of a session makes no visible call at which it could be stopped".into());
            return Ok(None);
        };
        let after = (session::ADD + 1..led.first_calls.len()).find_map(start);
        let to = after.map_or(led.traced.calls.len(), |after| after.saturating_sub(1));
        // A second run shows what differs from run to run.
        self.lay_first()?;
        let again = self.trace_session(&session::quiet())?;
        let usual = again.map(|again| made(&again.traced.calls)).unwrap_or_default();
        let calls = led.traced.calls.get(from..to).unwrap_or_default();
        let calls = masked_calls(calls, &led.traced.pids, &usual);
        Ok(Some((calls.iter().map(ToString::to_string).collect(), usual)))
    }
}

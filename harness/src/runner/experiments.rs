//! Lists the experiments of each scenario as values, and which of them are most telling.

use std::time::Duration;

use crate::call::Call;
use crate::evidence::Evidence;
use crate::fault::has_none;
use crate::op::Request;
use crate::persist::{CrashStates, Log, Unmodelled, crash_states, power_losses, profile};
use crate::runner::baseline::BaselineRun;
use crate::runner::interleave::{ExplorationLimits, kill_plan, schedule_plans};
use crate::runner::prepare::Prepared;
use crate::runner::{ExecEnv, name_of};
use crate::scenario::interleave::Plan;
use crate::scenario::power_loss::From;
use crate::scenario::script::Script;
use crate::scenario::{crash, damage, fault, inheritance, reentry, session, torn_write};
use crate::shard::Shard;
use crate::target::Format;

/// Number of power-loss states that are tried before any group is tried thoroughly.
const STATES_FIRST: usize = 8;
/// Maximum number of experiments of one group that are tried before any group is tried thoroughly.
const FIRST_MAX: usize = 40;
/// Operations that an experiment runs in addition to the injected one: list, add, list.
const AFTERWARDS: u32 = 3;

/// The part of a scenario that is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// The cheap and most informative experiments.
    Early,
    /// All experiments that have not run yet.
    Remaining,
}

/// A group of related experiments.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// Description of the experiments.
    pub(super) what: String,
    /// The kind of evidence that each of them counts as.
    pub(super) evidence: Option<Evidence>,
    pub(super) work: Work,
}

/// What the experiments of a group do.
#[derive(Clone, Debug)]
pub(super) enum Work {
    /// One script each; the first few are the most informative.
    Scripts { scripts: Vec<Script>, telling: usize },
    /// Holds an operation at each of these points while a second client runs; the first few are the most informative.
    Beside { op: usize, points: Vec<u32>, telling: usize },
    /// Gives the store the states that a kill of an operation can leave.
    CrashStates { op: usize, count: usize },
    /// Gives the store the states that a power loss in an operation can leave; `None` is the first `add`.
    PowerLosses { op: Option<usize>, count: usize },
    /// Explores the schedules of some clients.
    Schedules { plan: Plan },
    /// Explores the schedules with a kill of client 1 before one of these calls.
    KillSchedules { plan: Plan, points: Vec<u32> },
}

impl Group {
    /// Number of experiments.
    pub(super) fn count(&self) -> u64 {
        let count = match &self.work {
            Work::Scripts { scripts, .. } => scripts.len(),
            Work::Beside { points, .. } | Work::KillSchedules { points, .. } => points.len(),
            Work::CrashStates { count, .. } | Work::PowerLosses { count, .. } => *count,
            Work::Schedules { .. } => 1,
        };
        count as u64
    }

    /// Number of the first experiments that are the most informative.
    pub(super) fn telling(&self) -> usize {
        match &self.work {
            Work::Scripts { telling, .. } | Work::Beside { telling, .. } => (*telling).min(FIRST_MAX),
            Work::PowerLosses { op: Some(0), count } => (*count).min(STATES_FIRST),
            Work::Schedules { .. } if self.is_first_pair() => 1,
            _ => 0,
        }
    }

    /// Whether some of the experiments can run now and others later. Schedules are explored as a whole; data that one
    /// power loss shows to be missing is not searched for in the next.
    pub(super) fn can_be_divided(&self) -> bool {
        matches!(self.work, Work::Scripts { .. } | Work::Beside { .. } | Work::CrashStates { .. })
    }

    /// Whether these are the schedules of two clients that each add once, to a store with a record.
    fn is_first_pair(&self) -> bool {
        let Work::Schedules { plan } = &self.work else { return false };
        let adds_once = |requests: &Vec<Request>| matches!(requests.as_slice(), [Request::Add { .. }]);
        plan.clients.len() == 2 && !plan.is_from_nothing && plan.clients.iter().all(adds_once)
    }

    /// Estimates the time of one experiment from the baseline runs.
    pub(super) fn cost(&self, prepared: &Prepared) -> Duration {
        let one = prepared.time_of(0);
        match &self.work {
            // Each of two clients may be preempted before each of its calls, once.
            Work::Schedules { plan } => {
                let calls = |request: &Request| {
                    let quiet = prepared.quiet.iter().find(|quiet| quiet.request.is_like(request));
                    quiet.map_or(1, |quiet| quiet.traced.calls.len() + 2)
                };
                let schedules: usize = plan.clients.iter().flatten().map(calls).sum();
                one * (AFTERWARDS * u32::try_from(schedules).unwrap_or(u32::MAX).min(100_000))
            }
            Work::CrashStates { .. } | Work::PowerLosses { .. } => one * AFTERWARDS,
            _ => one * (AFTERWARDS + 1),
        }
    }
}

/// Returns, for each experiment of each group, its place in the scenario, if it belongs to this shard of the run. All
/// power losses share one place, because data that one of them shows to be missing is not searched for in the next.
pub(super) fn places(groups: &[Group], scenario: &str, shard: Shard) -> Vec<Vec<Option<u64>>> {
    let mut next = 0;
    let mut place = |group: &Group| {
        let place = next;
        next += u64::from(!matches!(group.work, Work::PowerLosses { .. }));
        shard.has(scenario, place).then_some(place)
    };
    groups.iter().map(|group| (0..group.count()).map(|_| place(group)).collect()).collect()
}

/// Lists the experiments of a scenario, in the order in which they run.
pub(super) fn planned(
    env: &ExecEnv<'_>,
    prepared: &Prepared,
    scenario: &str,
    breadth: ExplorationLimits,
) -> Vec<Group> {
    let quiet = &prepared.quiet;
    let requests: Vec<Request> = quiet.iter().map(|one| one.request.clone()).collect();
    let mut groups = match scenario {
        "inheritance" => vec![whole(
            "runs of every operation",
            Some(Evidence::Inheritances),
            inheritance::scripts(&requests),
        )],
        "reentry" => {
            let limit = env.target.limit_of_plain_add();
            let scripts = reentry::scripts(&requests, limit, env.target.session.is_some());
            vec![whole("runs of every operation, add many times", Some(Evidence::Reentries), scripts)]
        }
        "session" => of_session(env, prepared),
        "power-loss" => of_power_loss(prepared),
        "interleave" => schedule_plans(env, prepared, breadth)
            .into_iter()
            .map(|plan| {
                let is_pair = plan.clients.len() == 2 && plan.clients.iter().all(|one| one.len() == 1);
                let evidence = (is_pair && plan.wakes == 0).then_some(Evidence::Pairs);
                Group { what: plan.what.clone(), evidence, work: Work::Schedules { plan } }
            })
            .collect(),
        "interleave-crash" => kill_plan(env, prepared, breadth)
            .map(|(plan, points)| {
                let what = plan.what.clone();
                vec![Group { what, evidence: None, work: Work::KillSchedules { plan, points } }]
            })
            .unwrap_or_default(),
        "fault" => of_faults(prepared),
        "torn-write" => quiet
            .iter()
            .map(|one| {
                let scripts = torn_write::scripts(&one.request, &one.traced.calls, one.before());
                let (scripts, telling) = first(scripts, torn_write::is_telling);
                let what = format!("cuts of the writes of {}", name_of(&one.request));
                Group { what, evidence: None, work: Work::Scripts { scripts, telling } }
            })
            .collect(),
        _ => of_crash(env, prepared),
    };
    groups.retain(|group| group.count() > 0);
    groups
}

/// Makes a group of scripts that are all informative.
fn whole(what: impl Into<String>, evidence: Option<Evidence>, scripts: Vec<Script>) -> Group {
    let telling = scripts.len();
    Group { what: what.into(), evidence, work: Work::Scripts { scripts, telling } }
}

/// Makes a group of scripts that run after all more informative ones.
fn later(what: impl Into<String>, evidence: Option<Evidence>, scripts: Vec<Script>) -> Group {
    Group { what: what.into(), evidence, work: Work::Scripts { scripts, telling: 0 } }
}

/// Sorts the most informative scripts first, and returns their number.
fn first(scripts: Vec<Script>, tells_most: impl Fn(&Script) -> bool) -> (Vec<Script>, usize) {
    let (mut all, rest): (Vec<Script>, Vec<Script>) = scripts.into_iter().partition(tells_most);
    let telling = all.len();
    all.extend(rest);
    (all, telling)
}

fn of_session(env: &ExecEnv<'_>, prepared: &Prepared) -> Vec<Group> {
    let mut groups = Vec::new();
    if let Some((calls, _)) = &prepared.session {
        let what = "requests that are cancelled or overlap, at each call of an add";
        groups.push(later(what, Some(Evidence::Sessions), session::scripts(calls)));
        let what = "calls of an add in a session beside a one-shot add";
        groups.push(later(what, Some(Evidence::Sessions), session::beside_held(calls)));
    }
    if env.target.session.is_some() {
        let what = "a session with one-shot operations and with another session beside it";
        groups.insert(0, whole(what, Some(Evidence::Sessions), session::beside()));
    }
    groups
}

fn of_power_loss(prepared: &Prepared) -> Vec<Group> {
    let ops = (0..prepared.quiet.len()).map(Some).chain([None]);
    ops.map(|op| {
        let (name, quiet, _) = struck(prepared, op);
        let count = log_of(quiet).map_or(0, |log| power_losses(&log, profile::ALL).0.len());
        Group {
            what: format!("states that a power loss in {name} may leave"),
            evidence: Some(Evidence::PowerLosses),
            work: Work::PowerLosses { op, count },
        }
    })
    .collect()
}

/// Name of the first `add`.
pub(super) const FIRST_ADD: &str = "the first add";

/// Returns the operation that the power loss interrupts: its name, baseline run and starting state.
pub(super) fn struck(prepared: &Prepared, op: Option<usize>) -> (&str, &BaselineRun, From) {
    match op.and_then(|op| prepared.quiet.get(op)) {
        Some(quiet) => (name_of(&quiet.request), quiet, From::First),
        None => (FIRST_ADD, &prepared.first_add, From::Nothing),
    }
}

/// Returns the log of updates and syncs of an operation, if its calls account for the state that it left.
pub(super) fn log_of(quiet: &BaselineRun) -> Result<Log, String> {
    let (before, after) =
        quiet.trees.as_ref().ok_or("what stands in the sandbox cannot be read as a tree")?;
    match Log::record(before, &quiet.traced.calls) {
        // If nothing is lost, the log must yield the state that the calls made, which is the actual state.
        Ok(log) if log.whole() == after && log.remaining(log.calls(), &[]) == *after => Ok(log),
        Ok(_) => Err(UNEXPLAINED.to_owned()),
        Err(unmodelled) => Err(unmodelled.to_string()),
    }
}

/// Why nothing is derived from calls that do not account for the actual state.
pub(super) const UNEXPLAINED: &str = "its calls do not account for what it left";

/// Returns the states that a kill of an operation can leave, if its calls account for the state that it left.
pub(super) fn crash_states_of(quiet: &BaselineRun) -> Result<Option<CrashStates<'_>>, String> {
    let calls: &[Call] = &quiet.traced.calls;
    let Some((before, after)) = quiet.trees.as_ref().filter(|_| !calls.is_empty()) else { return Ok(None) };
    match crash_states(before, calls) {
        Ok(states) if states.whole() == after => Ok(Some(states)),
        Ok(_) => Err(UNEXPLAINED.to_owned()),
        Err(unmodelled) => Err(Unmodelled::to_string(&unmodelled)),
    }
}

fn of_faults(prepared: &Prepared) -> Vec<Group> {
    let [mut first_ones, mut inside, mut starts, mut rest, mut waited_out] = [const { Vec::new() }; 5];
    for one in &prepared.quiet {
        let (name, calls) = (name_of(&one.request), &one.traced.calls);
        let faults = fault::scripts(&one.request, calls, one.before());
        let (local, others): (Vec<Script>, Vec<Script>) =
            faults.quick.into_iter().partition(fault::is_local_and_once);
        let (local, telling) = fault::one_of_each_call_first(local, calls);
        first_ones.push(Group {
            what: format!("faults of the calls of {name}"),
            evidence: Some(Evidence::Faults),
            work: Work::Scripts { scripts: local, telling },
        });
        let what = format!("faults of the process starts of {name}");
        starts.push(later(what, None, fault::spawns(&one.request, &one.traced.spawns).0));
        let what = format!("faults of the changes of {name}, while another client is inside");
        inside.push(later(what, None, fault::inside(&one.request, calls, one.before())));
        let what = format!("faults of the locks of {name}, beside another client");
        inside.push(later(what, None, fault::beside(&one.request, calls, &prepared.subject.data)));
        let what = format!("faults of the calls of {name} that stay, or that only a manual page allows");
        rest.push(later(what, None, others));
        let what = format!("locks of {name} that fail from then on");
        waited_out.push(later(what, None, faults.waited_out));
    }
    [first_ones, inside, starts, rest, waited_out].concat()
}

/// Lists which faults of an operation are skipped, and how many.
pub(super) fn left_out_of_faults(one: &BaselineRun) -> [(usize, String); 3] {
    let (name, calls) = (name_of(&one.request), &one.traced.calls);
    let faults = fault::scripts(&one.request, calls, one.before());
    let without = calls.iter().filter(|call| has_none(call)).count();
    [
        (faults.left_out, format!("faults of {name}, those of its first calls")),
        (without, format!("calls of {name} for which the table has no fault")),
        (
            fault::spawns(&one.request, &one.traced.spawns).1,
            format!("faults of the process starts of {name}"),
        ),
    ]
}

fn of_crash(env: &ExecEnv<'_>, prepared: &Prepared) -> Vec<Group> {
    let mut groups = Vec::new();
    if let (Some(derived), Some(rebuild)) = (&env.target.derived, &prepared.rebuild) {
        // In other formats an empty file is a store without records.
        let is_json = env.target.data.format == Format::Json;
        let data = is_json.then(|| prepared.subject.data.clone());
        let damages = damage::scripts(&derived.files, data.as_deref());
        // They are few, and no other experiment finds the same.
        groups.push(whole("damages of derived files", Some(Evidence::Damages), damages));
        let points = crash::points(&rebuild.traced.calls);
        let kills = damage::kills(&derived.files, &rebuild.traced.calls, &points);
        groups.push(later("crash points of the rebuild", Some(Evidence::Damages), kills));
    }
    let (mut kills, mut beside, mut states, mut wrappers, mut single) =
        (vec![], vec![], vec![], vec![], vec![]);
    for (op, one) in prepared.quiet.iter().enumerate() {
        let (name, calls) = (name_of(&one.request), &one.traced.calls);
        let points = crash::points(calls);
        let telling = crash::telling_points(calls, &points);
        let ordered = |points: &[u32]| {
            let (mut all, rest): (Vec<u32>, Vec<u32>) =
                points.iter().partition(|point| telling.contains(point));
            let count = all.len();
            all.extend(rest);
            (all, count)
        };
        let (all, count) = ordered(&points);
        kills.push(Group {
            what: format!("crash points of {name}"),
            evidence: Some(Evidence::KillPoints),
            work: Work::Scripts { scripts: crash::kills(&one.request, calls, &all), telling: count },
        });
        let (held, count) = ordered(&crash::points_beside(calls, &points));
        beside.push(Group {
            what: format!("points of {name} beside another client, where it reads, changes or locks"),
            evidence: Some(Evidence::HeldPoints),
            work: Work::Beside { op, points: held, telling: count },
        });
        let derived = crash_states_of(one).ok().flatten().map_or(0, Iterator::count);
        states.push(Group {
            what: format!("derived crash states of {name}"),
            evidence: None,
            work: Work::CrashStates { op, count: derived },
        });
        // An operation that leaves processes behind never ends if one of the others is gone.
        if one.traced.operations.iter().all(|ended| ended.survivors == 0) {
            let scripts = crash::kills_of_processes(&one.request, calls, &points);
            single.push(later(format!("points of {name} with one process killed"), None, scripts));
            let scripts = crash::kills_of_wrappers(&one.request, calls, &points);
            let what = format!("changes of {name} with its first process killed and another client there");
            wrappers.push(whole(what, None, scripts));
        }
    }
    groups.extend([kills, wrappers, beside, states, single].concat());
    groups
}

/// Whether an operation of several processes is not tested with kills of single ones.
pub(super) fn has_unkilled_processes(one: &BaselineRun) -> bool {
    one.traced.operations.iter().any(|ended| ended.survivors > 0)
        && one.traced.calls.iter().any(|call| call.process > 1)
}

impl BaselineRun {
    /// The sandbox before the operation, if known.
    pub(super) fn before(&self) -> Option<&crate::persist::Tree> {
        self.trees.as_ref().map(|(before, _)| before)
    }
}

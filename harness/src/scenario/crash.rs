//! A kill (also each process alone) before and after every visible call, alone and while others wait.
//!
//! One baseline run under the tracer tells the visible calls of an operation. Where its calls alone say what it changes,
//! every directory that a kill can leave is derived from them, each write cut at its page boundaries too, laid out,
//! and given to the store, which is to list, add and list. Then the kills are done for real: in a fresh sandbox each
//! time the operation is stopped before its k-th call and every process of it killed there. Where a kill leaves files behind,
//! five at the same point show whether they pile up. An operation of several processes is killed again process by
//! process. And with a second client: the first is held before a call that reads, changes or locks something, and the
//! second goes as far as it can; then both go on, or the first is killed and the second goes on, or the second is
//! killed where it waits and the first goes on. Beyond 400 points of one operation those around its changes come first.
//!
//! Example: `picklock check --only crash` on a store that rewrites its file in place finds it empty after one of its
//! calls.

use crate::call::{Call, Class, Effect};
use crate::catalogue::headline;
use crate::op::{Request, record_name};
use crate::scenario::Scenario;
use crate::scenario::script::{Act, Injection, InjectionKind, Script};
use crate::scenario::torn_write::is_cut_of_a_kill;

pub(super) const SCENARIO: Scenario =
    Scenario { id: "crash", statement: headline(include_str!("crash.rs")), source: include_str!("crash.rs") };

/// Maximum number of crash points tried per operation; if there are more, those around changes come first.
pub const POINTS_MAX: usize = 400;
/// Number of kills at one point, if the first one left something behind.
pub const KILLS_ALIKE: u32 = 5;

/// Returns the crash points of an operation to be tried: all, or those around the changes first.
pub fn points(calls: &[Call]) -> Vec<u32> {
    let count = u32::try_from(calls.len()).unwrap_or(u32::MAX - 1);
    let all = 1..=count + 1;
    if calls.len() < POINTS_MAX {
        return all.collect();
    }
    let changes: Vec<u32> = (1..).zip(calls).filter(|(_, call)| call.is_change()).map(|(at, _)| at).collect();
    let is_near = |point: &u32| changes.iter().any(|change| *point == *change || *point == change + 1);
    let (near, others): (Vec<u32>, Vec<u32>) = all.partition(is_near);
    let mut chosen: Vec<u32> = near.into_iter().chain(others).take(POINTS_MAX).collect();
    chosen.sort_unstable();
    chosen
}

/// Creates an injection at a point, with the call at that point.
fn injection(calls: &[Call], point: u32, what: InjectionKind) -> Injection {
    let call = call_at(calls, point);
    let offset = match call.and_then(|call| call.effect.as_ref()) {
        Some(Effect::Written { offset, .. }) => *offset,
        _ => None,
    };
    let is_of_a_kill = match what {
        InjectionKind::Tear(cut) => is_cut_of_a_kill(offset, cut),
        InjectionKind::Shorten(_) => false,
        _ => true,
    };
    let is_of_the_contract = match what {
        // Between the sandbox and TMPDIR this is a real fault: most users have /tmp on another file system.
        InjectionKind::Fail { fault, .. }
        | InjectionKind::FailBeside { fault, .. }
        | InjectionKind::FailInside { fault } => {
            !(fault.0.is_local || fault.0.is_of_another_device() && call.is_some_and(Call::crosses_roots))
        }
        _ => false,
    };
    let call = call.map_or_else(|| "its exit".to_owned(), ToString::to_string);
    Injection { point, what, call, is_of_a_kill, is_of_the_contract }
}

fn call_at(calls: &[Call], point: u32) -> Option<&Call> {
    usize::try_from(point).ok().and_then(|point| calls.get(point.checked_sub(1)?))
}

/// Returns the points before calls that change file content or names, and right after the last of them: kills there are
/// the most informative.
pub fn telling_points(calls: &[Call], points: &[u32]) -> Vec<u32> {
    let changes = |point: u32| call_at(calls, point).is_some_and(changes_data);
    let is_telling = |point: &&u32| changes(**point) || changes(point.saturating_sub(1)) && !changes(**point);
    points.iter().filter(is_telling).copied().collect()
}

/// Whether a call changes file content or names.
fn changes_data(call: &Call) -> bool {
    match &call.effect {
        Some(Effect::Opened { .. } | Effect::Read { .. } | Effect::ModeSet { .. }) => false,
        Some(_) => call.is_change(),
        None => false,
    }
}

/// Returns the kills of the whole operation, alone, at these points.
pub fn kills(request: &Request, calls: &[Call], points: &[u32]) -> Vec<Script> {
    points.iter().map(|point| alone(request, calls, *point, InjectionKind::Kill)).collect()
}

/// Returns the kills of single processes, if there are several.
pub fn kills_of_processes(request: &Request, calls: &[Call], points: &[u32]) -> Vec<Script> {
    if calls.iter().all(|call| call.process == 1) {
        return Vec::new();
    }
    points.iter().map(|point| alone(request, calls, *point, InjectionKind::KillProcess)).collect()
}

/// Injections at a point with a second client: no kill, a kill of the first, and a kill of the second.
pub const BESIDE: [InjectionKind; 3] =
    [InjectionKind::Hold, InjectionKind::KillBesideWaiter, InjectionKind::KillWaiter];

/// Returns the points at which the order relative to a second client matters.
pub fn points_beside(calls: &[Call], points: &[u32]) -> Vec<u32> {
    let matters = |point: &&u32| {
        let call = usize::try_from(**point).ok().and_then(|point| calls.get(point.checked_sub(1)?));
        call.is_none_or(|call| {
            call.is_change() || matches!(call.class, Class::Read | Class::Lock) || !call.locks.is_empty()
        })
    };
    points.iter().filter(matters).copied().collect()
}

/// Returns the kills of the first process at the points before changes by other processes: a wrapper dies while its
/// child continues.
pub fn kills_of_wrappers(request: &Request, calls: &[Call], points: &[u32]) -> Vec<Script> {
    let of_a_child =
        |point: &&u32| call_at(calls, **point).is_some_and(|call| call.process > 1 && changes_data(call));
    let script =
        |point: &u32| beside_another(request, calls, *point, InjectionKind::KillOther { process: 1 });
    points.iter().filter(of_a_child).map(script).collect()
}

/// Returns an execution with a second client, which adds.
pub fn beside_another(request: &Request, calls: &[Call], point: u32, what: InjectionKind) -> Script {
    let (first, next) = numbered(request, 2);
    let injection = injection(calls, point, what);
    let trace = Act::Trace { requests: vec![first, add(next)], injection: Some(injection) };
    Script { acts: [vec![trace, Act::Recover], after(next + 1)].concat() }
}

/// Returns an injection into an operation that runs alone, and the operations after it.
pub fn alone(request: &Request, calls: &[Call], point: u32, what: InjectionKind) -> Script {
    alone_with(request, injection(calls, point, what))
}

/// The same with this injection.
pub fn alone_with(request: &Request, injection: Injection) -> Script {
    let (request, next) = numbered(request, 2);
    let trace = Act::Trace { requests: vec![request], injection: Some(injection) };
    Script { acts: [vec![trace, Act::Recover, Act::List], after(next)].concat() }
}

/// Repeats the script's injection [`KILLS_ALIKE`] times in one sandbox.
pub fn alike(script: &Script) -> Script {
    let mut number = 2;
    let mut acts = Vec::new();
    for _ in 0..KILLS_ALIKE {
        for act in &script.acts {
            acts.push(match act {
                Act::Trace { requests, injection } => {
                    let again = requests.iter().map(|request| {
                        let (again, next) = numbered(request, number);
                        number = next;
                        again
                    });
                    Act::Trace { requests: again.collect(), injection: injection.clone() }
                }
                Act::Operate(Request::Add { .. }) => {
                    number += 1;
                    Act::Operate(add(number - 1))
                }
                other => other.clone(),
            });
        }
    }
    Script { acts }
}

/// Returns the operations after an injection: one more add, and a list.
pub fn after(number: u32) -> Vec<Act> {
    vec![Act::Operate(add(number)), Act::List]
}

/// Returns the request, with the record of this number if it adds one, and the number of the next.
pub fn numbered(request: &Request, number: u32) -> (Request, u32) {
    match request {
        Request::Add { .. } => (add(number), number + 1),
        other => (other.clone(), number),
    }
}

/// Returns the `add` of the record of this number.
pub fn add(number: u32) -> Request {
    Request::Add { record: record_name(number), number }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(count: u32, changes: &[u32]) -> Vec<Call> {
        (1..=count)
            .map(|number| Call {
                number,
                client: 1,
                process: 1,
                thread: 1,
                name: "write".into(),
                arguments: Vec::new(),
                result: Some(Ok(1)),
                objects: Vec::new(),
                class: if changes.contains(&number) { Class::Write } else { Class::Inspect },
                creates: false,
                effect: None,
                data: None,
                content: None,
                locks: Vec::new(),
            })
            .collect()
    }

    #[test]
    fn every_point_is_tried_and_of_too_many_those_around_changes() {
        assert_eq!(points(&calls(3, &[2])), [1, 2, 3, 4]);
        let chosen = points(&calls(1000, &[900]));
        assert_eq!(chosen.len(), POINTS_MAX);
        assert!(chosen.contains(&900) && chosen.contains(&901) && chosen.contains(&1));
    }

    #[test]
    fn five_alike_add_a_new_record_each_time() {
        let script = alike(&alone(&add(0), &calls(3, &[2]), 2, InjectionKind::Kill));
        let mut names: Vec<String> = Vec::new();
        for act in script.acts {
            match act {
                Act::Operate(Request::Add { record, .. }) => names.push(record),
                Act::Trace { requests, .. } => names.extend(requests.iter().map(ToString::to_string)),
                _ => {}
            }
        }
        assert_eq!(names.len(), 10);
        names.dedup();
        assert_eq!(names.len(), 10);
    }

    #[test]
    fn a_second_client_comes_only_where_it_makes_a_difference() {
        assert_eq!(points_beside(&calls(4, &[3]), &[1, 2, 3, 4, 5]), [3, 5]);
    }
}

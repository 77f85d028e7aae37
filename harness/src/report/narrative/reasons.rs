//! Explains why one client stops and another goes on.

use std::collections::BTreeSet;

use crate::call::{Call, Class, LockChange};
use crate::observation::Trace;
use crate::op::{Operation, Outcome};
use crate::report::narrative::holds::Held;

/// Returns, for each call of another client than the call before it, the reason for the switch.
pub(in crate::report) fn reasons(trace: &Trace, operations: &[Operation]) -> Vec<Option<String>> {
    let calls = &trace.calls;
    let shown = |place: u32| trace.client(place);
    let mut held = Held::default();
    let mut waiting: BTreeSet<u32> = BTreeSet::new();
    let mut reasons = Vec::new();
    for (at, call) in calls.iter().enumerate() {
        let before =
            at.checked_sub(1).map(|before| calls[before].client).filter(|before| *before != call.client);
        reasons.push(before.map(|left| {
            let next = calls[at..].iter().find(|next| next.client == left);
            let lock = next.and_then(|next| wait(next, &held));
            if lock.is_some() {
                waiting.insert(left);
            }
            let (own, left_client) = (shown(call.client), shown(left));
            let mut reason = match (lock, next) {
                (Some(lock), _) => format!("client {left_client} waits for {lock}"),
                (None, Some(next)) if next.name != "exit" => {
                    format!("client {left_client} was stopped here, before {next}")
                }
                (None, Some(_)) => format!("client {left_client} was stopped here"),
                (None, None) => format!("client {left_client} {}", end(trace.operation(left, operations))),
            };
            if let Some(path) = takes(call).filter(|_| waiting.contains(&call.client)) {
                reason.push_str(&format!("; client {own} gets {path}, for which it waited"));
            }
            reason
        }));
        waiting.remove(&call.client);
        held.apply(call);
    }
    reasons
}

/// Returns the lock that the client of this next call waits for because another client holds it.
fn wait(next: &Call, held: &Held) -> Option<String> {
    let taken = next.locks.iter().find_map(|change| match change {
        LockChange::Taken(lock, file) => Some((held.keepers(lock, next.client), file.as_str())),
        _ => None,
    });
    let in_vain = || {
        let file = next.operands().next().filter(|_| next.class == Class::Lock && next.result.is_none())?;
        Some((held.holders(file, next.client), file))
    };
    let (keepers, file) = taken.or_else(in_vain)?;
    let keepers: Vec<String> = keepers.iter().map(|keeper| format!("client {keeper}")).collect();
    (!keepers.is_empty()).then(|| format!("{file}, which {} has locked", keepers.join(" and ")))
}

/// Returns the file whose lock this call takes.
fn takes(call: &Call) -> Option<&str> {
    call.locks.iter().find_map(|change| match change {
        LockChange::Taken(_, path) => Some(path.as_str()),
        _ => None,
    })
}

/// Describes how a client without further calls ended.
fn end(operation: Option<&Operation>) -> &'static str {
    match operation.map(|operation| &operation.outcome) {
        Some(Outcome::Killed) => "was killed",
        Some(Outcome::Unfinished(_)) => "was killed past its limit",
        Some(Outcome::Stuck) => "was blocked forever, and was killed",
        _ => "ended",
    }
}

//! No lock that a process took is held by another one after the first and its operation have ended.
//!
//! Judged if an operation ran to its own end under the tracer, once the processes it left behind are idle: a
//! surviving child holds the lock as long as it holds the descriptor, and no other client gets the lock until it
//! ends. Typical causes: a background helper started under the lock, a descriptor opened without `O_CLOEXEC`.
//!
//! Example: `add` starts a helper under the lock that inherits the descriptor and lives on: the lock is held long
//! after `add` has ended.

use crate::catalogue::headline;
use crate::evidence::Evidence;
use crate::invariants::{Invariant, Needs};
use crate::observation::Observation;
use crate::verdict::Judgement;

pub(super) const INVARIANT: Invariant = Invariant {
    id: "no-leaked-lock",
    statement: headline(include_str!("no_leaked_lock.rs")),
    source: include_str!("no_leaked_lock.rs"),
    needs: Needs::Nothing,
    evidence: &[Evidence::Inheritances, Evidence::HeldPoints],
    unjudged: "no operation ran to its end under the tracer",
    check,
};

fn check(observation: &Observation) -> Judgement {
    let whole = || observation.traces.iter().filter(|trace| trace.is_whole);
    if let Some((trace, leak)) = whole().find_map(|trace| Some((trace, trace.leaks.first()?))) {
        let request =
            usize::try_from(leak.client).ok().and_then(|client| trace.requests.get(client.checked_sub(1)?));
        let request = request.map(ToString::to_string).unwrap_or_default();
        return Judgement::Violated(format!(
            "after the end of {request} a process that outlived it still has its lock on {}",
            leak.file
        ));
    }
    if whole().next().is_some() { Judgement::Holds } else { Judgement::NotExercised }
}

#[cfg(test)]
mod tests {
    use super::super::timeline::observe;
    use super::*;
    use crate::call::Leak;
    use crate::locks::Kind;
    use crate::observation::Trace;
    use crate::op::Request;

    fn judge(leaks: Vec<Leak>, is_whole: bool) -> Judgement {
        let mut observation = observe("");
        observation.traces = vec![Trace {
            requests: vec![Request::List],
            calls: Vec::new(),
            leaks,
            is_whole,
            ..Trace::default()
        }];
        check(&observation)
    }

    #[test]
    fn a_lock_that_a_survivor_has_violates_and_is_named() {
        let leak = Leak { client: 1, file: "db.lock".into(), kind: Kind::Flock };
        let seen = judge(vec![leak.clone()], true);
        assert!(
            matches!(&seen, Judgement::Violated(text) if text.contains("end of list") && text.contains("db.lock"))
        );
        assert_eq!(judge(vec![leak], false), Judgement::NotExercised);
    }

    #[test]
    fn an_operation_that_leaves_none_holds() {
        assert_eq!(judge(Vec::new(), true), Judgement::Holds);
    }
}

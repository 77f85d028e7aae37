//! Two handles on one path in one process; nested operations.
//!
//! Every operation runs under the tracer, `add` a dozen times in a row, since many stores do something more every so
//! often: should it lock a path that it has locked already, through a second descriptor, in another thread or in a
//! child that it waits for, nobody can go on, and that is seen at once. A store that speaks the session protocol is
//! asked to add and to list through two handles on one path.
//!
//! Example: `picklock check --only reentry` on a store that opens its lock file twice finds that it waits for itself.

use crate::catalogue::headline;
use crate::op::Request;
use crate::scenario::crash::add;
use crate::scenario::script::{Act, Script};
use crate::scenario::{Scenario, session};

pub(super) const SCENARIO: Scenario = Scenario {
    id: "reentry",
    statement: headline(include_str!("reentry.rs")),
    source: include_str!("reentry.rs"),
};

/// Number of consecutive `add`s.
const ADDS: u32 = 12;

/// Returns the executions: all `add`s in one, each other operation in one, and a session. The number of records,
/// including the existing one, does not exceed `limit`.
pub fn scripts(requests: &[Request], limit: Option<u32>, has_session: bool) -> Vec<Script> {
    let traced = |request: Request| Act::Trace { requests: vec![request], injection: None };
    let last = limit.unwrap_or(u32::MAX).min(ADDS);
    let adds: Vec<Act> = (2..=last).map(|number| traced(add(number))).chain([Act::List]).collect();
    let others = requests.iter().filter(|request| !matches!(request, Request::Add { .. }));
    let others = others.map(|request| Script { acts: vec![traced(request.clone()), Act::List] });
    let in_session = has_session.then(|| Script { acts: vec![Act::Session { steps: session::reentry() }] });
    std::iter::once(Script { acts: adds }).chain(others).chain(in_session).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_added_than_the_store_takes() {
        let count = |limit| scripts(&[add(2), Request::List], limit, false)[0].acts.len() - 1;
        assert_eq!((count(None), count(Some(3)), count(Some(1))), (11, 2, 0));
    }
}

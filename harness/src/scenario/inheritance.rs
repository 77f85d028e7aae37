//! A store whose child outlives it; descriptors leaked across exec.
//!
//! Every operation runs under the tracer to its end. A lock belongs to the open file description (`flock`, OFD), so
//! that a child has it as long as it has a copy of the descriptor: by fork, or across exec without `O_CLOEXEC`. What a
//! process took and another one still has when the first and its operation have ended is told, once those that live
//! on have come to rest; then the store is asked to add one more.
//!
//! Example: `picklock check --only inheritance` on a store that starts a daemon under its lock finds the lock held for
//! ever.

use crate::catalogue::headline;
use crate::op::Request;
use crate::scenario::Scenario;
use crate::scenario::crash::{add, numbered};
use crate::scenario::script::{Act, Script};

pub(super) const SCENARIO: Scenario = Scenario {
    id: "inheritance",
    statement: headline(include_str!("inheritance.rs")),
    source: include_str!("inheritance.rs"),
};

/// One execution for each operation.
pub fn scripts(requests: &[Request]) -> Vec<Script> {
    let script = |request: &Request| {
        let (request, next) = numbered(request, 2);
        let trace = Act::Trace { requests: vec![request], injection: None };
        Script { acts: vec![trace, Act::Operate(add(next)), Act::List] }
    };
    requests.iter().map(script).collect()
}

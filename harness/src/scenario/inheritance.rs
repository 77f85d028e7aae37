//! A store whose child outlives it; descriptors leaked across exec.
//!
//! Every operation runs to its end under the tracer. A lock belongs to the open file description (`flock`, OFD), so
//! a child holds it as long as it holds a copy of the descriptor, inherited by fork or across exec without
//! `O_CLOEXEC`. A lock that another process still holds after its owner and the operation have ended is reported
//! once the surviving processes are idle; then the store has to add one more record.
//!
//! Example: `picklock check --only inheritance` on a store that starts a daemon under its lock finds the lock held
//! forever.

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

/// Returns one execution for each operation.
pub fn scripts(requests: &[Request]) -> Vec<Script> {
    let script = |request: &Request| {
        let (request, next) = numbered(request, 2);
        let trace = Act::Trace { requests: vec![request], injection: None };
        Script { acts: vec![trace, Act::Operate(add(next)), Act::List] }
    };
    requests.iter().map(script).collect()
}

//! Orders an execution for the reader: untraced operations, and traces with their operations.

use crate::observation::{Observation, Trace};
use crate::op::Operation;

/// A part that is shown as one unit.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part<'a> {
    /// An operation that was not traced.
    Operation(&'a Operation),
    /// A trace of operations that ran together under the tracer, and those operations, if they are known.
    Trace(&'a Trace, &'a [Operation]),
}

/// Returns all parts, in order.
pub(super) fn parts(observation: &Observation) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut traces = observation.traces.iter().peekable();
    let mut rest = observation.operations.as_slice();
    while let Some((first, others)) = rest.split_first() {
        match traces.next_if(|trace| trace.requests.contains(&first.request)) {
            Some(trace) => {
                let (own, others) = rest.split_at(trace.requests.len().clamp(1, rest.len()));
                parts.push(Part::Trace(trace, own));
                rest = others;
            }
            None => {
                parts.push(Part::Operation(first));
                rest = others;
            }
        }
    }
    parts.extend(traces.map(|trace| Part::Trace(trace, &[])));
    parts
}

//! One undisturbed operation under the tracer, after the store holds a record.

use std::time::Instant;

use crate::call::Trace;
use crate::op::{Outcome, Request, record_name};
use crate::runner::{RunError, Stage};
use crate::tracer::TracerError;

/// Why there is no trace of an operation.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The harness could not do its part.
    #[error("{0}")]
    Run(#[from] RunError),
    /// The tracer could not.
    #[error("{0}")]
    Tracer(#[from] TracerError),
    /// What comes before did not work.
    #[error("{0} did not succeed, which comes before the operation that is traced; it said: {1}")]
    Before(String, String),
}

/// Traces `request` in a sandbox where `init` has run, and one `add`.
///
/// # Errors
/// Where something before it failed, or it cannot be traced.
pub fn trace(stage: &Stage<'_>, request: &Request) -> Result<Trace, TraceError> {
    stage.lay()?;
    let first = Request::Add { record: record_name(1), number: 1 };
    let wants_init = stage.target.ops.init.is_some() && !stage.sandbox.has_old();
    let before = wants_init.then_some(Request::Init).into_iter().chain([first]);
    for earlier in before {
        if *request == Request::Init {
            break;
        }
        let operation = stage.operate(1, earlier, Instant::now(), None, &|| (), &|_| ())?;
        if operation.outcome != Outcome::Acknowledged {
            return Err(TraceError::Before(operation.request.to_string(), operation.stderr));
        }
    }
    stage.traced(request, None)
}

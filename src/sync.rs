//! Selects the primitives of the queue and the group commit: std's, or loom's under the model checker.
//!
//! `src/tests/interleavings.rs` compiles `queue.rs` and `group.rs` once more with loom's types here, and runs them
//! through all interleavings.

pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
pub(crate) use std::thread;

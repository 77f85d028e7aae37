//! Operations one after another, undisturbed.
//!
//! The control runs first and has its own exit status: a store that does not work without injections is not judged.
//! It also measures what later scenarios need: how long an operation takes, when it accesses its directory, and how
//! many files the store leaves.
//!
//! Example: `picklock check --only control` shows whether picklock can drive your store at all.

use crate::catalogue::headline;
use crate::scenario::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    id: "control",
    statement: headline(include_str!("control.rs")),
    source: include_str!("control.rs"),
};

/// Number of records that the control adds, unless the target's limit is lower.
pub const ADDS: u32 = 4;

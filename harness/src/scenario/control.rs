//! Operations one after another, undisturbed.
//!
//! The control runs first and has an exit status of its own: a store that does not work without injections is not judged.
//! It also learns what later scenarios need: how long an operation takes, when in it the store touches its folder,
//! and how many files an undisturbed store leaves.
//!
//! Example: `picklock check --only control` tells whether picklock can drive your store at all.

use crate::catalogue::headline;
use crate::scenario::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    id: "control",
    statement: headline(include_str!("control.rs")),
    source: include_str!("control.rs"),
};

/// How many records the control adds, unless the target's limit is lower.
pub const ADDS: u32 = 4;

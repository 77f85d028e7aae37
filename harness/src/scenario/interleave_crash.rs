//! The same with one kill as a further choice.
//!
//! As in `interleave`, but client 1 is killed before one of its visible calls, for each of these calls in turn. Of
//! all schedules with that kill, those are run that differ in more than the order of independent calls. The other
//! clients continue; then the store has to recover, add one more record, and list.
//!
//! Example: `picklock check --only interleave-crash` on a store that breaks the lock of a dead owner finds two
//! clients that do so at once.

use crate::catalogue::headline;
use crate::scenario::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    id: "interleave-crash",
    statement: headline(include_str!("interleave_crash.rs")),
    source: include_str!("interleave_crash.rs"),
};

/// Default number of concurrent clients: one is killed, one may break what it left behind, and one is new.
pub const CLIENTS: u32 = 3;

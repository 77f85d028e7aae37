//! The same with one kill as a further choice.
//!
//! As `interleave`, but client 1 is killed before one of its visible calls, for each of these in turn: of all schedules in
//! which that happens those are run that differ in more than the order of independent calls. The others go on; then the
//! store is to recover, to add once more, and to list.
//!
//! Example: `picklock check --only interleave-crash` on a store that breaks the lock of a dead one finds two that do
//! so at once.

use crate::catalogue::headline;
use crate::scenario::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    id: "interleave-crash",
    statement: headline(include_str!("interleave_crash.rs")),
    source: include_str!("interleave_crash.rs"),
};

/// Clients at a time, where nobody says how many: one that is killed, one that may break what it left, and one that comes
/// new.
pub const CLIENTS: u32 = 3;

//! A kill (also each process alone) before and after every visible call, alone and while others wait.
//!
//! One quiet run under the tracer tells the visible calls of an operation. Then, in a fresh sandbox each time, the
//! operation is stopped before its k-th call and every process of it killed there; the store is asked to go on, and
//! looked at. Where a kill leaves files behind, four more at the same point show whether they pile up. So far the whole
//! operation is killed, with nobody beside it: single processes of it, and kills while others wait, are to come.

use crate::catalogue::headline;
use crate::scenario::Scenario;

pub(super) const SCENARIO: Scenario =
    Scenario { id: "crash", statement: headline(include_str!("crash.rs")), source: include_str!("crash.rs") };

/// Crash points of one operation that are tried; of more, those before and after changes come first.
pub const POINTS_MAX: usize = 400;
/// Kills at one point, where the first one left something behind.
pub const KILLS_ALIKE: u32 = 5;

/// Which of the points 1 to `calls` + 1 are tried: all, or those around the changes first.
pub fn points(calls: u32, changes: &[u32]) -> Vec<u32> {
    let all = 1..=calls + 1;
    if (calls as usize) < POINTS_MAX {
        return all.collect();
    }
    let is_near = |point: &u32| changes.iter().any(|change| *point == *change || *point == change + 1);
    let (near, others): (Vec<u32>, Vec<u32>) = all.partition(is_near);
    let mut chosen: Vec<u32> = near.into_iter().chain(others).take(POINTS_MAX).collect();
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_tried_and_of_too_many_those_around_changes() {
        assert_eq!(points(3, &[2]), [1, 2, 3, 4]);
        let chosen = points(1000, &[900]);
        assert_eq!(chosen.len(), POINTS_MAX);
        assert!(chosen.contains(&900) && chosen.contains(&901) && chosen.contains(&1));
    }
}

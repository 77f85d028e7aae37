//! Every write cut short, then the kill; a cut that a kill alone cannot leave (inside a page) stands for a full disk, a quota or a size limit, and the finding says so.
//!
//! A kill leaves the pages of a write that were copied already: it can cut only where a page of the file begins. All
//! other cuts come of a file system that takes no more, and reports how much it took: there the operation is killed
//! right after such a write, before it can do anything about it, or goes on and must finish the job or fail honestly.
//! The write is a real one with a smaller count, not a made-up answer. A cut inside bytes that are allocated already, which
//! neither a kill nor a full disk makes, is a remark on portability. Cut are the first byte, the middle, the
//! last byte and the page boundaries, at most twelve of one write.
//!
//! Example: `picklock check --only torn-write` on a log without repair finds that the next record is glued to half a
//! line.

use crate::call::{Call, Class, Effect};
use crate::catalogue::headline;
use crate::op::Request;
use crate::persist::{Tree, lengths_before};
use crate::scenario::Scenario;
use crate::scenario::crash::alone;
use crate::scenario::script::{InjectionKind, Script};

pub(super) const SCENARIO: Scenario = Scenario {
    id: "torn-write",
    statement: headline(include_str!("torn_write.rs")),
    source: include_str!("torn_write.rs"),
};

/// Page size of a file, in bytes: after a kill, the part of a write in one page is there wholly or not at all.
pub const PAGE: u64 = 4096;
/// Maximum number of cuts per write.
const CUTS_MAX: usize = 12;
/// Maximum number of writes cut per operation: the last ones, because they are nearest to the acknowledgement.
const WRITES_MAX: usize = 60;

/// Returns where a write of `length` bytes at `offset` is cut, as numbers of bytes written.
pub fn cuts(offset: Option<u64>, length: u64) -> Vec<u64> {
    let mut cuts = vec![1, length / 2, length.saturating_sub(1)];
    cuts.extend(page_cuts(offset, length).take(CUTS_MAX));
    cuts.retain(|cut| (1..length).contains(cut));
    cuts.sort_unstable();
    cuts.dedup();
    cuts.truncate(CUTS_MAX);
    cuts
}

/// Returns the cuts that a kill alone can leave: at page boundaries.
pub fn page_cuts(offset: Option<u64>, length: u64) -> impl Iterator<Item = u64> {
    let offset = offset.unwrap_or(0);
    let first = (offset / PAGE + 1) * PAGE - offset;
    (0..).map(move |page| first + page * PAGE).take_while(move |cut| *cut < length)
}

/// Whether a kill can cut a write at `offset` after `cut` bytes; false if the offset is unknown.
pub fn is_cut_of_a_kill(offset: Option<u64>, cut: u64) -> bool {
    offset.is_some_and(|offset| (offset + cut).is_multiple_of(PAGE))
}

/// Returns the number of writes that are skipped because the operation has too many.
pub fn writes_left_out(calls: &[Call]) -> usize {
    let is_write =
        |call: &&Call| call.class == Class::Write && matches!(call.effect, Some(Effect::Written { .. }));
    calls.iter().filter(is_write).count().saturating_sub(WRITES_MAX)
}

/// Returns the executions: each write cut at each place, once with a kill and once without. A cut inside allocated
/// bytes represents neither a full disk nor a quota: it is a question of portability. `before` is the content of the
/// sandbox before the calls, if known.
pub fn scripts(request: &Request, calls: &[Call], before: Option<&Tree>) -> Vec<Script> {
    let lengths = before.map(|before| lengths_before(before, calls)).unwrap_or_default();
    let is_allocated = |point: u32, offset: Option<u64>, cut: u64| {
        let length = lengths.get(point as usize - 1).copied().flatten();
        !is_cut_of_a_kill(offset, cut)
            && length.zip(offset).is_some_and(|(length, offset)| offset + cut < length)
    };
    let writes = (1..).zip(calls).filter_map(|(point, call)| match call.effect {
        Some(Effect::Written { offset, length, .. }) if call.class == Class::Write => {
            Some((point, offset, length))
        }
        _ => None,
    });
    let mut writes: Vec<(u32, Option<u64>, u64)> = writes.collect();
    writes.drain(..writes_left_out(calls));
    writes
        .into_iter()
        .flat_map(|(point, offset, length)| {
            cuts(offset, length).into_iter().flat_map(move |cut| {
                [InjectionKind::Tear(cut), InjectionKind::Shorten(cut)].map(|what| (point, what, offset, cut))
            })
        })
        .map(|(point, what, offset, cut)| {
            let mut script = alone(request, calls, point, what);
            if is_allocated(point, offset, cut) {
                script.mark_as_of_the_contract();
            }
            script
        })
        .collect()
}

/// Whether a script cuts a write in its middle, which is the most informative cut.
pub fn is_telling(script: &Script) -> bool {
    script.injection().is_some_and(|injection| match injection.what {
        InjectionKind::Tear(cut) | InjectionKind::Shorten(cut) => cut > 1 && !injection.is_of_the_contract,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_cut_at_its_ends_its_middle_and_where_pages_begin() {
        assert_eq!(cuts(Some(0), 10), [1, 5, 9]);
        assert_eq!(cuts(Some(0), 1), [0; 0]);
        assert_eq!(cuts(Some(4000), 5000), [1, 96, 2500, 4192, 4999]);
        assert_eq!(cuts(Some(0), 1 << 20).len(), CUTS_MAX);
    }

    #[test]
    fn of_too_many_writes_the_last_are_cut_and_the_others_are_counted() {
        let text = "1 write 1\n".repeat(WRITES_MAX + 5);
        let calls = crate::call::sketch(&text);
        assert_eq!(writes_left_out(&calls), 5);
        let scripts = scripts(&Request::List, &calls, None);
        let first = scripts.iter().filter_map(|script| Some(script.injection()?.point)).min();
        assert_eq!(first, Some(6));
    }

    #[test]
    fn a_kill_cuts_only_where_a_page_of_the_file_begins() {
        assert!(is_cut_of_a_kill(Some(4000), 96));
        assert!(!is_cut_of_a_kill(Some(4000), 97));
        assert!(!is_cut_of_a_kill(None, 4096));
        assert_eq!(page_cuts(Some(4095), 4098).collect::<Vec<_>>(), [1, 4097]);
        assert_eq!(page_cuts(Some(0), 4096).count(), 0);
    }
}

//! Derives the states that a kill may leave: exact prefixes of the calls, with one write cut.
//!
//! The calls of one process have one order and the kernel loses none of them: a kill leaves the result of a prefix of
//! the calls, with the running call cut at a page boundary of the file.

use crate::call::{Call, Effect};
use crate::persist::tree::{Tree, Unmodelled};
use crate::scenario::torn_write::page_cuts;

/// The state left by a kill at one crash point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrashState {
    /// The crash point: before this call, counted from 1.
    pub point: u32,
    /// Number of bytes that the call itself wrote before the kill, if it was cut.
    pub cut: Option<u64>,
    /// Content of the sandbox.
    pub tree: Tree,
}

/// Returns every distinct directory content that a kill of this operation can leave, in the order of its calls; the
/// last is the result of the whole operation. At most a dozen cuts are made of one write.
///
/// # Errors
/// If a call did something that is not modelled, or if several processes or threads made calls: another run may order
/// those differently.
pub fn crash_states<'a>(first: &Tree, calls: &'a [Call]) -> Result<CrashStates<'a>, Unmodelled> {
    let is_other = |call: &&Call| (call.process, call.thread) != (calls[0].process, calls[0].thread);
    if let Some(other) = calls.iter().find(is_other) {
        return Err(Unmodelled::new(other, "was made by another process or thread"));
    }
    // Calls that are not modelled are detected before any state is derived.
    let mut last = first.clone();
    calls.iter().try_for_each(|call| last.apply(call, None))?;
    let left_out = calls.iter().map(|call| pages_of(call).len() - cuts_of(Some(call)).len()).sum();
    Ok(CrashStates { calls, tree: first.clone(), next: 0, cuts: Vec::new(), told: None, last, left_out })
}

/// Returns, for each call, the length before it of the file that it writes; `None` if it writes none or the length is
/// unknown.
pub fn lengths_before(first: &Tree, calls: &[Call]) -> Vec<Option<u64>> {
    let mut tree = Some(first.clone());
    let length = |tree: &Option<Tree>, call: &Call| match &call.effect {
        Some(Effect::Written { file, .. }) => {
            let tree = tree.as_ref()?;
            tree.length(tree.number(*file)?)
        }
        _ => None,
    };
    let mut lengths = Vec::with_capacity(calls.len());
    for call in calls {
        lengths.push(length(&tree, call));
        tree = tree.and_then(|mut tree| tree.apply(call, None).ok().map(|()| tree));
    }
    lengths
}

/// The crash states of one operation, produced one after another: only one of them exists at a time.
#[derive(Clone, Debug)]
pub struct CrashStates<'a> {
    calls: &'a [Call],
    /// Result of the calls before `next`.
    tree: Tree,
    next: usize,
    /// Remaining cuts of the call `next`, the last first.
    cuts: Vec<u64>,
    told: Option<Tree>,
    last: Tree,
    left_out: usize,
}

impl CrashStates<'_> {
    /// Returns the result of the whole operation.
    pub fn whole(&self) -> &Tree {
        &self.last
    }

    /// Returns the number of page cuts of long writes that are left out.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// Returns the next content, even if it equals the previous one.
    fn step(&mut self) -> Option<CrashState> {
        let point = u32::try_from(self.next + 1).ok()?;
        if self.told.is_none() {
            self.cuts = cuts_of(self.calls.first());
            return Some(CrashState { point, cut: None, tree: self.tree.clone() });
        }
        let call = self.calls.get(self.next)?;
        if let Some(cut) = self.cuts.pop() {
            let mut torn = self.tree.clone();
            // `crash_states` has checked that the call is modelled.
            torn.apply(call, Some(cut)).ok()?;
            return Some(CrashState { point, cut: Some(cut), tree: torn });
        }
        self.tree.apply(call, None).ok()?;
        self.next += 1;
        self.cuts = cuts_of(self.calls.get(self.next));
        Some(CrashState { point: point + 1, cut: None, tree: self.tree.clone() })
    }
}

impl Iterator for CrashStates<'_> {
    type Item = CrashState;

    /// Counts equal contents once: a call that changes nothing creates no new state.
    fn next(&mut self) -> Option<CrashState> {
        loop {
            let state = self.step()?;
            if self.told.as_ref() != Some(&state.tree) {
                self.told = Some(state.tree.clone());
                return Some(state);
            }
        }
    }
}

/// Returns where a kill can cut a call, the last place first: the first page boundary, the last one, and some in
/// between.
fn cuts_of(call: Option<&Call>) -> Vec<u64> {
    let all = call.map(pages_of).unwrap_or_default();
    let step = all.len().div_ceil(CUTS_MAX).max(1);
    let is_kept = |at: &usize| at.is_multiple_of(step) || at + 1 == all.len();
    (0..all.len()).rev().filter(is_kept).map(|at| all[at]).collect()
}

/// Returns every page boundary of the file within the bytes that a call writes.
fn pages_of(call: &Call) -> Vec<u64> {
    match &call.effect {
        Some(Effect::Written { offset, length, .. }) => page_cuts(*offset, *length).collect(),
        _ => Vec::new(),
    }
}

/// Maximum number of cuts of one write, in addition to the last one.
const CUTS_MAX: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::sketch;

    /// A file `db` that holds `old`.
    fn first() -> Tree {
        let mut tree = Tree::default();
        tree.put_file("db", b"old".to_vec(), 0o644);
        tree
    }

    /// Calls parsed from a text; their writes write `content`.
    fn calls(text: &str, content: &[u8]) -> Vec<Call> {
        let mut calls = sketch(text);
        for call in &mut calls {
            if let Some(Effect::Written { length, .. }) = &mut call.effect {
                *length = content.len() as u64;
                call.data = Some(content.to_vec());
            }
        }
        calls
    }

    fn data(state: &CrashState) -> Option<&[u8]> {
        state.tree.content("db")
    }

    #[test]
    fn a_rename_leaves_the_old_data_or_the_new() {
        let calls = calls("1 create tmp 2\n 1 write 2\n 1 sync 2\n 1 rename tmp db", b"new");
        let states: Vec<CrashState> = crash_states(&first(), &calls).unwrap().collect();
        let points: Vec<u32> = states.iter().map(|state| state.point).collect();
        assert_eq!(points, [1, 2, 3, 5]);
        assert!(states[..3].iter().all(|state| data(state) == Some(b"old")));
        assert_eq!(data(&states[3]), Some(&b"new"[..]));
        assert_eq!(states[3].tree.names().collect::<Vec<_>>(), ["db"]);
    }

    #[test]
    fn a_rewrite_in_place_leaves_nothing_in_between_and_long_writes_are_cut_at_pages() {
        let long = vec![b'x'; 10_000];
        let calls = calls("1 truncate db 1\n 1 write 1", &long);
        let states: Vec<CrashState> = crash_states(&first(), &calls).unwrap().collect();
        let sizes: Vec<usize> = states.iter().map(|state| data(state).unwrap().len()).collect();
        assert_eq!(sizes, [3, 0, 4096, 8192, 10_000]);
        assert_eq!(states[2].cut, Some(4096));
    }

    #[test]
    fn what_is_not_modelled_is_said_and_so_are_several_processes() {
        let mut odd = calls("1 open db 1\n 1 write 1", b"x");
        odd[1].effect = Some(Effect::Other);
        assert!(crash_states(&first(), &odd).unwrap_err().to_string().contains("write(1)"));
        let mut two = calls("1 open db 1\n 1 write 1", b"x");
        two[1].process = 2;
        assert!(crash_states(&first(), &two).unwrap_err().to_string().contains("another process"));
        let mut unseen = calls("1 open db 1\n 1 write 1", b"x");
        unseen[1].data = None;
        assert!(crash_states(&first(), &unseen).is_err());
    }

    #[test]
    fn a_second_name_and_a_removed_one_are_the_same_file() {
        let calls = calls("1 link db two\n 1 unlink db\n 1 open two 7\n 1 write 7", b"X");
        let states = crash_states(&first(), &calls).unwrap();
        let last = states.whole();
        assert_eq!(last.content("two"), Some(&b"Xld"[..]));
        assert_eq!(last.content("db"), None);
    }

    #[test]
    fn the_length_before_a_write_is_known() {
        let calls = calls("1 open db 1\n 1 write 1\n 1 write 1", b"longer");
        assert_eq!(lengths_before(&first(), &calls), [None, Some(3), Some(6)]);
    }

    /// Two names of one file were considered equal to two files of the same content.
    #[test]
    fn two_files_of_one_content_are_not_one_file_with_two_names() {
        let mut two_files = first();
        two_files.put_file("two", b"old".to_vec(), 0o644);
        let mut two_names = Tree::default();
        let file = two_names.put_file("db", b"old".to_vec(), 0o644);
        two_names.put_name("two", file);
        assert_ne!(two_files, two_names);
        assert_ne!(two_names, two_files);
        assert_ne!(two_files.digest(), two_names.digest());
    }

    /// An empty write beyond the end of a file was assumed to need the bytes before it.
    #[test]
    fn a_write_of_nothing_changes_nothing() {
        let mut calls = calls("1 open db 1\n 1 write 1", b"");
        if let Some(Effect::Written { offset, .. }) = &mut calls[1].effect {
            *offset = Some(100);
        }
        let states: Vec<CrashState> = crash_states(&first(), &calls).unwrap().collect();
        assert_eq!(states.len(), 1);
    }

    /// Every page of every write was kept in memory at once, and a store of some megabytes ended picklock.
    #[test]
    fn of_a_long_write_a_dozen_cuts_are_made() {
        let calls = calls("1 truncate db 1\n 1 write 1", &vec![b'x'; 1 << 20]);
        let states: Vec<CrashState> = crash_states(&first(), &calls).unwrap().collect();
        assert!((10..=16).contains(&states.len()), "{}", states.len());
        // 255 pages begin within it; the number left out is reported, so that the rest is not taken for all.
        let told = crash_states(&first(), &calls).unwrap().left_out();
        assert_eq!(told, 255 - states.iter().filter(|state| state.cut.is_some()).count());
        assert_eq!(states[states.len() - 2].cut, Some((1 << 20) - 4096));
    }
}

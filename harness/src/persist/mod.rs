//! What a crash may leave: directory contents derived from the calls of one recorded run, without running anything.
//!
//! So far for a kill: the calls of one process have one order, the kernel forgets none of them, and so what a kill
//! leaves is what a prefix of them made, with the call that was under way cut where a page of the file begins.

mod tree;

use crate::call::{Call, Effect};
use crate::scenario::torn_write::page_cuts;

pub use tree::{Entry, Tree, Unmodelled};

/// What a kill at one crash point leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrashState {
    /// The crash point: before this call, counted from 1.
    pub point: u32,
    /// The call itself wrote so many bytes before the kill, where it was cut.
    pub cut: Option<u64>,
    /// What stands in the sandbox.
    pub tree: Tree,
}

/// Every distinct directory content that a kill of this operation can leave, in the order of its calls, and what the
/// whole operation leaves, last.
///
/// # Errors
/// Where a call did something that is not modelled, or several processes or threads made calls, whose order another
/// run may change.
pub fn crash_states(first: &Tree, calls: &[Call]) -> Result<Vec<CrashState>, Unmodelled> {
    let is_other = |call: &&Call| (call.process, call.thread) != (calls[0].process, calls[0].thread);
    if let Some(other) = calls.iter().find(is_other) {
        return Err(Unmodelled::new(other, "was made by another process or thread"));
    }
    let mut tree = first.clone();
    let mut states = vec![CrashState { point: 1, cut: None, tree: tree.clone() }];
    for (point, call) in (1..).zip(calls) {
        if let Some(Effect::Written { offset, length, .. }) = call.effect {
            for cut in page_cuts(offset, length) {
                let mut torn = tree.clone();
                torn.apply(call, Some(cut))?;
                push(&mut states, CrashState { point, cut: Some(cut), tree: torn });
            }
        }
        tree.apply(call, None)?;
        push(&mut states, CrashState { point: point + 1, cut: None, tree: tree.clone() });
    }
    Ok(states)
}

/// Equal contents count once: a call that changes nothing makes no new state.
fn push(states: &mut Vec<CrashState>, state: CrashState) {
    if states.last().is_none_or(|last| last.tree != state.tree) {
        states.push(state);
    }
}

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

    /// Calls of a text, whose writes write `content`.
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
        let states = crash_states(&first(), &calls).unwrap();
        let points: Vec<u32> = states.iter().map(|state| state.point).collect();
        assert_eq!(points, [1, 2, 3, 5]);
        assert!(states[..3].iter().all(|state| data(state) == Some(b"old")));
        assert_eq!(data(&states[3]), Some(&b"new"[..]));
        assert_eq!(states[3].tree.names().collect::<Vec<_>>(), ["db"]);
    }

    #[test]
    fn a_rewrite_in_place_leaves_nothing_in_between_and_long_writes_are_cut_at_pages() {
        let long = vec![b'x'; 10_000];
        let states = crash_states(&first(), &calls("1 truncate db 1\n 1 write 1", &long)).unwrap();
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
        let states =
            crash_states(&first(), &calls("1 link db two\n 1 unlink db\n 1 open two 7\n 1 write 7", b"X"))
                .unwrap();
        let last = &states.last().unwrap().tree;
        assert_eq!(last.content("two"), Some(&b"Xld"[..]));
        assert_eq!(last.content("db"), None);
    }
}

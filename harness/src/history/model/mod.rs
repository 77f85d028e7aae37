//! Sequential models: what each call answers where one runs after another.

pub mod counter;
pub mod guarded_set;
pub mod kv;
pub mod members;
pub mod register;
pub mod set;

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

/// A value of a register or of a key, as its text.
pub type Value = Arc<str>;

/// A call of unanswered operations that are not in the order so far.
#[derive(Clone, Copy, Debug)]
pub struct Pending<'a, C> {
    /// The call.
    pub call: &'a C,
    /// Number of unanswered operations with this call that are left.
    pub left: usize,
}

/// A sequential model.
///
/// The search takes an unanswered operation into its order only if the next answer needs it (see [`super::search`]).
/// This requires a law of every model: if a call with its answer is possible in a state, and also after a row of
/// unanswered calls from that state, then some of these unanswered calls lead from the state after the first case to
/// the state after the second. In other words, unanswered calls can be delayed. A test checks this for each model.
pub trait Model {
    /// State between two calls.
    type State: Clone + Eq + Hash + fmt::Debug;
    /// A call with its answer, if it has one.
    type Call: Clone + Eq + Hash + fmt::Debug;
    /// Key that separates independent calls.
    type Key: Clone + Ord;

    /// Returns the part that the call belongs to. Each part is judged alone: linearizability is a local property.
    fn key(&self, call: &Self::Call) -> Self::Key;

    /// Returns the state before the first call of a part.
    fn initial(&self) -> Self::State;

    /// Returns the state after the call; `None` if the call cannot have this answer in this state. A call without an
    /// answer is possible in every state.
    fn step(&self, state: &Self::State, call: &Self::Call) -> Option<Self::State>;

    /// Returns whether the call changes nothing in any state, so that it is no evidence if it is unanswered.
    fn only_reads(&self, call: &Self::Call) -> bool;

    /// Returns which of `pending` may come next in a row of unanswered calls that makes `goal` possible, in which each
    /// call changes the state: indices into `pending`, whose calls differ. `goal` is not possible in `state`; `last` is
    /// the call of the row that led to `state`, if there is one.
    fn helpers(
        &self,
        state: &Self::State,
        goal: &Self::Call,
        pending: &[Pending<'_, Self::Call>],
        last: Option<&Self::Call>,
    ) -> Vec<usize>;

    /// Describes the call with its answer.
    fn describe(&self, call: &Self::Call) -> String;

    /// Describes the state.
    fn describe_state(&self, state: &Self::State) -> String;
}

/// The models by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`set::Set`].
    Set,
    /// [`counter::Counter`].
    Counter,
    /// [`register::Register`].
    Register,
    /// [`kv::Kv`].
    Kv,
    /// [`guarded_set::GuardedSet`].
    GuardedSet,
}

impl Kind {
    /// All models.
    pub const ALL: [Self; 5] = [Self::Set, Self::Counter, Self::Register, Self::Kv, Self::GuardedSet];

    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Counter => "counter",
            Self::Register => "register",
            Self::Kv => "kv",
            Self::GuardedSet => "guarded-set",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.name())
    }
}

/// The names of records, each with a number from 0 on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    names: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, u32>,
}

impl Names {
    /// Returns the number of this name, and assigns one if it is new.
    pub fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        // A history with more names than that does not fit into memory.
        let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        let name: Arc<str> = name.into();
        self.names.push(Arc::clone(&name));
        self.numbers.insert(name, number);
        number
    }

    /// Returns the name of this number.
    pub fn name(&self, number: u32) -> String {
        self.names.get(number as usize).map_or_else(|| format!("#{number}"), ToString::to_string)
    }

    /// Lists the names of the first few records and the number of the others.
    pub fn some(&self, records: impl ExactSizeIterator<Item = u32>) -> String {
        const SHOWN: usize = 8;
        let count = records.len();
        let shown: Vec<String> = records.take(SHOWN).map(|record| self.name(record)).collect();
        let more = count.saturating_sub(SHOWN);
        let tail = if more == 0 { String::new() } else { format!(" and {more} more") };
        format!("[{}{tail}]", shown.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::history::brute_force::Sample;
    use crate::history::model::{
        counter::Counter, guarded_set::GuardedSet, kv::Kv, register::Register, set::Set,
    };

    /// Returns all states reached by rows of up to `depth` of these calls, each used at most once.
    fn reached<M: Model>(model: &M, from: &M::State, calls: &[M::Call], depth: usize) -> HashSet<M::State> {
        let mut all = HashSet::from([from.clone()]);
        if depth > 0 {
            for (index, call) in calls.iter().enumerate() {
                let rest: Vec<M::Call> = calls
                    .iter()
                    .enumerate()
                    .filter(|(other, _)| *other != index)
                    .map(|(_, call)| call.clone())
                    .collect();
                if let Some(state) = model.step(from, call) {
                    all.extend(reached(model, &state, &rest, depth - 1));
                }
            }
        }
        all
    }

    fn keeps_the_law<M: Sample>(model: &M) {
        let (answered, unanswered) = (M::answered(), M::unanswered());
        let states = reached(model, &model.initial(), &answered, 3);
        assert!(states.len() > 3);
        for call in &unanswered {
            assert!(states.iter().all(|state| model.step(state, call).is_some()), "{call:?}");
        }
        let rows =
            unanswered.iter().flat_map(|one| unanswered.iter().map(move |two| [one.clone(), two.clone()]));
        for row in rows {
            for state in &states {
                let [one, two] = &row;
                let after_row = model.step(state, one).and_then(|state| model.step(&state, two)).unwrap();
                for call in &answered {
                    if let (Some(early), Some(late)) = (model.step(state, call), model.step(&after_row, call))
                    {
                        let later = reached(model, &early, &row, 2);
                        assert!(later.contains(&late), "{state:?} {row:?} {call:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn in_every_model_what_is_unanswered_can_be_put_off() {
        keeps_the_law(&Set::default());
        keeps_the_law(&Counter);
        keeps_the_law(&Register);
        keeps_the_law(&Kv);
        keeps_the_law(&GuardedSet::new(2, Names::default()));
    }

    #[test]
    fn a_name_keeps_its_number_and_a_long_list_is_cut_short() {
        let mut names = Names::default();
        let numbers: Vec<u32> = (0..10).map(|number| names.number(&format!("r{number}"))).collect();
        assert_eq!((names.number("r3"), names.name(3).as_str(), names.name(77).as_str()), (3, "r3", "#77"));
        assert_eq!(names.some(numbers.iter().copied()), "[r0, r1, r2, r3, r4, r5, r6, r7 and 2 more]");
    }
}

//! The search for an order that explains every answer of one part of a history.
//!
//! This is the search of Wing and Gong ("Testing and verifying concurrent objects", JPDC 17, 1993) with Lowe's cache of
//! configurations ("Testing for linearizability", Concurrency and Computation 29(4), 2017), on the linked list of
//! events that porcupine uses. The next operation of the order is any whose invocation precedes the first remaining
//! return. A configuration, which is the set of ordered operations and the state, is pruned if it was visited before.
//!
//! **Unanswered operations are delayed.** An operation without an answer could be anywhere in the order, and trying it
//! everywhere takes exponential time. By the law of [`Model`] it can be delayed until the next answer is not possible
//! without it. Only there does the search look for a row of unanswered calls that makes the answer possible, directly
//! before it; the model selects the calls that may be part of it. Calls that no answer needs are skipped. Unanswered
//! operations with the same call are equivalent once invoked, so one represents all. A configuration that used more of
//! them than another, and is otherwise the same, is pruned too: any order that continues it also continues the other.
//!
//! **The ordered operations** are stored compactly: all before the first operation that is not ordered, and a few bits
//! after it.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::Operation;
use super::hash::hash;
use super::model::{Model, Pending};

/// Result of the search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<S> {
    /// An order exists.
    Found,
    /// No order exists.
    Impossible {
        /// The operation that no order got past: all that returned before it can be ordered.
        culprit: usize,
        /// A state before it, in an order that got that far.
        state: S,
    },
    /// The search did not end within the bound.
    OutOfSteps,
    /// There were too many configurations to store.
    OutOfMemory,
}

/// Maximum number of words of stored configurations: 1 GiB.
const MEMORY: u64 = 1 << 27;

/// Searches for an order of `operations`, in at most `steps` steps of the model, and subtracts the steps used.
pub fn search<M: Model>(model: &M, operations: &[&Operation<M::Call>], steps: &mut u64) -> Outcome<M::State> {
    Search::new(model, operations, steps).run()
}

/// No event, or the list head.
const NONE: usize = 0;

/// The remaining events, in order of time: a linked list from which events are removed and into which they are
/// reinserted.
struct Events {
    next: Vec<usize>,
    previous: Vec<usize>,
    /// The answered operation of each event, and whether the event is its invocation.
    of: Vec<(usize, bool)>,
    /// The two events of each answered operation.
    ends: Vec<(usize, usize)>,
}

impl Events {
    /// Makes the events of operations with these times, sorted by their invocations.
    fn new(times: &[(u64, u64)]) -> Self {
        let calls = times.iter().enumerate().map(|(at, (invoked, _))| (*invoked, false, at));
        let returns = times.iter().enumerate().map(|(at, (_, returned))| (*returned, true, at));
        let mut events: Vec<(u64, bool, usize)> = calls.chain(returns).collect();
        // At one moment invocations come first: an operation that returns at that moment had not ended before.
        events.sort_unstable();
        let mut ends = vec![(NONE, NONE); times.len()];
        let mut of = vec![(usize::MAX, false)];
        for (event, (_, is_return, at)) in events.iter().enumerate() {
            let end = if *is_return { &mut ends[*at].1 } else { &mut ends[*at].0 };
            *end = event + 1;
            of.push((*at, !is_return));
        }
        let count = of.len();
        Self {
            next: (1..count).chain([NONE]).collect(),
            previous: [count - 1].into_iter().chain(0..count - 1).collect(),
            of,
            ends,
        }
    }

    fn first(&self) -> usize {
        self.next[NONE]
    }

    fn unlink(&mut self, event: usize) {
        let (previous, next) = (self.previous[event], self.next[event]);
        self.next[previous] = next;
        self.previous[next] = previous;
    }

    fn relink(&mut self, event: usize) {
        let (previous, next) = (self.previous[event], self.next[event]);
        self.next[previous] = event;
        self.previous[next] = event;
    }

    fn take(&mut self, operation: usize) {
        let (call, end) = self.ends[operation];
        self.unlink(call);
        self.unlink(end);
    }

    fn put_back(&mut self, operation: usize) {
        let (call, end) = self.ends[operation];
        self.relink(end);
        self.relink(call);
    }
}

/// The unanswered operations with the same call.
struct Class<'a, C> {
    call: &'a C,
    /// Times of their invocations, sorted.
    invoked: Vec<u64>,
    /// Number of them in the order.
    used: usize,
}

/// The answered operations in the order: all before `base`, and those of these bits from the word of `base` on.
#[derive(PartialEq, Eq, Hash)]
struct Ordered {
    base: usize,
    words: Box<[u64]>,
}

/// Visited configurations, by the hash of the ordered operations and the state.
type Met<S> = HashMap<u64, Vec<(Ordered, S, Vec<Box<[u32]>>)>, BuildHasherDefault<Hashed>>;

/// Passes hashes through, because they are hashed already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A row of unanswered calls; grows and shrinks while the search looks for one that makes a call possible.
struct Row<S> {
    places: Vec<Place<S>>,
}

/// One place in a row: the state there, the class that led to it, and the next candidates.
struct Place<S> {
    state: S,
    class: Option<usize>,
    candidates: std::vec::IntoIter<usize>,
}

/// An operation in the order, with what is needed to remove it again.
struct Taken<S> {
    operation: usize,
    before: S,
    highest: usize,
    /// The row before it; other rows may be tried after it.
    row: Option<Row<S>>,
}

struct Search<'a, M: Model> {
    model: &'a M,
    operations: &'a [&'a Operation<M::Call>],
    /// The answered operations, sorted by invocation: indices into `operations`.
    answered: Vec<usize>,
    classes: Vec<Class<'a, M::Call>>,
    /// The classes of the unanswered operations in the order.
    used: Vec<u32>,
    events: Events,
    in_order: Vec<u64>,
    /// One past the highest answered operation in the order.
    highest: usize,
    state: M::State,
    met: Met<M::State>,
    remembered: u64,
    order: Vec<Taken<M::State>>,
    /// The farthest return that no order got past, and the state there.
    farthest: Option<(usize, M::State)>,
    steps: &'a mut u64,
}

impl<'a, M: Model> Search<'a, M> {
    fn new(model: &'a M, operations: &'a [&'a Operation<M::Call>], steps: &'a mut u64) -> Self {
        let mut answered: Vec<usize> =
            (0..operations.len()).filter(|at| operations[*at].returned.is_some()).collect();
        answered.sort_by_key(|at| (operations[*at].invoked, operations[*at].returned));
        let times: Vec<(u64, u64)> = answered
            .iter()
            .filter_map(|at| Some((operations[*at].invoked, operations[*at].returned?)))
            .collect();
        let mut classes: Vec<Class<'a, M::Call>> = Vec::new();
        let mut by_call: HashMap<&M::Call, usize> = HashMap::new();
        for operation in operations {
            if operation.returned.is_none() && !model.only_reads(&operation.call) {
                let class = *by_call.entry(&operation.call).or_insert_with(|| {
                    classes.push(Class { call: &operation.call, invoked: Vec::new(), used: 0 });
                    classes.len() - 1
                });
                classes[class].invoked.push(operation.invoked);
            }
        }
        for class in &mut classes {
            class.invoked.sort_unstable();
        }
        Self {
            model,
            operations,
            classes,
            used: Vec::new(),
            events: Events::new(&times),
            in_order: vec![0; answered.len().div_ceil(64)],
            answered,
            highest: 0,
            state: model.initial(),
            met: Met::default(),
            remembered: 0,
            order: Vec::new(),
            farthest: None,
            steps,
        }
    }

    fn run(mut self) -> Outcome<M::State> {
        // First try calls that are possible without a row, in order of invocation; then calls that need a row.
        let (mut event, mut by_rows) = (self.events.first(), false);
        loop {
            if self.events.first() == NONE {
                return Outcome::Found;
            }
            if *self.steps == 0 {
                return Outcome::OutOfSteps;
            }
            if self.remembered > MEMORY {
                return Outcome::OutOfMemory;
            }
            let (operation, is_call) = self.events.of[event];
            let came_further = if is_call {
                if by_rows { self.append_by_a_row(operation) } else { self.append(operation) }
            } else if !by_rows && !self.classes.is_empty() {
                (event, by_rows) = (self.events.first(), true);
                continue;
            } else {
                // No candidate for the next place works, so backtrack.
                self.note(event);
                let Some(taken) = self.order.pop() else { return self.impossible() };
                event = self.events.ends[taken.operation].0;
                by_rows = taken.row.is_some();
                self.take_another_way(taken)
            };
            if came_further {
                (event, by_rows) = (self.events.first(), false);
            } else {
                event = self.events.next[event];
            }
        }
    }

    fn impossible(self) -> Outcome<M::State> {
        let (event, state) = self.farthest.unwrap_or((self.events.first(), self.state));
        Outcome::Impossible { culprit: self.answered[self.events.of[event].0], state }
    }

    /// Records the return that could not be passed here.
    fn note(&mut self, event: usize) {
        if self.farthest.as_ref().is_none_or(|(farthest, _)| *farthest < event) {
            self.farthest = Some((event, self.state.clone()));
        }
    }

    fn call(&self, operation: usize) -> &'a M::Call {
        &self.operations[self.answered[operation]].call
    }

    fn step(&mut self, state: &M::State, call: &M::Call) -> Option<M::State> {
        *self.steps = self.steps.saturating_sub(1);
        self.model.step(state, call)
    }

    /// Appends the operation to the order if it is possible; returns whether it did.
    fn append(&mut self, operation: usize) -> bool {
        let taken = Taken { operation, before: self.state.clone(), highest: self.highest, row: None };
        match self.step(&taken.before, self.call(operation)) {
            Some(after) => self.enter(&taken, after) && self.push(taken),
            None => false,
        }
    }

    /// Appends the operation to the order after a row of unanswered calls if it is not possible without one.
    fn append_by_a_row(&mut self, operation: usize) -> bool {
        let before = self.state.clone();
        if self.step(&before, self.call(operation)).is_some() {
            return false;
        }
        let candidates = self.candidates(&before, operation, None).into_iter();
        let place = Place { state: before.clone(), class: None, candidates };
        let row = Some(Row { places: vec![place] });
        self.enter_by_a_row(Taken { operation, before, highest: self.highest, row })
    }

    /// Removes the operation from the order, and appends it again after another row if there is one.
    fn take_another_way(&mut self, taken: Taken<M::State>) -> bool {
        self.leave(&taken);
        taken.row.is_some() && self.enter_by_a_row(taken)
    }

    fn enter_by_a_row(&mut self, mut taken: Taken<M::State>) -> bool {
        let Some(mut row) = taken.row.take() else { return false };
        while let Some(after) = self.next_row(&mut row, taken.operation) {
            if self.enter(&taken, after) {
                taken.row = Some(row);
                return self.push(taken);
            }
        }
        false
    }

    fn push(&mut self, taken: Taken<M::State>) -> bool {
        self.order.push(taken);
        true
    }

    /// Moves to the configuration with the operation in the order, unless it was visited.
    fn enter(&mut self, taken: &Taken<M::State>, after: M::State) -> bool {
        let operation = taken.operation;
        self.events.take(operation);
        self.in_order[operation / 64] |= 1 << (operation % 64);
        self.highest = self.highest.max(operation + 1);
        self.state = after;
        let is_new = self.remember();
        if !is_new {
            self.leave(taken);
        }
        is_new
    }

    fn leave(&mut self, taken: &Taken<M::State>) {
        self.events.put_back(taken.operation);
        self.in_order[taken.operation / 64] &= !(1 << (taken.operation % 64));
        self.highest = taken.highest;
        self.state = taken.before.clone();
    }

    /// Stores the configuration; returns whether it is new and no stored one used fewer unanswered calls.
    fn remember(&mut self) -> bool {
        let first = self.events.first();
        let base = if first == NONE { self.answered.len() } else { self.events.of[first].0 };
        let words = self.in_order.get(base / 64..self.highest.div_ceil(64)).unwrap_or_default();
        let key = hash(&(base, words, &self.state));
        let mut used = self.used.clone();
        used.sort_unstable();
        self.remembered += 12 + words.len() as u64 + used.len() as u64;
        let met = self.met.entry(key).or_default();
        let known = met
            .iter_mut()
            .find(|(known, state, _)| known.base == base && *known.words == *words && *state == self.state);
        match known {
            Some((.., known)) => {
                if known.iter().any(|less| is_part(less, &used)) {
                    return false;
                }
                known.push(used.into());
            }
            None => {
                let ordered = Ordered { base, words: words.into() };
                met.push((ordered, self.state.clone(), vec![used.into()]));
            }
        }
        true
    }

    /// Returns the state after the next row that makes the operation possible. Counts the classes of the row as used.
    fn next_row(&mut self, row: &mut Row<M::State>, operation: usize) -> Option<M::State> {
        while let Some(place) = row.places.last_mut() {
            let Some(class) = place.candidates.next().filter(|_| *self.steps > 0) else {
                if let Some(class) = row.places.pop().and_then(|place| place.class) {
                    self.classes[class].used -= 1;
                    self.used.pop();
                }
                continue;
            };
            let before = place.state.clone();
            let call = self.classes[class].call;
            let Some(state) = self.step(&before, call).filter(|state| *state != before) else { continue };
            self.classes[class].used += 1;
            self.used.push(u32::try_from(class).unwrap_or(u32::MAX));
            let after = self.step(&state, self.call(operation));
            let candidates = match after {
                Some(_) => Vec::new(),
                None => self.candidates(&state, operation, Some(call)),
            };
            row.places.push(Place { state, class: Some(class), candidates: candidates.into_iter() });
            if after.is_some() {
                return after;
            }
        }
        None
    }

    /// Returns the classes that may come next in a row before the operation, according to the model.
    fn candidates(&self, state: &M::State, operation: usize, last: Option<&M::Call>) -> Vec<usize> {
        let until = self.first_return();
        let mut classes = Vec::new();
        let mut pending = Vec::new();
        for (at, class) in self.classes.iter().enumerate() {
            let left = class.invoked.partition_point(|invoked| *invoked <= until) - class.used;
            if left > 0 {
                classes.push(at);
                pending.push(Pending { call: class.call, left });
            }
        }
        let helpers = self.model.helpers(state, self.call(operation), &pending, last);
        helpers.into_iter().map(|index| classes[index]).collect()
    }

    /// Returns the time of the first return of an operation that is not in the order.
    fn first_return(&self) -> u64 {
        let mut event = self.events.first();
        while event != NONE && self.events.of[event].1 {
            event = self.events.next[event];
        }
        let operation = self.events.of.get(event).and_then(|(operation, _)| self.answered.get(*operation));
        operation.and_then(|at| self.operations[*at].returned).unwrap_or(u64::MAX)
    }
}

/// Returns whether `less` is a sub-multiset of `more`; both are sorted.
fn is_part(less: &[u32], more: &[u32]) -> bool {
    let mut more = more.iter();
    less.iter().all(|one| more.any(|other| other == one))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::model::register::{Call, Content, Register};

    fn content(text: &str) -> Content {
        Some(text.into())
    }

    fn found(calls: Vec<(u64, Option<u64>, Call)>) -> bool {
        let operations: Vec<Operation<Call>> = (1..)
            .zip(calls)
            .map(|(client, (invoked, returned, call))| Operation { client, invoked, returned, call, line: 0 })
            .collect();
        let operations: Vec<&Operation<Call>> = operations.iter().collect();
        search(&Register, &operations, &mut 1000) == Outcome::Found
    }

    /// The first order that reaches the last write has used up the delete that the read needs; the second has not.
    #[test]
    fn a_configuration_that_used_up_less_is_not_the_same() {
        assert!(found(vec![
            (0, None, Call::Write(None)),
            (0, Some(10), Call::Write(content("1"))),
            (0, Some(10), Call::Cas { old: None, new: content("2"), done: Some(true) }),
            (11, Some(12), Call::Write(content("5"))),
            (13, Some(14), Call::Read(Some(None))),
        ]));
    }

    #[test]
    fn a_row_is_as_long_as_it_has_to_be() {
        let cas = |old: Content, new| (0, None, Call::Cas { old, new: content(new), done: None });
        let chain = [cas(None, "1"), cas(content("1"), "2"), cas(content("2"), "3")];
        let read = (5, Some(6), Call::Read(Some(content("3"))));
        assert!(found(chain.iter().cloned().chain([read.clone()]).collect()));
        assert!(!found(chain.iter().take(2).cloned().chain([read]).collect()));
    }

    #[test]
    fn a_part_is_in_the_whole_as_often() {
        assert!(is_part(&[], &[]) && is_part(&[1, 3], &[1, 2, 3]) && is_part(&[2, 2], &[2, 2, 2]));
        assert!(!is_part(&[2, 2], &[2]) && !is_part(&[1], &[2]));
    }

    #[test]
    fn a_search_ends_at_its_bound() {
        let write =
            |at| Operation { client: 1, invoked: at, returned: Some(at), call: Call::Write(None), line: 0 };
        let operations = [write(1), write(2), write(3)];
        let operations: Vec<&Operation<Call>> = operations.iter().collect();
        assert_eq!(search(&Register, &operations, &mut 2), Outcome::OutOfSteps);
        assert_eq!(search(&Register, &operations, &mut 9), Outcome::Found);
    }
}

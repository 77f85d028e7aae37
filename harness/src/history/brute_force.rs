//! For tests: what linearizable means, by trying everything, and random histories to try it on.

use std::collections::BTreeSet;
use std::fmt;

use proptest::prelude::*;

use super::model::counter::{self, Counter};
use super::model::guarded_set::GuardedSet;
use super::model::kv::{self, Kv};
use super::model::register::{self, Register};
use super::model::set::{self, Set};
use super::model::{Model, Names, Value};
use super::{History, Operation, Verdict, judge, unique};

/// A model with a few calls for small histories.
pub(super) trait Sample: Model {
    /// Calls with an answer.
    fn answered() -> Vec<Self::Call>;

    /// Calls without an answer.
    fn unanswered() -> Vec<Self::Call>;
}

fn content(text: &str) -> register::Content {
    Some(text.into())
}

impl Sample for Register {
    fn answered() -> Vec<register::Call> {
        use register::Call::{Cas, Read, Write};
        let mut calls = vec![Read(Some(None)), Write(None)];
        for value in ["1", "2", "3"] {
            calls.extend([Read(Some(content(value))), Read(Some(content(value))), Write(content(value))]);
        }
        for (old, new) in [("1", "2"), ("2", "1"), ("2", "3"), ("3", "3")] {
            calls.extend([true, false].map(|done| Cas {
                old: content(old),
                new: content(new),
                done: Some(done),
            }));
        }
        calls
    }

    fn unanswered() -> Vec<register::Call> {
        use register::Call::{Cas, Read, Write};
        let cas = |old, new| Cas { old, new: content(new), done: None };
        let exchanges =
            [cas(content("1"), "2"), cas(content("2"), "3"), cas(content("3"), "1"), cas(None, "1")];
        [Read(None), Write(content("1")), Write(content("2")), Write(None)]
            .into_iter()
            .chain(exchanges)
            .collect()
    }
}

impl Sample for Kv {
    fn answered() -> Vec<kv::Call> {
        by_key(&Register::answered(), &["k", "l"])
    }

    fn unanswered() -> Vec<kv::Call> {
        by_key(&Register::unanswered(), &["k", "l"])
    }
}

fn by_key(calls: &[register::Call], keys: &[&str]) -> Vec<kv::Call> {
    let of = |key: &&str| {
        let key: Value = (*key).into();
        calls.iter().map(move |call| kv::Call { key: key.clone(), call: call.clone() }).collect::<Vec<_>>()
    };
    keys.iter().flat_map(of).collect()
}

impl Sample for Counter {
    fn answered() -> Vec<counter::Call> {
        use counter::Call::{Add, Read};
        let reads = (-2..=6).map(|sum| Read(Some(sum)));
        [Add(1), Add(2), Add(3), Add(-2)].into_iter().chain(reads).collect()
    }

    fn unanswered() -> Vec<counter::Call> {
        use counter::Call::{Add, Read};
        vec![Add(1), Add(1), Add(2), Add(5), Add(-1), Add(0), Read(None)]
    }
}

fn set_calls() -> Vec<set::Call> {
    use set::Call::{Add, List};
    let mut calls: Vec<set::Call> =
        [vec![], vec![0], vec![1], vec![0, 1], vec![0, 2], vec![1, 2], vec![0, 1, 2], vec![1, 1]]
            .map(|records| List(Some(records)))
            .into();
    for record in 0..4 {
        calls.extend([true, true, false].map(|done| Add { record, done: Some(done) }));
    }
    calls
}

fn unanswered_set_calls() -> Vec<set::Call> {
    let adds = (0..4).map(|record| set::Call::Add { record, done: None });
    adds.chain([set::Call::List(None)]).collect()
}

impl Sample for Set {
    fn answered() -> Vec<set::Call> {
        set_calls()
    }

    fn unanswered() -> Vec<set::Call> {
        unanswered_set_calls()
    }
}

impl Sample for GuardedSet {
    fn answered() -> Vec<set::Call> {
        set_calls()
    }

    fn unanswered() -> Vec<set::Call> {
        unanswered_set_calls()
    }
}

/// Whether some order explains all answers: tries all orders of all that must take effect and any of what may.
fn is_linearizable<M: Model>(model: &M, state: &M::State, left: &[&Operation<M::Call>]) -> bool {
    if left.iter().all(|operation| operation.returned.is_none()) {
        return true;
    }
    (0..left.len()).any(|at| {
        let mut rest = left.to_vec();
        let next = rest.remove(at);
        let may_be_next = rest.iter().all(|other| !other.precedes(next));
        may_be_next
            && model.step(state, &next.call).is_some_and(|state| is_linearizable(model, &state, &rest))
    })
}

/// Checks each part of a whole history separately, with its own state.
fn oracle<M: Model>(model: &M, history: &History<M::Call>) -> bool {
    let keys: BTreeSet<M::Key> =
        history.operations().iter().map(|operation| model.key(&operation.call)).collect();
    keys.iter().all(|key| {
        let part: Vec<_> =
            history.operations().iter().filter(|operation| model.key(&operation.call) == *key).collect();
        is_linearizable(model, &model.initial(), &part)
    })
}

/// Generates operations with any answers at any times, each with its own client.
fn operations<M: Sample>(most: usize) -> impl Strategy<Value = Vec<Operation<M::Call>>>
where
    M::Call: 'static,
{
    let call = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..4u8);
    let times = (0..12u64, 0..6u64);
    prop::collection::vec((call, times), 1..=most).prop_map(|all| {
        let (answered, unanswered) = (M::answered(), M::unanswered());
        let mut operations = Vec::new();
        for (client, ((yes, no, share), (invoked, lasted))) in (1..).zip(all) {
            let is_answered = share > 0;
            let call = if is_answered { yes.get(&answered).clone() } else { no.get(&unanswered).clone() };
            let returned = is_answered.then_some(invoked + lasted);
            operations.push(Operation { client, invoked, returned, call, line: 0 });
        }
        operations
    })
}

/// Returns the number of random cases of each test: `PICKLOCK_CASES` at build time, else 2000.
fn cases() -> ProptestConfig {
    let cases = option_env!("PICKLOCK_CASES").and_then(|cases| cases.parse().ok());
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases.unwrap_or(2000)) }
}

/// Returns the verdict as yes or no; an unknown verdict fails the test.
fn found(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Linearizable => true,
        Verdict::Violated(_) => false,
        Verdict::Unknown(why) => panic!("{why}"),
    }
}

/// Plan of one operation: its call, the time from invocation to effect and from effect to return, and whether it is
/// answered.
type Planned = (prop::sample::Index, u64, u64, u8);

/// Runs the model in some order, at random moments within random intervals, so that some order explains the history;
/// then optionally replaces one answer.
fn explained<M: Sample>(
    model: &M,
    plan: &[Planned],
    change: Option<(usize, M::Call)>,
) -> Vec<Operation<M::Call>> {
    let (answered, unanswered) = (M::answered(), M::unanswered());
    let mut states = std::collections::BTreeMap::new();
    let mut all = Vec::new();
    for (client, (pick, early, late, share)) in (1..).zip(plan) {
        let moment = 10 * u64::from(client) + 50;
        let is_answered = *share > 0;
        let calls = if is_answered { &answered } else { &unanswered };
        // First call that is possible now, starting at the picked one.
        let from = pick.index(calls.len());
        let possible = calls[from..].iter().chain(&calls[..from]).find_map(|call| {
            let state = states.get(&model.key(call)).cloned().unwrap_or_else(|| model.initial());
            Some((call.clone(), model.step(&state, call)?))
        });
        let Some((call, after)) = possible else { continue };
        if is_answered || pick.index(2) == 0 {
            states.insert(model.key(&call), after);
        }
        let returned = is_answered.then_some(moment + late);
        all.push(Operation { client, invoked: moment - early, returned, call, line: 0 });
    }
    if let Some((at, call)) = change {
        let count = all.len();
        if let Some(operation) = all.get_mut(at % count.max(1))
            && operation.returned.is_some()
        {
            operation.call = call;
        }
    }
    all
}

fn compare<M: Sample>(model: &M, operations: Vec<Operation<M::Call>>) -> Result<bool, TestCaseError>
where
    History<M::Call>: fmt::Debug,
{
    let history = History::new(operations).unwrap();
    let expected = oracle(model, &history);
    let verdict = judge(model, &history, u64::MAX);
    prop_assert_eq!(found(&verdict), expected, "{:#?}\n{:?}", history, verdict);
    Ok(expected)
}

fn plan(most: usize) -> impl Strategy<Value = Vec<Planned>> {
    prop::collection::vec((any::<prop::sample::Index>(), 0..45u64, 0..45u64, 0..4u8), 1..=most)
}

/// Defines the tests of one model: histories with any answers, explainable ones, and those with one answer changed.
macro_rules! against_brute_force {
    ($name:ident, $model:ty, $value:expr) => {
        mod $name {
            use super::*;

            proptest! {
                #![proptest_config(cases())]

                #[test]
                fn any_answers(operations in operations::<$model>(6)) {
                    compare(&$value, operations)?;
                }

                #[test]
                fn right_answers(plan in plan(7)) {
                    let history = explained::<$model>(&$value, &plan, None);
                    prop_assert!(compare(&$value, history)?);
                }

                /// The search of an explainable history is short, whatever is unanswered.
                #[test]
                fn many_right_answers(plan in plan(80)) {
                    let history = History::new(explained::<$model>(&$value, &plan, None)).unwrap();
                    prop_assert!(found(&judge(&$value, &history, 1_000_000)));
                }

                #[test]
                fn one_changed_answer(plan in plan(6), at in 0..6usize, pick in any::<prop::sample::Index>()) {
                    let change = pick.get(&<$model>::answered()).clone();
                    compare(&$value, explained::<$model>(&$value, &plan, Some((at, change))))?;
                }
            }
        }
    };
}

against_brute_force!(a_register, Register, Register);
against_brute_force!(a_store_by_key, Kv, Kv);
against_brute_force!(a_counter, Counter, Counter);
against_brute_force!(a_set, Set, Set::default());
against_brute_force!(a_guarded_set, GuardedSet, GuardedSet::new(2, Names::default()));

/// Returns adds of one record each and lists, as in a set of unique records: some order explains them, until the lists
/// at `broken` lose a record or get a foreign one.
fn unique_set(plan: &[(u8, u64, u64)], broken: &[(prop::sample::Index, u32)]) -> Vec<Operation<set::Call>> {
    let mut records = Vec::new();
    let mut all = Vec::new();
    for (client, (kind, early, late)) in (1..).zip(plan) {
        let moment = 10 * u64::from(client) + 60;
        let mut returned = Some(moment + late);
        let record = client;
        let call = match kind {
            0..4 => {
                records.push(record);
                set::Call::Add { record, done: Some(true) }
            }
            4 => set::Call::Add { record, done: Some(false) },
            5 | 6 => {
                returned = None;
                // Half of them took effect.
                if *kind == 5 {
                    records.push(record);
                }
                set::Call::Add { record, done: None }
            }
            _ => set::Call::List(Some(records.clone())),
        };
        all.push(Operation { client, invoked: moment - early, returned, call, line: 0 });
    }
    let lists: Vec<usize> = (0..all.len()).filter(|at| matches!(all[*at].call, set::Call::List(_))).collect();
    if !lists.is_empty() {
        for (pick, record) in broken {
            if let set::Call::List(Some(listed)) = &mut all[*pick.get(&lists)].call {
                match listed.binary_search(record) {
                    // Removed, or in one of four cases listed twice.
                    Ok(at) if record % 4 != 0 => drop(listed.remove(at)),
                    Ok(at) => listed.insert(at, *record),
                    Err(at) => listed.insert(at, *record),
                }
            }
        }
    }
    all
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn without_a_search_the_verdict_on_unique_records_is_the_same(
        plan in prop::collection::vec((0..12u8, 0..60u64, 0..60u64), 1..14),
        broken in prop::collection::vec((any::<prop::sample::Index>(), 1..14u32), 0..3),
    ) {
        let history = History::new(unique_set(&plan, &broken)).unwrap();
        let searched = judge(&Set::default(), &history, u64::MAX);
        let verdict = unique::judge(&Set::default(), &history).expect("unique records");
        prop_assert_eq!(found(&verdict), found(&searched), "{:#?}\n{:?}\n{:?}", history, verdict, searched);
        if broken.is_empty() {
            prop_assert!(found(&verdict));
        }
    }

    #[test]
    fn without_a_search_the_verdict_on_any_answers_is_the_same(operations in operations::<Set>(7)) {
        let history = History::new(operations).unwrap();
        if let Some(verdict) = unique::judge(&Set::default(), &history) {
            prop_assert_eq!(found(&verdict), oracle(&Set::default(), &history), "{:#?}\n{:?}", history, verdict);
        }
    }
}

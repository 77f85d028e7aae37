//! Measures how fast recorded histories are checked: a million set operations, and ten thousand operations of a store
//! by key.
//!
//! Run it with `cargo bench -p picklock-benches --bench history`. The histories are linearizable: an operation takes
//! effect within its interval; one that never returned takes effect at some moment after its invocation, or never. Ten
//! clients run at a time. The set is judged without a search. One operation in twenty of the store never returned; its
//! values are either few, so that many operations could have written the value read, or all different. The last
//! histories are linearizable except for one stale read.

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use picklock::history::model::kv::{self, Kv};
use picklock::history::model::register;
use picklock::history::model::set::{self, Set};
use picklock::history::model::{Model as _, Names, Value};
use picklock::history::{History, Operation, Verdict, judge, unique};

const CLIENTS: u32 = 10;
/// Number of operations of the set, and of the store by key.
const OF_SET: usize = 1_000_000;
const OF_KEYS: usize = 10_000;

/// Random numbers that are the same in every run: SplitMix64.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % bound
    }
}

/// Times of the invocation, effect and return of an operation; without a return it takes effect late, or never.
struct Times {
    client: u32,
    invoked: u64,
    moment: Option<u64>,
    returned: Option<u64>,
}

/// Returns the times of `count` operations in the order of their effects; `unanswered` percent never return.
fn times(count: usize, unanswered: u64, chance: &mut Chance) -> Vec<Times> {
    let mut clocks = [0; CLIENTS as usize];
    let mut all: Vec<Times> = (0..count)
        .map(|at| {
            let client = at % clocks.len();
            let invoked = clocks[client] + chance.below(10);
            let moment = invoked + chance.below(50);
            let returned = moment + chance.below(50);
            clocks[client] = returned + 1;
            let is_answered = chance.below(100) >= unanswered;
            let late = match chance.below(3) {
                _ if is_answered => Some(moment),
                0 => None,
                1 => Some(moment),
                _ => Some(moment + chance.below(20_000)),
            };
            let client = u32::try_from(client).expect("few clients") + 1;
            Times { client, invoked, moment: late, returned: is_answered.then_some(returned) }
        })
        .collect();
    all.sort_by_key(|times| times.moment.unwrap_or(u64::MAX));
    all
}

fn of_keys(keys: u64, values: u64, chance: &mut Chance) -> History<kv::Call> {
    let mut states: BTreeMap<u64, register::Content> = BTreeMap::new();
    let mut operations = Vec::with_capacity(OF_KEYS);
    for times in times(OF_KEYS, 5, chance) {
        let key = chance.below(keys);
        let state = states.entry(key).or_default();
        let is_answered = times.returned.is_some();
        let mut value = || Some(Value::from(chance.below(values).to_string()));
        let (old, new) = (value(), value());
        let call = match chance.below(10) {
            0..5 => register::Call::Read(is_answered.then(|| state.clone())),
            5..8 => register::Call::Write(new),
            8 => register::Call::Write(None),
            _ => {
                let old = if chance.below(2) == 0 { state.clone() } else { old };
                let done = is_answered.then_some(old == *state);
                register::Call::Cas { old, new, done }
            }
        };
        let call = kv::Call { key: format!("k{key}").into(), call };
        if times.moment.is_some() {
            *state = Kv.step(state, &call).expect("a right answer");
        }
        let Times { client, invoked, returned, .. } = times;
        operations.push(Operation { client, invoked, returned, call, line: 0 });
    }
    History::new(operations).expect("a history")
}

/// Returns the same history, except that a read in the middle returns the value of an early read of the same key.
fn with_a_stale_read(history: &History<kv::Call>) -> History<kv::Call> {
    let mut operations = history.operations().to_vec();
    let told = |one: &Operation<kv::Call>| match &one.call.call {
        register::Call::Read(Some(Some(told))) => Some((one.call.key.clone(), told.clone())),
        _ => None,
    };
    let (key, old) = operations.iter().find_map(told).expect("a read");
    let late = operations[OF_KEYS / 2..].iter_mut().find(|one| told(one).is_some_and(|(its, _)| its == key));
    late.expect("another").call.call = register::Call::Read(Some(Some(old)));
    History::new(operations).expect("a history")
}

/// Generates mostly adds and a few lists, which return about as many records in total as there are operations.
fn of_set(chance: &mut Chance) -> History<set::Call> {
    let mut records: Vec<u32> = Vec::new();
    let mut operations = Vec::with_capacity(OF_SET);
    for (at, times) in times(OF_SET, 1, chance).into_iter().enumerate() {
        let record = u32::try_from(at).expect("few records");
        let is_list = at % (OF_SET / 4) == OF_SET / 8 || (at < 2_000 && at % 4 == 0);
        let call = if is_list {
            set::Call::List(times.returned.is_some().then(|| records.clone()))
        } else {
            if times.moment.is_some() {
                records.push(record);
            }
            set::Call::Add { record, done: times.returned.is_some().then_some(true) }
        };
        let Times { client, invoked, returned, .. } = times;
        operations.push(Operation { client, invoked, returned, call, line: 0 });
    }
    History::new(operations).expect("a history")
}

fn histories(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("history");
    group.sample_size(10);
    let chance = &mut Chance(1);
    let set = of_set(chance);
    let model = Set { names: Names::default() };
    group.bench_function("set, 1 000 000 operations", |bencher| {
        bencher.iter(|| assert_eq!(unique::judge(&model, black_box(&set)), Some(Verdict::Linearizable)));
    });
    for (keys, values) in [(10, 5), (10, 1_000_000), (50, 5), (50, 1_000_000)] {
        let history = of_keys(keys, values, chance);
        group.bench_function(format!("kv, 10 000 operations, {keys} keys, {values} values"), |bencher| {
            bencher.iter(|| assert_eq!(judge(&Kv, black_box(&history), u64::MAX), Verdict::Linearizable));
        });
    }
    for (keys, values) in [(50, 1_000_000), (10, 1_000_000), (50, 5)] {
        let history = with_a_stale_read(&of_keys(keys, values, chance));
        let name = format!("kv, 10 000 operations, {keys} keys, {values} values, a stale read");
        group.bench_function(name, |bencher| {
            bencher
                .iter(|| assert!(matches!(judge(&Kv, black_box(&history), u64::MAX), Verdict::Violated(_))));
        });
    }
    group.finish();
}

criterion_group!(benches, histories);
criterion_main!(benches);

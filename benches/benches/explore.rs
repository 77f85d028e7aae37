//! Measures schedules explored and kill states derived per second, in one process, on clients whose calls are known.
//!
//! Run it with `cargo bench -p picklock-benches --bench explore`. The clients make the calls of the reference store's
//! document: lock, read, write a temporary file, rename, unlock. The scenario's report states how many schedules of
//! real processes run per second.

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use picklock::explore::Step;
use picklock::explore::footprint::{FileOp, Footprint, Locking, invocation, returning};
use picklock::explore::model::{StraightLine, run_all};
use picklock::explore::sequential::Sequential;
use picklock::explore::worklist::WorkList;
use picklock::locks::{Kind, Lock, Mode, Owner, Range};
use picklock::persist::crash_states;
use picklock::runner::{ExecEnv, Stop, control, trace};
use picklock::sandbox::Sandbox;
use picklock::scenario::crash::add;
use picklock::target::Target;

/// The steps of one client.
fn document(client: u32) -> Vec<Step> {
    let lock = Lock {
        file: (1, 1),
        kind: Kind::Flock,
        owner: Owner::Description(client),
        mode: Mode::Exclusive,
        range: Range { start: 0, end: u64::MAX },
    };
    let nothing = Footprint::default;
    let (data, temporary) = ("store.json", "store.json.tmp");
    [
        invocation(),
        nothing().doing(&FileOp::Make { path: "store.json.lock", is_there: true }),
        nothing().locking(Locking::Take { lock, waits: true }),
        nothing().doing(&FileOp::LookUp { path: data, file: Some((1, 2)) }),
        nothing().doing(&FileOp::Read { file: (1, 2), opened: data }),
        nothing().doing(&FileOp::Make { path: temporary, is_there: false }),
        nothing().doing(&FileOp::Write { file: (1, 3), opened: temporary }),
        nothing().doing(&FileOp::Rename { from: temporary, to: data, files: [Some((1, 3)), Some((1, 2))] }),
        nothing().locking(Locking::Free(lock)),
        returning(),
    ]
    .into_iter()
    .map(|footprint| Step { client, footprint })
    .collect()
}

fn explore(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("schedules of three clients");
    let steps: Vec<Step> = (1..=3).flat_map(document).collect();
    let world = StraightLine::of(&steps);
    let mut count = Sequential::default();
    assert!(run_all(&world, &mut count, u64::MAX, &mut |_, _| ()));
    // Each of them is one execution of real processes.
    group.throughput(Throughput::Elements(count.executions()));
    group.bench_function("sequential", |bencher| {
        bencher.iter(|| run_all(black_box(&world), &mut Sequential::default(), u64::MAX, &mut |_, _| ()));
    });
    group.bench_function("work list", |bencher| {
        bencher.iter(|| run_all(black_box(&world), &mut WorkList::new(), u64::MAX, &mut |_, _| ()));
    });
    group.finish();
}

fn enumerate(criterion: &mut Criterion) {
    let target = Target::embedded(Path::new("/"));
    // The program beside this one, made by the same build.
    let program = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("picklock");
    assert!(program.is_file(), "cargo build --release makes {program:?}");
    let sandbox = Sandbox::create(None, &target.data, Some(&program), &|_| ()).unwrap();
    let stop = Stop::new().unwrap();
    let stage = ExecEnv::new(&target, &sandbox, &stop, &|| ());
    assert_eq!(control(&stage).unwrap().failure, None);
    stage.first().unwrap();
    let before = sandbox.tree().unwrap();
    let traced = trace(&stage, &add(2)).unwrap();
    let count = crash_states(&before, &traced.calls).unwrap().count();
    let mut group = criterion.benchmark_group("states of a kill");
    group.throughput(Throughput::Elements(count as u64));
    group.bench_function("derived", |bencher| {
        bencher
            .iter(|| crash_states(black_box(&before), &traced.calls).unwrap().map(|state| state.point).max());
    });
    group.finish();
    drop(stage);
    sandbox.remove().unwrap();
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(3)).sample_size(20);
    targets = explore, enumerate
}
criterion_main!(benches);

//! How long the race analysis of one execution takes, by its number of steps: three clients that poll a lock, and three that
//! read, change and lock in turn.
//!
//! Run it with `cargo bench -p picklock-benches --bench races`. The aim is less than a second for 20,000 steps.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use picklock::explore::Step;
use picklock::explore::footprint::{Access, Footprint, Locking, Resource};
use picklock::explore::races::Order;
use picklock::locks::{Kind, Lock, Mode, Owner, Range};

const CLIENTS: u32 = 3;

fn lock(client: u32) -> Lock {
    let owner = Owner::Description(client);
    Lock { file: (1, 9), kind: Kind::Flock, owner, mode: Mode::Exclusive, range: Range::ALL }
}

/// Client 1 holds the lock, and the others poll it.
fn polling(count: usize) -> Vec<Step> {
    let held = Locking::Take { lock: lock(1), waits: false };
    let first = Step { client: 1, footprint: Footprint::default().locking(held) };
    let polls = (0_u32..).map(|at| {
        let client = 2 + at % (CLIENTS - 1);
        let looked = Footprint::default().with(Resource::Name("store.lock".into()), Access::Read);
        Step { client, footprint: looked.locking(Locking::Try(lock(client))) }
    });
    std::iter::once(first).chain(polls).take(count).collect()
}

/// Each client in turn waits for the lock, reads and changes the data, and releases the lock.
fn locking(count: usize) -> Vec<Step> {
    let turns = (0_u32..).flat_map(|turn| {
        let client = 1 + turn % CLIENTS;
        let data = |access| Footprint::default().with(Resource::Data((1, 5)), access);
        [
            Footprint::default().locking(Locking::Take { lock: lock(client), waits: true }),
            data(Access::Read),
            data(Access::Write),
            Footprint::default().locking(Locking::Free(lock(client))),
        ]
        .map(|footprint| Step { client, footprint })
    });
    turns.take(count).collect()
}

fn analyse(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("races");
    group.sample_size(10).measurement_time(Duration::from_secs(5));
    for count in [2_000, 20_000] {
        for (name, steps) in [("polling", polling(count)), ("locking", locking(count))] {
            group.bench_with_input(BenchmarkId::new(name, count), &steps, |bench, steps| {
                bench.iter(|| black_box(Order::of(black_box(steps)).reversals(0, &[])));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, analyse);
criterion_main!(benches);

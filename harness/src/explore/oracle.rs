//! The oracle: on thousands of random small programs the drivers must lose no class of executions and no outcome, against
//! sleep sets alone and against a search of all states; and on known programs they must count what is known.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::explore::bounded::Bounded;
use crate::explore::footprint::{FileOp, Footprint, Locking, invocation, returning};
use crate::explore::model::{World, run_all};
use crate::explore::races::{Order, pairwise};
use crate::explore::sequential::Sequential;
use crate::explore::worklist::WorkList;
use crate::explore::{Choice, Explorer, Pending, Step, by_default, enabled, races};
use crate::locks::{Kind, Lock, LockTable, Mode, Owner, Range};
use crate::op::{ClientId, stable_hash};

/// One call of a client of the model.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Op {
    /// Opens a name and keeps it in a slot.
    Open {
        name: u8,
        slot: u8,
        how: How,
    },
    Read(u8),
    /// Writes content that depends on all results so far.
    Write(u8),
    Stat(u8),
    Rename(u8, u8),
    Unlink(u8),
    Lock {
        slot: u8,
        is_shared: bool,
        waits: bool,
    },
    Unlock(u8),
    Close(u8),
    /// Enters and leaves a critical section.
    Enter,
    Leave,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum How {
    Existing,
    Create,
    Exclusive,
    Truncate,
}

use Op::{Close, Enter, Leave, Open, Read, Rename, Stat, Unlink, Unlock, Write};

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Disk {
    names: BTreeMap<u8, u64>,
    contents: BTreeMap<u64, u64>,
}

#[derive(Clone, Debug, Default)]
struct Client {
    program: Vec<Op>,
    made: usize,
    has_begun: bool,
    has_ended: bool,
    /// File, name and description of each open slot.
    open: BTreeMap<u8, (u64, u8, u32)>,
    seen: Vec<u64>,
}

/// Small programs on a small disk.
#[derive(Clone, Debug, Default)]
struct Small {
    clients: Vec<Client>,
    disk: Disk,
    locks: LockTable,
    with_tokens: bool,
    files: u64,
    descriptions: u32,
}

fn path(name: u8) -> String {
    format!("n{name}")
}

fn file_id(file: u64) -> (u64, u64) {
    (1, file)
}

impl Small {
    fn new(programs: &[Vec<Op>], with_tokens: bool) -> Self {
        let client = |program: &Vec<Op>| Client { program: program.clone(), ..Client::default() };
        // Two of the names exist from the start.
        let disk =
            Disk { names: BTreeMap::from([(0, 1), (1, 2)]), contents: BTreeMap::from([(1, 0), (2, 0)]) };
        let clients = programs.iter().map(client).collect();
        Self { clients, disk, with_tokens, files: 2, ..Self::default() }
    }

    fn lock_of(&self, client: &Client, slot: u8, mode: Mode) -> Option<Lock> {
        let (file, _, description) = client.open.get(&slot)?;
        let owner = Owner::Description(*description);
        Some(Lock { file: file_id(*file), kind: Kind::Flock, owner, mode, range: Range::ALL })
    }

    fn held_by(&self, description: u32) -> Vec<Lock> {
        let owner = Owner::Description(description);
        self.locks.held().iter().filter(|held| held.owner == owner).copied().collect()
    }

    fn footprint(&self, client: &Client) -> Footprint {
        let nothing = Footprint::default();
        if self.with_tokens && !client.has_begun {
            return invocation();
        }
        let Some(op) = client.program.get(client.made) else {
            let start = if self.with_tokens { returning() } else { nothing };
            let held = client.open.values().flat_map(|(_, _, description)| self.held_by(*description));
            return held.fold(start, |footprint, lock| footprint.locking(Locking::Free(lock)));
        };
        let file = |name: u8| self.disk.names.get(&name).map(|file| file_id(*file));
        let opened = |slot: u8| client.open.get(&slot).map(|(file, name, _)| (file_id(*file), path(*name)));
        match op {
            // A slot that is already open stays as it is.
            Open { slot, .. } if client.open.contains_key(slot) => nothing,
            Open { name, how, .. } => {
                let (path, there) = (path(*name), file(*name));
                match (how, there) {
                    (How::Existing, file) => nothing.doing(&FileOp::LookUp { path: &path, file }),
                    (How::Truncate, Some(_)) => nothing.doing(&FileOp::Empty { path: &path, file: there }),
                    (How::Truncate, None) => nothing
                        .doing(&FileOp::Empty { path: &path, file: None })
                        .doing(&FileOp::Make { path: &path, is_there: false }),
                    _ => nothing.doing(&FileOp::Make { path: &path, is_there: there.is_some() }),
                }
            }
            Read(slot) => opened(*slot).map_or(nothing.clone(), |(file, opened)| {
                nothing.doing(&FileOp::Read { file, opened: &opened })
            }),
            Write(slot) => opened(*slot).map_or(nothing.clone(), |(file, opened)| {
                nothing.doing(&FileOp::Write { file, opened: &opened })
            }),
            Enter => invocation(),
            Leave => returning(),
            Stat(name) => nothing.doing(&FileOp::LookUp { path: &path(*name), file: file(*name) }),
            Rename(from, to) => {
                let files = [file(*from), file(*to)];
                nothing.doing(&FileOp::Rename { from: &path(*from), to: &path(*to), files })
            }
            Unlink(name) => nothing.doing(&FileOp::Remove { path: &path(*name), file: file(*name) }),
            Op::Lock { slot, is_shared, waits } => {
                let mode = if *is_shared { Mode::Shared } else { Mode::Exclusive };
                let Some(lock) = self.lock_of(client, *slot, mode) else { return nothing };
                if self.locks.held().iter().any(|held| held.owner == lock.owner) {
                    return nothing;
                }
                let can_be_had = self.locks.obstacles(&lock).is_empty();
                nothing.locking(match *waits || can_be_had {
                    true => Locking::Take { lock, waits: *waits },
                    false => Locking::Try(lock),
                })
            }
            Unlock(slot) | Close(slot) => {
                let description = client.open.get(slot).map(|open| open.2);
                let held = description.into_iter().flat_map(|description| self.held_by(description));
                held.fold(nothing, |footprint, lock| footprint.locking(Locking::Free(lock)))
            }
        }
    }

    /// Executes a call and returns its result, which is all that the client observes.
    fn carry_out(&mut self, index: usize, op: &Op) -> u64 {
        let client = &self.clients[index];
        let opened = |slot: &u8| client.open.get(slot).copied();
        match op {
            Open { slot, .. } if client.open.contains_key(slot) => 3,
            Open { name, slot, how } => {
                let there = self.disk.names.get(name).copied();
                let file = match (how, there) {
                    (How::Existing, None) | (How::Exclusive, Some(_)) => return 1,
                    (How::Truncate, Some(file)) => {
                        self.disk.contents.insert(file, 0);
                        file
                    }
                    (_, Some(file)) => file,
                    (_, None) => {
                        self.files += 1;
                        self.disk.names.insert(*name, self.files);
                        self.disk.contents.insert(self.files, 0);
                        self.files
                    }
                };
                self.descriptions += 1;
                let description = self.descriptions;
                self.clients[index].open.insert(*slot, (file, *name, description));
                2
            }
            Read(slot) => opened(slot).map_or(3, |(file, ..)| self.disk.contents[&file]),
            Write(slot) => {
                let Some((file, ..)) = opened(slot) else { return 3 };
                let told = format!("{index} {:?} {}", client.seen, self.disk.contents[&file]);
                self.disk.contents.insert(file, stable_hash(told));
                4
            }
            Enter | Leave => 4,
            Stat(name) => u64::from(self.disk.names.contains_key(name)),
            Rename(from, to) => {
                let Some(file) = self.disk.names.remove(from) else { return 3 };
                self.disk.names.insert(*to, file);
                4
            }
            Unlink(name) => u64::from(self.disk.names.remove(name).is_some()),
            Op::Lock { slot, is_shared, .. } => {
                let mode = if *is_shared { Mode::Shared } else { Mode::Exclusive };
                let Some(lock) = self.lock_of(client, *slot, mode) else { return 3 };
                if self.locks.held().iter().any(|held| held.owner == lock.owner) {
                    return 5;
                }
                u64::from(self.locks.take(lock))
            }
            Unlock(slot) => {
                if let Some((_, _, description)) = opened(slot) {
                    self.locks.description_closed(description);
                }
                4
            }
            Close(slot) => {
                self.close(index, *slot);
                4
            }
        }
    }

    fn close(&mut self, index: usize, slot: u8) {
        if let Some((_, _, description)) = self.clients[index].open.remove(&slot) {
            self.locks.description_closed(description);
        }
    }

    /// Returns the outcome of an execution: what the clients saw, and the final content of the names.
    fn outcome(&self) -> String {
        let seen: Vec<&Vec<u64>> = self.clients.iter().map(|client| &client.seen).collect();
        let names: BTreeMap<u8, u64> =
            self.disk.names.iter().map(|(name, file)| (*name, self.disk.contents[file])).collect();
        format!("{seen:?} {names:?}")
    }

    /// Returns all state that determines the continuation, independent of file and description numbers.
    fn key(&self) -> String {
        let mut numbers = BTreeMap::new();
        let mut number = |file: u64| {
            let next = numbers.len();
            *numbers.entry(file).or_insert(next)
        };
        let names: Vec<_> = self.disk.names.iter().map(|(name, file)| (*name, number(*file))).collect();
        let clients: Vec<_> = self
            .clients
            .iter()
            .map(|client| {
                let open: Vec<_> = client
                    .open
                    .iter()
                    .map(|(slot, (file, name, description))| {
                        let held: Vec<Mode> =
                            self.held_by(*description).into_iter().map(|held| held.mode).collect();
                        (*slot, number(*file), *name, held)
                    })
                    .collect();
                (client.made, client.has_begun, client.has_ended, open, client.seen.clone())
            })
            .collect();
        let contents: Vec<_> =
            numbers.iter().map(|(file, number)| (*number, self.disk.contents[file])).collect();
        let contents: BTreeMap<_, _> = contents.into_iter().collect();
        format!("{names:?} {clients:?} {contents:?}")
    }
}

impl World for Small {
    fn pending(&self) -> Vec<Pending> {
        let unfinished = (1..).zip(&self.clients).filter(|(_, client)| !client.has_ended);
        unfinished
            .map(|(number, client)| {
                let footprint = self.footprint(client);
                let is_enabled = footprint.awaited().is_none_or(|lock| self.locks.obstacles(lock).is_empty());
                Pending { client: number, footprint, is_enabled }
            })
            .collect()
    }

    fn make(&mut self, client: ClientId) -> Step {
        let index = client as usize - 1;
        let footprint = self.footprint(&self.clients[index]);
        let (made, has_begun) = (self.clients[index].made, self.clients[index].has_begun);
        if self.with_tokens && !has_begun {
            self.clients[index].has_begun = true;
        } else if let Some(op) = self.clients[index].program.get(made).cloned() {
            let seen = self.carry_out(index, &op);
            let client = &mut self.clients[index];
            client.seen.push(seen);
            client.made += 1;
        } else {
            for slot in self.clients[index].open.keys().copied().collect::<Vec<_>>() {
                self.close(index, slot);
            }
            self.clients[index].has_ended = true;
        }
        Step { client, footprint }
    }
}

/// Pending steps, sleep set, clients chosen before, and client chosen now.
type Frame = (Vec<Pending>, BTreeSet<ClientId>, BTreeSet<ClientId>, ClientId);

/// Sleep sets alone: every state is reached, and one execution of each class completes.
#[derive(Default)]
struct SleepSets {
    frames: Vec<Frame>,
    steps: Vec<Step>,
    has_begun: bool,
}

impl Explorer for SleepSets {
    fn begin(&mut self) -> bool {
        self.steps.clear();
        if !std::mem::replace(&mut self.has_begun, true) {
            return true;
        }
        while let Some((pending, sleep, done, chosen)) = self.frames.last_mut() {
            done.insert(*chosen);
            if let Some(next) = enabled(pending).find(|one| !sleep.contains(one) && !done.contains(one)) {
                *chosen = next;
                return true;
            }
            self.frames.pop();
        }
        false
    }

    fn choose(&mut self, pending: &[Pending]) -> Choice {
        if let Some(frame) = self.frames.get_mut(self.steps.len()) {
            frame.0 = pending.to_vec();
            return Choice::Go(frame.3);
        }
        let sleep: BTreeSet<ClientId> = match (self.frames.last(), self.steps.last()) {
            (Some((pending, sleep, done, _)), Some(step)) => pending
                .iter()
                .filter(|one| sleep.contains(&one.client) || done.contains(&one.client))
                .filter(|one| !one.footprint.conflicts(&step.footprint))
                .map(|one| one.client)
                .collect(),
            _ => BTreeSet::new(),
        };
        let last = self.steps.last().map(|step| step.client);
        match by_default(last, enabled(pending).filter(|one| !sleep.contains(one))) {
            Some(chosen) => {
                self.frames.push((pending.to_vec(), sleep, BTreeSet::new(), chosen));
                Choice::Go(chosen)
            }
            None => Choice::Abandon,
        }
    }

    fn executed(&mut self, step: Step) {
        self.steps.push(step);
    }

    fn end(&mut self, _blocked: &[Pending]) {}
}

/// Returns the outcomes of all schedules, by a search of all states.
fn all_outcomes(start: &Small) -> BTreeSet<String> {
    let mut outcomes = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut next = vec![start.clone()];
    while let Some(world) = next.pop() {
        if !seen.insert(world.key()) {
            continue;
        }
        let pending = world.pending();
        if enabled(&pending).next().is_none() {
            outcomes.insert(world.outcome());
        }
        for client in enabled(&pending) {
            let mut world = world.clone();
            world.make(client);
            next.push(world);
        }
    }
    outcomes
}

type Classes = BTreeSet<Vec<(ClientId, Vec<Vec<u32>>)>>;

/// Runs an explorer; returns the classes of executions, the outcomes, and the number of executions.
fn explored(start: &Small, explorer: &mut dyn Explorer) -> (Classes, BTreeSet<String>, u64) {
    let (mut classes, mut outcomes, mut count) = (Classes::new(), BTreeSet::new(), 0);
    let is_all = run_all(start, explorer, 200_000, &mut |world, steps| {
        classes.insert(Order::of(steps).class());
        outcomes.insert(world.outcome());
        count += 1;
    });
    assert!(is_all, "too many executions");
    (classes, outcomes, count)
}

fn slot() -> impl Strategy<Value = u8> {
    0..2_u8
}

fn name() -> impl Strategy<Value = u8> {
    0..3_u8
}

fn op() -> impl Strategy<Value = Op> {
    let how = prop_oneof![
        3 => Just(How::Existing),
        2 => Just(How::Create),
        1 => Just(How::Exclusive),
        2 => Just(How::Truncate)
    ];
    prop_oneof![
        4 => (name(), slot(), how).prop_map(|(name, slot, how)| Open { name, slot, how }),
        2 => slot().prop_map(Read),
        2 => slot().prop_map(Write),
        1 => name().prop_map(Stat),
        1 => (name(), name()).prop_map(|(from, to)| Rename(from, to)),
        1 => name().prop_map(Unlink),
        3 => (slot(), any::<bool>(), prop::bool::weighted(0.8))
            .prop_map(|(slot, is_shared, waits)| Op::Lock { slot, is_shared, waits }),
        1 => slot().prop_map(Unlock),
        1 => slot().prop_map(Close),
    ]
}

/// Generates programs that begin with an open; otherwise little would happen.
fn program(most: usize) -> impl Strategy<Value = Vec<Op>> {
    let first = (name(), prop_oneof![Just(How::Create), Just(How::Existing)]).prop_map(|(name, how)| Open {
        name,
        slot: 0,
        how,
    });
    (first, prop::collection::vec(op(), 0..most)).prop_map(|(first, mut rest)| {
        rest.insert(0, first);
        rest
    })
}

/// Generates programs with several descriptors of one file and mostly lock calls: lock interactions are rare among all
/// calls.
fn locking_program() -> impl Strategy<Value = Vec<Op>> {
    let lock = || {
        (slot(), prop::bool::weighted(0.3), any::<bool>()).prop_map(|(slot, is_shared, waits)| Op::Lock {
            slot,
            is_shared,
            waits,
        })
    };
    let open =
        (prop::bool::weighted(0.8), slot(), prop_oneof![3 => Just(How::Existing), 1 => Just(How::Create)])
            .prop_map(|(is_first, slot, how)| Open { name: if is_first { 0 } else { 2 }, slot, how });
    let op = prop_oneof![
        5 => lock(),
        3 => open,
        1 => slot().prop_map(Unlock),
        1 => slot().prop_map(Close),
        1 => Just(Unlink(0)),
    ];
    (lock(), prop::collection::vec(op, 1..4)).prop_map(|(lock, mut rest)| {
        let first = Open { name: 0, slot: 0, how: How::Existing };
        rest.splice(0..0, [first, lock]);
        rest
    })
}

fn programs() -> impl Strategy<Value = Vec<Vec<Op>>> {
    prop_oneof![
        1 => prop::collection::vec(locking_program(), 2..=2),
        2 => prop::collection::vec(program(5), 2..=2),
        1 => prop::collection::vec(program(3), 3..=3),
    ]
}

/// Returns the number of programs to compare with the oracle, from `PICKLOCK_PROGRAMS` at build time.
fn cases() -> u32 {
    option_env!("PICKLOCK_PROGRAMS").and_then(|cases| cases.parse().ok()).unwrap_or(10_000)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases()) })]

    #[test]
    fn neither_driver_loses_a_class_or_an_outcome(programs in programs(), with_tokens in prop::bool::weighted(0.2)) {
        let start = Small::new(&programs, with_tokens);
        let (classes, outcomes, _) = explored(&start, &mut SleepSets::default());
        prop_assert_eq!(&all_outcomes(&start), &outcomes, "sleep sets lose an outcome: what commutes is wrong");
        let mut sequential = Sequential::default();
        let (of_sequential, _, count) = explored(&start, &mut sequential);
        prop_assert_eq!(&of_sequential, &classes);
        prop_assert_eq!(count, classes.len() as u64, "no class is run twice");
        let (of_list, _, _) = explored(&start, &mut WorkList::new());
        prop_assert_eq!(&of_list, &classes);
    }
}

/// Found by the random programs, once in tens of thousands. Client 2 holds the lock that client 1 waits for, and
/// requests it again without success through another descriptor. That attempt lay between the two requests for the lock
/// and hid their race, because it cannot be reversed itself.
#[test]
fn an_attempt_in_vain_by_who_has_the_lock_hides_no_race_for_it() {
    let existing = How::Existing;
    let lock = |slot, waits| Op::Lock { slot, is_shared: false, waits };
    let one = vec![
        Open { name: 0, slot: 0, how: existing },
        Open { name: 2, slot: 1, how: existing },
        lock(1, true),
    ];
    let two = vec![
        Open { name: 2, slot: 0, how: How::Create },
        lock(0, false),
        Open { name: 2, slot: 1, how: existing },
        lock(1, false),
    ];
    for programs in [vec![one.clone(), two.clone()], vec![two, one]] {
        let start = Small::new(&programs, false);
        let (classes, outcomes, _) = explored(&start, &mut SleepSets::default());
        assert_eq!((all_outcomes(&start), classes.len()), (outcomes, 5));
        assert_eq!(explored(&start, &mut Sequential::default()).0, classes);
        assert_eq!(explored(&start, &mut WorkList::new()).0, classes);
    }
}

/// Returns one of the studied programs, on a data file (name 0) and a lock file (name 1).
fn studied(program: &str) -> Vec<Op> {
    let open = |name, how| Open { name, slot: name, how };
    let existing = How::Existing;
    let take = |slot| Op::Lock { slot, is_shared: false, waits: true };
    match program {
        "A" => vec![open(1, existing), take(1), Read(1), Write(1), Unlock(1), Close(1)],
        "AT" => vec![open(1, How::Truncate), take(1), Read(1), Write(1), Unlock(1), Close(1)],
        "B" => vec![open(0, existing), Read(0), Write(0), Close(0)],
        "C" => vec![
            open(1, existing),
            take(1),
            open(0, existing),
            Read(0),
            Close(0),
            Open { name: 2, slot: 2, how: How::Truncate },
            Write(2),
            Close(2),
            Rename(2, 0),
            Unlock(1),
            Close(1),
        ],
        // The lock file does not exist at the start.
        "F" => vec![open(2, How::Create), take(2), Enter, Leave, Unlink(2), Close(2)],
        "F, bare" => vec![open(2, How::Create), take(2), Unlink(2), Close(2)],
        "F, with data" => {
            vec![open(0, existing), open(2, How::Create), take(2), Read(0), Write(0), Unlink(2), Close(2)]
        }
        other => panic!("no program {other}"),
    }
}

fn counted(program: &str, clients: usize, with_tokens: bool) -> (u64, u64) {
    let start = Small::new(&vec![studied(program); clients], with_tokens);
    let mut sequential = Sequential::default();
    let (_, _, count) = explored(&start, &mut sequential);
    (count, sequential.abandoned())
}

/// Counts of the programs from the literature, measured before by a separate simulation: classes without and with
/// conflicts between invocations and returns.
#[test]
fn known_programs_have_as_many_classes_as_are_known() {
    let of = |program: &str, clients: usize| counted(program, clients, false).0;
    assert_eq!((of("A", 2), of("A", 3)), (2, 6));
    assert_eq!((of("AT", 2), of("AT", 3)), (8, 168));
    assert_eq!((of("B", 2), of("B", 3)), (4, 36));
    assert_eq!((of("C", 2), of("C", 3)), (2, 6));
    assert_eq!((of("F", 2), of("F", 3)), (6, 120));
    // With an empty critical section, nothing shows that two clients are in it at once, so the classes in which they
    // are do not run separately. A read and a write in it show this, and with two clients in it there are more orders
    // of these.
    assert_eq!((of("F, bare", 2), of("F, bare", 3)), (6, 72));
    assert_eq!((of("F, with data", 2), of("F, with data", 3)), (6, 144));
    assert_eq!((counted("A", 3, true).0, counted("B", 3, true).0), (42, 120));
}

/// The number of schedules with at most a given number of preemptions is known for program A, and so is the total.
#[test]
fn few_preemptions_are_counted_as_they_are_known() {
    let start = Small::new(&vec![studied("A"); 3], false);
    let count = |preemptions| explored(&start, &mut Bounded::new(preemptions)).2;
    assert_eq!(count(0), 6);
    let start = Small::new(&vec![studied("A"); 2], false);
    let all = explored(&start, &mut Bounded::new(u32::MAX)).2;
    assert!(all > 2 && explored(&start, &mut Bounded::new(1)).2 < all);
}

/// A list that is saved and resumed, or run in parts, has the same result as the whole list.
#[test]
fn a_work_list_can_be_saved_taken_up_again_and_split() {
    let start = Small::new(&vec![studied("B"); 3], false);
    let (whole, _, _) = explored(&start, &mut WorkList::new());
    let mut list = WorkList::new();
    let mut classes = Classes::new();
    let mut keep = |steps: &[Step]| {
        classes.insert(Order::of(steps).class());
    };
    assert!(!run_all(&start, &mut list, 7, &mut |_, steps| keep(steps)), "it has more than seven");
    let saved = serde_json::to_string(&list).unwrap();
    let taken_up: WorkList = serde_json::from_str(&saved).unwrap();
    assert!(taken_up.len() > 2);
    for part in 1..=2 {
        run_all(&start, &mut taken_up.clone().part(part, 2), 10_000, &mut |_, steps| keep(steps));
    }
    assert_eq!(classes, whole);
}

/// Compares the linear analysis with that of all pairs, on the steps of random schedules of a program.
fn compare_analyses(start: &Small, choices: &[u8]) {
    let mut world = start.clone();
    let mut steps = Vec::new();
    let mut choices = choices.iter().copied();
    let blocked = loop {
        let pending = world.pending();
        let able: Vec<ClientId> = enabled(&pending).collect();
        let Some(choice) = choices.next().filter(|_| !able.is_empty()) else { break pending };
        steps.push(world.make(able[usize::from(choice) % able.len()]));
    };
    for from in [0, steps.len() / 2] {
        let order = Order::of(&steps);
        let shown = |reversal: &races::Reversal| {
            let races::Reversal { at, later, initials, is_sure, .. } = reversal;
            let clients = order.clients(reversal);
            pairwise::Reversal {
                at: *at,
                later: *later,
                clients,
                initials: initials.clone(),
                is_sure: *is_sure,
            }
        };
        let linear: Vec<_> = order.reversals(from, &blocked).iter().map(shown).collect();
        assert_eq!(linear, pairwise::Order::of(&steps).reversals(from, &blocked), "{steps:#?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases()) })]

    /// The comparison of all pairs took minutes for thousands of polling steps, without checking the clock.
    #[test]
    fn linear_race_analysis_equals_that_of_all_pairs(
        programs in prop::collection::vec(prop_oneof![program(9), locking_program()], 2..4),
        with_tokens in any::<bool>(),
        choices in prop::collection::vec(any::<u8>(), 40),
    ) {
        compare_analyses(&Small::new(&programs, with_tokens), &choices);
    }
}

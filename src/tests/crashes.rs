//! Every structure against a plain model in memory: random operations, kills and power losses at random calls, and
//! reopening after each.

use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;

use crate::context::{Context, Line};
use crate::disk::Disk;
use crate::disk::simulated::{Cut, Misfortune, Simulated};
use crate::tests::cases;
use crate::{Document, Error, Journal, Shards, TornWhileWritten};

#[derive(Clone, Debug)]
enum Step {
    Append(u32),
    AppendUnsynced(u32),
    /// Appends the latest number plus one.
    AppendAfter,
    Rotate,
    /// Drops every record whose number is divisible by this one.
    Rewrite(u32),
    Reopen,
}

fn misfortune() -> impl Strategy<Value = Misfortune> {
    prop_oneof![Just(Misfortune::Kill), Just(Misfortune::PowerLoss)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..1000_u32).prop_map(Step::Append),
        2 => (1..1000_u32).prop_map(Step::AppendUnsynced),
        2 => Just(Step::AppendAfter),
        1 => Just(Step::Rotate),
        1 => (2..4_u32).prop_map(Step::Rewrite),
        1 => Just(Step::Reopen),
    ]
}

fn cut() -> impl Strategy<Value = Option<Cut>> {
    let cut = (0..12_u64, any::<u64>(), misfortune());
    prop::option::weighted(0.4, cut.prop_map(|(calls, chance, by)| Cut { calls, chance, by }))
}

/// Returns a record longer than an expected line, so that it is cut in many places.
fn record(number: u32) -> String {
    format!("{number}:{}", "x".repeat(number as usize % 300))
}

fn number(record: &str) -> u32 {
    record.split(':').next().unwrap().parse().unwrap()
}

/// Expected state of a journal: the acknowledged records, and how many of them a power loss must leave.
#[derive(Clone, Debug, Default)]
struct Model {
    records: Vec<String>,
    durable: usize,
}

impl Model {
    fn after(&self, step: &Step) -> Self {
        let mut next = self.clone();
        match step {
            Step::Append(number) => next.records.push(record(*number)),
            Step::AppendUnsynced(number) => {
                next.records.push(record(*number));
                return next;
            }
            Step::AppendAfter => {
                let latest = self.records.last().map_or(0, |latest| number(latest));
                next.records.push(record(latest + 1));
            }
            Step::Rewrite(divisor) => next.records.retain(|record| !number(record).is_multiple_of(*divisor)),
            // Nothing to move, so nothing to wait for.
            Step::Rotate | Step::Reopen => return next,
        }
        next.durable = next.records.len();
        next
    }

    /// Returns whether `left` is permitted after the interruption.
    fn allows(&self, left: &[String], by: Misfortune) -> bool {
        match by {
            Misfortune::Kill => self.records == left,
            Misfortune::PowerLoss => self.durable <= left.len() && self.records.starts_with(left),
        }
    }
}

fn do_step(journal: &Journal<String>, step: &Step) -> Result<(), Error> {
    match step {
        Step::Append(number) => journal.append(&record(*number)),
        Step::AppendUnsynced(number) => journal.append_unsynced(&record(*number)),
        Step::AppendAfter => {
            let next = |latest: Option<&String>| {
                Ok::<_, std::convert::Infallible>(record(latest.map_or(0, |latest| number(latest)) + 1))
            };
            journal.append_after(next).map(drop)
        }
        Step::Rotate => journal.rotate().map(drop),
        Step::Rewrite(divisor) => {
            let keep = |mut records: Vec<String>| {
                records.retain(|record| !number(record).is_multiple_of(*divisor));
                Ok::<_, std::convert::Infallible>(records)
            };
            journal.rewrite(keep).map(drop)
        }
        Step::Reopen => Ok(()),
    }
}

fn in_a_folder() -> (tempfile::TempDir, PathBuf, Simulated, Arc<dyn Disk>) {
    // The lock files are real, everything else is in memory.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let simulated = Simulated::default();
    let disk: Arc<dyn Disk> = Arc::new(simulated.clone());
    (folder, path, simulated, disk)
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_journal_keeps_what_it_acknowledged_through_kills_and_power_losses(
        steps in prop::collection::vec((step(), cut()), 1..24)
    ) {
        let (_folder, path, simulated, disk) = in_a_folder();
        let open = || Journal::<String>::open_on(Arc::clone(&disk), &path).unwrap();
        let mut journal = open();
        let mut model = Model::default();
        // States that a power loss may restore, because a killed writer renamed a file and synced no folder.
        let mut unsure: Vec<Model> = Vec::new();
        for (step, cut) in &steps {
            if matches!(step, Step::Reopen) {
                journal = open();
            }
            simulated.cut(*cut);
            let done = do_step(&journal, step);
            let next = model.after(step);
            match cut {
                Some(cut) if simulated.is_over() => {
                    simulated.restart(cut.by);
                    journal = open();
                    let left = journal.read().unwrap();
                    // The interrupted operation is complete or absent; a power loss leaves a part of the non-durable.
                    let unwritten = Model { durable: model.durable.min(next.records.len()), ..next };
                    let is_allowed = [&model, &unwritten].into_iter().chain(&unsure).any(|state| state.allows(&left, cut.by));
                    prop_assert!(is_allowed, "{:?}: {:?} became {:?}", step, model, left);
                    // It is unknown what the disk has of that, beyond what was durable before.
                    let durable = if cut.by == Misfortune::Kill { model.durable.min(left.len()) } else { left.len() };
                    match cut.by {
                        Misfortune::Kill => unsure.push(model),
                        Misfortune::PowerLoss => unsure.clear(),
                    }
                    model = Model { durable, records: left };
                }
                _ => {
                    prop_assert!(done.is_ok(), "{:?}: {:?}", step, done);
                    model = next;
                    if matches!(step, Step::Append(_) | Step::AppendAfter | Step::Rewrite(_)) {
                        unsure.clear();
                    }
                    simulated.cut(None);
                }
            }
            prop_assert_eq!(&journal.read().unwrap(), &model.records);
            prop_assert_eq!(&journal.latest().unwrap(), &model.records.last().cloned());
        }
        prop_assert_eq!(journal.read_durable().unwrap(), model.records);
    }

    #[test]
    fn a_document_is_the_old_or_the_new_one_through_kills_and_power_losses(
        steps in prop::collection::vec((1..1000_u32, cut()), 1..12)
    ) {
        let (_folder, path, simulated, disk) = in_a_folder();
        let open = || Document::<Vec<u32>>::open_on(Arc::clone(&disk), &path).unwrap();
        let mut document = open();
        let (mut model, mut unsure) = (Vec::new(), Vec::new());
        for (number, cut) in steps {
            simulated.cut(cut);
            let done = document.update(|all| all.push(number));
            let mut next = model.clone();
            next.push(number);
            match cut {
                Some(cut) if simulated.is_over() => {
                    simulated.restart(cut.by);
                    document = open();
                    let left = document.read().unwrap().to_vec();
                    let is_unsure = cut.by == Misfortune::PowerLoss && unsure.contains(&left);
                    prop_assert!(left == model || left == next || is_unsure, "{:?} became {:?}", model, left);
                    match cut.by {
                        Misfortune::Kill => unsure.push(model),
                        Misfortune::PowerLoss => unsure.clear(),
                    }
                    model = left;
                }
                _ => {
                    prop_assert!(done.is_ok(), "{:?}", done);
                    model = next;
                    unsure.clear();
                    simulated.cut(None);
                }
            }
            prop_assert_eq!(&*document.read().unwrap(), &model);
        }
    }
}

#[test]
fn a_document_that_nobody_changed_is_not_read_again() {
    let (_folder, path, simulated, disk) = in_a_folder();
    let document = Document::<Vec<u32>>::open_on(Arc::clone(&disk), &path).unwrap();
    document.update(|all| all.push(1)).unwrap();
    let (reads, _) = simulated.counts();
    let (first, second) = (document.read().unwrap(), document.read().unwrap());
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(simulated.counts().0, reads);
    let other = Document::<Vec<u32>>::open_on(disk, &path).unwrap();
    other.update(|all| all.push(2)).unwrap();
    assert_eq!(*document.read().unwrap(), [1, 2]);
    assert!(simulated.counts().0 > reads);
}

/// After a failed sync the kernel may have dropped what it could not write, and a second sync succeeds without it.
#[test]
fn nothing_is_acknowledged_after_a_sync_that_failed() {
    let (_folder, path, simulated, disk) = in_a_folder();
    let journal = Journal::<u32>::open_on(Arc::clone(&disk), &path).unwrap();
    journal.append(&1).unwrap();
    simulated.fail_to_sync(true);
    assert!(journal.append(&2).is_err());
    simulated.fail_to_sync(false);
    let refused = journal.append(&3).unwrap_err();
    assert!(matches!(refused.kind(), crate::ErrorKind::EarlierSyncFailed), "{refused}");
    let document = Document::<u32>::open_on(disk, &path.with_extension("json")).unwrap();
    document.update(|value| *value = 1).unwrap();
    simulated.fail_to_sync(true);
    assert!(document.update(|value| *value = 2).is_err());
    assert_eq!(*document.read().unwrap(), 1);
}

/// If the sync of a folder fails, the name of a file may be lost, as the content is with the file. That was not
/// remembered: the next append synced the folder again, successfully, and was acknowledged.
#[test]
fn nothing_is_acknowledged_after_a_sync_of_the_folder_that_failed() {
    type Step = fn(&Journal<u32>) -> Result<(), Error>;
    let steps: [(&str, Step); 3] = [
        ("the first append", |journal| journal.append(&1)),
        ("a rotation", |journal| journal.rotate().map(drop)),
        ("a rewrite", |journal| journal.rewrite(Ok::<_, ()>).map(drop)),
    ];
    for (what, step) in steps {
        let (_folder, path, simulated, disk) = in_a_folder();
        let journal = Journal::<u32>::open_on(disk, &path).unwrap();
        if what != "the first append" {
            journal.append(&1).unwrap();
        }
        simulated.fail_to_sync_folders(true);
        assert!(step(&journal).is_err(), "{what}");
        simulated.fail_to_sync_folders(false);
        let refused = journal.append(&2).unwrap_err();
        assert!(matches!(refused.kind(), crate::ErrorKind::EarlierSyncFailed), "{what}: {refused}");
        assert_eq!(journal.read().unwrap(), [1], "{what}");
    }
}

/// Operations on a conversation.
#[derive(Clone, Debug)]
enum Turn {
    Say(u32),
    Usage(u64),
    Checkpoint,
    Revert(u64),
    Clear,
    Rotate,
    /// Another process adds a message.
    Other(u32),
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        4 => (1..1000_u32).prop_map(Turn::Say),
        1 => (0..1000_u64).prop_map(Turn::Usage),
        2 => Just(Turn::Checkpoint),
        2 => (0..4_u64).prop_map(Turn::Revert),
        1 => Just(Turn::Clear),
        1 => Just(Turn::Rotate),
        2 => (1..1000_u32).prop_map(Turn::Other),
    ]
}

fn said(number: u32) -> Line {
    Line::Message { role: "user".to_owned(), text: record(number) }
}

fn talk(context: &Context, turn: &Turn) -> Result<(), Error> {
    match turn {
        Turn::Say(number) | Turn::Other(number) => context.append(said(*number)),
        Turn::Usage(tokens) => context.usage(*tokens),
        Turn::Checkpoint => context.checkpoint().map(drop),
        Turn::Revert(number) => context.revert_to(*number).map(drop),
        Turn::Clear => context.clear(),
        Turn::Rotate => context.rotate().map(drop),
    }
}

/// Applies the turn to a model in memory: the history, and the number of the next checkpoint.
fn talked(history: &[Line], turn: &Turn) -> Vec<Line> {
    let mut history = history.to_vec();
    let checkpoint = |number: u64| Line::Checkpoint { number };
    match turn {
        Turn::Say(number) | Turn::Other(number) => history.push(said(*number)),
        Turn::Checkpoint => {
            let last = history.iter().rev().find_map(|line| match line {
                Line::Checkpoint { number } => Some(number + 1),
                _ => None,
            });
            history.push(checkpoint(last.unwrap_or(0)));
        }
        Turn::Revert(number) => {
            if let Some(at) = history.iter().position(|line| *line == checkpoint(*number)) {
                history.truncate(at);
            }
        }
        Turn::Clear => history.clear(),
        Turn::Usage(_) | Turn::Rotate => {}
    }
    history
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_context_believes_what_its_file_holds_whatever_fails(
        turns in prop::collection::vec((turn(), cut()), 1..16)
    ) {
        let (_folder, path, simulated, disk) = in_a_folder();
        let open = || Context::open_on(Arc::clone(&disk), &path).unwrap();
        let (mut context, mut other) = (open(), open());
        let mut model = Vec::new();
        for (turn, cut) in turns {
            // Kills only: the journal's own test covers power losses.
            simulated.cut(cut.map(|cut| Cut { by: Misfortune::Kill, ..cut }));
            let done = talk(if matches!(turn, Turn::Other(_)) { &other } else { &context }, &turn);
            let next = talked(&model, &turn);
            if simulated.is_over() {
                simulated.restart(Misfortune::Kill);
                // If only a call failed, the process lives on: its memory must not hold what the file does not.
                let left = context.read().unwrap();
                prop_assert!(left.history == model || left.history == next, "{:?} became {:?}", model, left);
                model = left.history;
                (context, other) = (open(), open());
            } else {
                prop_assert!(done.is_ok(), "{:?}: {:?}", turn, done);
                model = next;
                simulated.cut(None);
                if !matches!(turn, Turn::Other(_)) {
                    prop_assert_eq!(&context.memory().history, &model);
                }
            }
            prop_assert_eq!(context.read().unwrap(), context.memory());
            prop_assert_eq!(&context.memory().history, &model);
        }
    }

    #[test]
    fn a_merge_loses_and_doubles_nothing_whatever_ends_it(
        steps in prop::collection::vec((prop::option::of(0..3_u32), cut()), 1..24)
    ) {
        let (_folder, path, simulated, disk) = in_a_folder();
        // For the lock files.
        std::fs::create_dir(path.with_file_name("shards")).unwrap();
        let shards = || Shards::<u32>::open_on(Arc::clone(&disk), &path).unwrap();
        let (mut model, mut unsure) = (Vec::new(), Vec::new());
        for ((writer, cut), number) in steps.into_iter().zip(0..) {
            simulated.cut(cut);
            let done = match writer {
                Some(writer) => shards().writer(&writer.to_string()).and_then(|shard| shard.append(&number)),
                None => shards().merge().map(drop),
            };
            match cut {
                Some(cut) if simulated.is_over() => {
                    simulated.restart(cut.by);
                    // The check below shows whether it was written.
                    unsure.extend(writer.map(|_| number));
                }
                _ => {
                    prop_assert!(done.is_ok(), "{:?}", done);
                    model.extend(writer.map(|_| number));
                    simulated.cut(None);
                }
            }
            let mut read = shards().read().unwrap();
            read.sort_unstable();
            let is_doubled = read.windows(2).any(|pair| pair[0] == pair[1]);
            let is_lost = model.iter().any(|record| !read.contains(record));
            let is_new = read.iter().any(|record| !model.contains(record) && !unsure.contains(record));
            prop_assert!(!is_doubled && !is_lost && !is_new, "{:?} with {:?} unsure became {:?}", model, unsure, read);
        }
    }

    #[test]
    fn what_is_written_in_place_is_whole_after_the_next_lock(
        steps in prop::collection::vec((1..300_u32, cut()), 1..12)
    ) {
        let (_folder, path, simulated, disk) = in_a_folder();
        let saved = || TornWhileWritten::<String>::open_on(Arc::clone(&disk), &path).unwrap();
        let (mut model, mut unsure) = (String::new(), Vec::new());
        for (number, cut) in steps {
            simulated.cut(cut);
            let next = record(number);
            let done = saved().change(|text| Ok::<_, ()>(std::mem::replace(text, next.clone())));
            if simulated.is_over() {
                let by = cut.map_or(Misfortune::Kill, |cut| cut.by);
                simulated.restart(by);
                let left = saved().load().unwrap();
                let is_allowed = left == model || left == next || unsure.contains(&left);
                prop_assert!(is_allowed, "{:?} became {:?}", model, left);
                // Loading has rewritten it durably.
                unsure.push(std::mem::replace(&mut model, left));
            } else {
                prop_assert!(done.is_ok(), "{:?}", done);
                model = next;
                unsure.clear();
                simulated.cut(None);
            }
            prop_assert_eq!(&saved().load().unwrap(), &model);
        }
    }
}

//! Tests bugs that were found in the store, each with its story.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::mpsc;
use std::thread;

use crate::context::{Context, Line};
use crate::ledger::{Action, Ledger};
use crate::{Amount, Document, ErrorKind, Journal, Shards};

/// The check whether a thread would wait for itself was made on the handle, and a fresh handle did not know: in the
/// closure of one document, an update through a second handle joined a batch whose leader waited for the first.
#[test]
fn a_fresh_handle_in_a_closure_is_refused_whoever_else_uses_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json");
    let outer: Document<u32> = Document::open(&path).unwrap();
    for _ in 0..50 {
        let inner: Document<u32> = Document::open(&path).unwrap();
        let (inside, entered) = mpsc::channel();
        thread::scope(|scope| {
            let inner = &inner;
            scope.spawn(move || {
                entered.recv().unwrap();
                inner.update(|value| *value += 1).unwrap();
            });
            let nested = outer.update(|_| {
                inside.send(()).unwrap();
                thread::yield_now();
                inner.update(|value| *value += 1)
            });
            assert!(matches!(nested.unwrap().unwrap_err().kind(), ErrorKind::WouldWaitForItself));
        });
    }
    assert_eq!(*outer.read().unwrap(), 50);
}

/// The names of rotated files were built lossily, so that two journals shared one; and an existing file of that name
/// was taken for a leftover.
#[test]
fn a_rotation_takes_no_file_that_is_not_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let names: [&[u8]; 2] = [b"a\xff", b"a\xfe"];
    let journals = names.map(|name| Journal::open(folder.path().join(OsStr::from_bytes(name))).unwrap());
    for (journal, number) in journals.iter().zip([1, 2]) {
        journal.append(&number).unwrap();
        assert!(journal.rotate().unwrap());
    }
    for (journal, number) in journals.iter().zip([1, 2]) {
        assert_eq!(journal.read().unwrap(), [number]);
    }
    let log: Journal<u32> = Journal::open(folder.path().join("log")).unwrap();
    let strangers = ["log.1", "log.2024", "log.007"].map(|name| folder.path().join(name));
    for stranger in &strangers {
        fs::write(stranger, "precious").unwrap();
    }
    log.append(&1).unwrap();
    assert!(log.rotate().unwrap());
    log.rewrite(Ok::<_, ()>).unwrap().unwrap();
    for stranger in &strangers {
        assert_eq!(fs::read(stranger).unwrap(), b"precious", "{stranger:?}");
    }
    assert_eq!(log.read().unwrap(), [1]);
}

/// A reused number made a reader that had stopped between two files mistake a new file for an old one.
#[test]
fn no_number_of_a_rotated_file_is_given_twice() {
    let folder = tempfile::tempdir().unwrap();
    let journal: Journal<u32> = Journal::open(folder.path().join("j")).unwrap();
    for number in 1..=3 {
        journal.append(&number).unwrap();
        assert!(journal.rotate().unwrap());
        assert!(folder.path().join(format!("j.{number}")).exists());
        journal.rewrite(Ok::<_, ()>).unwrap().unwrap();
    }
    assert_eq!(journal.read().unwrap(), [1, 2, 3]);
    assert_eq!(journal.latest().unwrap(), Some(3));
}

/// A header that refers to its own file was followed until the stack overflowed.
#[test]
fn a_header_that_leads_in_a_circle_is_corrupt() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    for (name, after) in [("j", 1), ("j.1", 2), ("j.2", 1)] {
        fs::write(
            folder.path().join(name),
            format!("{{\"#journal\":{{\"after\":{after},\"last\":2}}}}\n1\n"),
        )
        .unwrap();
    }
    let journal: Journal<u32> = Journal::open(&path).unwrap();
    assert!(matches!(journal.read().unwrap_err().kind(), ErrorKind::Corrupt(_)));
}

/// A sale of the smallest quantity was paid as if it were larger.
#[test]
fn nothing_is_gained_by_selling_in_small_parts() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path(), "alice").unwrap();
    let amount = |text: &str| text.parse::<Amount>().unwrap();
    ledger.act(Action::Deposit { cash: amount("0.0001") }).unwrap().unwrap();
    let (symbol, price) = ("X".to_owned(), amount("0.0001"));
    ledger.act(Action::Buy { symbol: symbol.clone(), quantity: amount("1"), price }).unwrap().unwrap();
    for _ in 0..10 {
        let part = Action::Sell { symbol: symbol.clone(), quantity: amount("0.0001"), price };
        ledger.act(part).unwrap().unwrap();
    }
    assert_eq!(ledger.position().unwrap().cash, Amount::ZERO);
}

/// JSON has no NaN: it was written as null, acknowledged, and could never be read again.
#[test]
fn a_record_that_could_not_be_read_again_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let journal: Journal<f64> = Journal::open(folder.path().join("j")).unwrap();
    journal.append(&1.0).unwrap();
    for record in [f64::NAN, f64::INFINITY] {
        assert!(matches!(journal.append(&record).unwrap_err().kind(), ErrorKind::Unserialisable(_)));
    }
    let nan = journal.rewrite(|_| Ok::<_, ()>(vec![f64::NAN]));
    assert!(matches!(nan.unwrap_err().kind(), ErrorKind::Unserialisable(_)));
    assert_eq!(journal.read().unwrap(), [1.0]);
    let document: Document<f64> = Document::open(folder.path().join("d")).unwrap();
    document.update(|value| *value = 1.0).unwrap();
    let nan = document.update(|value| *value = f64::NAN);
    assert!(matches!(nan.unwrap_err().kind(), ErrorKind::Unserialisable(_)));
    assert_eq!(*document.read().unwrap(), 1.0);
}

/// A plain file name has an empty folder, which could not be synced.
#[test]
fn shards_in_the_working_folder_can_be_opened() {
    // All tests share the working folder: this one creates only what it removes.
    let name = format!("merged-{}.json", std::process::id());
    let shards: Shards<u32> = Shards::open(&name).unwrap();
    assert_eq!(shards.merge().unwrap(), 0);
    for left in ["shards".to_owned(), format!("{name}.lock")] {
        let _removed = fs::remove_dir(&left).or_else(|_| fs::remove_file(&left));
    }
}

/// Reading the context from within its own change waited for that change.
#[test]
fn a_context_s_change_may_not_wait_for_itself() {
    let folder = tempfile::tempdir().unwrap();
    let context = Context::open(folder.path().join("c")).unwrap();
    let mut nested = None;
    let line = Line::Message { role: "user".into(), text: "a".into() };
    let added = context.append_if(line, || {
        nested = Some(context.read().map(drop));
        true
    });
    added.unwrap().unwrap();
    assert!(matches!(nested.unwrap().unwrap_err().kind(), ErrorKind::WouldWaitForItself));
}

/// A rotated journal begins with a line that is not a record. A record that looked like such a line was appended and
/// acknowledged, but was missing; and with a number in it, a rewrite removed the file of that number.
#[test]
fn what_a_journal_may_begin_with_and_what_is_more_than_a_line_is_no_record() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let journal = Journal::<serde_json::Value>::open(&path).unwrap();
    for number in [serde_json::Value::Null, 7.into()] {
        let header = serde_json::json!({"#journal": {"after": number, "last": 0}});
        let refused = journal.append(&header).unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::Unserialisable(_)), "{refused}");
    }
    let raw = Journal::<Box<serde_json::value::RawValue>>::open(&path).unwrap();
    let of_lines = serde_json::value::RawValue::from_string("[1,\n2]".to_owned()).unwrap();
    let refused = raw.append(&of_lines).unwrap_err();
    assert!(refused.to_string().contains("one line"), "{refused}");
    // Similar lines are ordinary records.
    let records = [serde_json::json!({"#journal": 1}), serde_json::json!({"after": 7, "last": 0})];
    records.iter().for_each(|record| journal.append(record).unwrap());
    assert_eq!(journal.read().unwrap(), records);
}

/// The error named the journal's current file, which was intact.
#[test]
fn damage_in_a_file_of_before_a_rotation_is_told_of_that_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let journal = Journal::<u32>::open(&path).unwrap();
    journal.append(&1).unwrap();
    assert!(journal.rotate().unwrap());
    let earlier = folder.path().join("journal.1");
    fs::write(&earlier, "one\n").unwrap();
    for error in [journal.read().unwrap_err(), journal.latest().unwrap_err()] {
        assert!(matches!(error.kind(), ErrorKind::Corrupt(_)), "{error}");
        assert_eq!(error.path(), earlier);
    }
}

/// A reader that continued from its last position took a file that had become shorter for one with nothing new.
#[test]
fn a_journal_that_lost_lines_which_were_read_is_corrupt_to_who_reads_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let journal = Journal::<u32>::open(&path).unwrap();
    (1..=2).for_each(|record| journal.append(&record).unwrap());
    let mut place = crate::journal::Place::default();
    assert_eq!(journal.since(&mut place).unwrap().records, [1, 2]);
    journal.append(&3).unwrap();
    assert_eq!(journal.since(&mut place).unwrap().records, [3]);
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(2).unwrap();
    let error = journal.since(&mut place).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Corrupt(_)), "{error}");
}

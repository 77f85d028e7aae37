//! Every diagnosis on a trace that shows it and on one that does not.

use super::*;
use crate::call::{Argument, Leak, LockChange, sketch};
use crate::locks::Kind;
use crate::op::Request;

fn trace(text: &str) -> Trace {
    let requests = vec![Request::Other("one".into())];
    Trace { requests, calls: sketch(text), is_whole: true, ..Trace::default() }
}

fn found(id: &str, trace: &Trace) -> Option<usize> {
    (find(id).unwrap().find)(trace, "db")
}

#[track_caller]
fn shows(id: &str, at: usize, text: &str) {
    assert_eq!(found(id, &trace(text)), Some(at), "{id}: {text}");
}

#[track_caller]
fn shows_nothing(id: &str, text: &str) {
    assert_eq!(found(id, &trace(text)), None, "{id}: {text}");
}

/// A correct operation: lock, read, temporary file, sync, rename, sync of the folder, unlock.
const RIGHT: &str = "1 open db.lock 9\n 1 lock ex 9\n 1 open db 1\n 1 read 1\n 1 create tmp 2\n 1 write 2\n 1 sync 2\n \
                     1 rename tmp db\n 1 open . 3\n 1 sync 3\n 1 unlock 9";

#[test]
fn a_right_store_has_none() {
    let right = trace(RIGHT);
    for diagnosis in ALL {
        assert_eq!((diagnosis.find)(&right, "db"), None, "{}", diagnosis.id);
    }
    assert_eq!(read([&right], "db").len(), 0);
}

#[test]
fn every_id_is_reserved_and_every_invariant_that_it_explains_too() {
    use crate::catalogue::{DIAGNOSIS_IDS, INVARIANT_IDS};
    for (index, diagnosis) in ALL.iter().enumerate() {
        assert!(DIAGNOSIS_IDS.contains(&diagnosis.id), "{}", diagnosis.id);
        assert!(ALL[..index].iter().all(|other| other.id != diagnosis.id));
        assert!(diagnosis.explains.iter().all(|id| INVARIANT_IDS.contains(id)), "{}", diagnosis.id);
    }
}

#[test]
fn what_is_done_before_after_or_without_the_lock() {
    shows("truncate-before-lock", 0, "1 truncate db 1\n 1 lock ex 1\n 1 write 1");
    shows_nothing("truncate-before-lock", "1 lock ex 9\n 1 truncate db 1\n 1 write 1");
    shows("write-without-lock", 1, "1 open db 1\n 1 write 1");
    shows_nothing("write-without-lock", "1 open db 1\n 1 lock ex 1\n 1 write 1");
    shows("write-after-unlock", 3, "1 open db 1\n 1 lock ex 1\n 1 unlock 1\n 1 write 1");
    shows_nothing("write-after-unlock", "1 open db 1\n 1 lock ex 1\n 1 write 1\n 1 unlock 1");
    shows("read-before-lock", 1, "1 open db 1\n 1 read 1\n 1 lock ex 9\n 1 write 1\n 1 unlock 9");
    shows_nothing(
        "read-before-lock",
        "1 open db 1\n 1 read 1\n 1 lock ex 9\n 1 read 1\n 1 write 1\n 1 unlock 9",
    );
}

#[test]
fn a_lock_on_what_is_replaced_or_removed() {
    shows("lock-on-replaced-file", 3, "1 open file1 1\n 1 lock ex 1\n 1 create t 2\n 1 rename t file1");
    shows_nothing("lock-on-replaced-file", RIGHT);
    shows("lock-file-unlinked", 2, "1 open file9 9\n 1 lock ex 9\n 1 unlink file9");
    shows_nothing("lock-file-unlinked", "1 open file9 9\n 1 lock ex 9\n 1 unlink other");
    // A client that checks whether the name still refers to its file is safe.
    let mut checked = trace("1 open file9 9\n 1 lock ex 9\n 1 stat file9\n 1 unlink file9");
    assert_eq!(found("lock-file-unlinked", &checked), None);
    checked.calls.remove(2);
    assert_eq!(found("lock-file-unlinked", &checked), Some(2));
}

#[test]
fn a_posix_lock_that_a_close_drops() {
    let mut dropped = trace("1 open db 1\n 1 lock ex 9\n 1 close 9\n 1 write 1");
    let LockChange::Taken(lock, name) = dropped.calls[1].locks[0].clone() else { panic!() };
    let posix = crate::locks::Lock { kind: Kind::Posix, ..lock };
    dropped.calls[1].locks = vec![LockChange::Taken(posix, name.clone())];
    assert_eq!(found("lock-dropped-by-close", &dropped), None);
    dropped.calls[2].locks = vec![LockChange::Released(posix, name)];
    assert_eq!(found("lock-dropped-by-close", &dropped), Some(2));
}

#[test]
fn a_lock_that_outlives_its_operation() {
    let mut leaked = trace("1 lock ex 9\n 1 stat x");
    leaked.calls[1].name = "fork".into();
    assert_eq!(found("lock-inherited", &leaked), None);
    leaked.leaks = vec![Leak { client: 1, file: "l".into(), kind: Kind::Flock }];
    assert_eq!(found("lock-inherited", &leaked), Some(1));
}

#[test]
fn waits_that_never_end() {
    let mut own = trace("1 open l 9\n 1 lock ex 9\n 1 open l 9\n 1 try ex 9");
    assert_eq!(found("second-descriptor-same-lock", &own), None);
    own.calls[3].result = None;
    own.calls[3].locks.clear();
    // A client killed before its call did not wait for the lock.
    assert_eq!(found("second-descriptor-same-lock", &own), None);
    own.is_stuck = true;
    assert_eq!(found("second-descriptor-same-lock", &own), Some(3));
    let mut crossed = trace("1 lock ex 8\n 2 lock ex 9\n 1 try ex 9\n 2 try ex 8");
    crossed.is_stuck = true;
    assert_eq!(found("lock-order-cycle", &crossed), None);
    for at in [2, 3] {
        crossed.calls[at].result = None;
        crossed.calls[at].locks.clear();
    }
    assert_eq!(found("lock-order-cycle", &crossed), Some(2));
}

#[test]
fn a_short_write_that_nobody_looks_at() {
    let short = |rest: &str| {
        let mut short = trace(&format!("1 create tmp 2\n 1 write 2\n {rest}"));
        short.calls[1].arguments = vec![Argument::Bytes(10)];
        short.calls[1].result = Some(Ok(4));
        found("short-write-ignored", &short)
    };
    assert_eq!(short("1 rename tmp db"), Some(1));
    assert_eq!(short("1 write 2\n 1 rename tmp db"), None);
    assert_eq!(short("1 unlink other"), Some(1));
    // A truncation to ten bytes was mistaken for a write of ten bytes that wrote none.
    let mut cut = trace("1 open db 1\n 1 truncate db 1\n 1 rename tmp db");
    cut.calls[1].arguments = vec![Argument::Bytes(10)];
    assert_eq!(found("short-write-ignored", &cut), None);
    shows_nothing("short-write-ignored", "1 create tmp 2\n 1 write 2\n 1 rename tmp db");
}

#[test]
fn how_the_data_is_written() {
    shows("in-place-overwrite", 1, "1 open db 1\n 1 write 1");
    shows("in-place-overwrite", 0, "1 truncate db 1");
    shows_nothing("in-place-overwrite", "1 create db 1\n 1 write 1");
    let mut append = trace("1 open db 1\n 1 write 1");
    append.calls[0].arguments.push(Argument::Flags("O_WRONLY|O_APPEND".into()));
    assert_eq!(found("in-place-overwrite", &append), None);
    shows("rename-without-sync", 2, "1 create tmp 2\n 1 write 2\n 1 rename tmp db");
    shows("directory-not-synced", 3, "1 create tmp 2\n 1 write 2\n 1 sync 2\n 1 rename tmp db");
    shows("shared-temp-name", 0, "1 create tmp 2\n 1 write 2\n 1 rename tmp db");
    let mut own = trace("1 create tmp.77 2\n 1 write 2\n 1 rename tmp.77 db");
    assert_eq!(found("shared-temp-name", &own), Some(0));
    own.pids.insert(77);
    assert_eq!(found("shared-temp-name", &own), None);
}

#[test]
fn lock_files() {
    let exclusive = |text: &str, at: &[usize]| {
        let mut trace = trace(text);
        for at in at {
            trace.calls[*at].arguments.push(Argument::Flags("O_WRONLY|O_CREAT|O_EXCL".into()));
        }
        trace
    };
    let made = exclusive("1 create db.lock 9\n 1 open db 1\n 1 write 1\n 1 unlink db.lock", &[0]);
    assert_eq!(found("lock-file-survives-kill", &made), Some(0));
    assert_eq!(found("write-without-lock", &made), None);
    shows_nothing("lock-file-survives-kill", RIGHT);
    let broken = exclusive("1 unlink db.lock\n 1 create db.lock 9\n 1 unlink db.lock", &[1]);
    assert_eq!(found("stale-lock-broken", &broken), Some(0));
    assert_eq!(found("stale-lock-broken", &made), None);
}

#[test]
fn a_lock_that_is_tried_again_and_again() {
    shows("poll-lock", 1, "2 refused ex 9\n 2 refused ex 9");
    shows("poll-lock", 2, "1 refused ex 9\n 2 refused ex 9\n 2 try ex 9");
    shows_nothing("poll-lock", "1 refused ex 9\n 2 try ex 9\n 2 try ex 9");
}

#[test]
fn the_most_specific_one_explains_a_violation() {
    let shown = read([&trace("1 open db 1\n 1 read 1\n 1 lock ex 9\n 1 write 1\n 1 unlock 9")], "db");
    assert_eq!(explaining(&shown, "no-lost-update").unwrap().diagnosis.id, "read-before-lock");
    assert_eq!(explaining(&shown, "crash-atomic").unwrap().diagnosis.id, "in-place-overwrite");
    assert_eq!(explaining(&shown, "no-deadlock").map(|shown| shown.diagnosis.id), None);
}

/// A store that is killed before it takes its lock has not written without a lock.
#[test]
fn a_lock_that_failed_and_a_change_all_the_same() {
    let after = |rest: &str| {
        let mut failed = trace(&format!("1 open l 9\n 1 lock ex 9\n {rest}"));
        failed.calls[1].result = Some(Err(crate::call::Errno(libc::ENOLCK)));
        failed.calls[1].locks.clear();
        found("lock-error-ignored", &failed)
    };
    assert_eq!(after("1 open db 1\n 1 write 1"), Some(1));
    assert_eq!(after("1 lock ex 9\n 1 open db 1\n 1 write 1"), None);
    assert_eq!(after("1 open db 1"), None);
    shows_nothing("lock-error-ignored", "1 open l 9\n 1 lock ex 9\n 1 open db 1\n 1 write 1");
}

#[test]
fn a_write_or_a_sync_that_failed_and_nobody_looked() {
    let after = |failing: &str, errno: i32, rest: &str| {
        let mut failed = trace(&format!("1 create tmp 2\n {failing}\n {rest}"));
        failed.calls[1].result = Some(Err(crate::call::Errno(errno)));
        failed.calls[1].effect = None;
        found("write-error-ignored", &failed)
    };
    assert_eq!(after("1 write 2", libc::ENOSPC, "1 rename tmp db"), Some(1));
    assert_eq!(after("1 write 2", libc::ENOSPC, "1 unlink tmp"), None);
    assert_eq!(after("1 write 2", libc::EINTR, "1 rename tmp db"), None);
    assert_eq!(after("1 sync 2", libc::EIO, "1 sync 2"), Some(1));
    assert_eq!(after("1 sync 2", libc::EIO, "1 write 2\n 1 sync 2\n 1 rename tmp db"), None);
    shows_nothing("write-error-ignored", "1 create tmp 2\n 1 write 2\n 1 sync 2\n 1 rename tmp db");
}

#[test]
fn a_run_that_was_cut_short_shows_only_what_it_did() {
    let cut = Trace { is_whole: false, ..trace("1 open db 1\n 1 write 1\n 1 refused ex 9\n 1 refused ex 9") };
    let shown: Vec<&str> = read([&cut], "db").iter().map(|shown| shown.diagnosis.id).collect();
    assert_eq!(shown, ["poll-lock"]);
}

//! Judges stores whole, which takes minutes: `cargo test -p picklock --features campaigns --test it campaigns::`.

use crate::OF_INTERLEAVE;
use crate::copies::copies_show_what_fresh_starts_show;
use crate::programs::{PYTHON_STORE, all_schedules_hold, invariant, judge, python_script};

#[test]
fn the_embedded_store_holds_whole() {
    let folder = tempfile::tempdir().unwrap();
    let report = judge(folder.path(), 0, &["--budget", "5m"]);
    assert_eq!(report["verdict"], "holds");
}

/// Correct and broken Python stores, one of them with names that are never the same.
#[test]
fn copies_of_python_stores_show_what_fresh_starts_show() {
    copies_show_what_fresh_starts_show(&[
        ("./right", "db.json", 0),
        ("./litters", "db.json", 1),
        ("./shell", "db.txt", 1),
    ]);
}

#[test]
fn a_store_in_python_holds_whole() {
    let folder = tempfile::tempdir().unwrap();
    python_script(folder.path(), "store", PYTHON_STORE);
    judge(folder.path(), 0, &["--skip", "interleave-crash", "--budget", "10m", "--", "./store"]);
}

/// Every form of the reference store holds under every existing scenario, including those added later.
#[test]
fn every_form_of_the_reference_store_holds_whole() {
    for form in ["document", "saved", "in-place", "trades", "journal", "ledger", "context", "shards"] {
        let folder = tempfile::tempdir().unwrap();
        // Schedules have a test of their own.
        let skip =
            ["--skip", "interleave,interleave-crash,guard-holds", "--skip", OF_INTERLEAVE, "--budget", "10m"];
        let report = judge(folder.path(), 0, &[&["--adapter", &format!("store-{form}")], &skip[..]].concat());
        for one in report["scenarios"].as_array().unwrap() {
            assert_ne!(one["coverage"], "truncated", "{form}: {one:#}");
        }
        assert_eq!(invariant(&report, "memory-matches-file")["verdict"], "holds", "{form}");
        let derived = if form == "trades" { "holds" } else { "not-applicable" };
        assert_eq!(invariant(&report, "derived-heals")["verdict"], derived, "{form}");
    }
}

/// Three clients for each form that has one operation per process; the forms of a conversation have too many schedules
/// and run with two clients.
#[test]
fn all_schedules_of_each_form_are_run_and_hold() {
    let two = ["ledger", "saved", "shards", "context"].map(|form| (form, "2"));
    let three = ["journal", "trades", "in-place"].map(|form| (form, "3"));
    for (form, clients) in two.into_iter().chain(three) {
        all_schedules_hold(form, clients);
    }
}

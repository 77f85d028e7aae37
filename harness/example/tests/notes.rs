//! picklock in `cargo test`: three lines for a program of one's own.

/// Killed at every call, its writes torn and its calls failed, its power cut, its calls put into every order: nothing is lost.
#[test]
fn notes_survive() {
    picklock::check(env!("CARGO_BIN_EXE_notes")).data("notes.txt").budget_seconds(20).assert_holds();
}

/// That the test above can fail: a program without a lock is caught, and the report says how to see it again.
#[test]
#[should_panic(expected = "next: picklock replay")]
fn without_a_lock_they_do_not() {
    picklock::check(env!("CARGO_BIN_EXE_forgetful"))
        .data("notes.txt")
        .only(["interleave", "no-lost-update"])
        .cases(env!("CARGO_TARGET_TMPDIR"))
        .budget_seconds(20)
        .assert_holds();
}

/// A report is a value too.
#[test]
fn what_is_violated_stands_in_the_report_with_a_likely_cause() {
    let report = picklock::check(env!("CARGO_BIN_EXE_forgetful"))
        .data("notes.txt")
        .only(["crash", "no-torn-read", "crash-atomic"])
        .cases(env!("CARGO_TARGET_TMPDIR"))
        .budget_seconds(20)
        .run()
        .unwrap();
    assert_eq!(report.exit, 1, "{}", report.to_json());
    let diagnoses: Vec<&str> = report.diagnoses.iter().map(|one| one.id.as_str()).collect();
    assert!(diagnoses.contains(&"write-without-lock"), "{diagnoses:?}");
}

//! Tests `picklock init`, shell completions and manual pages.

use std::fs;

use crate::{expect_status, picklock, script, stderr, stdout};

/// A store with the default command line.
const STORE: &str = "#!/bin/sh\ncase $1 in add) printf '%s\\n' \"$3\" >> \"$2\";; list) cat \"$2\";; init) : > \"$2\";; *) exit 2;; esac\n";

#[test]
fn an_adapter_is_written_that_the_control_has_passed_with_and_check_takes_it() {
    let folder = tempfile::tempdir().unwrap();
    script(folder.path(), "store", STORE);
    let written =
        picklock(folder.path(), &["init", "--data", "notes.txt", "--", "./store"]).output().unwrap();
    expect_status(&written, 0);
    assert!(
        stdout(&written).contains("wrote picklock.toml, and the control passed\n  next: picklock check\n")
    );
    let text = fs::read_to_string(folder.path().join("picklock.toml")).unwrap();
    assert!(
        text.contains("add = [\"./store\", \"add\", \"{data}\", \"{id}\"]") && text.contains("# recover ="),
        "{text}"
    );
    let checked = picklock(folder.path(), &["check", "--only", "reentry,no-self-deadlock"]).output().unwrap();
    expect_status(&checked, 0);
    assert!(stdout(&checked).contains("the adapter file picklock.toml"), "{}", stdout(&checked));
    let again = picklock(folder.path(), &["init", "--", "./store"]).output().unwrap();
    expect_status(&again, 2);
    assert!(stderr(&again).contains("is there already") && stderr(&again).contains("--force"));
    // The adapter gives exit statuses the same meaning as `-- ./store`.
    assert!(text.contains("\n[exit]\nrefused = [3]") && text.contains("\nbusy = [75]"), "{text}");
    // Every line that is only proposed is valid once it is active; the first two are prose.
    let is_proposed = |line: &str| line.starts_with("# [") || line.split_once(" = ").is_some();
    let uncommented = |line: &str| match line.strip_prefix("# ") {
        Some(proposed) if is_proposed(line) => proposed.to_owned(),
        _ => line.to_owned(),
    };
    let all: Vec<String> = text.lines().map(uncommented).collect();
    assert!(all.iter().filter(|line| line.starts_with('#')).count() == 2, "{all:#?}");
    let all =
        all.join("\n").replace("format = \"json\"", "format = \"text\"").replace("\"$[*]\"", "\"lines\"");
    fs::write(folder.path().join("all.toml"), all).unwrap();
    let whole = picklock(folder.path(), &["trace", "--adapter", "all.toml"]).output().unwrap();
    expect_status(&whole, 0);
}

#[test]
fn a_store_that_does_not_work_gets_no_adapter_unless_it_is_wanted_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    script(folder.path(), "store", "#!/bin/sh\nexit 9\n");
    let refused = picklock(folder.path(), &["init", "--", "./store"]).output().unwrap();
    expect_status(&refused, 4);
    assert!(
        stderr(&refused).contains("the control failed: ") && !folder.path().join("picklock.toml").exists()
    );
    expect_status(&picklock(folder.path(), &["init", "--unproven", "--", "./store"]).output().unwrap(), 4);
    assert!(folder.path().join("picklock.toml").exists());
    let nobody = picklock(folder.path(), &["init", "--output", "b.toml"]).output().unwrap();
    expect_status(&nobody, 2);
    assert!(stderr(&nobody).contains("cannot ask for it"), "{}", stderr(&nobody));
}

#[test]
fn every_shell_and_every_command_has_its_completions_and_its_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = picklock(folder.path(), &["completions", shell]).output().unwrap();
        expect_status(&output, 0);
        assert!(stdout(&output).contains("baseline"), "{shell}");
    }
    expect_status(&picklock(folder.path(), &["man", "--output", "."]).output().unwrap(), 0);
    for command in ["check", "bench", "replay", "merge", "init"] {
        let page = fs::read_to_string(folder.path().join(format!("picklock-{command}.1"))).unwrap();
        assert!(page.contains(".SH OPTIONS"), "{command}");
    }
    let page = picklock(folder.path(), &["man"]).output().unwrap();
    assert!(stdout(&page).starts_with(".ie") || stdout(&page).contains(".TH picklock 1"));
}

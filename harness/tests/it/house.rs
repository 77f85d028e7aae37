//! Tests the structure of the repository and its generated parts.

use std::fs;
use std::path::{Path, PathBuf};

use picklock::{diagnoses, invariants, scenario};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Returns all Rust sources of the repository except the tests of the program.
fn sources() -> Vec<(PathBuf, String)> {
    sources_in(&["src", "harness/src", "fixtures/src", "fixtures/tests", "benches"])
}

fn sources_in(folders: &[&str]) -> Vec<(PathBuf, String)> {
    let mut folders: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                sources.push((path, text));
            }
        }
    }
    assert!(sources.len() > 20);
    sources
}

#[test]
fn every_file_opens_with_a_sentence() {
    for (path, text) in [sources(), sources_in(&["harness/tests"])].concat() {
        let first = text.lines().next().unwrap_or_default();
        assert!(first.starts_with("//! "), "{path:?} does not say what it is for");
    }
}

/// Data flows one way: lists which modules of the harness each of them may use.
#[test]
fn rooms_use_only_what_lies_below_them() {
    let floors: &[(&str, &[&str])] = &[
        ("op.rs", &[]),
        ("locks.rs", &[]),
        ("call.rs", &["locks"]),
        ("accesses.rs", &["call", "locks"]),
        ("conflicts", &["call"]),
        ("evidence.rs", &[]),
        ("normalize.rs", &["op", "call"]),
        ("signature.rs", &["call", "normalize"]),
        ("explore", &["op", "locks", "explore"]),
        ("tracer", &["call", "locks", "explore", "tracer"]),
        ("verdict.rs", &[]),
        ("volume", &["volume"]),
        ("catalogue.rs", &[]),
        ("fault.rs", &["call", "catalogue"]),
        ("scenario", &["op", "call", "accesses", "catalogue", "fault", "persist", "scenario"]),
        ("observation.rs", &["op", "call", "fault"]),
        ("persist", &["call", "catalogue", "scenario", "persist"]),
        ("case.rs", &["op", "call", "observation", "scenario", "signature", "normalize"]),
        ("diagnoses", &["op", "locks", "call", "accesses", "catalogue", "observation", "diagnoses"]),
        (
            "invariants",
            &[
                "op",
                "locks",
                "call",
                "conflicts",
                "evidence",
                "verdict",
                "catalogue",
                "observation",
                "history",
                "invariants",
            ],
        ),
        ("shard.rs", &["catalogue"]),
        ("history", &["op", "catalogue", "history"]),
        ("target", &["op", "catalogue", "observation", "target"]),
        ("sandbox", &["op", "call", "observation", "persist", "sandbox", "target"]),
        (
            "runner",
            &[
                "op",
                "call",
                "case",
                "evidence",
                "explore",
                "observation",
                "fault",
                "scenario",
                "target",
                "signature",
                "normalize",
                "persist",
                "sandbox",
                "tracer",
                "volume",
                "shard",
                "runner",
            ],
        ),
        (
            "report",
            &[
                "op",
                "locks",
                "call",
                "accesses",
                "case",
                "evidence",
                "observation",
                "invariants",
                "verdict",
                "target",
                "catalogue",
                "scenario",
                "diagnoses",
                "shard",
                "report",
            ],
        ),
        ("selection.rs", &["catalogue", "invariants", "scenario", "target"]),
    ];
    let house = root().join("harness/src");
    for (floor, _) in floors {
        assert!(house.join(floor).exists(), "{floor} is no room any more");
    }
    for (path, text) in sources() {
        let Ok(within) = path.strip_prefix(&house) else { continue };
        let room = within.iter().next().unwrap().to_str().unwrap();
        let Some((_, allowed)) = floors.iter().find(|(floor, _)| *floor == room) else { continue };
        for used in text.match_indices("crate::").map(|(at, word)| &text[at + word.len()..]) {
            let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            assert!(
                allowed.contains(&used.as_str()),
                "{within:?} uses crate::{used}, which does not lie below it"
            );
        }
    }
}

#[test]
fn only_the_front_door_names_the_reference_store() {
    for (path, text) in sources() {
        let within = path.strip_prefix(root()).unwrap();
        // `main.rs` is the store under another name; a locker takes the store's lock, besides all others, to measure
        // it.
        let is_front_door =
            ["harness/src/main.rs", "harness/src/cli/locker.rs"].iter().any(|door| within == Path::new(door));
        if within.starts_with("harness/src") && !is_front_door {
            assert!(!text.contains("picklock_store"), "{within:?} names the store");
        }
    }
}

#[test]
fn unsafe_code_stands_in_two_rooms_alone() {
    for (path, text) in sources() {
        let within = path.strip_prefix(root()).unwrap();
        // The store's tests install a signal handler, which no safe API does in the way they need.
        let is_allowed =
            ["harness/src/tracer", "harness/src/volume"].iter().any(|room| within.starts_with(room));
        if !is_allowed && within != Path::new("src/lock.rs") {
            assert!(!text.contains("unsafe "), "{within:?} has unsafe code");
        }
    }
}

#[test]
fn pure_rooms_do_no_input_and_output_and_read_no_clock() {
    let pure = [
        "op.rs",
        "locks.rs",
        "accesses.rs",
        "conflicts",
        "verdict.rs",
        "catalogue.rs",
        "observation.rs",
        "persist",
        "fault.rs",
        "case.rs",
        "diagnoses",
        "scenario",
        "invariants",
        "history",
    ];
    for room in pure {
        assert!(root().join("harness/src").join(room).exists(), "{room} is no room any more");
    }
    for (path, text) in sources() {
        let Ok(within) = path.strip_prefix(root().join("harness/src")) else { continue };
        if pure.iter().any(|room| within.starts_with(room)) {
            for word in
                ["std::fs", "std::io", "std::process", "std::thread", "std::env", "Instant", "SystemTime"]
            {
                assert!(!text.contains(word), "{within:?} uses {word}");
            }
        }
    }
}

#[test]
fn the_changelog_names_the_current_version() {
    let changelog = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    assert!(changelog.contains(&format!("## {}", env!("CARGO_PKG_VERSION"))));
}

/// The README's tables are generated from the sources: `UPDATE_README=1 cargo test` writes them; without it they are
/// compared.
#[test]
fn the_tables_of_the_readme_are_those_of_the_catalogues() {
    let path = root().join("README.md");
    let mut readme = fs::read_to_string(&path).unwrap();
    let row = |id: &str, text: &str| format!("| `{id}` | {text} |\n");
    let invariants: String = invariants::ALL.iter().map(|one| row(one.id, one.statement)).collect();
    let scenarios: String = scenario::ALL.iter().map(|one| row(one.id, one.statement)).collect();
    let diagnoses: String = diagnoses::ALL.iter().map(|one| row(one.id, one.statement)).collect();
    for (name, rows) in [("invariants", invariants), ("scenarios", scenarios), ("diagnoses", diagnoses)] {
        let (begin, end) = (format!("<!-- {name}: made by cargo test -->\n"), format!("<!-- /{name} -->"));
        let (before, rest) = readme.split_once(&begin).unwrap();
        let (_, after) = rest.split_once(&end).unwrap();
        readme = format!("{before}{begin}| id | statement |\n| --- | --- |\n{rows}{end}{after}");
    }
    if std::env::var_os("UPDATE_README").is_some() {
        fs::write(&path, &readme).unwrap();
    }
    assert!(
        readme == fs::read_to_string(&path).unwrap(),
        "the README is stale: UPDATE_README=1 cargo test -p picklock"
    );
}

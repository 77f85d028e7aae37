//! Tests the lock table against the kernel's.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use picklock::locks::{Descriptions, END, FileId, Kind, Lock, LockTable, Mode, Owner, Range};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// A process that makes one call for each input line, and answers whether it succeeded.
const ACTOR: &str = r#"
import fcntl, os, struct, sys
fds = {}
for line in sys.stdin:
    verb, *words = line.split()
    try:
        if verb == "reset":
            for fd in fds.values(): os.close(fd)
            fds.clear()
        elif verb == "open":
            fds[words[0]] = os.open(words[1], os.O_RDWR | os.O_CREAT)
        elif verb == "dup":
            fds[words[1]] = os.dup(fds[words[0]])
        elif verb == "close":
            os.close(fds.pop(words[0]))
        elif verb == "flock":
            fcntl.flock(fds[words[0]], int(words[1]) | fcntl.LOCK_NB)
        else:
            command = {"posix": fcntl.F_SETLK, "ofd": 37}[verb]
            kind, start, length = (int(word) for word in words[1:])
            fcntl.fcntl(fds[words[0]], command, struct.pack("hhqqi4x", kind, 0, start, length, 0))
        print("ok", flush=True)
    except OSError:
        print("refused", flush=True)
"#;

const ACTORS: usize = 3;
const SLOTS: usize = 3;

struct Actor {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Actor {
    fn start(python: &str) -> Self {
        let mut child = Command::new(python)
            .args(["-ISc", ACTOR])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, to, from }
    }

    fn tell(&mut self, line: &str) -> bool {
        writeln!(self.to, "{line}").unwrap();
        let mut answer = String::new();
        self.from.read_line(&mut answer).unwrap();
        answer.trim() == "ok"
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // It waits for its next line, and would wait forever.
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[derive(Clone, Debug)]
enum Step {
    Open { actor: usize, slot: usize, file: usize },
    Dup { actor: usize, slot: usize, to: usize },
    Close { actor: usize, slot: usize },
    Lock { actor: usize, slot: usize, kind: Kind, mode: Option<Mode>, start: u64, length: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let (actor, slot) = (0..ACTORS, 0..SLOTS);
    let kind = prop_oneof![Just(Kind::Flock), Just(Kind::Posix), Just(Kind::Ofd)];
    let mode = prop_oneof![Just(None), Just(Some(Mode::Shared)), Just(Some(Mode::Exclusive))];
    prop_oneof![
        2 => (actor.clone(), slot.clone(), 0..2_usize).prop_map(|(actor, slot, file)| Step::Open { actor, slot, file }),
        1 => (actor.clone(), slot.clone(), 0..SLOTS).prop_map(|(actor, slot, to)| Step::Dup { actor, slot, to }),
        1 => (actor.clone(), slot.clone()).prop_map(|(actor, slot)| Step::Close { actor, slot }),
        6 => (actor, slot, kind, mode, 0..6_u64, 0..5_u64)
            .prop_map(|(actor, slot, kind, mode, start, length)| Step::Lock { actor, slot, kind, mode, start, length }),
    ]
}

/// State of the model: the descriptors of every actor, and the table under test.
#[derive(Default)]
struct Model {
    slots: [[Option<(u32, FileId)>; SLOTS]; ACTORS],
    descriptions: Descriptions,
    table: LockTable,
}

impl Model {
    fn close(&mut self, actor: usize, slot: usize) {
        let Some((description, file)) = self.slots[actor][slot].take() else { return };
        self.table.file_closed(u32::try_from(actor).unwrap(), file);
        if self.descriptions.close(description) {
            self.table.description_closed(description);
        }
    }
}

/// Returns the system's own table for these files: kind, mode and range of every lock.
fn system_table(files: &[FileId]) -> Vec<(FileId, Kind, Mode, Range)> {
    let mut found = Vec::new();
    for line in fs::read_to_string("/proc/locks").unwrap().lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(file) = files.iter().find(|(_, inode)| words[5].ends_with(&format!(":{inode}"))) else {
            continue;
        };
        let kind = match words[1] {
            "FLOCK" => Kind::Flock,
            "POSIX" => Kind::Posix,
            "OFDLCK" => Kind::Ofd,
            other => panic!("{other} is no lock"),
        };
        let mode = if words[3] == "WRITE" { Mode::Exclusive } else { Mode::Shared };
        let end = if words[7] == "EOF" { END } else { words[7].parse().unwrap() };
        found.push((*file, kind, mode, Range { start: words[6].parse().unwrap(), end }));
    }
    found.sort();
    found
}

fn model_table(table: &LockTable) -> Vec<(FileId, Kind, Mode, Range)> {
    let mut held: Vec<_> =
        table.held().iter().map(|held| (held.file, held.kind, held.mode, held.range)).collect();
    held.sort();
    held
}

fn run(actors: &mut [Actor], files: &[(String, FileId)], steps: &[Step]) {
    let ids: Vec<FileId> = files.iter().map(|(_, id)| *id).collect();
    for actor in actors.iter_mut() {
        actor.tell("reset");
    }
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Open { actor, slot, file } => {
                if model.slots[*actor][*slot].is_some() {
                    continue;
                }
                assert!(actors[*actor].tell(&format!("open {slot} {}", files[*file].0)));
                model.slots[*actor][*slot] = Some((model.descriptions.open(), files[*file].1));
            }
            Step::Dup { actor, slot, to } => {
                let (Some(open), None) = (model.slots[*actor][*slot], model.slots[*actor][*to]) else {
                    continue;
                };
                assert!(actors[*actor].tell(&format!("dup {slot} {to}")));
                model.descriptions.duplicate(open.0);
                model.slots[*actor][*to] = Some(open);
            }
            Step::Close { actor, slot } => {
                if model.slots[*actor][*slot].is_none() {
                    continue;
                }
                assert!(actors[*actor].tell(&format!("close {slot}")));
                model.close(*actor, *slot);
            }
            Step::Lock { actor, slot, kind, mode, start, length } => {
                let Some((description, file)) = model.slots[*actor][*slot] else { continue };
                let owner = match kind {
                    Kind::Posix => Owner::Process(u32::try_from(*actor).unwrap()),
                    Kind::Flock | Kind::Ofd => Owner::Description(description),
                };
                // A length of 0 extends to the end of the file.
                let end = if *length == 0 { END } else { start + length - 1 };
                let range = if *kind == Kind::Flock { Range::ALL } else { Range { start: *start, end } };
                let expected = match mode {
                    Some(mode) => model.table.take(Lock { file, kind: *kind, owner, mode: *mode, range }),
                    None => {
                        model.table.release(file, *kind, owner, range);
                        true
                    }
                };
                let line = match kind {
                    Kind::Flock => {
                        let operation = match mode {
                            Some(Mode::Shared) => 1,
                            Some(Mode::Exclusive) => 2,
                            None => 8,
                        };
                        format!("flock {slot} {operation}")
                    }
                    Kind::Posix | Kind::Ofd => {
                        let verb = if *kind == Kind::Posix { "posix" } else { "ofd" };
                        let lock_type = match mode {
                            Some(Mode::Shared) => 0,
                            Some(Mode::Exclusive) => 1,
                            None => 2,
                        };
                        format!("{verb} {slot} {lock_type} {start} {length}")
                    }
                };
                assert_eq!(actors[*actor].tell(&line), expected, "{line}: the system decides otherwise");
            }
        }
        // The system lists its table line by line while others change it, so that a line may appear twice.
        let expected = model_table(&model.table);
        let is_told = (0..50).any(|_| system_table(&ids) == expected);
        assert!(is_told, "after {step:?}: {expected:?} is not {:?}", system_table(&ids));
    }
}

/// Random calls of three processes on two files, each descriptor possibly duplicated: after every call the table and
/// the system agree on refusals and on every lock that is held.
#[test]
fn the_lock_table_is_the_system_s_own_over_random_calls() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let files: Vec<(String, FileId)> = ["a", "b"]
        .map(|name| {
            let path = folder.path().join(name);
            fs::write(&path, "x").unwrap();
            let metadata = fs::metadata(&path).unwrap();
            (path.to_str().unwrap().to_owned(), (metadata.dev(), metadata.ino()))
        })
        .into();
    let asked = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().unwrap();
    let python = String::from_utf8(asked.stdout).unwrap();
    assert!(Path::new(python.trim()).exists());
    let actors: Vec<Actor> = (0..ACTORS).map(|_| Actor::start(python.trim())).collect();
    let actors = std::cell::RefCell::new(actors);
    let mut runner = TestRunner::new(Config::with_cases(2000));
    runner
        .run(&prop::collection::vec(step(), 1..30), |steps| {
            run(&mut actors.borrow_mut(), &files, &steps);
            Ok(())
        })
        .unwrap();
}

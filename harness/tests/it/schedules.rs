//! Tests the exploration of schedules of several clients.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;

use picklock::op::{Request, record_name};
use picklock::runner::{ExecEnv, Stop, classes};
use picklock::sandbox::Sandbox;
use picklock::target::flags::Flags;

use crate::programs::{invariant, judge, python_script, scenario};

/// The studied programs: each makes its few calls, and nothing else that is visible. The first argument selects the
/// program.
const PROGRAMS: &str = r#"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char path[4096], lock_path[4200], temporary[4200], content[65536];

static void nothing(int signal) {}

static int open_or_die(const char *name, int flags) {
    int fd = open(name, flags, 0644);
    if (fd < 0) _exit(1);
    return fd;
}

/* Reads a file, and writes what was there with one line more: two visible calls. */
static void read_modify_write(int fd, int to, const char *line) {
    int length = read(fd, content, sizeof content - 64);
    if (length < 0) _exit(1);
    length += sprintf(content + length, "%s\n", line);
    if (pwrite(to, content, length, 0) != length) _exit(1);
}

int main(int count, char **words) {
    char program = words[1][0];
    if (count < 4) return 2;
    if (!strcmp(words[2], "list")) {
        int fd = open(words[3], O_RDONLY);
        int length = fd < 0 ? 0 : read(fd, content, sizeof content);
        return fwrite(content, 1, length, stdout) == length ? 0 : 1;
    }
    strcpy(path, words[3]);
    sprintf(lock_path, "%s.lock", path);
    sprintf(temporary, "%s.tmp", path);
    int fd, lock;
    switch (program) {
    case 'A': /* flock, read, modify, write */
        fd = open_or_die(path, O_RDWR | (access(path, F_OK) ? O_CREAT : 0));
        flock(fd, LOCK_EX);
        read_modify_write(fd, fd, words[4]);
        flock(fd, LOCK_UN);
        close(fd);
        return 0;
    case 'T': /* the same, emptied by its open */
        fd = open_or_die(path, O_RDWR | O_CREAT | O_TRUNC);
        flock(fd, LOCK_EX);
        read_modify_write(fd, fd, words[4]);
        flock(fd, LOCK_UN);
        close(fd);
        return 0;
    case 'B': /* no lock */
        fd = open_or_die(path, O_RDWR | O_CREAT);
        read_modify_write(fd, fd, words[4]);
        close(fd);
        return 0;
    case 'C': /* lock, temporary file, sync, rename */
        lock = open_or_die(lock_path, O_RDWR | O_CREAT);
        flock(lock, LOCK_EX);
        fd = open(path, O_RDONLY);
        {
            int to = open_or_die(temporary, O_RDWR | O_CREAT | O_TRUNC);
            int length = fd < 0 ? 0 : read(fd, content, sizeof content - 64);
            length += sprintf(content + length, "%s\n", words[4]);
            if (write(to, content, length) != length) return 1;
            fsync(to);
            close(to);
        }
        if (fd >= 0) close(fd);
        if (rename(temporary, path)) return 1;
        flock(lock, LOCK_UN);
        close(lock);
        return 0;
    case 'P': /* as A, but its content is read byte by byte, and its size is asked for again and again */
        fd = open_or_die(path, O_RDWR | O_CREAT);
        flock(fd, LOCK_EX);
        {
            struct stat found;
            int length = 0;
            for (int time = 0; time < 30; time++) fstat(fd, &found);
            while (read(fd, content + length, 1) == 1) length++;
            length += sprintf(content + length, "%s\n", words[4]);
            if (pwrite(fd, content, length, 0) != length) return 1;
        }
        flock(fd, LOCK_UN);
        close(fd);
        return 0;
    case 'U': /* the same without the lock */
        fd = open_or_die(path, O_RDWR | O_CREAT);
        {
            int length = 0;
            while (read(fd, content + length, 1) == 1) length++;
            length += sprintf(content + length, "%s\n", words[4]);
            if (pwrite(fd, content, length, 0) != length) return 1;
        }
        return 0;
    case 'G': /* who sees by F_GETLK that somebody has the lock leaves it to him */
        lock = open_or_die(lock_path, O_RDWR | O_CREAT);
        {
            struct flock wanted = {.l_type = F_WRLCK};
            fcntl(lock, F_GETLK, &wanted);
            if (wanted.l_type != F_UNLCK) return 0;
            wanted = (struct flock){.l_type = F_WRLCK};
            fcntl(lock, F_SETLKW, &wanted);
        }
        fd = open_or_die(path, O_RDWR | O_CREAT);
        read_modify_write(fd, fd, words[4]);
        return 0;
    case 'S': /* who sees by the links of a folder that somebody is in there leaves it to him */
        lock = open_or_die(lock_path, O_RDWR | O_CREAT);
        mkdir(temporary, 0755);
        {
            struct stat found;
            stat(temporary, &found);
            if (found.st_nlink > 2) return 0;
        }
        flock(lock, LOCK_EX);
        {
            char inside[4400];
            sprintf(inside, "%s/%s", temporary, words[4]);
            mkdir(inside, 0755);
            fd = open_or_die(path, O_RDWR | O_CREAT);
            read_modify_write(fd, fd, words[4]);
            rmdir(inside);
        }
        return 0;
    case 'L': /* emptied through a symbolic link, and read by its own name; what is empty is taken for nothing */
        fd = open_or_die(path, O_RDWR | O_CREAT);
        {
            int length = read(fd, content, sizeof content - 64);
            symlink("store.txt", temporary);
            length += sprintf(content + length, "%s\n", words[4]);
            int to = open_or_die(temporary, O_WRONLY | O_TRUNC);
            if (write(to, content, length) != length) return 1;
        }
        return 0;
    case 'Z': /* sleeps for ever, says its argument, and no time at all passes */
        {
            struct timespec none = {.tv_sec = -1, .tv_nsec = 500};
            struct timespec ages = {.tv_sec = 0x7fffffffffffffff, .tv_nsec = 0};
            if (nanosleep(&none, 0) == 0) return 1;
            alarm(1);
            signal(SIGALRM, nothing);
            nanosleep(&ages, 0);
        }
        fd = open_or_die(path, O_RDWR | O_CREAT);
        flock(fd, LOCK_EX);
        read_modify_write(fd, fd, words[4]);
        return 0;
    case 'K': /* a child has the lock and gives it up by its end; who finds it taken does nothing */
    case 'k': /* the same, given up before that */
    case 'X': /* the same, given up by the start of another program */
        if (fork() == 0) {
            lock = open_or_die(lock_path, O_RDWR | O_CREAT | (program == 'X' ? O_CLOEXEC : 0));
            if (flock(lock, LOCK_EX | LOCK_NB)) _exit(0);
            fd = open_or_die(path, O_RDWR | O_CREAT);
            read_modify_write(fd, fd, words[4]);
            if (program == 'k') flock(lock, LOCK_UN);
            if (program == 'X') execl("/bin/true", "true", (char *)0);
            _exit(0);
        }
        wait(0);
        return 0;
    case 'F': /* the lock file is removed on release */
        lock = open_or_die(lock_path, O_RDWR | O_CREAT);
        flock(lock, LOCK_EX);
        unlink(lock_path);
        close(lock);
        return 0;
    }
    return 2;
}
"#;

/// The programs, compiled once for all tests of this process.
static COMPILED: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("programs.c");
    fs::write(&source, PROGRAMS).unwrap();
    let program = folder.path().join("programs");
    let compiled = Command::new("cc").args(["-O1", "-o"]).arg(&program).arg(&source).output().unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    (folder, program)
});

/// Returns the number of classes of schedules of this many clients of a program that add one record each.
fn count(program: char, clients: u32, intervals: bool) -> u64 {
    let store = COMPILED.1.display();
    let flags = Flags {
        data: Some("store.txt".into()),
        add: Some(format!("{store} {program} add {{data}} {{id}}")),
        list: Some(format!("{store} {program} list {{data}}")),
        ..Flags::default()
    };
    let target = flags.into_target(Path::new("/")).unwrap();
    let sandbox = Sandbox::create(None, &target.data, None, &|_| ()).unwrap();
    let stop = Stop::new().unwrap();
    let add = |number| vec![Request::Add { record: record_name(number), number }];
    let env = ExecEnv::new(&target, &sandbox, &stop, &|| ());
    let counted = classes(&env, (2..2 + clients).map(add).collect(), intervals).unwrap();
    drop(env);
    sandbox.remove().unwrap();
    counted
}

/// The counts of the studies, which were simulated, on real processes. Without invocations and returns, a program has
/// as many classes as its calls have. F has 120 in the study, in which the beginning and end of its critical section
/// are steps; with nothing in it, as here, it has the 72 that the study states for that case.
#[test]
fn the_studied_programs_have_as_many_classes_as_real_processes() {
    assert_eq!((count('A', 2, false), count('A', 3, false), count('A', 3, true)), (2, 6, 42));
    assert_eq!((count('T', 2, false), count('T', 3, false)), (8, 168));
    assert_eq!((count('B', 2, false), count('B', 3, false), count('B', 3, true)), (4, 36, 120));
    assert_eq!((count('C', 2, false), count('C', 3, false)), (2, 6));
    assert_eq!((count('F', 2, false), count('F', 3, false)), (6, 72));
}

/// The end of a child was not a step, and calls that depend on the lock released by it were taken to be independent:
/// such orders were skipped as equivalent to others.
#[test]
fn the_end_of_a_child_gives_locks_up() {
    let (by_its_end, before) = (count('K', 2, false), count('k', 2, false));
    assert_eq!(by_its_end, before);
    assert!(before > 2, "{before}");
}

/// The same held for the start of another program, which closes close-on-exec descriptors.
#[test]
fn the_start_of_a_program_gives_locks_up() {
    let (by_its_start, before) = (count('X', 2, false), count('k', 2, false));
    assert_eq!(by_its_start, before);
}

/// Judges a program with the scenario `interleave` and nothing else.
fn explored(program: char, arguments: &[&str], status: i32) -> Value {
    let store = COMPILED.1.display();
    let folder = tempfile::tempdir().unwrap();
    let (add, list) =
        (format!("{store} {program} add {{data}} {{id}}"), format!("{store} {program} list {{data}}"));
    let target = ["--data", "store.txt", "--add", &add, "--list", &list];
    let chosen = ["--only", "interleave,no-lost-update"];
    judge(folder.path(), status, &[&chosen, arguments, &target].concat())
}

/// A client that read repeatedly was taken for a waiting one and kept from continuing: for a store without any lock,
/// one schedule was run, called "all inequivalent schedules", and the store held. Only a client that requests without
/// success what one client alone can have is waiting.
#[test]
fn who_reads_on_and_on_is_not_taken_for_one_who_waits() {
    assert_eq!(count('P', 2, false), 2);
    let report = explored('U', &["--clients", "2", "--ops", "1"], 1);
    assert_eq!(invariant(&report, "no-lost-update")["verdict"], "violated", "{report:#}");
}

/// `F_GETLK` was not a visible call, a folder's link count changed without a step that touched the folder, and
/// truncation through a symbolic link was assigned to the link: each hid the one order that loses a record.
#[test]
fn what_is_looked_at_in_a_roundabout_way_is_looked_at() {
    for program in ['G', 'S', 'L'] {
        let report = explored(program, &["--clients", "2", "--ops", "1"], 1);
        assert_eq!(invariant(&report, "no-lost-update")["verdict"], "violated", "{program}: {report:#}");
    }
}

/// The kernel refuses a sleep of negative time, and an endless sleep ends with a signal: neither advances the clock.
#[test]
fn a_sleep_that_is_none_is_left_to_the_system() {
    let report = explored('Z', &["--clients", "2", "--ops", "1", "--exhaustive"], 3);
    let reason = invariant(&report, "no-lost-update")["reason"].as_str().unwrap().to_owned();
    let doubts = ["a time-out of one client may expire", "it continued in two ways"];
    assert!(doubts.iter().any(|doubt| reason.contains(doubt)), "{reason}");
}

/// A Python store that polls for its lock as a widely used library does.
const POLLING: &str = r#"import json, os, sys
sys.path.insert(0, os.environ["LIBRARY"])
from filelock import FileLock
verb, path = sys.argv[1], sys.argv[2]
def load():
    try:
        with open(path) as f:
            return json.loads(f.read() or "[]")
    except FileNotFoundError:
        return []
if verb == "list":
    print("\n".join(load()))
    sys.exit()
with FileLock(path + (".lock" if verb == "add" else "")):
    records = load() + [sys.argv[3]]
    with open(path + ".tmp", "w") as f:
        json.dump(records, f)
        f.flush()
        os.fsync(f.fileno())
    os.rename(path + ".tmp", path)
"#;

/// Two clients with `filelock` from the package index, on a dedicated lock file: each schedule is run, if pollers
/// without progress sleep on.
#[test]
fn a_python_store_with_a_polling_lock_library_is_explored_and_holds() {
    let folder = tempfile::tempdir().unwrap();
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("filelock-4.2.11");
    if !library.join("filelock").is_dir() {
        let installed = Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
            .arg(&library)
            .arg("filelock==4.2.11")
            .output()
            .unwrap();
        assert!(installed.status.success(), "{}", crate::stderr(&installed));
    }
    python_script(folder.path(), "polling.py", POLLING);
    let adapter = format!(
        "[data]\npath = \"store.json\"\nrecords = \"$[*]\"\n[ops]\nadd = [\"./polling.py\", \"add\", \"{{data}}\", \"{{id}}\"]\n\
         list = [\"./polling.py\", \"list\", \"{{data}}\"]\n[env]\nLIBRARY = {library:?}\n"
    );
    fs::write(folder.path().join("picklock.toml"), &adapter).unwrap();
    let only = ["--only", "interleave,no-lost-update", "--clients", "2", "--ops", "1", "--exhaustive"];
    // Its clock decides whether it gives up in the end.
    let report = judge(folder.path(), 3, &only);
    assert!(invariant(&report, "no-lost-update")["reason"].as_str().unwrap().contains("polls"), "{report:#}");
    let interleave = scenario(&report, "interleave");
    assert_eq!(interleave["coverage"], "bounded", "{interleave:#}");
    assert!(
        interleave["bound"].as_str().unwrap().contains("exhaustive if pollers sleep until something changes")
    );
}

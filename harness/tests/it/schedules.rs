//! Schedules of real processes: as many classes as are known of the studied programs, and what is found by them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use picklock::op::{Request, record_name};
use picklock::runner::{Stage, Stop, classes};
use picklock::sandbox::Sandbox;
use picklock::target::flags::Flags;

/// The studied programs: each does its few calls, and nothing else that is visible. Their first argument says which.
const PROGRAMS: &str = r#"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static char path[4096], lock_path[4200], temporary[4200], content[65536];

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

/// How many classes of schedules so many clients of a program have that add one record each.
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
    let stage = Stage::new(&target, &sandbox, &stop, &|| ());
    let counted = classes(&stage, (2..2 + clients).map(add).collect(), intervals).unwrap();
    drop(stage);
    sandbox.remove().unwrap();
    counted
}

/// The counts of the studies, which come of a simulation, on real processes. Without invocations and returns a program has
/// as many classes as its calls have. F has 120 in the study, with a beginning and an end of its critical section that are
/// steps; with nothing in it, as here, it has the 72 that the study names for that.
#[test]
fn the_studied_programs_have_as_many_classes_as_real_processes() {
    assert_eq!((count('A', 2, false), count('A', 3, false), count('A', 3, true)), (2, 6, 42));
    assert_eq!((count('T', 2, false), count('T', 3, false)), (8, 168));
    assert_eq!((count('B', 2, false), count('B', 3, false), count('B', 3, true)), (4, 36, 120));
    assert_eq!((count('C', 2, false), count('C', 3, false)), (2, 6));
    assert_eq!((count('F', 2, false), count('F', 3, false)), (6, 72));
}

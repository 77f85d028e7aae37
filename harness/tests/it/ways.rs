//! Tests files that are reached by links, descriptors and `/proc`.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::programs::{invariant, judge, python_script};
use crate::{OF_INTERLEAVE, ON_A_KIND_DISK, expect_status, picklock, stdout};

/// Returns the trace of an `add` of this store that does this; its first `add` only makes the file.
fn traced(folder: &Path, does: &str) -> Value {
    let text = format!(
        "import os, sys\n\
         data, tmp = sys.argv[2], os.environ['TMPDIR']\n\
         folder = os.path.dirname(data)\n\
         if sys.argv[1] == 'list' or sys.argv[-1].endswith('1'):\n  open(data, 'w').write('[]')\n  sys.exit()\n\
         {does}\n"
    );
    python_script(folder, "store", &text);
    trace_of(folder)
}

fn trace_of(folder: &Path) -> Value {
    let output = picklock(folder, &["trace", "--format", "json", "--", "./store"]).output().unwrap();
    expect_status(&output, 0);
    let trace: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(trace["exit"], 0, "{trace:#}");
    trace
}

/// Returns each call with the names that it works on.
fn told(trace: &Value) -> Vec<String> {
    let calls = trace["calls"].as_array().unwrap().iter();
    calls
        .map(|call| {
            let name = call["name"].as_str().unwrap();
            let name = name.strip_suffix("at").unwrap_or(name);
            let objects = call["objects"].as_array().unwrap().iter();
            let names: Vec<&str> = objects.filter_map(|object| object["entry"].as_str()).collect();
            format!("{name} {}", names.join(" ")).trim().to_owned()
        })
        .collect()
}

#[track_caller]
fn expect_calls(trace: &Value, expected: &[&str]) {
    let told = told(trace);
    let mut left = told.iter();
    for call in expected {
        assert!(left.any(|one| one == call), "no {call:?} in its place among {told:#?}");
    }
}

/// A store that wrote to TMPDIR did so unseen: half of a file from a full disk became its data, and it held.
#[test]
fn what_is_done_in_tmpdir_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let trace = traced(
        folder.path(),
        "os.mkdir(tmp + '/sub')\n\
         with open(tmp + '/sub/new', 'w') as new: new.write('[]')\n\
         os.rename(tmp + '/sub/new', data)\n\
         fd = os.open(tmp, os.O_RDONLY); os.fsync(fd)",
    );
    expect_calls(
        &trace,
        &[
            "mkdir $TMPDIR/sub",
            "open $TMPDIR/sub/new",
            "write",
            "rename $TMPDIR/sub/new store.json",
            "open $TMPDIR",
            "fsync",
        ],
    );
    let effects: Vec<&Value> =
        trace["calls"].as_array().unwrap().iter().map(|call| &call["effect"]).collect();
    assert!(effects.iter().any(|effect| effect["created"]["path"] == "$TMPDIR/sub/new"), "{effects:#?}");
}

/// The data is staged in TMPDIR, and the result of `write` is ignored.
#[test]
fn an_ignored_failure_in_tmpdir_is_found() {
    let folder = tempfile::tempdir().unwrap();
    python_script(
        folder.path(),
        "store",
        "import os, sys, tempfile\n\
         verb, data = sys.argv[1:3]\n\
         old = open(data).read() if os.path.exists(data) else ''\n\
         if verb == 'list':\n  print(old, end='')\n  sys.exit()\n\
         fd, new = tempfile.mkstemp()\n\
         try: os.write(fd, (old + sys.argv[3] + '\\n').encode())\n\
         except OSError: pass\n\
         os.close(fd)\n\
         os.rename(new, data)\n",
    );
    let report = judge(folder.path(), 1, &["--only", "fault", "--data", "db.txt", "--", "./store"]);
    assert_eq!(invariant(&report, "honest-failure")["verdict"], "violated", "{report:#}");
}

/// The system clears TMPDIR: files that a kill leaves there are no residue, and the next operation finds them.
#[test]
fn leftovers_in_tmpdir_stay_and_are_no_residue() {
    let folder = tempfile::tempdir().unwrap();
    python_script(
        folder.path(),
        "store",
        "import fcntl, os, sys, tempfile\n\
         verb, data = sys.argv[1:3]\n\
         if verb == 'list':\n  print(open(data).read(), end='')\n  sys.exit()\n\
         lock = open(data + '.lock', 'a')\n\
         fcntl.flock(lock, fcntl.LOCK_EX)\n\
         old = open(data).read() if os.path.exists(data) else ''\n\
         fd, new = tempfile.mkstemp()\n\
         os.write(fd, (old + sys.argv[3] + '\\n').encode())\n\
         os.fsync(fd)\n\
         os.close(fd)\n\
         os.rename(new, data)\n",
    );
    let report = judge(
        folder.path(),
        0,
        &[
            "--only",
            "crash,inheritance",
            "--skip",
            OF_INTERLEAVE,
            "--skip",
            ON_A_KIND_DISK,
            "--data",
            "db.txt",
            "--",
            "./store",
        ],
    );
    assert_eq!(invariant(&report, "no-residue")["verdict"], "holds", "{report:#}");
}

/// When the path's text decided, all of this was done unseen, or under names that differed from those of the same file
/// elsewhere.
#[test]
fn aliases_of_a_path_have_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let trace = traced(
        folder.path(),
        "os.chdir(folder)\n\
         os.mkdir('real'); os.symlink('real', 'sub')\n\
         os.symlink(folder, '/proc/self/cwd/../tmp/alias')\n\
         here = '/proc/self/cwd/'\n\
         open(here + 'one', 'w').close()\n\
         os.rename(here + 'one', here + 'sub/two')\n\
         os.mkdir(tmp + '/alias/three'); os.rmdir(tmp + '/alias/three')\n\
         fd = os.open('.', os.O_RDONLY)\n\
         os.stat('/proc/thread-self/fd/%d/real/two' % fd)\n\
         os.chmod('/dev/fd/%d/sub/two' % fd, 0o600)\n\
         os.unlink(folder + '/sub/two')\n\
         file = os.open('four', os.O_RDWR | os.O_CREAT)\n\
         os.close(os.open('/proc/self/fd/%d' % file, os.O_RDWR))",
    );
    expect_calls(
        &trace,
        &[
            "mkdir real",
            "symlink sub",
            "symlink $TMPDIR/alias",
            "open one",
            "rename one real/two",
            "mkdir three",
            "rmdir three",
            "open .",
            "newfstat real/two",
            "chmod real/two",
            "unlink real/two",
            "open four",
            "open four",
        ],
    );
}

/// A store that reads before it takes its lock, all through `/proc/self/cwd`: none of its calls was seen, and it held.
#[test]
fn a_race_by_proc_self_cwd_is_found() {
    let folder = tempfile::tempdir().unwrap();
    python_script(
        folder.path(),
        "store",
        "import os, sys\n\
         verb, data = sys.argv[1:3]\n\
         os.chdir(os.path.dirname(data))\n\
         data = '/proc/self/cwd/' + os.path.basename(data)\n\
         old = open(data).read() if os.path.exists(data) else ''\n\
         if verb == 'list':\n  print(old, end='')\n  sys.exit()\n\
         try: os.mkdir(data + '.lock')\n\
         except FileExistsError: sys.exit(75)\n\
         with open(data + '.tmp', 'w') as new: new.write(old + sys.argv[3] + '\\n')\n\
         os.rename(data + '.tmp', data)\n\
         os.rmdir(data + '.lock')\n",
    );
    let report = judge(
        folder.path(),
        1,
        &["--fail-fast", "--only", "interleave", "--data", "db.txt", "--", "./store"],
    );
    assert_eq!(invariant(&report, "no-lost-update")["verdict"], "violated", "{report:#}");
}

/// A store that gets descriptors in other ways than by its own opens.
const DESCRIPTORS: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int opened(const char *path) { return open(path, O_RDWR | O_CREAT | O_APPEND, 0644); }

#if defined(SENT)
/* A child opens the file, locks it, and hands it over by a socket. */
static int reached(const char *path) {
    int pair[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    char space[CMSG_SPACE(sizeof(int))] = "", byte = 'x';
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    pid_t child = fork();
    if (child == 0) {
        int fd = opened(path);
        flock(fd, LOCK_EX);
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET, head->cmsg_type = SCM_RIGHTS, head->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(head), &fd, sizeof fd);
        sendmsg(pair[0], &message, 0);
        read(pair[0], &byte, 1);
        _exit(0);
    }
    if (recvmsg(pair[1], &message, 0) != 1) exit(1);
    int fd;
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    lseek(fd, 0, SEEK_END);
    write(pair[1], "x", 1);
    waitpid(child, NULL, 0);
    return fd;
}
#elif defined(TAKEN)
/* The parent takes the descriptor of its child. */
static int reached(const char *path) {
    int pipes[2][2];
    pipe(pipes[0]), pipe(pipes[1]);
    pid_t child = fork();
    if (child == 0) {
        int fd = opened(path);
        flock(fd, LOCK_EX);
        write(pipes[0][1], &fd, sizeof fd);
        char byte;
        read(pipes[1][0], &byte, 1);
        _exit(0);
    }
    int fd;
    read(pipes[0][0], &fd, sizeof fd);
    fd = syscall(SYS_pidfd_getfd, syscall(SYS_pidfd_open, child, 0), fd, 0);
    lseek(fd, 0, SEEK_END);
    write(pipes[1][1], "x", 1);
    waitpid(child, NULL, 0);
    return fd;
}
#elif defined(SHARED)
/* A child with the same table of descriptors opens the file, and ends. */
static const char *wanted;
static int result;
static int child(void *nothing) {
    result = opened(wanted);
    return flock(result, LOCK_EX);
}
static int reached(const char *path) {
    static char stack[65536];
    wanted = path;
    pid_t pid = clone(child, stack + sizeof stack, CLONE_FILES | CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
    waitpid(pid, NULL, 0);
    return result;
}
#endif

int main(int count, char **words) {
    int fd = words[3][strlen(words[3]) - 1] == '1' ? opened(words[2]) : reached(words[2]);
    if (fd < 0) return 1;
    if (write(fd, words[3], strlen(words[3])) < 0) return 1;
    return fsync(fd) != 0;
}
"#;

/// Such descriptors worked on the file unseen, and the file's lock was taken for released when the process that had
/// opened it ended.
#[test]
fn descriptors_from_elsewhere_are_known_by_their_file() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("store.c"), DESCRIPTORS).unwrap();
    for way in ["SENT", "TAKEN", "SHARED"] {
        let output = Command::new("cc")
            .args(["-O1", "-w", "-o", "store", "store.c", &format!("-D{way}")])
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let trace = trace_of(folder.path());
        expect_calls(&trace, &["open store.json", "flock", "write", "fsync"]);
        let calls = trace["calls"].as_array().unwrap();
        let freed = calls.iter().position(|call| call["locks"].to_string().contains("released")).unwrap();
        let synced = calls.iter().position(|call| call["name"] == "fsync").unwrap();
        assert!(freed > synced, "{way}: {trace:#}");
        assert_eq!(calls[freed]["name"], "exit", "{way}: {trace:#}");
    }
}

//! Tests unusual programs under the tracer.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::programs::{invariant, judge};
use crate::{OF_INTERLEAVE, ON_A_KIND_DISK, expect_status, picklock, stdout};

/// One C program for all tests: a store that appends under `flock`, and before that does what the macro selects.
const STORE: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *data, *record;

static int add(void) {
    char lock[4096], line[64];
    snprintf(lock, sizeof lock, "%s.lock", data);
    snprintf(line, sizeof line, "%s\n", record);
    int held = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (held < 0 || flock(held, LOCK_EX)) return 1;
    int file = open(data, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (file < 0) return 1;
    int failed = write(file, line, strlen(line)) != (ssize_t)strlen(line);
    close(file);
    close(held);
    return failed;
}

static void *worker(void *result) {
    *(int *)result = add();
    return NULL;
}

#if defined(HANDS_OVER)
/* Threads that wake each other in a ring, so that at any time all of them sleep but one. */
enum { RING = 8, ROUNDS = 500 };
static sem_t turn[RING];

static void *pass_on(void *mine) {
    long place = (long)mine;
    for (int i = 0; i < ROUNDS; i++) {
        sem_wait(&turn[place]);
        sem_post(&turn[(place + 1) % RING]);
    }
    return NULL;
}

static int add_unlocked(void) {
    char temporary[4096], content[65536];
    snprintf(temporary, sizeof temporary, "%s.%d", data, getpid());
    pthread_t threads[RING];
    for (long i = 0; i < RING; i++) sem_init(&turn[i], 0, i == 0);
    for (long i = 0; i < RING; i++) pthread_create(&threads[i], NULL, pass_on, (void *)i);
    for (long i = 0; i < RING; i++) pthread_join(threads[i], NULL);
    int old = open(data, O_RDONLY);
    ssize_t length = old < 0 ? 0 : read(old, content, sizeof content - 64);
    length += sprintf(content + length, "%s\n", record);
    int new = open(temporary, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    return write(new, content, length) != length || rename(temporary, data);
}
#endif

static void *idle(void *nothing) {
    for (;;) pause();
    return nothing;
}

int main(int count, char **words) {
    data = words[2];
    if (!strcmp(words[1], "list")) {
        execlp("cat", "cat", data, (char *)NULL);
        return 1;
    }
    if (count < 4) return 1;
    record = words[3];
#if defined(THREADS)
    /* Many threads at work before the first visible call, one of which does it. */
    pthread_t threads[8], one;
    int result = 1;
    for (int i = 0; i < 8; i++) pthread_create(&threads[i], NULL, idle, NULL);
    pthread_create(&one, NULL, worker, &result);
    pthread_join(one, NULL);
    /* It exits with threads alive. */
    return result;
#elif defined(HANDS_OVER)
    return add_unlocked();
#elif defined(VFORK)
    if (!strcmp(words[1], "add-here")) return add();
    pid_t child = vfork();
    if (child == 0) {
        execl(words[0], words[0], "add-here", data, record, (char *)NULL);
        _exit(127);
    }
    int status;
    waitpid(child, &status, 0);
    return !WIFEXITED(status) || WEXITSTATUS(status);
#elif defined(TRACES)
    /* It wants to trace itself, and goes on where it may not. */
    if (ptrace(PTRACE_TRACEME, 0, 0, 0) == 0) return add();
    return errno == EPERM ? add() : 1;
#elif defined(NAMESPACES)
    if (unshare(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS)) return 77;
    pid_t child = fork();
    if (child == 0) _exit(add());
    int status;
    waitpid(child, &status, 0);
    return !WIFEXITED(status) || WEXITSTATUS(status);
#elif defined(STOPS)
    /* It stops itself, and a child wakes it. */
    pid_t self = getpid(), child = fork();
    if (child == 0) {
        for (;;) {
            usleep(2000);
            if (kill(self, SIGCONT)) _exit(0);
            if (getppid() != self) _exit(0);
        }
    }
    raise(SIGSTOP);
    int failed = add();
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    return failed;
#elif defined(FOREIGN)
    /* A call of the 32-bit kind: access("/", 0) by its number there. */
    long result = 33;
    __asm__ volatile("int $0x80" : "+a"(result) : "b"(0L), "c"(0L) : "memory");
    return add();
#elif defined(IGNORES)
    signal(SIGTERM, SIG_IGN);
    return add();
#else
    return add();
#endif
}
"#;

/// Compiles the store as `store` in `folder`.
fn compile(folder: &Path, macros: &[&str]) {
    fs::write(folder.join("store.c"), STORE).unwrap();
    let output = Command::new("cc")
        .args(["-O1", "-w", "-pthread", "-o", "store", "store.c"])
        .args(macros)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Judges the store without a hang, a panic or a doubt about the tracer; returns the report.
#[track_caller]
fn judged(folder: &Path, scenarios: &str, status: i32) -> Value {
    let report = judge(
        folder,
        status,
        &[
            "--only",
            scenarios,
            "--skip",
            ON_A_KIND_DISK,
            "--skip",
            OF_INTERLEAVE,
            "--data",
            "db.txt",
            "--",
            "./store",
        ],
    );
    for id in ["no-lost-update", "no-deadlock", "recovers-after-crash"] {
        assert_eq!(invariant(&report, id)["verdict"], "holds", "{report:#}");
    }
    report
}

#[test]
fn stores_of_every_kind_are_traced_killed_and_judged() {
    let folder = tempfile::tempdir().unwrap();
    for macros in [
        &["-static"][..],
        &["-DTHREADS"],
        &["-DTHREADS", "-static"],
        &["-DVFORK"],
        &["-DTRACES"],
        &["-DIGNORES"],
        &["-DSTOPS"],
    ] {
        compile(folder.path(), macros);
        println!("--- {macros:?}");
        judged(folder.path(), "crash,inheritance", 0);
    }
}

/// The second client reaches its read long after its first thread sleeps, and until then the first client is held: on a
/// busy machine the case replayed eleven times out of twelve. A unit test of the tracer's checks covers the moment
/// itself.
#[test]
fn threads_that_wake_each_other_have_not_come_to_rest() {
    let folder = tempfile::tempdir().unwrap();
    compile(folder.path(), &["-DHANDS_OVER"]);
    let arguments = ["--only", "crash,no-lost-update", "--fail-fast", "--data", "db.txt", "--", "./store"];
    let report = judge(folder.path(), 1, &arguments);
    let finding = &invariant(&report, "no-lost-update")["counterexamples"][0];
    assert!(finding["summary"].as_str().unwrap().contains("while another client"), "{finding:#}");
    let case = finding["case"].as_str().unwrap();
    for _ in 0..5 {
        let output = picklock(folder.path(), &["replay", case, "--data", "db.txt", "--", "./store"]).output();
        let output = output.unwrap();
        expect_status(&output, 1);
        assert!(stdout(&output).contains("reproduced: no-lost-update"), "{}", stdout(&output));
    }
}

/// Process ids differ inside, and the tracer sees them from outside.
#[test]
fn a_store_that_makes_its_own_namespaces_is_judged() {
    let folder = tempfile::tempdir().unwrap();
    compile(folder.path(), &["-DNAMESPACES"]);
    let alone = Command::new(folder.path().join("store")).args(["add", "/dev/null", "x"]).status().unwrap();
    if alone.code() == Some(77) {
        // Without the right to make namespaces the store fails, and the control reports it.
        judge(folder.path(), 4, &["--only", "crash", "--data", "db.txt", "--", "./store"]);
    } else {
        judged(folder.path(), "crash,inheritance", 0);
    }
}

/// Their numbers mean other calls: they are let through and reported.
#[cfg(target_arch = "x86_64")]
#[test]
fn calls_of_a_32_bit_program_are_named_as_not_seen() {
    let folder = tempfile::tempdir().unwrap();
    compile(folder.path(), &["-DFOREIGN"]);
    let output = picklock(folder.path(), &["trace", "--format", "json", "--data", "db.txt", "--", "./store"])
        .output()
        .unwrap();
    expect_status(&output, 0);
    let trace: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert!(trace["not_covered"].to_string().contains("32-bit"), "{trace:#}");
    assert!(trace["calls"].to_string().contains("flock"));
}

/// Under ptrace a set-uid program runs without its privilege: resulting failures are not the store's fault.
#[test]
fn a_set_uid_store_runs_without_its_privilege_and_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    compile(folder.path(), &[]);
    fs::set_permissions(folder.path().join("store"), fs::Permissions::from_mode(0o4755)).unwrap();
    let report = judged(folder.path(), "crash", 3);
    let told = report["not_covered"].to_string();
    assert!(told.contains("set-uid"), "{told}");
}

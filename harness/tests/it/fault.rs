//! Tests calls that fail.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use picklock::fault::ALL;
use picklock::op::{Outcome, Request};
use picklock::runner::{
    ExecEnv, ExplorationLimits, Pass, Stop, SweepControl, SweepEvent, control, prepare, sweep,
};
use picklock::sandbox::Sandbox;
use picklock::target::flags::Flags;

use crate::programs::{invariant, judge, python_script, scenario};
use crate::{picklock, script, stdout};

/// A store that makes every call that may fail, and gives up at the first that does.
const EVERY_CALL: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MUST(call) ({ long result = (long)(call); if (result < 0) exit(1); result; })

int main(int count, char **words) {
    char *data = words[2], path[4096], other[4096], old[65536] = "";
    if (!strcmp(words[1], "list")) {
        int fd = MUST(open(data, O_RDONLY));
        int length = MUST(read(fd, old, sizeof old));
        return fwrite(old, 1, length, stdout) != length;
    }
    snprintf(path, sizeof path, "%s.lock", data);
    int lock = MUST(open(path, O_RDWR | O_CREAT, 0666));
    MUST(flock(lock, LOCK_EX));
    snprintf(path, sizeof path, "%s.second", data);
    int second = MUST(open(path, O_RDWR | O_CREAT, 0666));
    MUST(flock(second, LOCK_EX | LOCK_NB));
    snprintf(path, sizeof path, "%s.third", data);
    int third = MUST(open(path, O_RDWR | O_CREAT, 0666));
    struct flock one = {.l_type = F_WRLCK, .l_len = 1}, rest = {.l_type = F_WRLCK, .l_start = 1};
    MUST(fcntl(third, F_SETLK, &one));
    MUST(fcntl(third, F_SETLKW, &rest));
    struct stat status;
    snprintf(path, sizeof path, "%s.folder", data);
    MUST(mkdir(path, 0777));
    MUST(stat(path, &status));
    MUST(rmdir(path));
    int child = MUST(fork()), status_of_child;
    if (!child) { execl("/bin/true", "true", NULL); _exit(127); }
    MUST(waitpid(child, &status_of_child, 0));
    if (status_of_child) exit(1);
    int fd = MUST(open(data, O_RDONLY | O_CREAT, 0666));
    int length = MUST(read(fd, old, sizeof old));
    MUST(close(fd));
    snprintf(old + length, sizeof old - length, "%s\n", words[3]);
    snprintf(path, sizeof path, "%s.new", data);
    snprintf(other, sizeof other, "%s.name", data);
    fd = MUST(open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666));
    if (MUST(write(fd, old, strlen(old))) != strlen(old)) return 1;
    MUST(ftruncate(fd, strlen(old)));
    MUST(fsync(fd));
    MUST(close(fd));
    unlink(other);
    MUST(link(path, other));
    MUST(unlink(other));
    MUST(rename(path, data));
    *strrchr(path, '/') = 0;
    MUST(fsync(MUST(open(path, O_RDONLY | O_DIRECTORY))));
    return 0;
}
"#;

/// A row that no call reaches would be a check that cannot fail.
#[test]
fn every_fault_of_the_table_reaches_a_store_that_looks_at_its_results() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("store.c"), EVERY_CALL).unwrap();
    let compiled = Command::new("cc").current_dir(folder.path()).args(["-o", "store", "store.c"]).status();
    assert!(compiled.unwrap().success());
    let program = folder.path().join("store");
    let flags = Flags {
        data: Some("db.txt".into()),
        add: Some(format!("'{}' add {{data}} {{id}}", program.display())),
        list: Some(format!("'{}' list {{data}}", program.display())),
        ..Flags::default()
    };
    let target = flags.into_target(Path::new("/")).unwrap();
    let sandbox = Sandbox::create(None, &target.data, None, &|_| ()).unwrap();
    let stop = Stop::new().unwrap();
    let on_operation = || ();
    let env = ExecEnv::new(&target, &sandbox, &stop, &on_operation);
    let control = control(&env).unwrap();
    assert_eq!(control.failure, None);
    let (mut reached, mut taken_for_success) = (BTreeSet::new(), Vec::new());
    let mut prepared = prepare(&env, &control, ExplorationLimits::default(), &["fault"]).unwrap();
    let swept =
        sweep(&env, &mut prepared, "fault", Pass::Remaining, ExplorationLimits::default(), &mut |showing| {
            if let SweepEvent::Execution { observation, .. } = showing {
                for operation in &observation.operations {
                    let Some(fault) = &operation.fault else { continue };
                    reached.insert(fault.clone());
                    if operation.outcome == Outcome::Acknowledged {
                        taken_for_success.push((
                            fault.clone(),
                            operation.request.clone(),
                            observation.injection.clone(),
                        ));
                    }
                }
            }
            SweepControl::GoOn
        });
    assert_eq!(swept.unwrap().cut, None);
    let unreached: Vec<&str> = ALL.iter().map(|fault| fault.id).filter(|id| !reached.contains(*id)).collect();
    assert_eq!(unreached, [""; 0], "no call of the store comes to these");
    // It checks every result except that of one `unlink`, which need not succeed, and of a failed sync that it has
    // reported.
    let is_known = |(fault, request, told): &(String, Request, Option<String>)| {
        let told = told.as_deref().unwrap_or_default();
        matches!(request, Request::Add { .. })
            && fault.starts_with("unlink")
            && told.contains(".name), failed")
            || fault.starts_with("close")
    };
    taken_for_success.retain(|one| !is_known(one));
    assert!(taken_for_success.is_empty(), "{taken_for_success:?}");
}

/// A second client distinguishes a store that continues without its lock from one that does not. Errors permitted only
/// by a manual page, which no local file system returns, are remarks.
#[test]
fn a_lock_that_fails_is_tried_beside_a_second_client() {
    let folder = tempfile::tempdir().unwrap();
    let careless = "#!/bin/sh\nif [ $1 = list ]; then cat \"$2\"; exit; fi\n\
                    exec 9>> \"$2.lock\"; flock 9 2> /dev/null\n\
                    { cat \"$2\" 2> /dev/null; echo $3; } > \"$2.$$\" && mv \"$2.$$\" \"$2\"\n";
    script(folder.path(), "store", careless);
    let only = "fault,mutual-exclusion";
    let report = judge(folder.path(), 1, &["--only", only, "--data", "db.txt", "--", "./store"]);
    let found = invariant(&report, "mutual-exclusion")["counterexamples"].to_string();
    assert!(found.contains("failed with flock-enolck, held before call"), "{found}");
    assert!(!found.contains("flock-enosys"), "{found}");
    let remarks = report["remarks"].to_string();
    assert!(remarks.contains("flock-enosys (permitted by the manual page"), "{remarks}");
    assert!(scenario(&report, "fault")["bound"].as_str().unwrap().contains("beside another client"));
    let shown = report["diagnoses"].to_string();
    assert!(shown.contains("lock-error-ignored"), "{shown}");
}

/// A child whose program could not be started ended by `exit`, and wrote its parent's pending output: no start of a
/// process ever failed, and the store was reported to hold.
#[test]
fn a_start_that_fails_is_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    let store = |before: &str, after: &str| {
        let text = format!(
            "import os, sys\npath = sys.argv[2]\n\
             if sys.argv[1] == 'list':\n    for line in open(path):\n\
             \x20       if line[0] == '+' and line.endswith('.\\n'): print(line[1:-2])\n    sys.exit()\n\
             log = open(path, 'a')\n{before}\n\
             if os.fork() == 0:\n    try: os.execv('/bin/true', ['true'])\n    except OSError: sys.exit(127)\n\
             os.wait()\n{after}\nlog.flush()\n"
        );
        python_script(folder.path(), "store", &text);
    };
    let judged = |status: i32| {
        let arguments = [
            "--only",
            "fault,no-phantom-record,no-lost-update,honest-failure",
            "--data",
            "db.txt",
            "--listed",
            "lines",
        ];
        judge(folder.path(), status, &[&arguments[..], &["--budget", "60s", "--", "./store"]].concat())
    };
    let write = "log.write('\\n+' + sys.argv[3] + '.\\n')";
    store(write, "");
    let found = judged(1)["invariants"].to_string();
    assert!(found.contains("execve of a program, failed with exec-"), "{found}");
    store("", write);
    // No two adds overlapped, which `no-lost-update` requires to hold.
    let report = judged(3);
    assert!(!report["invariants"].to_string().contains("\"violated\""), "{report}");
    assert!(scenario(&report, "fault").to_string().contains("faults of the process starts of add"));
}

#[test]
fn the_faults_are_listed_and_each_is_explained_with_its_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let explained = picklock(folder.path(), &["explain", "flock-eopnotsupp"]).output().unwrap();
    let text = stdout(&explained);
    assert!(text.contains("flock(2)") && text.contains("a remark on portability"), "{text}");
    let listed = picklock(folder.path(), &["list", "faults"]).output().unwrap();
    assert_eq!(stdout(&listed).lines().count(), ALL.len() + 1);
}

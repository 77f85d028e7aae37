//! Tests `picklock trace`.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::programs::python_script;
use crate::{expect_status, picklock, script, stderr, stdout};

/// Returns the trace of an operation, as JSON.
#[track_caller]
fn trace(folder: &Path, arguments: &[&str]) -> Value {
    let arguments: Vec<&str> = ["trace", "--format", "json"].iter().chain(arguments).copied().collect();
    let output = picklock(folder, &arguments).output().unwrap();
    expect_status(&output, 0);
    serde_json::from_str(&stdout(&output)).unwrap()
}

/// Returns the calls' names, in order.
fn names(trace: &Value) -> Vec<&str> {
    trace["calls"].as_array().unwrap().iter().map(|call| call["name"].as_str().unwrap()).collect()
}

/// Returns the names of the calls that took, refused or released a lock, with their effect.
fn lock_story(trace: &Value) -> Vec<String> {
    let calls = trace["calls"].as_array().unwrap().iter();
    calls
        .flat_map(|call| {
            let name = call["name"].as_str().unwrap();
            let changes = call["locks"].as_array().unwrap().iter();
            changes
                .map(move |change| format!("{name}: {}", change.as_object().unwrap().keys().next().unwrap()))
        })
        .collect()
}

fn position(names: &[&str], name: &str) -> usize {
    names.iter().position(|one| *one == name).unwrap_or_else(|| panic!("no {name} in {names:?}"))
}

#[test]
fn the_embedded_store_locks_reads_writes_syncs_renames_syncs_and_unlocks_in_this_order() {
    let folder = tempfile::tempdir().unwrap();
    let trace = trace(folder.path(), &["--demo"]);
    let names = names(&trace);
    let rename = position(&names, "rename");
    let order = [position(&names, "flock"), position(&names, "pread64"), position(&names, "write"), rename];
    assert!(order.is_sorted(), "{names:?}");
    let syncs: Vec<usize> =
        names.iter().enumerate().filter(|(_, name)| name.ends_with("sync")).map(|(at, _)| at).collect();
    assert!(matches!(syncs.as_slice(), [file, folder] if *file < rename && *folder > rename), "{names:?}");
    assert_eq!(lock_story(&trace), ["flock: taken", "flock: released"]);
    assert_eq!(trace["crash_points"].as_u64().unwrap(), names.len() as u64 + 1);
    assert_eq!(trace["exit"], 0);
}

#[test]
fn a_child_that_inherits_the_lock_is_followed_and_the_lock_ends_with_the_last_who_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let trace = trace(folder.path(), &["--adapter", "flock"]);
    let names = names(&trace);
    assert!(position(&names, "flock") < position(&names, "fork"));
    assert_eq!(lock_story(&trace), ["flock: taken", "exit: released"]);
    let calls = trace["calls"].as_array().unwrap();
    assert_eq!(calls[position(&names, "rename")]["process"], 2);
    assert_eq!(calls.last().unwrap()["process"], 1);
}

/// SQLite's "How To Corrupt", 2.2: the lock is lost with the first close of any descriptor of its file.
#[test]
fn a_posix_lock_is_seen_to_go_with_the_close_of_another_descriptor() {
    let folder = tempfile::tempdir().unwrap();
    python_script(
        folder.path(),
        "store",
        "import fcntl, json, os, sys\n\
         path = sys.argv[2]\n\
         lock = open(path + '.lock', 'a')\n\
         fcntl.lockf(lock, fcntl.LOCK_EX)\n\
         open(path + '.lock').close()\n\
         json.dump([sys.argv[-1]], open(path, 'w'))\n",
    );
    let trace = trace(folder.path(), &["--", "./store"]);
    assert_eq!(lock_story(&trace), ["fcntl: taken", "close: released"]);
}

/// Threads, a second descriptor by `dup`, an OFD lock, a refused lock, and a lock on a file outside the sandbox.
#[test]
fn locks_of_every_kind_are_seen_with_their_refusals() {
    let folder = tempfile::tempdir().unwrap();
    python_script(
        folder.path(),
        "store",
        "import fcntl, os, struct, sys, threading\n\
         path = sys.argv[2]\n\
         open(path, 'w').write('[]')\n\
         one = os.open(path + '.lock', os.O_RDWR | os.O_CREAT)\n\
         two = os.open(path + '.lock', os.O_RDWR)\n\
         three = os.dup(one)\n\
         fcntl.flock(one, fcntl.LOCK_EX)\n\
         try: fcntl.flock(two, fcntl.LOCK_SH | fcntl.LOCK_NB)\n\
         except OSError: pass\n\
         os.close(one)\n\
         record = struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 5, 10, 0)\n\
         thread = threading.Thread(target=lambda: fcntl.fcntl(two, 37, record))\n\
         thread.start(); thread.join()\n\
         os.close(three)\n\
         elsewhere = os.open('elsewhere', os.O_RDWR | os.O_CREAT)\n\
         fcntl.flock(elsewhere, fcntl.LOCK_EX)\n\
         os.close(elsewhere)\n",
    );
    let trace = trace(folder.path(), &["--", "./store"]);
    assert_eq!(
        lock_story(&trace),
        [
            "flock: taken",
            "flock: refused",
            "fcntl: taken",
            "close: released",
            "flock: taken",
            "close: released",
            "exit: released"
        ]
    );
    let threads =
        trace["calls"].as_array().unwrap().iter().map(|call| call["thread"].as_u64().unwrap()).max();
    assert_eq!(threads, Some(2));
}

#[test]
fn a_writable_shared_map_is_named_as_not_covered_and_io_uring_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    python_script(
        folder.path(),
        "store",
        "import ctypes, errno, mmap, os, sys\n\
         file = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT)\n\
         os.write(file, b'[]')\n\
         mmap.mmap(file, 2)[0:2] = b'[]'\n\
         libc = ctypes.CDLL(None, use_errno=True)\n\
         refused = libc.syscall(425, 1, None) == -1 and ctypes.get_errno() == errno.ENOSYS\n\
         sys.exit(0 if refused or sys.argv[-1].endswith('1') else 1)\n",
    );
    let trace = trace(folder.path(), &["--", "./store"]);
    let told = trace["not_covered"].as_array().unwrap();
    assert!(
        told.iter().any(|what| what.as_str().unwrap().contains("maps store.json shared and writable")),
        "{told:?}"
    );
}

/// A store that stops itself, one that ignores SIGTERM and never ends, one that dies of a signal, one that leaves a
/// process behind, and one that runs another program from a thread: one line each, and no hang.
#[test]
fn odd_stores_are_traced_to_their_end() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = |name: &str, text: &str| {
        python_script(folder.path(), name, text);
        let toml =
            format!("[ops]\nadd = [\"./{name}\", \"{{data}}\", \"{{id}}\"]\n[limits]\ntimeout = \"1s\"\n");
        fs::write(folder.path().join("picklock.toml"), toml).unwrap();
        // The preceding first add is not traced and succeeds.
        trace(folder.path(), &[])
    };
    let head = "import os, signal, sys, threading, time\n\
                open(sys.argv[1], 'w').write('[]')\n\
                if sys.argv[2].endswith('1'): sys.exit()\n";
    let stopped = adapter("stops", &format!("{head}os.kill(os.getpid(), signal.SIGSTOP)\n"));
    assert_eq!(stopped["timed_out"], true);
    let endless = adapter(
        "endless",
        &format!("{head}signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: time.sleep(9)\n"),
    );
    assert_eq!(endless["timed_out"], true);
    let killed = adapter("dies", &format!("{head}os.kill(os.getpid(), signal.SIGSEGV)\n"));
    assert_eq!(killed["signal"], 11);
    let survived = adapter("leaves", &format!("{head}\nif os.fork() == 0:\n  time.sleep(99)\n"));
    assert_eq!(survived["survivors"], 1);
    let executed = adapter(
        "executes",
        &format!(
            "{head}\nthread = threading.Thread(target=lambda: os.execv('/bin/cat', ['cat', sys.argv[1]]))\nthread.start(); thread.join()\n"
        ),
    );
    assert_eq!(
        (&executed["exit"], names(&executed).contains(&"read")),
        (&Value::from(0), true),
        "{executed:#}"
    );
}

#[test]
fn what_cannot_be_traced_is_told_in_a_line() {
    let folder = tempfile::tempdir().unwrap();
    script(folder.path(), "store", "#!/bin/sh\necho no table >&2\nexit 7\n");
    script(folder.path(), "foreign", "#!/no/such/interpreter\n");
    for (arguments, status, says) in [
        (&["trace", "--", "./store"][..], 4, "no table"),
        (&["trace", "--", "./foreign"], 70, "cannot start"),
        (&["trace", "lst", "--demo"], 2, "did you mean list?"),
        (&["trace", "--demo", "--dir", "/proc"], 2, "--dir"),
    ] {
        let output = picklock(folder.path(), arguments).output().unwrap();
        expect_status(&output, status);
        assert!(stderr(&output).contains(says), "{}", stderr(&output));
    }
}

#[test]
fn the_table_reads_as_a_person_reads() {
    let folder = tempfile::tempdir().unwrap();
    let output = picklock(folder.path(), &["trace", "--demo"]).output().unwrap();
    expect_status(&output, 0);
    let table = stdout(&output);
    for line in [
        "flock(3<store.json.lock>, LOCK_EX)",
        "* rename(.store.json.tmp, store.json)",
        "+ takes exclusive flock on store.json.lock",
    ] {
        assert!(table.contains(line), "{table}");
    }
}

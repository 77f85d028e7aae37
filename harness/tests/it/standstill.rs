//! Tests deadlock detection: who waits for whom when no client can continue.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::programs::{invariant, judge, python_script};
use crate::{OF_INTERLEAVE, ON_A_KIND_DISK, script};

const ALONE: &str = "reentry,inheritance";

/// Returns the first counterexample of a violated invariant.
#[track_caller]
fn seen<'a>(report: &'a Value, id: &str) -> &'a str {
    assert_eq!(invariant(report, id)["verdict"], "violated", "{report:#}");
    invariant(report, id)["counterexamples"][0]["summary"].as_str().unwrap()
}

/// A shell store with its own operation `rotate`.
fn shell_with_rotate(folder: &Path, rotate: &str) {
    let store = format!(
        "#!/bin/sh\nset -e\nexec 9>> \"$2.lock\"\n\
         if [ $1 = rotate ]; then {rotate}; exit; fi\n\
         flock 9\ntouch \"$2\"\n{{ cat \"$2\"; echo $3; }} > \"$2.tmp\"; mv \"$2.tmp\" \"$2\"\n"
    );
    script(folder, "store", &store);
    let adapter = "[data]\npath = \"db.txt\"\n[ops]\nadd = [\"./store\", \"add\", \"{data}\", \"{id}\"]\n\
                   list = [\"cat\", \"{data}\"]\n[ops.other]\nrotate = [\"./store\", \"rotate\", \"{data}\"]\n\
                   [limits]\ntimeout = \"60s\"\n";
    fs::write(folder.join("picklock.toml"), adapter).unwrap();
}

/// A parent that holds the lock waits for its child, which requests it: no process can continue, and that is detected
/// at once, long before the operation's time limit of one minute.
#[test]
fn a_child_that_wants_the_lock_of_the_parent_that_waits_for_it_is_a_self_deadlock() {
    let folder = tempfile::tempdir().unwrap();
    shell_with_rotate(folder.path(), "flock 9; flock \"$2.lock\" true");
    let began = std::time::Instant::now();
    let report = judge(folder.path(), 1, &["--only", ALONE]);
    assert!(began.elapsed().as_secs() < 50, "the time limit was waited for");
    assert!(
        seen(&report, "no-self-deadlock")
            .contains("waits for the lock on db.txt.lock, which it holds itself")
    );
    let diagnosis = &invariant(&report, "no-self-deadlock")["counterexamples"][0]["diagnosis"];
    assert_eq!(diagnosis, "second-descriptor-same-lock");
}

/// The same with a time-out: it can continue by itself, and does.
#[test]
fn a_wait_for_oneself_that_has_a_time_out_is_none() {
    let folder = tempfile::tempdir().unwrap();
    shell_with_rotate(folder.path(), "flock 9; flock -w 0.2 \"$2.lock\" true || true");
    let report = judge(folder.path(), 3, &["--only", ALONE]);
    assert_eq!(invariant(&report, "no-self-deadlock")["verdict"], "holds", "{report:#}");
    // `timeout` kills its child by a timer of its own process.
    shell_with_rotate(folder.path(), "flock 9; timeout 0.2 flock \"$2.lock\" true || true");
    let report = judge(folder.path(), 3, &["--only", ALONE]);
    assert_eq!(invariant(&report, "no-self-deadlock")["verdict"], "holds", "{report:#}");
}

/// Two locks in two orders: with `flock` both clients wait forever; of POSIX locks the kernel refuses one, which is
/// honest.
#[test]
fn two_locks_in_two_orders_are_a_deadlock_but_with_posix_locks() {
    let folder = tempfile::tempdir().unwrap();
    let store = |take: &str| {
        python_script(
            folder.path(),
            "store",
            &format!(
                "import fcntl, json, os, sys\n\
                 verb, path = sys.argv[1:3]\n\
                 def take(name):\n  lock = open(path + name, 'a')\n  fcntl.{take}(lock, fcntl.LOCK_EX)\n  return lock\n\
                 names = ['.one', '.two'] if verb == 'add' else ['.two', '.one']\n\
                 locks = [take(name) for name in names]\n\
                 records = json.load(open(path)) if os.path.exists(path) else []\n\
                 if verb == 'list':\n  print('\\n'.join(records))\n  sys.exit()\n\
                 with open(path + '.tmp', 'w') as new: json.dump(records + [sys.argv[3]], new)\n\
                 os.rename(path + '.tmp', path)\n"
            ),
        );
    };
    store("flock");
    let report = judge(folder.path(), 1, &["--only", "crash", "--", "./store"]);
    let told = seen(&report, "no-deadlock");
    assert!(told.contains("client 1 waits for") && told.contains("client 2 waits for"), "{told}");
    assert_eq!(invariant(&report, "no-deadlock")["counterexamples"][0]["diagnosis"], "lock-order-cycle");
    store("lockf");
    let report = judge(folder.path(), 1, &["--only", "crash", "--", "./store"]);
    assert_eq!(invariant(&report, "no-deadlock")["verdict"], "holds", "{report:#}");
    assert!(seen(&report, "no-spurious-failure").contains("Resource deadlock avoided"));
    let remarks = report["remarks"].to_string();
    assert!(remarks.contains("deadlock avoided"), "{remarks}");
}

/// `flock` releases the shared lock before it waits for the exclusive one: of two upgrading clients, one gets it.
#[test]
fn an_upgrade_of_a_flock_by_two_is_no_deadlock_but_loses_an_update() {
    let folder = tempfile::tempdir().unwrap();
    python_script(
        folder.path(),
        "store",
        "import fcntl, json, os, sys\n\
         verb, path = sys.argv[1:3]\n\
         lock = open(path + '.lock', 'a')\n\
         fcntl.flock(lock, fcntl.LOCK_SH)\n\
         records = json.load(open(path)) if os.path.exists(path) else []\n\
         if verb == 'list':\n  print('\\n'.join(records))\n  sys.exit()\n\
         fcntl.flock(lock, fcntl.LOCK_EX)\n\
         with open(path + '.tmp', 'w') as new: json.dump(records + [sys.argv[3]], new)\n\
         os.rename(path + '.tmp', path)\n",
    );
    let report = judge(folder.path(), 1, &["--only", "crash", "--", "./store"]);
    assert_eq!(invariant(&report, "no-deadlock")["verdict"], "holds", "{report:#}");
    assert!(seen(&report, "no-lost-update").contains("while another client came"));
}

/// A polling client is not waited for: the client it waits for is allowed to continue.
#[test]
fn a_store_that_polls_is_judged_without_waiting_for_it() {
    let folder = tempfile::tempdir().unwrap();
    python_script(
        folder.path(),
        "store",
        "import fcntl, json, os, sys, time\n\
         verb, path = sys.argv[1:3]\n\
         load = lambda: json.load(open(path)) if os.path.exists(path) else []\n\
         if verb == 'list':\n  print('\\n'.join(load()))\n  sys.exit()\n\
         lock = open(path + '.lock', 'a')\n\
         while True:\n\
         \x20 try: fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)\n\
         \x20 except BlockingIOError: time.sleep(0.01)\n\
         \x20 else: break\n\
         records = load() + [sys.argv[3]]\n\
         with open(path + '.tmp', 'w') as new: json.dump(records, new)\n\
         os.rename(path + '.tmp', path)\n",
    );
    let report = judge(folder.path(), 3, &["--only", "crash", "--", "./store"]);
    for id in ["no-lost-update", "no-deadlock", "recovers-after-crash"] {
        assert_eq!(invariant(&report, id)["verdict"], "holds", "{report:#}");
    }
    let diagnoses = report["diagnoses"].as_array().unwrap();
    assert!(diagnoses.iter().any(|diagnosis| diagnosis["id"] == "poll-lock"), "{diagnoses:?}");
}

/// A session that takes the lock again for its second handle never answers.
#[test]
fn two_handles_of_a_session_on_one_path_must_not_wait_for_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let session = |mode: &str| {
        python_script(
            folder.path(),
            "store",
            &format!(
                "import fcntl, json, os, sys\n\
                 def load(path): return json.load(open(path)) if os.path.exists(path) else []\n\
                 def add(path, record):\n\
                 \x20 with open(path + '.lock', 'a') as lock:\n\
                 \x20   if {mode:?} == 'each': fcntl.flock(lock, fcntl.LOCK_EX)\n\
                 \x20   records = load(path) + [record]\n\
                 \x20   with open(path + '.tmp', 'w') as new: json.dump(records, new)\n\
                 \x20   os.rename(path + '.tmp', path)\n\
                 verb, path = sys.argv[1:3]\n\
                 if verb == 'add': add(path, sys.argv[3])\n\
                 elif verb == 'list': print('\\n'.join(load(path)))\n\
                 else:\n\
                 \x20 held = []\n\
                 \x20 for line in sys.stdin:\n\
                 \x20   asked = json.loads(line)\n\
                 \x20   answer = dict(seq=asked['seq'], ok=True)\n\
                 \x20   if asked['op'] == 'open' and {mode:?} != 'each':\n\
                 \x20     held.append(open(path + '.lock', 'a')); fcntl.flock(held[-1], fcntl.LOCK_EX)\n\
                 \x20   if asked['op'] == 'add': add(path, asked['record'])\n\
                 \x20   if asked['op'] == 'list': answer['records'] = load(path)\n\
                 \x20   print(json.dumps(answer), flush=True)\n"
            ),
        );
        let adapter = "[ops]\nadd = [\"./store\", \"add\", \"{data}\", \"{id}\"]\nlist = [\"./store\", \"list\", \"{data}\"]\n\
                       [session]\ncommand = [\"./store\", \"session\", \"{data}\"]\n";
        fs::write(folder.path().join("picklock.toml"), adapter).unwrap();
    };
    session("each");
    let report = judge(folder.path(), 3, &["--only", "reentry"]);
    assert_eq!(invariant(&report, "no-self-deadlock")["verdict"], "holds", "{report:#}");
    session("open");
    let report = judge(folder.path(), 1, &["--only", "reentry"]);
    assert!(seen(&report, "no-self-deadlock").contains("a session with two handles on one path"));
}

/// A list of buffers is cut like one buffer, and the store gets the number of bytes really written.
#[test]
fn a_write_of_several_buffers_is_cut_for_real() {
    let folder = tempfile::tempdir().unwrap();
    python_script(
        folder.path(),
        "store",
        "import os, sys\n\
         verb, path = sys.argv[1:3]\n\
         if verb == 'list':\n  print(open(path).read(), end='')\n  sys.exit()\n\
         file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)\n\
         parts = [b'', sys.argv[3][:3].encode(), sys.argv[3][3:].encode(), b'\\n']\n\
         if os.writev(file, parts) != 8: sys.exit('half a line is written')\n",
    );
    let report = judge(folder.path(), 1, &["--only", "torn-write", "--data", "db.txt", "--", "./store"]);
    let told = seen(&report, "crash-atomic");
    assert!(told.contains("writev(") && told.contains("had written"), "{told}");
    // The store gets a short count, reports it and fails: no acknowledged record is lost, except those glued to the
    // torn one.
    assert!(report["remarks"].to_string().contains("half a line is written"), "{report:#}");
}

/// A correct Python store, except for `BEFORE`, which it does with its lock held and before it saves.
fn store_that(folder: &Path, before: &str) {
    let text = "import fcntl, json, os, signal, subprocess, sys, threading, time\n\
        verb, path = sys.argv[1:3]\n\
        if verb == 'sub':\n  fcntl.flock(open(path + '.lock', 'a'), fcntl.LOCK_EX); sys.exit()\n\
        records = json.load(open(path)) if verb == 'list' and os.path.exists(path) else []\n\
        if verb == 'list':\n  print('\\n'.join(records)); sys.exit()\n\
        lock = open(path + '.lock', 'a')\n\
        fcntl.flock(lock, fcntl.LOCK_EX)\n\
        BEFORE\n\
        records = (json.load(open(path)) if os.path.exists(path) else []) + [sys.argv[3]]\n\
        with open(path + '.tmp', 'w') as new: json.dump(records, new)\n\
        os.rename(path + '.tmp', path)\n\
        fcntl.flock(lock, fcntl.LOCK_UN)\n\
        AFTER\n";
    let (before, after) = before.split_once(" THEN ").unwrap_or((before, "pass"));
    python_script(folder, "store", &text.replace("BEFORE", before).replace("AFTER", after));
}

/// The status of a signal without a name was refused, and with it the whole scenario.
#[test]
fn a_real_time_signal_is_a_signal_like_others() {
    let folder = tempfile::tempdir().unwrap();
    store_that(
        folder.path(),
        "signal.signal(signal.SIGRTMIN, lambda *a: None); os.kill(os.getpid(), signal.SIGRTMIN)",
    );
    let report = judge(
        folder.path(),
        0,
        &["--only", "crash,inheritance", "--skip", OF_INTERLEAVE, "--skip", ON_A_KIND_DISK, "--", "./store"],
    );
    assert_eq!(invariant(&report, "no-lost-update")["verdict"], "holds", "{report:#}");
}

/// A process that waits for itself and gets a signal from another thread was taken for one that waits forever: in the
/// kernel the signal ends the wait.
#[test]
fn a_wait_that_a_signal_ends_is_no_deadlock() {
    let folder = tempfile::tempdir().unwrap();
    store_that(
        folder.path(),
        "def stop(*a): raise TimeoutError\n\
         signal.signal(signal.SIGUSR1, stop)\n\
         main = threading.main_thread().ident\n\
         threading.Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGUSR1)).start()\n\
         try: fcntl.flock(open(path + '.lock', 'a'), fcntl.LOCK_EX)\n\
         except TimeoutError: pass",
    );
    let report =
        judge(folder.path(), 0, &["--only", "inheritance,reentry,no-self-deadlock", "--", "./store"]);
    assert_eq!(invariant(&report, "no-self-deadlock")["verdict"], "holds", "{report:#}");
}

/// A lock that the kernel refuses at once, because the file is not open for writing, was taken for one that is waited
/// for.
#[test]
fn a_lock_that_does_not_fit_its_descriptor_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    store_that(
        folder.path(),
        "other = open(path + '.other', 'a'); fcntl.lockf(other, fcntl.LOCK_EX)\n\
         if os.fork() == 0:\n\
         \x20 try: fcntl.lockf(open(path + '.other'), fcntl.LOCK_EX)\n\
         \x20 except OSError: os._exit(0)\n\
         os.wait()",
    );
    let report =
        judge(folder.path(), 0, &["--only", "inheritance,reentry,no-self-deadlock", "--", "./store"]);
    assert_eq!(invariant(&report, "no-self-deadlock")["verdict"], "holds", "{report:#}");
}

/// A parent that collects its child's output waits in `poll`: for its own child, and for no other process.
#[test]
fn a_child_whose_output_is_collected_is_waited_for_too() {
    let folder = tempfile::tempdir().unwrap();
    store_that(
        folder.path(),
        "if len(os.listdir(os.path.dirname(path))) > 2 and sys.argv[3] == 'r000002': \
         subprocess.run([sys.executable, '-SEI', sys.argv[0], 'sub', path], capture_output=True)",
    );
    // The folder contains more than the data and its lock only if this adds something.
    let text = fs::read_to_string(folder.path().join("store")).unwrap().replace("> 2 and", "> 0 and");
    python_script(folder.path(), "store", text.split_once('\n').unwrap().1);
    let adapter = "[ops]\nadd = [\"./store\", \"add\", \"{data}\", \"{id}\"]\nlist = [\"./store\", \"list\", \"{data}\"]\n\
                   [ops.other]\nagain = [\"./store\", \"add\", \"{data}\", \"r000002\"]\n[guard]\nlimit = 1\n";
    fs::write(folder.path().join("picklock.toml"), adapter).unwrap();
    let began = std::time::Instant::now();
    let report = judge(folder.path(), 1, &["--only", "reentry"]);
    assert!(seen(&report, "no-self-deadlock").contains("which it holds itself"));
    assert!(began.elapsed().as_secs() < 9, "the time limit was waited for");
}

/// Neither a parent in `vfork`, nor a first thread that has ended, nor a client that retries without a pause keeps the
/// others from continuing.
#[test]
fn what_never_sleeps_does_not_keep_the_others_waiting() {
    let folder = tempfile::tempdir().unwrap();
    for before in [
        "pass THEN subprocess.run(['/bin/true'])",
        "pass THEN threading.Thread(target=lambda: time.sleep(0.01)).start()",
    ] {
        store_that(folder.path(), before);
        let report = judge(folder.path(), 3, &["--only", "crash", "--", "./store"]);
        assert_eq!(report["scenarios"][0]["coverage"], "complete", "{report:#}");
    }
    store_that(folder.path(), "pass");
    let spins = "while True:\n\
                 \x20 try: fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB); break\n\
                 \x20 except BlockingIOError: pass";
    let text = fs::read_to_string(folder.path().join("store")).unwrap();
    python_script(
        folder.path(),
        "store",
        text.replace("fcntl.flock(lock, fcntl.LOCK_EX)", spins).split_once('\n').unwrap().1,
    );
    let report = judge(folder.path(), 3, &["--only", "crash", "--", "./store"]);
    assert_eq!(report["scenarios"][0]["coverage"], "complete", "{report:#}");
    assert_eq!(invariant(&report, "no-lost-update")["verdict"], "holds", "{report:#}");
}

/// The time limit killed the group of the operation, and a process that had left its group hung forever.
#[test]
fn an_operation_that_leaves_its_group_ends_at_its_time_limit_too() {
    let folder = tempfile::tempdir().unwrap();
    python_script(
        folder.path(),
        "store",
        "import os, sys, time\n\
         status = open('/proc/self/status').read()\n\
         open(sys.argv[2], 'a').write(sys.argv[3] + '\\n')\n\
         if 'TracerPid:\\t0' not in status:\n\
         \x20 os.setpgid(0, os.getpgid(os.getppid()))\n\
         \x20 time.sleep(1000)\n",
    );
    let adapter = "[data]\npath = \"db.txt\"\n[ops]\nadd = [\"./store\", \"add\", \"{data}\", \"{id}\"]\n\
                   list = [\"cat\", \"{data}\"]\n[limits]\ntimeout = \"1s\"\n";
    fs::write(folder.path().join("picklock.toml"), adapter).unwrap();
    let output = crate::picklock(folder.path(), &["trace", "--format", "json"]).output().unwrap();
    crate::expect_status(&output, 0);
    let trace: Value = serde_json::from_str(&crate::stdout(&output)).unwrap();
    assert_eq!(trace["timed_out"], true);
}

/// A helper that outlives the operation was ended with it, though no injection was planned, and its unfinished work was
/// held against the store.
#[test]
fn work_of_a_process_that_picklock_ended_is_not_held_against_the_store() {
    let folder = tempfile::tempdir().unwrap();
    python_script(
        folder.path(),
        "store",
        "import fcntl, json, os, sys, time\n\
         verb, path = sys.argv[1:3]\n\
         time.sleep(0.15)\n\
         load = lambda: json.load(open(path)) if os.path.exists(path) else []\n\
         if verb == 'list':\n  print('\\n'.join(load())); sys.exit()\n\
         if os.fork() > 0: os._exit(0)\n\
         os.setsid(); time.sleep(0.03)\n\
         lock = open(path + '.lock', 'a'); fcntl.flock(lock, fcntl.LOCK_EX)\n\
         records = load() + [sys.argv[3]]\n\
         with open(path + '.tmp', 'w') as new: json.dump(records, new)\n\
         os.rename(path + '.tmp', path)\n",
    );
    let report =
        judge(folder.path(), 3, &["--only", "inheritance", "--data-format", "opaque", "--", "./store"]);
    assert_ne!(invariant(&report, "no-lost-update")["verdict"], "violated", "{report:#}");
}

//! Tests stores that serve many requests in one process.

use std::fs;
use std::path::Path;

use crate::programs::{invariant, judge, python_script, scenario};

/// A store with a thread for each request; `under_lock` runs under the lock before the write, `on_cancel` when a
/// request is cancelled.
fn threaded_store(folder: &Path, under_lock: &str, on_cancel: &str) {
    let store = format!(
        "import fcntl, json, os, sys, threading, time\n\
         verb, path = sys.argv[1:3]\n\
         def load():\n\
         \x20 return json.load(open(path)) if os.path.exists(path) else []\n\
         def add(record):\n\
         \x20 with open(path + '.lock', 'a') as lock:\n\
         \x20   fcntl.flock(lock, fcntl.LOCK_EX)\n\
         \x20   {under_lock}\n\
         \x20   records = load() + [record]\n\
         \x20   with open(path + '.tmp', 'w') as new: json.dump(records, new)\n\
         \x20   os.rename(path + '.tmp', path)\n\
         def answer(seq, **more): os.write(1, (json.dumps(dict(seq=seq, ok=True, **more)) + '\\n').encode())\n\
         def work(asked):\n\
         \x20 add(asked['record'])\n\
         \x20 answer(asked['seq'])\n\
         if verb == 'init': json.dump(['x%05d' % n for n in range(9000)], open(path, 'w'))\n\
         elif verb == 'add': add(sys.argv[3])\n\
         elif verb == 'list': print('\\n'.join(load()))\n\
         else:\n\
         \x20 threads = []\n\
         \x20 for line in sys.stdin:\n\
         \x20   asked = json.loads(line)\n\
         \x20   if asked['op'] == 'add':\n\
         \x20     threads.append(threading.Thread(target=work, args=(asked,)))\n\
         \x20     threads[-1].start()\n\
         \x20   elif asked['op'] in ('list', 'memory'): answer(asked['seq'], records=load())\n\
         \x20   else:\n\
         \x20     if asked['op'] == 'cancel': {on_cancel}\n\
         \x20     answer(asked['seq'])\n\
         \x20 for thread in threads: thread.join()\n"
    );
    python_script(folder, "store", &store);
}

fn adapter(folder: &Path, more: &str) {
    let adapter = format!(
        "[ops]\nadd = [\"./store\", \"add\", \"{{data}}\", \"{{id}}\"]\n\
         list = [\"./store\", \"list\", \"{{data}}\"]\n{more}\n\
         [session]\ncommand = [\"./store\", \"session\", \"{{data}}\"]\n"
    );
    fs::write(folder.join("picklock.toml"), adapter).unwrap();
}

const ONLY: [&str; 2] = ["--only", "session,memory-matches-file"];

/// A session in which one thread waited for a lock got no more requests, though the holder only slept: it was not asked
/// for its list, and the data file was judged as if it had been.
#[test]
fn a_session_whose_holder_sleeps_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    threaded_store(folder.path(), "time.sleep(0.01)", "pass");
    adapter(folder.path(), "");
    let report = judge(folder.path(), 0, &[&ONLY[..], &["--budget", "10m"]].concat());
    let memory = invariant(&report, "memory-matches-file");
    // A session that runs concurrently with one-shot operations or with another session is not asked what it remembers.
    let judged = memory["judged"].as_u64().unwrap();
    let bound = scenario(&report, "session")["bound"].as_str().unwrap().to_owned();
    assert!(
        bound.contains(&format!("all {judged} requests that are cancelled or overlap")),
        "{judged}: {bound}"
    );
}

/// An answer longer than the read buffer was never received.
#[test]
fn an_answer_may_be_long() {
    let folder = tempfile::tempdir().unwrap();
    threaded_store(folder.path(), "pass", "pass");
    adapter(folder.path(), "init = [\"./store\", \"init\", \"{data}\"]");
    let report = judge(folder.path(), 3, &[&ONLY[..], &["--budget", "12s"]].concat());
    let memory = invariant(&report, "memory-matches-file");
    assert!(memory["judged"].as_u64() > Some(0) && memory["violations"] == 0, "{memory:#}");
}

/// A session that dies of a cancellation answers nothing: what it believed is then unknown, and is not reported to
/// hold.
#[test]
fn a_session_that_dies_is_not_said_to_remember() {
    let folder = tempfile::tempdir().unwrap();
    threaded_store(folder.path(), "pass", "os._exit(1)");
    adapter(folder.path(), "");
    let report = judge(folder.path(), 3, &[&ONLY[..], &["--budget", "10m"]].concat());
    let memory = invariant(&report, "memory-matches-file");
    assert!(memory["reason"].as_str().unwrap().contains("never answered"), "{report:#}");
}

/// Two rebuilds within one second wrote the same date, and the third, in the next second, was held against a correct
/// store; a rebuild that empties the data file for a moment was taken for one that finds it empty.
#[test]
fn a_date_in_a_derived_file_is_no_damage_and_a_source_that_is_emptied_is() {
    let judged = |touch: &str, status: i32| {
        let folder = tempfile::tempdir().unwrap();
        let store = format!(
            "import fcntl, json, os, sys, time\n\
             verb, path = sys.argv[1:3]\n\
             def load(): return json.load(open(path)) if os.path.exists(path) else []\n\
             def replace(path, value):\n\
             \x20 with open(path + '.tmp', 'w') as new: json.dump(value, new)\n\
             \x20 os.rename(path + '.tmp', path)\n\
             if verb == 'list': print('\\n'.join(load())); sys.exit()\n\
             with open(path + '.lock', 'a') as lock:\n\
             \x20 fcntl.flock(lock, fcntl.LOCK_EX)\n\
             \x20 if verb == 'add': replace(path, load() + [sys.argv[3]])\n\
             \x20 else:\n\
             \x20   records = load()\n\
             \x20   {touch}\n\
             \x20   replace(path + '.sum', dict(count=len(records), at=int(time.time())))\n"
        );
        python_script(folder.path(), "store", &store);
        adapter(
            folder.path(),
            "[derived]\nfiles = [\"store.json.sum\"]\nrebuild = [\"./store\", \"rebuild\", \"{data}\"]",
        );
        judge(folder.path(), status, &["--only", "crash,derived-heals", "--budget", "10m"])
    };
    let report = judged("pass", 0);
    assert_eq!(invariant(&report, "derived-heals")["verdict"], "holds");
    let report = judged("json.dump(records, open(path, 'w'))", 1);
    let seen = invariant(&report, "derived-heals")["counterexamples"].to_string();
    assert!(seen.contains("changed the data file"), "{seen}");
}

//! Tests that copies of stopped processes behave like fresh starts.

use serde_json::Value;

use crate::programs::{judge, python_script};
use crate::{ON_A_KIND_DISK, script};

/// A defect of copies is expected to show each time; a difference that shows only sometimes is printed. Once the two
/// differed for `broken`, and the message did not say how; 150 reports made under load were alike. A process id equal
/// to a line number in Python's traceback would explain it.
const TRIES: usize = 3;

/// Returns what was judged, and how, without anything that depends on the remaining time.
fn verdicts(report: &Value) -> Vec<(String, String, u64, Vec<String>)> {
    let told = |invariant: &Value| {
        let counterexamples = invariant["counterexamples"].as_array().unwrap().iter();
        // Case names are ignored: if a kill meets a fork, the system decides which of the two came further.
        counterexamples.map(|one| one["summary"].to_string()).collect()
    };
    let invariants = report["invariants"].as_array().unwrap().iter();
    invariants
        .map(|one| {
            let text = |key: &str| one[key].as_str().unwrap().to_owned();
            (text("id"), text("verdict"), one["judged"].as_u64().unwrap(), told(one))
        })
        .collect()
}

/// Copies of a stopped process must show what a fresh start shows: for stores in two languages, correct and broken.
pub(crate) fn copies_show_what_fresh_starts_show(stores: &[(&str, &str, i32)]) {
    let folder = tempfile::tempdir().unwrap();
    let python = |name: &str, writes: &str| {
        let text = "import fcntl, json, os, sys, tempfile\n\
            verb, path = sys.argv[1:3]\n\
            load = lambda: json.load(open(path)) if os.path.exists(path) else []\n\
            if verb == 'list':\n  print('\\n'.join(load()))\n  sys.exit()\n\
            lock = open(path + '.lock', 'a')\n\
            fcntl.flock(lock, fcntl.LOCK_EX)\n\
            records = load() + [sys.argv[3]]\n\
            WRITES\n";
        python_script(folder.path(), name, &text.replace("WRITES", writes));
    };
    python(
        "right",
        "with open(path + '.tmp', 'w') as new: json.dump(records, new)\nos.rename(path + '.tmp', path)",
    );
    python("broken", "with open(path, 'w') as new: json.dump(records, new)");
    // A name with the process id in it, and one with a random part.
    python(
        "litters",
        "new = path + '.%d' % os.getpid()\n\
         with open(new, 'w') as out: json.dump(records, out)\n\
         handle, other = tempfile.mkstemp(dir=os.path.dirname(path)); os.close(handle); os.unlink(other)\n\
         os.rename(new, path)",
    );
    script(
        folder.path(),
        "shell",
        "#!/bin/sh\nset -e\nif [ $1 = list ]; then cat \"$2\"; exit; fi\n\
         touch \"$2\"; exec 9>> \"$2.lock\"; flock 9\n{ cat \"$2\"; echo $3; } > \"$2.$$\"\nmv \"$2.$$\" \"$2\"\n",
    );
    for (store, data, status) in stores {
        let run = |more: &[&str]| {
            // All of it for the correct store; for the others, the scenario that finds their defect.
            let scenarios = if *status == 0 { "crash,torn-write,reentry,inheritance" } else { "crash" };
            // They need schedules, which were not selected.
            let unscheduled = "linearizable,mutual-exclusion,no-spurious-failure";
            let arguments = [
                &["--only", scenarios, "--skip", ON_A_KIND_DISK, "--skip", unscheduled, "--exhaustive"],
                more,
                &["--data", data, "--", store],
            ]
            .concat();
            judge(folder.path(), *status, &arguments)
        };
        let mut differed = 0;
        let copied = loop {
            let (copied, fresh) = (run(&[]), run(&["--no-copies"]));
            let (one, other) = (verdicts(&copied), verdicts(&fresh));
            if one == other {
                break copied;
            }
            let differing = one.iter().zip(&other).find(|(one, other)| one != other);
            let tried = |report: &Value| format!("{} {}", report["scenarios"], report["remarks"]);
            let told = format!(
                "{store}: {differing:?}, copied and fresh\ncopied {}\n fresh {}",
                tried(&copied),
                tried(&fresh)
            );
            differed += 1;
            assert!(differed < TRIES, "{told}");
            eprintln!("{told}");
        };
        let was_refused =
            copied["remarks"].as_array().unwrap().iter().any(|remark| remark["id"] == "no-copies");
        assert!(!was_refused, "{store}: {}", copied["remarks"]);
    }
}

/// The stores with the least to run; `campaigns.rs` has others.
#[test]
fn results_with_and_without_copies_are_equal() {
    copies_show_what_fresh_starts_show(&[("./broken", "db.json", 1)]);
}

/// A store that cannot be copied is started anew, and the report gives the reason.
#[test]
fn a_store_with_threads_is_not_copied_and_the_reason_told() {
    let folder = tempfile::tempdir().unwrap();
    python_script(
        folder.path(),
        "store",
        "import json, os, sys, threading, time\n\
         path = sys.argv[1]\n\
         threading.Thread(target=lambda: time.sleep(0.05)).start()\n\
         records = json.load(open(path)) if os.path.exists(path) else []\n\
         with open(path + '.tmp', 'w') as new: json.dump(records + [sys.argv[2]], new)\n\
         os.rename(path + '.tmp', path)\n",
    );
    let report = judge(folder.path(), 3, &["--only", "inheritance", "--add", "./store {data} {id}"]);
    let remarks = report["remarks"].as_array().unwrap();
    let told = remarks.iter().find(|remark| remark["id"] == "no-copies").unwrap();
    assert!(told["text"].as_str().unwrap().contains("several threads"), "{told}");
}

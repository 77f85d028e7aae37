//! Tests that bad input gets a clear error and its own exit status.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::{ON_A_KIND_DISK, expect_status, picklock, script, stderr, stdout};

/// One bad input, and the expected message.
struct Row {
    what: &'static str,
    arguments: &'static [&'static str],
    /// Files to create first: name, content, and whether it is executable.
    files: &'static [(&'static str, &'static str, bool)],
    status: i32,
    /// Texts that the report or the error must contain.
    says: &'static [&'static str],
}

const SCRIPT: &str = "#!/bin/sh\n";

const ROWS: &[Row] = &[
    Row {
        what: "a missing program",
        arguments: &["check", "--", "./nowhere"],
        files: &[],
        status: 2,
        says: &["PROGRAM", "nowhere", "cannot be found"],
    },
    Row {
        what: "a missing program on the PATH, with a file of its name here",
        arguments: &["check", "--", "mystore"],
        files: &[("mystore", SCRIPT, true)],
        status: 2,
        says: &["not on the PATH", "./mystore"],
    },
    Row {
        what: "a program without run bit",
        arguments: &["check", "--", "./store"],
        files: &[("store", SCRIPT, false)],
        status: 2,
        says: &["no permission to be run", "chmod +x"],
    },
    Row {
        what: "a program whose interpreter is missing",
        arguments: &["check", "--", "./store"],
        files: &[("store", "#!/no/such/interpreter\n", true)],
        status: 4,
        says: &["could not be started", "interpreter"],
    },
    Row {
        what: "an adapter with an unknown key",
        arguments: &["check"],
        files: &[("picklock.toml", "[ops]\nadd = [\"true\"]\nlits = [\"true\"]\n", false)],
        status: 2,
        says: &["picklock.toml:3: ops.lits", "did you mean \"list\"?"],
    },
    Row {
        what: "an adapter with an unknown placeholder",
        arguments: &["check", "--adapter", "a.toml"],
        files: &[("a.toml", "[ops]\nadd = [\"true\", \"{dta}\"]\n", false)],
        status: 2,
        says: &["a.toml:2: ops.add", "did you mean {data}?"],
    },
    Row {
        what: "an adapter that is not there",
        arguments: &["check", "--adapter", "b.toml"],
        files: &[],
        status: 2,
        says: &["b.toml", "cannot be read"],
    },
    Row {
        what: "a built-in adapter that is not there",
        arguments: &["check", "--adapter", "sqlite"],
        files: &[],
        status: 2,
        says: &["did you mean \"sqlite3\"?"],
    },
    Row {
        what: "a JSONPath that does not parse",
        arguments: &["check", "--add", "true {data} {id}", "--records", "$.["],
        files: &[],
        status: 2,
        says: &["--records", "does not parse"],
    },
    Row {
        what: "a command that only a shell understands",
        arguments: &["check", "--add", "echo {id} >> {data}"],
        files: &[],
        status: 2,
        says: &["--add", "no shell runs", "sh -c"],
    },
    Row {
        what: "a store that fails its first add",
        arguments: &["check", "--", "./store"],
        files: &[("store", "#!/bin/sh\necho 'no such table' >&2\nexit 9\n", true)],
        status: 4,
        says: &["control", "FAILED", "add r000001 failed (exit 9)", "no such table"],
    },
    Row {
        what: "a store that acknowledges and does nothing",
        arguments: &["check", "--add", "true {id}", "--list", "true"],
        files: &[],
        status: 4,
        says: &["data file store.json is not there", "--data"],
    },
    Row {
        what: "a store that prints megabytes",
        arguments: &["check", "--", "./store"],
        files: &[("store", "#!/bin/sh\nexec head -c 100000000 /dev/zero\n", true)],
        status: 4,
        says: &["limits.output"],
    },
    Row {
        what: "a store that prints no UTF-8",
        arguments: &[
            "check",
            "--data",
            "db.txt",
            "--add",
            "./store add {data} {id}",
            "--list",
            "./store list {data}",
        ],
        files: &[("store", "#!/bin/sh\n[ $1 = add ] && echo $3 >> \"$2\" || printf '\\377\\376\\n'\n", true)],
        status: 4,
        says: &["r000001 is not in list", "--listed"],
    },
    Row {
        what: "a list that prints decoration",
        arguments: &[
            "check",
            "--data",
            "db.txt",
            "--add",
            "./store add {data} {id}",
            "--list",
            "./store list {data}",
        ],
        files: &[(
            "store",
            "#!/bin/sh\n[ $1 = add ] && echo $3 >> \"$2\" || { echo Records:; cat \"$2\"; }\n",
            true,
        )],
        status: 4,
        says: &["list lists records that no operation added", "--listed"],
    },
    Row {
        what: "a store that never ends",
        arguments: &["check"],
        files: &[(
            "picklock.toml",
            "[ops]\nadd = [\"sleep\", \"1000\"]\n[limits]\ntimeout = \"300ms\"\n",
            false,
        )],
        status: 4,
        says: &["did not end within 300ms"],
    },
    Row {
        what: "a store that writes a file past its limit",
        arguments: &["check"],
        files: &[
            ("picklock.toml", "[ops]\nadd = [\"./store\", \"{data}\"]\n[limits]\nfile = \"64KiB\"\n", false),
            ("store", "#!/bin/sh\nexec head -c 10000000 /dev/zero > \"$1\"\n", true),
        ],
        status: 4,
        says: &["limits.file"],
    },
    Row {
        what: "a store that starts too many processes",
        arguments: &["check"],
        files: &[
            ("picklock.toml", "[ops]\nadd = [\"./store\"]\n[limits]\nprocesses = 5\n", false),
            ("store", "#!/bin/sh\nfor i in 1 2 3 4 5 6 7 8; do sleep 100 & done; wait\n", true),
        ],
        status: 4,
        says: &["limits.processes"],
    },
    Row {
        what: "a store that forks a child that stays",
        arguments: &[
            "check",
            "--ops",
            "2",
            "--clients",
            "2",
            "--skip",
            "no-residue,no-lost-update,no-deadlock,no-leaked-lock,mutual-exclusion,torn-write,fault,interleave,interleave-crash,linearizable,no-spurious-failure",
            "--skip",
            ON_A_KIND_DISK,
            "--add",
            "./store {data} {id}",
            "--list",
            "cat {data}",
            "--data",
            "db.txt",
        ],
        files: &[(
            "store",
            "#!/bin/sh\nsleep 1000 &\nexec flock \"$1.lock\" sh -c 'echo $2 >> \"$1\"' - \"$1\" \"$2\"\n",
            true,
        )],
        status: 0,
        says: &["survivors", "picklock ended them"],
    },
    Row {
        what: "a store that removes its own folder",
        arguments: &["check", "--", "./store"],
        files: &[("store", "#!/bin/sh\nrm -rf \"$(dirname \"$2\")\"\n", true)],
        status: 4,
        says: &["is not there (in the sandbox: nothing)"],
    },
    Row {
        what: "a store that is killed by a signal",
        arguments: &["check", "--", "./store"],
        files: &[("store", "#!/bin/sh\nkill -SEGV $$\n", true)],
        status: 4,
        says: &["signal SIGSEGV"],
    },
    Row {
        what: "a store that closes its standard input at once",
        arguments: &[
            "check",
            "--skip",
            "torn-write,interleave,interleave-crash,linearizable,mutual-exclusion,no-spurious-failure",
            "--skip",
            ON_A_KIND_DISK,
            "--ops",
            "4",
            "--data",
            "db.txt",
            "--add",
            "./store add {data} {id}",
            "--list",
            "./store list {data}",
        ],
        files: &[(
            "store",
            "#!/bin/sh\nexec 0<&-\n[ $1 = add ] && exec flock \"$2.lock\" sh -c 'echo $2 >> \"$1\"' - \"$2\" $3 || cat \"$2\"\n",
            true,
        )],
        status: 0,
        says: &["holds"],
    },
    Row {
        what: "a sandbox in a folder that cannot be written",
        arguments: &["check", "--demo", "--dir", "/proc"],
        files: &[],
        status: 2,
        says: &["--dir", "/proc"],
    },
    Row {
        what: "a sandbox in a folder that is not there",
        arguments: &["check", "--demo", "--dir", "nowhere"],
        files: &[],
        status: 2,
        says: &["--dir", "nowhere"],
    },
    Row {
        what: "no clients",
        arguments: &["check", "--demo", "--clients", "0"],
        files: &[],
        status: 2,
        says: &["--clients", "at least 1"],
    },
    Row {
        what: "no operations",
        arguments: &["check", "--demo", "--ops", "0"],
        files: &[],
        status: 2,
        says: &["--ops", "at least 1"],
    },
    Row {
        what: "no budget",
        arguments: &["check", "--demo", "--budget", "0s"],
        files: &[],
        status: 2,
        says: &["--budget", "--exhaustive"],
    },
    Row {
        what: "a report that cannot be written",
        arguments: &["check", "--demo", "--output", "nowhere/report.json"],
        files: &[],
        status: 2,
        says: &["--output", "nowhere/report.json", "cannot be written"],
    },
    Row {
        what: "an id that is not known",
        arguments: &["check", "--demo", "--only", "no-lost-updates"],
        files: &[],
        status: 2,
        says: &["--only", "did you mean no-lost-update?"],
    },
    Row {
        what: "a file system that cannot be confirmed on",
        arguments: &["check", "--demo", "--confirm", "ext5"],
        files: &[],
        status: 2,
        says: &["--confirm", "ext4, xfs or btrfs"],
    },
    Row {
        what: "a claim on nothing",
        arguments: &["check", "--demo", "--claim", "stress"],
        files: &[],
        status: 2,
        says: &["--claim", "there is no \"stress\""],
    },
    Row {
        what: "something to explain that is not known",
        arguments: &["explain", "valid-dta"],
        files: &[],
        status: 2,
        says: &["did you mean valid-data?"],
    },
    Row {
        what: "a program without the dashes before it",
        arguments: &["check", "./store"],
        files: &[("store", SCRIPT, true)],
        status: 2,
        says: &["a program of the plain convention goes behind --: picklock check -- ./store"],
    },
    Row {
        what: "a command that is misspelt",
        arguments: &["chekc"],
        files: &[],
        status: 2,
        says: &["a similar subcommand exists: 'check'"],
    },
    Row {
        what: "a lock that nobody measures",
        arguments: &["bench", "--locks", "flok"],
        files: &[],
        status: 2,
        says: &["--locks", "did you mean flock?"],
    },
    Row {
        what: "a page that cannot be written, before anything is run",
        arguments: &["check", "--demo", "--html", "none/page.html"],
        files: &[],
        status: 2,
        says: &["--html", "cannot be written", "a folder that exists"],
    },
    Row {
        what: "a baseline to be written, and no file for it",
        arguments: &["check", "--demo", "--update-baseline"],
        files: &[],
        status: 2,
        says: &["--baseline"],
    },
    Row {
        what: "a selection that judges nothing",
        arguments: &["check", "--demo", "--only", "control"],
        files: &[],
        status: 3,
        says: &["inconclusive"],
    },
];

#[test]
fn everything_that_is_wrong_gets_a_clear_error_and_its_own_exit_status() {
    for row in ROWS {
        let folder = tempfile::tempdir().unwrap();
        for (name, content, runs) in row.files {
            if *runs {
                script(folder.path(), name, content);
            } else {
                fs::write(folder.path().join(name), content).unwrap();
            }
        }
        // Sandboxes are created in an otherwise empty folder, so that a leftover shows.
        let base = folder.path().join("base");
        fs::create_dir(&base).unwrap();
        let mut command = picklock(folder.path(), &row.arguments[..1]);
        if row.arguments[0] == "check" && !row.arguments.contains(&"--dir") {
            command.arg("--dir").arg(&base);
        }
        let output = command.args(&row.arguments[1..]).output().unwrap();
        println!("--- {}\n{}{}", row.what, stdout(&output), stderr(&output));
        expect_status(&output, row.status);
        // Joins wrapped lines into one text.
        let text: Vec<String> =
            format!("{}{}", stdout(&output), stderr(&output)).split_whitespace().map(String::from).collect();
        let text = text.join(" ");
        for says in row.says {
            assert!(text.contains(says), "{}: {says:?} is not said in: {text}", row.what);
        }
        let of_this_run = folder.path().to_str().unwrap();
        assert!(!processes().contains(of_this_run), "{}: a process is left", row.what);
        assert_eq!(fs::read_dir(&base).unwrap().count(), 0, "{}: a sandbox is left", row.what);
    }
}

/// Absurdly large numbers, missing folders, unavailable file systems and shards divided too far were detected only
/// after the report was opened, which emptied it.
#[test]
fn a_slip_in_the_arguments_does_not_cost_the_report_of_the_last_run() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.txt");
    fs::write(&report, "of the last run").unwrap();
    let slips: [(&[&str], &str); 8] = [
        (&["--clients", "2000"], "--clients: must be at most 1000"),
        (&["--ops", "0"], "--ops: must be at least 1"),
        (&["--jobs", "300"], "--jobs: must be at most 256"),
        (&["--jobs", "256", "--clients", "1000"], "--jobs: 256000 clients at once need"),
        (&["--jobs", "2", "--shard", "1/10000"], "--jobs: the shard 1/10000 cannot be divided into 2 more"),
        (&["--confirm", "ext4"], "--confirm: ext4 cannot be had here"),
        (&["--dir", "nowhere"], "\"nowhere\" cannot hold a sandbox"),
        (&["--html", "nowhere/page.html"], "--html: \"nowhere/page.html\" cannot be written"),
    ];
    for (slip, told) in slips {
        // The machine may allow more descriptors than any test needs, so their number is limited. A user who may mount
        // here may not do so in its own user namespace.
        let output = Command::new("sh")
            .args(["-c", "ulimit -n 1000; exec unshare --user \"$@\"", "-", env!("CARGO_BIN_EXE_picklock")])
            .args(["check", "--demo", "--output", "report.txt"])
            .args(slip)
            .current_dir(folder.path())
            .output()
            .unwrap();
        expect_status(&output, 2);
        assert!(stderr(&output).contains(told), "{}", stderr(&output));
        assert_eq!(fs::read_to_string(&report).unwrap(), "of the last run", "{slip:?}");
    }
}

#[test]
fn a_full_and_a_read_only_file_system_are_told_apart_from_a_broken_store() {
    let picklock = env!("CARGO_BIN_EXE_picklock");
    for (options, says) in [("size=32k", "No space left on device"), ("ro", "Read-only file system")] {
        let folder = tempfile::tempdir().unwrap();
        // It runs in its own mount namespace, so that nothing stays mounted whatever happens.
        let commands = "mount -t tmpfs -o \"$1\" none \"$2\" && exec \"$3\" check --demo --dir \"$2\"";
        let output = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", commands, "-", options])
            .args([folder.path(), Path::new(picklock)])
            .output()
            .unwrap();
        expect_status(&output, 2);
        assert!(stderr(&output).contains("--dir") && stderr(&output).contains(says), "{}", stderr(&output));
    }
}

fn processes() -> String {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ") + "\n").collect()
}

//! The store as a program beside everything that can be wrong with its file, its file system, its lock and its
//! arguments: a clear error with operation and path, and the data as it was.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use tempfile::TempDir;

/// User and group id without special permissions.
const STRANGER: u32 = 65_534;

/// A form of the store, and the name of its data file.
#[derive(Clone, Copy, Debug)]
struct Form {
    name: &'static str,
    data: &'static str,
    /// Whether a partial last line is treated as left by a kill, and cut off.
    heals_torn_tails: bool,
}

const FORMS: [Form; 8] = [
    Form { name: "document", data: "store.json", heals_torn_tails: false },
    Form { name: "journal", data: "journal.jsonl", heals_torn_tails: true },
    Form { name: "ledger", data: "position.jsonl", heals_torn_tails: true },
    Form { name: "trades", data: "trades.json", heals_torn_tails: false },
    Form { name: "saved", data: "session.json", heals_torn_tails: false },
    Form { name: "in-place", data: "session.json", heals_torn_tails: false },
    Form { name: "context", data: "context.jsonl", heals_torn_tails: true },
    Form { name: "shards", data: "merged.json", heals_torn_tails: false },
];

impl Form {
    fn store(self, folder: &Path, verb: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_picklock-store"));
        command.arg(verb).arg(folder.join(self.data)).stdin(Stdio::null());
        command
    }

    fn add(self, folder: &Path, record: &str) -> Command {
        let mut command = self.store(folder, "add");
        command.args([record, "--as", self.name]);
        if self.name == "shards" {
            command.arg("--merge");
        }
        command
    }

    fn list(self, folder: &Path) -> Command {
        let mut command = self.store(folder, "list");
        command.args(["--as", self.name]);
        command
    }

    /// Creates what must exist before a record can be added.
    fn init(self, folder: &Path) {
        let mut command = match self.name {
            "ledger" => self.store(folder, "deposit"),
            "shards" => self.store(folder, "create"),
            _ => return,
        };
        if self.name == "ledger" {
            command.arg("100");
        }
        succeeds(&mut command);
    }

    fn records(self, folder: &Path) -> Vec<String> {
        let listed = succeeds(&mut self.list(folder));
        String::from_utf8(listed.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// Creates a folder in which the store has the record `r1`.
    fn with_a_record(self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        self.init(folder.path());
        succeeds(&mut self.add(folder.path(), "r1"));
        assert_eq!(self.records(folder.path()), ["r1"], "{self:?}");
        folder
    }
}

fn succeeds(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

/// Runs the command; checks its status, and that its message contains all of `says`.
fn fails(command: &mut Command, status: i32, says: &[&str]) {
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{command:?}: {told}");
    for says in says {
        assert!(told.contains(says), "{says:?} is not said: {told}");
    }
}

/// Returns the content of every file in a folder and below, except the locks: they are empty, and any process that
/// opens one may create it.
fn content(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(content(&path));
        } else if path.is_file() && !is_lock(&path) {
            all.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    all
}

fn is_lock(path: &Path) -> bool {
    path.extension() == Some(OsStr::new("lock"))
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Runs a shell script in its own mount namespace, so that nothing stays mounted whatever happens; `$0` is the folder,
/// `arguments` are `$1` and so on.
fn in_a_mount_namespace(folder: &Path, script: &str, arguments: &[&OsStr]) -> Output {
    // A user with the right to mount needs no user namespace, and in some environments cannot create one.
    let may_mount = Command::new("unshare").args(["--mount", "true"]).stderr(Stdio::null()).status();
    let mut command = Command::new("unshare");
    if !may_mount.is_ok_and(|status| status.success()) {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "sh", "-euc", script]).arg(folder).args(arguments);
    succeeds(&mut command)
}

#[test]
fn what_is_no_data_of_the_store_is_told_and_left_as_it_is() {
    let deep = "[".repeat(200_000);
    let contents: [(&str, &[u8], bool); 8] = [
        ("empty", b"", false),
        ("cut", b"{\"records\":[\"r", true),
        ("NUL-filled", &[0; 5000], true),
        ("a line of NULs", b"\0\0{}\n", true),
        ("of another shape", b"{\"somebody\":\"else's\"}\n", false),
        ("not UTF-8", b"\xff\xfe{\"records\":[]}\n", false),
        ("deep", deep.as_bytes(), true),
        ("more behind it", b"{\"records\":[]}\n}\n", false),
    ];
    for form in FORMS {
        for (what, bytes, is_one_torn_line) in contents {
            // An empty journal is one without records; half a line is what a kill leaves of the first append.
            let is_fine = form.heals_torn_tails && (is_one_torn_line || what == "empty");
            let folder = tempfile::tempdir().unwrap();
            let data = folder.path().join(form.data);
            fs::write(&data, bytes).unwrap();
            if is_fine {
                assert!(form.records(folder.path()).is_empty(), "{form:?} {what}");
                continue;
            }
            let name = data.to_str().unwrap();
            let says = ["cannot read", name, "corrupt", "left as it is"];
            fails(&mut form.list(folder.path()), 1, &says);
            assert_eq!(fs::read(&data).unwrap(), bytes, "{form:?} {what}");
            // Appending to a journal does not check its content.
            if form.name != "journal" {
                fails(&mut form.add(folder.path(), "r2"), 1, &says);
                assert_eq!(fs::read(&data).unwrap(), bytes, "{form:?} {what}");
            }
        }
    }
}

/// A lock with read permission only is opened for reading, and that waited for the other end of a pipe.
#[test]
fn a_pipe_in_the_place_of_the_lock_is_told_and_not_waited_for() {
    let programs = tempfile::tempdir().unwrap();
    for form in FORMS {
        let folder = form.with_a_record();
        let lock = folder.path().join(format!("{}.lock", form.data));
        fs::remove_file(&lock).unwrap();
        nix::unistd::mkfifo(&lock, nix::sys::stat::Mode::S_IRUSR).unwrap();
        set_mode(&lock, 0o444);
        set_mode(folder.path(), 0o755);
        let mut add = as_a_stranger(&form.add(folder.path(), "r2"), programs.path());
        fails(&mut add, 1, &["cannot"]);
        fails(
            &mut form.add(folder.path(), "r2"),
            1,
            &["cannot", lock.to_str().unwrap(), "not a regular file"],
        );
    }
}

#[test]
fn a_folder_in_the_place_of_the_data_or_of_the_lock_is_told() {
    for form in FORMS {
        for suffix in ["", ".lock"] {
            let folder = tempfile::tempdir().unwrap();
            let there = folder.path().join(format!("{}{suffix}", form.data));
            fs::create_dir(&there).unwrap();
            fails(&mut form.add(folder.path(), "r1"), 1, &["cannot", there.to_str().unwrap()]);
            assert!(there.is_dir() && content(&there).is_empty(), "{form:?}");
        }
    }
}

#[test]
fn names_with_spaces_newlines_and_bytes_that_are_no_text_and_links_that_dangle_are_names_like_others() {
    for form in FORMS {
        for name in [&b"a b\nc"[..], b"a\xff\xfe", b"link", b"-", b"sub/../a"] {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join("sub")).unwrap();
            symlink("elsewhere", folder.path().join("link")).unwrap();
            let data = folder.path().join(OsStr::from_bytes(name));
            let store = |verb: &str, more: &[&str]| {
                let mut command = Command::new(env!("CARGO_BIN_EXE_picklock-store"));
                command.arg(verb).arg(&data).args(more);
                succeeds(&mut command)
            };
            match form.name {
                "ledger" => drop(store("deposit", &["100"])),
                "shards" => drop(store("create", &[])),
                _ => {}
            }
            store("add", &["r1", "--as", form.name]);
            assert_eq!(store("list", &["--as", form.name]).stdout, b"r1\n", "{form:?} {name:?}");
            let link = fs::symlink_metadata(folder.path().join("link")).unwrap();
            assert!(link.is_symlink(), "{form:?}");
        }
    }
}

#[test]
fn a_full_file_system_keeps_what_was_there_and_takes_more_once_there_is_room() {
    // 64 KiB; the record is larger than the free space of a page.
    let script = r#"
        mount -t tmpfs -o size=64k none "$0"
        case $2 in ledger) "$1" deposit "$0/$3" 100 ;; shards) "$1" create "$0/$3" ;; esac
        "$1" add "$0/$3" r1 --as "$2"
        "$1" list "$0/$3" --as "$2" >/dev/null
        head -c 100k /dev/zero >"$0/filler" 2>/dev/null || true
        status=0; "$1" add "$0/$3" "$4" --as "$2" || status=$?
        echo "status $status"
        rm "$0/filler"
        echo "then $("$1" list "$0/$3" --as "$2")"
        "$1" add "$0/$3" r2 --as "$2"
        echo "later" $("$1" list "$0/$3" --as "$2")
        ls -A "$0" | grep -c tmp || true
    "#;
    for form in FORMS {
        let folder = tempfile::tempdir().unwrap();
        let large = "x".repeat(20_000);
        let store = OsStr::new(env!("CARGO_BIN_EXE_picklock-store"));
        let arguments = [store, OsStr::new(form.name), OsStr::new(form.data), OsStr::new(&large)];
        let output = in_a_mount_namespace(folder.path(), script, &arguments);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "status 1\nthen r1\nlater r1 r2\n0\n",
            "{form:?}: {told}"
        );
        let path = folder.path().join(form.data);
        assert!(told.contains("No space left on device"), "{form:?}: {told}");
        let stem = path.parent().unwrap().to_str().unwrap();
        assert!(told.contains("cannot write") && told.contains(stem), "{form:?}: {told}");
    }
}

#[test]
fn a_read_only_file_system_can_be_read_and_is_told_to_who_writes() {
    let script = r#"
        mount --bind "$0" "$0" && mount -o remount,bind,ro "$0"
        status=0; "$1" add "$0/$3" r2 --as "$2" || status=$?
        echo "status $status"
        "$1" list "$0/$3" --as "$2"
    "#;
    for form in FORMS {
        let folder = form.with_a_record();
        let before = content(folder.path());
        let store = OsStr::new(env!("CARGO_BIN_EXE_picklock-store"));
        let arguments = [store, OsStr::new(form.name), OsStr::new(form.data)];
        let output = in_a_mount_namespace(folder.path(), script, &arguments);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "status 1\nr1\n", "{form:?}: {told}");
        assert!(told.contains("cannot") && told.contains("Read-only file system"), "{form:?}: {told}");
        assert!(told.contains(folder.path().to_str().unwrap()), "{form:?}: {told}");
        assert_eq!(content(folder.path()), before, "{form:?}");
    }
}

/// Runs the command as an unprivileged user, with a copy of the program in `folder`, because the original may be in a
/// folder that this user cannot access.
fn as_a_stranger(command: &Command, folder: &Path) -> Command {
    if !nix::unistd::geteuid().is_root() {
        let mut same = Command::new(command.get_program());
        same.args(command.get_args());
        return same;
    }
    let program = folder.join("program");
    if !program.exists() {
        fs::copy(command.get_program(), &program).unwrap();
        set_mode(&program, 0o755);
        set_mode(folder, 0o755);
    }
    let mut changed = Command::new(&program);
    changed.args(command.get_args()).uid(STRANGER).gid(STRANGER);
    changed
}

#[test]
fn who_may_not_write_the_folder_or_take_the_lock_or_read_the_data_is_told_and_harms_nothing() {
    let programs = tempfile::tempdir().unwrap();
    for form in FORMS {
        for what in ["the folder", "the lock", "the data"] {
            let folder = form.with_a_record();
            let folder = folder.path();
            let before = content(folder);
            let lock = folder.join(format!("{}.lock", form.data));
            for path in before.keys() {
                set_mode(path, if what == "the data" { 0o000 } else { 0o666 });
                set_mode(path.parent().unwrap(), 0o777);
            }
            match what {
                // Owned by another user, without permissions for others.
                "the lock" if nix::unistd::geteuid().is_root() => {
                    set_mode(&lock, 0o600);
                    chown(&lock, Some(1234), Some(1234)).unwrap();
                }
                "the lock" => set_mode(&lock, 0o000),
                "the folder" => {
                    set_mode(&lock, 0o666);
                    set_mode(folder, 0o555);
                }
                _ => set_mode(&lock, 0o666),
            }
            let adding = as_a_stranger(&form.add(folder, "r2"), programs.path()).output().unwrap();
            set_mode(folder, 0o755);
            let told = String::from_utf8_lossy(&adding.stderr).into_owned();
            for path in before.keys() {
                set_mode(path, 0o644);
            }
            let after = content(folder);
            // A file with write permission for all can be appended to in a folder that takes no new file.
            if what == "the folder" && adding.status.success() {
                assert_eq!(form.records(folder), ["r1", "r2"], "{form:?}");
                continue;
            }
            assert_eq!(adding.status.code(), Some(1), "{form:?} {what}: {told}");
            assert!(told.contains("cannot") && told.contains("Permission denied"), "{form:?}: {told}");
            assert!(told.contains(folder.to_str().unwrap()), "{form:?} {what}: {told}");
            if form.name == "shards" {
                // The record may be in its writer's file already, and the merge have failed.
                for (path, bytes) in &before {
                    assert!(after[path].starts_with(bytes), "{form:?} {what}: {path:?}");
                }
            } else {
                assert_eq!(after, before, "{form:?} {what}");
            }
        }
    }
}

/// Waits until the kernel lists a waiter for the lock file with this inode, which should be that process.
fn wait_for_a_waiter(inode: u64, waiter: &mut Child) {
    let file = format!(":{inode} ");
    let is_waited_for = || {
        let locks = fs::read_to_string("/proc/locks").unwrap();
        locks.lines().any(|line| line.contains("->") && line.contains(&file))
    };
    while !is_waited_for() {
        assert!(waiter.try_wait().unwrap().is_none(), "it did not wait for the lock");
        thread::yield_now();
    }
}

#[test]
fn a_lock_file_that_is_deleted_while_somebody_waits_for_it_lets_nobody_in_beside_another() {
    for form in FORMS {
        let folder = form.with_a_record();
        let lock = folder.path().join(format!("{}.lock", form.data));
        let holder = File::open(&lock).unwrap();
        holder.lock().unwrap();
        let inode = holder.metadata().unwrap().ino();
        let mut waiter = form.add(folder.path(), "r2").stderr(Stdio::piped()).spawn().unwrap();
        wait_for_a_waiter(inode, &mut waiter);
        fs::remove_file(&lock).unwrap();
        // A newcomer creates and locks a new file.
        let newcomer = File::create_new(&lock).unwrap();
        newcomer.lock().unwrap();
        holder.unlock().unwrap();
        // The waiter must not enter while the newcomer holds the lock.
        wait_for_a_waiter(newcomer.metadata().unwrap().ino(), &mut waiter);
        newcomer.unlock().unwrap();
        assert!(waiter.wait().unwrap().success(), "{form:?}");
        assert_eq!(form.records(folder.path()), ["r1", "r2"], "{form:?}");
    }
}

#[test]
fn a_clock_that_goes_back_hides_no_change() {
    for form in FORMS {
        let folder = form.with_a_record();
        for record in ["r2", "r3"] {
            // Set every file to the oldest time before it is read again.
            for path in content(folder.path()).into_keys() {
                let times = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
                File::options().write(true).open(path).unwrap().set_times(times).unwrap();
            }
            succeeds(&mut form.add(folder.path(), record));
        }
        assert_eq!(form.records(folder.path()), ["r1", "r2", "r3"], "{form:?}");
    }
}

/// A file that claims to be larger than the memory is reported, instead of the process being killed for it.
#[test]
fn a_file_larger_than_the_memory_is_told() {
    for form in FORMS {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join(form.data);
        let file = File::create(&data).unwrap();
        // Its last byte ends a line, so that it is not a torn one.
        file.write_all_at(b"\n", (1 << 27) - 1).unwrap();
        let mut limited = Command::new("sh");
        let store = form.add(folder.path(), "r1");
        limited.args(["-c", "ulimit -v 100000 && exec \"$0\" \"$@\""]);
        limited.arg(store.get_program()).args(store.get_args());
        fails(&mut limited, 1, &["cannot read", data.to_str().unwrap(), "memory"]);
        assert_eq!(file.metadata().unwrap().len(), 1 << 27, "{form:?}");
    }
}

#[test]
fn amounts_that_are_none_are_usage_errors_and_make_nothing() {
    let amounts = [
        "NaN",
        "inf",
        "-inf",
        "-1",
        "-0.5",
        "1e400",
        "1e3",
        "0x10",
        "",
        " ",
        "1.23456",
        "99999999999999999999",
    ];
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("position.jsonl");
    let store = || Command::new(env!("CARGO_BIN_EXE_picklock-store"));
    for amount in amounts {
        fails(store().arg("deposit").arg(&data).args(["--", amount]), 2, &["amount", amount]);
        fails(store().arg("buy").arg(&data).args(["--", "X", amount]), 2, &[amount]);
        fails(store().arg("close-trade").arg(&data).args(["--", "t", amount]), 2, &[amount]);
        for option in ["--entry", "--stop", "--target", "--size"] {
            let option = format!("{option}={amount}");
            fails(store().arg("open-trade").arg(&data).args(["t", &option]), 2, &[amount]);
        }
    }
    for seconds in ["NaN", "inf", "-1", "1e400", "soon"] {
        let wait = format!("--wait={seconds}");
        fails(store().arg("add").arg(&data).args(["r1", &wait]), 2, &["--wait"]);
    }
    assert!(content(folder.path()).is_empty());
    // Each fits, but their sum does not: it is refused, not wrapped round.
    let most = "1844674407370955";
    succeeds(store().arg("deposit").arg(&data).arg(most));
    let before = fs::read(&data).unwrap();
    fails(store().arg("deposit").arg(&data).arg(most), 3, &["refused"]);
    fails(store().arg("buy").arg(&data).args(["X", most, "--price", most]), 3, &["refused"]);
    fails(store().arg("sell").arg(&data).args(["X", "1"]), 3, &["refused"]);
    assert_eq!(fs::read(&data).unwrap(), before);
}

#[test]
fn a_name_of_a_record_that_is_no_line_is_a_usage_error() {
    for form in FORMS {
        let folder = tempfile::tempdir().unwrap();
        for record in ["", "a\nb", "a\rb"] {
            fails(&mut form.add(folder.path(), record), 2, &["one line"]);
        }
        assert!(content(folder.path()).is_empty(), "{form:?}");
    }
}

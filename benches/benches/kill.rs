//! Measures kills per second beside `strace -f -e inject=…:signal=KILL`, and derived crash states per second.
//!
//! Run it with `ci/speed`, which installs strace, builds everything, and puts the table into the README. Both sides run
//! on a memory file system, in alternating turns, with a fresh folder and a look at the data for every kill, one job
//! each; the table shows the medians over the turns. strace kills at the first `flock`, `write`, `fsync` and `rename`
//! of the store, picklock before every visible call.

use std::env;
use std::fs;
use std::hint::black_box;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use picklock::call::Traced;
use picklock::observation::{FileState, Subject};
use picklock::persist::{CrashState, crash_states};
use picklock::runner::{ExecEnv, First, Pinned, Stop, control};
use picklock::sandbox::Sandbox;
use picklock::scenario::crash::{add, alone};
use picklock::scenario::script::{InjectionKind, Script};
use picklock::target::Target;
use picklock::target::flags::Flags;
use picklock::tracer::Templates;

const TURNS: usize = 7;
/// Duration of one side of a turn.
const TURN: Duration = Duration::from_millis(1500);
/// Calls at which strace kills.
const KILLED_AT: [&str; 4] = ["flock", "write", "fsync", "rename"];
/// Number of appends of the store whose crash states are derived.
const APPENDS: u32 = 400;
/// Number of calls whose stops are measured.
const STOPS: u32 = 20_000;

const STORE: &str = r#"import fcntl, json, os, sys
verb, path = sys.argv[1], sys.argv[2]
def load():
    try:
        with open(path) as f:
            return json.load(f)
    except FileNotFoundError:
        return []
if verb == "list":
    print("\n".join(load()))
    sys.exit()
with open(path + ".lock", "a") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    records = load() + [sys.argv[3]]
    with open(path + ".tmp", "w") as f:
        json.dump(records, f)
        f.flush()
        os.fsync(f.fileno())
    os.rename(path + ".tmp", path)
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    os.fsync(folder)
"#;

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let python = python(folder.path(), "store", STORE);
    let native = Target::embedded(Path::new("/"));
    println!("| what | figure | beside | ratio |\n| --- | --- | --- | --- |");
    for (name, target) in [("CPython", &python), ("native", &native)] {
        let bench = Bench::new(target);
        let (mut copied, mut fresh, mut strace) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..TURNS {
            strace.push(bench.strace());
            copied.push(bench.kills(true));
            fresh.push(bench.kills(false));
        }
        let (copied, fresh, strace) = (median(copied), median(fresh), median(strace));
        let row = |what: &str, rate: f64| {
            println!("| {what}, {name} store | {rate:.0}/s | strace {strace:.0}/s | {:.1}× |", rate / strace);
        };
        row("kills", copied);
        row("kills without copies", fresh);
    }
    derived(folder.path(), &native);
    stops(folder.path());
}

/// Makes a Python store, started by the interpreter itself.
fn python(folder: &Path, name: &str, text: &str) -> Target {
    let found = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    let interpreter = String::from_utf8(found.expect("python3").stdout).expect("a path");
    let path = folder.join(name);
    fs::write(&path, format!("#!{} -SEI\n{text}", interpreter.trim())).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a program");
    let program = [path.to_str().expect("a path").to_owned()];
    Flags::default().into_plain_target(&program, Path::new("/")).expect("a target")
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Measures how often `what` can be done per second.
fn rate(mut what: impl FnMut()) -> f64 {
    let began = Instant::now();
    let mut done = 0.0;
    while began.elapsed() < TURN {
        what();
        done += 1.0;
    }
    done / began.elapsed().as_secs_f64()
}

/// A target with its sandbox, and the results of a baseline run.
struct Bench<'a> {
    target: &'a Target,
    sandbox: Sandbox,
    stop: Stop,
    subject: Subject,
    calls: Traced,
}

impl<'a> Bench<'a> {
    fn new(target: &'a Target) -> Self {
        let sandbox = Sandbox::create(None, &target.data, Some(&built_binary()), &|_| ()).expect("a sandbox");
        let stop = Stop::new().expect("a descriptor");
        let stage = ExecEnv::new(target, &sandbox, &stop, &|| ());
        let control = control(&stage).expect("a control");
        assert_eq!(control.failure, None);
        let calls = picklock::runner::trace(&stage, &add(2)).expect("a trace");
        drop(stage);
        Self { target, sandbox, stop, subject: control.subject, calls }
    }

    fn stage(&self, copies: bool) -> (ExecEnv<'_>, First) {
        let mut stage = ExecEnv::new(self.target, &self.sandbox, &self.stop, &|| ());
        stage.templates = copies.then(|| Mutex::new(Templates::default()));
        let first = stage.first().expect("a first record");
        (stage, first)
    }

    /// Measures kills by picklock, before one visible call after another.
    fn kills(&self, copies: bool) -> f64 {
        let (stage, first) = self.stage(copies);
        let _pinned = Pinned::new();
        let points = u32::try_from(self.calls.calls.len()).expect("few calls") + 1;
        let mut points = (1..=points).cycle();
        rate(|| {
            let point = points.next().unwrap_or(1);
            let script = alone(&add(2), &self.calls.calls, point, InjectionKind::Kill);
            let only_the_kill = Script { acts: script.acts[..1].to_vec() };
            let played =
                stage.play("crash", &only_the_kill, &first, &self.subject, 1, copies).expect("a run");
            assert!(played.was_injected);
            black_box(played.observation);
        })
    }

    /// Measures kills by strace.
    fn strace(&self) -> f64 {
        let (stage, _) = self.stage(false);
        let dir = self.sandbox.dir();
        let (program, arguments) = {
            let values = self.sandbox.values();
            let values = picklock::target::Values { id: "r000002".into(), n: 2, client: 1, ..values };
            self.target.ops.add.render(&values, &self.target.folder)
        };
        let mut kinds = KILLED_AT.iter().cycle();
        let rate = rate(|| {
            self.sandbox.lay_first().expect("a fresh folder");
            let kind = kinds.next().unwrap_or(&"rename");
            // With --seccomp-bpf such kills may be dropped.
            let status = Command::new("strace")
                .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={kind}")])
                .args(["-e", &format!("inject={kind}:signal=KILL:when=1")])
                .arg(&program)
                .args(&arguments)
                .current_dir(&dir)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .expect("strace");
            assert!(!status.success(), "it was not killed at {kind}");
            black_box(self.sandbox.look(self.target, 0));
        });
        drop(stage);
        rate
    }
}

/// Measures derived crash states: judged in memory, laid out and read, and given to the embedded store.
fn derived(folder: &Path, native: &Target) {
    let store = format!(
        "import json, os, sys\nif sys.argv[1] == 'list':\n    print('\\n'.join(json.load(open(sys.argv[2]))))\n    sys.exit()\n\
         records = json.load(open(sys.argv[2])) if os.path.exists(sys.argv[2]) else []\n\
         log = os.open(sys.argv[2] + '.log', os.O_WRONLY | os.O_CREAT | os.O_APPEND)\n\
         for _ in range({APPENDS}): os.write(log, b'x' * 100 + b'\\n')\n\
         with open(sys.argv[2] + '.tmp', 'w') as new: json.dump(records + [sys.argv[3]], new)\n\
         os.rename(sys.argv[2] + '.tmp', sys.argv[2])\n"
    );
    let target = python(folder, "appends", &store);
    let bench = Bench::new(&target);
    let (stage, _) = bench.stage(false);
    let before = bench.sandbox.tree().expect("a tree");
    let states = crash_states(&before, &bench.calls.calls).expect("states").collect::<Vec<_>>();
    drop(stage);
    let count = states.len() as f64;
    let in_memory = median(
        (0..TURNS)
            .map(|_| {
                let judge = |state: &CrashState| {
                    let content = state.tree.content("store.json");
                    let whole =
                        content.map_or(FileState::Missing, |content| target.data.format.examine(content));
                    black_box(target.examine(content, whole));
                };
                let derive = || {
                    crash_states(&before, &bench.calls.calls)
                        .expect("states")
                        .for_each(|state| judge(&state));
                };
                count * rate(derive)
            })
            .collect(),
    );
    println!(
        "| derived crash states, derived and judged in memory ({count} of one operation) | {in_memory:.0}/s | aim 5000/s | {:.1}× |",
        in_memory / 5000.0
    );
    let mut next = states.iter().cycle();
    let laid_out = median(
        (0..TURNS)
            .map(|_| {
                rate(|| {
                    let state = next.next().expect("a state");
                    bench.sandbox.lay_tree(&state.tree).expect("a sandbox");
                    black_box(bench.sandbox.look(&target, 0));
                })
            })
            .collect(),
    );
    println!(
        "| derived crash states, laid out and read | {laid_out:.0}/s | aim 1000/s | {:.1}× |",
        laid_out / 1000.0
    );
    let bench = Bench::new(native);
    let (stage, first) = bench.stage(true);
    let before = bench.sandbox.tree().expect("a tree");
    let states: Vec<CrashState> = crash_states(&before, &bench.calls.calls).expect("states").collect();
    let _pinned = Pinned::new();
    let mut next = states.iter().cycle();
    let given = median(
        (0..TURNS)
            .map(|_| {
                rate(|| {
                    let state = next.next().expect("a state");
                    let script = alone(&add(2), &bench.calls.calls, state.point, InjectionKind::Kill);
                    black_box(
                        stage
                            .play_state("crash", &state.tree, &script, &first, &bench.subject, 1)
                            .expect("a run"),
                    );
                })
            })
            .collect(),
    );
    println!(
        "| derived crash states, with the native store's list, add, list | {given:.0}/s | aim 200/s | {:.1}× |",
        given / 200.0
    );
}

/// Measures the cost of one stop: a store that looks at a file in the sandbox many times, traced and not.
fn stops(folder: &Path) {
    let store = format!(
        "import json, os, sys\nif sys.argv[1] == 'list':\n    print('\\n'.join(json.load(open(sys.argv[2]))))\n    sys.exit()\n\
         records = json.load(open(sys.argv[2])) if os.path.exists(sys.argv[2]) else []\n\
         with open(sys.argv[2] + '.tmp', 'w') as new: json.dump(records + [sys.argv[3]], new)\n\
         os.rename(sys.argv[2] + '.tmp', sys.argv[2])\n\
         if sys.argv[3] == 'r000002':\n    for _ in range({STOPS}): os.stat('/')\n"
    );
    let target = python(folder, "stats", &store);
    let bench = Bench::new(&target);
    let (stage, _) = bench.stage(false);
    let _pinned = Pinned::new();
    let time = |what: &dyn Fn()| {
        let began = Instant::now();
        what();
        began.elapsed().as_secs_f64()
    };
    let bare = bare_loop(folder);
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let traced = time(&|| {
            black_box(picklock::runner::trace(&stage, &add(2)).expect("a trace"));
        });
        let plain = time(&|| {
            bench.sandbox.lay_first().expect("a fresh folder");
            let values =
                picklock::target::Values { id: "r000002".into(), n: 2, client: 1, ..bench.sandbox.values() };
            let (program, arguments) = target.ops.add.render(&values, &target.folder);
            assert!(Command::new(program).args(arguments).status().expect("a store").success());
        });
        ours.push((traced - plain) / f64::from(STOPS) * 1e6);
        let began = Instant::now();
        assert!(Command::new(&bare).arg(STOPS.to_string()).status().expect("the bare loop").success());
        floor.push(began.elapsed().as_secs_f64() / f64::from(STOPS) * 1e6);
    }
    let (ours, floor) = (median(ours), median(floor));
    println!(
        "| one stop of a call that turns out not to be visible | {ours:.1} µs | a loop that only waits and continues \
         {floor:.1} µs | {:.1}× |",
        ours / floor
    );
}

/// Builds a tracer that only continues at each stop: the minimum cost of a stop on this machine.
fn bare_loop(folder: &Path) -> PathBuf {
    let (source, program) = (folder.join("bare.c"), folder.join("bare"));
    fs::write(&source, BARE_LOOP).expect("a file");
    let built = Command::new("cc").args(["-O2", "-w", "-o"]).arg(&program).arg(&source).status();
    assert!(built.expect("cc").success());
    program
}

const BARE_LOOP: &str = r#"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int count, char **words) {
    long calls = atol(words[1]);
    pid_t child = fork();
    if (!child) {
        raise(SIGSTOP);
        struct sock_filter filter[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_newfstatat, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog program = {4, filter};
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
        struct stat seen;
        for (long call = 0; call < calls; call++) syscall(SYS_newfstatat, -100, "/", &seen, 0);
        _exit(0);
    }
    int status;
    ptrace(PTRACE_SEIZE, child, 0, PTRACE_O_TRACESECCOMP | PTRACE_O_EXITKILL);
    kill(child, SIGCONT);
    while (waitpid(-1, &status, __WALL) > 0 && !WIFEXITED(status)) ptrace(PTRACE_CONT, child, 0, 0);
    return !WIFEXITED(status) || WEXITSTATUS(status);
}
"#;

fn built_binary() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").join("target"),
        PathBuf::from,
    );
    let path = target.join("release/picklock");
    assert!(path.exists(), "{path:?} is not built: cargo build --release");
    path
}

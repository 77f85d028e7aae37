//! Tests how single system calls are traced.

use std::path::Path;

use serde_json::{Value, json};

use crate::programs::python_script;
use crate::{expect_status, picklock, stdout};

/// Head of each store here: `data` is the path of the data file, `folder` its folder, `at` a path in that folder, and
/// `call` makes a system call by its number on x86-64.
const HEAD: &str = "import ctypes, fcntl, mmap, os, socket, struct, sys\n\
                    data = sys.argv[2]\n\
                    folder = os.path.dirname(data)\n\
                    at = lambda name: os.path.join(folder, name)\n\
                    libc = ctypes.CDLL(None, use_errno=True)\n\
                    def call(*arguments):\n\
                    \x20   result = libc.syscall(*arguments)\n\
                    \x20   if result == -1: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))\n\
                    \x20   return result\n";

/// Returns the trace of an `add` of a Python store, whose first, untraced `add` runs the same text.
#[track_caller]
fn trace(folder: &Path, text: &str) -> Value {
    python_script(folder, "store", &format!("{HEAD}{text}"));
    let output = picklock(folder, &["trace", "--format", "json", "--", "./store"]).output().unwrap();
    expect_status(&output, 0);
    let trace: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(trace["exit"], 0, "{trace:#}");
    trace
}

/// Returns the effects of the calls of this name, in order; null for none.
fn effects(trace: &Value, name: &str) -> Vec<Value> {
    let calls = trace["calls"].as_array().unwrap().iter();
    calls.filter(|call| call["name"] == name).map(|call| call["effect"].clone()).collect()
}

/// `pwritev2` was taken for a write at the given offset, whatever its flags: a correct store was reported to overwrite
/// its own appends.
#[test]
fn flags_of_a_vector_call_place_it() {
    let folder = tempfile::tempdir().unwrap();
    let trace = trace(
        folder.path(),
        "fd = os.open(data, os.O_RDWR | os.O_CREAT | os.O_TRUNC)\n\
         os.write(fd, b'0123456789')\n\
         os.pwritev(fd, [b'ab'], 0, os.RWF_APPEND | os.RWF_DSYNC)\n\
         os.lseek(fd, 4, 0)\n\
         os.pwritev(fd, [b'c', b'd'], -1, 0)\n\
         os.pwritev(fd, [b'e'], 1, os.RWF_SYNC)\n\
         os.lseek(fd, 4, 0)\n\
         os.preadv(fd, [bytearray(3)], -1, os.RWF_HIPRI)\n",
    );
    let at = |effect: &Value| (effect["written"]["offset"].clone(), effect["written"]["appends"].clone());
    let written: Vec<(Value, Value)> = effects(&trace, "pwritev2").iter().map(at).collect();
    assert_eq!(
        written,
        [(json!(10), json!(true)), (json!(4), json!(false)), (json!(1), json!(false))],
        "{trace:#}"
    );
    let read = &effects(&trace, "preadv2")[0]["read"];
    assert_eq!((&read["offset"], &read["length"]), (&json!(4), &json!(3)), "{trace:#}");
    let shown = trace["calls"].to_string();
    assert!(shown.contains("RWF_DSYNC|RWF_APPEND") && shown.contains("RWF_HIPRI"), "{shown}");
}

/// An unknown flag may mean anything: such a write was taken for one at its offset.
#[test]
fn an_unknown_flag_is_not_modelled() {
    let folder = tempfile::tempdir().unwrap();
    let trace = trace(
        folder.path(),
        "fd = os.open(data, os.O_RDWR | os.O_CREAT)\n\
         try: os.pwritev(fd, [b'ab'], 0, 0x40)\n\
         except OSError: os.write(fd, b'ab')\n",
    );
    let [effect] = effects(&trace, "pwritev2").try_into().unwrap();
    assert!(effect == "other" || effect.is_null(), "{trace:#}");
    assert!(trace["calls"].to_string().contains("0x40"));
}

/// `F_SETFL` sets `O_APPEND` after the open, and such appends were taken for writes at their offset.
#[test]
fn an_append_is_told_from_a_write() {
    let folder = tempfile::tempdir().unwrap();
    let trace = trace(
        folder.path(),
        "fd = os.open(data, os.O_RDWR | os.O_CREAT | os.O_TRUNC)\n\
         os.write(fd, b'abc')\n\
         fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)\n\
         os.pwrite(fd, b'de', 0)\n\
         os.write(fd, b'f')\n",
    );
    let written = |offset: u64, length: u64, appends: bool| json!({ "written": { "file": 1, "offset": offset, "length": length, "appends": appends } });
    assert_eq!(effects(&trace, "write"), [written(0, 3, false), written(5, 1, true)]);
    assert_eq!(effects(&trace, "pwrite64"), [written(3, 2, true)]);
}

#[test]
fn reads_have_offsets_and_see_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let trace = trace(
        folder.path(),
        "fd = os.open(data, os.O_RDWR | os.O_CREAT | os.O_TRUNC)\n\
         os.write(fd, b'0123456789')\n\
         os.lseek(fd, 2, 0)\n\
         os.read(fd, 5)\n\
         os.read(fd, 5)\n\
         os.read(fd, 5)\n\
         os.pread(fd, 4, 1)\n\
         os.readv(fd, [bytearray(2), bytearray(2)])\n\
         os.sendfile(1, fd, 6, 3)\n\
         mmap.mmap(fd, 10, prot=mmap.PROT_READ)\n",
    );
    let read = |offset: u64, length: u64, at_end: bool| json!({ "read": { "file": 1, "offset": offset, "length": length, "at_end": at_end } });
    assert_eq!(effects(&trace, "read"), [read(2, 5, false), read(7, 3, true), read(10, 0, true)]);
    assert_eq!(effects(&trace, "pread64"), [read(1, 4, false)]);
    assert_eq!(effects(&trace, "readv"), [read(10, 0, true)]);
    assert_eq!(effects(&trace, "sendfile"), [read(6, 3, false)]);
    assert_eq!(effects(&trace, "mmap"), [read(0, 10, true)]);
}

/// A store that seeks to the end or requests the status of a file reads its size, even before it opens it.
#[test]
fn a_size_that_is_read_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let trace = trace(
        folder.path(),
        "os.path.exists(at('none'))\n\
         if sys.argv[-1].endswith('1'): open(data, 'w').close()\n\
         os.stat(data)\n\
         fd = os.open(data, os.O_RDWR)\n\
         os.fstat(fd)\n\
         os.lseek(fd, 0, os.SEEK_END)\n\
         os.lseek(fd, 0, os.SEEK_SET)\n",
    );
    let size = json!({ "size-read": { "file": 1 } });
    // The C library uses one call for all of them, or one for each.
    let looked: Vec<Value> =
        ["stat", "newfstatat", "fstat"].iter().flat_map(|name| effects(&trace, name)).collect();
    assert_eq!(looked, [Value::Null, size.clone(), size.clone()], "{trace:#}");
    assert_eq!(effects(&trace, "lseek"), [size, Value::Null], "{trace:#}");
}

/// Each of these calls was missing in the table, or not distinguished from others. A row has lines that act on what
/// earlier lines left, the line with the call, the call's name, and its effect.
#[test]
fn calls_are_seen_with_what_they_do() {
    let times = "struct.pack('qqqq', 1, 0, 1, 0)";
    let table = [
        (
            "",
            "os.mkfifo(at('pipe'), 0o600)",
            "mknodat",
            json!({ "special-made": { "path": "pipe", "special": "fifo", "mode": 0o600 } }),
        ),
        (
            "s = socket.socket(socket.AF_UNIX)",
            "s.bind(at('sock')); os.chmod(at('sock'), 0o700)",
            "chmod",
            json!({ "mode-set": { "path": "sock", "mode": 0o700 } }),
        ),
        (
            "os.umask(0o77); s = socket.socket(socket.AF_UNIX)",
            "s.bind(at('sock'))",
            "bind",
            json!({ "special-made": { "path": "sock", "special": "socket", "mode": 0o700 } }),
        ),
        ("s = socket.socket(socket.AF_UNIX)", "s.bind('\\0sock')", "bind", json!("none")),
        ("", "call(132, data.encode(), None)", "utime", json!(null)),
        ("", &format!("call(235, data.encode(), {times})"), "utimes", json!(null)),
        ("", &format!("call(261, -100, data.encode(), {times})"), "futimesat", json!(null)),
        ("", "os.utime(data)", "utimensat", json!(null)),
        (
            "",
            "call(452, -100, data.encode(), 0o600, 0)",
            "fchmodat2",
            json!({ "mode-set": { "path": "store.json", "mode": 0o600 } }),
        ),
        (
            "",
            "call(452, fd, b'', 0o600, 0x1000)",
            "fchmodat2",
            json!({ "mode-set": { "path": "store.json", "mode": 0o600, "file": 1 } }),
        ),
        (
            "d = os.open(folder, os.O_RDONLY)",
            "call(78, d, ctypes.create_string_buffer(4096), 4096)",
            "getdents",
            json!(null),
        ),
        (
            "",
            "os.setxattr(data, 'user.n', b'12')",
            "setxattr",
            json!({ "attribute-set": { "path": "store.json", "name": "user.n" } }),
        ),
        (
            "",
            "os.setxattr(fd, 'user.n', b'12')",
            "fsetxattr",
            json!({ "attribute-set": { "path": "store.json", "file": 1, "name": "user.n" } }),
        ),
        ("os.setxattr(fd, 'user.n', b'1')", "os.getxattr(data, 'user.n')", "getxattr", json!(null)),
        ("", "os.listxattr(fd)", "flistxattr", json!(null)),
        (
            "os.setxattr(fd, 'user.n', b'1')",
            "os.removexattr(data, 'user.n', follow_symlinks=False)",
            "lremovexattr",
            json!({ "attribute-removed": { "path": "store.json", "name": "user.n" } }),
        ),
        (
            "args = struct.pack('QII', ctypes.addressof(value), 2, 0)",
            "call(463, -100, data.encode(), 0, b'user.n', args, ctypes.c_size_t(16))",
            "setxattrat",
            json!({ "attribute-set": { "path": "store.json", "name": "user.n" } }),
        ),
        (
            "os.setxattr(fd, 'user.n', b'1')",
            "call(466, fd, b'', 0x1000, b'user.n')",
            "removexattrat",
            json!({ "attribute-removed": { "path": "store.json", "file": 1, "name": "user.n" } }),
        ),
        (
            "open(at('b'), 'w').close()",
            "call(316, -100, at('b').encode(), -100, data.encode(), 2)",
            "renameat2",
            json!({ "exchanged": { "from": "b", "to": "store.json" } }),
        ),
        ("", "os.truncate(data, 1)", "truncate", json!({ "resized": { "file": 1, "size": 1 } })),
        (
            "",
            "t = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o640)",
            "openat",
            json!({ "created-unnamed": { "file": 2, "mode": 0o640 } }),
        ),
        (
            "t = os.open(folder, os.O_TMPFILE | os.O_RDWR)",
            "call(265, -100, f'/proc/self/fd/{t}'.encode(), -100, at('new').encode(), 0x400)",
            "linkat",
            json!({ "linked": { "to": "new", "file": 2 } }),
        ),
        (
            "t = os.open(folder, os.O_TMPFILE | os.O_RDWR)",
            "call(265, t, b'', -100, at('new').encode(), 0x1000)",
            "linkat",
            json!({ "linked": { "to": "new", "file": 2 } }),
        ),
    ];
    for (before, line, name, expected) in table {
        let folder = tempfile::tempdir().unwrap();
        let trace = trace(
            folder.path(),
            &format!(
                "fd = os.open(data, os.O_RDWR | os.O_CREAT)\nos.write(fd, b'[]')\nos.umask(0o22)\n\
                 value = ctypes.create_string_buffer(b'12')\n\
                 for name in ('pipe', 'sock', 'new', 'b'):\n    try: os.unlink(at(name))\n    except OSError: pass\n\
                 {before}\ntry: {line}\nexcept OSError as error: sys.exit(0 if error.errno == 38 else repr(error))\n"
            ),
        );
        let made = effects(&trace, name);
        let Some(mut made) = made.into_iter().next_back() else {
            // Calls that this kernel lacks cannot be seen, nor those for which another library uses a different call.
            assert!(
                expected == "none" || name.ends_with("at") && name.contains("xattr"),
                "no {name}: {trace:#}"
            );
            continue;
        };
        if let Some(linked) = made.get_mut("linked").and_then(Value::as_object_mut) {
            linked.remove("from");
        }
        let failed = trace["calls"].as_array().unwrap().iter().rfind(|call| call["name"] == name).unwrap();
        let has_no_such_call = failed["result"] == json!({ "Err": 38 });
        assert!(made == expected || has_no_such_call, "{line}: {made}");
    }
}

/// A file opened by its handle, and one whose path begins at another root, are recognized: writes to them were assigned
/// to no file.
#[test]
fn files_reached_without_their_paths_are_known() {
    let by_handle = "handle = ctypes.create_string_buffer(struct.pack('Ii', 128, 0) + bytes(128))\n\
                     mount = ctypes.c_int()\n\
                     call(303, -100, data.encode(), handle, ctypes.byref(mount), 0)\n\
                     fd = call(304, os.open(folder, os.O_RDONLY), handle, os.O_WRONLY)\n\
                     os.write(fd, b'[1]')\n";
    let under_another_root = "os.chroot(folder)\n\
                              fd = os.open('/' + os.path.basename(data), os.O_WRONLY)\n\
                              os.write(fd, b'[1]')\n";
    for text in [by_handle, under_another_root] {
        let folder = tempfile::tempdir().unwrap();
        let trace =
            trace(folder.path(), &format!("os.close(os.open(data, os.O_WRONLY | os.O_CREAT))\n{text}"));
        let written = effects(&trace, "write");
        assert_eq!(written.last().unwrap()["written"]["file"], 1, "{trace:#}");
    }
}

/// A map made writable later was taken for a read-only one.
#[test]
fn a_map_made_writable_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let map = |then: &str| {
        let text = format!(
            "fd = os.open(data, os.O_RDWR | os.O_CREAT)\nos.ftruncate(fd, 4096)\n\
             libc.mmap.restype = ctypes.c_void_p\nlibc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]\n\
             address = libc.mmap(None, 4096, 1, 1, fd, 0)\n{then}\n"
        );
        trace(folder.path(), &text)["not_covered"].to_string()
    };
    assert!(!map("").contains("shared and writable"));
    assert!(map("libc.mprotect(address, 4096, 3)").contains("store.json shared and writable"));
}

/// Correct stores of kinds that could never get a verdict: each does `add` by its own means, and the states after a
/// kill or a power loss are derived.
#[test]
fn right_designs_have_derived_states() {
    let load = "if sys.argv[1] == 'list':\n    print(open(data).read(), end='')\n    sys.exit()\n\
                try: old = open(data).read()\nexcept FileNotFoundError: old = ''\n\
                new = old + sys.argv[-1] + '\\n'\n\
                def sync(path):\n    d = os.open(path, os.O_RDONLY)\n    os.fsync(d)\n    os.close(d)\n\
                def put(path, text):\n    f = open(path, 'w')\n    f.write(text)\n    f.flush()\n    os.fsync(f.fileno())\n";
    let designs = [
        (
            "unnamed",
            "t = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o644)\nos.write(t, new.encode())\nos.fchmod(t, 0o640)\nos.fsync(t)\n\
             if os.path.exists(at('tmp')): os.unlink(at('tmp'))\n\
             call(265, -100, f'/proc/self/fd/{t}'.encode(), -100, at('tmp').encode(), 0x400)\nos.rename(at('tmp'), data)\nsync(folder)\n",
        ),
        (
            "exchanges",
            "if not old: open(data, 'a').close()\n\
             put(at('tmp'), new)\ncall(316, -100, at('tmp').encode(), -100, data.encode(), 2)\nsync(folder)\n",
        ),
        (
            "socket",
            "s = socket.socket(socket.AF_UNIX)\n\
             if os.path.exists(at('sock')): os.unlink(at('sock'))\n\
             s.bind(at('sock'))\n\
             if not os.path.exists(at('pipe')): os.mkfifo(at('pipe'))\n\
             put(at('tmp'), new)\nos.rename(at('tmp'), data)\nsync(folder)\n",
        ),
        (
            "rotates",
            "put(at('tmp'), new)\n\
             if os.path.exists(at('old.1')): os.rename(at('old.1'), at('old.2'))\n\
             if old: os.link(data, at('old.1'))\n\
             os.rename(at('tmp'), data)\nsync(folder)\n",
        ),
        (
            "folders",
            "if not os.path.isdir(at('d')): os.mkdir(at('d'))\n\
             os.mkdir(at('e')) if not os.path.isdir(at('e')) else None\n\
             put(at('e/x'), new)\nsync(at('e'))\nos.rename(at('e'), at('d/' + sys.argv[-1]))\nsync(at('d'))\n\
             put(at('tmp'), new)\nos.rename(at('tmp'), data)\nsync(folder)\n",
        ),
        (
            "attributes",
            "os.mkdir(at('d')) if not os.path.isdir(at('d')) else None\nos.setxattr(at('d'), 'user.last', sys.argv[-1].encode())\n\
             put(at('tmp'), new)\nos.setxattr(at('tmp'), 'user.n', b'1')\nsync(at('tmp'))\nos.rename(at('tmp'), data)\nsync(folder)\n",
        ),
    ];
    for (name, text) in designs {
        let folder = tempfile::tempdir().unwrap();
        python_script(folder.path(), "store", &format!("{HEAD}{load}{text}"));
        for (scenario, budget, group) in [
            ("crash", "2s", "derived crash states of add"),
            ("power-loss", "4s", "states that a power loss in the first add may leave"),
        ] {
            let arguments = ["check", "--only", scenario, "--budget", budget, "--format", "json"];
            let output = picklock(folder.path(), &arguments)
                .args(["--data", "store.txt", "--listed", "lines", "--", "./store"])
                .output()
                .unwrap();
            let report = stdout(&output);
            assert!(report.contains(group) && !report.contains("not derived"), "{name}: {report}");
        }
    }
}

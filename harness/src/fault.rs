//! Lists the faults: which call may fail in which way, one row each, with the manual page that permits it.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::call::{Call, Class, Effect, Spawn};
use crate::catalogue::nearest;

/// One way in which a call may fail.
#[derive(Debug)]
pub struct Fault {
    /// Id, which never changes.
    pub id: &'static str,
    /// Event on the machine, in one sentence.
    pub statement: &'static str,
    /// Calls that it may hit.
    pub hits: Hits,
    /// Result of the call.
    pub what: What,
    /// Manual page that permits it, with further conditions if there are any.
    pub manual: &'static str,
    /// Whether it hits a local file too; if not, only the contract of the call or a network file system permits it.
    pub is_local: bool,
    /// Whether it may persist: the same call then fails every time.
    pub may_stay: bool,
}

/// Result of a call that a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Fails with this error number, and does nothing; a `close` still releases its descriptor.
    Errno(i32),
    /// The process may make no file longer than half of the pending write: a real limit (`RLIMIT_FSIZE`), with a short
    /// count, then `EFBIG` and SIGXFSZ.
    SizeLimit,
}

/// Calls that a fault may hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hits {
    names: &'static [&'static str],
    /// Only calls that create a file.
    creating: bool,
    /// Only calls with one of these flags, if any are given.
    flags: &'static [&'static str],
    /// No calls with this flag.
    without: Option<&'static str>,
}

const OPEN: Hits = of(&["open", "openat", "openat2", "creat"]);
const CREATE: Hits = Hits { creating: true, ..OPEN };
const READ: Hits = of(&["read", "pread64", "readv", "preadv", "preadv2"]);
const WRITE: Hits =
    of(&["write", "pwrite64", "writev", "pwritev", "pwritev2", "sendfile", "copy_file_range"]);
const SIZED_WRITE: Hits = of(&["write", "pwrite64", "writev", "pwritev", "pwritev2"]);
const CUT: Hits = of(&["ftruncate", "truncate"]);
const SYNC: Hits = of(&["fsync", "fdatasync"]);
const CLOSE: Hits = of(&["close"]);
const RENAME: Hits = of(&["rename", "renameat", "renameat2"]);
const LINK: Hits = of(&["link", "linkat"]);
const UNLINK: Hits = of(&["unlink", "unlinkat"]);
const FOLDER: Hits = of(&["mkdir", "mkdirat"]);
const LOOK: Hits = of(&["stat", "lstat", "newfstatat", "statx"]);
const FORK: Hits = of(&["fork", "vfork", "clone", "clone3"]);
const EXEC: Hits = of(&["execve", "execveat"]);
const FLOCK: Hits = of(&["flock"]);
const RECORD_LOCK: Hits = of(&["fcntl"]);
const WAITING: &[&str] = &["F_SETLKW", "F_OFD_SETLKW"];

const fn of(names: &'static [&'static str]) -> Hits {
    Hits { names, creating: false, flags: &[], without: None }
}

impl Hits {
    const fn with(self, flags: &'static [&'static str]) -> Self {
        Self { flags, ..self }
    }

    const fn without(self, flag: &'static str) -> Self {
        Self { without: Some(flag), ..self }
    }

    /// Whether a call of this name is hit; `creates` is set if it creates a file.
    pub fn names(&self, name: &str, creates: bool) -> bool {
        self.names.contains(&name) && (creates || !self.creating)
    }

    fn call(&self, call: &Call) -> bool {
        // Duplicating a descriptor with `fcntl` requests no lock.
        let is_lock = call.name != "fcntl" || call.class == Class::Lock;
        let has = |flag: &str| call.has_flag(flag);
        // Releasing a lock does not fail.
        let gives_up = has("LOCK_UN") || has("F_UNLCK");
        // An open that truncates a file creates none.
        let creates = matches!(call.effect, Some(Effect::Created { .. } | Effect::CreatedUnnamed { .. }));
        // A copy out of the sandbox writes elsewhere.
        let is_copy = matches!(call.name.as_str(), "sendfile" | "copy_file_range");
        let is_here = !is_copy || matches!(call.effect, Some(Effect::Written { .. }));
        let is_meant = self.flags.is_empty() || self.flags.iter().any(|flag| has(flag));
        let is_exempt = self.without.is_some_and(has);
        is_lock && !gives_up && is_here && is_meant && !is_exempt && self.names(&call.name, creates)
    }
}

macro_rules! faults {
    ($($id:literal $hits:expr, $errno:ident, $statement:literal, $manual:literal $(, $mark:ident)*;)*) => {
        /// All faults.
        pub const ALL: &[Fault] = &[$(Fault {
            id: $id,
            statement: $statement,
            hits: $hits,
            what: What::Errno(libc::$errno),
            manual: $manual,
            is_local: !is_marked(&[$(stringify!($mark)),*], "contract"),
            may_stay: !is_marked(&[$(stringify!($mark)),*], "once"),
        },)*
        Fault {
            id: "write-limit",
            statement: "A file may not grow past a limit of the process, which is in the middle of what is written",
            hits: SIZED_WRITE,
            what: What::SizeLimit,
            manual: "setrlimit(2): RLIMIT_FSIZE",
            is_local: true,
            may_stay: false,
        }];
    };
}

const fn is_marked(marks: &[&str], mark: &str) -> bool {
    let mut at = 0;
    while at < marks.len() {
        if is_same(marks[at].as_bytes(), mark.as_bytes()) {
            return true;
        }
        at += 1;
    }
    false
}

/// Compares texts at compile time.
const fn is_same(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}

faults! {
    "open-emfile" OPEN, EMFILE, "The process has no descriptor left", "open(2)";
    "open-enfile" OPEN, ENFILE, "The system has no open file left", "open(2)";
    "open-enomem" OPEN, ENOMEM, "The kernel has no memory left for an open", "open(2)";
    "open-eacces" OPEN, EACCES, "A file may not be opened", "open(2)";
    "open-eintr" OPEN, EINTR, "A signal interrupts an open", "open(2): slow devices", contract, once;
    "create-enospc" CREATE, ENOSPC, "The disk has no room for a new file", "open(2)";
    "create-edquot" CREATE, EDQUOT, "The user's quota has no room for a new file", "open(2)";
    "create-erofs" CREATE, EROFS, "The file system went read-only before a file was made", "open(2)";
    "read-eio" READ, EIO, "The disk cannot be read", "read(2)";
    "read-eintr" READ, EINTR, "A signal interrupts a read", "read(2)", contract, once;
    "write-enospc" WRITE, ENOSPC, "The disk is full", "write(2)";
    "write-edquot" WRITE, EDQUOT, "The user's quota is used up", "write(2)";
    "write-efbig" WRITE, EFBIG, "A file would grow past what is allowed", "write(2)";
    "write-eio" WRITE, EIO, "The disk cannot be written", "write(2)";
    "write-eintr" WRITE, EINTR, "A signal interrupts a write before it has begun", "write(2)", contract, once;
    "truncate-eio" CUT, EIO, "The disk cannot be written when a file is cut", "truncate(2)";
    "fsync-eio" SYNC, EIO, "Data could not be written back, and are dropped: the next sync succeeds without them", "fsync(2)";
    "fsync-enospc" SYNC, ENOSPC, "The disk was full when data were written back, which are dropped", "fsync(2)";
    "fsync-edquot" SYNC, EDQUOT, "The quota was used up when data were written back, which are dropped", "fsync(2)";
    "close-eio" CLOSE, EIO, "The close reports that the server could not store the written data; data synced before are safe", "close(2): network file systems", contract;
    "close-edquot" CLOSE, EDQUOT, "The close reports that the quota was exceeded; data synced before are safe", "close(2): network file systems", contract;
    "close-eintr" CLOSE, EINTR, "A signal interrupts a close: the descriptor is gone all the same", "close(2)", contract, once;
    "rename-exdev" RENAME, EXDEV, "The new name is on another file system", "rename(2): also two mounts of one, or two projects of a quota", contract;
    "rename-ebusy" RENAME, EBUSY, "The name is in use, as that of a mount point", "rename(2)";
    "rename-enospc" RENAME, ENOSPC, "The folder has no room for the new name", "rename(2)";
    "rename-edquot" RENAME, EDQUOT, "The quota has no room for the new name", "rename(2)";
    "rename-eacces" RENAME, EACCES, "A name may not be changed", "rename(2)";
    "rename-erofs" RENAME, EROFS, "The file system went read-only before the rename", "rename(2)";
    "link-enospc" LINK, ENOSPC, "The folder has no room for a second name", "link(2)";
    "link-eperm" LINK, EPERM, "The file system knows no second names", "link(2)";
    "link-eio" LINK, EIO, "The disk cannot be written when a second name is given", "link(2)";
    "unlink-eio" UNLINK, EIO, "The disk cannot be written when a name is taken away", "unlink(2)";
    "unlink-ebusy" UNLINK, EBUSY, "A file is in use and cannot be removed", "unlink(2)";
    "unlink-erofs" UNLINK, EROFS, "The file system went read-only before a name was taken away", "unlink(2)";
    "mkdir-enospc" FOLDER, ENOSPC, "The disk has no room for a new folder", "mkdir(2)";
    "mkdir-eacces" FOLDER, EACCES, "A folder may not be made", "mkdir(2)";
    "stat-enomem" LOOK, ENOMEM, "The kernel has no memory left for a look", "stat(2)";
    "flock-eintr" FLOCK.without("LOCK_NB"), EINTR, "A signal interrupts the wait for a lock", "flock(2)", once;
    "flock-enolck" FLOCK, ENOLCK, "The kernel has no memory left for a lock", "flock(2)";
    "flock-ewouldblock" FLOCK.with(&["LOCK_NB"]), EWOULDBLOCK, "Somebody else has the lock", "flock(2)", once;
    "flock-enosys" FLOCK, ENOSYS, "The file system knows no locks", "flock(2): FUSE without locks", contract;
    "flock-eopnotsupp" FLOCK, EOPNOTSUPP, "The file system does not support locks", "flock(2): network file systems", contract;
    "flock-eacces" FLOCK, EACCES, "The server does not allow the lock", "flock(2), fcntl(2): NFS maps one on the other", contract;
    "fork-eagain" FORK, EAGAIN, "A limit on the number of processes is reached", "fork(2), clone(2)", once;
    "fork-enomem" FORK, ENOMEM, "The kernel has no memory left for a process or a thread", "fork(2), clone(2)", once;
    "exec-enomem" EXEC, ENOMEM, "The kernel has no memory left for a program", "execve(2)", once;
    "exec-eacces" EXEC, EACCES, "A program may not be run", "execve(2)", once;
    "exec-enoent" EXEC, ENOENT, "A program is not there, or its interpreter is not", "execve(2)", once;
    "lock-eintr" RECORD_LOCK.with(WAITING), EINTR, "A signal interrupts the wait for a record lock", "fcntl(2)", once;
    "lock-enolck" RECORD_LOCK, ENOLCK, "The lock table is full, or the lock server is away", "fcntl(2)";
    "lock-eagain" RECORD_LOCK.with(&["F_SETLK", "F_OFD_SETLK"]), EAGAIN, "Somebody else has the record lock", "fcntl(2)", once;
    "lock-edeadlk" RECORD_LOCK.with(&["F_SETLKW"]), EDEADLK, "The kernel takes the wait for a deadlock", "fcntl(2)", once;
    "lock-enosys" RECORD_LOCK, ENOSYS, "The file system knows no record locks", "fcntl(2): FUSE without locks", contract;
    "lock-eopnotsupp" RECORD_LOCK, EOPNOTSUPP, "The file system does not support record locks", "fcntl(2): network file systems", contract;
}

/// Returns the fault with this id.
pub fn find(id: &str) -> Option<&'static Fault> {
    ALL.iter().find(|fault| fault.id == id)
}

/// Whether the table has no fault for a call; the start and the end of a process do not count as calls.
pub fn has_none(call: &Call) -> bool {
    call.class != Class::Process && of_call(call).next().is_none()
}

/// Returns the faults that may hit a call of a baseline run. The start of a process is reported after it was made.
pub fn of_call(call: &Call) -> impl Iterator<Item = &'static Fault> {
    let can_fail = call.result.is_some() && call.class != Class::Process;
    ALL.iter().filter(move |fault| can_fail && fault.hits.call(call))
}

/// Returns the faults that may hit the start of a process, a thread or a program.
pub fn of_spawn(spawn: &Spawn) -> impl Iterator<Item = &'static Fault> {
    ALL.iter().filter(|fault| fault.hits.names(&spawn.name, false))
}

impl Fault {
    /// Describes the calls that it hits, their result, and what permits it.
    pub fn explanation(&self) -> String {
        let calls = self.hits.names.join(", ");
        let mut which = String::new();
        if self.hits.creating {
            which.push_str(", where they make a file");
        }
        if !self.hits.flags.is_empty() {
            which.push_str(&format!(", with {}", self.hits.flags.join(" or ")));
        }
        if let Some(without) = self.hits.without {
            which.push_str(&format!(", without {without}"));
        }
        let what = match self.what {
            What::Errno(errno) => format!("fail with {}", crate::call::Errno(errno)),
            What::SizeLimit => "write half, under a real limit, and fail then".to_owned(),
        };
        let times = if self.may_stay { "once, and from then on" } else { "once" };
        let place = match self.is_local {
            true => "local file systems return it",
            false => "local file systems never return it: a violation is a remark on portability",
        };
        let call = self.hits.names.first().copied().unwrap_or_default();
        let example = match self.what {
            What::Errno(errno) => format!("{call} of `add` fails with {}", crate::call::Errno(errno)),
            What::SizeLimit => format!("{call} of `add` writes half"),
        };
        format!(
            "Calls: {calls}{which}.\nThey {what}, {times}.\nAllowed by {}; {place}.\n\nExample: {example}; where `add` then \
             exits 0 and has not added, `honest-failure` is violated.",
            self.manual
        )
    }

    /// Whether it hits a lock request.
    pub fn is_of_lock(&self) -> bool {
        [FLOCK.names, RECORD_LOCK.names].contains(&self.hits.names)
    }

    /// Returns the finding that it shares with equivalent faults: the disk, the quota and the limit that leave no room
    /// for one call are one finding.
    pub fn finding(&self) -> &'static str {
        match self.what {
            What::Errno(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => "no-room",
            _ => self.id,
        }
    }

    /// Whether it reports that two names are on different file systems.
    pub fn is_of_another_device(&self) -> bool {
        self.what == What::Errno(libc::EXDEV)
    }

    /// Whether it hits a call that changes or syncs file content, or changes a name.
    pub fn is_of_change(&self) -> bool {
        [WRITE.names, SIZED_WRITE.names, CUT.names, SYNC.names, RENAME.names].contains(&self.hits.names)
    }

    /// Whether it hits a sync.
    pub fn is_of_sync(&self) -> bool {
        self.hits.names == SYNC.names
    }
}

/// Id of an existing fault.
#[derive(Clone, Copy)]
pub struct FaultId(pub &'static Fault);

impl PartialEq for FaultId {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for FaultId {}

impl fmt::Debug for FaultId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.0.id)
    }
}

impl Serialize for FaultId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.id)
    }
}

impl<'de> Deserialize<'de> for FaultId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let id = String::deserialize(deserializer)?;
        find(&id).map(Self).ok_or_else(|| {
            let meant = nearest(&id, ALL.iter().map(|fault| fault.id));
            let help = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
            de::Error::custom(format!("there is no fault {id:?}{help}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::sketch;

    #[test]
    fn every_fault_has_an_id_of_its_own_and_cites_the_page_of_a_call_that_it_hits() {
        for (index, fault) in ALL.iter().enumerate() {
            assert!(ALL[..index].iter().all(|other| other.id != fault.id), "{}", fault.id);
            assert!(fault.manual.contains("(2)"), "{}", fault.id);
            assert!(!fault.hits.names.is_empty());
            assert!(!fault.statement.ends_with('.'), "{}", fault.id);
        }
    }

    #[test]
    fn marks_are_told_apart() {
        let marks = |id: &str| find(id).map(|fault| (fault.is_local, fault.may_stay)).unwrap();
        assert_eq!(marks("write-enospc"), (true, true));
        assert_eq!(marks("close-eio"), (false, true));
        assert_eq!(marks("flock-eintr"), (true, false));
        assert_eq!(marks("read-eintr"), (false, false));
    }

    #[test]
    fn only_an_open_that_makes_a_file_finds_no_room_for_it() {
        let mut calls = sketch("1 open db 1\n 1 create tmp 2\n 1 truncate db 1");
        for call in &mut calls {
            call.name = "openat".to_owned();
        }
        let has = |call: &Call, id: &str| of_call(call).any(|fault| fault.id == id);
        assert!(has(&calls[0], "open-emfile") && !has(&calls[0], "create-enospc"));
        assert!(has(&calls[1], "create-enospc"));
        // An open that truncates an existing file needs no room for a name.
        assert!(has(&calls[2], "open-emfile") && !has(&calls[2], "create-enospc"));
    }

    #[test]
    fn a_fault_is_saved_by_its_id() {
        let saved = serde_json::to_string(&FaultId(find("flock-enolck").unwrap())).unwrap();
        assert_eq!(saved, "\"flock-enolck\"");
        assert!(
            serde_json::from_str::<FaultId>("\"flock-enolk\"")
                .unwrap_err()
                .to_string()
                .contains("did you mean flock-enolck?")
        );
    }
}

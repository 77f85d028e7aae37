//! Defines the visible calls of an operation as values: process, arguments, result, effect and lock changes.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::locks::{Kind, Lock, Mode};

/// The first component of every path in the store's TMPDIR, which is watched like the sandbox.
pub const TEMPORARY: &str = "$TMPDIR";

/// Whether a path, as it is reported, is TMPDIR or lies in it.
pub fn is_temporary(name: &str) -> bool {
    name.strip_prefix(TEMPORARY).is_some_and(|inner| inner.is_empty() || inner.starts_with('/'))
}

/// A system call that touches the sandbox, a file opened through it, or any file lock; or the start or end of a
/// process, which passes locks on or releases them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Its number among all visible calls of the operation, from 1, in the order in which they ended. The crash point
    /// of this number precedes it.
    pub number: u32,
    /// The client whose operation it belongs to, from 1.
    pub client: u32,
    /// The process that made it, from 1 in the order of their start.
    pub process: u32,
    /// The thread that made it, from 1 in the order of their start.
    pub thread: u32,
    /// The call's name, as in its manual page.
    pub name: String,
    /// Arguments that describe what it does.
    pub arguments: Vec<Argument>,
    /// Its result; `None` if it never returned.
    pub result: Option<Result<i64, Errno>>,
    /// Objects that it works on.
    pub objects: Vec<Object>,
    /// Kind of work that it does.
    pub class: Class,
    /// Whether an open created or truncated the file.
    pub creates: bool,
    /// Its effect in the sandbox, if it succeeded.
    pub effect: Option<Effect>,
    /// Data that it wrote, if any; at most the first megabyte, and not saved.
    #[serde(skip)]
    pub data: Option<Vec<u8>>,
    /// Content of the data file after this call, shortened, if it is requested and changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Its changes of locks.
    pub locks: Vec<LockChange>,
}

/// Effect of a call: what is read, and what exists now that did not, or no longer. Paths are from the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// An existing file was opened.
    Opened {
        /// The name used.
        path: String,
        /// The file.
        file: u32,
    },
    /// An open created a file.
    Created {
        /// Its name.
        path: String,
        /// The file.
        file: u32,
        /// Its permissions.
        mode: u32,
    },
    /// An open created a file without a name (`O_TMPFILE`).
    CreatedUnnamed {
        /// The file.
        file: u32,
        /// Its permissions.
        mode: u32,
    },
    /// Content was read.
    Read {
        /// The file that was read.
        file: u32,
        /// Offset of the first byte; not known if the system does not report it.
        #[serde(default)]
        offset: Option<u64>,
        /// Number of bytes; for a map, all of its bytes.
        #[serde(default)]
        length: u64,
        /// Whether the end of the file was reached: fewer bytes were returned than requested.
        #[serde(default)]
        at_end: bool,
    },
    /// The size of a file was read.
    SizeRead {
        /// The file whose size was read.
        file: u32,
    },
    /// Content was written.
    Written {
        /// The file.
        file: u32,
        /// Offset of the first byte; not known if the system does not report it.
        offset: Option<u64>,
        /// Number of bytes.
        length: u64,
        /// Whether the kernel chose the offset, the end of the file (`O_APPEND`, `RWF_APPEND`).
        #[serde(default)]
        appends: bool,
    },
    /// A file was truncated or extended.
    Resized {
        /// The file.
        file: u32,
        /// Its new size in bytes.
        size: u64,
    },
    /// An entry was renamed.
    Renamed {
        /// The old name.
        from: String,
        /// The new name.
        to: String,
    },
    /// Two names were exchanged (`RENAME_EXCHANGE`).
    Exchanged {
        /// The first name.
        from: String,
        /// The second name.
        to: String,
    },
    /// A hard link was made.
    Linked {
        /// The existing name; for a file without one, the path in the call.
        from: String,
        /// The new name.
        to: String,
        /// The file, if it is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<u32>,
    },
    /// A symbolic link was made.
    SymbolicLinked {
        /// Its name.
        path: String,
        /// Its target, as it is stored in the link.
        to: String,
    },
    /// A name was removed.
    Unlinked {
        /// The name.
        path: String,
    },
    /// A folder was made.
    FolderMade {
        /// Its name.
        path: String,
        /// Its permissions.
        mode: u32,
    },
    /// A folder was removed.
    FolderRemoved {
        /// Its name.
        path: String,
    },
    /// A FIFO or a socket was made.
    SpecialMade {
        /// Its name.
        path: String,
        /// FIFO or socket.
        special: Special,
        /// Its permissions.
        mode: u32,
    },
    /// Permissions were set.
    ModeSet {
        /// The name of the file or folder.
        path: String,
        /// The new permissions.
        mode: u32,
        /// The file, if it is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<u32>,
    },
    /// An extended attribute was set, to the data of the call.
    AttributeSet {
        /// The name of the file or folder.
        path: String,
        /// The file, if it is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<u32>,
        /// The name of the attribute.
        name: String,
        /// The permissions that it sets as well, if it is an access list.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<u32>,
    },
    /// An extended attribute was removed.
    AttributeRemoved {
        /// The name of the file or folder.
        path: String,
        /// The file, if it is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<u32>,
        /// The name of the attribute.
        name: String,
    },
    /// A change that is none of the above.
    Other,
}

/// An entry that is no file, folder or link, but a meeting point of processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Special {
    /// A FIFO.
    Fifo,
    /// A Unix socket.
    Socket,
}

impl Effect {
    /// Whether it changes anything that other processes can see.
    pub fn is_change(&self) -> bool {
        !matches!(
            self,
            Self::Opened { .. } | Self::Read { .. } | Self::SizeRead { .. } | Self::Written { length: 0, .. }
        )
    }
}

/// Record of clients that ran under the tracer.
#[derive(Debug, Default)]
pub struct Traced {
    /// Their visible calls, in the order in which they ended.
    pub calls: Vec<Call>,
    /// The operation of each client that was started, in the order of the clients.
    pub operations: Vec<Ended>,
    /// Starts of processes, threads and programs, in order, after the start of each client's own program.
    pub spawns: Vec<Spawn>,
    /// Blocked clients and what they wait for, if there was a deadlock.
    pub stuck: Vec<Stuck>,
    /// Locks held by a process that had not taken them, after their taker and its operation had ended.
    pub leaks: Vec<Leak>,
    /// Number of times the data was read after a change.
    pub readings: u64,
    /// When the data was then found torn, and what was seen.
    pub torn: Vec<(Duration, String)>,
    /// Activities that the tracer does not cover.
    pub not_covered: BTreeSet<String>,
    /// The ids of all processes.
    pub pids: BTreeSet<i32>,
    /// How far the clock of scheduled clients was ahead at the end.
    pub ahead: Duration,
    /// Whether any of the clients was a copy of a template.
    pub has_copies: bool,
}

/// A call to start a process, a thread or a program. It is not a visible call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spawn {
    /// The client.
    pub client: u32,
    /// The process that made it, from 1 in the order of their start.
    pub process: u32,
    /// Its name, as in its manual page.
    pub name: String,
    /// Whether it started a thread.
    pub is_thread: bool,
    /// Number of visible calls of the client that had ended by then.
    pub after_calls: u32,
}

/// The call, and what it makes.
impl fmt::Display for Spawn {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let made = match (self.name.as_str(), self.is_thread) {
            ("execve" | "execveat", _) => "of a program",
            (_, true) => "of a thread",
            (_, false) => "of a process",
        };
        write!(out, "{} {made}", self.name)
    }
}

/// End of the operation of one client, and its output.
#[derive(Debug)]
pub struct Ended {
    /// The client, from 1.
    pub client: u32,
    /// How its main process ended.
    pub end: End,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
    /// Number of processes that outlived it; they were killed at the end.
    pub survivors: usize,
    /// Time of its start, since the tracer began.
    pub invoked: Duration,
    /// Time at which its end was seen.
    pub returned: Duration,
    /// Time since which it did nothing more, because it was held at the point where it was then killed.
    pub still: Option<Duration>,
}

/// A blocked client in a deadlock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// The client.
    pub client: u32,
    /// Files whose locks its threads wait for, each with the clients whose processes hold them.
    pub wants: Vec<(String, Vec<u32>)>,
    /// Whether each of its threads waits for a lock, or for another of its processes or threads that does.
    pub wholly: bool,
}

/// A lock that outlived its taker and its operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leak {
    /// The client whose operation took it.
    pub client: u32,
    /// The locked file.
    pub file: String,
    /// The kind of lock.
    pub kind: Kind,
}

/// How a traced process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It exited with this status.
    Exited(i32),
    /// It was ended by this signal.
    Signalled(i32),
    /// It was killed at the requested point.
    Killed,
    /// It was killed for taking too long.
    TimedOut,
    /// It was killed because it was blocked forever.
    Stuck,
}

/// An error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errno(pub i32);

/// One argument of a call, in human-readable form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Argument {
    /// A path; within the sandbox, relative to it.
    Path(String),
    /// A descriptor, and what it refers to.
    Descriptor(i32, String),
    /// Flags or a command, by their names.
    Flags(String),
    /// A number of bytes.
    Bytes(u64),
    /// Any other number.
    Number(i64),
}

/// An object that a call works on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Object {
    /// The name of a directory entry, by its path.
    Entry(String),
    /// A file, regardless of its name: by its number in the trace.
    File(u32),
    /// An open file description, by its number in the trace.
    Description(u32),
}

/// Kind of work of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Reads names, attributes or the position in a file.
    Inspect,
    /// Opens a descriptor, and possibly creates a file.
    Open,
    /// Closes a descriptor.
    Close,
    /// Reads content.
    Read,
    /// Changes content or size.
    Write,
    /// Changes names.
    Name,
    /// Changes attributes.
    Attribute,
    /// Asks for durability.
    Sync,
    /// Takes or releases a lock.
    Lock,
    /// Starts or ends a process.
    Process,
}

/// Change of a lock by a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LockChange {
    /// The lock was taken.
    Taken(Lock, String),
    /// The lock was refused, because it is held elsewhere.
    Refused(Lock, String),
    /// The lock was released, explicitly or as a side effect.
    Released(Lock, String),
}

impl Call {
    /// Whether it succeeded and changed the sandbox: after a kill just before it, that change is missing.
    pub fn is_change(&self) -> bool {
        matches!(self.result, Some(Ok(_)))
            && (self.creates || matches!(self.class, Class::Write | Class::Name | Class::Attribute))
    }

    /// Returns the file whose size it read (`stat`, `fstat`, a seek to the end), by its number in the trace.
    pub fn reads_size(&self) -> Option<u32> {
        match self.effect {
            Some(Effect::SizeRead { file }) => Some(file),
            _ => None,
        }
    }

    /// Returns the name that it looked up and did not find (`ENOENT`): of two names, the first.
    pub fn missed_name(&self) -> Option<&str> {
        let is_missing = self.result == Some(Err(Errno(libc::ENOENT)));
        self.objects.iter().filter(|_| is_missing).find_map(|object| match object {
            Object::Entry(path) => Some(path.as_str()),
            _ => None,
        })
    }

    /// Whether one of its flags has this name.
    pub fn has_flag(&self, name: &str) -> bool {
        self.arguments.iter().any(|argument| match argument {
            Argument::Flags(flags) => flags.split(['|', ' ']).any(|flag| flag == name),
            _ => false,
        })
    }

    /// Whether it works on a name in the sandbox and on one in TMPDIR: most users have these on two file systems.
    pub fn crosses_roots(&self) -> bool {
        let mut entries = self.objects.iter().filter_map(|object| match object {
            Object::Entry(name) if !name.starts_with('/') => Some(is_temporary(name)),
            _ => None,
        });
        matches!((entries.next(), entries.next()), (Some(from), Some(to)) if from != to)
    }

    /// Returns the names that it works on, and its flags; no numbers.
    pub fn operands(&self) -> impl Iterator<Item = &str> {
        self.arguments.iter().filter_map(|argument| match argument {
            Argument::Path(text) | Argument::Descriptor(_, text) | Argument::Flags(text) => {
                Some(text.as_str())
            }
            Argument::Bytes(_) | Argument::Number(_) => None,
        })
    }
}

/// The call as C would write it, without its result.
impl fmt::Display for Call {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}(", self.name)?;
        for (index, argument) in self.arguments.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            match argument {
                Argument::Path(path) => write!(out, "{comma}{path}")?,
                Argument::Descriptor(number, path) => write!(out, "{comma}{number}<{path}>")?,
                Argument::Flags(flags) => write!(out, "{comma}{flags}")?,
                Argument::Bytes(count) => write!(out, "{comma}{count} bytes")?,
                Argument::Number(number) => write!(out, "{comma}{number}")?,
            }
        }
        out.write_str(")")
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `No such file or directory (os error 2)`: the number in parentheses is redundant.
        let text = std::io::Error::from_raw_os_error(self.0).to_string();
        out.write_str(text.split(" (os error").next().unwrap_or_default())
    }
}

/// The file and the kind of lock, such as `exclusive flock on store.json.lock`.
impl fmt::Display for LockChange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, lock, path) = match self {
            Self::Taken(lock, path) => ("takes", lock, path),
            Self::Refused(lock, path) => ("does not get", lock, path),
            Self::Released(lock, path) => ("gives up", lock, path),
        };
        let mode = match lock.mode {
            Mode::Shared => "shared",
            Mode::Exclusive => "exclusive",
        };
        let kind = match lock.kind {
            Kind::Flock => "flock",
            Kind::Posix => "POSIX lock",
            Kind::Ofd => "OFD lock",
        };
        write!(out, "{verb} {mode} {kind} on {path}")
    }
}

/// Parses calls from a text, for tests: `CLIENT VERB OPERAND…` a line, with files by number and names verbatim.
///
/// ```text
/// 1 open db 1      1 create tmp 2     1 truncate db 1      1 read 1       1 write 1
/// 1 rename a b     1 link a b         1 unlink db          1 mkdir a      1 sync 1       1 close 1
/// 1 lock ex 1      1 lock sh 1        1 try ex 1           1 refused ex 1       1 unlock 1
/// 1 read 1 0..8    1 read 1 0..8 end  1 write 1 0..8       1 append 1 8..20     1 size 1
/// 1 make l 2       1 miss a           1 there a            1 mkdir d            1 list d
/// 1 exchange a b   1 unnamed 2        1 link a b 2
/// ```
///
/// `make` is an open with `O_EXCL`, `miss` a look-up that finds nothing, `there` a `link` whose new name exists
/// already, `list` a `getdents64`.
#[cfg(test)]
pub(crate) fn sketch(text: &str) -> Vec<Call> {
    let number = |word: &str| word.parse::<u32>().unwrap();
    let span = |word: Option<&&str>| {
        let (from, to) = word.unwrap_or(&"0..9").split_once("..").unwrap();
        let (from, to) = (from.parse::<u64>().unwrap(), to.parse::<u64>().unwrap());
        (Some(from), to - from)
    };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    (1..)
        .zip(lines)
        .map(|(place, line)| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [client, verb, rest @ ..] = words.as_slice() else { panic!("no such line: {line}") };
            let path = |index: usize| rest[index].to_owned();
            let lock = |mode: &str, file: u32| Lock {
                file: (1, u64::from(file)),
                kind: Kind::Flock,
                owner: crate::locks::Owner::Description(number(client) * 100 + file),
                mode: if mode == "ex" { Mode::Exclusive } else { Mode::Shared },
                range: crate::locks::Range::ALL,
            };
            let mut call = Call {
                number: place,
                client: number(client),
                process: number(client),
                thread: number(client),
                name: (*verb).to_owned(),
                arguments: rest.iter().map(|word| Argument::Flags((*word).to_owned())).collect(),
                result: Some(Ok(0)),
                objects: Vec::new(),
                class: Class::Inspect,
                creates: false,
                effect: None,
                data: None,
                content: None,
                locks: Vec::new(),
            };
            match *verb {
                "open" | "create" | "make" | "truncate" => {
                    call.class = Class::Open;
                    if *verb == "make" {
                        call.arguments.push(Argument::Flags("O_CREAT|O_EXCL".to_owned()));
                    }
                    call.creates = *verb != "open";
                    let file = number(rest[1]);
                    call.objects = vec![Object::Entry(path(0)), Object::File(file)];
                    call.effect = Some(match *verb {
                        "open" => Effect::Opened { path: path(0), file },
                        "create" | "make" => Effect::Created { path: path(0), file, mode: 0o644 },
                        _ => Effect::Resized { file, size: 0 },
                    });
                }
                "read" | "write" | "append" | "size" | "sync" | "close" => {
                    let file = number(rest[0]);
                    call.objects = vec![Object::File(file)];
                    (call.class, call.effect) = match *verb {
                        "read" => {
                            let (offset, length) = span(rest.get(1));
                            let at_end = rest.len() == 1 || rest.last() == Some(&"end");
                            (Class::Read, Some(Effect::Read { file, offset, length, at_end }))
                        }
                        "write" | "append" => {
                            let (offset, length) = span(rest.get(1));
                            let written =
                                Effect::Written { file, offset, length, appends: *verb == "append" };
                            (Class::Write, Some(written))
                        }
                        "size" => (Class::Inspect, Some(Effect::SizeRead { file })),
                        "sync" => (Class::Sync, None),
                        _ => (Class::Close, None),
                    };
                }
                "rename" | "exchange" | "link" => {
                    call.class = Class::Name;
                    call.objects = vec![Object::Entry(path(0)), Object::Entry(path(1))];
                    let (from, to) = (path(0), path(1));
                    call.effect = Some(match *verb {
                        "rename" => Effect::Renamed { from, to },
                        "exchange" => Effect::Exchanged { from, to },
                        _ => Effect::Linked { from, to, file: rest.get(2).map(|word| number(word)) },
                    });
                }
                "stat" => call.objects = vec![Object::Entry(path(0))],
                "unnamed" => {
                    let file = number(rest[0]);
                    call.class = Class::Open;
                    call.objects = vec![Object::File(file)];
                    call.effect = Some(Effect::CreatedUnnamed { file, mode: 0o644 });
                }
                "miss" | "there" => {
                    call.objects = vec![Object::Entry(path(0))];
                    let errno = if *verb == "miss" { libc::ENOENT } else { libc::EEXIST };
                    call.result = Some(Err(Errno(errno)));
                }
                "list" => {
                    call.class = Class::Read;
                    call.name = "getdents64".to_owned();
                    call.arguments = vec![Argument::Descriptor(3, path(0))];
                }
                "unlink" | "mkdir" => {
                    call.class = Class::Name;
                    call.objects = vec![Object::Entry(path(0))];
                    call.effect = Some(match *verb {
                        "unlink" => Effect::Unlinked { path: path(0) },
                        _ => Effect::FolderMade { path: path(0), mode: 0o755 },
                    });
                }
                "lock" | "try" | "refused" | "unlock" => {
                    call.class = Class::Lock;
                    call.name = "flock".to_owned();
                    let file = number(rest[rest.len() - 1]);
                    call.objects = vec![Object::File(file), Object::Description(number(client) * 100 + file)];
                    let name = format!("file{file}");
                    call.locks = vec![match *verb {
                        "unlock" => LockChange::Released(lock("ex", file), name),
                        "refused" => LockChange::Refused(lock(rest[0], file), name),
                        _ => LockChange::Taken(lock(rest[0], file), name),
                    }];
                    call.result = Some(if *verb == "refused" { Err(Errno(11)) } else { Ok(0) });
                }
                other => panic!("no such verb: {other}"),
            }
            for argument in &mut call.arguments {
                if let Argument::Flags(word) = argument
                    && call.objects.contains(&Object::Entry(word.clone()))
                {
                    *argument = Argument::Path(word.clone());
                }
            }
            call
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_call_with_a_name_in_each_root_crosses() {
        let crosses = |text: &str| sketch(text)[0].crosses_roots();
        assert!(crosses("1 rename $TMPDIR/a db"));
        assert!(crosses("1 link db $TMPDIR/sub/a"));
        assert!(!crosses("1 rename $TMPDIR/a $TMPDIR/b"));
        assert!(!crosses("1 rename a db"));
        assert!(!crosses("1 rename $TMPDIRECTORY db"));
        assert!(!crosses("1 unlink $TMPDIR/a"));
        // A path outside both roots may be on any file system.
        assert!(!crosses("1 rename /elsewhere/a $TMPDIR/b"));
    }
}

//! Defines the visible calls of an operation as values: process, arguments, result, effect and lock changes.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::locks::{Kind, Lock, Mode};

/// The first component of every path in the store's TMPDIR, which is watched like the sandbox.
pub const TEMPORARY: &str = "$TMPDIR";

/// Whether a name, as paths are told, is TMPDIR or lies in it.
pub fn is_temporary(name: &str) -> bool {
    name.strip_prefix(TEMPORARY).is_some_and(|inner| inner.is_empty() || inner.starts_with('/'))
}

/// A system call that touches the sandbox, a file opened through it, or any file lock; or the start or end of a
/// process, which passes locks on or gives them up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Its place among all visible calls of the operation, from 1, in the order in which they ended. The crash point
    /// of this number lies before it.
    pub number: u32,
    /// The client whose operation it belongs to, from 1.
    pub client: u32,
    /// The process that made it, from 1 in the order of their start.
    pub process: u32,
    /// The thread that made it, from 1 in the order of their start.
    pub thread: u32,
    /// The call's name, as in its manual page.
    pub name: String,
    /// Its arguments, as far as they say what it does.
    pub arguments: Vec<Argument>,
    /// What it returned; nothing where it never did.
    pub result: Option<Result<i64, Errno>>,
    /// What it works on.
    pub objects: Vec<Object>,
    /// What it does.
    pub class: Class,
    /// Whether an open made the file, or emptied it.
    pub creates: bool,
    /// What it came to in the sandbox, where it succeeded.
    pub effect: Option<Effect>,
    /// What it wrote, where it wrote; no more than the first megabyte, and not part of what is saved.
    #[serde(skip)]
    pub data: Option<Vec<u8>>,
    /// What the data file holds since this call, shortened, where that is wanted and it changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// What it did to the locks.
    pub locks: Vec<LockChange>,
}

/// What a call came to: what is read, and what is there now that was not, or no more. Paths are from the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// A file was opened that was there before.
    Opened {
        /// By this name.
        path: String,
        /// The file.
        file: u32,
    },
    /// An open made a file.
    Created {
        /// By this name.
        path: String,
        /// The file.
        file: u32,
        /// With these permissions.
        mode: u32,
    },
    /// An open made a file that has no name (`O_TMPFILE`).
    CreatedUnnamed {
        /// The file.
        file: u32,
        /// With these permissions.
        mode: u32,
    },
    /// Content was read.
    Read {
        /// The file that was read.
        file: u32,
        /// From this byte on; not known if the system does not say it.
        #[serde(default)]
        offset: Option<u64>,
        /// So many bytes; of a map, all of its bytes.
        #[serde(default)]
        length: u64,
        /// Whether the end of the file was seen: fewer bytes came than were asked for.
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
        /// To this file.
        file: u32,
        /// From this byte on; not known if the system does not say it.
        offset: Option<u64>,
        /// So many bytes.
        length: u64,
        /// Whether the kernel chose the offset: the end of the file (`O_APPEND`, `RWF_APPEND`).
        #[serde(default)]
        appends: bool,
    },
    /// A file was cut or made longer.
    Resized {
        /// This one.
        file: u32,
        /// To so many bytes.
        size: u64,
    },
    /// A name was given to what had another.
    Renamed {
        /// The old name.
        from: String,
        /// The new one.
        to: String,
    },
    /// Two names were exchanged (`RENAME_EXCHANGE`).
    Exchanged {
        /// The one.
        from: String,
        /// The other.
        to: String,
    },
    /// A further name was given.
    Linked {
        /// The name that is there; of a file without one, the path that the call has.
        from: String,
        /// The new one.
        to: String,
        /// The file, if it is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<u32>,
    },
    /// A symbolic link was made.
    SymbolicLinked {
        /// By this name.
        path: String,
        /// To this path, as it is written in it.
        to: String,
    },
    /// A name was taken away.
    Unlinked {
        /// This one.
        path: String,
    },
    /// A folder was made.
    FolderMade {
        /// By this name.
        path: String,
        /// With these permissions.
        mode: u32,
    },
    /// A folder was removed.
    FolderRemoved {
        /// By this name.
        path: String,
    },
    /// A FIFO or a socket was made.
    SpecialMade {
        /// By this name.
        path: String,
        /// Which of the two.
        special: Special,
        /// With these permissions.
        mode: u32,
    },
    /// Permissions were set.
    ModeSet {
        /// The name of the file or folder.
        path: String,
        /// To these.
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
        /// The permissions that it brought along, if it is an access list.
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
    /// Something was changed that is none of the above.
    Other,
}

/// A name that stands for no file, folder or link: processes meet there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Special {
    /// A FIFO.
    Fifo,
    /// A Unix socket.
    Socket,
}

impl Effect {
    /// Whether anything is different for others.
    pub fn is_change(&self) -> bool {
        !matches!(
            self,
            Self::Opened { .. } | Self::Read { .. } | Self::SizeRead { .. } | Self::Written { length: 0, .. }
        )
    }
}

/// What clients did under the tracer.
#[derive(Debug, Default)]
pub struct Traced {
    /// Their visible calls, in the order in which they ended.
    pub calls: Vec<Call>,
    /// The operation of each client that was started, in the order of the clients.
    pub operations: Vec<Ended>,
    /// The starts of processes, threads and programs, in their order, since each client's own program was started.
    pub spawns: Vec<Spawn>,
    /// Who waits for whom, where nobody could go on any more.
    pub stuck: Vec<Stuck>,
    /// Locks that a process held which had not taken them, after their taker and its operation had ended.
    pub leaks: Vec<Leak>,
    /// How often the data was looked at after a change.
    pub readings: u64,
    /// When it was found torn then, and what was seen.
    pub torn: Vec<(Duration, String)>,
    /// What was done that is not seen here.
    pub not_covered: BTreeSet<String>,
    /// The ids of all processes.
    pub pids: BTreeSet<i32>,
    /// How far the clock of scheduled clients was ahead in the end.
    pub ahead: Duration,
    /// Whether any of the clients was a copy of a template.
    pub has_copies: bool,
}

/// A call that was to start a process, a thread or a program. It is no visible call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spawn {
    /// The client.
    pub client: u32,
    /// The process that made it, from 1 in the order of their start.
    pub process: u32,
    /// Its name, as in its manual page.
    pub name: String,
    /// Whether it made a thread.
    pub is_thread: bool,
    /// So many visible calls of the client had ended by then.
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

/// How the operation of one client ended, and what it wrote.
#[derive(Debug)]
pub struct Ended {
    /// The client, from 1.
    pub client: u32,
    /// How the process that was started ended.
    pub end: End,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
    /// Processes that outlived it; they were ended in the end.
    pub survivors: usize,
    /// When it was started, since the tracer began.
    pub invoked: Duration,
    /// When it was seen to have ended.
    pub returned: Duration,
    /// Since when it did nothing more, because it was held where it was killed then.
    pub still: Option<Duration>,
}

/// A client that could not go on when nobody could.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// The client.
    pub client: u32,
    /// The files whose locks its threads wait for, each with the clients whose processes hold them.
    pub wants: Vec<(String, Vec<u32>)>,
    /// Whether each of its threads waits for a lock, or for another process or thread of it that does.
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
    /// With this status.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// It was killed where that was wanted.
    Killed,
    /// It was killed for taking too long.
    TimedOut,
    /// It was killed because it was blocked forever.
    Stuck,
}

/// An error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errno(pub i32);

/// One argument of a call, as a person reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Argument {
    /// A path; within the sandbox from there.
    Path(String),
    /// A descriptor, and what it is open on.
    Descriptor(i32, String),
    /// Flags or a command, by their names.
    Flags(String),
    /// A number of bytes.
    Bytes(u64),
    /// Any other number.
    Number(i64),
}

/// What a call works on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Object {
    /// The name of a directory entry, by its path.
    Entry(String),
    /// A file, whatever its name: by its number in the trace.
    File(u32),
    /// An open file description, by its number in the trace.
    Description(u32),
}

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Looks at names, attributes or the position in a file.
    Inspect,
    /// Makes a descriptor, and possibly a file.
    Open,
    /// Gives a descriptor up.
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
    /// Takes or gives up a lock.
    Lock,
    /// Begins or ends a process.
    Process,
}

/// What a call did to a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LockChange {
    /// It has it now.
    Taken(Lock, String),
    /// It does not have it, since somebody else does.
    Refused(Lock, String),
    /// It gave it up, on purpose or by the way.
    Released(Lock, String),
}

impl Call {
    /// Whether it succeeded and changed what is in the sandbox: after a kill just before it that change is missing.
    pub fn is_change(&self) -> bool {
        matches!(self.result, Some(Ok(_)))
            && (self.creates || matches!(self.class, Class::Write | Class::Name | Class::Attribute))
    }

    /// The file whose size it read (`stat`, `fstat`, a seek to the end), by its number in the trace.
    pub fn reads_size(&self) -> Option<u32> {
        match self.effect {
            Some(Effect::SizeRead { file }) => Some(file),
            _ => None,
        }
    }

    /// The name that it looked up and did not find (`ENOENT`): of two names, the first.
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

    /// The names of what it works on, and what is asked of them; no numbers.
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
        // `No such file or directory (os error 2)`: the number is told by its place already.
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

/// Calls written as a text, for tests: `CLIENT VERB OPERAND…` a line, with files by number and names as they are.
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
/// `make` is an open with `O_EXCL`, `miss` a look-up that finds nothing, `there` a `link` that finds the name taken, `list`
/// a `getdents64`.
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

//! The visible calls of an operation, as values: who made each, on what, with which result, and what it did to the locks.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::locks::Lock;

/// A system call that touches the sandbox, a file opened through it, or any file lock; or the start or end of a
/// process, which passes locks on or gives them up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Its place among all visible calls of the operation, from 1, in the order in which they ended. The crash point
    /// of this number lies before it.
    pub number: u32,
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
    /// What it wrote, where it wrote; no more than the first megabyte, and not part of what is saved.
    #[serde(skip)]
    pub data: Option<Vec<u8>>,
    /// What it did to the locks.
    pub locks: Vec<LockChange>,
}

/// What one operation did.
#[derive(Debug)]
pub struct Trace {
    /// Its visible calls, in the order in which they ended.
    pub calls: Vec<Call>,
    /// How the process that was started ended.
    pub end: End,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
    /// Processes that outlived it; they were ended.
    pub survivors: usize,
    /// What it did that is not seen here.
    pub not_covered: BTreeSet<String>,
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
            crate::locks::Mode::Shared => "shared",
            crate::locks::Mode::Exclusive => "exclusive",
        };
        let kind = match lock.kind {
            crate::locks::Kind::Flock => "flock",
            crate::locks::Kind::Posix => "POSIX lock",
            crate::locks::Kind::Ofd => "OFD lock",
        };
        write!(out, "{verb} {mode} {kind} on {path}")
    }
}

//! Defines the target: how a client is started and how records are read back.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub mod adapter;
pub mod builtin;
pub mod data;
mod extract;
pub mod flags;
mod placeholder;
mod program;
mod write;

use crate::observation::FileState;
use crate::op::record_name;

pub use data::Format;
pub use extract::{Extract, Unreadable};
pub use placeholder::{Template, Values};

/// Prefix of the reason why a file with unreadable records is broken.
pub const RECORDS_UNREADABLE: &str = "the records cannot be read";

/// A store under test: everything known about it before it runs.
#[derive(Clone, Debug)]
pub struct Target {
    /// Name in reports.
    pub name: String,
    /// How it was specified, for the report's first line.
    pub origin: String,
    /// Folder from which programs with a slash are resolved, and in which commands run.
    pub folder: PathBuf,
    /// Folder in which commands run, if not `folder`.
    pub cwd: Option<Template>,
    /// Its data file.
    pub data: DataFile,
    /// Its operations.
    pub ops: Ops,
    /// Meanings of its exit statuses.
    pub exit: ExitMeanings,
    /// Its limit on the number of records.
    pub guard: Option<Guard>,
    /// Its derived files.
    pub derived: Option<Derived>,
    /// The store as a long-lived process.
    pub session: Option<Session>,
    /// The invariants that the target itself claims or disclaims, by id.
    pub claims: BTreeMap<String, bool>,
    /// Resource limits of one operation.
    pub limits: Limits,
    /// Variables added to the environment.
    pub env: BTreeMap<String, Template>,
}

/// Location of the data, and how records are read from it.
#[derive(Clone, Debug)]
pub struct DataFile {
    /// Path within the sandbox directory.
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
    /// How to find the record names in it. If absent, the records are known through `list` alone.
    pub records: Option<Extract>,
    /// How to find the record names in the output of `list`.
    pub listed: Extract,
    /// Patterns of further files that must stay valid.
    pub also: Vec<String>,
}

/// The commands of a target.
#[derive(Clone, Debug)]
pub struct Ops {
    /// Runs once, without injection.
    pub init: Option<Command>,
    /// Adds a record.
    pub add: Command,
    /// Prints the records.
    pub list: Option<Command>,
    /// Cleans up after a kill.
    pub recover: Option<Command>,
    /// Any further operations, by name.
    pub other: BTreeMap<String, Command>,
}

/// One command line, split into words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The program and its arguments.
    pub words: Vec<Template>,
}

/// Exit statuses with a special meaning; 0 means acknowledged, any other failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExitMeanings {
    /// The operation was definitely refused.
    pub refused: Vec<i32>,
    /// The lock could not be acquired.
    pub busy: Vec<i32>,
}

/// A limit that the store checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Maximum number of records; more are refused.
    pub limit: u32,
    /// The form of `add` that has the limit; if absent, every `add` has it.
    pub add: Option<Command>,
}

/// Files that the store derives from its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derived {
    /// Paths within the sandbox directory.
    pub files: Vec<String>,
    /// Command that rebuilds them.
    pub rebuild: Command,
}

/// The store as a long-lived process that speaks the session protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Command that starts it.
    pub command: Command,
    /// Names of `[ops.other]` that remove records.
    pub removes: Vec<String>,
}

/// Resource limits of one operation. If it exceeds one, it is killed and the run reports that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Wall-clock time.
    pub timeout: Duration,
    /// Bytes on standard output and standard error together.
    pub output: u64,
    /// Bytes in any one file.
    pub file: u64,
    /// Concurrent processes.
    pub processes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(10), output: 1 << 20, file: 256 << 20, processes: 64 }
    }
}

impl Target {
    /// Returns the limit that applies in every scenario, if there is one.
    pub fn limit_of_plain_add(&self) -> Option<u32> {
        self.guard.as_ref().filter(|guard| guard.add.is_none()).map(|guard| guard.limit)
    }

    /// Returns the operations of `[ops.other]` that must neither hang nor harm. Operations that remove records, as
    /// `[session]` says, are excluded: their effect would be taken for a loss.
    pub fn harmless_ops(&self) -> impl Iterator<Item = &str> {
        let removes = |name: &str| {
            self.session
                .as_ref()
                .is_some_and(|session| session.removes.iter().any(|removing| removing == name))
        };
        self.ops.other.keys().map(String::as_str).filter(move |name| !removes(name))
    }

    /// Converts found names to record names as `add` knows them: if the store knows a record by its number alone, the
    /// found name is that number.
    pub fn record_names(&self, found: Vec<String>) -> Vec<String> {
        let has =
            |placeholder: &str| self.ops.add.words.iter().any(|word| word.to_string().contains(placeholder));
        if has("{id}") || !has("{n}") {
            return found;
        }
        found.into_iter().map(|name| name.parse().map(record_name).unwrap_or(name)).collect()
    }

    /// Examines the content of the data file, once its `state` is known from its format. Returns the records in it, if
    /// the target says how to find them. A file whose records cannot be read is broken.
    pub fn examine(&self, content: Option<&[u8]>, state: FileState) -> (FileState, Option<Vec<String>>) {
        let Some(expression) = &self.data.records else { return (state, None) };
        match (content, &state) {
            (Some(content), FileState::Whole) => match expression.names_in_data(content, self.data.format) {
                Ok(records) => (state, Some(self.record_names(records))),
                // The control has shown that the expression fits what the store writes.
                Err(why) => (FileState::Broken(format!("{RECORDS_UNREADABLE} by {expression}: {why}")), None),
            },
            (_, FileState::Missing | FileState::Empty) => (state, Some(Vec::new())),
            _ => (state, None),
        }
    }

    /// Returns every command, with its name in an adapter file.
    pub fn commands(&self) -> Vec<(String, &Command)> {
        let ops = &self.ops;
        let single = [
            ("ops.init", ops.init.as_ref()),
            ("ops.add", Some(&ops.add)),
            ("ops.list", ops.list.as_ref()),
            ("ops.recover", ops.recover.as_ref()),
            ("guard.add", self.guard.as_ref().and_then(|guard| guard.add.as_ref())),
            ("derived.rebuild", self.derived.as_ref().map(|derived| &derived.rebuild)),
            ("session.command", self.session.as_ref().map(|session| &session.command)),
        ];
        let other = ops.other.iter().map(|(name, command)| (format!("ops.other.{name}"), command));
        single
            .into_iter()
            .filter_map(|(name, command)| Some((name.to_owned(), command?)))
            .chain(other)
            .collect()
    }

    /// Returns the embedded reference store, in the plain convention.
    pub fn embedded(folder: &Path) -> Self {
        let command = |words: &[&str]| Command::from_words(words).unwrap_or_else(|bug| unreachable!("{bug}"));
        let records = Extract::json_path("$.records[*]").unwrap_or_else(|bug| unreachable!("{bug}"));
        let mut target = Self::plain(
            "picklock-store".into(),
            folder,
            command(&["{store}", "add", "{data}", "{id}"]),
            command(&["{store}", "list", "{data}"]),
        );
        target.origin = "the embedded reference store".into();
        target.data.records = Some(records);
        target
    }

    /// Returns a store in the plain convention: exit status 3 means refused, 75 busy.
    fn plain(name: String, folder: &Path, add: Command, list: Command) -> Self {
        Self {
            origin: "the plain convention".into(),
            exit: ExitMeanings { refused: vec![3], busy: vec![75] },
            ..Self::bare(name, folder, add, Some(list))
        }
    }

    /// Returns a target with nothing but its commands and the defaults.
    fn bare(name: String, folder: &Path, add: Command, list: Option<Command>) -> Self {
        Self {
            name,
            origin: String::new(),
            folder: folder.to_owned(),
            cwd: None,
            data: DataFile {
                path: "store.json".into(),
                format: Format::Json,
                records: None,
                listed: Extract::Lines,
                also: Vec::new(),
            },
            ops: Ops { init: None, add, list, recover: None, other: BTreeMap::new() },
            exit: ExitMeanings::default(),
            guard: None,
            derived: None,
            session: None,
            claims: BTreeMap::new(),
            limits: Limits::default(),
            env: BTreeMap::new(),
        }
    }

    /// Checks the target as a whole: data, records, programs.
    fn complete(mut self) -> Result<Self, UsageError> {
        data::check_path(&self.data.path)?;
        if self.data.format == Format::Opaque && self.data.records.is_some() {
            return Err(UsageError::new(
                "data.records",
                "opaque data has no records that picklock could read",
            )
            .help("give data.format (json, jsonl or text), or leave records out: `list` is judged"));
        }
        if self.ops.list.is_none() && self.data.records.is_none() {
            if self.data.format != Format::Json {
                return Err(UsageError::new(
                    "ops.list",
                    "neither `list` nor `records` says how to read the records back",
                )
                .help(
                    "give a list command (--list), or say where the names stand in the data file (--records)",
                ));
            }
            self.data.records =
                Some(Extract::json_path("$[*]").map_err(|bug| UsageError::new("data.records", bug))?);
        }
        if let Some(records) = &self.data.records {
            records.check_for(self.data.format).map_err(|why| UsageError::new("data.records", why))?;
        }
        for pattern in &mut self.data.also {
            *pattern = data::check_pattern(pattern).map_err(|why| UsageError::new("data.also", why))?;
        }
        for (name, command) in self.commands() {
            program::check(command, &self.folder).map_err(|error| error.at(&name))?;
        }
        Ok(self)
    }
}

impl Command {
    /// Whether a path in it contains the record's name.
    pub fn paths_hold_id(&self) -> bool {
        self.words.iter().any(Template::has_id_in_path)
    }

    /// Whether it differs from client to client.
    pub fn names_client(&self) -> bool {
        self.words.iter().any(Template::names_client)
    }

    /// Builds a command from these words, each a template.
    ///
    /// # Errors
    /// Fails if there is no word, or one has an unknown placeholder.
    pub fn from_words<S: AsRef<str>>(words: &[S]) -> Result<Self, UsageError> {
        if words.first().is_none_or(|program| program.as_ref().is_empty()) {
            return Err(UsageError::new("", "the command is empty"));
        }
        Ok(Self { words: words.iter().map(|word| Template::parse(word.as_ref())).collect::<Result<_, _>>()? })
    }

    /// Returns the program to start and its arguments, with all placeholders expanded.
    pub fn render(&self, values: &Values, folder: &Path) -> (PathBuf, Vec<OsString>) {
        let mut words = self.words.iter().map(|word| word.render(values));
        let program = words.next().unwrap_or_default();
        (program::locate(Path::new(&program), folder), words.collect())
    }

    /// Returns the words as given, including placeholders.
    pub fn source(&self) -> Vec<String> {
        self.words.iter().map(ToString::to_string).collect()
    }
}

/// Displays the command as one would type it.
impl fmt::Display for Command {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.words.iter().enumerate() {
            if index > 0 {
                out.write_str(" ")?;
            }
            let word = word.to_string();
            // Braces are placeholders here, and need no quotes because no shell is involved.
            if word.chars().all(|c| c.is_alphanumeric() || "{}/._-+=:,%@".contains(c)) && !word.is_empty() {
                out.write_str(&word)?;
            } else {
                out.write_str(&shell_words::quote(&word))?;
            }
        }
        Ok(())
    }
}

/// An invalid target, or an invalid request about one: location, reason and advice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError {
    /// File and line, if it is in a file.
    pub place: Option<String>,
    /// The key or flag.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// How to fix it.
    pub help: Option<String>,
}

impl UsageError {
    /// Creates an error about `key`.
    pub fn new(key: &str, message: impl fmt::Display) -> Self {
        Self { place: None, key: key.to_owned(), message: message.to_string(), help: None }
    }

    /// Adds advice.
    #[must_use]
    pub fn help(mut self, help: impl fmt::Display) -> Self {
        self.help = Some(help.to_string());
        self
    }

    /// Sets the key that it is about, if not known yet.
    #[must_use]
    pub fn at(mut self, key: &str) -> Self {
        if self.key.is_empty() {
            key.clone_into(&mut self.key);
        }
        self
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(out, "{place}: ")?;
        }
        if !self.key.is_empty() {
            write!(out, "{}: ", self.key)?;
        }
        out.write_str(&self.message)?;
        if let Some(help) = &self.help {
            write!(out, "\n  help: {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for UsageError {}

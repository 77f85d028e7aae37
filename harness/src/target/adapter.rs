//! Adapter files: a target in TOML; every error names file, line and key, and the nearest known word.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::catalogue::{self, nearest};
use crate::target::{
    Command, DataFile, Derived, ExitMeanings, Extract, Format, Guard, Limits, Ops, Session, Target, Template,
    UsageError,
};

/// Key in `[claims]` for the two invariants of power loss.
const POWER_LOSS: (&str, [&str; 2]) = ("power_loss", ["power-loss-atomic", "acked-survives-power-loss"]);

/// Reads the adapter file `path`.
///
/// # Errors
/// Fails if it cannot be read or is invalid.
pub fn read(path: &Path) -> Result<Target, UsageError> {
    let text = fs::read_to_string(path).map_err(|why| {
        UsageError::new("--adapter", format!("the adapter file {path:?} cannot be read: {why}"))
    })?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let mut target = parse(&text, &path.display().to_string(), &folder)?;
    target.origin = format!("the adapter file {}", path.display());
    Ok(target)
}

/// Parses an adapter from `text`; errors call it `file`, and its programs are resolved from `folder`.
///
/// # Errors
/// Reports the first invalid entry.
pub fn parse(text: &str, file: &str, folder: &Path) -> Result<Target, UsageError> {
    let source = Source { text, file };
    let parsed = DeTable::parse(text)
        .map_err(|why| source.error(why.span().map_or(0, |span| span.start), "", why.message().trim()))?;
    let mut root = Section::new(&source, "", parsed.get_ref(), 0);

    let mut ops_section = root.section("ops")?.ok_or_else(|| {
        source
            .error(0, "ops", "is missing")
            .help("add = [\"./store\", \"add\", \"{data}\", \"{id}\"] is required")
    })?;
    let add = ops_section.required_command("add")?;
    let ops = Ops {
        init: ops_section.command("init")?,
        list: ops_section.command("list")?,
        recover: ops_section.command("recover")?,
        other: match ops_section.section("other")? {
            Some(section) => section.every(Section::command_at)?,
            None => Default::default(),
        },
        add: add.clone(),
    };
    ops_section.finish()?;

    let mut target = Target::bare(file.to_owned(), folder, add, None);
    target.origin = file.to_owned();
    target.ops = ops;
    if let Some(name) = root.string("name")? {
        target.name = name.value;
    }
    target.cwd = match root.template("cwd")? {
        // Commands run in the adapter's own folder anyway.
        Some(cwd) if cwd.to_string() == "." => None,
        cwd => cwd,
    };
    if let Some(section) = root.section("data")? {
        target.data = data(section, &target.data)?;
    }
    if let Some(mut section) = root.section("exit")? {
        target.exit = ExitMeanings { refused: section.statuses("refused")?, busy: section.statuses("busy")? };
        section.finish()?;
    }
    if let Some(mut section) = root.section("guard")? {
        let limit = section.integer("limit")?.ok_or_else(|| section.missing("limit"))?;
        target.guard = Some(Guard { limit, add: section.command("add")? });
        section.finish()?;
    }
    if let Some(mut section) = root.section("derived")? {
        let files = section.strings("files")?;
        if files.is_empty() {
            return Err(section.missing("files"));
        }
        target.derived = Some(Derived { files, rebuild: section.required_command("rebuild")? });
        section.finish()?;
    }
    if let Some(mut section) = root.section("session")? {
        let command = section.required_command("command")?;
        target.session = Some(Session { command, removes: section.strings("removes")? });
        section.finish()?;
    }
    if let Some(section) = root.section("claims")? {
        target.claims = claims(section)?;
    }
    if let Some(section) = root.section("limits")? {
        target.limits = limits(section)?;
    }
    if let Some(section) = root.section("env")? {
        target.env = section.every(Section::template_at)?;
    }
    root.finish()?;
    // Errors of the target as a whole are reported at the line of the key, if it is in the file.
    target.complete().map_err(|error| {
        let line = source.line_of_key(&error.key);
        UsageError { place: Some(source.place(line)), ..error }
    })
}

fn data(mut section: Section<'_, '_>, default: &DataFile) -> Result<DataFile, UsageError> {
    let path = section.string("path")?.map_or_else(|| default.path.clone(), |path| PathBuf::from(path.value));
    let format = match section.string("format")? {
        Some(name) => Format::by_name(&name.value).map_err(|why| section.error(name.at, "format", why))?,
        None => Format::by_extension(&path),
    };
    let data = DataFile {
        path,
        format,
        records: section.extract("records")?,
        listed: section.extract("listed")?.unwrap_or(Extract::Lines),
        also: section.strings("also")?,
    };
    section.finish()?;
    Ok(data)
}

fn claims(mut section: Section<'_, '_>) -> Result<std::collections::BTreeMap<String, bool>, UsageError> {
    let mut claims = std::collections::BTreeMap::new();
    for (key, value) in section.table {
        let name = key.get_ref().as_ref();
        section.seen.push(name.to_owned());
        let Some(claimed) = value.get_ref().as_bool() else {
            return Err(section.wrong_type(value.span().start, name, "true or false", value));
        };
        if name == POWER_LOSS.0 {
            claims.extend(POWER_LOSS.1.map(|id| (id.to_owned(), claimed)));
        } else if catalogue::INVARIANT_IDS.contains(&name) {
            claims.insert(name.to_owned(), claimed);
        } else {
            let known = catalogue::INVARIANT_IDS.iter().copied().chain([POWER_LOSS.0]);
            return Err(section.unknown(key.span().start, name, "invariant", known));
        }
    }
    Ok(claims)
}

fn limits(mut section: Section<'_, '_>) -> Result<Limits, UsageError> {
    let default = Limits::default();
    let timeout = match section.string("timeout")? {
        Some(text) => humantime::parse_duration(&text.value)
            .ok()
            .filter(|timeout| *timeout > Duration::ZERO)
            .ok_or_else(|| {
                section.error(text.at, "timeout", format!("{:?} is no duration such as \"10s\"", text.value))
            })?,
        None => default.timeout,
    };
    let mut size = |key: &str, default: u64| match section.string(key)? {
        Some(text) => text
            .value
            .parse::<bytesize::ByteSize>()
            .map(|size| size.as_u64())
            .ok()
            .filter(|size| *size > 0)
            .ok_or_else(|| {
                section.error(text.at, key, format!("{:?} is no size such as \"1MiB\"", text.value))
            }),
        None => Ok(default),
    };
    let (output, file) = (size("output", default.output)?, size("file", default.file)?);
    let processes = section.integer("processes")?.unwrap_or(default.processes);
    section.finish()?;
    Ok(Limits { timeout, output, file, processes })
}

/// The text being parsed, for positions in it.
struct Source<'a> {
    text: &'a str,
    file: &'a str,
}

/// A value and its offset in the text.
struct Found<T> {
    value: T,
    at: usize,
}

/// A table that is read key by key, and at the end reports keys that were not read.
struct Section<'s, 'i> {
    source: &'s Source<'s>,
    name: String,
    table: &'s DeTable<'i>,
    at: usize,
    seen: Vec<String>,
}

impl Source<'_> {
    fn line(&self, at: usize) -> usize {
        self.text.as_bytes()[..at.min(self.text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
    }

    fn place(&self, line: usize) -> String {
        format!("{}:{line}", self.file)
    }

    fn error(&self, at: usize, key: &str, message: impl std::fmt::Display) -> UsageError {
        UsageError { place: Some(self.place(self.line(at))), ..UsageError::new(key, message) }
    }

    /// Returns the line on which `key` (as in `ops.add`) is set, or the first.
    fn line_of_key(&self, key: &str) -> usize {
        let Ok(parsed) = DeTable::parse(self.text) else { return 1 };
        let mut table = parsed.get_ref();
        let mut at = 0;
        for part in key.split('.') {
            let Some((name, value)) = table.iter().find(|(name, _)| name.get_ref().as_ref() == part) else {
                break;
            };
            at = name.span().start;
            match value.get_ref().as_table() {
                Some(inner) => table = inner,
                None => break,
            }
        }
        self.line(at)
    }
}

impl<'s, 'i> Section<'s, 'i> {
    fn new(source: &'s Source<'s>, name: &str, table: &'s DeTable<'i>, at: usize) -> Self {
        Self { source, name: name.to_owned(), table, at, seen: Vec::new() }
    }

    fn key(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    fn error(&self, at: usize, key: &str, message: impl std::fmt::Display) -> UsageError {
        self.source.error(at, &self.key(key), message)
    }

    fn missing(&self, key: &str) -> UsageError {
        self.error(self.at, key, "is missing")
    }

    fn wrong_type(&self, at: usize, key: &str, wanted: &str, value: &Spanned<DeValue<'_>>) -> UsageError {
        self.error(at, key, format!("takes {wanted}, not {}", value.get_ref().type_str()))
    }

    fn unknown<'a>(
        &self,
        at: usize,
        key: &str,
        what: &str,
        known: impl Iterator<Item = &'a str> + Clone,
    ) -> UsageError {
        let error = self.error(at, key, format!("there is no {what} {key:?} here"));
        match nearest(key, known.clone()) {
            Some(meant) => error.help(format!("did you mean {meant:?}?")),
            None => error.help(format!("known here: {}", known.collect::<Vec<_>>().join(", "))),
        }
    }

    fn get(&mut self, key: &str) -> Option<&'s Spanned<DeValue<'i>>> {
        self.seen.push(key.to_owned());
        self.table.iter().find(|(name, _)| name.get_ref().as_ref() == key).map(|(_, value)| value)
    }

    fn section(&mut self, key: &str) -> Result<Option<Section<'s, 'i>>, UsageError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.get_ref().as_table() {
            Some(table) => Ok(Some(Section::new(self.source, &self.key(key), table, value.span().start))),
            None => Err(self.wrong_type(value.span().start, key, "a table", value)),
        }
    }

    fn string(&mut self, key: &str) -> Result<Option<Found<String>>, UsageError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let at = value.span().start;
        match value.get_ref().as_str() {
            Some(text) => Ok(Some(Found { value: text.to_owned(), at })),
            None => Err(self.wrong_type(at, key, "a string", value)),
        }
    }

    fn strings(&mut self, key: &str) -> Result<Vec<String>, UsageError> {
        match self.get(key) {
            Some(value) => self.strings_of(key, value),
            None => Ok(Vec::new()),
        }
    }

    fn strings_of(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<Vec<String>, UsageError> {
        let wrong = |value: &Spanned<DeValue<'_>>| {
            self.wrong_type(value.span().start, key, "a list of strings", value)
        };
        let Some(list) = value.get_ref().as_array() else { return Err(wrong(value)) };
        list.iter()
            .map(|item| item.get_ref().as_str().map(ToOwned::to_owned).ok_or_else(|| wrong(item)))
            .collect()
    }

    fn number<N: TryFrom<i64>>(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        wanted: &str,
    ) -> Result<N, UsageError> {
        value
            .get_ref()
            .as_integer()
            .and_then(|number| i64::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok())
            .and_then(|number| N::try_from(number).ok())
            .ok_or_else(|| self.wrong_type(value.span().start, key, wanted, value))
    }

    /// Reads a number of at least 1.
    fn integer(&mut self, key: &str) -> Result<Option<u32>, UsageError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match self.number::<u32>(key, value, "a whole number")? {
            0 => Err(self.error(value.span().start, key, "must be at least 1")),
            number => Ok(Some(number)),
        }
    }

    fn statuses(&mut self, key: &str) -> Result<Vec<i32>, UsageError> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let wanted = "a list of exit statuses from 1 to 255";
        let Some(list) = value.get_ref().as_array() else {
            return Err(self.wrong_type(value.span().start, key, wanted, value));
        };
        list.iter()
            .map(|item| match self.number::<u8>(key, item, wanted)? {
                0 => Err(self.error(item.span().start, key, "0 always means acknowledged")),
                status => Ok(i32::from(status)),
            })
            .collect()
    }

    fn template(&mut self, key: &str) -> Result<Option<Template>, UsageError> {
        match self.get(key) {
            Some(value) => self.template_at(key, value).map(Some),
            None => Ok(None),
        }
    }

    fn template_at(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<Template, UsageError> {
        let at = value.span().start;
        let Some(text) = value.get_ref().as_str() else {
            return Err(self.wrong_type(at, key, "a string", value));
        };
        Template::parse(text).map_err(|error| UsageError {
            place: Some(self.source.place(self.source.line(at))),
            key: self.key(key),
            ..error
        })
    }

    fn command(&mut self, key: &str) -> Result<Option<Command>, UsageError> {
        match self.get(key) {
            Some(value) => self.command_at(key, value).map(Some),
            None => Ok(None),
        }
    }

    fn required_command(&mut self, key: &str) -> Result<Command, UsageError> {
        self.command(key)?.ok_or_else(|| {
            self.missing(key).help(format!("it is a list of words: {key} = [\"./store\", …, \"{{data}}\"]"))
        })
    }

    fn command_at(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<Command, UsageError> {
        let at = value.span().start;
        if value.get_ref().is_str() {
            return Err(self
                .wrong_type(at, key, "a list of words", value)
                .help(format!("{key} = [\"program\", \"argument\", …]; no shell runs")));
        }
        Command::from_words(&self.strings_of(key, value)?).map_err(|error| UsageError {
            place: Some(self.source.place(self.source.line(at))),
            key: self.key(key),
            ..error
        })
    }

    fn extract(&mut self, key: &str) -> Result<Option<Extract>, UsageError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let at = value.span().start;
        let extract = if let Some(text) = value.get_ref().as_str() {
            Extract::parse(text)
        } else if let Some(table) = value.get_ref().as_table() {
            let mut section = Section::new(self.source, &self.key(key), table, at);
            let (keys, regex) = (section.string("keys")?, section.string("regex")?);
            section.finish()?;
            match (keys, regex) {
                (Some(path), None) => Extract::keys(&path.value),
                (None, Some(pattern)) => Extract::regex(&pattern.value),
                _ => Err("takes either keys or regex".to_owned()),
            }
        } else {
            return Err(self.wrong_type(
                at,
                key,
                "a JSONPath, { keys = … }, { regex = … } or \"lines\"",
                value,
            ));
        };
        extract.map(Some).map_err(|why| self.error(at, key, why))
    }

    /// Reads every key of a table with arbitrary keys.
    fn every<T>(
        self,
        read: impl Fn(&Self, &str, &Spanned<DeValue<'_>>) -> Result<T, UsageError>,
    ) -> Result<std::collections::BTreeMap<String, T>, UsageError> {
        self.table
            .iter()
            .map(|(key, value)| Ok((key.get_ref().to_string(), read(&self, key.get_ref(), value)?)))
            .collect()
    }

    /// Reports the first key that was not read.
    fn finish(self) -> Result<(), UsageError> {
        let unread = self.table.keys().find(|key| !self.seen.iter().any(|seen| *seen == *key.get_ref()));
        match unread {
            Some(key) => Err(self.unknown(
                key.span().start,
                key.get_ref(),
                "key",
                self.seen.iter().map(String::as_str),
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
name = "trade-store"
cwd  = "{dir}"
[data]
path    = "trades.json"
records = "$.trades[*].id"
listed  = { regex = "^(\\S+)" }
also    = ["state/*.json"]
[ops]
init = ["true", "init", "{data}"]
add  = ["true", "add", "{data}", "{id}"]
list = ["true", "list", "{data}"]
recover = ["true", "repair", "{data}"]
[ops.other]
rotate = ["true", "rotate", "{data}"]
[exit]
refused = [3]
busy    = [75]
[guard]
limit = 3
add   = ["true", "add-capped", "{data}", "{id}"]
[derived]
files   = ["portfolio.json"]
rebuild = ["true", "reconcile", "{data}"]
[session]
command = ["true", "session", "{data}"]
removes = ["clear"]
[claims]
power_loss = false
no-residue = true
[limits]
timeout = "2s"
output = "4KiB"
file = "1MB"
processes = 8
[env]
KEY = "{n}"
"#;

    fn parsed(text: &str) -> Result<Target, UsageError> {
        parse(text, "a.toml", Path::new("/"))
    }

    #[test]
    fn every_key_of_the_interface_is_read() {
        let target = parsed(WHOLE).unwrap();
        assert_eq!(target.name, "trade-store");
        assert_eq!(target.cwd.unwrap().to_string(), "{dir}");
        assert_eq!(target.data.path, Path::new("trades.json"));
        assert_eq!(target.data.records.unwrap().to_string(), "$.trades[*].id");
        assert_eq!(target.data.listed.to_string(), "regex:^(\\S+)");
        assert_eq!(target.data.also, ["state/*.json"]);
        assert!(target.ops.init.is_some() && target.ops.list.is_some() && target.ops.recover.is_some());
        assert_eq!(target.ops.other["rotate"].to_string(), "true rotate {data}");
        assert_eq!((target.exit.refused, target.exit.busy), (vec![3], vec![75]));
        let guard = target.guard.unwrap();
        assert!(guard.limit == 3 && guard.add.is_some());
        assert_eq!(target.derived.unwrap().files, ["portfolio.json"]);
        assert_eq!(target.session.unwrap().removes, ["clear"]);
        assert!(!target.claims["power-loss-atomic"]);
        assert!(!target.claims["acked-survives-power-loss"]);
        assert!(target.claims["no-residue"]);
        assert_eq!(
            target.limits,
            Limits { timeout: Duration::from_secs(2), output: 4096, file: 1_000_000, processes: 8 }
        );
        assert_eq!(target.env["KEY"].to_string(), "{n}");
    }

    #[test]
    fn what_is_not_given_has_the_interface_s_default() {
        let target = parsed("[ops]\nadd = [\"true\", \"{id}\"]\n").unwrap();
        assert_eq!((target.data.path.to_str(), target.data.format), (Some("store.json"), Format::Json));
        assert_eq!(target.data.records.unwrap().to_string(), "$[*]");
        assert_eq!(target.exit, ExitMeanings::default());
        assert_eq!(target.limits, Limits::default());
    }

    /// Checks that `text` is refused with an error at `place` that names `key`.
    #[track_caller]
    fn refused(text: &str, place: &str, key: &str, says: &str) {
        let error = parsed(text).unwrap_err().to_string();
        assert!(error.starts_with(&format!("a.toml:{place}: {key}")), "{error}");
        assert!(error.contains(says), "{error}");
    }

    #[test]
    fn every_error_names_file_line_and_key_and_the_nearest_word() {
        let ops = "[ops]\nadd = [\"true\", \"{id}\"]\n";
        refused("name = \"x\"\n", "1", "ops", "is missing");
        refused("[ops]\nlist = [\"true\"]\n", "1", "ops.add", "is missing");
        refused("[ops]\nadd = \"./store add\"\n", "2", "ops.add", "a list of words, not string");
        refused("[ops]\nadd = [\"true\", 1]\n", "2", "ops.add", "a list of strings, not integer");
        refused("[ops]\nadd = [\"true\", \"{ids}\"]\n", "2", "ops.add", "did you mean {id}?");
        refused("[ops]\nadd = [\"./no-such\"]\n", "2", "ops.add", "cannot be found");
        refused(&format!("{ops}lst = [\"true\"]\n"), "3", "ops.lst", "did you mean \"list\"?");
        refused(&format!("{ops}[dtaa]\n"), "3", "dtaa", "did you mean \"data\"?");
        refused(&format!("{ops}[data]\nrecords = \"$.[\"\n"), "4", "data.records", "does not parse");
        refused(
            &format!("{ops}[data]\nrecords = {{ key = \"$\" }}\n"),
            "4",
            "data.records.key",
            "did you mean \"keys\"",
        );
        refused(&format!("{ops}[data]\nformat = \"jsn\"\n"), "4", "data.format", "did you mean \"json\"");
        refused(&format!("{ops}[data]\npath = \"../x\"\n"), "4", "data.path", "within the sandbox");
        refused(&format!("{ops}[data]\npath = \"x.db\"\n"), "1", "ops.list", "neither `list` nor `records`");
        refused(
            &format!("{ops}[claims]\nno-lost-updates = false\n"),
            "4",
            "claims.no-lost-updates",
            "no-lost-update",
        );
        refused(&format!("{ops}[claims]\nvalid-data = 1\n"), "4", "claims.valid-data", "true or false");
        refused(&format!("{ops}[limits]\ntimeout = \"ten\"\n"), "4", "limits.timeout", "no duration");
        refused(&format!("{ops}[limits]\nprocesses = 0\n"), "4", "limits.processes", "at least 1");
        refused(&format!("{ops}[exit]\nrefused = [0]\n"), "4", "exit.refused", "acknowledged");
        refused(&format!("{ops}[guard]\n"), "3", "guard.limit", "is missing");
        refused("ops = 1\n[x\n", "2", "", "");
    }
}

//! Builds a target from the command line: the plain convention after `--`, and one-shot commands in flags.

use std::path::Path;

use crate::target::{Command, DataFile, Extract, Format, Target, UsageError};

/// The target flags, as text.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--data`
    pub data: Option<String>,
    /// `--add`
    pub add: Option<String>,
    /// `--list`
    pub list: Option<String>,
    /// `--init`
    pub init: Option<String>,
    /// `--records`
    pub records: Option<String>,
    /// `--listed`
    pub listed: Option<String>,
    /// `--data-format`
    pub data_format: Option<String>,
}

impl Flags {
    /// Whether no flag was given.
    pub fn is_empty(&self) -> bool {
        let Self { data, add, list, init, records, listed, data_format } = self;
        [data, add, list, init, records, listed, data_format].iter().all(|flag| flag.is_none())
    }

    /// Builds the target that the flags describe.
    ///
    /// # Errors
    /// Reports an invalid flag by its name.
    pub fn into_target(self, folder: &Path) -> Result<Target, UsageError> {
        let Some(add) = &self.add else {
            return Err(UsageError::new(
                "--add",
                "is missing: it is the command that puts a record into the store",
            )
            .help("for example --add './store add {data} {id}' --list './store list {data}'"));
        };
        let command = |flag: &str, text: &str| split(text).map_err(|error| error.at(flag));
        let add = command("--add", add)?;
        let list = self.list.as_deref().map(|list| command("--list", list)).transpose()?;
        // Only the first word: it is unknown where the store's own words end and those of the operation begin.
        let name = add.words.first().map(ToString::to_string).unwrap_or_default();
        let mut target = Target::bare(name, folder, add, list);
        target.origin = "the commands on the command line".into();
        target.ops.init = self.init.as_deref().map(|init| command("--init", init)).transpose()?;
        target.data = self.data_file()?;
        target.complete().map_err(with_flag_names)
    }

    /// Builds the target of the plain convention, `program add {data} {id}` and `program list {data}`.
    ///
    /// # Errors
    /// Fails if a flag is invalid, or the program cannot be run.
    pub fn into_plain_target(self, program: &[String], folder: &Path) -> Result<Target, UsageError> {
        if self.add.is_some() || self.list.is_some() || self.init.is_some() {
            return Err(UsageError::new("--", "a program after -- speaks the plain convention")
                .help("leave out --add, --list and --init, or leave out the program"));
        }
        let with = |words: &[&str]| {
            // The program's own words are not templates: they are passed on unchanged.
            let escaped = program.iter().map(|word| word.replace('{', "{{").replace('}', "}}"));
            let words: Vec<String> = escaped.chain(words.iter().map(|word| (*word).to_owned())).collect();
            Command::from_words(&words)
        };
        // The first word of `python3 store.py` alone says nothing.
        let name = shell_words::join(program);
        let (add, list) = (with(&["add", "{data}", "{id}"])?, with(&["list", "{data}"])?);
        let mut target = Target::plain(name, folder, add, list);
        target.data = self.data_file()?;
        target.complete().map_err(|mut error| {
            if error.key.starts_with("ops.") {
                "PROGRAM".clone_into(&mut error.key);
            }
            with_flag_names(error)
        })
    }

    fn data_file(&self) -> Result<DataFile, UsageError> {
        let extract = |flag: &str, text: &Option<String>| {
            text.as_deref()
                .map(|text| Extract::parse(text).map_err(|why| UsageError::new(flag, why)))
                .transpose()
        };
        let path = Path::new(self.data.as_deref().unwrap_or("store.json"));
        let format = match &self.data_format {
            Some(name) => Format::by_name(name).map_err(|why| UsageError::new("--data-format", why))?,
            None => Format::by_extension(path),
        };
        Ok(DataFile {
            path: path.to_owned(),
            format,
            records: extract("--records", &self.records)?,
            listed: extract("--listed", &self.listed)?.unwrap_or(Extract::Lines),
            also: Vec::new(),
        })
    }
}

/// Replaces the adapter key in an error of `Target::complete` by the flag.
fn with_flag_names(mut error: UsageError) -> UsageError {
    for (key, flag) in [
        ("data.path", "--data"),
        ("data.records", "--records"),
        ("ops.add", "--add"),
        ("ops.list", "--list"),
        ("ops.init", "--init"),
    ] {
        if error.key == key {
            flag.clone_into(&mut error.key);
        }
    }
    error
}

/// Splits a command as a shell splits words. No shell runs, so shell-only syntax is an error.
fn split(text: &str) -> Result<Command, UsageError> {
    let through_a_shell = || format!("sh -c {}", shell_words::quote(text));
    if let Some(operator) = unquoted_operator(text) {
        return Err(UsageError::new(
            "",
            format!("no shell runs, and {operator} has a meaning to a shell alone: {text}"),
        )
        .help(format!("write it as {}, or put the sign in quotes", through_a_shell())));
    }
    let words = shell_words::split(text).map_err(|why| UsageError::new("", format!("{why}: {text}")))?;
    if words.first().is_some_and(|first| is_assignment(first)) {
        return Err(UsageError::new(
            "",
            format!("no shell runs, and a leading NAME=value has a meaning to a shell alone: {text}"),
        )
        .help(format!("write it as {}, or as env {text}", through_a_shell())));
    }
    Command::from_words(&words)
}

/// Returns the first shell operator in `text` outside quotes.
fn unquoted_operator(text: &str) -> Option<&'static str> {
    let mut quote = None;
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match (quote, character) {
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (None, '\'' | '"') => quote = Some(character),
            (None | Some('"'), '\\') => {
                characters.next();
            }
            (None, _) => {
                let found = ["&&", "||", "|", ">", "<", ";", "&", "`"]
                    .into_iter()
                    .find(|o| text[at..].starts_with(o));
                if found.is_some() {
                    return found;
                }
            }
            _ => {}
        }
    }
    None
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty()
            && !name.starts_with(|first: char| first.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        split(text).unwrap().source()
    }

    #[test]
    fn commands_are_split_as_a_shell_splits_words() {
        assert_eq!(words("sed -i \"$a {id}\" {data}"), ["sed", "-i", "$a {id}", "{data}"]);
        assert_eq!(words("sh -c 'a | b > c; d && X=1 e'"), ["sh", "-c", "a | b > c; d && X=1 e"]);
        assert_eq!(words(r"printf a\ b"), ["printf", "a b"]);
        assert_eq!(words("a --x=1"), ["a", "--x=1"]);
    }

    #[test]
    fn what_only_a_shell_understands_is_an_error_that_proposes_one() {
        for text in ["a | b", "a > b", "a && b", "a; b", "X=1 a", "a < b", "a &"] {
            let error = split(text).unwrap_err();
            assert!(error.help.as_deref().unwrap_or_default().contains("sh -c"), "{error}");
        }
        assert!(split("a 'b").is_err());
        assert!(split("").is_err());
    }

    #[test]
    fn flags_without_add_say_what_is_missing() {
        let flags = Flags { list: Some("true".into()), ..Flags::default() };
        assert!(flags.into_target(Path::new("/")).unwrap_err().to_string().starts_with("--add: is missing"));
    }

    #[test]
    fn errors_name_the_flag() {
        let with = |flags: Flags| flags.into_target(Path::new("/")).unwrap_err().key;
        let add = || Some("true {id}".to_owned());
        assert_eq!(with(Flags { add: Some("true {ids}".into()), ..Flags::default() }), "--add");
        assert_eq!(with(Flags { add: add(), records: Some("$.[".into()), ..Flags::default() }), "--records");
        assert_eq!(with(Flags { add: add(), data: Some("../x".into()), ..Flags::default() }), "--data");
        assert_eq!(with(Flags { add: add(), data: Some("x.db".into()), ..Flags::default() }), "--list");
        assert_eq!(
            with(Flags { add: add(), data_format: Some("jsn".into()), ..Flags::default() }),
            "--data-format"
        );
        assert_eq!(with(Flags { add: Some("./no-such-program".into()), ..Flags::default() }), "--add");
    }

    #[test]
    fn json_without_list_or_records_reads_an_array() {
        let target =
            Flags { add: Some("true {id}".into()), ..Flags::default() }.into_target(Path::new("/")).unwrap();
        assert_eq!(target.data.records.unwrap().to_string(), "$[*]");
    }

    #[test]
    fn the_plain_convention_adds_its_words_and_leaves_the_program_s_alone() {
        let target =
            Flags::default().into_plain_target(&["true".into(), "{x}".into()], Path::new("/")).unwrap();
        let (program, arguments) = target.ops.add.render(&crate::target::Values::default(), Path::new("/"));
        assert_eq!(program, Path::new("true"));
        assert_eq!(arguments, ["{x}", "add", "", ""]);
        assert_eq!((target.exit.refused, target.exit.busy), (vec![3], vec![75]));
        assert_eq!(target.name, "true {x}");
    }
}

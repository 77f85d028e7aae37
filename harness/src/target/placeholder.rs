//! Expands placeholders such as `{data}` in the words of a command.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;

use crate::target::UsageError;

/// A word with placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    source: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Placeholder(Placeholder),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placeholder {
    Dir,
    Data,
    Id,
    Number,
    Client,
    Store,
    Critical,
}

const PLACEHOLDERS: [(&str, Placeholder); 7] = [
    ("dir", Placeholder::Dir),
    ("data", Placeholder::Data),
    ("id", Placeholder::Id),
    ("n", Placeholder::Number),
    ("client", Placeholder::Client),
    ("store", Placeholder::Store),
    ("critical", Placeholder::Critical),
];

/// Values of the placeholders in one operation.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// The sandbox directory, absolute.
    pub dir: PathBuf,
    /// The data file, absolute.
    pub data: PathBuf,
    /// The record's name.
    pub id: String,
    /// The record's number.
    pub n: u32,
    /// The client's number, from 1.
    pub client: u32,
    /// The embedded reference store.
    pub store: PathBuf,
    /// The unlocked read-modify-write helper.
    pub critical: PathBuf,
}

impl Template {
    /// Parses a word: `{{` and `}}` are literal braces, a known name in braces is a placeholder, any other is literal.
    ///
    /// # Errors
    /// Fails if a single word in braces is a near miss of a placeholder, which would otherwise be passed on unnoticed.
    pub fn parse(source: &str) -> Result<Self, UsageError> {
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut rest = source;
        while let Some(next) = rest.chars().next() {
            if rest.starts_with("{{") || rest.starts_with("}}") {
                text.push(next);
                rest = &rest[2..];
                continue;
            }
            if let Some((word, after)) = rest.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
                if let Some((_, placeholder)) = PLACEHOLDERS.iter().find(|(name, _)| *name == word) {
                    parts.push(Part::Text(std::mem::take(&mut text)));
                    parts.push(Part::Placeholder(*placeholder));
                    rest = after;
                    continue;
                }
                if let Some(meant) = near_miss(word) {
                    return Err(UsageError::new("", format!("unknown placeholder {{{word}}} in {source:?}"))
                        .help(format!(
                            "did you mean {{{meant}}}? A brace of your own is written {{{{ or }}}}"
                        )));
                }
            }
            text.push(next);
            rest = &rest[next.len_utf8()..];
        }
        parts.push(Part::Text(text));
        parts.retain(|part| *part != Part::Text(String::new()));
        Ok(Self { source: source.to_owned(), parts })
    }

    /// Returns the word with its placeholders expanded.
    pub fn render(&self, values: &Values) -> OsString {
        let mut word = OsString::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => word.push(text),
                Part::Placeholder(placeholder) => match placeholder {
                    Placeholder::Dir => word.push(&values.dir),
                    Placeholder::Data => word.push(&values.data),
                    Placeholder::Id => word.push(&values.id),
                    Placeholder::Number => word.push(values.n.to_string()),
                    Placeholder::Client => word.push(values.client.to_string()),
                    Placeholder::Store => word.push(&values.store),
                    Placeholder::Critical => word.push(&values.critical),
                },
            }
        }
        word
    }

    /// Whether it differs from client to client.
    pub fn names_client(&self) -> bool {
        self.parts.contains(&Part::Placeholder(Placeholder::Client))
    }

    /// Whether the record's name is in a path: after `{dir}`, `{data}` or a slash, with no space or quote in between.
    pub fn has_id_in_path(&self) -> bool {
        let mut is_in_path = false;
        self.parts.iter().any(|part| {
            match part {
                Part::Text(text) => {
                    let is_end = |c: char| c.is_whitespace() || "'\";|&<>()".contains(c);
                    let word = text.rsplit(is_end).next().unwrap_or_default();
                    is_in_path = is_in_path && word.len() == text.len() || word.contains('/');
                }
                Part::Placeholder(Placeholder::Dir | Placeholder::Data) => is_in_path = true,
                Part::Placeholder(Placeholder::Id) => return is_in_path,
                Part::Placeholder(_) => {}
            }
            false
        })
    }

    /// Returns the word itself, if it has no placeholder.
    pub fn literal(&self) -> Option<&OsStr> {
        match self.parts.as_slice() {
            [] => Some(OsStr::new("")),
            [Part::Text(text)] => Some(OsStr::new(text)),
            _ => None,
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.source)
    }
}

/// Returns the placeholder that `word` was most likely meant to be.
fn near_miss(word: &str) -> Option<&'static str> {
    if word.is_empty() || !word.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-') {
        return None;
    }
    let folded = word.to_lowercase();
    let near = |name: &str| match name.len() {
        1 => folded == name,
        // Most words of two or three letters are one letter from `id`: a near miss must contain or reverse it.
        2 => folded == name || folded == "di" || (folded.len() == 3 && folded.contains(name)),
        short => strsim::osa_distance(&folded, name) <= if short <= 5 { 1 } else { 2 },
    };
    PLACEHOLDERS.iter().map(|(name, _)| *name).find(|name| near(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Values {
        Values {
            dir: "/s".into(),
            data: "/s/d".into(),
            id: "r1".into(),
            n: 1,
            client: 2,
            ..Values::default()
        }
    }

    #[track_caller]
    fn becomes(source: &str, expected: &str) {
        assert_eq!(Template::parse(source).unwrap().render(&values()), expected);
    }

    #[test]
    fn a_record_in_a_path_is_seen() {
        let has = |word: &str| Template::parse(word).unwrap().has_id_in_path();
        assert!(
            has("{dir}/{id}.json") && has("{data}.d/x-{id}") && has("notes/{id}") && has("cp x {dir}/{id}")
        );
        assert!(!has("{id}") && !has("echo {id} >> {data}") && !has("echo {data} {id}") && !has("name={id}"));
    }

    #[test]
    fn placeholders_are_filled_in_and_other_braces_stand_for_themselves() {
        becomes("{dir}/l", "/s/l");
        becomes("a={data}:{id}:{n}:{client}", "a=/s/d:r1:1:2");
        becomes("{{id}}", "{id}");
        becomes("{\"a\":{n}}", "{\"a\":1}");
        becomes("{print $1}", "{print $1}");
        becomes("{foo} {} { }", "{foo} {} { }");
        becomes("{unclosed", "{unclosed");
        becomes("", "");
    }

    #[test]
    fn a_near_miss_is_an_error_that_names_what_was_meant() {
        for (word, meant) in [
            ("{ids}", "{id}"),
            ("{ID}", "{id}"),
            ("{dat}", "{data}"),
            ("{dirs}", "{dir}"),
            ("{clients}", "{client}"),
            ("{N}", "{n}"),
            ("{critcal}", "{critical}"),
            ("{stroe}", "{store}"),
        ] {
            let error = Template::parse(word).unwrap_err();
            assert!(error.to_string().contains(&format!("did you mean {meant}")), "{error}");
        }
    }
}

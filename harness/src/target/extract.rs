//! Extracts record names from a data file or from the output of `list`.

use std::fmt;

use jsonpath_rust::parser::model::JpQuery;
use jsonpath_rust::parser::parse_json_path;
use jsonpath_rust::query::js_path_process;
use regex::Regex;
use serde_json::Value;

use crate::target::data::{self, Format};

/// How to find the record names.
#[derive(Clone, Debug)]
pub enum Extract {
    /// The nodes at an RFC 9535 path, strings or numbers; in JSON Lines on each line.
    JsonPath(String, Box<JpQuery>),
    /// The member names of the objects at an RFC 9535 path.
    Keys(String, Box<JpQuery>),
    /// Group 1 of each match, or else the whole match.
    Regex(Regex),
    /// One name per line; empty lines are skipped.
    Lines,
}

/// Reason why no records could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable(pub String);

impl Extract {
    /// Parses the form used on the command line: `$…`, `keys:$…`, `regex:…`, `lines`.
    ///
    /// # Errors
    /// Describes what is wrong with the expression.
    pub fn parse(expression: &str) -> Result<Self, String> {
        if let Some(path) = expression.strip_prefix("keys:") {
            Self::keys(path)
        } else if let Some(pattern) = expression.strip_prefix("regex:") {
            Self::regex(pattern)
        } else if expression.starts_with('$') {
            Self::json_path(expression)
        } else if expression == "lines" {
            Ok(Self::Lines)
        } else {
            Err(format!(
                "{expression:?} is none of: a JSONPath ($.records[*]), keys:$.path, regex:PATTERN, lines"
            ))
        }
    }

    /// Extracts the nodes at `path`.
    ///
    /// # Errors
    /// Fails if `path` is not an RFC 9535 path.
    pub fn json_path(path: &str) -> Result<Self, String> {
        Ok(Self::JsonPath(path.to_owned(), Box::new(parse_path(path)?)))
    }

    /// Extracts the member names of the objects at `path`.
    ///
    /// # Errors
    /// Fails if `path` is not an RFC 9535 path.
    pub fn keys(path: &str) -> Result<Self, String> {
        Ok(Self::Keys(path.to_owned(), Box::new(parse_path(path)?)))
    }

    /// Extracts the matches of `pattern`.
    ///
    /// # Errors
    /// Fails if `pattern` is not a regular expression.
    pub fn regex(pattern: &str) -> Result<Self, String> {
        Regex::new(pattern)
            .map(Self::Regex)
            .map_err(|why| format!("this regular expression does not parse: {why}"))
    }

    /// Checks that it can be used on data of this format.
    pub(super) fn check_for(&self, format: Format) -> Result<(), String> {
        match (self, format) {
            (Self::JsonPath(..) | Self::Keys(..), Format::Text) => {
                Err("a JSONPath reads json and jsonl only; this data is text: use regex:… or lines"
                    .to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Returns the names in a whole data file. A torn tail (the last line of JSON Lines or text, without its line feed)
    /// is not a record.
    ///
    /// # Errors
    /// Fails if the content is not of this format.
    pub fn names_in_data(&self, content: &[u8], format: Format) -> Result<Vec<String>, Unreadable> {
        let whole = if format.has_lines() { data::without_torn_tail(content) } else { content };
        match (self, format) {
            (Self::JsonPath(..) | Self::Keys(..), Format::Jsonl) => self.read_json_lines(whole),
            (Self::JsonPath(..) | Self::Keys(..), _) => self.read_json(whole),
            (Self::Regex(_) | Self::Lines, _) => Ok(self.read_text(whole)),
        }
    }

    /// Returns the names in the output of `list`.
    ///
    /// # Errors
    /// Fails if a path was given and the output is neither JSON nor JSON Lines.
    pub fn names_in_listing(&self, printed: &[u8]) -> Result<Vec<String>, Unreadable> {
        match self {
            Self::JsonPath(..) | Self::Keys(..) => {
                self.read_json(printed).or_else(|why| self.read_json_lines(printed).map_err(|_| why))
            }
            Self::Regex(_) | Self::Lines => Ok(self.read_text(printed)),
        }
    }

    fn read_json_lines(&self, content: &[u8]) -> Result<Vec<String>, Unreadable> {
        let lines = content.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
        let names: Result<Vec<Vec<String>>, Unreadable> = lines.map(|line| self.read_json(line)).collect();
        Ok(names?.into_iter().flatten().collect())
    }

    fn read_json(&self, content: &[u8]) -> Result<Vec<String>, Unreadable> {
        let value: Value =
            serde_json::from_slice(content).map_err(|why| Unreadable(format!("no JSON: {why}")))?;
        let (Self::JsonPath(_, path) | Self::Keys(_, path)) = self else { return Ok(Vec::new()) };
        let nodes = js_path_process(path, &value).map_err(|why| Unreadable(why.to_string()))?;
        let mut names = Vec::new();
        for node in nodes {
            match (self, node.val()) {
                (Self::Keys(..), Value::Object(members)) => names.extend(members.keys().cloned()),
                (Self::Keys(..), other) => return Err(Unreadable(format!("no object: {}", kind(other)))),
                (_, Value::String(name)) => names.push(name.clone()),
                (_, Value::Number(name)) => names.push(name.to_string()),
                (_, other) => return Err(Unreadable(format!("neither string nor number: {}", kind(other)))),
            }
        }
        Ok(names)
    }

    fn read_text(&self, content: &[u8]) -> Vec<String> {
        let text = String::from_utf8_lossy(content);
        match self {
            Self::Regex(pattern) => pattern
                .captures_iter(&text)
                .filter_map(|found| found.get(1).or_else(|| found.get(0)))
                .map(|name| name.as_str().to_owned())
                .collect(),
            _ => text.lines().map(str::trim).filter(|line| !line.is_empty()).map(String::from).collect(),
        }
    }
}

/// Displays the expression as written on the command line.
impl fmt::Display for Extract {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::JsonPath(path, _) => out.write_str(path),
            Self::Keys(path, _) => write!(out, "keys:{path}"),
            Self::Regex(pattern) => write!(out, "regex:{pattern}"),
            Self::Lines => out.write_str("lines"),
        }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

fn parse_path(path: &str) -> Result<JpQuery, String> {
    parse_json_path(path).map_err(|why| format!("the JSONPath {path:?} does not parse: {why}"))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn finds(expression: &str, format: Format, content: &str, expected: &[&str]) {
        assert_eq!(
            Extract::parse(expression).unwrap().names_in_data(content.as_bytes(), format).unwrap(),
            expected
        );
    }

    #[test]
    fn names_are_found_by_path_keys_pattern_and_line() {
        finds("$.trades[*].id", Format::Json, r#"{"trades":[{"id":"a"},{"id":7}]}"#, &["a", "7"]);
        finds("$[*]", Format::Json, r#"["a","b"]"#, &["a", "b"]);
        finds("keys:$.rec", Format::Json, r#"{"rec":{"a":1,"b":2}}"#, &["a", "b"]);
        finds("$.id", Format::Jsonl, "{\"id\":\"a\"}\n\n{\"id\":\"b\"}\n", &["a", "b"]);
        finds(r"regex:^\s*(\w+) = ", Format::Text, "  a = 1\n", &["a"]);
        finds(r"regex:r\d+", Format::Text, "r1 r2\n", &["r1", "r2"]);
        finds("lines", Format::Text, " a \n\nb\n", &["a", "b"]);
    }

    #[test]
    fn a_torn_tail_is_no_record() {
        finds("lines", Format::Text, "a\nb", &["a"]);
        finds("$.id", Format::Jsonl, "{\"id\":\"a\"}\n{\"id\":", &["a"]);
        finds("$.id", Format::Jsonl, "{\"id\":\"a\"}", &[]);
    }

    #[test]
    fn what_is_listed_may_be_lines_json_or_json_lines() {
        let path = Extract::parse("$.id").unwrap();
        assert_eq!(path.names_in_listing(b"{\"id\":\"a\"}\n{\"id\":\"b\"}\n").unwrap(), ["a", "b"]);
        assert_eq!(path.names_in_listing(b"{\n\"id\":\"a\"}").unwrap(), ["a"]);
        assert_eq!(
            Extract::Lines.names_in_listing(b"a\nb").unwrap(),
            ["a", "b"],
            "the last line needs no line feed"
        );
        assert!(path.names_in_listing(b"oops").is_err());
    }

    #[test]
    fn a_node_that_is_no_name_is_an_error() {
        let path = Extract::parse("$[*]").unwrap();
        assert!(path.names_in_data(b"[{}]", Format::Json).unwrap_err().0.contains("an object"));
        let keys = Extract::parse("keys:$").unwrap();
        assert!(keys.names_in_data(b"[1]", Format::Json).is_err());
    }

    #[test]
    fn an_expression_that_does_not_parse_says_why() {
        for expression in ["$.[", "regex:(", "keys:x", "records"] {
            assert!(!Extract::parse(expression).unwrap_err().is_empty(), "{expression}");
        }
        assert!(Extract::parse("$.a").unwrap().check_for(Format::Text).is_err());
    }
}

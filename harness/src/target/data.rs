//! Checks data files of each format for completeness.

use std::fmt;
use std::path::{Component, Path};

use serde::de::IgnoredAny;

use crate::observation::FileState;
use crate::target::UsageError;

/// Format of a data file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON value.
    Json,
    /// One JSON value per line.
    Jsonl,
    /// Lines of UTF-8.
    Text,
    /// Any content: only the store can read it.
    Opaque,
}

/// Formats by their names in flags and adapter files.
pub const NAMES: [(&str, Format); 4] =
    [("json", Format::Json), ("jsonl", Format::Jsonl), ("text", Format::Text), ("opaque", Format::Opaque)];

impl Format {
    /// Returns the format that a file's extension implies.
    pub fn by_extension(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => Self::Json,
            Some("jsonl" | "ndjson") => Self::Jsonl,
            Some("txt" | "csv" | "ini" | "conf" | "cfg" | "toml" | "yaml") => Self::Text,
            _ => Self::Opaque,
        }
    }

    /// Returns the format with this name.
    ///
    /// # Errors
    /// Fails if there is none; the message suggests the nearest.
    pub fn by_name(name: &str) -> Result<Self, String> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, format)| *format).ok_or_else(|| {
            let meant = crate::catalogue::nearest(name, NAMES.map(|(known, _)| known));
            let hint = meant.map(|meant| format!("; did you mean {meant:?}?")).unwrap_or_default();
            format!("there is no format {name:?} (json, jsonl, text, opaque){hint}")
        })
    }

    /// Whether records are lines, so that a last line without its line feed is a torn tail.
    pub fn has_lines(self) -> bool {
        matches!(self, Self::Jsonl | Self::Text)
    }

    /// Classifies `content` as a reader sees it.
    pub fn examine(self, content: &[u8]) -> FileState {
        if self == Self::Opaque {
            return FileState::Whole;
        }
        if content.is_empty() {
            return FileState::Empty;
        }
        let broken = match self {
            Self::Json => broken_json(content),
            Self::Jsonl => broken_json_line(content),
            Self::Text => broken_text(content),
            Self::Opaque => None,
        };
        broken.map_or(FileState::Whole, |why| FileState::Broken(format!("{why}; {}", glimpse(content))))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(NAMES.iter().find(|(_, format)| format == self).map_or("", |(name, _)| name))
    }
}

/// Returns the content up to its last line feed.
pub(super) fn without_torn_tail(content: &[u8]) -> &[u8] {
    content.iter().rposition(|byte| *byte == b'\n').map_or(&[], |end| &content[..=end])
}

/// Checks that a data path stays within the sandbox.
pub(super) fn check_path(path: &Path) -> Result<(), UsageError> {
    let inside = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if path.file_name().is_none() || !inside {
        return Err(UsageError::new(
            "data.path",
            format!("{path:?} is no file within the sandbox directory"),
        )
        .help("give a relative path without `..`, such as db.json; it becomes {data}"));
    }
    Ok(())
}

/// Checks a pattern of `also`, and converts it to one that paths in the sandbox can match.
pub(super) fn check_pattern(pattern: &str) -> Result<String, String> {
    let plain = pattern.strip_prefix("./").unwrap_or(pattern);
    if plain.starts_with('/') || plain.split('/').any(|part| part == "..") {
        return Err(format!("{pattern:?} does not lie within the sandbox directory"));
    }
    glob::Pattern::new(plain).map_err(|why| format!("the pattern {pattern:?} does not parse: {why}"))?;
    Ok(plain.to_owned())
}

fn broken_json(content: &[u8]) -> Option<String> {
    serde_json::from_slice::<IgnoredAny>(content).err().map(|why| format!("no JSON: {why}"))
}

fn broken_json_line(content: &[u8]) -> Option<String> {
    let mut lines = without_torn_tail(content).split(|byte| *byte == b'\n').enumerate();
    lines.find_map(|(index, line)| {
        // Blank lines are neither records nor errors.
        if line.trim_ascii().is_empty() {
            return None;
        }
        broken_json(line).map(|why| format!("line {} is {why}", index + 1))
    })
}

fn broken_text(content: &[u8]) -> Option<String> {
    let whole = without_torn_tail(content);
    if let Some(at) = whole.iter().position(|byte| *byte == 0) {
        return Some(format!("a NUL byte at offset {at}"));
    }
    std::str::from_utf8(whole).err().map(|why| format!("no UTF-8: {why}"))
}

/// Describes the content's length and end for a person.
fn glimpse(content: &[u8]) -> String {
    let end = String::from_utf8_lossy(&content[content.len().saturating_sub(24)..]).into_owned();
    format!("{} bytes, ending in {end:?}", content.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn broken(format: Format, content: &[u8], why: &str) {
        match format.examine(content) {
            FileState::Broken(seen) if seen.contains(why) => {}
            other => panic!("{other:?} does not say {why:?}"),
        }
    }

    #[test]
    fn whole_files_are_whole() {
        for (format, content) in [
            (Format::Json, &b"{\"a\":[1,2]}\n"[..]),
            (Format::Jsonl, b"{}\n\n[1]\n"),
            (Format::Text, "añb\n".as_bytes()),
            (Format::Opaque, b""),
            (Format::Opaque, b"\0\xff"),
        ] {
            assert_eq!(format.examine(content), FileState::Whole, "{format}");
        }
    }

    #[test]
    fn broken_files_say_why_and_how_they_end() {
        broken(Format::Json, b"{\"a\":", "ending in \"{\\\"a\\\":\"");
        broken(Format::Json, b"{}x", "no JSON");
        broken(Format::Json, b"\0\0", "no JSON");
        broken(Format::Jsonl, b"{}\n{\"a\":{}\n", "line 2");
        broken(Format::Text, b"a\0b\n", "NUL byte at offset 1");
        broken(Format::Text, b"\xff\n", "no UTF-8");
        for format in [Format::Json, Format::Jsonl, Format::Text] {
            assert_eq!(format.examine(b""), FileState::Empty);
        }
    }

    #[test]
    fn a_torn_tail_is_no_break() {
        assert_eq!(Format::Jsonl.examine(b"{}\n{\"a\":"), FileState::Whole);
        assert_eq!(Format::Text.examine(b"a\nb\xc3"), FileState::Whole);
    }

    #[test]
    fn the_extension_tells_the_format() {
        for (name, format) in [
            ("a.json", Format::Json),
            ("a.ndjson", Format::Jsonl),
            ("a.csv", Format::Text),
            ("a.db", Format::Opaque),
        ] {
            assert_eq!(Format::by_extension(Path::new(name)), format);
        }
        assert_eq!(Format::by_name("jsonl"), Ok(Format::Jsonl));
        assert!(Format::by_name("jsn").unwrap_err().contains("did you mean \"json\""));
    }

    #[test]
    fn a_pattern_that_could_never_match_is_an_error() {
        assert_eq!(check_pattern("./state/*.json"), Ok("state/*.json".to_owned()));
        for pattern in ["/abs", "../x", "a/../b", "[a", "***"] {
            assert!(check_pattern(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn a_data_path_stays_in_the_sandbox() {
        for path in ["../a", "/a", "", "."] {
            assert!(check_path(Path::new(path)).is_err(), "{path}");
        }
        assert!(check_path(Path::new("state/a b.json")).is_ok());
    }
}

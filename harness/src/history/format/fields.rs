//! The fields of one line, each asked for by its key.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::Bad;
use crate::catalogue::nearest;

/// Fields of the line `line` that were not read yet.
pub(super) struct Fields {
    pub(super) line: usize,
    left: Map<String, Json>,
}

impl Fields {
    /// Reads a line.
    pub(super) fn read(line: usize, text: &str) -> Result<Self, Bad> {
        match serde_json::from_str(text) {
            Ok(Json::Object(left)) => Ok(Self { line, left }),
            Ok(_) => Err(Bad::new(line, "", "is no JSON object").help("each line tells of one operation")),
            Err(why) => {
                // The line number in the error is always 1.
                let why = why.to_string();
                let why = why.rsplit_once(" at line").map_or(why.as_str(), |(why, _)| why);
                Err(Bad::new(line, "", format!("is no JSON: {why}")))
            }
        }
    }

    /// Creates an error about this key.
    pub(super) fn bad(&self, key: &str, message: impl Into<String>) -> Bad {
        Bad::new(self.line, key, message)
    }

    /// Whether the key exists.
    pub(super) fn has(&self, key: &str) -> bool {
        self.left.contains_key(key)
    }

    /// Returns the key's text without removing it.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.left.get(key).and_then(Json::as_str)
    }

    /// Checks that there are no fields but these.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Bad> {
        for key in self.left.keys() {
            if !known.contains(&key.as_str()) {
                let bad = self.bad(key, "is no field of this operation");
                let help = match nearest(key, known.iter().copied()) {
                    Some(meant) => format!("did you mean {meant:?}?"),
                    None => format!("it has: {}", known.join(", ")),
                };
                return Err(bad.help(help));
            }
        }
        Ok(())
    }

    /// Removes and returns the value of a required key.
    pub(super) fn take(&mut self, key: &str) -> Result<Json, Bad> {
        self.left.remove(key).ok_or_else(|| self.bad(key, "is missing"))
    }

    /// Reads a whole number that is not negative.
    pub(super) fn number(&mut self, key: &str) -> Result<u64, Bad> {
        let value = self.take(key)?;
        value.as_u64().ok_or_else(|| self.bad(key, format!("{value} is no whole number from 0 on")))
    }

    /// Reads such a number, or `null`.
    pub(super) fn number_or_null(&mut self, key: &str) -> Result<Option<u64>, Bad> {
        if self.left.get(key).is_some_and(Json::is_null) {
            self.left.remove(key);
            return Ok(None);
        }
        self.number(key).map(Some)
    }

    /// Reads a whole number.
    pub(super) fn signed(&mut self, key: &str) -> Result<i64, Bad> {
        let value = self.take(key)?;
        value.as_i64().ok_or_else(|| self.bad(key, format!("{value} is no whole number")))
    }

    /// Reads any value, as JSON; `None` for `null`.
    pub(super) fn content(&mut self, key: &str) -> Result<Option<Arc<str>>, Bad> {
        let value = self.take(key)?;
        Ok((!value.is_null()).then(|| value.to_string().into()))
    }

    /// Reads any value but `null`, as JSON.
    pub(super) fn value(&mut self, key: &str) -> Result<Arc<str>, Bad> {
        self.content(key)?.ok_or_else(|| self.bad(key, "null stands for nothing").help("leave no value out"))
    }

    /// Reads `"ok"` or `"refused"`; a missing result is `"ok"` if `may_be_left_out`.
    pub(super) fn done(&mut self, may_be_left_out: bool) -> Result<bool, Bad> {
        if may_be_left_out && !self.has("result") {
            return Ok(true);
        }
        let value = self.take("result")?;
        match value.as_str() {
            Some("ok") => Ok(true),
            Some("refused") => Ok(false),
            _ => Err(self.bad("result", format!("{value} is neither \"ok\" nor \"refused\""))),
        }
    }

    /// Reads `"ok"` or no result, for calls that have no other answer.
    pub(super) fn acknowledged(&mut self) -> Result<(), Bad> {
        if self.done(true)? {
            return Ok(());
        }
        let bad = self.bad("result", "this model knows no refusal of it");
        Err(bad.help("leave out operations that are known to have changed nothing"))
    }
}

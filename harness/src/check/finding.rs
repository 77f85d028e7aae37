//! From an execution that violates an invariant to what the report says of it, and to a case that replays it.

use std::collections::BTreeSet;
use std::path::Path;

use crate::call::Effect;
use crate::case::{self, Case, CaseTarget};
use crate::check::{Cases, Options};
use crate::diagnoses::{self, Shown};
use crate::observation::Observation;
use crate::report::Counterexample;
use crate::sandbox::Sandbox;
use crate::scenario::script::Script;
use crate::target::Target;

/// An execution that violates an invariant.
pub(super) struct Finding<'a> {
    pub(super) invariant: &'static str,
    pub(super) target: &'a Target,
    pub(super) observation: &'a Observation,
    /// What was played, where that can be played again.
    pub(super) script: Option<&'a Script>,
    /// What was seen, in one sentence.
    pub(super) seen: &'a str,
    /// What quiet runs show of likely causes.
    pub(super) quiet: &'a [Shown],
}

impl Finding<'_> {
    /// As the report has it, and why it could not be saved as a case, if it could not.
    pub(super) fn into_counterexample(
        self,
        options: &Options,
        sandbox: &Sandbox,
    ) -> (Counterexample, Option<String>) {
        let told = self.told();
        let case = self.script.map(|script| self.case(script, &told));
        let (path, unsaved) = match (&case, &options.cases) {
            (Some(case), Some(cases)) => match save(case, cases) {
                Ok(path) => (Some(path), None),
                Err(why) => (None, Some(why)),
            },
            _ => (None, None),
        };
        let flags = options.cases.as_ref().map_or("", |cases| &cases.target_flags);
        let kept = options.keep.as_ref().map(|folder| folder.join(self.name()));
        let counterexample = Counterexample {
            replay: path.as_ref().map(|path| format!("picklock replay {}{flags}", shell_words::quote(path))),
            case: path,
            scenario: self.observation.scenario.clone(),
            summary: told,
            replayable: case.is_some(),
            known: false,
            confirmed: Vec::new(),
            diagnosis: self.diagnosis(),
            sandbox: kept.map(|path| copied(sandbox, &path)),
        };
        (counterexample, unsaved)
    }

    /// The likeliest cause: one that this execution shows, else one that quiet runs show.
    fn diagnosis(&self) -> Option<String> {
        let own = diagnoses::read(&self.observation.traces, &self.observation.subject.data);
        let shown = diagnoses::explaining(&own, self.invariant)
            .or_else(|| diagnoses::explaining(self.quiet, self.invariant))?;
        Some(shown.diagnosis.id.to_owned())
    }

    fn name(&self) -> String {
        format!("{}-{}-{}", self.invariant, self.observation.scenario, self.observation.execution)
    }

    /// How it was disturbed and what was seen, without what differs from run to run.
    fn told(&self) -> String {
        let told = match &self.observation.disturbance {
            Some(disturbance) => format!("{disturbance}: {}", self.seen),
            None => format!("in execution {}, {}", self.observation.execution, self.seen),
        };
        masked(&told, self.observation)
    }

    fn case(&self, script: &Script, told: &str) -> Case {
        let steps = case::steps(self.observation);
        let here = std::env::current_dir().unwrap_or_default();
        let folder = self.target.folder.strip_prefix(&here).unwrap_or(&self.target.folder);
        Case {
            schema: case::SCHEMA,
            version: env!("CARGO_PKG_VERSION").into(),
            invariant: self.invariant.into(),
            fingerprint: case::fingerprint(self.invariant, script, &steps),
            scenario: self.observation.scenario.clone(),
            summary: told.into(),
            diagnosis: self.diagnosis(),
            target: CaseTarget {
                name: self.target.name.clone(),
                folder: folder.display().to_string(),
                adapter: self.target.to_adapter(),
            },
            script: script.clone(),
            steps,
        }
    }
}

/// Saves a case; its path, or why it could not be.
fn save(case: &Case, cases: &Cases) -> Result<String, String> {
    let path = cases.folder.join(case.file_name());
    let written = std::fs::create_dir_all(&cases.folder).and_then(|()| std::fs::write(&path, case.to_json()));
    match written {
        Ok(()) => Ok(path.display().to_string()),
        Err(why) => Err(format!("{path:?}: {why}")),
    }
}

/// Where a copy of the sandbox is now.
fn copied(sandbox: &Sandbox, path: &Path) -> String {
    match sandbox.copy_to(path) {
        Ok(()) => path.display().to_string(),
        Err(why) => format!("nowhere: it could not be copied to {path:?}: {why}"),
    }
}

/// The text with process ids as `{pid}`, and with the random part of the names of files that were made as `{random}`.
fn masked(text: &str, observation: &Observation) -> String {
    let mut masked = text.to_owned();
    let pids: BTreeSet<i32> =
        observation.traces.iter().flat_map(|trace| trace.pids.iter().copied()).collect();
    for pid in pids {
        masked = replace_word(&masked, &pid.to_string(), "{pid}");
    }
    let made =
        observation.traces.iter().flat_map(|trace| &trace.calls).filter_map(|call| match &call.effect {
            Some(Effect::Created { path, .. }) => Some(path.as_str()),
            _ => None,
        });
    let made: BTreeSet<&str> = made.collect();
    for path in made {
        if let Some(known) = observation.usual_names.iter().find_map(|usual| random_part(usual, path)) {
            masked = masked.replace(path, &known);
        }
    }
    masked
}

/// The name with its random part masked, where it differs from one that another run made in one stretch of letters and
/// digits alone, of the same length on both sides.
fn random_part(usual: &str, path: &str) -> Option<String> {
    if usual == path || usual.len() != path.len() {
        return None;
    }
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let common = usual.chars().zip(path.chars()).take_while(|(one, other)| one == other).count();
    let behind = usual.chars().rev().zip(path.chars().rev()).take_while(|(one, other)| one == other).count();
    // The stretch reaches as far as letters and digits do: equal ones at its ends are chance.
    let chars: Vec<char> = path.chars().collect();
    let (mut from, mut to) = (common, chars.len() - behind);
    if !chars[from..to].iter().copied().all(is_part) {
        return None;
    }
    while from > 0 && is_part(chars[from - 1]) && to - from < RANDOM_MIN {
        from -= 1;
    }
    while to < chars.len() && is_part(chars[to]) && to - from < RANDOM_MIN {
        to += 1;
    }
    let (head, tail): (String, String) = (chars[..from].iter().collect(), chars[to..].iter().collect());
    Some(format!("{head}{{random}}{tail}"))
}

/// What is random in a name is at least so long.
const RANDOM_MIN: usize = 6;

/// Replaces `word` where no digit stands beside it.
fn replace_word(text: &str, word: &str, by: &str) -> String {
    let mut replaced = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(word) {
        let (before, found) = rest.split_at(at);
        let after = &found[word.len()..];
        let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
        let is_alone = !is_digit(before.chars().next_back()) && !is_digit(after.chars().next());
        replaced.push_str(before);
        replaced.push_str(if is_alone { by } else { word });
        rest = after;
    }
    replaced + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_id_is_masked_where_it_is_no_part_of_another_number() {
        assert_eq!(replace_word("db.12.tmp, 312, 12", "12", "{pid}"), "db.{pid}.tmp, 312, {pid}");
    }

    #[test]
    fn the_random_part_of_a_name_is_masked_and_an_equal_name_stays() {
        assert_eq!(random_part(".tmpAb12Cd", ".tmpXyZ9Qw").as_deref(), Some(".tmp{random}"));
        assert_eq!(random_part("db.json", "db.json"), None);
        assert_eq!(random_part("a.tmp", "abc.tmp"), None);
        assert_eq!(random_part("tmp/one.json", "tmp.two/json"), None);
    }
}

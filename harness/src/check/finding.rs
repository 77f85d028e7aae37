//! Turns an execution that violates an invariant into a counterexample and a replayable case.

use std::path::Path;

use crate::case::{self, Case, CaseTarget, Explanation};
use crate::check::{Cases, Options};
use crate::diagnoses::{self, Shown};
use crate::invariants::Invariant;
use crate::normalize::{made, masked};
use crate::observation::Observation;
use crate::report::Counterexample;
use crate::report::baseline::Baseline;
use crate::report::narrative::{About, Cause, Narrative};
use crate::report::sentence::sentence;
use crate::sandbox::Sandbox;
use crate::scenario::script::Script;
use crate::target::Target;

/// An execution that violates an invariant.
pub(super) struct Finding<'a> {
    pub(super) invariant: &'static str,
    pub(super) target: &'a Target,
    /// Its position in its scenario.
    pub(super) place: u64,
    pub(super) observation: &'a Observation,
    /// The executed script, if it can be replayed.
    pub(super) script: Option<&'a Script>,
    /// The observation, in one sentence.
    pub(super) seen: &'a str,
    /// Likely causes that baseline runs show.
    pub(super) quiet: &'a [Shown],
    /// Explanation of the schedule.
    pub(super) explanation: Option<&'a Explanation>,
}

impl Finding<'_> {
    /// Returns the counterexample for the report, and why it could not be saved as a case, if it could not.
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
            place: self.place,
            summary: told,
            replayable: case.is_some(),
            known: self.is_known(options),
            confirmed: Vec::new(),
            diagnosis: self.diagnosis(),
            explanation: self.explanation.cloned(),
            sandbox: kept.map(|path| copied(sandbox, &path)),
        };
        (counterexample, unsaved)
    }

    /// Returns the likeliest cause: one that this execution shows, else one that baseline runs show.
    pub(super) fn diagnosis(&self) -> Option<String> {
        let own = diagnoses::read(&self.observation.traces, &self.observation.subject.data);
        let shown = diagnoses::explaining(&own, self.invariant)
            .or_else(|| diagnoses::explaining(self.quiet, self.invariant))?;
        Some(shown.diagnosis.id.to_owned())
    }

    /// Whether a baseline contains this way of violating the invariant.
    fn is_known(&self, options: &Options) -> bool {
        let diagnosis = self.diagnosis();
        let knows = |baseline: &Baseline| {
            baseline.knows(self.invariant, &self.observation.scenario, diagnosis.as_deref())
        };
        options.baseline.as_ref().is_some_and(knows)
    }

    fn name(&self) -> String {
        format!("{}-{}-{}", self.invariant, self.observation.scenario, self.observation.execution)
    }

    /// Describes the injection and the observation, without what differs from run to run.
    fn told(&self) -> String {
        let told = match &self.observation.injection {
            Some(injection) => format!("{injection}: {}", self.seen),
            None => format!("in execution {}, {}", self.observation.execution, self.seen),
        };
        without_chance(&told, self.observation)
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
            explanation: self.explanation.cloned(),
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

/// Invariants whose violation is explained by one client's change between another's read and its own change.
const BY_A_SENTENCE: [&str; 4] = ["no-lost-update", "mutual-exclusion", "guard-holds", "linearizable"];

/// Explains an execution of concurrent clients, including the result of the search for the smallest schedule.
pub(super) fn explained(
    invariant: &str,
    observation: &Observation,
    found: Option<&Explanation>,
) -> Option<Explanation> {
    let sentence = BY_A_SENTENCE.contains(&invariant).then(|| sentence(observation)).flatten();
    let explanation = Explanation { sentence, ..found.cloned().unwrap_or_default() };
    Some(explanation).filter(|explanation| *explanation != Explanation::default())
}

/// Returns the narrative of the execution, with its original names, so that they can be distinguished.
pub(super) fn narrative(
    invariant: &Invariant,
    observation: &Observation,
    seen: &str,
    counterexample: &Counterexample,
) -> Narrative {
    let diagnosis = counterexample.diagnosis.as_deref().and_then(diagnoses::find);
    let about = About {
        invariant: invariant.id.to_owned(),
        statement: invariant.statement.to_owned(),
        summary: seen.to_owned(),
        diagnosis: diagnosis
            .map(|cause| Cause { id: cause.id.to_owned(), statement: cause.statement.to_owned() }),
        replay: counterexample.replay.clone(),
    };
    Narrative::new(observation, about).explained(counterexample.explanation.as_ref())
}

/// Removes from the text what differs from run to run.
pub(super) fn without_chance(text: &str, observation: &Observation) -> String {
    let pids = observation.traces.iter().flat_map(|trace| trace.pids.iter().copied());
    let calls = observation.traces.iter().flat_map(|trace| &trace.calls);
    masked(text, &pids.collect(), &made(calls), &observation.usual_names)
}

/// Saves a case; returns its path, or why saving failed.
fn save(case: &Case, cases: &Cases) -> Result<String, String> {
    let path = cases.folder.join(case.file_name());
    let written = std::fs::create_dir_all(&cases.folder).and_then(|()| std::fs::write(&path, case.to_json()));
    match written {
        Ok(()) => Ok(path.display().to_string()),
        Err(why) => Err(format!("{path:?}: {why}")),
    }
}

/// Copies the sandbox; returns where the copy is.
fn copied(sandbox: &Sandbox, path: &Path) -> String {
    match sandbox.copy_to(path) {
        Ok(()) => path.display().to_string(),
        Err(why) => format!("nowhere: it could not be copied to {path:?}: {why}"),
    }
}

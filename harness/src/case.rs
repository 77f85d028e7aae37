//! Reads and writes cases: counterexamples as files that can be replayed and compared.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::normalize::is_like;
use crate::observation::Observation;
use crate::op::stable_hash;
use crate::scenario::script::{Act, Script};
use crate::signature::steps_of_all;

/// Version of the cases' JSON schema.
pub const SCHEMA: u32 = 1;

/// A replayable counterexample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The version of picklock that made it.
    pub version: String,
    /// The violated invariant.
    pub invariant: String,
    /// Its short name: equal for equal ways to the same violation.
    pub fingerprint: String,
    /// The scenario that found it.
    pub scenario: String,
    /// The observation, in one sentence.
    pub summary: String,
    /// Its likely cause: the id of a diagnosis.
    pub diagnosis: Option<String>,
    /// Explanation of the schedule, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<Explanation>,
    /// The store.
    pub target: CaseTarget,
    /// The script to replay.
    pub script: Script,
    /// Signatures of the traced calls, one list for each run of clients under the tracer: a replay compares them.
    pub steps: Vec<Vec<String>>,
}

/// Explanation of a counterexample on a schedule. Calls are given by their numbers in the trace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// What went wrong, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentence: Option<String>,
    /// Point from which it is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point_of_no_return: Option<NoReturn>,
    /// The nearest schedule that passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest: Option<Swap>,
}

/// Two calls; the schedule passes if the later one comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swap {
    /// The call that came first.
    pub earlier: u32,
    /// The call that should have come first.
    pub later: u32,
}

/// A point of a schedule from which every continuation violates the invariant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoReturn {
    /// Number of calls that have returned at this point.
    pub after: u32,
    /// Whether all inequivalent continuations were tried, not just some of them.
    pub is_exact: bool,
}

/// The store of a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaseTarget {
    /// Its name in reports.
    pub name: String,
    /// Folder from which its programs are found, relative to where picklock was started.
    pub folder: String,
    /// Everything else, as the text of an adapter file.
    pub adapter: String,
}

impl Case {
    /// Returns the name of its file: invariant and fingerprint, so that it is stable.
    pub fn file_name(&self) -> String {
        format!("{}-{}.json", self.invariant, self.fingerprint)
    }

    /// Serializes to JSON with a trailing line feed.
    pub fn to_json(&self) -> String {
        // Strings, numbers, lists and maps with text keys can always be serialized.
        let mut json = serde_json::to_string_pretty(self).unwrap_or_default();
        json.push('\n');
        json
    }

    /// Reads a case.
    ///
    /// # Errors
    /// Describes what is wrong with it.
    pub fn from_json(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Head {
            schema: u32,
        }
        let head: Head = serde_json::from_str(text).map_err(|why| format!("it is no case: {why}"))?;
        if head.schema != SCHEMA {
            return Err(format!(
                "it has schema {}, and this version of picklock reads schema {SCHEMA}",
                head.schema
            ));
        }
        serde_json::from_str(text).map_err(|why| format!("it is no whole case: {why}"))
    }
}

/// Returns the signature of each traced call of an execution.
pub fn steps(observation: &Observation) -> Vec<Vec<String>> {
    steps_of_all(observation.traces.iter().map(|trace| (trace.calls.as_slice(), &trace.pids)))
}

/// Computes a short name for an invariant, a script and its signature of calls.
pub fn fingerprint(invariant: &str, script: &Script, steps: &[Vec<String>]) -> String {
    // The text of the injected call may contain parts that differ from run to run; the steps identify it.
    let mut script = script.clone();
    for act in &mut script.acts {
        match act {
            Act::Trace { injection: Some(injection), .. } => injection.call.clear(),
            Act::PowerLoss { loss, .. } => loss.told.clear(),
            Act::Session { steps } => {
                steps.iter_mut().filter_map(|step| step.held.as_mut()).for_each(|held| held.call.clear());
            }
            _ => {}
        }
    }
    let text = format!("{invariant} {script:?} {steps:?}");
    let hash = stable_hash(&text);
    format!("{:06x}", (hash ^ (hash >> 24) ^ (hash >> 48)) & 0x00ff_ffff)
}

/// Returns the first step at which a run diverges from the case, with both sides. Compares the steps of client 1 before
/// `point`, or all steps if no point is given; steps after an injection are its result.
pub fn first_difference(case: &[Vec<String>], run: &[Vec<String>], point: Option<u32>) -> Option<Difference> {
    let mut pairs = Pairs::default();
    for (trace, expected) in case.iter().enumerate() {
        let empty = Vec::new();
        let actual = run.get(trace).unwrap_or(&empty);
        let before = |steps: &[String]| -> Vec<String> {
            match point {
                None => steps.to_vec(),
                Some(point) => {
                    let own = steps.iter().filter(|step| step.starts_with("1."));
                    own.take(usize::try_from(point).unwrap_or(usize::MAX).saturating_sub(1))
                        .cloned()
                        .collect()
                }
            }
        };
        let (expected, actual) = (before(expected), before(actual));
        // The order of concurrent processes is random: each process is compared with itself, as far as both runs have
        // got.
        let processes: BTreeSet<&str> = expected.iter().chain(&actual).map(|step| process_of(step)).collect();
        let is_alone = processes.len() == 1;
        for process in processes {
            let own = |steps: &[String]| -> Vec<String> {
                steps.iter().filter(|step| process_of(step) == process).cloned().collect()
            };
            let (expected, actual) = (own(&expected), own(&actual));
            let length = match is_alone {
                true => expected.len().max(actual.len()),
                false => expected.len().min(actual.len()),
            };
            let mut is_other = |at: &usize| match (expected.get(*at), actual.get(*at)) {
                (Some(expected), Some(actual)) => !pairs.are_one(expected, actual),
                _ => true,
            };
            if let Some(at) = (0..length).find(|at| is_other(at)) {
                return Some(Difference {
                    step: at + 1,
                    expected: expected.get(at).cloned(),
                    actual: actual.get(at).cloned(),
                });
            }
        }
    }
    None
}

/// Random names from before the trace, such as a folder that the first operation made: pairs each name of the case with
/// one name of the run.
#[derive(Default)]
struct Pairs {
    run_of: BTreeMap<String, String>,
    case_of: BTreeMap<String, String>,
}

impl Pairs {
    /// Whether two steps are equal except for such names.
    fn are_one(&mut self, expected: &str, actual: &str) -> bool {
        let parts = |step: &str| -> Option<(String, String, String)> {
            let (call, rest) = step.split_once('(')?;
            let (operands, result) = rest.rsplit_once(')')?;
            Some((call.to_owned(), operands.to_owned(), result.to_owned()))
        };
        let (Some(one), Some(other)) = (parts(expected), parts(actual)) else { return expected == actual };
        let (names, others): (Vec<&str>, Vec<&str>) =
            (one.1.split(", ").collect(), other.1.split(", ").collect());
        (&one.0, &one.2) == (&other.0, &other.2)
            && names.len() == others.len()
            && names.into_iter().zip(others).all(|(one, other)| self.are_one_name(one, other))
    }

    fn are_one_name(&mut self, one: &str, other: &str) -> bool {
        // A masked name, such as {1}, must be equal; so must flags.
        let is_exact = |text: &str| ["{", "O_", "F_", "LOCK_"].iter().any(|start| text.starts_with(start));
        if one != other && (is_exact(one) || !is_like(one, other)) {
            return false;
        }
        let run = self.run_of.entry(one.to_owned()).or_insert_with(|| other.to_owned());
        let case = self.case_of.entry(other.to_owned()).or_insert_with(|| one.to_owned());
        run == other && case == one
    }
}

/// Returns the client and process of a step.
fn process_of(step: &str) -> &str {
    step.split(' ').next().unwrap_or_default()
}

/// The first step at which a run diverges from its case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its number, from 1.
    pub step: usize,
    /// The step of the case; `None` if the case has no more steps.
    pub expected: Option<String>,
    /// The step of the run.
    pub actual: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::sketch;
    use crate::scenario::crash::{add, alone};
    use crate::scenario::script::InjectionKind;
    use crate::signature::steps_of;

    #[test]
    fn the_name_of_a_temporary_file_is_no_difference_and_another_call_is_one() {
        let one = steps_of(
            &sketch("1 open db 1\n 1 create tmpA 2\n 1 write 2\n 1 rename tmpA db"),
            &BTreeSet::new(),
        );
        let same = steps_of(
            &sketch("1 open db 1\n 1 create tmpB 2\n 1 write 2\n 1 rename tmpB db"),
            &BTreeSet::new(),
        );
        let other = steps_of(&sketch("1 open db 1\n 1 create tmpB 2\n 1 rename tmpB db"), &BTreeSet::new());
        assert_eq!(first_difference(std::slice::from_ref(&one), &[same], None), None);
        let difference = first_difference(&[one], &[other], None).unwrap();
        assert_eq!(difference.step, 3);
    }

    /// The first operation had made a folder under a random name: no replay found it under that name.
    #[test]
    fn a_name_of_chance_from_before_the_trace_is_no_difference() {
        let difference = |one: &str, other: &str| {
            let steps = |text: &str| steps_of(&sketch(text), &BTreeSet::new());
            first_difference(&[steps(one)], &[steps(other)], None).map(|difference| difference.step)
        };
        let one = "1 open proj-aB3xQ9/db 1\n 1 unlink proj-aB3xQ9/db";
        assert_eq!(difference(one, "1 open proj-Zq9pL2/db 1\n 1 unlink proj-Zq9pL2/db"), None);
        assert_eq!(difference(one, "1 open proj-Zq9pL2/db 1\n 1 unlink proj-Kk7mM1/db"), Some(2));
        assert_eq!(difference(one, "1 open proj-Zq9pL2/db 1\n 1 unlink proj-aB3xQ9/db"), Some(2));
        assert_eq!(difference("1 stat db.json", "1 stat db.lock"), Some(1));
        assert_eq!(difference("1 stat r000001", "1 stat r000002"), Some(1));
    }

    #[test]
    fn what_comes_after_the_disturbed_call_is_not_compared() {
        let one = steps_of(&sketch("1 open db 1\n 1 write 1"), &BTreeSet::new());
        let other = steps_of(&sketch("1 open db 1\n 1 sync 1"), &BTreeSet::new());
        assert_eq!(first_difference(std::slice::from_ref(&one), std::slice::from_ref(&other), Some(2)), None);
        assert!(first_difference(&[one], &[other], Some(3)).is_some());
    }

    #[test]
    fn a_fingerprint_depends_on_what_is_done_and_on_nothing_else() {
        let script = alone(&add(2), &[], 1, InjectionKind::Kill);
        let mut told_differently = script.clone();
        if let Some(Act::Trace { injection: Some(injection), .. }) = told_differently.acts.first_mut() {
            injection.call = "something else".into();
        }
        let name = fingerprint("valid-data", &script, &[]);
        assert_eq!(name.len(), 6);
        assert_eq!(name, fingerprint("valid-data", &told_differently, &[]));
        assert_ne!(name, fingerprint("crash-atomic", &script, &[]));
        assert_ne!(name, fingerprint("valid-data", &alone(&add(2), &[], 2, InjectionKind::Kill), &[]));
    }

    #[test]
    fn what_is_no_case_is_refused_in_words() {
        assert!(Case::from_json("{}").unwrap_err().contains("it is no case"));
        assert!(Case::from_json("{\"schema\":9}").unwrap_err().contains("schema 9"));
        assert!(Case::from_json("{\"schema\":1}").unwrap_err().contains("no whole case"));
    }
}

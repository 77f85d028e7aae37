//! Builds the narrative of a counterexample: steps in order, locks held, and the content of the data file.
//!
//! It is a plain value for display, as in [`page`](crate::report::page). Everything in it is derived from one
//! [`Observation`], except [`About`] and the three fields that a search for the shortest narrative fills in.

mod holds;
mod reasons;

use std::collections::BTreeSet;

use serde::Serialize;

use crate::accesses::accesses;
use crate::call::{Call, Class, Effect};
use crate::case::Explanation;
use crate::observation::{Observation, Trace, name_some};
use crate::op::{Operation, Outcome};
use crate::report::parts::{Part, parts};

pub use holds::Hold;
pub(in crate::report) use holds::holds;
pub(in crate::report) use reasons::reasons;

/// Maximum number of untraced operations shown in full; of more, only those mentioned and those at both ends are shown.
const ASIDES_MAX: usize = 40;
/// Number of operations shown at each end in that case.
const ASIDES_AT_ENDS: usize = 5;
/// Maximum number of calls shown; a longer narrative would not be read.
const STEPS_MAX: usize = 3000;
/// Maximum number of records listed one by one.
const RECORDS_MAX: usize = 12;

/// The narrative of a counterexample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Narrative {
    /// What it is a counterexample of.
    #[serde(flatten)]
    pub about: About,
    /// The scenario that found it.
    pub scenario: String,
    /// The injection into the execution.
    pub injection: Option<String>,
    /// The clients that ran under the tracer, from client 1 on.
    pub lanes: Vec<Lane>,
    /// Their calls, in the order in which they ended.
    pub steps: Vec<Step>,
    /// Number of further calls that are not shown.
    pub steps_left_out: usize,
    /// The periods in which each lock was held.
    pub holds: Vec<Hold>,
    /// Events outside the traces.
    pub asides: Vec<Aside>,
    /// Number of untraced operations that are not shown.
    pub asides_left_out: usize,
    /// What went wrong, in one sentence.
    pub sentence: Option<String>,
    /// The step from which on a violation was inevitable.
    pub point_of_no_return: Option<usize>,
    /// The nearest order of the calls without a violation.
    pub nearest: Option<Nearest>,
}

/// What a narrative is a counterexample of, and what the report says about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct About {
    /// The id of the invariant that is violated.
    pub invariant: String,
    /// The invariant in one sentence.
    pub statement: String,
    /// What was seen, in one sentence.
    pub summary: String,
    /// Its likely cause.
    pub diagnosis: Option<Cause>,
    /// The command that replays it.
    pub replay: Option<String>,
}

/// A likely cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// Its id.
    pub id: String,
    /// What the store does wrong, in one sentence.
    pub statement: String,
}

/// One client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lane {
    /// The client, from 1.
    pub client: u32,
    /// Its label: `client 1: add r000002`, or without an operation if it had more than one.
    pub label: String,
    /// How its operation ended, if it had only one.
    pub ending: Option<Ending>,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Its place in the narrative, from 1.
    pub number: usize,
    /// The trace that it is part of, from 1.
    pub trace: usize,
    /// Its client's place among the lanes, from 0.
    pub lane: usize,
    /// The operation that begins with it.
    pub begins: Option<String>,
    /// Why this client runs now instead of the client of the step before.
    pub why: Option<String>,
    /// The call in C syntax.
    pub call: String,
    /// Its return value; empty if it has none.
    pub result: String,
    /// The class of the call.
    pub class: Class,
    /// Whether it failed, or never returned.
    pub is_failed: bool,
    /// Whether it changed anything in the sandbox.
    pub is_change: bool,
    /// Its access to the data file.
    pub data: Option<Data>,
    /// Its lock changes.
    pub locks: Vec<String>,
    /// Content of the data file after it, line by line, if it was recorded and changed.
    pub content: Option<String>,
    /// How the operation ended, if this is its last step.
    pub ending: Option<Ending>,
}

/// Access of a call to the data file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Data {
    /// It reads the data file.
    Read,
    /// It reads a former data file that has been replaced or removed since.
    ReadReplaced,
    /// It changes the data file.
    Changed,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ending {
    /// The ending in words.
    pub text: String,
    /// Whether picklock killed it.
    pub is_kill: bool,
}

/// An event outside the traces: an untraced operation, or a power loss.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Aside {
    /// Number of steps before it.
    pub after: usize,
    /// The client that did it, if there is one.
    pub client: Option<u32>,
    /// What was done.
    pub text: String,
    /// How it ended.
    pub ending: Option<Ending>,
}

/// The nearest order of the calls without a violation: two calls are swapped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Nearest {
    /// The first step that differs in that order.
    pub step: usize,
    /// The difference, in words.
    pub told: String,
}

impl Narrative {
    /// Builds the narrative of an execution.
    pub fn new(observation: &Observation, about: About) -> Self {
        let mut narrative = Self {
            about,
            scenario: observation.scenario.clone(),
            injection: observation.injection.clone(),
            lanes: Vec::new(),
            steps: Vec::new(),
            steps_left_out: 0,
            holds: Vec::new(),
            asides: Vec::new(),
            asides_left_out: 0,
            sentence: None,
            point_of_no_return: None,
            nearest: None,
        };
        let mut losses = observation.power_losses.iter().copied().peekable();
        let mut traces = 0;
        for part in parts(observation) {
            let operations = match part {
                Part::Operation(operation) => std::slice::from_ref(operation),
                Part::Trace(_, operations) => operations,
            };
            let begins = operations.iter().map(|operation| operation.invoked).min();
            while losses.next_if(|loss| begins.is_some_and(|begins| *loss <= begins)).is_some() {
                narrative.power_is_lost();
            }
            match part {
                Part::Operation(operation) => narrative.aside(operation),
                Part::Trace(trace, operations) => {
                    traces += 1;
                    narrative.trace(traces, trace, operations, &observation.subject.data);
                }
            }
        }
        losses.for_each(|_| narrative.power_is_lost());
        narrative.shorten();
        narrative
    }

    /// Adds the explanation of the schedule.
    #[must_use]
    pub fn explained(mut self, explanation: Option<&Explanation>) -> Self {
        let Some(explanation) = explanation else { return self };
        self.sentence.clone_from(&explanation.sentence);
        self.point_of_no_return = explanation.point_of_no_return.map(|point| point.after as usize + 1);
        self.nearest = explanation.nearest.map(|swap| Nearest {
            step: swap.earlier as usize,
            told: format!("call {} comes before it", swap.later),
        });
        self
    }

    /// The running operation was not killed at that point, but cut off. It was traced to its end nevertheless: the
    /// effects of its later calls are among what was lost.
    fn power_is_lost(&mut self) {
        let mut text = "the power is lost".to_owned();
        if let Some(ending) =
            self.steps.last_mut().and_then(|step| step.ending.as_mut()).filter(|one| one.is_kill)
        {
            ending.text = "cut off by the power loss".to_owned();
            text.push_str(" where the injection says so, and with it all that came later");
        }
        if let [lane] = self.lanes.as_mut_slice()
            && let Some(ending) = lane.ending.as_mut().filter(|one| one.is_kill)
        {
            ending.text = "cut off by the power loss".to_owned();
        }
        self.asides.push(Aside { after: self.steps.len(), client: None, text, ending: None });
    }

    fn aside(&mut self, operation: &Operation) {
        self.asides.push(Aside {
            after: self.steps.len(),
            client: Some(operation.client),
            text: operation.request.to_string(),
            ending: Some(ending(operation)),
        });
    }

    fn trace(&mut self, number: usize, trace: &Trace, operations: &[Operation], data: &str) {
        let before = self.steps.len();
        self.holds.extend(holds(&trace.calls, before));
        for (place, request) in (1..).zip(&trace.requests) {
            let of_place = trace.operation(place, operations);
            self.has_lane(trace.client(place), &request.to_string(), of_place.map(ending));
        }
        let reasons = reasons(trace, operations);
        let accesses = accesses(&trace.calls, data);
        let mut was_data: BTreeSet<u32> = BTreeSet::new();
        for (at, (call, why)) in trace.calls.iter().zip(reasons).enumerate() {
            let of_client = |other: &Call| other.client == call.client;
            let is_first = !trace.calls[..at].iter().any(of_client);
            let is_last = !trace.calls[at + 1..].iter().any(of_client);
            let place = call.client.saturating_sub(1) as usize;
            let operation = trace.operation(call.client, operations);
            let lane = self.lane(trace.client(call.client));
            was_data.extend(opened_as(call, data));
            let own = || accesses.iter().filter(|access| access.at == at);
            let data = match own().next() {
                Some(_) if own().any(|access| access.is_change) => Some(Data::Changed),
                Some(_) => Some(Data::Read),
                None => reads(call).filter(|file| was_data.contains(file)).map(|_| Data::ReadReplaced),
            };
            self.steps.push(Step {
                number: before + at + 1,
                trace: number,
                lane,
                begins: trace.requests.get(place).filter(|_| is_first).map(ToString::to_string),
                why,
                call: call.to_string(),
                result: result(call),
                class: call.class,
                is_failed: !matches!(call.result, Some(Ok(_))) && call.name != "exit",
                is_change: call.is_change(),
                data,
                locks: call.locks.iter().map(ToString::to_string).collect(),
                content: call.content.as_deref().map(on_lines),
                ending: operation.filter(|_| is_last).map(ending),
            });
        }
    }

    /// Adds a lane for a client and its operation, or shortens the label of its lane if it already has one.
    fn has_lane(&mut self, client: u32, request: &str, ending: Option<Ending>) {
        match self.lanes.iter_mut().find(|lane| lane.client == client) {
            Some(lane) => {
                lane.label = format!("client {client}");
                lane.ending = None;
            }
            None => {
                let label = format!("client {client}: {request}");
                self.lanes.push(Lane { client, label, ending });
            }
        }
    }

    /// Returns the lane of a client.
    fn lane(&mut self, client: u32) -> usize {
        match self.lanes.iter().position(|lane| lane.client == client) {
            Some(place) => place,
            None => {
                self.lanes.push(Lane { client, label: format!("client {client}"), ending: None });
                self.lanes.len() - 1
            }
        }
    }

    /// Leaves out what would not be read.
    fn shorten(&mut self) {
        self.steps_left_out = self.steps.len().saturating_sub(STEPS_MAX);
        self.steps.truncate(STEPS_MAX);
        let count = self.asides.len();
        if count > ASIDES_MAX {
            let named = [self.about.summary.as_str(), self.injection.as_deref().unwrap_or_default()];
            let is_named = |aside: &Aside| {
                let record = aside.text.rsplit(' ').next().unwrap_or_default();
                aside.text != "list" && named.iter().any(|text| text.contains(record))
            };
            let mut place = 0..;
            self.asides.retain(|aside| {
                let place = place.next().unwrap_or(count);
                place < ASIDES_AT_ENDS || place + ASIDES_AT_ENDS >= count || is_named(aside)
            });
        }
        self.asides_left_out = count - self.asides.len();
        for aside in &mut self.asides {
            aside.after = aside.after.min(STEPS_MAX);
        }
    }
}

/// Returns the file that a call opens by this path.
fn opened_as(call: &Call, data: &str) -> Option<u32> {
    match &call.effect {
        Some(Effect::Opened { path, file } | Effect::Created { path, file, .. }) if path == data => {
            Some(*file)
        }
        _ => None,
    }
}

/// Returns the file that a call reads.
fn reads(call: &Call) -> Option<u32> {
    match &call.effect {
        Some(Effect::Read { file, .. }) => Some(*file),
        _ => None,
    }
}

/// Converts content that was written on one line, with `\n`, `\t` and `\\` for a line feed, a tab and a backslash.
fn on_lines(content: &str) -> String {
    let mut plain = String::new();
    let mut chars = content.chars();
    while let Some(c) = chars.next() {
        match (c, chars.as_str().chars().next()) {
            ('\\', Some(letter @ ('n' | 't' | '\\'))) => {
                plain.push(match letter {
                    'n' => '\n',
                    't' => '\t',
                    same => same,
                });
                let _letter = chars.next();
            }
            _ => plain.push(c),
        }
    }
    plain.trim_end_matches('\n').to_owned()
}

fn result(call: &Call) -> String {
    match &call.result {
        Some(Ok(value)) => value.to_string(),
        Some(Err(errno)) => errno.to_string(),
        None if call.name == "exit" => String::new(),
        None => "never returned".to_owned(),
    }
}

fn ending(operation: &Operation) -> Ending {
    let mut text = match &operation.outcome {
        Outcome::Acknowledged => "acknowledged".to_owned(),
        Outcome::Refused => "refused".to_owned(),
        Outcome::Busy => "busy".to_owned(),
        Outcome::Failed(status) => format!("failed ({status})"),
        Outcome::Killed => "killed".to_owned(),
        Outcome::Unfinished(limit) => format!("killed past its {limit} limit"),
        Outcome::Stuck => "stuck: it was blocked forever".to_owned(),
    };
    match operation.records.as_deref() {
        None => {}
        Some([]) => text.push_str(": no records"),
        Some(records) if records.len() <= RECORDS_MAX => {
            text.push_str(": ");
            text.push_str(&records.join(" "));
        }
        Some(records) => {
            text.push_str(": ");
            text.push_str(&name_some(records.iter().map(String::as_str)));
        }
    }
    if !operation.stderr.is_empty() {
        text.push_str("; it said: ");
        text.push_str(&operation.stderr);
    }
    Ending { text, is_kill: operation.was_killed() }
}

#[cfg(test)]
mod tests;

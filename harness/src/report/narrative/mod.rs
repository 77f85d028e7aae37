//! Builds the narrative of a counterexample: steps in order, locks held, and the content of the data file.
//!
//! It is a value for whoever shows it, and [`page`](crate::report::page) does. Everything in it is read off one
//! [`Observation`], but for what [`About`] says and the three fields that a search for the shortest narrative fills in.

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

/// Operations beside the traced ones that are told in full; of more, those that were named and those at both ends.
const ASIDES_MAX: usize = 40;
/// How many are told at each end then.
const ASIDES_AT_ENDS: usize = 5;
/// Calls that are told; a story of more has no reader.
const STEPS_MAX: usize = 3000;
/// Records that are told one by one.
const RECORDS_MAX: usize = 12;

/// A counterexample, as it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Narrative {
    /// What it is an example of.
    #[serde(flatten)]
    pub about: About,
    /// The scenario that found it.
    pub scenario: String,
    /// How the execution was disturbed.
    pub injection: Option<String>,
    /// The clients that ran under the tracer, from client 1 on.
    pub lanes: Vec<Lane>,
    /// Their calls, in the order in which they ended.
    pub steps: Vec<Step>,
    /// How many calls came after those.
    pub steps_left_out: usize,
    /// From when to when each lock was held.
    pub holds: Vec<Hold>,
    /// What happened outside the traces.
    pub asides: Vec<Aside>,
    /// How many operations outside the traces are not told.
    pub asides_left_out: usize,
    /// What went wrong, in one sentence.
    pub sentence: Option<String>,
    /// The step from which on it could only go wrong.
    pub point_of_no_return: Option<usize>,
    /// The nearest order of the calls in which nothing goes wrong.
    pub nearest: Option<Nearest>,
}

/// What a narrative is an example of, and what was said of it.
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
    /// The command that runs it again.
    pub replay: Option<String>,
}

/// A likely cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// Its id.
    pub id: String,
    /// What is done wrong, in one sentence.
    pub statement: String,
}

/// One client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lane {
    /// The client, from 1.
    pub client: u32,
    /// What it is called: `client 1: add r000002`, or without its operation where it had more than one.
    pub label: String,
    /// How its operation ended, where it had one.
    pub ending: Option<Ending>,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Its place in the story, from 1.
    pub number: usize,
    /// The trace that it is part of, from 1.
    pub trace: usize,
    /// Its client's place among the lanes, from 0.
    pub lane: usize,
    /// The operation that begins with it.
    pub begins: Option<String>,
    /// Why it is this client's turn and not that of the step before any more.
    pub why: Option<String>,
    /// The call, as C would write it.
    pub call: String,
    /// What it returned; nothing where there is nothing to be returned.
    pub result: String,
    /// What it does.
    pub class: Class,
    /// Whether it failed, or never returned.
    pub is_failed: bool,
    /// Whether it changed anything in the sandbox.
    pub is_change: bool,
    /// What it does with the data file.
    pub data: Option<Data>,
    /// What it did to the locks.
    pub locks: Vec<String>,
    /// What the data file holds after it, line by line, where that was looked at and changed.
    pub content: Option<String>,
    /// How the operation ended that ends with it.
    pub ending: Option<Ending>,
}

/// What a call does with the data file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Data {
    /// It reads it.
    Read,
    /// It reads what was the data file once, and was replaced or removed since.
    ReadReplaced,
    /// It changes it.
    Changed,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ending {
    /// In words.
    pub text: String,
    /// Whether picklock killed it.
    pub is_kill: bool,
}

/// What happened outside the traces: an operation that nobody traced, or a power loss.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Aside {
    /// How many steps come before it.
    pub after: usize,
    /// The client, where one did it.
    pub client: Option<u32>,
    /// What was done.
    pub text: String,
    /// How that ended.
    pub ending: Option<Ending>,
}

/// The nearest order of the calls in which nothing goes wrong: two of them changed places.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Nearest {
    /// The first step that is another one there.
    pub step: usize,
    /// What is different there, in words.
    pub told: String,
}

impl Narrative {
    /// Tells an execution.
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

    /// With what there is to say of the schedule.
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

    /// What was under way was not killed then, but cut off. It was traced to its end nevertheless: what its later calls did
    /// is among what was lost.
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

    /// A client is asked for an operation.
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

    /// The place of a client among the lanes.
    fn lane(&mut self, client: u32) -> usize {
        match self.lanes.iter().position(|lane| lane.client == client) {
            Some(place) => place,
            None => {
                self.lanes.push(Lane { client, label: format!("client {client}"), ending: None });
                self.lanes.len() - 1
            }
        }
    }

    /// Leaves out what nobody would read.
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

/// The file that a call opens by this path.
fn opened_as(call: &Call, data: &str) -> Option<u32> {
    match &call.effect {
        Some(Effect::Opened { path, file } | Effect::Created { path, file, .. }) if path == data => {
            Some(*file)
        }
        _ => None,
    }
}

/// The file that a call reads.
fn reads(call: &Call) -> Option<u32> {
    match &call.effect {
        Some(Effect::Read { file, .. }) => Some(*file),
        _ => None,
    }
}

/// Content that was written on one line, with a backslash and a letter for a line feed, a tab or a backslash.
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

//! Drives sessions: sends requests step by step, holds them at a call, runs one-shot operations beside them, and reads
//! answers.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::call::{End, Ended};
use crate::observation::Memory;
use crate::op::{Limit, NO_ANSWER, Operation, Outcome, Request};
use crate::runner::nanos;
use crate::scenario::script::Step;
use crate::tracer::{CallAction, ClientState, Director, SchedulerAction, Upcoming};

/// Maximum length of an answer, in bytes.
const LINE_MAX: usize = 1 << 24;

/// Sends the requests of a session whenever it is idle.
pub(super) struct SessionDriver<'a> {
    steps: &'a [Step],
    /// Number of steps begun.
    begun: usize,
    /// Requests that must be answered before the next step.
    open: Vec<u64>,
    /// Standard input of each session; closed when there are no more requests.
    inputs: Vec<Option<File>>,
    /// Standard output of each session, and how far it was read.
    outputs: &'a [File],
    read_to: Vec<u64>,
    /// Number of one-shot operations started, and the running one, by its client.
    one_shots: u32,
    beside: Option<u32>,
    began: Instant,
    asked: Vec<Asked>,
    answers: BTreeMap<u64, (Value, Duration)>,
    /// Number of visible calls since the last step began, and the index of each step's first call among all calls.
    calls: u32,
    pub(super) firsts: Vec<Option<u32>>,
    /// Whether it was held at the planned call.
    pub(super) was_held: bool,
    /// Number of requests sent while it was held.
    said_meanwhile: usize,
}

/// A request, with its session, step and time.
struct Asked {
    session: u32,
    step: usize,
    request: Value,
    at: Duration,
}

impl<'a> SessionDriver<'a> {
    pub(super) fn new(steps: &'a [Step], inputs: Vec<File>, outputs: &'a [File]) -> Self {
        Self {
            steps,
            begun: 0,
            open: Vec::new(),
            read_to: vec![0; outputs.len()],
            inputs: inputs.into_iter().map(Some).collect(),
            outputs,
            one_shots: 0,
            beside: None,
            began: Instant::now(),
            asked: Vec::new(),
            answers: BTreeMap::new(),
            calls: 0,
            firsts: Vec::new(),
            was_held: false,
            said_meanwhile: 0,
        }
    }

    fn say(&mut self, session: u32, lines: &[String]) {
        let at = self.began.elapsed();
        for line in lines {
            let request: Value = serde_json::from_str(line).unwrap_or_default();
            self.open.extend(request["seq"].as_u64());
            self.asked.push(Asked { session, step: self.begun, request, at });
        }
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        if let Some(Some(input)) = self.inputs.get_mut(session as usize - 1) {
            // If a store has closed its input it does not answer, which is judged.
            let _written = input.write_all(text.as_bytes());
        }
    }

    /// Reads the available answers.
    fn listen(&mut self) {
        for session in 0..self.outputs.len() {
            self.listen_to(session);
        }
    }

    fn listen_to(&mut self, session: usize) {
        let now = self.began.elapsed();
        let mut new = vec![0; 1 << 16];
        loop {
            let count = self.outputs[session].read_at(&mut new, self.read_to[session]).unwrap_or(0);
            let Some(end) = new[..count].iter().rposition(|byte| *byte == b'\n') else {
                // An incomplete line is read again, a long one with a larger buffer.
                if count < new.len() || new.len() >= LINE_MAX {
                    return;
                }
                new.resize(new.len() * 2, 0);
                continue;
            };
            for line in new[..end].split(|byte| *byte == b'\n') {
                let answer: Value = serde_json::from_slice(line).unwrap_or_default();
                if let Some(seq) = answer["seq"].as_u64() {
                    self.open.retain(|open| *open != seq);
                    self.answers.entry(seq).or_insert((answer, now));
                }
            }
            self.read_to[session] += end as u64 + 1;
        }
    }

    fn next_step(&mut self) -> SchedulerAction {
        match self.steps.get(self.begun) {
            Some(step) => {
                self.begun += 1;
                self.calls = 0;
                self.firsts.push(None);
                if step.one_shot.is_some() {
                    return self.start_one_shot();
                }
                self.say(step.session, &step.lines);
                SchedulerAction::Again
            }
            None => self.say_no_more(),
        }
    }

    /// Starts the next one-shot operation; its client number comes after those of the sessions.
    fn start_one_shot(&mut self) -> SchedulerAction {
        self.one_shots += 1;
        let client = u32::try_from(self.outputs.len()).unwrap_or(u32::MAX).saturating_add(self.one_shots);
        self.beside = Some(client);
        SchedulerAction::Start(client)
    }

    /// Closes the input of all sessions: they finish their requests, or can be seen to be stuck.
    fn say_no_more(&mut self) -> SchedulerAction {
        let were_open = self.inputs.iter().any(Option::is_some);
        self.inputs.iter_mut().for_each(|input| drop(input.take()));
        if were_open { SchedulerAction::Again } else { SchedulerAction::Nothing }
    }

    /// Returns the session of the running step, or of the next one.
    fn session(&self) -> u32 {
        let step = self.begun.checked_sub(1).filter(|_| !self.open.is_empty()).unwrap_or(self.begun);
        self.steps.get(step).map_or(1, |step| step.session)
    }

    /// Returns the requests as operations, and what each session believed just before it listed.
    pub(super) fn into_operations(mut self, sessions: &[(&Ended, String)]) -> (Vec<Operation>, Vec<Memory>) {
        self.listen();
        let hung = |ended: &Ended| match ended.end {
            End::Stuck => Outcome::Stuck,
            End::TimedOut => Outcome::Unfinished(Limit::Timeout),
            _ => Outcome::Failed(NO_ANSWER.into()),
        };
        let answer_of = |asked: &Asked| self.answers.get(&asked.request["seq"].as_u64()?);
        let is_alone =
            |asked: &Asked| self.asked.iter().filter(|other| other.step == asked.step).count() == 1;
        let operation = |asked: &Asked| {
            let (ended, stderr) = sessions.get(asked.session as usize - 1)?;
            let request = match asked.request["op"].as_str()? {
                "add" => Request::Add { record: asked.request["record"].as_str()?.to_owned(), number: 0 },
                "list" => Request::List,
                other => Request::Other(other.to_owned()),
            };
            let answer = answer_of(asked);
            let outcome = match answer {
                Some((answer, _)) if answer["ok"] == true => Outcome::Acknowledged,
                Some((answer, _)) => match answer["error"].as_str() {
                    Some("refused") => Outcome::Refused,
                    Some("busy") => Outcome::Busy,
                    other => Outcome::Failed(other.unwrap_or("failed").to_owned()),
                },
                None => hung(ended),
            };
            // A request with others in the same step has no definite place in their order.
            let records = answer
                .filter(|_| request == Request::List && outcome == Outcome::Acknowledged && is_alone(asked))
                .and_then(|(answer, _)| strings(&answer["records"]));
            Some(Operation {
                client: asked.session,
                request,
                invoked: nanos(asked.at),
                returned: nanos(answer.map_or(ended.returned, |(_, at)| *at)),
                still: None,
                fault: None,
                outcome,
                stderr: stderr.clone(),
                records,
            })
        };
        let operations = self.asked.iter().filter_map(operation).collect();
        let records = |asked: &Asked, op: &str| {
            let (answer, _) = answer_of(asked).filter(|_| asked.request["op"] == op && is_alone(asked))?;
            strings(&answer["records"]).filter(|_| answer["ok"] == true)
        };
        let pairs =
            self.asked.windows(2).filter(|pair| pair[0].request["handle"] == pair[1].request["handle"]);
        let memories = pairs.filter_map(|pair| {
            let (believed, listed) = (records(&pair[0], "memory")?, records(&pair[1], "list")?);
            Some(Memory { at: nanos(pair[0].at), believed, listed })
        });
        (operations, memories.collect())
    }
}

fn strings(values: &Value) -> Option<Vec<String>> {
    values.as_array()?.iter().map(|value| Some(value.as_str()?.to_owned())).collect()
}

impl Director for SessionDriver<'_> {
    fn treat(&mut self, upcoming: &Upcoming) -> CallAction {
        // One-shot operations are not held here.
        if upcoming.client as usize > self.outputs.len() {
            return CallAction::Go;
        }
        self.calls += 1;
        if let Some(first) = self.firsts.last_mut() {
            first.get_or_insert(upcoming.index);
        }
        let step = self.begun.checked_sub(1).and_then(|begun| self.steps.get(begun));
        let held = step.and_then(|step| step.held.as_ref());
        let is_there = held.is_some_and(|held| held.point == self.calls);
        if is_there && !upcoming.is_exit && !self.was_held {
            self.was_held = true;
            return CallAction::Hold;
        }
        CallAction::Go
    }

    fn rest(&mut self, clients: &[ClientState]) -> SchedulerAction {
        self.listen();
        let session = self.session();
        let at = |client: u32| clients.get(client as usize - 1).copied();
        if at(session) == Some(ClientState::NotStarted) {
            return SchedulerAction::Start(session);
        }
        if at(session) == Some(ClientState::Held) {
            let step = self.begun.checked_sub(1).and_then(|begun| self.steps.get(begun));
            let held = step.and_then(|step| step.held.as_ref());
            if held.is_some_and(|held| held.one_shot.is_some()) && self.beside.is_none() {
                return self.start_one_shot();
            }
            let meanwhile = held.map(|held| held.meanwhile.as_slice());
            let Some(line) = meanwhile.and_then(|lines| lines.get(self.said_meanwhile)) else {
                return SchedulerAction::Release(session);
            };
            self.said_meanwhile += 1;
            self.say(session, std::slice::from_ref(line));
            return SchedulerAction::Again;
        }
        match self.beside.and_then(at) {
            None | Some(ClientState::Ended) => {}
            // It waits for a lock that a session holds until it ends.
            Some(ClientState::Waits) if self.open.is_empty() => return self.say_no_more(),
            Some(_) if self.open.is_empty() => return SchedulerAction::Nothing,
            Some(_) => {}
        }
        match at(session) {
            _ if self.open.is_empty() => self.next_step(),
            // A session that waits for a lock that only it can release gets no more requests.
            Some(ClientState::Waits) => self.say_no_more(),
            _ => SchedulerAction::Nothing,
        }
    }
}

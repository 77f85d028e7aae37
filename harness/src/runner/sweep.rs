//! Plays all scripts of a scenario that is made from quiet runs under the tracer.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use crate::call::{Effect, Traced};
use crate::observation::{Observation, Trace};
use crate::op::Request;
use crate::runner::{Control, Cut, First, RunError, Stage, TraceError};
use crate::scenario::script::{Misfortune, Script};
use crate::scenario::{crash, inheritance, reentry, torn_write};

/// How a scenario went, beside what it showed.
#[derive(Clone, Debug, Default)]
pub struct Swept {
    /// What was planned, in words, with how many executions that is, and how many were made.
    pub groups: Vec<(String, usize, usize)>,
    /// Why executions were left out, if any were.
    pub cut: Option<Cut>,
    /// Whether points were left out since there are too many.
    pub is_bounded: bool,
    /// What the traces say is not seen.
    pub not_covered: BTreeSet<String>,
}

/// What a scenario shows while it runs.
pub enum Showing<'a> {
    /// A quiet run of one operation.
    Quiet(Trace),
    /// An execution, and what was played.
    Execution(Box<Observation>, &'a Script),
}

/// Scripts that belong together: what they are, in words, and the scripts.
struct Group {
    what: String,
    scripts: Vec<Script>,
}

/// Runs the scenario of this id, handing every execution to `sink`, which may end it.
///
/// # Errors
/// Where the harness could not do its part, or may not trace.
pub fn sweep(
    stage: &Stage<'_>,
    control: &Control,
    scenario: &str,
    sink: &mut dyn FnMut(Showing<'_>) -> ControlFlow<()>,
) -> Result<Swept, TraceError> {
    let mut sweep = Sweep { stage, control, scenario, sink, done: Swept::default(), execution: 0 };
    match sweep.run() {
        Ok(()) => {}
        Err(TraceError::Run(RunError::Stopped)) => {
            sweep.done.cut.get_or_insert(if stage.stop.is_requested() {
                Cut::Interrupted
            } else {
                Cut::Budget
            });
        }
        Err(other) => return Err(other),
    }
    Ok(sweep.done)
}

struct Sweep<'a> {
    stage: &'a Stage<'a>,
    control: &'a Control,
    scenario: &'a str,
    sink: &'a mut dyn FnMut(Showing<'_>) -> ControlFlow<()>,
    done: Swept,
    execution: u32,
}

impl Sweep<'_> {
    fn run(&mut self) -> Result<(), TraceError> {
        let mut first = self.stage.first()?;
        let ops = &self.stage.target.ops;
        let other = self.stage.target.harmless_ops().map(|name| Request::Other(name.to_owned()));
        let list = ops.list.is_some().then_some(Request::List);
        let requests: Vec<Request> = std::iter::once(crash::add(2)).chain(list).chain(other).collect();
        let mut quiet = Vec::new();
        for request in &requests {
            let traced = self.quiet(request)?;
            first.usual_names.extend(traced.calls.iter().filter_map(|call| match &call.effect {
                Some(Effect::Created { path, .. }) => Some(path.clone()),
                _ => None,
            }));
            let pids = traced.pids.clone();
            let (requests, calls) = (vec![request.clone()], traced.calls.clone());
            let shown = Trace { requests, calls, pids, is_whole: true, ..Trace::default() };
            let _flow = (self.sink)(Showing::Quiet(shown));
            quiet.push((request, traced));
        }
        match self.scenario {
            "inheritance" => self.play(&first, group("every operation", inheritance::scripts(&requests))),
            "reentry" => {
                let limit = self.stage.target.limit_of_plain_add();
                let session = self.stage.target.session.is_some();
                let scripts = reentry::scripts(&requests, limit, session);
                self.play(&first, group("every operation, add many times", scripts))
            }
            "torn-write" => {
                for (request, quiet) in &quiet {
                    let name = name_of(request);
                    let scripts = torn_write::scripts(request, &quiet.calls);
                    self.play(&first, group(format!("cuts of the writes of {name}"), scripts))?;
                }
                Ok(())
            }
            _ => self.crash(&first, &quiet),
        }
    }

    fn crash(&mut self, first: &First, quiet: &[(&Request, Traced)]) -> Result<(), TraceError> {
        let mut later = Vec::new();
        for (request, quiet) in quiet {
            let points = crash::points(&quiet.calls);
            self.done.is_bounded |= points.len() <= quiet.calls.len();
            let kills = crash::kills(request, &quiet.calls, &points);
            self.play(first, group(format!("crash points of {}", name_of(request)), kills))?;
            later.push((request, quiet, points));
        }
        for (request, quiet, points) in &later {
            // What leaves processes behind never ends when one of the others is gone.
            let lives_on = quiet.operations.iter().any(|ended| ended.survivors > 0);
            if !lives_on {
                let single = crash::kills_of_processes(request, &quiet.calls, points);
                let what = format!("points of {} with one process killed", name_of(request));
                self.play(first, group(what, single))?;
            }
        }
        later
            .iter()
            .try_for_each(|(request, quiet, points)| self.beside_another(first, request, quiet, points))
    }

    /// The executions with a second client.
    fn beside_another(
        &mut self,
        first: &First,
        request: &Request,
        quiet: &Traced,
        points: &[u32],
    ) -> Result<(), TraceError> {
        let points = crash::points_beside(&quiet.calls, points);
        if points.is_empty() || self.done.cut.is_some() {
            return Ok(());
        }
        self.done.groups.push((
            format!("points of {} beside another client", name_of(request)),
            points.len(),
            0,
        ));
        for point in points {
            let mut was_disturbed = false;
            for what in crash::BESIDE {
                let script = crash::beside_another(request, &quiet.calls, point, what);
                let seen = self.play_once(first, &script)?;
                was_disturbed |= seen.was_disturbed;
                // Who does not wait cannot be killed waiting.
                if self.done.cut.is_some() || (what != Misfortune::Hold && !seen.second_waited) {
                    break;
                }
            }
            if let Some((_, _, made)) = self.done.groups.last_mut() {
                *made += usize::from(was_disturbed);
            }
            if self.done.cut.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// A quiet run of an operation.
    fn quiet(&mut self, request: &Request) -> Result<Traced, TraceError> {
        self.stage.lay_first()?;
        let traced = self.stage.trace_quietly(request)?;
        self.done.not_covered.extend(traced.not_covered.iter().cloned());
        Ok(traced)
    }

    fn play(&mut self, first: &First, group: Group) -> Result<(), TraceError> {
        if group.scripts.is_empty() || self.done.cut.is_some() {
            return Ok(());
        }
        self.done.groups.push((group.what, group.scripts.len(), 0));
        for script in &group.scripts {
            let seen = self.play_once(first, script)?;
            if let Some((_, _, made)) = self.done.groups.last_mut() {
                // A store that does not make the same calls each time may have ended before the point was reached.
                *made += usize::from(seen.was_disturbed);
            }
            let is_kill =
                script.disturbance().is_some_and(|disturbance| disturbance.what == Misfortune::Kill);
            if is_kill && seen.left_something && self.done.cut.is_none() {
                self.play_once(first, &crash::alike(script))?;
            }
            if self.done.cut.is_some() {
                break;
            }
        }
        Ok(())
    }

    fn play_once(&mut self, first: &First, script: &Script) -> Result<Seen, TraceError> {
        if self.stage.is_time_up() {
            return Err(RunError::Stopped.into());
        }
        self.execution += 1;
        let played = self.stage.play(self.scenario, script, first, &self.control.subject, self.execution)?;
        self.done.not_covered.extend(played.not_covered);
        let quiet = &self.control.subject.quiet_file_counts;
        let most = quiet.iter().copied().max().unwrap_or(0);
        let left_something = played.observation.states.last().is_some_and(|state| state.files.len() > most);
        if (self.sink)(Showing::Execution(Box::new(played.observation), script)).is_break() {
            self.done.cut = Some(Cut::FailFast);
        }
        Ok(Seen { was_disturbed: played.was_disturbed, second_waited: played.second_waited, left_something })
    }
}

/// What is to be known of an execution for what comes next.
struct Seen {
    was_disturbed: bool,
    second_waited: bool,
    /// Whether it left more files than an undisturbed store does.
    left_something: bool,
}

fn group(what: impl Into<String>, scripts: Vec<Script>) -> Group {
    Group { what: what.into(), scripts }
}

/// The name of an operation, without the record.
fn name_of(request: &Request) -> &str {
    match request {
        Request::Init => "init",
        Request::Add { .. } => "add",
        Request::List => "list",
        Request::Recover => "recover",
        Request::Other(name) => name,
    }
}

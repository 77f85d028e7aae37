//! Plays all scripts of a scenario that is made from quiet runs under the tracer.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::call::{Effect, Traced};
use crate::case::Explanation;
use crate::fault::has_none;
use crate::masks::{made, masked_calls, replace_word};
use crate::observation::{FileState, Observation, Subject, Trace, name_shape};
use crate::op::{Outcome, Request};
use crate::persist::{Tree, crash_states};
use crate::runner::interleave::Breadth;
use crate::runner::pin::Pinned;
use crate::runner::{Control, Cut, First, RunError, Stage, TraceError};
use crate::scenario::script::{Act, Misfortune, Script};
use crate::scenario::{crash, damage, fault, inheritance, reentry, session, torn_write};
use crate::steps::steps_of;
use crate::target::Format;

/// How a scenario went, beside what it showed.
#[derive(Clone, Debug, Default)]
pub struct Swept {
    /// What was planned, in words, with how many executions that is, and how many were made.
    pub groups: Vec<(String, usize, usize)>,
    /// What was explored, by its place and in words, with how far that went.
    pub explored: Vec<(u64, String)>,
    /// What was explored with a kill in it.
    pub killed: Option<Kills>,
    /// Whether an exploration was ended by the time, with no bound that it kept.
    pub is_truncated: bool,
    /// Whether an exploration kept to a bound.
    pub is_bounded: bool,
    /// Why executions were left out, if any were.
    pub cut: Option<Cut>,
    /// What was left out on purpose, in words.
    pub bounds: Vec<String>,
    /// Invariants that stay open, with the reason.
    pub doubts: Vec<(&'static str, String)>,
    /// How many directory contents were derived, and how many of them have a data file that is not whole.
    pub states: (u64, u64),
    /// What the traces say is not seen.
    pub not_covered: BTreeSet<String>,
    /// The target, with what the quiet runs told of it.
    pub subject: Subject,
}

/// Schedules of one plan, with a kill of client 1 before one of its calls.
#[derive(Clone, Debug)]
pub struct Kills {
    /// The plan, in words.
    pub plan: String,
    /// Those that were run.
    pub schedules: u64,
    /// The points at which all that differ were run.
    pub complete: u64,
    /// The points there are.
    pub points: u64,
}

/// What is to happen after an execution was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The next one.
    GoOn,
    /// The next one; this one violated something.
    Found,
    /// The next one; this one violated something that does not count, which ends nothing.
    Known,
    /// Nothing more.
    End,
    /// What a derived state showed is to be done for real.
    Confirm,
}

/// What a scenario shows while it runs.
pub enum Showing<'a> {
    /// A quiet run of one operation.
    Quiet(Trace),
    /// An execution, and what was played. What a copy shows is to be confirmed by a fresh start before it is held
    /// against the store.
    Execution {
        /// Its place in the scenario: what comes of one is run by one shard of a divided run.
        place: u64,
        /// What it showed.
        observation: Box<Observation>,
        /// What was played.
        script: &'a Script,
        /// Whether operations of it were copies of templates.
        has_copies: bool,
        /// What there is to say of it, where that was looked for.
        explanation: Option<Explanation>,
    },
    /// An execution that counts for nothing: whether it violates what is looked for.
    Trial {
        /// What it showed.
        observation: &'a Observation,
        /// What is looked for.
        trial: Trial,
    },
    /// What the first trial violated could not be confirmed by a fresh start any more.
    Unconfirmed,
    /// What was to be done for real, since a derived state violated something, could not be.
    Unreached {
        /// What was played.
        script: &'a Script,
    },
    /// What the store made of a derived state.
    Derived {
        /// What it showed.
        observation: Box<Observation>,
        /// What would come to that state.
        script: &'a Script,
    },
}

/// What is asked of an execution that counts for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// Whether it violates anything: from now on that is what is looked for.
    First,
    /// Whether it violates all of that: nothing that was seen once may get lost where it is made smaller.
    Smaller,
    /// Whether it violates any of that, as a fresh start: what it does not is in doubt.
    Anew,
}

impl Trial {
    /// Whether an execution that violates these invariants is what is looked for.
    pub fn is_found(self, looked_for: &[&str], violated: &[&str]) -> bool {
        match self {
            Self::First => !violated.is_empty(),
            Self::Smaller => looked_for.iter().all(|id| violated.contains(id)),
            Self::Anew => looked_for.iter().any(|id| violated.contains(id)),
        }
    }
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
    breadth: Breadth,
    sink: &mut dyn FnMut(Showing<'_>) -> Next,
) -> Result<Swept, TraceError> {
    let _pinned = Pinned::new();
    let subject = control.subject.clone();
    let mut sweep = Sweep {
        stage,
        subject,
        scenario,
        sink,
        done: Swept::default(),
        execution: 0,
        place: 0,
        places: 0,
        breadth,
    };
    match sweep.run() {
        Ok(()) => {}
        Err(TraceError::Run(RunError::Stopped)) => {
            sweep.done.cut.get_or_insert(if stage.stop.is_requested() {
                Cut::Interrupted
            } else {
                Cut::Budget
            });
        }
        // What goes wrong while it is being ended is part of the end.
        Err(_) if stage.is_cut() => {
            sweep.done.cut.get_or_insert(if stage.stop.is_requested() {
                Cut::Interrupted
            } else {
                Cut::Budget
            });
        }
        Err(other) => return Err(other),
    }
    sweep.done.subject = sweep.subject;
    Ok(sweep.done)
}

/// A quiet run of one operation, with what stood in the sandbox before it and after it.
pub(super) struct Quiet<'a> {
    pub(super) request: &'a Request,
    pub(super) traced: Traced,
    pub(super) trees: Option<(Tree, Tree)>,
}

pub(super) struct Sweep<'a> {
    pub(super) stage: &'a Stage<'a>,
    /// What is known of the target, with what the quiet runs tell.
    pub(super) subject: Subject,
    pub(super) scenario: &'a str,
    pub(super) sink: &'a mut dyn FnMut(Showing<'_>) -> Next,
    pub(super) done: Swept,
    pub(super) execution: u32,
    /// Where in the scenario what is run stands.
    pub(super) place: u64,
    /// How many places were counted, whoever has them.
    places: u64,
    /// How many schedules are to be run.
    pub(super) breadth: Breadth,
}

impl Sweep<'_> {
    /// The next place of the scenario, if this shard of the run has it.
    pub(super) fn next_place(&mut self) -> Option<u64> {
        let place = self.places;
        self.places += 1;
        self.breadth.shard.has(self.scenario, place).then_some(place)
    }

    fn run(&mut self) -> Result<(), TraceError> {
        let mut first = self.stage.first()?;
        let ops = &self.stage.target.ops;
        let other = self.stage.target.harmless_ops().map(|name| Request::Other(name.to_owned()));
        let list = ops.list.is_some().then_some(Request::List);
        let requests: Vec<Request> = std::iter::once(crash::add(2)).chain(list).chain(other).collect();
        let mut quiet = Vec::new();
        for request in &requests {
            let one = self.quiet(request)?;
            first.usual_names.extend(made(&one.traced.calls));
            quiet.push(one);
        }
        match self.scenario {
            "inheritance" => {
                self.play(&first, group("runs of every operation", inheritance::scripts(&requests)))
            }
            "reentry" => {
                let limit = self.stage.target.limit_of_plain_add();
                let session = self.stage.target.session.is_some();
                let scripts = reentry::scripts(&requests, limit, session);
                self.play(&first, group("runs of every operation, add many times", scripts))
            }
            "session" => self.session(&first),
            "power-loss" => self.power_loss(&first, &quiet),
            "interleave" => self.interleave(&first, &quiet, false),
            "interleave-crash" => self.interleave(&first, &quiet, true),
            "fault" => {
                for Quiet { request, traced: quiet, .. } in &quiet {
                    let name = name_of(request);
                    let (scripts, left_out) = fault::scripts(request, &quiet.calls);
                    self.bound(left_out, &format!("faults of {name}, those of its first calls"));
                    let without = quiet.calls.iter().filter(|call| has_none(call)).count();
                    self.bound(without, &format!("calls of {name} for which the table has no fault"));
                    self.play(&first, group(format!("faults of the calls of {name}"), scripts))?;
                    let beside = fault::beside(request, &quiet.calls, &self.subject.data);
                    let what = format!("faults of the locks of {name}, beside another client");
                    self.play(&first, group(what, beside))?;
                }
                Ok(())
            }
            "torn-write" => {
                for Quiet { request, traced: quiet, .. } in &quiet {
                    let name = name_of(request);
                    let left_out = torn_write::writes_left_out(&quiet.calls);
                    self.bound(left_out, &format!("writes of {name}, the first ones"));
                    let scripts = torn_write::scripts(request, &quiet.calls);
                    self.play(&first, group(format!("cuts of the writes of {name}"), scripts))?;
                }
                Ok(())
            }
            _ => self.crash(&first, &quiet),
        }
    }

    /// Requests that are cancelled, or come beside another, at each visible call of an `add` in a session.
    fn session(&mut self, first: &First) -> Result<(), TraceError> {
        self.stage.lay_first()?;
        let Some(led) = self.stage.trace_session(&session::quiet())? else { return Ok(()) };
        let start = |step: usize| usize::try_from(led.first_calls.get(step).copied().flatten()?).ok();
        let Some(from) = start(session::ADD).map(|from| from.saturating_sub(1)) else {
            self.done
                .not_covered
                .insert("an add of a session makes no visible call at which it could be stopped".into());
            return Ok(());
        };
        let after = (session::ADD + 1..led.first_calls.len()).find_map(start);
        let to = after.map_or(led.traced.calls.len(), |after| after.saturating_sub(1));
        // Another one tells what differs from run to run.
        self.stage.lay_first()?;
        let again = self.stage.trace_session(&session::quiet())?;
        let usual = again.map(|again| made(&again.traced.calls)).unwrap_or_default();
        let calls = led.traced.calls.get(from..to).unwrap_or_default();
        let calls = masked_calls(calls, &led.traced.pids, &usual);
        let mut first = first.clone();
        first.usual_names.extend(usual);
        let first = &first;
        let calls: Vec<String> = calls.iter().map(ToString::to_string).collect();
        self.bound(
            calls.len().saturating_sub(session::POINTS_MAX),
            "calls of an add in a session, the last ones",
        );
        let scripts = session::scripts(&calls);
        self.play(first, group("requests that are cancelled or overlap, at each call of an add", scripts))
    }

    /// Two quiet runs of an operation: the first tells its calls, the second what differs from run to run.
    fn quiet<'r>(&mut self, request: &'r Request) -> Result<Quiet<'r>, TraceError> {
        self.stage.lay_first()?;
        let before = self.stage.sandbox.tree();
        let traced = self.stage.trace_quietly(request)?;
        let after = self.stage.sandbox.tree();
        self.stage.lay_first()?;
        let again = self.stage.trace_quietly(request)?;
        self.done.not_covered.extend(traced.not_covered.iter().cloned());
        if steps_of(&again.calls) != steps_of(&traced.calls) {
            self.done.not_covered.insert(format!(
                "{} makes other calls from run to run, so that a crash point is not always at the same call",
                name_of(request)
            ));
        }
        let again_made = made(&again.calls);
        self.subject.fixed_names.extend(made(&traced.calls).intersection(&again_made).cloned());
        self.compare_copy(request, &traced)?;
        let calls = masked_calls(&traced.calls, &traced.pids, &again_made);
        let shown = Trace {
            requests: vec![request.clone()],
            calls: calls.clone(),
            pids: traced.pids.clone(),
            is_whole: true,
            ..Trace::default()
        };
        let _next = (self.sink)(Showing::Quiet(shown));
        // What cannot be read as a tree has no derived states.
        let trees = before.ok().zip(after.ok());
        if let (Request::Other(_), Some((before, after))) = (request, &trees) {
            let there: BTreeSet<&str> = before.names().collect();
            let new = after.names().filter(|name| !there.contains(name));
            self.subject.made_by_others.extend(new.map(name_shape));
        }
        Ok(Quiet { request, traced: Traced { calls, ..traced }, trees })
    }

    /// Runs an operation once more as a copy: where that makes other calls, or ends in another way, than a fresh start,
    /// there are no copies.
    fn compare_copy(&mut self, request: &Request, fresh: &Traced) -> Result<(), TraceError> {
        if !self.stage.copies() {
            return Ok(());
        }
        self.stage.lay_first()?;
        let took = fresh.operations.first().map_or(Duration::ZERO, |ended| ended.returned - ended.invoked);
        // A copy that hangs is no copy; it need not take all the time that an operation may.
        let patience = (took * 10).max(Duration::from_millis(500));
        let Some(mut copy) = self.stage.trace_copy(request, patience)? else { return Ok(()) };
        if fresh.operations.iter().any(|ended| ended.survivors > 0) {
            self.stage.refuse_copies("it leaves processes behind");
            return Ok(());
        }
        if !is_same(&copy, fresh) {
            // It may have kept its process id, and look whether it still has it.
            self.stage.with_templates(|templates| templates.keep_pid(true));
            self.stage.lay_first()?;
            if let Some(again) = self.stage.trace_copy(request, patience)? {
                copy = again;
            }
        }
        let templates = self.stage.with_templates(|templates| templates.groups()).unwrap_or_default();
        if templates.iter().any(|template| tells(&copy, *template)) {
            self.stage.refuse_copies("it keeps its process id from before its first visible call");
        } else if !is_same(&copy, fresh) {
            self.stage.refuse_copies("the undisturbed run of a copy differs from that of a fresh start");
        }
        Ok(())
    }

    fn crash(&mut self, first: &First, all: &[Quiet<'_>]) -> Result<(), TraceError> {
        // They are few, and nothing else shows what they show.
        self.derived_files(first)?;
        let points: Vec<Vec<u32>> = all.iter().map(|one| crash::points(&one.traced.calls)).collect();
        for (index, (one, points)) in all.iter().zip(&points).enumerate() {
            self.derived(first, one)?;
            // Should the time not be enough for all, a second client beside `add` shows more than most of the rest.
            if index == 0 {
                self.beside_another(first, one.request, &one.traced, points)?;
            }
            let left_out = (one.traced.calls.len() + 1).saturating_sub(points.len());
            self.bound(
                left_out,
                &format!("crash points of {}, those away from its changes", name_of(one.request)),
            );
            let kills = crash::kills(one.request, &one.traced.calls, points);
            self.play(first, group(format!("crash points of {}", name_of(one.request)), kills))?;
        }
        for (one, points) in all.iter().zip(&points) {
            let name = name_of(one.request);
            let single = crash::kills_of_processes(one.request, &one.traced.calls, points);
            // What leaves processes behind never ends when one of the others is gone.
            if one.traced.operations.iter().all(|ended| ended.survivors == 0) {
                self.play(first, group(format!("points of {name} with one process killed"), single))?;
            } else if !single.is_empty() {
                self.done.not_covered.insert(format!(
                    "single processes of {name} are not killed alone, since it leaves processes behind"
                ));
            }
        }
        let others = all.iter().zip(&points).skip(1);
        others
            .into_iter()
            .try_for_each(|(one, points)| self.beside_another(first, one.request, &one.traced, points))
    }

    /// The derived files, damaged, and their rebuild, killed at each of its calls.
    fn derived_files(&mut self, first: &First) -> Result<(), TraceError> {
        let Some(derived) = &self.stage.target.derived else { return Ok(()) };
        // Empty, other formats are a store with nothing in it.
        let is_json = self.stage.target.data.format == Format::Json;
        let data = is_json.then(|| self.subject.data.clone());
        self.subject.unrepeatable = self.stage.unrepeatable()?;
        self.play(
            first,
            group("damages of derived files", damage::scripts(&derived.files, data.as_deref())),
        )?;
        let quiet = self.quiet(&Request::Rebuild)?;
        let points = crash::points(&quiet.traced.calls);
        let kills = damage::kills(&derived.files, &quiet.traced.calls, &points);
        self.play(first, group("crash points of the rebuild", kills))
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
            format!("points of {} beside another client, where it reads, changes or locks", name_of(request)),
            0,
            0,
        ));
        let points: Vec<(u64, u32)> =
            points.into_iter().filter_map(|point| Some((self.next_place()?, point))).collect();
        if let Some((_, planned, _)) = self.done.groups.last_mut() {
            *planned = points.len();
        }
        for (place, point) in points {
            self.place = place;
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

    /// Every state that a kill of this operation can leave, derived, laid out and given to the store.
    fn derived(&mut self, first: &First, quiet: &Quiet<'_>) -> Result<(), TraceError> {
        let calls = &quiet.traced.calls;
        let Some((before, after)) = quiet.trees.as_ref().filter(|_| !calls.is_empty()) else { return Ok(()) };
        let name = name_of(quiet.request);
        let states = match crash_states(before, calls) {
            Ok(states) if states.whole() == after => states,
            Ok(_) => return self.not_derived(name, "what its calls say is not what they left"),
            Err(unmodelled) => return self.not_derived(name, &unmodelled.to_string()),
        };
        self.bound(states.left_out(), &format!("page cuts of long writes of {name}"));
        let count = states.clone().count();
        let places: Vec<Option<u64>> = (0..count).map(|_| self.next_place()).collect();
        let planned = places.iter().flatten().count();
        self.done.groups.push((format!("derived crash states of {name}"), planned, 0));
        let data = &self.stage.target.data;
        for (state, place) in states.zip(places) {
            let Some(place) = place else { continue };
            self.place = place;
            if self.stage.is_time_up() {
                return Err(RunError::Stopped.into());
            }
            let content = data.path.to_str().and_then(|path| state.tree.content(path));
            let is_whole = content.is_some_and(|content| data.format.examine(content) == FileState::Whole);
            self.done.states.0 += 1;
            self.done.states.1 += u64::from(!is_whole);
            let what = state.cut.map_or(Misfortune::Kill, Misfortune::Tear);
            let script = crash::alone(quiet.request, calls, state.point, what);
            let observation = self.stage.play_state(
                "crash",
                &state.tree,
                &script,
                first,
                &self.subject,
                self.execution + 1,
            )?;
            if let Some((_, _, made)) = self.done.groups.last_mut() {
                *made += 1;
            }
            match (self.sink)(Showing::Derived { observation: Box::new(observation), script: &script }) {
                Next::GoOn | Next::Found | Next::Known => {}
                Next::End => self.done.cut = Some(Cut::FailFast),
                Next::Confirm => self.confirm(first, &script)?,
            }
            if self.done.cut.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// Takes note of what is left out on purpose.
    pub(super) fn bound(&mut self, left_out: usize, what: &str) {
        if left_out > 0 {
            self.done.bounds.push(format!("{left_out} {what}"));
        }
    }

    /// Where states cannot be derived the kills are made for real all the same.
    fn not_derived(&mut self, name: &str, why: &str) -> Result<(), TraceError> {
        self.done.not_covered.insert(format!(
            "crash states of {name} are not derived, so that no write of it is cut at page boundaries by a kill: {why}"
        ));
        Ok(())
    }

    fn play(&mut self, first: &First, group: Group) -> Result<(), TraceError> {
        if group.scripts.is_empty() || self.done.cut.is_some() {
            return Ok(());
        }
        let scripts: Vec<(u64, &Script)> =
            group.scripts.iter().filter_map(|script| Some((self.next_place()?, script))).collect();
        self.done.groups.push((group.what, scripts.len(), 0));
        for (place, script) in scripts {
            self.place = place;
            let seen = self.play_once(first, script)?;
            if let Some((_, _, made)) = self.done.groups.last_mut() {
                // A store that does not make the same calls each time may have ended before the point was reached.
                *made += usize::from(seen.was_disturbed);
            }
            // Five kills alike are each followed by an add, which a rebuild is not.
            let is_kill = script.acts.iter().any(|act| matches!(act, Act::Operate(Request::Add { .. })))
                && script.disturbance().is_some_and(|disturbance| disturbance.what == Misfortune::Kill);
            if is_kill && seen.left_something && self.done.cut.is_none() {
                self.play_once(first, &crash::alike(script))?;
            }
            if self.done.cut.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// Does for real what a derived state violated something by.
    pub(super) fn confirm(&mut self, first: &First, script: &Script) -> Result<(), TraceError> {
        if !self.play_once(first, script)?.was_disturbed {
            let _next = (self.sink)(Showing::Unreached { script });
        }
        Ok(())
    }

    pub(super) fn play_once(&mut self, first: &First, script: &Script) -> Result<Seen, TraceError> {
        match self.play_as(first, script, true)? {
            (copied, Next::Confirm) => {
                let fresh = self.play_as(first, script, false)?.0;
                if fresh.outcomes != copied.outcomes {
                    self.stage.refuse_copies("a copy ended in another way than a fresh start");
                }
                Ok(fresh)
            }
            (seen, _) => Ok(seen),
        }
    }

    pub(super) fn play_as(
        &mut self,
        first: &First,
        script: &Script,
        may_copy: bool,
    ) -> Result<(Seen, Next), TraceError> {
        if self.stage.is_time_up() {
            return Err(RunError::Stopped.into());
        }
        let execution = self.execution + 1;
        let subject = &self.subject;
        let played = self.stage.play(self.scenario, script, first, subject, execution, may_copy)?;
        self.done.not_covered.extend(played.not_covered);
        let quiet = &self.subject.quiet_file_counts;
        // As many files as an undisturbed store has with as many records.
        let records = played.observation.views().last().map(|view| played.observation.counts(*view).len());
        let usual = records.and_then(|records| quiet.get(records.checked_sub(1)?)).or(quiet.iter().max());
        let left_something = played
            .observation
            .states
            .last()
            .is_some_and(|state| usual.is_none_or(|usual| state.files.len() > *usual));
        let outcomes = played.observation.operations.iter().map(|one| one.outcome.clone()).collect();
        let observation = Box::new(played.observation);
        let next = (self.sink)(Showing::Execution {
            place: self.place,
            observation,
            script,
            has_copies: played.has_copies,
            explanation: None,
        });
        match next {
            Next::GoOn | Next::Found | Next::Known => self.execution = execution,
            Next::End => self.done.cut = Some(Cut::FailFast),
            Next::Confirm => {}
        }
        let seen = Seen {
            was_disturbed: played.was_disturbed,
            second_waited: played.second_waited,
            left_something,
            outcomes,
        };
        Ok((seen, next))
    }
}

/// What is to be known of an execution for what comes next.
pub(super) struct Seen {
    pub(super) was_disturbed: bool,
    second_waited: bool,
    /// Whether it left more files than an undisturbed store does.
    left_something: bool,
    /// How its operations ended.
    outcomes: Vec<Outcome>,
}

fn group(what: impl Into<String>, scripts: Vec<Script>) -> Group {
    Group { what: what.into(), scripts }
}

/// Whether a copy went the way of a fresh start.
fn is_same(copy: &Traced, fresh: &Traced) -> bool {
    let end = |traced: &Traced| traced.operations.first().map(|ended| (ended.end, ended.stdout.clone()));
    end(copy) == end(fresh) && steps_of(&copy.calls) == steps_of(&fresh.calls)
}

/// Whether the operation has told this process id to anybody: in what it wrote, or in a name.
fn tells(traced: &Traced, pid: i32) -> bool {
    let number = pid.to_string();
    let has = |text: &str| replace_word(text, &number, "") != text;
    traced.calls.iter().any(|call| {
        let written = call.data.as_deref().map(String::from_utf8_lossy);
        let target = match &call.effect {
            Some(Effect::SymbolicLinked { to, .. }) => Some(to.as_str()),
            _ => None,
        };
        written.is_some_and(|text| has(&text)) || call.operands().chain(target).any(has)
    })
}

/// The name of an operation, without the record.
pub(super) fn name_of(request: &Request) -> &str {
    match request {
        Request::Init => "init",
        Request::Add { .. } => "add",
        Request::AddGuarded { .. } => "guarded add",
        Request::List => "list",
        Request::Recover => "recover",
        Request::Rebuild => "rebuild",
        Request::Other(name) => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first schedule that violated anything was made smaller as long as it violated any of that: what else it had
    /// shown was lost, and held in the report; beside a baseline, what is known hid what is new.
    #[test]
    fn a_smaller_schedule_violates_all_that_the_first_one_did() {
        let first = ["no-lost-update", "guard-holds"];
        assert!(Trial::First.is_found(&[], &first) && !Trial::First.is_found(&first, &[]));
        assert!(Trial::Smaller.is_found(&first, &["valid-data", "guard-holds", "no-lost-update"]));
        assert!(!Trial::Smaller.is_found(&first, &["no-lost-update"]));
        assert!(
            Trial::Anew.is_found(&first, &["guard-holds"]) && !Trial::Anew.is_found(&first, &["valid-data"])
        );
    }
}

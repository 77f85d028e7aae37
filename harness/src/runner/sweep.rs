//! Plays all scripts of a scenario that is made from quiet runs under the tracer.

use crate::fault::has_none;
use crate::masks::{made, masked_calls};
use crate::observation::Subject;
use crate::op::{Outcome, Request};
use crate::runner::interleave::Breadth;
use crate::runner::pin::Pinned;
use crate::runner::quiet::Quiet;
use crate::runner::{Control, Cut, First, Next, RunError, Showing, Stage, Swept, TraceError};
use crate::scenario::script::{Act, Misfortune, Script};
use crate::scenario::{crash, fault, inheritance, reentry, session, torn_write};

/// Scripts that belong together: what they are, in words, and the scripts.
pub(super) struct Group {
    pub(super) what: String,
    pub(super) scripts: Vec<Script>,
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

    pub(super) fn run(&mut self) -> Result<(), TraceError> {
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
                let mut waited_out = Vec::new();
                for Quiet { request, traced: quiet, .. } in &quiet {
                    let name = name_of(request);
                    let faults = fault::scripts(request, &quiet.calls);
                    self.bound(faults.left_out, &format!("faults of {name}, those of its first calls"));
                    let without = quiet.calls.iter().filter(|call| has_none(call)).count();
                    self.bound(without, &format!("calls of {name} for which the table has no fault"));
                    self.play(&first, group(format!("faults of the calls of {name}"), faults.quick))?;
                    let what = format!("locks of {name} that fail from then on");
                    waited_out.push(group(what, faults.waited_out));
                }
                for Quiet { request, traced: quiet, .. } in &quiet {
                    let name = name_of(request);
                    let beside = fault::beside(request, &quiet.calls, &self.subject.data);
                    let what = format!("faults of the locks of {name}, beside another client");
                    self.play(&first, group(what, beside))?;
                }
                waited_out.into_iter().try_for_each(|group| self.play(&first, group))
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
    pub(super) fn session(&mut self, first: &First) -> Result<(), TraceError> {
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

    /// Takes note of what is left out on purpose.
    pub(super) fn bound(&mut self, left_out: usize, what: &str) {
        if left_out > 0 {
            self.leave_out(format!("{left_out} {what}"));
        }
    }

    /// Of one plan with a kill at each of many points the same is left out again and again: it is said once.
    pub(super) fn leave_out(&mut self, what: String) {
        if !self.done.bounds.contains(&what) {
            self.done.bounds.push(what);
        }
    }

    pub(super) fn play(&mut self, first: &First, group: Group) -> Result<(), TraceError> {
        let Group { what, scripts } = group;
        if scripts.is_empty() || self.done.cut.is_some() {
            return Ok(());
        }
        let scripts: Vec<(u64, &Script)> =
            scripts.iter().filter_map(|script| Some((self.next_place()?, script))).collect();
        let in_vain =
            format!("ends of operations that asked for a lock in vain for all their time, of {what}");
        self.done.groups.push((what, scripts.len(), 0));
        let mut asked_in_vain = 0;
        let played = self.play_each(first, &scripts, &mut asked_in_vain);
        self.bound(asked_in_vain, &in_vain);
        played
    }

    fn play_each(
        &mut self,
        first: &First,
        scripts: &[(u64, &Script)],
        asked_in_vain: &mut usize,
    ) -> Result<(), TraceError> {
        for (place, script) in scripts {
            self.place = *place;
            let seen = self.play_once(first, script)?;
            *asked_in_vain += usize::from(seen.asked_in_vain);
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
        let observation = &played.observation;
        let asked_in_vain = observation.operations.iter().any(|one| observation.asked_in_vain(one));
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
            asked_in_vain,
            outcomes,
        };
        Ok((seen, next))
    }
}

/// What is to be known of an execution for what comes next.
pub(super) struct Seen {
    pub(super) was_disturbed: bool,
    pub(super) second_waited: bool,
    /// Whether it left more files than an undisturbed store does.
    left_something: bool,
    /// Whether an operation ran past its limit while it asked for a lock that was to be had no more.
    asked_in_vain: bool,
    /// How its operations ended.
    outcomes: Vec<Outcome>,
}

pub(super) fn group(what: impl Into<String>, scripts: Vec<Script>) -> Group {
    Group { what: what.into(), scripts }
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

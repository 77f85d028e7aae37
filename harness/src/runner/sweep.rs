//! Runs the experiments of a scenario, the most telling first.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::call::is_temporary;
use crate::observation::{State, Subject};
use crate::op::{Outcome, Request};
use crate::runner::experiments::{Group, Pass, Work, left_out_of_faults, places};
use crate::runner::interleave::ExplorationLimits;
use crate::runner::pin::Pinned;
use crate::runner::prepare::Prepared;
use crate::runner::{
    Cut, ExecEnv, First, RunError, SweepControl, SweepEvent, SweepSummary, TraceError, name_of,
};
use crate::scenario::script::{Act, InjectionKind, Script};
use crate::scenario::{crash, session, torn_write};

/// Number of experiments of each group in the first round of a pass; it doubles in each later round.
const FIRST_ROUND: usize = 8;

/// Runs one pass of the scenario with this id, and passes every execution to `sink`, which may end it.
///
/// # Errors
/// If the harness could not do its part, or may not trace.
pub fn sweep(
    env: &ExecEnv<'_>,
    prepared: &mut Prepared,
    scenario: &'static str,
    pass: Pass,
    breadth: ExplorationLimits,
    sink: &mut dyn FnMut(SweepEvent<'_>) -> SweepControl,
) -> Result<SweepSummary, TraceError> {
    let _pinned = Pinned::new();
    let groups = prepared.groups.remove(scenario).unwrap_or_default();
    let execution = prepared.executions.get(scenario).copied().unwrap_or(0);
    let mut ran = std::mem::take(&mut prepared.ran);
    let mut sweep = Sweep {
        env,
        subject: prepared.subject.clone(),
        scenario,
        sink,
        done: SweepSummary::default(),
        execution,
        place: 0,
        breadth,
        pass,
        ran: &mut ran,
    };
    let ended = sweep.run(prepared, &groups);
    let (mut done, execution) = (sweep.done, sweep.execution);
    prepared.groups.insert(scenario, groups);
    prepared.executions.insert(scenario, execution);
    prepared.ran = ran;
    let is_over = env.is_cut();
    match ended {
        Ok(()) => {}
        Err(TraceError::Run(RunError::Stopped)) => {
            done.cut.get_or_insert(cut_of(env));
        }
        // Errors while it is being ended are part of the end.
        Err(_) if is_over => {
            done.cut.get_or_insert(cut_of(env));
        }
        Err(other) => return Err(other),
    }
    Ok(done)
}

/// Returns why a stopped scenario ended.
fn cut_of(env: &ExecEnv<'_>) -> Cut {
    if env.stop.is_requested() { Cut::Interrupted } else { Cut::Budget }
}

pub(super) struct Sweep<'a> {
    pub(super) env: &'a ExecEnv<'a>,
    /// Known facts about the target.
    pub(super) subject: Subject,
    pub(super) scenario: &'a str,
    pub(super) sink: &'a mut dyn FnMut(SweepEvent<'_>) -> SweepControl,
    pub(super) done: SweepSummary,
    pub(super) execution: u32,
    /// Place of the current experiment in the scenario.
    pub(super) place: u64,
    /// Limits on the schedules to be run.
    pub(super) breadth: ExplorationLimits,
    pub(super) pass: Pass,
    /// Experiments that ran, by group and number.
    ran: &'a mut BTreeSet<(String, usize)>,
}

impl Sweep<'_> {
    fn run(&mut self, prepared: &Prepared, groups: &[Group]) -> Result<(), TraceError> {
        let all_places = places(groups, self.scenario, self.breadth.shard);
        for (group, places) in groups.iter().zip(&all_places) {
            let planned = places.iter().flatten().count();
            let is_counted = !matches!(group.work, Work::Schedules { .. } | Work::KillSchedules { .. });
            if is_counted && planned > 0 {
                self.done.groups.push((group.what.clone(), planned, 0));
            }
        }
        self.note_what_is_left_out(prepared);
        let left = |index: usize| {
            let others = groups[index..].iter().zip(&all_places[index..]);
            others.filter(|(_, places)| places.iter().flatten().next().is_some()).count()
        };
        let mut asked_in_vain = vec![0; groups.len()];
        let ended = self.run_in_rounds(prepared, groups, &all_places, left, &mut asked_in_vain);
        for (group, count) in groups.iter().zip(asked_in_vain) {
            let ends = "operations that requested a lock until their time limit";
            self.bound(count, &format!("{ends}, of {}", group.what));
        }
        ended
    }

    /// Runs some of each group and then more of each, so that a slow store gets a little of everything first: the kills
    /// of three operations once took a whole minute, and problems that only a second client shows were missed.
    fn run_in_rounds(
        &mut self,
        prepared: &Prepared,
        groups: &[Group],
        all_places: &[Vec<Option<u64>>],
        left: impl Fn(usize) -> usize,
        asked_in_vain: &mut [usize],
    ) -> Result<(), TraceError> {
        let mut most = FIRST_ROUND;
        let mut is_more_left = true;
        while is_more_left {
            is_more_left = false;
            for (index, (group, places)) in groups.iter().zip(all_places).enumerate() {
                let mut open = self.open(group, places);
                if group.can_be_divided() {
                    is_more_left |= open.len() > most;
                    open.truncate(most);
                } else if most > FIRST_ROUND {
                    continue;
                }
                self.run_group(prepared, group, &open, left(index), &mut asked_in_vain[index])?;
                if self.done.cut.is_some() {
                    return Ok(());
                }
            }
            most *= 2;
        }
        Ok(())
    }

    /// Returns the experiments of a group that belong to this pass and have not run, by number and place.
    fn open(&self, group: &Group, places: &[Option<u64>]) -> Vec<(usize, u64)> {
        let most = if self.pass == Pass::Early { group.telling() } else { usize::MAX };
        // The most informative schedules are a part of the later exploration, which repeats them.
        let is_again = matches!(group.work, Work::Schedules { .. });
        let has_run = |number: usize| self.ran.contains(&(group.what.clone(), number));
        let numbered = places.iter().enumerate().take(most);
        numbered
            .filter_map(|(number, place)| Some((number, (*place)?)))
            .filter(|(number, _)| is_again || !has_run(*number))
            .collect()
    }

    /// Records what no group of this scenario covers.
    fn note_what_is_left_out(&mut self, prepared: &Prepared) {
        if self.pass != Pass::Remaining {
            return;
        }
        for one in &prepared.quiet {
            let (name, calls) = (name_of(&one.request), &one.traced.calls);
            match self.scenario {
                "fault" => {
                    for (count, what) in left_out_of_faults(one) {
                        self.bound(count, &what);
                    }
                }
                "torn-write" => {
                    let left_out = torn_write::writes_left_out(calls);
                    self.bound(left_out, &format!("writes of {name}, the first ones"));
                }
                "crash" => self.note_what_crash_leaves_out(one),
                _ => {}
            }
        }
        match self.scenario {
            "power-loss" => self.note_what_power_loss_leaves_out(prepared),
            "session" => {
                let calls = prepared.session.as_ref().map_or(0, |(calls, _)| calls.len());
                let left_out = calls.saturating_sub(session::POINTS_MAX);
                self.bound(left_out, "calls of an add in a session, the last ones");
            }
            "interleave" | "interleave-crash" => self.note_what_schedules_leave_out(),
            _ => {}
        }
    }

    /// Runs these experiments of a group.
    fn run_group(
        &mut self,
        prepared: &Prepared,
        group: &Group,
        open: &[(usize, u64)],
        groups_left: usize,
        asked_in_vain: &mut usize,
    ) -> Result<(), TraceError> {
        if open.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        let before = self.done.evidence.get(&group.evidence).copied().unwrap_or_default();
        let ended = match &group.work {
            Work::Scripts { scripts, .. } => self.play(prepared, group, scripts, open, asked_in_vain),
            Work::Beside { op, points, .. } => self.beside_another(prepared, group, *op, points, open),
            Work::CrashStates { op, .. } => self.derived(prepared, group, *op, open),
            Work::PowerLosses { op, .. } => self.power_losses(prepared, group, *op, open),
            Work::Schedules { plan } => self.schedules(prepared, group, plan, open, groups_left),
            Work::KillSchedules { plan, points } => self.kill_schedules(prepared, plan, points, open),
        };
        let after = self.done.evidence.get(&group.evidence).copied().unwrap_or_default();
        if let Some(kind) = group.evidence {
            let experiments = (after.run - before.run).max(u64::from(ended.is_ok()));
            self.done.times.push((kind, began.elapsed(), experiments));
        }
        ended
    }

    /// Records that an experiment ran, and whether its injection took place: otherwise it is no evidence.
    pub(super) fn note_ran(&mut self, group: &Group, number: usize, came_about: bool) {
        if !self.ran.insert((group.what.clone(), number)) {
            return;
        }
        match group.evidence {
            Some(kind) if !came_about => *self.done.in_vain.entry(kind).or_default() += 1,
            evidence => self.done.evidence.entry(evidence).or_default().run += 1,
        }
    }

    /// Records how many executions of a group had the planned effect.
    pub(super) fn note_made(&mut self, group: &Group, made: usize) {
        if let Some((.., count)) = self.done.groups.iter_mut().find(|(what, ..)| *what == group.what) {
            *count += made;
        }
    }

    /// Records what is skipped on purpose.
    pub(super) fn bound(&mut self, left_out: usize, what: &str) {
        if left_out > 0 {
            self.leave_out(format!("{left_out} {what}"));
        }
    }

    /// Records a skipped item once, because a plan with a kill at each of many points skips the same repeatedly.
    pub(super) fn leave_out(&mut self, what: String) {
        if !self.done.bounds.contains(&what) {
            self.done.bounds.push(what);
        }
    }

    /// Runs scripts of a group, and counts the operations that requested a lock without success until their time limit.
    fn play(
        &mut self,
        prepared: &Prepared,
        group: &Group,
        scripts: &[Script],
        open: &[(usize, u64)],
        asked_in_vain: &mut usize,
    ) -> Result<(), TraceError> {
        let mut first = prepared.first.clone();
        if let ("session", Some((_, usual))) = (self.scenario, &prepared.session) {
            first.usual_names.extend(usual.iter().cloned());
        }
        for (number, place) in open {
            let Some(script) = scripts.get(*number) else { continue };
            self.place = *place;
            let mut seen = self.play_once(&first, script)?;
            if !seen.was_injected && self.done.cut.is_none() {
                // The second attempt may reach the injection point.
                seen = self.play_once(&first, script)?;
            }
            *asked_in_vain += usize::from(seen.asked_in_vain);
            // A store whose calls vary from run to run may have ended before the point was reached.
            self.note_made(group, usize::from(seen.was_injected));
            self.note_ran(group, *number, seen.was_injected);
            // Repeated kills at one point are each followed by an add, which a rebuild is not.
            let is_kill = script.acts.iter().any(|act| matches!(act, Act::Operate(Request::Add { .. })))
                && script.injection().is_some_and(|injection| injection.what == InjectionKind::Kill);
            if is_kill && seen.left_something && self.done.cut.is_none() {
                self.play_once(&first, &crash::alike(script))?;
            }
            if self.done.cut.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// Confirms a violation in a derived state by a real execution.
    pub(super) fn confirm(&mut self, first: &First, script: &Script) -> Result<(), TraceError> {
        if !self.play_once(first, script)?.was_injected {
            let _next = (self.sink)(SweepEvent::Unreached { script });
        }
        Ok(())
    }

    pub(super) fn play_once(&mut self, first: &First, script: &Script) -> Result<Seen, TraceError> {
        match self.play_as(first, script, true)? {
            (copied, SweepControl::Confirm) => {
                let fresh = self.play_as(first, script, false)?.0;
                if fresh.outcomes != copied.outcomes {
                    self.env.refuse_copies("a copy ended in another way than a fresh start");
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
    ) -> Result<(Seen, SweepControl), TraceError> {
        if self.env.is_time_up() {
            return Err(RunError::Stopped.into());
        }
        let execution = self.execution + 1;
        let subject = &self.subject;
        let played = self.env.play(self.scenario, script, first, subject, execution, may_copy)?;
        self.done.not_covered.extend(played.not_covered);
        let quiet = &self.subject.baseline_file_counts;
        // Expected number of files: that of a baseline store with as many records.
        let records = played.observation.views().last().map(|view| played.observation.counts(*view).len());
        let usual = records.and_then(|records| quiet.get(records.checked_sub(1)?)).or(quiet.iter().max());
        let own = |state: &State| state.files.iter().filter(|file| !is_temporary(file)).count();
        let left_something = played.observation.states.last().is_some_and(|state| {
            usual.is_none_or(|usual| own(state) > *usual)
                || played.observation.foreign_files(state).next().is_some()
        });
        let outcomes = played.observation.operations.iter().map(|one| one.outcome.clone()).collect();
        let observation = &played.observation;
        let asked_in_vain = observation.operations.iter().any(|one| observation.asked_in_vain(one));
        let observation = Box::new(played.observation);
        let next = (self.sink)(SweepEvent::Execution {
            place: self.place,
            observation,
            script,
            has_copies: played.has_copies,
            explanation: None,
        });
        match next {
            SweepControl::GoOn | SweepControl::Found | SweepControl::Known => self.execution = execution,
            SweepControl::End => self.done.cut = Some(Cut::FailFast),
            SweepControl::Confirm => {}
        }
        let seen = Seen {
            was_injected: played.was_injected,
            second_waited: played.second_waited,
            left_something,
            asked_in_vain,
            outcomes,
        };
        Ok((seen, next))
    }
}

/// Properties of an execution that decide the next steps.
pub(super) struct Seen {
    pub(super) was_injected: bool,
    pub(super) second_waited: bool,
    /// Whether it left more files than a baseline run does.
    left_something: bool,
    /// Whether an operation ran past its time limit while it requested a lock that was no longer available.
    asked_in_vain: bool,
    /// The outcomes of its operations.
    outcomes: Vec<Outcome>,
}

//! Explores the schedules of some clients: one execution after another, as an explorer wants them, until all that differ
//! were run or the time is up; then some by chance.

use std::time::{Duration, Instant};

use crate::case::Explanation;
use crate::explore::bounded::Bounded;
use crate::explore::model::StraightLine;
use crate::explore::random::Portfolio;
use crate::explore::sequential::Sequential;
use crate::explore::worklist::WorkList;
use crate::explore::{Choice, Explorer, Pending, Step};
use crate::op::{ClientId, Request};
use crate::runner::pin::Pinned;
use crate::runner::quiet::Quiet;
use crate::runner::schedule::Scheduled;
use crate::runner::showing::Kills;
use crate::runner::shrink::Failing;
use crate::runner::sweep::{Sweep, name_of};
use crate::runner::{Cut, First, Next, Played, RunError, Showing, Stage, TraceError, Trial};
use crate::scenario::interleave::{CLIENTS_MAX, FILLED_MAX, Limited, OPERATIONS_MAX, Plan, WAKES, plans};
use crate::scenario::script::KillAt;
use crate::scenario::{crash, interleave, interleave_crash};
use crate::shard::Shard;

/// Classes that are counted for an estimate, and beyond which those with few preemptions are run first.
const ESTIMATE_MAX: u64 = 2_000;
/// How long is counted for that.
const ESTIMATE_TIME: Duration = Duration::from_millis(300);
/// Executions of one plan that violate something, after which no more is looked for.
const VIOLATIONS_MAX: u32 = 3;
/// Of the time for one plan, what is kept for schedules by chance where there is no time for all.
const CHANCE: u32 = 4;
/// Schedules by chance where no time is set.
const DRAWN_MAX: u64 = 2_000;

/// How many schedules are to be run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Breadth {
    /// Clients at once; nothing for the default.
    pub clients: Option<u32>,
    /// Operations of each client; nothing for the default.
    pub operations: Option<u32>,
    /// All schedules with at most so many preemptions, and no others.
    pub preemptions: Option<u32>,
    /// The shard of a divided run that this is.
    pub shard: Shard,
    /// Of all chance.
    pub seed: u64,
}

/// How the exploration of one plan ended.
#[derive(Clone, Copy, Debug)]
enum End {
    /// The explorer wanted no more.
    All,
    /// Its time was up.
    TimeUp,
    /// Enough violations were found.
    Found,
    /// It is over for the whole scenario.
    Cut,
}

/// What one plan came to.
#[derive(Debug, Default)]
struct Tried {
    executions: u64,
    abandoned: u64,
    violations: u32,
    /// Executions that violate what does not count.
    known: u32,
    /// The classes that there are, as a guess, and whether they were all counted.
    estimate: Option<(u64, bool)>,
    has_polled: bool,
    time_passed: bool,
    is_crowded: bool,
    has_sleepers: bool,
    has_timers: bool,
    is_too_long: bool,
    has_survivors: bool,
    is_unseen: bool,
    /// Where a schedule that begins the same went another way.
    differs: Option<String>,
    last: Scheduled,
}

impl Sweep<'_> {
    pub(super) fn interleave(
        &mut self,
        first: &First,
        all: &[Quiet<'_>],
        is_crash: bool,
    ) -> Result<(), TraceError> {
        let requests: Vec<Request> = all.iter().map(|one| one.request.clone()).collect();
        let default = if is_crash { interleave_crash::CLIENTS } else { interleave::CLIENTS };
        let clients = self.breadth.clients.unwrap_or(default);
        if clients > CLIENTS_MAX {
            self.done.bounds.push(format!(
                "{} of {clients} clients, more than are scheduled at once",
                clients - CLIENTS_MAX
            ));
        }
        if self.breadth.operations.is_some_and(|operations| operations > OPERATIONS_MAX) {
            self.leave_out(format!("more than {OPERATIONS_MAX} operations of one client"));
        }
        if self.limited().is_some_and(|limited| limited.limit > FILLED_MAX) {
            self.leave_out(format!("clients at the limit, since it is above {FILLED_MAX}"));
        }
        let has_places = self.stage.target.ops.add.names_client();
        let plans = plans(&requests, clients, self.breadth.operations, self.limited(), has_places);
        if is_crash {
            let is_of_all = |plan: &&Plan| plan.clients.len() == clients.clamp(1, CLIENTS_MAX) as usize;
            let Some(plan) = plans.iter().find(is_of_all) else { return Ok(()) };
            return self.interleave_kills(first, plan, all);
        }
        // All schedules of one plan are one place: which of them there are, only those that were run tell.
        let mut plans: Vec<(u64, Plan)> =
            plans.into_iter().filter_map(|plan| Some((self.next_place()?, plan))).collect();
        let mut index = 0;
        while let Some((place, plan)) = plans.get(index).cloned() {
            self.place = place;
            let left = plans.len() - index;
            let tried = self.explore(first, &plan, None, self.share(left))?;
            // Where sleeps are part of it, time may pass while others could go on: as far as two clients show that.
            if tried.has_polled && plan.wakes == 0 && place == 0 {
                let mut patient = plan.clone();
                patient.clients.truncate(2);
                patient.wakes = WAKES;
                patient.what = format!(
                    "{} clients that add and sleep up to {WAKES} times in vain",
                    patient.clients.len()
                );
                plans.insert(index + 1, (place, patient));
            }
            if self.done.cut.is_some() {
                return Ok(());
            }
            index += 1;
        }
        Ok(())
    }

    fn interleave_kills(&mut self, first: &First, plan: &Plan, all: &[Quiet<'_>]) -> Result<(), TraceError> {
        let Some(quiet) = all.first() else { return Ok(()) };
        // The calls differ in number where others are there: one point more stands for its exit, whenever that is.
        let points = crash::points(&quiet.traced.calls);
        let points: Vec<(u64, u32)> =
            points.into_iter().filter_map(|point| Some((self.next_place()?, point))).collect();
        let (count, mut schedules, mut complete) = (points.len(), 0, 0_u64);
        for (index, (place, before)) in points.into_iter().enumerate() {
            self.place = place;
            let kill = KillAt { client: 1, before };
            let was_truncated = std::mem::replace(&mut self.done.is_truncated, false);
            let explored = self.explore(first, plan, Some(kill), self.share(count - index));
            complete += u64::from(!self.done.is_truncated);
            self.done.is_truncated |= was_truncated;
            let is_over = match &explored {
                Ok(tried) => {
                    schedules += tried.executions;
                    self.done.cut.is_some()
                }
                Err(_) => true,
            };
            if is_over || index + 1 == count {
                self.done.killed =
                    Some(Kills { plan: plan.what.clone(), schedules, complete, points: count as u64 });
            }
            explored?;
            if is_over {
                return Ok(());
            }
        }
        Ok(())
    }

    fn limited(&self) -> Option<Limited> {
        let guard = self.stage.target.guard.as_ref()?;
        // What was there before the first add is in too.
        let there = u32::try_from(self.subject.initial_records.len()).unwrap_or(u32::MAX);
        Some(Limited { limit: guard.limit.checked_sub(there)?, has_own_form: guard.add.is_some() })
    }

    /// What is left of the time for this scenario, for each of so many plans. Where somebody set the bound, most plans come to
    /// it long before, so that the next one may take twice its share.
    fn share(&self, plans: usize) -> Option<Instant> {
        let now = Instant::now();
        let left = self.stage.soft_end?.saturating_duration_since(now);
        let plans = u32::try_from(plans).unwrap_or(u32::MAX).max(1);
        Some(match self.breadth.preemptions {
            Some(_) => now + left.saturating_mul(2) / plans.saturating_add(1),
            None => now + left / plans,
        })
    }

    fn explore(
        &mut self,
        first: &First,
        plan: &Plan,
        kill: Option<KillAt>,
        end: Option<Instant>,
    ) -> Result<Tried, TraceError> {
        let mut tried = Tried::default();
        let ended = self.explore_systematically(first, plan, kill, end, &mut tried);
        let (end, claims) = match &ended {
            // What was given up for its length was not run.
            Ok((End::All, claims)) if tried.is_too_long => (Some(End::Cut), claims.clone()),
            Ok((end, claims)) => (Some(*end), claims.clone()),
            // What was done until then is told.
            Err(_) => (None, Vec::new()),
        };
        if kill.is_none() {
            let told = format!("{}: {}", plan.what, told(end.as_ref(), &claims, &tried));
            self.done.explored.push((self.place, told));
        }
        // Who stops at a violation keeps to a bound; else it was the time.
        self.done.is_truncated |= !matches!(end, Some(End::All | End::Found));
        self.done.is_bounded |= !matches!(end, Some(End::All));
        self.take_note(plan, &tried);
        ended?;
        Ok(tried)
    }

    /// All schedules that differ, as far as the time goes; of what was said to be run, what was.
    fn explore_systematically(
        &mut self,
        first: &First,
        plan: &Plan,
        kill: Option<KillAt>,
        end: Option<Instant>,
        tried: &mut Tried,
    ) -> Result<(End, Vec<String>), TraceError> {
        let mut claims = Vec::new();
        if let Some(preemptions) = self.breadth.preemptions {
            let mut bounded = Bounded::new(preemptions);
            let ended = self.run_all(first, plan, kill, end, u64::MAX, &mut bounded, tried)?;
            if matches!(ended, End::All) {
                claims.push(format!(
                    "every schedule with at most {}",
                    counted(preemptions.into(), "preemption")
                ));
                self.done
                    .bounds
                    .push(format!("schedules of {} with more than {preemptions} preemptions", plan.what));
            }
            return Ok((ended, claims));
        }
        let chance = end.map(|end| {
            let now = Instant::now();
            end - end.saturating_duration_since(now) / CHANCE
        });
        let mut sequential = Sequential::default();
        // The first execution tells how many there may be.
        let ended = self.run_all(first, plan, kill, chance, 1, &mut sequential, tried)?;
        if !matches!(ended, End::TimeUp) || self.is_over(chance) {
            return self.by_chance(first, plan, kill, end, ended, claims, tried);
        }
        let estimate = {
            let end = Instant::now() + ESTIMATE_TIME;
            let is_enough = || Instant::now() >= end || self.stage.is_time_up();
            StraightLine::of(&tried.last.steps).size(ESTIMATE_MAX, &is_enough)
        };
        tried.estimate = Some(estimate);
        if estimate.1 {
            let ended = self.run_all(first, plan, kill, chance, u64::MAX, &mut sequential, tried)?;
            return self.by_chance(first, plan, kill, end, ended, claims, tried);
        }
        // There are many: those that differ least from one after another come first.
        for preemptions in 0..=1 {
            let ended =
                self.run_all(first, plan, kill, chance, u64::MAX, &mut Bounded::new(preemptions), tried)?;
            if !matches!(ended, End::All) {
                return self.by_chance(first, plan, kill, end, ended, claims, tried);
            }
            claims = vec![match preemptions {
                0 => "every schedule without preemption".to_owned(),
                _ => "every schedule with at most 1 preemption".to_owned(),
            }];
        }
        let ended = self.run_all(first, plan, kill, chance, u64::MAX, &mut WorkList::new(), tried)?;
        self.by_chance(first, plan, kill, end, ended, claims, tried)
    }

    /// Where the time was not enough for all, what is left of it goes to schedules by chance.
    fn by_chance(
        &mut self,
        first: &First,
        plan: &Plan,
        kill: Option<KillAt>,
        end: Option<Instant>,
        ended: End,
        mut claims: Vec<String>,
        tried: &mut Tried,
    ) -> Result<(End, Vec<String>), TraceError> {
        if !matches!(ended, End::TimeUp) {
            return Ok((ended, claims));
        }
        let mut portfolio = Portfolio::new(self.breadth.seed);
        let most = if end.is_some() { u64::MAX } else { DRAWN_MAX };
        let drawn = self.run_all(first, plan, kill, end, most, &mut portfolio, tried)?;
        if portfolio.drawn() > 0 {
            claims.push(format!("{} by chance", portfolio.drawn()));
        }
        Ok((if matches!(drawn, End::All) { End::TimeUp } else { drawn }, claims))
    }

    fn is_over(&self, end: Option<Instant>) -> bool {
        end.is_some_and(|end| Instant::now() >= end)
    }

    /// Runs what an explorer wants, at most so many executions.
    fn run_all(
        &mut self,
        first: &First,
        plan: &Plan,
        kill: Option<KillAt>,
        end: Option<Instant>,
        most: u64,
        explorer: &mut dyn Explorer,
        tried: &mut Tried,
    ) -> Result<End, TraceError> {
        let mut watching = Watching { explorer, last: Vec::new(), names: Vec::new() };
        let mut made = 0;
        loop {
            if made == most || self.is_over(end) {
                return Ok(End::TimeUp);
            }
            if !watching.explorer.begin() {
                return Ok(End::All);
            }
            made += 1;
            if self.stage.is_time_up() {
                return Err(RunError::Stopped.into());
            }
            let script = plan.script(Vec::new(), kill);
            let (played, scheduled) = self.stage.play_explored(
                self.scenario,
                &script,
                first,
                &self.subject,
                self.execution + 1,
                &mut watching,
            )?;
            tried.take(&scheduled, watching.compare(&scheduled));
            let Some(played) = played else { continue };
            tried.is_unseen |= !played.not_covered.is_empty();
            tried.has_survivors |= scheduled.has_survivors;
            self.done.not_covered.extend(played.not_covered.iter().cloned());
            let is_first = tried.violations + tried.known == 0;
            let next = self.show(first, plan, kill, played, scheduled, is_first)?;
            self.execution += 1;
            match next {
                Next::End => {
                    self.done.cut = Some(Cut::FailFast);
                    return Ok(End::Cut);
                }
                Next::Found => {
                    tried.violations += 1;
                    if tried.violations >= VIOLATIONS_MAX {
                        return Ok(End::Found);
                    }
                }
                Next::Known => tried.known += 1,
                Next::GoOn | Next::Confirm => {}
            }
        }
    }

    fn leave_out(&mut self, what: String) {
        self.done.bounds.push(what);
    }

    /// Hands an execution on; one that violates something as small as it can be made.
    fn show(
        &mut self,
        first: &First,
        plan: &Plan,
        kill: Option<KillAt>,
        played: Played,
        scheduled: Scheduled,
        is_to_be_shrunk: bool,
    ) -> Result<Next, TraceError> {
        let trial = Showing::Trial { observation: &played.observation, trial: Trial::First };
        let is_violation = (self.sink)(trial) == Next::Found;
        if !is_violation {
            let script = plan.script(scheduled.schedule, kill);
            let observation = Box::new(played.observation);
            let has_copies = played.has_copies;
            let place = self.place;
            let shown =
                Showing::Execution { place, observation, script: &script, has_copies, explanation: None };
            return match (self.sink)(shown) {
                Next::Confirm => Ok(self.play_as(first, &script, false)?.1),
                other => Ok(other),
            };
        }
        let found = Failing { plan: plan.clone(), scheduled };
        // Of what no copy showed nothing may be missing; else it is shown as it was seen.
        let trial = if played.has_copies { Trial::Anew } else { Trial::Smaller };
        let shown =
            if is_to_be_shrunk { self.show_smallest(first, kill, &found, trial) } else { Ok(Next::GoOn) };
        let next = match shown {
            Ok(Next::GoOn) => self.show_anew(first, kill, &found, trial, None),
            other => other,
        };
        // What was no copy happened to the store itself, whether it does again or not.
        let has_copies = played.has_copies;
        let as_seen = || {
            (self.sink)(Showing::Execution {
                place: self.place,
                observation: Box::new(played.observation),
                script: &found.plan.script(found.scheduled.schedule, kill),
                has_copies: false,
                explanation: None,
            })
        };
        match next {
            // There is no time to look once more: it is known that it was seen.
            Err(error) => {
                let _next = if has_copies { (self.sink)(Showing::Unconfirmed) } else { as_seen() };
                Err(error)
            }
            Ok(Next::GoOn) if has_copies => {
                self.stage.refuse_copies("on the same schedule a copy violated what a fresh start did not");
                self.leave_out(format!(
                    "a schedule of {} that violated something once, and not again",
                    plan.what
                ));
                Ok(Next::GoOn)
            }
            Ok(Next::GoOn) => Ok(as_seen()),
            Ok(next) => Ok(next),
        }
    }

    /// Makes a violation smaller, as far as there is time, and shows it.
    fn show_smallest(
        &mut self,
        first: &First,
        kill: Option<KillAt>,
        found: &Failing,
        trial: Trial,
    ) -> Result<Next, TraceError> {
        let (smallest, explanation) = self.shrink(first, kill, found.clone())?;
        self.show_anew(first, kill, &smallest, trial, Some(explanation))
    }

    /// Only what a fresh start shows is held against the store.
    fn show_anew(
        &mut self,
        first: &First,
        kill: Option<KillAt>,
        failing: &Failing,
        trial: Trial,
        explanation: Option<Explanation>,
    ) -> Result<Next, TraceError> {
        let script = failing.plan.script(failing.scheduled.schedule.clone(), kill);
        let execution = self.execution + 1;
        let played = self.stage.play(self.scenario, &script, first, &self.subject, execution, false)?;
        let trial = Showing::Trial { observation: &played.observation, trial };
        if (self.sink)(trial) != Next::Found {
            return Ok(Next::GoOn);
        }
        let observation = Box::new(played.observation);
        let place = self.place;
        Ok((self.sink)(Showing::Execution {
            place,
            observation,
            script: &script,
            has_copies: false,
            explanation,
        }))
    }

    /// What keeps an exploration from being complete, in words.
    fn take_note(&mut self, plan: &Plan, tried: &Tried) {
        let what = &plan.what;
        if tried.is_crowded {
            self.leave_out(format!("the order of the threads or processes of one client, in {what}"));
        }
        if tried.has_sleepers {
            self.bound(
                1,
                &format!("order of what clients do unseen, such as in pipes and sockets, in {what}"),
            );
        }
        if tried.has_timers {
            self.leave_out(format!("a wait that its timer ends while others go on, in {what}"));
        }
        if tried.is_too_long {
            self.leave_out(format!("executions of more steps than are taken, in {what}"));
        }
        if tried.has_survivors {
            self.leave_out(format!("the order of what outlives its operation, in {what}"));
        }
        if tried.is_unseen {
            self.leave_out(format!("what is not seen, as told under not covered, in {what}"));
        }
        if tried.time_passed {
            self.leave_out(format!(
                "what others might have done while time passed for one who slept, in {what}"
            ));
        }
        if tried.has_polled && plan.wakes == 0 {
            self.leave_out(format!("the end of a sleep before anything was changed, in {what}"));
        }
        if plan.wakes > 0 {
            self.leave_out(format!("a row of more than {WAKES} sleeps in vain, in {what}"));
        }
        if let Some(differs) = &tried.differs {
            self.done
                .not_covered
                .insert(format!("{} is not deterministic: {differs}", name_of(&crash::add(1))));
            self.leave_out(format!(
                "what comes of a schedule that begins as another did and went another way, in {what}"
            ));
        }
    }
}

/// How many schedules of these clients differ in more than the order of independent steps; each of them is run. With
/// `intervals`, invocations and returns of operations are steps too, and their order counts.
///
/// # Errors
/// Where the harness could not do its part, may not trace, or a schedule that begins as another went another way.
pub fn classes(stage: &Stage<'_>, clients: Vec<Vec<Request>>, intervals: bool) -> Result<u64, TraceError> {
    let _pinned = Pinned::new();
    let first = stage.first()?;
    let plan = Plan { what: String::new(), before: Vec::new(), clients, is_from_nothing: false, wakes: 0 };
    let mut script = plan.script(Vec::new(), None);
    script.count_intervals(intervals);
    let mut sequential = Sequential::default();
    while sequential.begin() {
        stage.play_explored("interleave", &script, &first, &stage.subject(), 1, &mut sequential)?;
    }
    Ok(sequential.executions())
}

impl Tried {
    fn take(&mut self, scheduled: &Scheduled, differs: Option<String>) {
        match scheduled.was_abandoned {
            true => self.abandoned += 1,
            false => self.executions += 1,
        }
        self.has_polled |= scheduled.has_polled;
        self.time_passed |= scheduled.time_passed;
        self.is_crowded |= scheduled.is_crowded;
        self.has_sleepers |= scheduled.has_sleepers;
        self.has_timers |= scheduled.has_timers;
        self.is_too_long |= scheduled.is_too_long;
        if let Some(differs) = differs {
            self.differs.get_or_insert(differs);
        }
        self.last.clone_from(scheduled);
    }
}

/// How an exploration ended, in words.
fn told(end: Option<&End>, claims: &[String], tried: &Tried) -> String {
    let count = tried.executions;
    let about = match tried.estimate {
        Some((estimate, true)) if estimate > count => format!(" of about {estimate}"),
        Some((estimate, false)) => format!(" of more than {estimate}"),
        _ => String::new(),
    };
    let claims = if claims.is_empty() { String::new() } else { format!(", {}", claims.join(" and ")) };
    let schedules = counted(count, "schedule");
    match end {
        Some(End::All) if claims.is_empty() && tried.has_polled => {
            format!("{schedules}, all that differ where who slept in vain sleeps on")
        }
        Some(End::All) if claims.is_empty() => format!("{schedules}, all that differ"),
        Some(End::All) => format!("{schedules}{claims}"),
        Some(End::TimeUp) => format!("{schedules}{about}{claims}, until the time was up"),
        Some(End::Found) => format!("{schedules}, ended at violation {}", tried.violations),
        Some(End::Cut) | None => format!("{schedules}{about}"),
    }
}

/// So many of something.
fn counted(count: u64, what: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {what}{ending}")
}

/// An explorer, and what was done on its last schedule: what begins the same must go on the same.
struct Watching<'a> {
    explorer: &'a mut dyn Explorer,
    last: Vec<ClientId>,
    names: Vec<String>,
}

impl Watching<'_> {
    /// Where this execution went another way than the last one, which began the same.
    fn compare(&mut self, scheduled: &Scheduled) -> Option<String> {
        let same = self.last.iter().zip(&scheduled.schedule).take_while(|(one, other)| one == other).count();
        // At the first step that differs the two had the same choice, which is not compared.
        let differs = (0..same).find(|at| self.names.get(*at) != scheduled.names.get(*at));
        let told = differs.map(|at| {
            format!(
                "after the same {at} steps client {} came to {} once and to {} another time",
                scheduled.schedule[at], self.names[at], scheduled.names[at]
            )
        });
        let ended_early =
            scheduled.schedule.len() == same && same < self.last.len() && !scheduled.was_abandoned;
        let told =
            told.or_else(|| ended_early.then(|| format!("after the same {same} steps it was over once")));
        self.last.clone_from(&scheduled.schedule);
        self.names.clone_from(&scheduled.names);
        told.or_else(|| {
            scheduled.has_left.then(|| "a step that it could make before it could not make again".to_owned())
        })
    }
}

impl Explorer for Watching<'_> {
    fn begin(&mut self) -> bool {
        self.explorer.begin()
    }

    fn choose(&mut self, pending: &[Pending]) -> Choice {
        self.explorer.choose(pending)
    }

    fn executed(&mut self, step: Step) {
        self.explorer.executed(step);
    }

    fn end(&mut self, blocked: &[Pending]) {
        self.explorer.end(blocked);
    }
}

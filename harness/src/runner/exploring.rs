//! Explores the schedules of one plan, one execution after another, until all inequivalent ones were run or its time is
//! up; then some at random.

use std::time::{Duration, Instant};

use crate::explore::bounded::Bounded;
use crate::explore::model::StraightLine;
use crate::explore::random::Portfolio;
use crate::explore::sequential::Sequential;
use crate::explore::worklist::WorkList;
use crate::explore::{Choice, Explorer, Pending, Step};
use crate::op::ClientId;
use crate::runner::experiments::Pass;
use crate::runner::schedule::Scheduled;
use crate::runner::sweep::Sweep;
use crate::runner::{Cut, First, RunError, SweepControl, TraceError, name_of};
use crate::scenario::crash;
use crate::scenario::interleave::{Plan, WAKES};
use crate::scenario::script::KillAt;

/// Maximum number of classes counted for an estimate; if there are more, those with few preemptions run first.
const ESTIMATE_MAX: u64 = 2_000;
/// Time limit for that count.
const ESTIMATE_TIME: Duration = Duration::from_millis(300);
/// Violating executions of one plan after which its exploration stops.
const VIOLATIONS_MAX: u32 = 3;
/// Violating executions of one plan that are shrunk.
const SHRUNK_MAX: u32 = 2;
/// Divisor of a plan's time: this part is reserved for random schedules, if there is no time for all schedules.
const CHANCE: u32 = 4;
/// Number of random schedules if there is no time limit.
const DRAWN_MAX: u64 = 2_000;

/// How the exploration of one plan ended.
#[derive(Clone, Copy, Debug)]
enum End {
    /// The explorer had no more schedules.
    All,
    /// Its time was up.
    TimeUp,
    /// Enough violations were found.
    Found,
    /// The whole scenario was cut short.
    Cut,
}

/// Statistics of the exploration of one plan.
#[derive(Debug, Default)]
pub(super) struct ExplorationStats {
    pub(super) executions: u64,
    /// Whether every schedule with at most one preemption was run.
    pub(super) covers_one_preemption: bool,
    abandoned: u64,
    violations: u32,
    /// Executions with violations that do not count.
    known: u32,
    /// The estimated number of classes, and whether all of them were counted.
    estimate: Option<(u64, bool)>,
    pub(super) has_polled: bool,
    time_passed: bool,
    has_unscheduled_threads: bool,
    has_sleepers: bool,
    /// Violations no longer end the exploration.
    is_to_go_on: bool,
    has_timers: bool,
    is_too_long: bool,
    has_survivors: bool,
    is_unseen: bool,
    /// Where a schedule with the same prefix continued differently.
    differs: Option<String>,
    last: Scheduled,
}

impl Sweep<'_> {
    /// Explores until `end`, with a kill in each schedule if one is given.
    pub(super) fn explore(
        &mut self,
        first: &First,
        plan: &Plan,
        kill: Option<KillAt>,
        end: Option<Instant>,
    ) -> Result<ExplorationStats, TraceError> {
        let mut tried = ExplorationStats::default();
        let ended = match self.pass {
            Pass::Early => self.explore_simplest(first, plan, kill, end, &mut tried),
            Pass::Remaining => self.explore_systematically(first, plan, kill, end, &mut tried),
        };
        tried.covers_one_preemption &= !tried.is_too_long;
        let (end, claims) = match &ended {
            // An execution that was aborted for its length was not run.
            Ok((End::All, claims)) if tried.is_too_long => (Some(End::Cut), claims.clone()),
            Ok((end, claims)) => (Some(*end), claims.clone()),
            // The work done until then is reported.
            Err(_) => (None, Vec::new()),
        };
        if kill.is_none() && self.pass == Pass::Remaining {
            let told = format!("{}: {}", plan.what, told(end.as_ref(), &claims, &tried));
            self.done.explored.push((self.place, told));
        }
        // An exploration that stops at a violation is bounded; otherwise the time ended it.
        if self.pass == Pass::Remaining {
            self.done.is_truncated |= !matches!(end, Some(End::All | End::Found));
            self.done.is_bounded |= !matches!(end, Some(End::All));
        }
        self.take_note(plan, &tried);
        ended?;
        Ok(tried)
    }

    /// Explores every schedule with at most one preemption, whatever it violates: a violation of one invariant must not
    /// hide a violation of another.
    fn explore_simplest(
        &mut self,
        first: &First,
        plan: &Plan,
        kill: Option<KillAt>,
        end: Option<Instant>,
        tried: &mut ExplorationStats,
    ) -> Result<(End, Vec<String>), TraceError> {
        for preemptions in 0..=1 {
            let mut bounded = Bounded::new(preemptions);
            let ended = self.run_all(first, plan, kill, end, u64::MAX, &mut bounded, tried)?;
            if !matches!(ended, End::All) {
                return Ok((ended, Vec::new()));
            }
        }
        tried.covers_one_preemption = true;
        Ok((End::All, vec!["every schedule with at most 1 preemption".to_owned()]))
    }

    /// Explores all inequivalent schedules within the time, and returns what was covered. If violations end it, the
    /// simplest schedules still run.
    fn explore_systematically(
        &mut self,
        first: &First,
        plan: &Plan,
        kill: Option<KillAt>,
        end: Option<Instant>,
        tried: &mut ExplorationStats,
    ) -> Result<(End, Vec<String>), TraceError> {
        let (ended, claims) = self.explore_all(first, plan, kill, end, tried)?;
        tried.covers_one_preemption |= matches!(ended, End::All);
        let is_pair = kill.is_none() && plan.clients.len() == 2;
        if matches!(ended, End::Found) && is_pair && !tried.covers_one_preemption {
            tried.is_to_go_on = true;
            self.explore_simplest(first, plan, kill, end, tried)?;
        }
        Ok((ended, claims))
    }

    /// Explores all inequivalent schedules, until violations or the time end it.
    fn explore_all(
        &mut self,
        first: &First,
        plan: &Plan,
        kill: Option<KillAt>,
        end: Option<Instant>,
        tried: &mut ExplorationStats,
    ) -> Result<(End, Vec<String>), TraceError> {
        let mut claims = Vec::new();
        if let Some(preemptions) = self.breadth.preemptions {
            let mut bounded = Bounded::new(preemptions);
            let ended = self.run_all(first, plan, kill, end, u64::MAX, &mut bounded, tried)?;
            if matches!(ended, End::All) {
                tried.covers_one_preemption |= preemptions > 0;
                claims.push(format!(
                    "every schedule with at most {}",
                    counted(preemptions.into(), "preemption")
                ));
                self.leave_out(format!(
                    "schedules of {} with more than {preemptions} preemptions",
                    plan.what
                ));
            }
            return Ok((ended, claims));
        }
        let chance = end.map(|end| {
            let now = Instant::now();
            end - end.saturating_duration_since(now) / CHANCE
        });
        let mut sequential = Sequential::default();
        // The first execution shows how many there may be, and how long one takes.
        let began = Instant::now();
        let ended = self.run_all(first, plan, kill, chance, 1, &mut sequential, tried)?;
        let took = began.elapsed();
        if !matches!(ended, End::TimeUp) || self.is_over(chance) {
            return self.by_chance(first, plan, kill, end, ended, claims, tried);
        }
        let estimate = {
            let end = Instant::now() + ESTIMATE_TIME;
            let is_enough = || Instant::now() >= end || self.env.is_time_up();
            StraightLine::of(&tried.last.steps).size(ESTIMATE_MAX, &is_enough)
        };
        tried.estimate = Some(estimate);
        let left = chance.map(|end| end.saturating_duration_since(Instant::now()));
        let is_soon_done = |left: Duration| took.saturating_mul(estimate.0 as u32) <= left;
        if estimate.1 && left.is_none_or(is_soon_done) {
            let ended = self.run_all(first, plan, kill, chance, u64::MAX, &mut sequential, tried)?;
            return self.by_chance(first, plan, kill, end, ended, claims, tried);
        }
        // There are many: those closest to sequential execution come first.
        for preemptions in 0..=1 {
            let ended =
                self.run_all(first, plan, kill, chance, u64::MAX, &mut Bounded::new(preemptions), tried)?;
            if !matches!(ended, End::All) {
                return self.by_chance(first, plan, kill, end, ended, claims, tried);
            }
            tried.covers_one_preemption |= preemptions > 0;
            claims = vec![match preemptions {
                0 => "every schedule without preemption".to_owned(),
                _ => "every schedule with at most 1 preemption".to_owned(),
            }];
        }
        let ended = self.run_all(first, plan, kill, chance, u64::MAX, &mut *thorough(end), tried)?;
        if matches!(ended, End::All) {
            // This includes those with few preemptions.
            claims.clear();
        }
        self.by_chance(first, plan, kill, end, ended, claims, tried)
    }

    /// If the time was not enough for all schedules, spends the rest on random ones.
    fn by_chance(
        &mut self,
        first: &First,
        plan: &Plan,
        kill: Option<KillAt>,
        end: Option<Instant>,
        ended: End,
        mut claims: Vec<String>,
        tried: &mut ExplorationStats,
    ) -> Result<(End, Vec<String>), TraceError> {
        if !matches!(ended, End::TimeUp) {
            return Ok((ended, claims));
        }
        let mut portfolio = Portfolio::new(self.breadth.seed);
        let most = if end.is_some() { u64::MAX } else { DRAWN_MAX };
        let drawn = self.run_all(first, plan, kill, end, most, &mut portfolio, tried)?;
        if portfolio.drawn() > 0 {
            claims.push(format!("{} at random", portfolio.drawn()));
        }
        Ok((if matches!(drawn, End::All) { End::TimeUp } else { drawn }, claims))
    }

    pub(super) fn is_over(&self, end: Option<Instant>) -> bool {
        end.is_some_and(|end| Instant::now() >= end)
    }

    /// Runs the schedules of an explorer, at most `most` executions.
    fn run_all(
        &mut self,
        first: &First,
        plan: &Plan,
        kill: Option<KillAt>,
        end: Option<Instant>,
        most: u64,
        explorer: &mut dyn Explorer,
        tried: &mut ExplorationStats,
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
            if self.env.is_time_up() {
                return Err(RunError::Stopped.into());
            }
            let script = plan.script(Vec::new(), kill);
            let (played, scheduled) = self.env.play_explored(
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
            let is_to_be_shrunk = tried.violations + tried.known < SHRUNK_MAX;
            let next = self.show(first, plan, kill, played, scheduled, is_to_be_shrunk)?;
            self.execution += 1;
            match next {
                SweepControl::End => {
                    self.done.cut = Some(Cut::FailFast);
                    return Ok(End::Cut);
                }
                SweepControl::Found => {
                    tried.violations += 1;
                    let is_enough = self.pass == Pass::Remaining && !tried.is_to_go_on;
                    if tried.violations >= VIOLATIONS_MAX && is_enough {
                        return Ok(End::Found);
                    }
                }
                SweepControl::Known => tried.known += 1,
                SweepControl::GoOn | SweepControl::Confirm => {}
            }
        }
    }

    /// Records why an exploration is not complete.
    fn take_note(&mut self, plan: &Plan, tried: &ExplorationStats) {
        let what = &plan.what;
        self.done.unscheduled.extend(tried.unscheduled().map(ToOwned::to_owned));
        if tried.has_unscheduled_threads {
            self.leave_out(format!("the order of the threads or processes of one client, in {what}"));
        }
        if tried.has_sleepers {
            self.bound(
                1,
                &format!("order of what clients do unseen, such as in pipes and sockets, in {what}"),
            );
        }
        if tried.has_timers {
            self.leave_out(format!("time-outs that expire while others run, in {what}"));
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
            self.leave_out(format!("what other clients might have done during a skipped sleep, in {what}"));
        }
        if tried.has_polled && plan.wakes == 0 {
            self.leave_out(format!("the end of a sleep before anything was changed, in {what}"));
        }
        if plan.wakes > 0 {
            self.leave_out(format!("more than {WAKES} consecutive unsuccessful sleeps, in {what}"));
        }
        if let Some(differs) = &tried.differs {
            self.done
                .not_covered
                .insert(format!("{} is not deterministic: {differs}", name_of(&crash::add(1))));
            self.leave_out(format!("schedules with the same prefix and a different continuation, in {what}"));
        }
    }
}

impl ExplorationStats {
    /// Lists what was not scheduled, so that the schedules do not cover all behaviour.
    fn unscheduled(&self) -> impl Iterator<Item = &'static str> {
        [
            (
                self.has_unscheduled_threads,
                "threads or processes of one client are not scheduled against each other",
            ),
            (self.has_timers, "a time-out of one client may expire while others run, and is not scheduled"),
            (
                self.has_polled,
                "polls without change: whether a client that waits gives up in the end is not known",
            ),
            (
                self.differs.is_some(),
                "after the same steps it continued in two ways, of which one was followed",
            ),
        ]
        .into_iter()
        .filter_map(|(is_so, what)| is_so.then_some(what))
    }

    fn take(&mut self, scheduled: &Scheduled, differs: Option<String>) {
        match scheduled.was_abandoned {
            true => self.abandoned += 1,
            false => self.executions += 1,
        }
        self.has_polled |= scheduled.has_polled;
        self.time_passed |= scheduled.time_passed;
        self.has_unscheduled_threads |= scheduled.has_unscheduled_threads;
        self.has_sleepers |= scheduled.has_sleepers;
        self.has_timers |= scheduled.has_timers;
        self.is_too_long |= scheduled.is_too_long;
        if let Some(differs) = differs {
            self.differs.get_or_insert(differs);
        }
        self.last.clone_from(scheduled);
    }
}

/// Returns the explorer for more preemptions, if there are many schedules. With a time limit, those closest to
/// sequential execution come first, and some run many times; without one, each runs once, in any order.
fn thorough(end: Option<Instant>) -> Box<dyn Explorer> {
    match end {
        Some(_) => Box::new(WorkList::new()),
        None => Box::new(Sequential::default()),
    }
}

/// Describes how an exploration ended.
fn told(end: Option<&End>, claims: &[String], tried: &ExplorationStats) -> String {
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
            format!("{schedules}, exhaustive if pollers sleep until something changes")
        }
        Some(End::All) if claims.is_empty() => format!("{schedules}, all inequivalent schedules"),
        Some(End::All) => format!("{schedules}{claims}"),
        Some(End::TimeUp) => format!("{schedules}{about}{claims}, until the time was up"),
        Some(End::Found) => format!("{schedules}, ended at violation {}", tried.violations),
        Some(End::Cut) | None => format!("{schedules}{about}"),
    }
}

/// Formats a count with its noun in singular or plural.
fn counted(count: u64, what: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {what}{ending}")
}

/// An explorer with the steps of its last schedule: the same prefix must have the same continuation.
struct Watching<'a> {
    explorer: &'a mut dyn Explorer,
    last: Vec<ClientId>,
    names: Vec<String>,
}

impl Watching<'_> {
    /// Returns where this execution diverged from the last one, which has the same prefix.
    fn compare(&mut self, scheduled: &Scheduled) -> Option<String> {
        let same = self.last.iter().zip(&scheduled.schedule).take_while(|(one, other)| one == other).count();
        // At the first step that differs both had the same choice, which is not compared.
        let differs = (0..same).find(|at| self.names.get(*at) != scheduled.names.get(*at));
        let told = differs.map(|at| {
            format!(
                "after the same {at} steps client {} did {} in one execution and {} in another",
                scheduled.schedule[at], self.names[at], scheduled.names[at]
            )
        });
        let ended_early =
            scheduled.schedule.len() == same && same < self.last.len() && !scheduled.was_abandoned;
        let told = told.or_else(|| {
            ended_early.then(|| format!("after the same {same} steps one execution ended early"))
        });
        self.last.clone_from(&scheduled.schedule);
        self.names.clone_from(&scheduled.names);
        told.or_else(|| {
            scheduled.has_diverged.then(|| "a step of one execution was not possible in another".to_owned())
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

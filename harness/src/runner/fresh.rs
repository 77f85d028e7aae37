//! Hands an execution on a schedule on: what violates something as small as it can be made, and as a fresh start shows it.

use crate::case::Explanation;
use crate::runner::schedule::Scheduled;
use crate::runner::shrink::Failing;
use crate::runner::sweep::Sweep;
use crate::runner::{First, Next, Played, Showing, TraceError, Trial};
use crate::scenario::interleave::Plan;
use crate::scenario::script::KillAt;

impl Sweep<'_> {
    /// Hands an execution on; one that violates something as small as it can be made.
    pub(super) fn show(
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
}

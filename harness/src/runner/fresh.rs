//! Shrinks an execution that violates an invariant and repeats it with a fresh start.

use crate::case::Explanation;
use crate::runner::schedule::Scheduled;
use crate::runner::shrink::Failing;
use crate::runner::sweep::Sweep;
use crate::runner::{First, Played, SweepControl, SweepEvent, TraceError, Trial};
use crate::scenario::interleave::Plan;
use crate::scenario::script::KillAt;

impl Sweep<'_> {
    /// Passes an execution to the sink; a violating one is shrunk first.
    pub(super) fn show(
        &mut self,
        first: &First,
        plan: &Plan,
        kill: Option<KillAt>,
        played: Played,
        scheduled: Scheduled,
        is_to_be_shrunk: bool,
    ) -> Result<SweepControl, TraceError> {
        let trial = SweepEvent::Trial { observation: &played.observation, trial: Trial::First };
        let is_violation = (self.sink)(trial) == SweepControl::Found;
        if !is_violation {
            let script = plan.script(scheduled.schedule, kill);
            let observation = Box::new(played.observation);
            let has_copies = played.has_copies;
            let place = self.place;
            let shown =
                SweepEvent::Execution { place, observation, script: &script, has_copies, explanation: None };
            return match (self.sink)(shown) {
                SweepControl::Confirm => Ok(self.play_as(first, &script, false)?.1),
                other => Ok(other),
            };
        }
        let found = Failing { plan: plan.clone(), scheduled };
        // Without copies a repetition must show every violation; otherwise the execution is reported as it was seen.
        let trial = if played.has_copies { Trial::Anew } else { Trial::Smaller };
        let shown = if is_to_be_shrunk {
            self.show_smallest(first, kill, &found, trial)
        } else {
            Ok(SweepControl::GoOn)
        };
        let next = match shown {
            Ok(SweepControl::GoOn) => self.show_anew(first, kill, &found, trial, None),
            other => other,
        };
        // A violation without copies happened in the store itself, whether it recurs or not.
        let has_copies = played.has_copies;
        let as_seen = || {
            (self.sink)(SweepEvent::Execution {
                place: self.place,
                observation: Box::new(played.observation),
                script: &found.plan.script(found.scheduled.schedule, kill),
                has_copies: false,
                explanation: None,
            })
        };
        match next {
            // There is no time for another run: the violation was seen and is reported as such.
            Err(error) => {
                let _next = if has_copies { (self.sink)(SweepEvent::Unconfirmed) } else { as_seen() };
                Err(error)
            }
            Ok(SweepControl::GoOn) if has_copies => {
                self.env.refuse_copies("on the same schedule a copy violated what a fresh start did not");
                self.leave_out(format!(
                    "a schedule of {} that violated something once, and not again",
                    plan.what
                ));
                Ok(SweepControl::GoOn)
            }
            Ok(SweepControl::GoOn) => Ok(as_seen()),
            Ok(next) => Ok(next),
        }
    }

    /// Shrinks a violation, as far as there is time, and reports it.
    fn show_smallest(
        &mut self,
        first: &First,
        kill: Option<KillAt>,
        found: &Failing,
        trial: Trial,
    ) -> Result<SweepControl, TraceError> {
        let (smallest, explanation) = self.shrink(first, kill, found.clone())?;
        self.show_anew(first, kill, &smallest, trial, Some(explanation))
    }

    /// Repeats an execution with a fresh start: only such violations are blamed on the store.
    fn show_anew(
        &mut self,
        first: &First,
        kill: Option<KillAt>,
        failing: &Failing,
        trial: Trial,
        explanation: Option<Explanation>,
    ) -> Result<SweepControl, TraceError> {
        let script = failing.plan.script(failing.scheduled.schedule.clone(), kill);
        let execution = self.execution + 1;
        let played = self.env.play(self.scenario, &script, first, &self.subject, execution, false)?;
        let trial = SweepEvent::Trial { observation: &played.observation, trial };
        if (self.sink)(trial) != SweepControl::Found {
            return Ok(SweepControl::GoOn);
        }
        let observation = Box::new(played.observation);
        let place = self.place;
        Ok((self.sink)(SweepEvent::Execution {
            place,
            observation,
            script: &script,
            has_copies: false,
            explanation,
        }))
    }
}

//! Runs kills beside a second client and derived crash states.

use crate::observation::FileState;
use crate::runner::baseline::BaselineRun;
use crate::runner::experiments::{Group, UNEXPLAINED, crash_states_of, has_unkilled_processes};
use crate::runner::prepare::Prepared;
use crate::runner::sweep::Sweep;
use crate::runner::{Cut, RunError, SweepControl, SweepEvent, TraceError, name_of};
use crate::scenario::crash;
use crate::scenario::script::InjectionKind;

/// Invariants that assume that an operation does nothing beyond its calls.
const BY_CALLS: [&str; 2] = ["crash-atomic", "acked-survives-crash"];

impl Sweep<'_> {
    /// Notes the crash points and crash states of an operation that are not tried.
    pub(super) fn note_what_crash_leaves_out(&mut self, one: &BaselineRun) {
        let (name, calls) = (name_of(&one.request), &one.traced.calls);
        let left_out = (calls.len() + 1).saturating_sub(crash::points(calls).len());
        self.bound(left_out, &format!("crash points of {name}, those away from its changes"));
        if has_unkilled_processes(one) {
            self.done.not_covered.insert(format!(
                "single processes of {name} are not killed alone, because it leaves processes behind"
            ));
        }
        match crash_states_of(one) {
            Ok(states) => {
                let left_out = states.map_or(0, |states| states.left_out());
                self.bound(left_out, &format!("page cuts of long writes of {name}"));
            }
            // If states cannot be derived, the kills are still made for real.
            Err(why) => {
                let text = format!("crash states of {name} are not derived: {why}");
                // A change of the files that is not observed is never interrupted by a kill.
                if why == UNEXPLAINED {
                    self.done.doubts.extend(BY_CALLS.map(|id| (id, text.clone())));
                }
                let cuts = "so that no write of it is cut at page boundaries by a kill";
                self.done.not_covered.insert(format!("{text}, {cuts}"));
            }
        }
    }

    /// Runs the executions with a second client.
    pub(super) fn beside_another(
        &mut self,
        prepared: &Prepared,
        group: &Group,
        op: usize,
        points: &[u32],
        open: &[(usize, u64)],
    ) -> Result<(), TraceError> {
        let Some(quiet) = prepared.quiet.get(op) else { return Ok(()) };
        for (number, place) in open {
            let Some(point) = points.get(*number) else { continue };
            self.place = *place;
            let mut was_injected = false;
            for what in crash::BESIDE {
                let script = crash::beside_another(&quiet.request, &quiet.traced.calls, *point, what);
                let seen = self.play_once(&prepared.first, &script)?;
                was_injected |= seen.was_injected;
                // A client that does not wait cannot be killed while waiting.
                if self.done.cut.is_some() || (what != InjectionKind::Hold && !seen.second_waited) {
                    break;
                }
            }
            self.note_made(group, usize::from(was_injected));
            self.note_ran(group, *number, was_injected);
            if self.done.cut.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// Derives every state that a kill of this operation can leave, lays it out and runs the store on it.
    pub(super) fn derived(
        &mut self,
        prepared: &Prepared,
        group: &Group,
        op: usize,
        open: &[(usize, u64)],
    ) -> Result<(), TraceError> {
        let Some(quiet) = prepared.quiet.get(op) else { return Ok(()) };
        let Ok(Some(states)) = crash_states_of(quiet) else { return Ok(()) };
        let calls = &quiet.traced.calls;
        let data = &self.env.target.data;
        let mut open = open.iter().peekable();
        for (at, state) in states.enumerate() {
            let Some((number, place)) = open.next_if(|(number, _)| *number == at) else { continue };
            self.place = *place;
            if self.env.is_time_up() {
                return Err(RunError::Stopped.into());
            }
            let content = data.path.to_str().and_then(|path| state.tree.content(path));
            let is_whole = content.is_some_and(|content| data.format.examine(content) == FileState::Whole);
            self.done.states.0 += 1;
            self.done.states.1 += u64::from(!is_whole);
            let what = state.cut.map_or(InjectionKind::Kill, InjectionKind::Tear);
            let script = crash::alone(&quiet.request, calls, state.point, what);
            let observation = self.env.play_state(
                "crash",
                &state.tree,
                &script,
                &prepared.first,
                &self.subject,
                self.execution + 1,
            )?;
            self.note_made(group, 1);
            self.note_ran(group, *number, true);
            match (self.sink)(SweepEvent::Derived { observation: Box::new(observation), script: &script }) {
                SweepControl::GoOn | SweepControl::Found | SweepControl::Known => {}
                SweepControl::End => self.done.cut = Some(Cut::FailFast),
                SweepControl::Confirm => self.confirm(&prepared.first, &script)?,
            }
            if self.done.cut.is_some() {
                break;
            }
        }
        Ok(())
    }
}

//! Lays out each state that a power loss may leave, gives it to the store, and injects again into what the store does
//! then.

use std::collections::BTreeSet;

use crate::call::Call;
use crate::observation::FileState;
use crate::op::{Outcome, Request};
use crate::persist::{Log, PowerLoss, Tree, power_losses, profile};
use crate::runner::experiments::{FIRST_ADD, Group, Pass, log_of, struck};
use crate::runner::playing::outcome;
use crate::runner::prepare::Prepared;
use crate::runner::sweep::Sweep;
use crate::runner::{Cut, First, RunError, SweepControl, SweepEvent, TraceError, name_of};
use crate::scenario::crash::{add, numbered};
use crate::scenario::power_loss::{From, JUDGED_BY, loss, script};
use crate::scenario::script::{Loss, Script};

/// States of a second power loss in one operation, after which no further state gets a second power loss.
const AGAIN_MAX: usize = 200;

/// An operation that is interrupted by a power loss.
struct Struck<'a> {
    from: From,
    request: &'a Request,
    calls: &'a [Call],
    log: Log,
}

impl Sweep<'_> {
    /// Records the operations without derived states, and the states that are skipped.
    pub(super) fn note_what_power_loss_leaves_out(&mut self, prepared: &Prepared) {
        for op in (0..prepared.quiet.len()).map(Some).chain([None]) {
            let (name, quiet, _) = struck(prepared, op);
            match log_of(quiet) {
                Ok(log) => {
                    let (_, bounded) = power_losses(&log, profile::ALL);
                    let what = format!("sync epochs of {name} with too many changes to enumerate");
                    self.bound(bounded, &what);
                }
                Err(why) => self.not_struck(name, &why),
            }
        }
    }

    /// Runs the store on the states that a power loss in one operation may leave, then injects a second power loss into
    /// its reaction.
    pub(super) fn power_losses(
        &mut self,
        prepared: &Prepared,
        group: &Group,
        op: Option<usize>,
        open: &[(usize, u64)],
    ) -> Result<(), TraceError> {
        let (name, quiet, from) = struck(prepared, op);
        let Ok(log) = log_of(quiet) else { return Ok(()) };
        let Some((before, _)) = &quiet.trees else { return Ok(()) };
        let (losses, _) = power_losses(&log, profile::ALL);
        let struck = Struck { from, request: &quiet.request, calls: &quiet.traced.calls, log };
        let mut unsettled = Vec::new();
        let mut open = open.iter().peekable();
        for (at, one) in losses.iter().enumerate() {
            let told = loss(&struck.log, struck.calls, one, quiet.succeeds);
            // A state that is neither the old nor the new one may have to be repaired by the store.
            if one.tree != *before && one.tree != *struck.log.whole() {
                unsettled.push((one, told.clone()));
            }
            let Some((number, place)) = open.next_if(|(number, _)| *number == at) else { continue };
            self.place = *place;
            self.give(&prepared.first, &one.tree, &script(from, &[(struck.request, told)]))?;
            self.note_made(group, 1);
            self.note_ran(group, *number, true);
            if self.done.cut.is_some() {
                return Ok(());
            }
        }
        match self.pass {
            Pass::Early => Ok(()),
            Pass::Remaining => self.strike_again(&prepared.first, name, &struck, &unsettled),
        }
    }

    /// Injects a second power loss into the store's reaction to the first.
    fn strike_again(
        &mut self,
        first: &First,
        name: &str,
        struck: &Struck<'_>,
        unsettled: &[(&PowerLoss, Loss)],
    ) -> Result<(), TraceError> {
        let (_, next) = numbered(struck.request, if struck.from == From::Nothing { 1 } else { 2 });
        let ops = &self.env.target.ops;
        // A store with a `recover` runs it before anything else.
        let requests: Vec<Request> = match (&ops.recover, &ops.list) {
            (Some(_), _) => vec![Request::Recover],
            (None, Some(_)) => vec![Request::List, add(next)],
            (None, None) => vec![add(next)],
        };
        let mut known = BTreeSet::new();
        let mut given = 0;
        let distinct: Vec<_> = unsettled.iter().filter(|(one, _)| known.insert(one.tree.digest())).collect();
        for (place, (one, told)) in distinct.iter().enumerate() {
            if given >= AGAIN_MAX {
                let what = format!("states after a power loss in {name}, what mends them not struck again");
                self.bound(distinct.len() - place, &what);
                break;
            }
            for request in &requests {
                if self.env.is_time_up() {
                    return Err(RunError::Stopped.into());
                }
                self.env.end_survivors();
                let dir = self.env.sandbox.dir();
                let unlaid = |why| RunError::Sandbox { path: dir, why };
                self.env.sandbox.lay_tree(&one.tree).map_err(unlaid)?;
                let traced = self.env.trace_quietly(request)?;
                let left = self.env.sandbox.tree();
                let log = match (Log::record(&one.tree, &traced.calls), left) {
                    (Ok(log), Ok(left)) if log.remaining(log.calls(), &[]) == left => log,
                    _ => {
                        let what =
                            format!("second power losses in the {} after one in {name}", name_of(request));
                        self.bound(1, &what);
                        continue;
                    }
                };
                let both = |second: &PowerLoss| {
                    let is_in_both = |id: &&&str| one.profiles.contains(*id);
                    second.profiles.iter().filter(is_in_both).copied().collect::<Vec<_>>()
                };
                let (seconds, bounded) = power_losses(&log, profile::ALL);
                let what = format!("sync epochs of what mends {name} with too many changes to enumerate");
                self.bound(bounded, &what);
                let seconds: Vec<PowerLoss> = seconds
                    .into_iter()
                    .map(|second| PowerLoss { profiles: both(&second), ..second })
                    .filter(|second| !log.is_empty() && !second.profiles.is_empty())
                    .collect();
                if seconds.is_empty() {
                    continue;
                }
                let what = format!("states that a second power loss may leave, in what mends {name}");
                match self.done.groups.last_mut().filter(|(last, ..)| *last == what) {
                    Some((_, planned, _)) => *planned += seconds.len(),
                    None => self.done.groups.push((what, seconds.len(), 0)),
                }
                given += seconds.len();
                for second in &seconds {
                    let succeeds = traced
                        .operations
                        .first()
                        .is_some_and(|ended| outcome(self.env, ended.end) == Outcome::Acknowledged);
                    let again = loss(&log, &traced.calls, second, succeeds);
                    let script = script(struck.from, &[(struck.request, told.clone()), (request, again)]);
                    self.give(first, &second.tree, &script)?;
                    if let Some((.., made)) = self.done.groups.last_mut() {
                        *made += 1;
                    }
                    if self.done.cut.is_some() {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Runs the store on one derived state; a violation is confirmed by a real execution.
    fn give(&mut self, first: &First, tree: &Tree, script: &Script) -> Result<(), TraceError> {
        if self.env.is_time_up() {
            return Err(RunError::Stopped.into());
        }
        let data = &self.env.target.data;
        let content = data.path.to_str().and_then(|path| tree.content(path));
        let is_whole = content.is_some_and(|content| data.format.examine(content) == FileState::Whole);
        self.done.states.0 += 1;
        self.done.states.1 += u64::from(!is_whole);
        let execution = self.execution + 1;
        let observation =
            self.env.play_state(self.scenario, tree, script, first, &self.subject, execution)?;
        match (self.sink)(SweepEvent::Derived { observation: Box::new(observation), script }) {
            SweepControl::GoOn | SweepControl::Found | SweepControl::Known => {}
            SweepControl::End => self.done.cut = Some(Cut::FailFast),
            SweepControl::Confirm => self.confirm(first, script)?,
        }
        Ok(())
    }

    /// Records an operation without derived states: it is no evidence, and for an `add` the invariants stay undecided.
    fn not_struck(&mut self, name: &str, why: &str) {
        let text = format!("what a power loss in {name} leaves is not derived: {why}");
        self.done.bounds.push(format!("all states that a power loss in {name} may leave"));
        if matches!(name, "add" | FIRST_ADD) {
            self.done.doubts.extend(JUDGED_BY.map(|id| (id, text.clone())));
        }
        self.done.not_covered.insert(text);
    }
}

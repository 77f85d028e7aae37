//! Gives the store every content that a power loss may leave, as the traces of quiet runs tell, and strikes what it does then again.

use std::collections::BTreeSet;

use crate::call::Call;
use crate::masks::{made, masked_calls};
use crate::observation::FileState;
use crate::op::Request;
use crate::persist::{Log, PowerLoss, Tree, power_losses, profile};
use crate::runner::quiet::Quiet;
use crate::runner::sweep::{Sweep, name_of};
use crate::runner::{Cut, First, Next, RunError, Showing, TraceError};
use crate::scenario::crash::{add, numbered};
use crate::scenario::power_loss::{From, JUDGED_BY, loss, script};
use crate::scenario::script::{Loss, Script};

const FIRST_ADD: &str = "the first add";
const UNREADABLE: &str = "what stands in the sandbox cannot be read as a tree";

/// States of a second power loss in one operation, after which no further state is struck again.
const AGAIN_MAX: usize = 200;

/// An operation that is struck.
struct Struck<'a> {
    from: From,
    request: &'a Request,
    calls: &'a [Call],
    log: Log,
}

impl Sweep<'_> {
    /// All of it is one place: what one state shows to be missing is not looked for in the next.
    pub(super) fn power_loss(&mut self, first: &First, all: &[Quiet<'_>]) -> Result<(), TraceError> {
        let Some(place) = self.next_place() else { return Ok(()) };
        self.place = place;
        let request = add(1);
        self.stage.lay()?;
        let before = self.stage.sandbox.tree();
        let traced = self.stage.trace_quietly(&request)?;
        let after = self.stage.sandbox.tree();
        // Another one tells what differs from run to run.
        self.stage.lay()?;
        let again = self.stage.trace_quietly(&request)?;
        self.stage.end_survivors();
        let calls = masked_calls(&traced.calls, &traced.pids, &made(&again.calls));
        match before.ok().zip(after.ok()) {
            Some((before, after)) => {
                self.strike(first, From::Nothing, &request, &calls, &before, &after)?;
            }
            None => self.not_struck(FIRST_ADD, UNREADABLE),
        }
        for Quiet { request, traced, trees } in all {
            match trees {
                Some((before, after)) => {
                    self.strike(first, From::First, request, &traced.calls, before, after)?;
                }
                None => self.not_struck(name_of(request), UNREADABLE),
            }
        }
        Ok(())
    }

    fn strike(
        &mut self,
        first: &First,
        from: From,
        request: &Request,
        calls: &[Call],
        before: &Tree,
        after: &Tree,
    ) -> Result<(), TraceError> {
        let name = match from {
            From::Nothing => FIRST_ADD,
            From::First => name_of(request),
        };
        let log = match Log::record(before, calls) {
            // With nothing lost it is what the calls made, and that is what is there.
            Ok(log) if log.whole() == after && log.remaining(log.calls(), &[]) == *after => log,
            Ok(_) => {
                self.not_struck(name, "what its calls say is not what they left");
                return Ok(());
            }
            Err(unmodelled) => {
                self.not_struck(name, &unmodelled.to_string());
                return Ok(());
            }
        };
        if log.is_empty() || self.done.cut.is_some() {
            return Ok(());
        }
        let (losses, bounded) = power_losses(&log, profile::ALL);
        self.bound(bounded, &format!("sync epochs of {name} with too many changes for every choice of them"));
        self.done.groups.push((format!("states that a power loss in {name} may leave"), losses.len(), 0));
        let struck = Struck { from, request, calls, log };
        let mut unsettled = Vec::new();
        for one in &losses {
            let told = loss(&struck.log, struck.calls, one);
            // What is neither what was there nor what the operation made of it, the store may have to mend.
            if one.tree != *before && one.tree != *struck.log.whole() {
                unsettled.push((one, told.clone()));
            }
            self.give(first, &one.tree, &script(from, &[(request, told)]))?;
            if self.done.cut.is_some() {
                return Ok(());
            }
        }
        self.strike_again(first, name, &struck, &unsettled)
    }

    /// What the store does about what a power loss left, struck by another one.
    fn strike_again(
        &mut self,
        first: &First,
        name: &str,
        struck: &Struck<'_>,
        unsettled: &[(&PowerLoss, Loss)],
    ) -> Result<(), TraceError> {
        let (_, next) = numbered(struck.request, if struck.from == From::Nothing { 1 } else { 2 });
        let ops = &self.stage.target.ops;
        // A store that has a `recover` is asked nothing before it.
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
                if self.stage.is_time_up() {
                    return Err(RunError::Stopped.into());
                }
                self.stage.end_survivors();
                let dir = self.stage.sandbox.dir();
                let unlaid = |why| RunError::Sandbox { path: dir, why };
                self.stage.sandbox.lay_tree(&one.tree).map_err(unlaid)?;
                let traced = self.stage.trace_quietly(request)?;
                let left = self.stage.sandbox.tree();
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
                let what = format!(
                    "sync epochs of what mends {name} with too many changes for every choice of them"
                );
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
                    let again = loss(&log, &traced.calls, second);
                    let script = script(struck.from, &[(struck.request, told.clone()), (request, again)]);
                    self.give(first, &second.tree, &script)?;
                    if self.done.cut.is_some() {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Gives the store one content; what violates anything is done for real.
    fn give(&mut self, first: &First, tree: &Tree, script: &Script) -> Result<(), TraceError> {
        if self.stage.is_time_up() {
            return Err(RunError::Stopped.into());
        }
        let data = &self.stage.target.data;
        let content = data.path.to_str().and_then(|path| tree.content(path));
        let is_whole = content.is_some_and(|content| data.format.examine(content) == FileState::Whole);
        self.done.states.0 += 1;
        self.done.states.1 += u64::from(!is_whole);
        let execution = self.execution + 1;
        let observation =
            self.stage.play_state(self.scenario, tree, script, first, &self.subject, execution)?;
        if let Some((_, _, made)) = self.done.groups.last_mut() {
            *made += 1;
        }
        match (self.sink)(Showing::Derived { observation: Box::new(observation), script }) {
            Next::GoOn | Next::Found | Next::Known => {}
            Next::End => self.done.cut = Some(Cut::FailFast),
            Next::Confirm => self.confirm(first, script)?,
        }
        Ok(())
    }

    /// What was not given to the store is no evidence, and of an `add` the invariants stay open.
    fn not_struck(&mut self, name: &str, why: &str) {
        let text = format!("what a power loss in {name} leaves is not derived: {why}");
        self.done.bounds.push(format!("all states that a power loss in {name} may leave"));
        if matches!(name, "add" | FIRST_ADD) {
            self.done.doubts.extend(JUDGED_BY.map(|id| (id, text.clone())));
        }
        self.done.not_covered.insert(text);
    }
}

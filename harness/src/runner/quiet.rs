//! Quiet runs of operations, which tell their calls, and whether copies go the same way.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::call::{Effect, Traced};
use crate::masks::{has_number, made, masked_calls};
use crate::observation::{Trace, name_shape};
use crate::op::Request;
use crate::persist::Tree;
use crate::runner::sweep::{Sweep, name_of};
use crate::runner::{Showing, TraceError};
use crate::steps::steps_of;

/// A quiet run of one operation, with what stood in the sandbox before it and after it.
pub(super) struct Quiet<'a> {
    pub(super) request: &'a Request,
    pub(super) traced: Traced,
    pub(super) trees: Option<(Tree, Tree)>,
}

impl Sweep<'_> {
    /// Two quiet runs of an operation: the first tells its calls, the second what differs from run to run.
    pub(super) fn quiet<'r>(&mut self, request: &'r Request) -> Result<Quiet<'r>, TraceError> {
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
    pub(super) fn compare_copy(&mut self, request: &Request, fresh: &Traced) -> Result<(), TraceError> {
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
}

/// Whether a copy went the way of a fresh start.
fn is_same(copy: &Traced, fresh: &Traced) -> bool {
    let end = |traced: &Traced| traced.operations.first().map(|ended| (ended.end, ended.stdout.clone()));
    end(copy) == end(fresh) && steps_of(&copy.calls) == steps_of(&fresh.calls)
}

/// Whether the operation has told this process id to anybody: in what it wrote, or in a name.
fn tells(traced: &Traced, pid: i32) -> bool {
    let number = pid.to_string();
    let has = |text: &str| has_number(text, &number);
    traced.calls.iter().any(|call| {
        let written = call.data.as_deref().map(String::from_utf8_lossy);
        let target = match &call.effect {
            Some(Effect::SymbolicLinked { to, .. }) => Some(to.as_str()),
            _ => None,
        };
        written.is_some_and(|text| has(&text)) || call.operands().chain(target).any(has)
    })
}

//! Runs operations without injections to record their calls, and checks that copies behave alike.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::call::{Effect, Traced};
use crate::normalize::{has_number, made, masked_calls};
use crate::observation::{Subject, Trace, name_shape};
use crate::op::{Outcome, Request};
use crate::persist::Tree;
use crate::runner::playing::outcome;
use crate::runner::{ExecEnv, TraceError, name_of};
use crate::signature::steps_of;

/// A baseline run of one operation, with the content of the sandbox before and after it.
#[derive(Debug)]
pub(super) struct BaselineRun {
    pub(super) request: Request,
    pub(super) traced: Traced,
    pub(super) trees: Option<(Tree, Tree)>,
    /// Whether the operation succeeded.
    pub(super) succeeds: bool,
}

/// Results of baseline runs other than their calls.
#[derive(Debug, Default)]
pub(super) struct Noted {
    /// The target, with the names of the files that operations make.
    pub(super) subject: Subject,
    /// What the traces report as not observed.
    pub(super) not_covered: BTreeSet<String>,
    /// The runs in the form that diagnoses read.
    pub(super) traces: Vec<Trace>,
}

impl ExecEnv<'_> {
    /// Runs an operation twice without injections: the first run records its calls, the second shows what differs from
    /// run to run.
    pub(super) fn quiet(&self, request: &Request, noted: &mut Noted) -> Result<BaselineRun, TraceError> {
        self.lay_first()?;
        let before = self.sandbox.tree();
        let traced = self.trace_quietly(request)?;
        let after = self.sandbox.tree();
        if let (Request::Add { .. }, Ok(before), Ok(after)) = (request, &before, &after) {
            let data = noted.subject.data.as_str();
            let is_undone = before.content(data) == after.content(data);
            let lives_on = traced.operations.iter().any(|ended| ended.survivors > 0);
            self.works_on.fetch_or(lives_on && is_undone, Ordering::Relaxed);
        }
        self.lay_first()?;
        let again = self.trace_quietly(request)?;
        noted.not_covered.extend(traced.not_covered.iter().cloned());
        if steps_of(&again.calls, &again.pids) != steps_of(&traced.calls, &traced.pids) {
            noted.not_covered.insert(format!(
                "{} makes other calls from run to run, so that a crash point is not always at the same call",
                name_of(request)
            ));
        }
        let again_made = made(&again.calls);
        noted.subject.fixed_names.extend(made(&traced.calls).intersection(&again_made).cloned());
        self.compare_copy(request, &traced)?;
        let calls = masked_calls(&traced.calls, &traced.pids, &again_made);
        let shown = Trace {
            requests: vec![request.clone()],
            calls: calls.clone(),
            pids: traced.pids.clone(),
            is_whole: true,
            ..Trace::default()
        };
        noted.traces.push(shown);
        // A sandbox that cannot be read as a tree has no derived states.
        let trees = before.ok().zip(after.ok());
        if let (Request::Other(_), Some((before, after))) = (request, &trees) {
            let there: BTreeSet<String> = before.names().collect();
            let new = after.names().filter(|name| !there.contains(name));
            noted.subject.made_by_others.extend(new.map(|name| name_shape(&name)));
        }
        let succeeds =
            traced.operations.first().is_some_and(|ended| outcome(self, ended.end) == Outcome::Acknowledged);
        Ok(BaselineRun { request: request.clone(), traced: Traced { calls, ..traced }, trees, succeeds })
    }

    /// Runs an operation once more as a copy, and disables copies if it makes other calls than a fresh start or ends in
    /// another way.
    fn compare_copy(&self, request: &Request, fresh: &Traced) -> Result<(), TraceError> {
        if !self.copies() {
            return Ok(());
        }
        self.lay_first()?;
        let took = fresh.operations.first().map_or(Duration::ZERO, |ended| ended.returned - ended.invoked);
        // A copy that hangs is not usable; it need not take the full time limit of an operation.
        let patience = (took * 10).max(Duration::from_millis(500));
        let Some(mut copy) = self.trace_copy(request, patience)? else { return Ok(()) };
        if fresh.operations.iter().any(|ended| ended.survivors > 0) {
            self.refuse_copies("it leaves processes behind");
            return Ok(());
        }
        if !is_same(&copy, fresh) {
            // The copy may have saved its process id and check whether it still has it.
            self.with_templates(|templates| templates.keep_pid(true));
            self.lay_first()?;
            if let Some(again) = self.trace_copy(request, patience)? {
                copy = again;
            }
        }
        let templates = self.with_templates(|templates| templates.groups()).unwrap_or_default();
        if templates.iter().any(|template| tells(&copy, *template)) {
            self.refuse_copies("it keeps its process id from before its first visible call");
        } else if !is_same(&copy, fresh) {
            self.refuse_copies("the baseline run of a copy differs from that of a fresh start");
        }
        Ok(())
    }
}

/// Whether a copy made the same calls as a fresh start and ended in the same way.
fn is_same(copy: &Traced, fresh: &Traced) -> bool {
    let end = |traced: &Traced| traced.operations.first().map(|ended| (ended.end, ended.stdout.clone()));
    end(copy) == end(fresh) && steps_of(&copy.calls, &copy.pids) == steps_of(&fresh.calls, &fresh.pids)
}

/// Whether the operation has disclosed this process id, in data that it wrote or in a name.
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

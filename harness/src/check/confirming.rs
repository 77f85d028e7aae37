//! Tries on real file systems what the persistence model allows: a finding is then seen there, and not only allowed.

use std::fs;

use crate::check::{CheckError, Options, Run};
use crate::invariants;
use crate::report::Remark;
use crate::runner::{ConfirmError, Confirming, RunError, TraceError, Variation, confirm};
use crate::sandbox::Sandbox;
use crate::scenario::script::Script;
use crate::target::UsageError;
use crate::verdict::Judgement;
use crate::volume::{self, Kind, Template, VolumeError};

/// How often a finding is tried on one file system.
const TRIES: u32 = 20;

/// A finding of the model that is to be tried.
pub(super) struct Open {
    pub(super) invariant: &'static str,
    /// Its place among the counterexamples of its invariant.
    pub(super) index: usize,
    pub(super) script: Script,
}

/// What came of a finding on one file system.
enum Seen {
    /// It was seen, in this try.
    In(u32),
    /// It was not, in so many.
    Not(u32),
}

/// Makes a file system of each kind, so that what is missing is known before anything runs.
///
/// # Errors
/// Which of them cannot be had, and why.
pub(super) fn templates(options: &Options) -> Result<Vec<(Kind, Template)>, UsageError> {
    let unusable = |kind: Kind, why: VolumeError| {
        UsageError::new("--confirm", format!("{} cannot be had here: {why}", kind.name())).help(
            "it takes root, loop devices and the file system's own mkfs; leave --confirm away without them",
        )
    };
    let mut templates = Vec::new();
    for kind in &options.confirm {
        let template = Template::make(*kind).map_err(|why| unusable(*kind, why))?;
        let tried = volume::in_a_namespace(|| {
            let place =
                tempfile::tempdir().map_err(|why| VolumeError::System { what: "make a folder", why })?;
            template.mount(place.path()).map(drop)
        });
        tried.and_then(|mounted| mounted).map_err(|why| unusable(*kind, why))?;
        templates.push((*kind, template));
    }
    Ok(templates)
}

impl Run<'_> {
    /// Tries all findings of power losses on all the file systems.
    ///
    /// # Errors
    /// Where the harness could not do its part.
    pub(super) fn confirm(
        &mut self,
        templates: &[(Kind, Template)],
        sandbox: &Sandbox,
    ) -> Result<(), CheckError> {
        let open = std::mem::take(&mut self.open);
        for finding in &open {
            let mut told = Vec::new();
            for (kind, template) in templates {
                let seen = match self.try_on(finding, template, sandbox) {
                    Ok(seen) => seen,
                    Err(ConfirmError::Trace(TraceError::Run(RunError::Stopped))) => Seen::Not(0),
                    Err(ConfirmError::Trace(TraceError::Run(other))) => return Err(other.into()),
                    Err(other) => {
                        told.push(format!("could not be tried on {}: {other}", kind.name()));
                        continue;
                    }
                };
                match seen {
                    Seen::In(tries) => {
                        told.push(format!("seen on {} in try {tries}", kind.name()));
                        let found = self.counterexamples.get_mut(finding.invariant);
                        if let Some(found) = found.and_then(|found| found.get_mut(finding.index)) {
                            found.confirmed.push(kind.name().to_owned());
                        }
                    }
                    Seen::Not(0) => told.push(format!("not tried on {}, for want of time", kind.name())),
                    Seen::Not(tries) => told.push(format!("not seen on {} in {tries} tries", kind.name())),
                }
            }
            let name = self.counterexamples.get(finding.invariant).and_then(|found| found.get(finding.index));
            let name = name.and_then(|found| found.case.clone()).unwrap_or(finding.invariant.to_owned());
            self.remarks.push(Remark::new("confirm", format!("{name}: {}", told.join(", "))));
        }
        Ok(())
    }

    fn try_on(&self, finding: &Open, template: &Template, sandbox: &Sandbox) -> Result<Seen, ConfirmError> {
        let Some(control) = &self.control else { return Ok(Seen::Not(0)) };
        // In the run's own folder, which is removed whatever happens; the mount ends with its thread.
        let at = sandbox.root().join("volume");
        fs::create_dir_all(&at).map_err(RunError::system("make a folder to mount at"))?;
        let confirming = Confirming {
            target: self.target,
            multi_call: self.options.multi_call.as_deref(),
            subject: &control.subject,
            script: &finding.script,
            stop: self.stop,
            end: self.options.budget.and_then(|budget| self.began.checked_add(budget)),
            at: &at,
        };
        volume::in_a_namespace(|| {
            for tries in 1..=TRIES {
                let variation = Variation { carries: tries % 2 == 0, at_end: tries % 4 >= 2 };
                let Some(observation) = confirm(&confirming, template, variation)? else { break };
                let invariant = invariants::find(finding.invariant);
                let judged = invariant.map(|invariant| invariant.judge(&observation));
                if matches!(judged, Some(Judgement::Violated(_))) {
                    return Ok(Seen::In(tries));
                }
            }
            Ok(Seen::Not(TRIES))
        })?
    }
}

//! Confirms power-loss findings on real file systems.

use std::fs;

use crate::check::{Options, Run};
use crate::invariants;
use crate::report::Remark;
use crate::runner::{ConfirmError, Confirming, RunError, TraceError, confirm, variations};
use crate::sandbox::Sandbox;
use crate::scenario::script::Script;
use crate::target::UsageError;
use crate::verdict::Judgement;
use crate::volume::{self, Kind, Template, VolumeError};

/// Minimum number of tries of a finding on one file system.
const TRIES: usize = 20;

/// A finding of the model to be tried on real file systems.
pub(super) struct Open {
    pub(super) invariant: &'static str,
    /// Its index among the counterexamples of its invariant.
    pub(super) index: usize,
    pub(super) script: Script,
}

/// Makes a file system of each kind, so that missing prerequisites are known before anything runs.
///
/// # Errors
/// Reports which of them is not available, and why.
pub(super) fn templates(options: &Options, sandbox: &Sandbox) -> Result<Vec<(Kind, Template)>, UsageError> {
    let unusable = |kind: Kind, why: VolumeError| {
        UsageError::new("--confirm", format!("{} cannot be had here: {why}", kind.name())).help(
            "it takes root, loop devices and the file system's own mkfs; leave --confirm away without them",
        )
    };
    let mut templates: Vec<(Kind, Template)> = Vec::new();
    for kind in &options.confirm {
        if templates.iter().any(|(known, _)| known == kind) {
            continue;
        }
        // In the run's own folder, which is always removed.
        let made = Template::make(*kind, sandbox.root());
        let template = made.map_err(|why| unusable(*kind, why))?;
        let at = volume_folder(sandbox).map_err(|why| unusable(*kind, why))?;
        let tried = volume::in_a_namespace(|| template.mount(&at).map(drop));
        tried.and_then(|mounted| mounted).map_err(|why| unusable(*kind, why))?;
        templates.push((*kind, template));
    }
    Ok(templates)
}

/// Returns the folder to mount at; a mount ends with the thread that made it.
fn volume_folder(sandbox: &Sandbox) -> Result<std::path::PathBuf, VolumeError> {
    let at = sandbox.root().join("volume");
    fs::create_dir_all(&at).map_err(|why| VolumeError::System { what: "make a folder to mount at", why })?;
    Ok(at)
}

impl Run<'_> {
    /// Tries all power-loss findings on all the file systems, and reports those that cannot be tried.
    pub(super) fn confirm(&mut self, templates: &[(Kind, Template)], sandbox: &Sandbox) {
        let open = std::mem::take(&mut self.open);
        if templates.is_empty() {
            return;
        }
        if open.is_empty() {
            self.remarks.push(Remark::new("confirm", "power-loss found nothing that could be confirmed"));
        }
        for finding in &open {
            let mut told = Vec::new();
            for (kind, template) in templates {
                let name = kind.name();
                let is_allowed = finding
                    .script
                    .power_losses()
                    .all(|loss| loss.profiles.iter().any(|profile| profile == name));
                told.push(match self.try_on(finding, template, sandbox) {
                    Ok((tries, true)) if is_allowed => {
                        let found = self.counterexamples.get_mut(finding.invariant);
                        if let Some(found) = found.and_then(|found| found.get_mut(finding.index)) {
                            found.confirmed.push(name.to_owned());
                        }
                        format!("seen on {name} in try {tries}")
                    }
                    Ok((tries, true)) => {
                        format!(
                            "violated on {name} too in try {tries}, by another state of the same operation"
                        )
                    }
                    Ok((tries, false)) if tries < TRIES => {
                        let why =
                            if self.stop.is_requested() { "interrupted" } else { "the budget ended it" };
                        format!("not seen on {name} in {tries} tries; {why}")
                    }
                    Ok((tries, false)) => format!("not seen on {name} in {tries} tries"),
                    Err(why) => format!("could not be tried on {name}: {why}"),
                });
            }
            let found = self.counterexamples.get(finding.invariant).and_then(|all| all.get(finding.index));
            let name = found.and_then(|found| found.case.clone()).unwrap_or(finding.invariant.to_owned());
            let second = match finding.script.power_losses().count() {
                0 | 1 => "",
                _ => "; its second power loss was not tried",
            };
            self.remarks.push(Remark::new("confirm", format!("{name}: {}{second}", told.join(", "))));
        }
    }

    /// Returns the number of tries, and whether the last one showed the violation.
    fn try_on(
        &self,
        finding: &Open,
        template: &Template,
        sandbox: &Sandbox,
    ) -> Result<(usize, bool), ConfirmError> {
        let Some(control) = &self.control else { return Ok((0, false)) };
        let at = volume_folder(sandbox)?;
        let confirming = Confirming {
            target: self.target,
            multi_call: self.options.multi_call.as_deref(),
            subject: &control.subject,
            script: &finding.script,
            stop: self.stop,
            end: self.end(),
            at: &at,
        };
        let invariant = invariants::find(finding.invariant);
        volume::in_a_namespace(|| {
            let variations = match variations(&confirming, template) {
                Err(error) if is_stopped(&error) => return Ok((0, false)),
                variations => variations?,
            };
            // Try each variation at least once.
            let count = TRIES.max(variations.len());
            for (tries, variation) in (1..=count).zip(variations.iter().cycle()) {
                let observation = match confirm(&confirming, template, *variation) {
                    Err(error) if is_stopped(&error) => return Ok((tries - 1, false)),
                    observation => observation?,
                };
                let judged = invariant.map(|invariant| invariant.judge(&observation));
                if matches!(judged, Some(Judgement::Violated(_))) {
                    return Ok((tries, true));
                }
            }
            Ok((count, false))
        })?
    }
}

fn is_stopped(error: &ConfirmError) -> bool {
    matches!(error, ConfirmError::Trace(TraceError::Run(RunError::Stopped)))
}

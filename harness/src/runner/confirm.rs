//! Plays a power loss on a real file system: the operation on a small image, the power cut, and what is left given to the store.

use std::fs;
use std::path::Path;
use std::time::Instant;

use crate::observation::{Observation, Subject};
use crate::op::Request;
use crate::runner::direct::Directing;
use crate::runner::execute::How;
use crate::runner::{RunError, Stage, Stop, TraceError};
use crate::sandbox::{Sandbox, tree_of};
use crate::scenario::script::{Act, Disturbance, Loss, Misfortune, Script};
use crate::target::Target;
use crate::volume::{Left, Mounted, Template, VolumeError};

/// Why a loss could not be played for real.
#[derive(Debug, thiserror::Error)]
pub enum ConfirmError {
    /// The store could not be run there, or the time is over.
    #[error("{0}")]
    Trace(#[from] TraceError),
    /// The file system could not be had.
    #[error("{0}")]
    Volume(#[from] VolumeError),
}

impl From<RunError> for ConfirmError {
    fn from(error: RunError) -> Self {
        Self::Trace(error.into())
    }
}

/// What is confirmed, and where.
#[derive(Clone, Copy)]
pub struct Confirming<'a> {
    /// The store.
    pub target: &'a Target,
    /// The program that is `{store}` and `{critical}`.
    pub multi_call: Option<&'a Path>,
    /// What is known of the target.
    pub subject: &'a Subject,
    /// What was played in memory: its first power loss is what is tried.
    pub script: &'a Script,
    /// Ends it early.
    pub stop: &'a Stop,
    /// Past this, nothing more is tried.
    pub end: Option<Instant>,
    /// An empty folder to mount at.
    pub at: &'a Path,
}

/// How a loss is tried.
#[derive(Clone, Copy, Debug)]
pub struct Variation {
    /// Something else is synced just before the power goes, which carries along what a file system writes together.
    pub carries: bool,
    /// The power goes when the operation has ended, and not where the model saw it first.
    pub at_end: bool,
}

/// Plays it once, in a thread with mounts of its own. Nothing where the script has no power loss.
///
/// # Errors
/// Where the store cannot be run there, or there is no such file system.
pub fn confirm(
    confirming: &Confirming<'_>,
    template: &Template,
    variation: Variation,
) -> Result<Option<Observation>, ConfirmError> {
    let first_loss = confirming.script.acts.iter().find_map(|act| match act {
        Act::PowerLoss { request, loss } => Some((request, loss)),
        _ => None,
    });
    let Some((request, loss)) = first_loss else { return Ok(None) };
    let Confirming { target, multi_call, at, .. } = *confirming;
    let mounted = template.mount(at)?;
    let made = Sandbox::create(Some(at), &target.data, multi_call, &|_| ());
    let sandbox = made.map_err(|why| RunError::Sandbox { path: at.to_owned(), why })?;
    let on_operation = || ();
    let mut stage = Stage::new(target, &sandbox, confirming.stop, &on_operation);
    (stage.soft_end, stage.hard_end) = (confirming.end, confirming.end);
    let first = stage.first()?;
    // A second loss is left out: the first is what is to be seen.
    let is_other_loss = |act: &Act| matches!(act, Act::PowerLoss { loss: other, .. } if other != loss);
    let mut acts: Vec<Act> =
        confirming.script.acts.iter().filter(|act| !is_other_loss(act)).cloned().collect();
    let loss = Loss { is_after_end: loss.is_after_end || variation.at_end, ..loss.clone() };
    for act in &mut acts {
        if let Act::PowerLoss { loss: one, .. } = act {
            one.is_after_end = loss.is_after_end;
        }
    }
    if acts.contains(&Act::Anew) {
        stage.lay()?;
    } else {
        stage.lay_first()?;
    }
    mounted.sync()?;
    let left = strike(&stage, mounted, request, &loss, variation.carries.then_some(at))?;
    let remounted = left.mount(at)?;
    let tree = tree_of(&sandbox.dir()).map_err(|why| RunError::Sandbox { path: sandbox.dir(), why })?;
    let script = Script { acts };
    let observation = stage.play_state("power-loss", &tree, &script, &first, confirming.subject, 1)?;
    drop(stage);
    drop(remounted);
    Ok(Some(observation))
}

/// Runs the operation up to its loss, and cuts the power.
fn strike(
    stage: &Stage<'_>,
    mounted: Mounted,
    request: &Request,
    loss: &Loss,
    carries: Option<&Path>,
) -> Result<Left, ConfirmError> {
    // A kill takes nothing from the kernel's memory: the power does, right after it.
    let disturbance = Disturbance {
        point: loss.after.saturating_add(1),
        what: Misfortune::Kill,
        call: String::new(),
        is_of_a_kill: true,
    };
    let mut directing = Directing::new((!loss.is_after_end).then_some(&disturbance));
    stage.trace(std::slice::from_ref(request), &mut directing, How::default())?;
    stage.end_survivors();
    if let Some(at) = carries {
        let other = at.join("something-else");
        fs::write(&other, b"x")
            .and_then(|()| fs::File::open(&other)?.sync_all())
            .map_err(RunError::system("sync something else"))?;
    }
    Ok(mounted.cut()?)
}

//! Replays a power loss on a real file system in an image and gives the result to the store.

use std::fs;
use std::path::Path;
use std::time::Instant;

use crate::call::{Class, End};
use crate::observation::{Observation, Subject};
use crate::op::Request;
use crate::runner::direct::ScriptInjector;
use crate::runner::traced::How;
use crate::runner::{ExecEnv, First, RunError, Stop, TraceError};
use crate::sandbox::Sandbox;
use crate::scenario::script::{Act, Injection, InjectionKind, Loss, Script};
use crate::target::Target;
use crate::volume::{Left, Mounted, Template, VolumeError};

/// Why a power loss could not be replayed on a real file system.
#[derive(Debug, thiserror::Error)]
pub enum ConfirmError {
    /// The store could not be run there, or the time is over.
    #[error("{0}")]
    Trace(#[from] TraceError),
    /// The file system was not available.
    #[error("{0}")]
    Volume(#[from] VolumeError),
    /// The operation took another path there.
    #[error("{0}")]
    Otherwise(String),
}

impl From<RunError> for ConfirmError {
    fn from(error: RunError) -> Self {
        Self::Trace(error.into())
    }
}

/// What to confirm, and where.
#[derive(Clone, Copy)]
pub struct Confirming<'a> {
    /// The store.
    pub target: &'a Target,
    /// The program that is `{store}` and `{critical}`.
    pub multi_call: Option<&'a Path>,
    /// Known properties of the target.
    pub subject: &'a Subject,
    /// The script that was run in memory: its first power loss is replayed.
    pub script: &'a Script,
    /// Stops it early.
    pub stop: &'a Stop,
    /// Deadline after which nothing more is tried.
    pub end: Option<Instant>,
    /// An empty folder to mount at.
    pub at: &'a Path,
}

/// How a power loss is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variation {
    /// Number of visible calls that have returned when the power is lost; `None` if it is lost after the operation has
    /// ended.
    pub after: Option<u32>,
    /// Whether another file is synced just before, which also writes what the file system writes together with it.
    pub carries: bool,
}

impl<'a> Confirming<'a> {
    /// Returns the first power loss, and the operation that it interrupts.
    fn struck(&self) -> Option<(&'a Request, &'a Loss)> {
        self.script.acts.iter().find_map(|act| match act {
            Act::PowerLoss { request, loss } => Some((request, loss)),
            _ => None,
        })
    }

    /// Returns the script with only its first power loss, in this variation.
    fn script(&self, variation: Variation) -> Script {
        let mut is_first = true;
        let acts = self.script.acts.iter().filter_map(|act| match act {
            Act::PowerLoss { request, loss } => {
                let loss = Loss { is_after_end: variation.after.is_none(), ..loss.clone() };
                std::mem::take(&mut is_first).then(|| Act::PowerLoss { request: request.clone(), loss })
            }
            other => Some(other.clone()),
        });
        Script { acts: acts.collect() }
    }
}

/// Returns the moments at which a power loss is tried: where the model saw it first, whenever a later sync has
/// returned, and at the end; each without and with a sync of another file. Must run in a thread with its own mounts.
///
/// # Errors
/// If the store cannot be run there, or if there is no such file system.
pub fn variations(confirming: &Confirming<'_>, template: &Template) -> Result<Vec<Variation>, ConfirmError> {
    let Some((request, loss)) = confirming.struck() else { return Ok(Vec::new()) };
    let mounted = template.mount(confirming.at)?;
    let traced = on_volume(confirming, |env, _| {
        begin(env, confirming.script)?;
        Ok(env.trace(std::slice::from_ref(request), &mut ScriptInjector::new(None), How::default())?)
    })?;
    drop(mounted);
    let syncs = traced.calls.iter().filter(|call| call.class == Class::Sync).map(|call| call.number);
    let first = (!loss.is_after_end).then_some(loss.after);
    let later = syncs.filter(|number| first.is_some_and(|first| *number > first)).map(Some);
    let moments: Vec<Option<u32>> = first.into_iter().map(Some).chain(later).chain([None]).collect();
    let both = |after: Option<u32>| [false, true].map(|carries| Variation { after, carries });
    Ok(moments.into_iter().flat_map(both).collect())
}

/// Replays it once. Must run in a thread with its own mounts.
///
/// # Errors
/// If the store cannot be run there or takes another path, or if there is no such file system.
pub fn confirm(
    confirming: &Confirming<'_>,
    template: &Template,
    variation: Variation,
) -> Result<Observation, ConfirmError> {
    let Some((request, _)) = confirming.struck() else {
        return Err(ConfirmError::Otherwise("there is no power loss in it".to_owned()));
    };
    let at = confirming.at;
    let mounted = template.mount(at)?;
    on_volume(confirming, |env, first| {
        begin(env, confirming.script)?;
        mounted.sync()?;
        let left = strike(env, mounted, request, variation, at)?;
        let _remounted = left.mount(at)?;
        let dir = env.sandbox.dir();
        let tree = env.sandbox.tree().map_err(|why| RunError::Sandbox { path: dir, why })?;
        let script = confirming.script(variation);
        Ok(env.play_state("power-loss", &tree, &script, first, confirming.subject, 1)?)
    })
}

/// Runs `what` with the store on a mounted volume that holds the result of `init` and the first record.
fn on_volume<T>(
    confirming: &Confirming<'_>,
    what: impl FnOnce(&ExecEnv<'_>, &First) -> Result<T, ConfirmError>,
) -> Result<T, ConfirmError> {
    let Confirming { target, multi_call, at, .. } = *confirming;
    let made = Sandbox::create(Some(at), &target.data, multi_call, &|_| ());
    let sandbox = made.map_err(|why| RunError::Sandbox { path: at.to_owned(), why })?;
    let on_operation = || ();
    let mut env = ExecEnv::new(target, &sandbox, confirming.stop, &on_operation);
    (env.soft_end, env.hard_end) = (confirming.end, confirming.end);
    env.init()?;
    let first = env.first()?;
    what(&env, &first)
}

/// Lays out the initial state of the script.
fn begin(env: &ExecEnv<'_>, script: &Script) -> Result<(), RunError> {
    if script.acts.contains(&Act::Anew) { env.lay() } else { env.lay_first() }
}

/// Runs the operation up to its power loss, and cuts the power.
fn strike(
    env: &ExecEnv<'_>,
    mounted: Mounted,
    request: &Request,
    variation: Variation,
    at: &Path,
) -> Result<Left, ConfirmError> {
    // A kill removes nothing from the kernel's memory: the power loss does, immediately after it.
    let injection = variation.after.map(|after| Injection {
        point: after.saturating_add(1),
        what: InjectionKind::Kill,
        call: String::new(),
        is_of_a_kill: true,
        is_of_the_contract: false,
    });
    let mut directing = ScriptInjector::new(injection.as_ref());
    let traced = env.trace(std::slice::from_ref(request), &mut directing, How::default())?;
    env.end_survivors();
    let expected = if injection.is_some() { End::Killed } else { End::Exited(0) };
    let ended = traced.operations.first().map(|ended| ended.end);
    if ended != Some(expected) {
        return Err(ConfirmError::Otherwise(format!("{request} ended in another way there")));
    }
    if variation.carries {
        let other = at.join("something-else");
        fs::write(&other, b"x")
            .and_then(|()| fs::File::open(&other)?.sync_all())
            .map_err(RunError::system("sync something else"))?;
    }
    Ok(mounted.cut()?)
}

//! Computes which interleavings cover all inequivalent ones.
//!
//! The module is pure: an [`Explorer`] gets the next step of each client and chooses the client to run, whether the
//! clients are real processes or a model. Two drivers share one table of conflicts ([`footprint`]) and one analysis of
//! reversible races ([`races`]): [`sequential`] runs no two schedules that differ only in the order of independent
//! calls, and [`worklist`] can be saved, resumed and split. [`bounded`] runs all schedules with few preemptions, and
//! [`random`] draws them.

pub mod bounded;
pub mod footprint;
pub mod model;
#[cfg(test)]
mod oracle;
pub mod prefixed;
pub mod races;
pub mod random;
pub mod sequential;
pub mod worklist;

use crate::op::ClientId;

use footprint::Footprint;

/// An executed step: a visible call, or the invocation or return of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Client that made it.
    pub client: ClientId,
    /// Resources that it may have touched.
    pub footprint: Footprint,
}

/// The step that a client is about to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Client of the step.
    pub client: ClientId,
    /// Resources that it may touch, whatever its result.
    pub footprint: Footprint,
    /// Whether it can run now; a step that waits for a held lock cannot.
    pub is_enabled: bool,
}

/// Decision about the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// This client makes its step.
    Go(ClientId),
    /// Ends this execution, because others covered all its continuations.
    Abandon,
}

/// Chooses the next client, in one execution after another.
pub trait Explorer {
    /// Begins the next execution; returns false if there is none left.
    fn begin(&mut self) -> bool;
    /// Chooses the next client. At least one of these is enabled; each client occurs at most once, in the order of
    /// their numbers.
    fn choose(&mut self, pending: &[Pending]) -> Choice;
    /// Records that the chosen step was executed.
    fn executed(&mut self, step: Step);
    /// Records the end of an execution: by itself, with the clients that are blocked forever, or because it was
    /// abandoned.
    fn end(&mut self, blocked: &[Pending]);
}

/// Returns the default choice: the client that ran last, else the first.
fn by_default(last: Option<ClientId>, may_go: impl Iterator<Item = ClientId> + Clone) -> Option<ClientId> {
    may_go.clone().find(|client| Some(*client) == last).or_else(|| may_go.min())
}

fn enabled(pending: &[Pending]) -> impl Iterator<Item = ClientId> + Clone {
    pending.iter().filter(|one| one.is_enabled).map(|one| one.client)
}

/// Whether choosing `next` preempts a client that could have continued.
fn is_preemption(last: Option<ClientId>, next: ClientId, pending: &[Pending]) -> bool {
    last.is_some_and(|last| last != next && enabled(pending).any(|client| client == last))
}

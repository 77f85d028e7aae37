//! Computes which interleavings cover all inequivalent ones.
//!
//! Pure: an [`Explorer`] is told what each client is about to do and says whose turn it is; whoever runs the clients,
//! real processes or a model, is none of its business. Two drivers stand over one table of what conflicts with what
//! ([`footprint`]) and one analysis of what could have come the other way round ([`races`]): [`sequential`] runs no two
//! schedules that differ only in the order of independent calls, and [`worklist`] can be saved, taken up again and split.
//! [`bounded`] runs all schedules with few preemptions, and [`random`] draws them.

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

/// One step that was made: a visible call, or the invocation or return of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Who made it.
    pub client: ClientId,
    /// What it may have touched.
    pub footprint: Footprint,
}

/// The step that a client is about to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Whose it is.
    pub client: ClientId,
    /// What it may touch, whatever it comes to.
    pub footprint: Footprint,
    /// Whether it can be made now: what waits for a lock that is taken cannot.
    pub is_enabled: bool,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// This client makes its step.
    Go(ClientId),
    /// Nothing: all that could come of this execution was seen in others.
    Abandon,
}

/// Decides whose turn it is, in one execution after another.
pub trait Explorer {
    /// Begins the next execution; false where there is none to be made any more.
    fn begin(&mut self) -> bool;
    /// Whose turn it is. At least one of these can go; each client stands in it at most once, in the order of their
    /// numbers.
    fn choose(&mut self, pending: &[Pending]) -> Choice;
    /// The step that was chosen has been made.
    fn executed(&mut self, step: Step);
    /// The execution has ended: by itself, with those that can never go on, or because it was abandoned.
    fn end(&mut self, blocked: &[Pending]);
}

/// Who goes on where nothing speaks for another: the one who went last, else the first.
fn by_default(last: Option<ClientId>, may_go: impl Iterator<Item = ClientId> + Clone) -> Option<ClientId> {
    may_go.clone().find(|client| Some(*client) == last).or_else(|| may_go.min())
}

fn enabled(pending: &[Pending]) -> impl Iterator<Item = ClientId> + Clone {
    pending.iter().filter(|one| one.is_enabled).map(|one| one.client)
}

/// Whether giving the turn to `next` takes it from one who could have gone on.
fn is_preemption(last: Option<ClientId>, next: ClientId, pending: &[Pending]) -> bool {
    last.is_some_and(|last| last != next && enabled(pending).any(|client| client == last))
}

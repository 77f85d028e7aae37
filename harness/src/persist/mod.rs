//! Derives the directory contents that a crash may leave from the calls of one recorded run.

mod disk;
mod kill;
mod power_loss;
pub mod profile;
mod tree;

pub use disk::Log;
pub use kill::{CrashState, CrashStates, crash_states, lengths_before};
pub use power_loss::{PowerLoss, power_losses};
pub use tree::{Attributes, Entry, Tree, Unmodelled};

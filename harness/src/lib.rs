//! picklock proves, or disproves, that programs which share a file do it right.
#![cfg_attr(not(test), warn(missing_docs))]

#[cfg(not(target_os = "linux"))]
compile_error!(
    "picklock drives stores through Linux's own means (pidfd, inotify, /proc/locks, ptrace) and runs there alone"
);

pub mod catalogue;
pub mod check;
pub mod invariants;
pub mod observation;
pub mod op;
pub mod report;
pub mod runner;
pub mod sandbox;
pub mod scenario;
pub mod target;
pub mod verdict;

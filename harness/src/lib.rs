//! picklock proves, or disproves, that programs which share a file do it right.
//!
//! It starts a store as its users do, as processes; takes over their system calls, kills them at each, tears their
//! writes, fails their calls, cuts the power; lets many of them run at full speed; and judges what the store made of it.
//! In a test of one's own program, [`check()`] is the door:
//!
//! ```no_run
//! #[test]
//! fn the_store_survives() {
//!     picklock::check(env!("CARGO_BIN_EXE_store")).data("store.json").assert_holds();
//! }
//! # fn main() {}
//! ```
//!
//! `harness/example` is a whole crate with such a test. Below it is [`check::check`], to which the `picklock` program is a
//! thin front too.
//!
//! # The house
//!
//! `use crate::…` points downward only; a test keeps it so.
//! ```text
//!       main.rs + cli/ · library/        front doors: check · bench · replay · trace · judge · merge · list · explain; tests
//!            ┌──── check/ · replay.rs · bench/ ───┐
//!        report/                               runner/            how to run; never what is correct
//!            │          ┌─────────────────────────┤
//!            │       target/   sandbox/ · tracer/ · volume/      with runner/, the only rooms that touch the kernel
//!  invariants/ · diagnoses/                         │
//!            └──────────┴──┬──────────────────────┘
//!               observation.rs · case.rs                 everything one execution showed, as a value; and as a file
//!                          │
//!   scenario/ · persist/ · history/ · fault.rs · accesses.rs · conflicts/ · signature.rs · normalize.rs    pure: no I/O, no clock, no chance but by the seed
//!        op.rs · call.rs · locks.rs · verdict.rs · shard.rs       plain data
//! ```
//!
//! | step | room | in → out |
//! | --- | --- | --- |
//! | 1 | [`target`] | command line or adapter file → how a client is started, how records are read back |
//! | 2 | [`scenario`] | seed, or the calls of a baseline run → what each client does, and what is disturbed |
//! | 3 | [`runner`], [`tracer`], [`sandbox`] | script → execution: what every process did, call by call, and what is left |
//! | 4 | [`persist`] | the calls of a baseline run → every directory that a kill or a power loss can leave |
//! | – | [`volume`] | what the model allows → what a real file system leaves when its power is cut |
//! | 5 | [`observation`] | all of one execution, as a value that can be saved and judged again |
//! | 6 | [`invariants`], [`diagnoses`] | observation → [`verdict::Judgement`] · likely cause |
//! | – | [`explore`] | what clients are about to do → whose turn it is, until all inequivalent schedules were run |
//! | – | [`history`] | a recorded history → whether it is linearizable |
//! | 7 | [`mod@check`], [`report`], [`case`] | judgements → verdicts, exit status, text, JSON and a page; cases that replay |
//! | – | [`shard`], [`report::merge`] | a run → its parts, and their reports → the report of the whole |
//! | – | [`mod@bench`] | locks or a store → rates, beside fairness and the longest wait |
//!
//! **Architecture invariants.** The judged store is always another process. The runner does not know what correct
//! means, and an invariant sees nothing but an observation. `unsafe` stands in `tracer/` and `volume/` alone. A violation is a value, not an error: errors mean that the
//! harness failed. What has judged nothing is inconclusive and never holds. The library changes nothing process-wide
//! and waits for no process but those it started: signal handlers, the supervisor process and exit statuses are the
//! program's, so that the library can run inside other people's tests.
#![cfg_attr(not(test), warn(missing_docs))]

#[cfg(not(target_os = "linux"))]
compile_error!(
    "picklock drives stores through Linux's own means (pidfd, inotify, ptrace, /proc/locks) and runs there alone"
);

pub mod accesses;
pub mod bench;
pub mod call;
pub mod case;
pub mod catalogue;
pub mod check;
pub mod conflicts;
pub mod diagnoses;
pub mod evidence;
pub mod explore;
pub mod fault;
pub mod history;
pub mod invariants;
mod library;
pub mod locks;
pub mod normalize;
pub mod observation;
pub mod op;
pub mod persist;
pub mod replay;
pub mod report;
pub mod runner;
pub mod sandbox;
pub mod scenario;
pub mod selection;
pub mod shard;
pub mod signature;
pub mod target;
pub mod tracer;
pub mod verdict;
pub mod volume;

pub use library::{Check, check};

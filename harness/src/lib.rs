//! picklock proves, or disproves, that programs which share a file do it right.
//!
//! It starts a store as its users do, as processes. It controls their system calls, kills them at each call, tears
//! their writes, fails their calls and cuts the power; it also runs many of them at full speed. Then it judges the
//! resulting store. To check your own program in a test, use [`check()`]:
//!
//! ```no_run
//! #[test]
//! fn the_store_survives() {
//!     picklock::check(env!("CARGO_BIN_EXE_store")).data("store.json").assert_holds();
//! }
//! # fn main() {}
//! ```
//!
//! `harness/example` is a complete crate with such a test. [`check::check`] is the layer below; the `picklock` program
//! is a thin front end for it too.
//!
//! # Layout
//!
//! `use crate::…` points downward only; a test enforces this.
//! ```text
//!       main.rs + cli/ · library/   front ends: check · bench · replay · trace · judge · merge · list · explain; tests
//!            ┌──── check/ · replay.rs · bench/ ───┐
//!        report/                               runner/            how to run; never what is correct
//!            │          ┌─────────────────────────┤
//!            │       target/   sandbox/ · tracer/ · volume/      with runner/, the only modules that use the kernel
//!  invariants/ · diagnoses/                         │
//!            └──────────┴──┬──────────────────────┘
//!               observation.rs · case.rs                 all data of one execution, as a value; and as a file
//!                          │
//!   scenario/ · persist/ · history/ · fault.rs · accesses.rs · conflicts/ · signature.rs · normalize.rs
//!                                                                    pure: no I/O, no clock, only seeded randomness
//!        op.rs · call.rs · locks.rs · verdict.rs · shard.rs       plain data
//! ```
//!
//! | step | module | in → out |
//! | --- | --- | --- |
//! | 1 | [`target`] | command line or adapter file → how a client is started, how records are read back |
//! | 2 | [`scenario`] | seed, or the calls of a baseline run → what each client does, and the injections |
//! | 3 | [`runner`], [`tracer`], [`sandbox`] | script → execution: all calls of all processes, and the files left |
//! | 4 | [`persist`] | the calls of a baseline run → every directory that a kill or a power loss can leave |
//! | – | [`volume`] | what the model allows → what a real file system leaves when its power is cut |
//! | 5 | [`observation`] | all of one execution, as a value that can be saved and judged again |
//! | 6 | [`invariants`], [`diagnoses`] | observation → [`verdict::Judgement`] · likely cause |
//! | – | [`explore`] | next calls of the clients → which client runs, until all inequivalent schedules were run |
//! | – | [`history`] | a recorded history → whether it is linearizable |
//! | 7 | [`mod@check`], [`report`], [`case`] | judgements → verdicts, exit status, text, JSON, HTML; replayable cases |
//! | – | [`shard`], [`report::merge`] | a run → its shards, and their reports → the report of the whole |
//! | – | [`mod@bench`] | locks or a store → rates, fairness and the longest wait |
//!
//! **Architecture invariants.** The judged store is always another process. The runner does not know what correct
//! means, and an invariant sees only an observation. `unsafe` is used only in `tracer/` and `volume/`. A violation is a
//! value, not an error: errors mean that the harness failed. An invariant that judged nothing is inconclusive and never
//! holds. The library changes nothing process-wide and waits only for processes that it started: signal handlers, the
//! supervisor process and exit statuses belong to the program, so the library can run inside other people's tests.
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

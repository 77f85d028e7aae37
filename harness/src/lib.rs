//! picklock proves, or disproves, that programs which share a file do it right.
//!
//! It starts a store as its users do, as processes, many at a time; kills some of them; and judges what the store made
//! of it. [`check::check`] is the door; the `picklock` program is a thin front to it.
//!
//! ```no_run
//! use picklock::check::{Options, check};
//! use picklock::runner::Stop;
//! use picklock::target::flags::Flags;
//!
//! let flags = Flags {
//!     add: Some("./store add {data} {id}".into()),
//!     list: Some("./store list {data}".into()),
//!     ..Flags::default()
//! };
//! let target = flags.into_target(std::path::Path::new(".")).unwrap();
//! let report = check(&target, &Options::default(), &Stop::new().unwrap(), &()).unwrap();
//! assert_eq!(report.exit, 0, "{}", report.to_json());
//! ```
//!
//! # The house
//!
//! `use crate::…` points downward only; a test keeps it so.
//! ```text
//!                  main.rs + cli/           front door: check · trace · list · explain
//!            ┌───────── check.rs ────────┐
//!        report/                      runner/            how to run; never what is correct
//!            │          ┌────────────────┤
//!            │       target/     sandbox.rs · tracer/    with runner/, the only rooms that touch the kernel
//!       invariants/     │                │
//!            └──────────┴──┬─────────────┘
//!                   observation.rs                       everything one execution showed, as a value
//!                          │
//!        scenario/ · op.rs · call.rs · locks.rs · verdict.rs    pure: no I/O, no clock, no chance but by the seed
//! ```
//!
//! | step | room | in → out |
//! | --- | --- | --- |
//! | 1 | [`target`] | command line or adapter file → how a client is started, how records are read back |
//! | 2 | [`scenario`] | seed → what each client does, and which of its operations are killed |
//! | 3 | [`runner`], [`sandbox`] | plan → executions: what every process did, what readers saw, what is left |
//! | 4 | [`observation`] | all of one execution, as a value that can be saved and judged again |
//! | 5 | [`invariants`] | observation → [`verdict::Judgement`] |
//! | 6 | [`check`], [`report`] | judgements → verdicts, exit status, text and JSON |
//!
//! **Architecture invariants.** The judged store is always another process. The runner does not know what correct
//! means, and an invariant sees nothing but an observation. A violation is a value, not an error: errors mean that the
//! harness failed. What has judged nothing is inconclusive and never holds. The library changes nothing process-wide
//! and waits for no process but those it started: signal handlers, the keeper process and exit statuses are the
//! program's, so that the library can run inside other people's tests.
#![cfg_attr(not(test), warn(missing_docs))]

#[cfg(not(target_os = "linux"))]
compile_error!(
    "picklock drives stores through Linux's own means (pidfd, inotify, ptrace, /proc/locks) and runs there alone"
);

pub mod accesses;
pub mod call;
pub mod case;
pub mod catalogue;
pub mod check;
pub mod diagnoses;
pub mod invariants;
pub mod locks;
pub mod masks;
pub mod observation;
pub mod op;
pub mod persist;
pub mod replay;
pub mod report;
pub mod runner;
pub mod sandbox;
pub mod scenario;
pub mod selection;
pub mod steps;
pub mod target;
pub mod tracer;
pub mod verdict;

//! Parses the arguments, runs a command and returns its exit status.

mod arguments;
mod bench;
mod catalogue;
mod check;
pub(crate) mod critical;
mod init;
mod judge;
pub(crate) mod locker;
mod manual;
mod merge;
mod output;
mod progress;
mod replay;
mod supervisor;
mod trace;

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use picklock::report::exit;

use arguments::{Arguments, Request};

/// Runs the command that the arguments ask for.
pub(crate) fn run(name: &OsStr, arguments: &[OsString]) -> ExitCode {
    let (is_kept, arguments) = match arguments.split_first() {
        Some((first, rest)) if first == supervisor::MARK => (true, rest),
        _ => (false, arguments),
    };
    let parsed = match Arguments::try_parse_from([name.to_owned()].iter().chain(arguments)) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Goes to standard output if help was requested, else to standard error; a failure cannot be reported.
            let _printed = error.print();
            if let Some(help) = program_without_dashes(&error, arguments) {
                let _written = writeln!(anstream::stderr(), "\n  help: {help}");
            }
            let is_help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return ExitCode::from(if is_help { exit::HOLDS } else { exit::USAGE });
        }
    };
    let ended = match parsed.request {
        Request::Init(init) if !is_kept => {
            init::asked(&init).and_then(|further| supervisor::keep(&[arguments, &further].concat()))
        }
        Request::Check(_) | Request::Bench(_) | Request::Trace(_) | Request::Replay(_) if !is_kept => {
            supervisor::keep(arguments)
        }
        Request::Check(check) => supervisor::run_supervised(|stop, made| check::run(*check, stop, made)),
        Request::Bench(bench) => supervisor::run_supervised(move |stop, made| bench::run(&bench, stop, made)),
        Request::Init(init) => supervisor::run_supervised(|stop, made| init::run(*init, stop, made)),
        Request::Replay(case) => supervisor::run_supervised(|stop, made| replay::run(*case, stop, made)),
        Request::Trace(trace) => supervisor::run_supervised(|stop, made| trace::run(*trace, stop, made)),
        Request::Judge(judge) => judge::run(&judge),
        Request::List(list) => read_enough(catalogue::list(&list)),
        Request::Explain(explain) => read_enough(catalogue::explain(&explain)),
        Request::Merge(reports) => merge::run(&reports),
        Request::Completions(completions) => read_enough(manual::completions(&completions)),
        Request::Man(man) => read_enough(manual::man(&man)),
    };
    match ended {
        Ok(status) => ExitCode::from(status),
        Err(error) => ExitCode::from(complain(&error)),
    }
}

/// Returns a hint for the most likely mistake: the program to judge without `--` before it.
fn program_without_dashes(error: &clap::Error, arguments: &[OsString]) -> Option<String> {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg) else { return None };
    let command = arguments.first()?.to_str()?;
    let takes_one = ["check", "trace", "bench", "init"].contains(&command);
    (error.kind() == ErrorKind::UnknownArgument && takes_one && !word.starts_with('-'))
        .then(|| format!("a program of the plain convention goes behind --: picklock {command} -- {word}"))
}

/// Treats a broken pipe as success in commands that only print.
fn read_enough(printed: anyhow::Result<u8>) -> anyhow::Result<u8> {
    match printed {
        Err(error)
            if error
                .downcast_ref::<io::Error>()
                .is_some_and(|why| why.kind() == io::ErrorKind::BrokenPipe) =>
        {
            Ok(exit::HOLDS)
        }
        printed => printed,
    }
}

/// Reports an error and returns its exit status.
fn complain(error: &anyhow::Error) -> u8 {
    let is_usage = error.downcast_ref::<picklock::target::UsageError>().is_some();
    // If standard error is closed, the error cannot be reported.
    let _written = writeln!(anstream::stderr(), "{}error:{0:#} {error:#}", arguments::ERROR);
    if is_usage { exit::USAGE } else { exit::INTERNAL }
}

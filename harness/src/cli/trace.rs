//! Runs `picklock trace`: prints the visible calls of one operation with locks and crash points.

use std::env;
use std::io::Write as _;
use std::path::Path;

use picklock::call::{End, Traced};
use picklock::catalogue::nearest;
use picklock::op::{Request, record_name};
use picklock::report::{exit, trace as table};
use picklock::runner::{self, ExecEnv, RunError, Stop, TraceError};
use picklock::sandbox::Sandbox;
use picklock::target::{Target, UsageError};
use picklock::tracer::TracerError;
use serde_json::json;

use crate::cli::arguments::{ERROR, Format, TraceArguments};
use crate::cli::check;

/// Runs the command. Reports to `made` each folder that the supervisor must remove if this process is killed.
pub(crate) fn run(
    arguments: TraceArguments,
    stop: &Stop,
    made: &(dyn Fn(&Path) + Sync),
) -> anyhow::Result<u8> {
    let target = check::target(arguments.target)?;
    let request = request(&target, &arguments.op)?;
    let multi_call = env::current_exe()?;
    let sandbox = Sandbox::in_dir(arguments.dir.as_deref(), &target.data, Some(&multi_call), &made)?;
    let env = ExecEnv::new(&target, &sandbox, stop, &|| ());
    let traced = runner::trace(&env, &request);
    drop(env);
    sandbox.remove()?;
    let trace = match traced {
        Ok(trace) => trace,
        Err(error) => return refused(error),
    };
    let mut out = anstream::stdout();
    match arguments.format {
        Format::Human => write!(out, "{}", table::table(&request.to_string(), &trace))?,
        Format::Json => {
            writeln!(out, "{}", serde_json::to_string_pretty(&as_json(&target, &request, &trace))?)?;
        }
    }
    Ok(exit::HOLDS)
}

/// Returns the exit status if the store or this machine prevents tracing; other errors are internal.
fn refused(error: TraceError) -> anyhow::Result<u8> {
    let status = match &error {
        TraceError::Before(..) | TraceError::Tracer(TracerError::Start { .. }) => exit::CONTROL_FAILED,
        TraceError::Tracer(TracerError::Forbidden(_)) => exit::INCONCLUSIVE,
        TraceError::Run(RunError::Stopped) => exit::INTERRUPTED,
        TraceError::Run(_) | TraceError::Tracer(TracerError::System { .. }) => return Err(error.into()),
    };
    writeln!(anstream::stderr(), "{ERROR}error:{ERROR:#} {error}")?;
    Ok(status)
}

fn request(target: &Target, name: &str) -> anyhow::Result<Request> {
    let ops = &target.ops;
    let has = |request: Request, is_there: bool| is_there.then_some(request);
    let found = match name {
        "add" => Some(Request::Add { record: record_name(2), number: 2 }),
        "list" => has(Request::List, ops.list.is_some()),
        "init" => has(Request::Init, ops.init.is_some()),
        "recover" => has(Request::Recover, ops.recover.is_some()),
        "rebuild" if target.derived.is_some() => Some(Request::Rebuild),
        other => has(Request::Other(other.to_owned()), ops.other.contains_key(other)),
    };
    found.ok_or_else(|| {
        let known: Vec<&str> = [
            ("list", ops.list.is_some()),
            ("init", ops.init.is_some()),
            ("recover", ops.recover.is_some()),
            ("rebuild", target.derived.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, is_there)| is_there.then_some(name))
        .chain(["add"])
        .chain(ops.other.keys().map(String::as_str))
        .collect();
        let error = UsageError::new("OP", format!("the target has no operation {name:?}"));
        let help = match nearest(name, known.iter().copied()) {
            Some(meant) => format!("did you mean {meant}?"),
            None => format!("it has: {}", known.join(", ")),
        };
        error.help(help).into()
    })
}

fn as_json(target: &Target, request: &Request, trace: &Traced) -> serde_json::Value {
    let ended = trace.operations.first();
    let end = ended.map(|ended| ended.end);
    let (status, signal) = match end {
        Some(End::Exited(status)) => (Some(status), None),
        Some(End::Signalled(signal)) => (None, Some(signal)),
        _ => (None, None),
    };
    json!({
        "schema": 1,
        "target": target.name,
        "operation": request.to_string(),
        "calls": trace.calls,
        "crash_points": trace.calls.len() + 1,
        "exit": status,
        "signal": signal,
        "timed_out": end == Some(End::TimedOut),
        "stuck": end == Some(End::Stuck),
        "survivors": ended.map_or(0, |ended| ended.survivors),
        "leaks": trace.leaks,
        "not_covered": trace.not_covered,
    })
}

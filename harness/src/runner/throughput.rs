//! Runs clients that add as fast as they can for the time of a measurement.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

use crate::op::{ClientId, Outcome, Request, record_name};
use crate::runner::{ExecEnv, RunError, nanos};

/// Maximum size of all answers of one session, in bytes.
const ANSWERS_MAX: u64 = 1 << 30;
/// Interval at which a client that waits for an answer checks whether it should end.
const GLANCE: Duration = Duration::from_millis(50);
/// The last record whose name has the usual length.
const RECORDS_MAX: u32 = 999_999;

/// Result of one client.
#[derive(Clone, Debug, Default)]
pub struct Served {
    /// Duration of each acknowledged add, in nanoseconds, in order.
    pub took: Vec<u64>,
    /// The added records.
    pub records: Vec<String>,
    /// Number of adds that were not acknowledged.
    pub failed: u64,
}

/// Runs clients that add concurrently to a fresh store, for `time` or until `most` adds have begun; each uses
/// consecutive processes, or one session.
///
/// # Errors
/// If the harness could not do its part.
pub fn throughput(
    env: &ExecEnv<'_>,
    clients: u32,
    time: Duration,
    most: u32,
    in_session: bool,
) -> Result<Vec<Served>, RunError> {
    env.lay()?;
    let next = AtomicU32::new(1);
    let (clock, end) = (Instant::now(), Instant::now() + time);
    let next_add = || {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let is_over = Instant::now() >= end || env.stop.is_requested() || number > most.min(RECORDS_MAX);
        (!is_over).then(|| Request::Add { record: record_name(number), number })
    };
    let next_add = &next_add;
    thread::scope(|scope| {
        let threads: Vec<_> = (1..=clients)
            .map(|client| {
                scope.spawn(move || match in_session {
                    true => session(env, client, next_add),
                    false => one_shot(env, client, clock, next_add),
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// Returns the records in the store, by its `list` or else from its data file; `None` if neither can be read.
///
/// # Errors
/// If the harness could not do its part.
pub fn records(env: &ExecEnv<'_>) -> Result<Option<Vec<String>>, RunError> {
    if env.target.ops.list.is_some() {
        let listed = env.operate(1, Request::List, Instant::now(), None, &|| (), &|_| ())?;
        return Ok(listed.records);
    }
    Ok(env.sandbox.look(env.target, 0).records)
}

fn one_shot(
    env: &ExecEnv<'_>,
    client: ClientId,
    clock: Instant,
    next_add: &(dyn Fn() -> Option<Request> + Sync),
) -> Result<Served, RunError> {
    let mut served = Served::default();
    while let Some(request) = next_add() {
        let operation = env.operate(client, request, clock, None, &|| (), &|_| ())?;
        match (&operation.outcome, operation.added()) {
            (Outcome::Acknowledged, Some(record)) => {
                served.took.push(operation.returned - operation.invoked);
                served.records.push(record.to_owned());
            }
            _ => served.failed += 1,
        }
    }
    Ok(served)
}

fn session(
    env: &ExecEnv<'_>,
    client: ClientId,
    next_add: &(dyn Fn() -> Option<Request> + Sync),
) -> Result<Served, RunError> {
    let mut served = Served::default();
    let Some(session) = &env.target.session else { return Ok(served) };
    let values = env.values(client, &Request::List);
    let (program, arguments) = session.command.render(&values, &env.target.folder);
    env.may_have_strays.store(true, Ordering::Relaxed);
    let child = Command::new(&program)
        .args(arguments)
        .current_dir(env.cwd(&values))
        .envs(env.environment(&values))
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|why| RunError::Start { program, why })?;
    let mut child = Ended(child);
    let (Some(mut input), Some(output)) = (child.0.stdin.take(), child.0.stdout.take()) else {
        return Ok(served);
    };
    // A thread that ends with the session reads the lines, so that waiting for them can time out.
    let (said, answers) = std::sync::mpsc::sync_channel(1);
    thread::spawn(move || {
        let mut lines = BufReader::new(output.take(ANSWERS_MAX)).lines();
        while let Some(Ok(line)) = lines.next() {
            if said.send(line).is_err() {
                break;
            }
        }
    });
    let patience = env.target.limits.timeout;
    let answer = move || -> Option<String> {
        let late = Instant::now() + patience;
        loop {
            match answers.recv_timeout(GLANCE) {
                Ok(line) => return Some(line),
                Err(RecvTimeoutError::Timeout) if !env.stop.is_requested() && Instant::now() < late => {}
                Err(_) => return None,
            }
        }
    };
    let mut seq = 0;
    let mut ask = |request: Value| -> bool {
        seq += 1;
        let mut request = request;
        request["seq"] = json!(seq);
        let line = writeln!(input, "{request}").ok().and_then(|()| answer());
        let answer: Value = line.and_then(|line| serde_json::from_str(&line).ok()).unwrap_or_default();
        answer["seq"] == seq && answer["ok"] == true
    };
    if !ask(json!({ "op": "open", "handle": "a" })) {
        served.failed += 1;
        return Ok(served);
    }
    while let Some(Request::Add { record, .. }) = next_add() {
        let began = Instant::now();
        if ask(json!({ "op": "add", "handle": "a", "record": record })) {
            served.took.push(nanos(began.elapsed()));
            served.records.push(record);
        } else {
            served.failed += 1;
            break;
        }
        (env.on_operation)();
    }
    Ok(served)
}

/// A process that is killed when this is dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // There are no more requests, or it does not answer.
        let _killed = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _reaped = self.0.wait();
    }
}

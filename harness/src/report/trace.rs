//! Formats the visible calls of one operation as a table.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use crate::call::{Call, End, LockChange, Traced};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const CHANGE: Style = AnsiColor::Yellow.on_default();
const LOCK: Style = AnsiColor::Cyan.on_default();
/// Width of the call column; a longer call shifts the rest of its line.
const CALL: usize = 62;

/// Formats the trace of `operation` as a table.
pub fn table(operation: &str, trace: &Traced) -> String {
    let mut text = String::new();
    let has_family = trace.calls.iter().any(|call| (call.process, call.thread) != (1, 1));
    let who_head = if has_family { "who   " } else { "" };
    // Writing to a string cannot fail.
    let _ok =
        writeln!(text, "{BOLD}{:>4}  {who_head}  {:<CALL$}  {:<12}  locks{BOLD:#}", "#", operation, "result");
    for call in &trace.calls {
        text.push_str(&row(call, has_family));
    }
    let changes = trace.calls.iter().filter(|call| call.is_change()).count();
    let Some(ended) = trace.operations.first() else { return text };
    let end = match ended.end {
        End::Exited(status) => format!("exit {status}"),
        End::Signalled(signal) => format!("killed by signal {signal}"),
        End::Killed => "killed where that was wanted".to_owned(),
        End::TimedOut => "killed at its time limit".to_owned(),
        End::Stuck => "killed since it was blocked forever".to_owned(),
    };
    let _ok = writeln!(
        text,
        "\n{end}; {} visible calls, {CHANGE}*{CHANGE:#} {changes} of them changes; crash points 1 to {}, each before the \
         call of its number, the last after all",
        trace.calls.len(),
        trace.calls.len() + 1
    );
    for (file, _) in trace.stuck.iter().flat_map(|stuck| &stuck.wants) {
        let _ok = writeln!(text, "{BOLD}stuck{BOLD:#}  it waits for a lock on {file} that it holds itself");
    }
    for leak in &trace.leaks {
        let _ok = writeln!(
            text,
            "{BOLD}leaked{BOLD:#}  a process that outlived it still has its lock on {}",
            leak.file
        );
    }
    if ended.survivors > 0 {
        let _ok = writeln!(text, "{} processes outlived it and were ended", ended.survivors);
    }
    for what in &trace.not_covered {
        let _ok = writeln!(text, "{DIM}not covered{DIM:#}  {what}");
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    if !said.trim().is_empty() {
        let _ok = writeln!(text, "{DIM}it said{DIM:#}  {}", said.trim());
    }
    text
}

fn row(call: &Call, has_family: bool) -> String {
    let who = if has_family { format!("p{}.{:<3} ", call.process, call.thread) } else { String::new() };
    let mark = if call.is_change() { format!("{CHANGE}*{CHANGE:#}") } else { " ".to_owned() };
    let result = match &call.result {
        Some(Ok(value)) => value.to_string(),
        Some(Err(errno)) => errno.to_string(),
        None if call.name == "exit" => String::new(),
        None => "never returned".to_owned(),
    };
    let shown = call.to_string();
    let locks: Vec<String> = call
        .locks
        .iter()
        .map(|change| match change {
            LockChange::Taken(..) => format!("{LOCK}+ {change}{LOCK:#}"),
            LockChange::Released(..) => format!("{LOCK}- {change}{LOCK:#}"),
            LockChange::Refused(..) => format!("{LOCK}! {change}{LOCK:#}"),
        })
        .collect();
    let line = format!("{:>4}  {who}{mark} {shown:<CALL$}  {result:<12}  {}", call.number, locks.join("; "));
    format!("{}\n", line.trim_end())
}

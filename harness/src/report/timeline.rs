//! Formats a timeline for the terminal: one column for each client, one row for each call, with results, locks and
//! data.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use crate::call::{Call, LockChange};
use crate::case::Explanation;
use crate::observation::{Observation, Trace};
use crate::op::{Operation, Outcome};
use crate::report::narrative::reasons;
use crate::report::parts::{Part, parts};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const CHANGE: Style = AnsiColor::Yellow.on_default();
const LOCK: Style = AnsiColor::Cyan.on_default();
const GOOD: Style = AnsiColor::Green.on_default();
const END: Style = AnsiColor::Red.on_default();
/// Width of a client's column; a longer call shifts the rest of its line.
const COLUMN: usize = 58;

/// Formats an execution in order: untraced operations as lines, traced ones call by call.
pub fn timeline(observation: &Observation, explanation: Option<&Explanation>) -> String {
    let mut text = String::new();
    for part in parts(observation) {
        match part {
            Part::Operation(operation) => line(&mut text, operation),
            Part::Trace(trace, operations) => traced(&mut text, trace, operations, explanation),
        }
    }
    text
}

/// Writes an untraced operation as one line.
fn line(text: &mut String, operation: &Operation) {
    // Writing to a string cannot fail.
    let _ok = writeln!(text, "{BOLD}{}{BOLD:#}  {}", operation.request, ending(operation));
}

fn ending(operation: &Operation) -> String {
    let how = match &operation.outcome {
        Outcome::Acknowledged => "acknowledged".to_owned(),
        Outcome::Refused => "refused".to_owned(),
        Outcome::Busy => "busy".to_owned(),
        Outcome::Failed(status) => format!("failed ({status})"),
        Outcome::Killed => format!("{END}killed{END:#}"),
        Outcome::Unfinished(limit) => format!("{END}killed past its {limit} limit{END:#}"),
        Outcome::Stuck => format!("{END}stuck{END:#}: it was blocked forever"),
    };
    let records = operation.records.as_ref().map(|records| format!(": {}", records.join(" ")));
    let said =
        if operation.stderr.is_empty() { String::new() } else { format!("; it said: {}", operation.stderr) };
    format!("{how}{}{said}", records.unwrap_or_default())
}

fn traced(text: &mut String, trace: &Trace, operations: &[Operation], explanation: Option<&Explanation>) {
    let mut columns: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for (place, request) in (1..).zip(&trace.requests) {
        columns.entry(trace.client(place)).or_default().push(request.to_string());
    }
    let heads: Vec<String> = columns
        .iter()
        .map(|(client, requests)| {
            format!("{:<COLUMN$}", format!("client {client}: {}", requests.join(", then ")))
        })
        .collect();
    let _ok = writeln!(text, "{BOLD}{:>4}  {}{BOLD:#}", "#", heads.join("  ").trim_end());
    let explanation = explanation.cloned().unwrap_or_default();
    for (call, why) in trace.calls.iter().zip(reasons(trace, operations)) {
        if let Some(point) = explanation.point_of_no_return.filter(|point| point.after + 1 == call.number) {
            let how = if point.is_exact { "" } else { ", as far as was tried" };
            let _ok = writeln!(text, "      {END}--- lost from here on{how} ---{END:#}");
        }
        if let Some(why) = why {
            let _ok = writeln!(text, "      {DIM}{why}{DIM:#}");
        }
        row(text, trace.client(call.client), call);
        if let Some(swap) = explanation.nearest.filter(|swap| swap.earlier == call.number) {
            let _ok =
                writeln!(text, "      {GOOD}--- with call {} before it, it passes ---{GOOD:#}", swap.later);
        }
    }
    for operation in operations {
        let indent = indent(operation.client);
        let _ok = writeln!(text, "      {indent}{}", ending(operation));
    }
}

fn indent(client: u32) -> String {
    " ".repeat((COLUMN + 2) * usize::try_from(client.saturating_sub(1)).unwrap_or(0))
}

fn row(text: &mut String, client: u32, call: &Call) {
    let mark = if call.is_change() { format!("{CHANGE}*{CHANGE:#}") } else { " ".to_owned() };
    let result = match &call.result {
        Some(Ok(value)) => format!(" = {value}"),
        Some(Err(errno)) => format!(" = {errno}"),
        None if call.name == "exit" => String::new(),
        None => format!(" {END}never returned{END:#}"),
    };
    let indent = indent(client);
    let _ok = writeln!(text, "{:>4}  {indent}{mark} {call}{result}", call.number);
    for change in &call.locks {
        let sign = match change {
            LockChange::Taken(..) => '+',
            LockChange::Released(..) => '-',
            LockChange::Refused(..) => '!',
        };
        let _ok = writeln!(text, "      {indent}  {LOCK}{sign} {change}{LOCK:#}");
    }
    if let Some(content) = &call.content {
        let _ok = writeln!(text, "      {indent}  {DIM}the data file holds{DIM:#} {content}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::timeline_for_tests as observe;

    #[test]
    fn each_client_has_its_column_and_each_call_its_row() {
        let mut observation =
            observe("c1 add a 0..1 ok\n c1 add b 2..9 killed\n c2 add c 3..8 ok\n c1 list 10..11 ok = a c");
        let requests =
            vec![observation.operations[1].request.clone(), observation.operations[2].request.clone()];
        let calls = crate::call::sketch("1 lock ex 1\n 1 write 2\n 2 write 2");
        observation.traces = vec![Trace { requests, calls, ..Trace::default() }];
        let text = anstream::adapter::strip_str(&timeline(&observation, None)).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "add a  acknowledged");
        assert!(lines[1].contains("client 1: add b") && lines[1].contains("client 2: add c"), "{text}");
        assert!(lines[3].contains("+ takes exclusive flock on file1"), "{text}");
        assert!(lines[5].ends_with("client 1 was killed"), "{text}");
        assert!(lines[6].starts_with(&format!("   3  {}* write(2) = 0", indent(2))), "{text}");
        assert!(
            lines[7].ends_with("killed") && lines.last().unwrap().ends_with("acknowledged: a c"),
            "{text}"
        );
    }
}

//! Concurrent and cancelled requests inside one process.
//!
//! A session is stopped at each visible call that an `add` of it makes. While it stands there, that `add` is cancelled;
//! or another one is sent, through the same handle or a second one; or another one is sent and cancelled while it
//! waits. Then it goes on, and when all is answered the session tells what it believes, lists what the file holds,
//! adds once more, and tells and lists again: it must believe what the file holds, lose nothing that it acknowledged,
//! and answer everything.
//!
//! A session runs beside other processes too: with one-shot operations between its requests, with a second session whose
//! requests take turns with its own, and stopped at each visible call of an `add` while a one-shot `add` comes.
//!
//! Example: `picklock check --only session` on a store with a `[session]` finds what a cancelled request leaves half
//! done.

use crate::catalogue::headline;
use crate::op::{Request, record_name};
use crate::scenario::Scenario;
use crate::scenario::crash::{add, after};
use crate::scenario::script::{Act, Held, Script, Step};

pub(super) const SCENARIO: Scenario = Scenario {
    id: "session",
    statement: headline(include_str!("session.rs")),
    source: include_str!("session.rs"),
};

/// Maximum number of calls of one `add` at which it is stopped.
pub const POINTS_MAX: usize = 60;
/// Index of the stopped `add` among the steps of a session.
pub const ADD: usize = 3;

const OTHER_HANDLE: &str = "beside one by another handle";

/// Returns the steps of a session with two handles on one path: both must see what each adds.
pub fn reentry() -> Vec<Step> {
    let mut lines = Lines::default();
    vec![
        lines.step(&["open a"]),
        lines.step(&["open b"]),
        lines.step(&["add a 2", "add b 3"]),
        lines.step(&["list a"]),
        lines.step(&["list b"]),
        lines.step(&["close a"]),
        lines.step(&["close b"]),
    ]
}

/// Returns the steps of a session without injection.
pub fn quiet() -> Vec<Step> {
    steps(None)
}

/// Returns the executions that stop an `add` at each of these calls, numbered from 1.
pub fn scripts(calls: &[String]) -> Vec<Script> {
    let held = (1..).zip(calls.iter().take(POINTS_MAX));
    let ways = ["cancelled", "beside one by its handle", OTHER_HANDLE, "beside one that is cancelled"];
    let all = held.flat_map(|(point, call)| ways.iter().map(move |way| (point, call, *way)));
    all.map(|(point, call, way)| Script {
        acts: vec![Act::Session { steps: steps(Some((point, call, way))) }],
    })
    .collect()
}

fn steps(held: Option<(u32, &String, &str)>) -> Vec<Step> {
    let mut lines = Lines::default();
    let mut steps = vec![
        lines.step(&["open a"]),
        lines.step(&["open b"]),
        lines.step(&["list a"]),
        lines.step(&["add a 2"]),
    ];
    if let Some((point, call, way)) = held {
        let cancel = format!("cancel {}", lines.next - 1);
        let meanwhile = match way {
            "cancelled" => lines.all(&[&cancel]),
            "beside one by its handle" => lines.all(&["add a 3"]),
            OTHER_HANDLE => lines.all(&["add b 3"]),
            _ => {
                let second = format!("cancel {}", lines.next);
                lines.all(&["add a 3", &second])
            }
        };
        let what = format!("add {} {way}", record_name(2));
        steps[ADD].held = Some(Held { point, call: call.clone(), meanwhile, one_shot: None, what });
    }
    if held.is_some_and(|(.., way)| way == OTHER_HANDLE) {
        // A handle need not know what the other one added before it reads the file.
        steps.push(lines.step(&["list a"]));
    }
    steps.extend([
        lines.step(&["memory a"]),
        lines.step(&["list a"]),
        lines.step(&["add a 4"]),
        lines.step(&["memory a"]),
        lines.step(&["list a"]),
        lines.step(&["list b"]),
        lines.step(&["close a"]),
        lines.step(&["close b"]),
    ]);
    steps
}

/// Returns a session with one-shot operations between its requests, and two sessions whose requests alternate. No
/// request asks for a process's view of the data, because it need not include the changes of others.
pub fn beside() -> Vec<Script> {
    let one_shot = |request: Request| Step { one_shot: Some(request), ..Lines::default().step(&[]) };
    let mut lines = Lines::default();
    let with_one_shots = vec![
        lines.step(&["open a"]),
        lines.step(&["list a"]),
        one_shot(add(2)),
        lines.step(&["add a 3"]),
        lines.step(&["list a"]),
        one_shot(add(4)),
        lines.step(&["add a 5"]),
        lines.step(&["list a"]),
        lines.step(&["close a"]),
    ];
    let mut lines = Lines::default();
    let mut of = |session: u32, request: &str| Step { session, ..lines.step(&[request]) };
    let two = vec![
        of(1, "open a"),
        of(2, "open c"),
        of(1, "list a"),
        of(2, "list c"),
        of(1, "add a 2"),
        of(2, "add c 3"),
        of(1, "add a 4"),
        of(2, "list c"),
        of(1, "list a"),
        of(1, "close a"),
        of(2, "close c"),
    ];
    [(with_one_shots, 6), (two, 5)]
        .map(|(steps, next)| Script { acts: [vec![Act::Session { steps }], after(next)].concat() })
        .into()
}

/// Returns sessions that are stopped at each of these calls of an `add` while a one-shot `add` runs.
pub fn beside_held(calls: &[String]) -> Vec<Script> {
    let script = |(point, call): (u32, &String)| {
        let mut lines = Lines::default();
        let held = Held {
            point,
            call: call.clone(),
            meanwhile: Vec::new(),
            one_shot: Some(add(3)),
            what: format!("add {} beside a one-shot add", record_name(2)),
        };
        let steps = vec![
            lines.step(&["open a"]),
            lines.step(&["list a"]),
            Step { held: Some(held), ..lines.step(&["add a 2"]) },
            lines.step(&["list a"]),
            lines.step(&["close a"]),
        ];
        Script { acts: [vec![Act::Session { steps }], after(4)].concat() }
    };
    (1..).zip(calls.iter().take(POINTS_MAX)).map(script).collect()
}

/// Numbers the requests of a session.
#[derive(Default)]
struct Lines {
    next: u32,
}

impl Lines {
    /// Returns a step of requests that are sent together: `add a 2` adds the record of this number by handle `a`,
    /// `cancel 3` cancels the request of this number.
    fn step(&mut self, requests: &[&str]) -> Step {
        Step { session: 1, lines: self.all(requests), one_shot: None, held: None }
    }

    fn all(&mut self, requests: &[&str]) -> Vec<String> {
        requests.iter().map(|request| self.line(request)).collect()
    }

    fn line(&mut self, request: &str) -> String {
        let seq = self.next;
        self.next += 1;
        let words: Vec<&str> = request.split(' ').collect();
        let line = match words.as_slice() {
            ["cancel", target] => {
                let target: u32 = target.parse().unwrap_or(0);
                serde_json::json!({"seq": seq, "op": "cancel", "target": target})
            }
            [op, handle, number] => {
                let record = record_name(number.parse().unwrap_or(0));
                serde_json::json!({"seq": seq, "op": op, "handle": handle, "record": record})
            }
            [op, handle] => serde_json::json!({"seq": seq, "op": op, "handle": handle}),
            _ => serde_json::json!({"seq": seq, "op": request}),
        };
        line.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_line_of_a_session_is_one_request_with_a_number_of_its_own() {
        let all = scripts(&["openat(store)".into(), "rename(a, b)".into()]);
        assert_eq!(all.len(), 8);
        for script in all {
            let Act::Session { steps } = &script.acts[0] else { panic!("{script:?}") };
            let held = steps.iter().filter_map(|step| step.held.as_ref());
            let lines =
                steps.iter().flat_map(|step| &step.lines).chain(held.flat_map(|held| &held.meanwhile));
            let requests: Vec<serde_json::Value> =
                lines.map(|line| serde_json::from_str(line).unwrap()).collect();
            let numbers: BTreeSet<u64> =
                requests.iter().map(|request| request["seq"].as_u64().unwrap()).collect();
            assert_eq!(numbers.len(), requests.len());
            for cancel in requests.iter().filter(|request| request["op"] == "cancel") {
                let target = requests.iter().find(|request| request["seq"] == cancel["target"]).unwrap();
                assert_eq!(target["op"], "add");
            }
        }
    }
}

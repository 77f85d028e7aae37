//! Histories of a register as Jepsen logs them: one event a line.
//!
//! Either as EDN maps, whose other keys are ignored,
//! ```text
//! {:process 0, :type :invoke, :f :cas, :value [1 2], :index 0, :time 123}
//! {:process 0, :type :ok, :f :cas, :value [1 2], :index 1, :time 456}
//! ```
//! or as Jepsen writes them to the console, with or without the logger's prefix:
//! ```text
//! INFO  jepsen.util - 4    :invoke  :read  nil
//! INFO  jepsen.util - 4    :ok      :read  3
//! ```
//! Both occur in the test data of knossos and porcupine. The order of the lines is the order of the events, so the
//! times of a history read here are its line numbers. Events are matched by process. An operation that failed (`:fail`)
//! did not happen and is skipped; one that ended with `:info`, or not at all, is indeterminate. Events of a process
//! without a number, such as `:nemesis`, belong to no client.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::CharIndices;

use super::{Bad, Choice, Judged};
use crate::history::model::Kind;
use crate::history::model::register::{Call, Content, Register};
use crate::history::{History, Operation};
use crate::op::ClientId;

/// The subset of EDN that such logs use.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Edn {
    Nil,
    /// A number, a keyword, a symbol, or a string with its quotes.
    Atom(String),
    /// A vector or a list.
    Many(Vec<Edn>),
    /// A map: alternating keys and values.
    Map(Vec<Edn>),
}

impl Edn {
    fn text(&self) -> String {
        let inner = |all: &[Self]| all.iter().map(Self::text).collect::<Vec<_>>().join(" ");
        match self {
            Self::Nil => "nil".into(),
            Self::Atom(text) => text.clone(),
            Self::Many(all) => format!("[{}]", inner(all)),
            Self::Map(all) => format!("{{{}}}", inner(all)),
        }
    }

    fn content(&self) -> Content {
        (*self != Self::Nil).then(|| self.text().into())
    }
}

/// Reads values one after the other.
struct Reader<'a> {
    text: &'a str,
    at: Peekable<CharIndices<'a>>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: text.char_indices().peekable() }
    }

    /// Reads the next value; `None` at the end.
    fn next(&mut self) -> Result<Option<Edn>, String> {
        while self.at.next_if(|(_, c)| c.is_whitespace() || *c == ',').is_some() {}
        let Some((start, first)) = self.at.next() else { return Ok(None) };
        match first {
            '[' => self.until(']').map(|all| Some(Edn::Many(all))),
            '(' => self.until(')').map(|all| Some(Edn::Many(all))),
            '{' => self.until('}').map(|all| Some(Edn::Map(all))),
            ']' | ')' | '}' => Err(format!("there is a {first} too many")),
            ';' => Ok(None),
            '"' => loop {
                match self.at.next() {
                    Some((_, '\\')) => drop(self.at.next()),
                    Some((end, '"')) => return Ok(Some(Edn::Atom(self.text[start..=end].to_owned()))),
                    Some(_) => {}
                    None => return Err("a string does not end".into()),
                }
            },
            _ => {
                let ends = |c: char| c.is_whitespace() || ",[](){}\";".contains(c);
                while self.at.next_if(|(_, c)| !ends(*c)).is_some() {}
                let end = self.at.peek().map_or(self.text.len(), |(end, _)| *end);
                match &self.text[start..end] {
                    "nil" => Ok(Some(Edn::Nil)),
                    // Tags of values are ignored.
                    tag if tag.starts_with('#') => self.next(),
                    atom => Ok(Some(Edn::Atom(atom.to_owned()))),
                }
            }
        }
    }

    fn until(&mut self, end: char) -> Result<Vec<Edn>, String> {
        let mut all = Vec::new();
        loop {
            while self.at.next_if(|(_, c)| c.is_whitespace() || *c == ',').is_some() {}
            if self.at.next_if(|(_, c)| *c == end).is_some() {
                return Ok(all);
            }
            all.push(self.next()?.ok_or_else(|| format!("a {end} is missing"))?);
        }
    }
}

/// Whether the line belongs to such a log.
pub fn is_event(line: &str) -> bool {
    let line = line.trim_start();
    match line.strip_prefix('{') {
        Some(inner) => inner.trim_start().starts_with(':'),
        None => {
            line.starts_with('#') || line.split_whitespace().any(|word| [":invoke", ":info"].contains(&word))
        }
    }
}

/// Event of one line.
struct Event {
    process: Edn,
    kind: Edn,
    f: Edn,
    value: Edn,
}

impl Event {
    fn read(line: usize, text: &str) -> Result<Self, Bad> {
        let text = text.trim();
        // Prefix of the logger.
        let text = match text.strip_prefix("INFO") {
            Some(rest) => rest.split_once(" - ").map_or(rest, |(_, event)| event),
            None => text,
        };
        let mut reader = Reader::new(text);
        let mut next = || reader.next().map_err(|why| Bad::new(line, "", format!("is no EDN: {why}")));
        let mut found: BTreeMap<String, Edn> = BTreeMap::new();
        match next()? {
            Some(Edn::Map(all)) => {
                found.extend(all.chunks_exact(2).map(|pair| (pair[0].text(), pair[1].clone())));
            }
            first => {
                let keys = [":type", ":f", ":value"];
                found.extend(first.map(|first| (":process".to_owned(), first)));
                for key in keys {
                    found.extend(next()?.map(|value| (key.to_owned(), value)));
                }
            }
        }
        let mut take = |key: &str| found.remove(key).ok_or_else(|| Bad::new(line, key, "is missing"));
        Ok(Self {
            process: take(":process")?,
            kind: take(":type")?,
            f: take(":f")?,
            value: take(":value").unwrap_or(Edn::Nil),
        })
    }
}

/// Reads a history; see [`self`] for the format.
pub fn read(text: &str, choice: Choice) -> Result<Option<Judged>, Bad> {
    if choice.limit.is_some() || choice.kind.is_some_and(|kind| kind != Kind::Register) {
        return Err(Bad::choice(
            "model",
            "events of Jepsen are read for a register alone",
            "choose register",
        ));
    }
    let mut operations: Vec<Option<Operation<Call>>> = Vec::new();
    // Pending operation of each process: its index, and the function and value of its invocation.
    let mut waiting: BTreeMap<ClientId, (usize, Edn, Edn)> = BTreeMap::new();
    for (line, text) in (1..).zip(text.lines()) {
        if text.trim().is_empty() || text.trim_start().starts_with(';') {
            continue;
        }
        let event = Event::read(line, text)?;
        let process = event.process.text();
        let Ok(client) = process.parse::<ClientId>() else {
            if process.starts_with(':') {
                continue;
            }
            return Err(Bad::new(line, ":process", format!("{process} is neither a number nor a keyword")));
        };
        let kind = event.kind.text();
        if kind == ":invoke" {
            let call = call(line, &event.f, &event.value, None)?;
            let invoked = line as u64;
            if let Some((before, ..)) = waiting.insert(client, (operations.len(), event.f, event.value)) {
                let before = operations[before].as_ref().map_or(0, |operation| operation.line);
                let message = format!("process {client} still waits for its operation of line {before}");
                return Err(Bad::new(line, ":process", message));
            }
            operations.push(Some(Operation { client, invoked, returned: None, call, line }));
            continue;
        }
        if ![":ok", ":fail", ":info"].contains(&kind.as_str()) {
            let bad = Bad::new(line, ":type", format!("there is no type {kind}"));
            return Err(bad.help("it has: :invoke, :ok, :fail, :info"));
        }
        let Some((at, f, value)) = waiting.remove(&client) else {
            return Err(Bad::new(line, ":process", format!("process {client} has not asked for anything")));
        };
        if f != event.f {
            return Err(Bad::new(line, ":f", format!("process {client} asked for {}", f.text())));
        }
        match kind.as_str() {
            ":ok" => {
                let call = call(line, &f, &value, Some(&event.value))?;
                if let Some(operation) = &mut operations[at] {
                    (operation.returned, operation.call) = (Some(line as u64), call);
                }
            }
            ":fail" => operations[at] = None,
            _ => {}
        }
    }
    let operations: Vec<Operation<Call>> = operations.into_iter().flatten().collect();
    if operations.is_empty() {
        return Ok(None);
    }
    Ok(Some(Judged::Register(Register, History::new(operations)?)))
}

/// Builds a call from the invoked `value`, and from `answer` if it was answered.
fn call(line: usize, f: &Edn, value: &Edn, answer: Option<&Edn>) -> Result<Call, Bad> {
    match f.text().as_str() {
        ":read" => Ok(Call::Read(answer.map(Edn::content))),
        ":write" => Ok(Call::Write(value.content())),
        ":cas" => match value {
            Edn::Many(pair) if pair.len() == 2 => {
                Ok(Call::Cas { old: pair[0].content(), new: pair[1].content(), done: answer.map(|_| true) })
            }
            other => Err(Bad::new(line, ":value", format!("{} is no [old new]", other.text()))),
        },
        other => {
            let bad = Bad::new(line, ":f", format!("a register has no operation {other}"));
            Err(bad.help("it has: :read, :write, :cas"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(text: &str) -> Vec<(u32, u64, Option<u64>, Call)> {
        let Some(Judged::Register(_, history)) = read(text, Choice::default()).unwrap() else {
            return Vec::new();
        };
        let all = history.operations().iter();
        all.map(|one| (one.client, one.invoked, one.returned, one.call.clone())).collect()
    }

    fn content(text: &str) -> Content {
        Some(text.into())
    }

    #[test]
    fn both_forms_are_the_same_history() {
        let maps = "{:process 0, :type :invoke, :f :write, :value 3, :index 0, :time 123}\n\
                    #jepsen.history.Op{:process 1, :type :invoke, :f :cas, :value [3 4]}\n\
                    {:process :nemesis, :type :info, :f :start, :value nil}\n\
                    {:type :ok, :f :write, :process 0, :value 3}\n\
                    {:process 1, :type :info, :f :cas, :value [3 4], :error [:timeout \"a } b\"]}\n\
                    {:process 2, :type :invoke, :f :read, :value nil}\n\
                    {:process 3, :type :invoke, :f :read}\n\
                    {:process 2, :type :ok, :f :read, :value 4}\n\
                    {:process 3, :type :fail, :f :read, :value :timed-out}";
        let console = "INFO  jepsen.util - 0\t:invoke\t:write\t3\n\
                       INFO  jepsen.util - 1\t:invoke\t:cas\t[3 4]\n\
                       INFO  jepsen.util - :nemesis\t:info\t:start\tnil\n\
                       INFO  jepsen.util - 0\t:ok\t:write\t3\n\
                       INFO  jepsen.util - 1\t:info\t:cas\t:timed-out\n\
                       2 :invoke :read nil\n3 :invoke :read nil\n2 :ok :read 4\n3 :fail :read :timed-out";
        let expected = [
            (0, 1, Some(4), Call::Write(content("3"))),
            (1, 2, None, Call::Cas { old: content("3"), new: content("4"), done: None }),
            (2, 6, Some(8), Call::Read(Some(content("4")))),
        ];
        assert_eq!(calls(maps), expected);
        assert_eq!(calls(console), expected);
        assert!({ maps.lines() }.all(is_event) && console.lines().take(3).all(is_event));
        assert!(!is_event(r#"{"client":1}"#));
    }

    #[test]
    fn what_is_wrong_is_named_by_line_and_key() {
        for (text, says) in [
            ("0 :invoke :frob 3", ":f a register has no operation :frob"),
            ("0 :invoke", ":f is missing"),
            ("0 :ok :read 3", ":process process 0 has not asked"),
            ("0 :begin :read 3", ":type there is no type :begin"),
            ("x :invoke :read 3", ":process x is neither"),
            ("0 :invoke :cas 3", ":value 3 is no [old new]"),
            ("{:process 0", " is no EDN: a } is missing"),
            ("1 :invoke :read nil", ":process process 1 still waits for its operation of line 1"),
            ("1 :ok :write 3", ":f process 1 asked for :read"),
        ] {
            let bad = read(&format!("1 :invoke :read nil\n{text}"), Choice::default()).unwrap_err();
            let said = format!("{} {}", bad.key, bad.message);
            assert!(said.starts_with(says) && bad.line == Some(2), "{bad:?}");
        }
    }
}

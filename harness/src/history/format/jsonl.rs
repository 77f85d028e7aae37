//! Histories as JSON, one operation a line.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::fields::Fields;
use super::{Bad, Choice, Judged};
use crate::catalogue::nearest;
use crate::history::model::counter::{self, Counter};
use crate::history::model::guarded_set::GuardedSet;
use crate::history::model::kv::{self, Kv};
use crate::history::model::register::{self, Register};
use crate::history::model::set::{self, Set};
use crate::history::model::{Kind, Names};
use crate::history::{History, Operation};
use crate::op::ClientId;

/// Reads a history; see [`super`] for the format.
pub fn read(text: &str, choice: Choice) -> Result<Option<Judged>, Bad> {
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let lines: Vec<Fields> = lines.map(|(line, text)| Fields::read(line, text)).collect::<Result<_, _>>()?;
    if lines.is_empty() {
        return Ok(None);
    }
    let kind = match choice.kind {
        Some(kind) => kind,
        None => recognised(&lines, choice.limit).ok_or_else(|| {
            Bad::choice("model", "the operations do not tell which model it is", "say which")
        })?,
    };
    let mut names = Names::default();
    Ok(Some(match kind {
        Kind::Set => {
            let history = history(lines, kind, |op, fields, is_answered| {
                set_call(&mut names, op, fields, is_answered, true)
            })?;
            Judged::Set(Set { names }, history)
        }
        Kind::GuardedSet => {
            let history = history(lines, kind, |op, fields, is_answered| {
                set_call(&mut names, op, fields, is_answered, false)
            })?;
            Judged::GuardedSet(GuardedSet::new(choice.limit.unwrap_or_default(), names), history)
        }
        Kind::Counter => Judged::Counter(Counter, history(lines, kind, counter_call)?),
        Kind::Register => Judged::Register(Register, history(lines, kind, register_call)?),
        Kind::Kv => Judged::Kv(
            Kv,
            history(lines, kind, |op, fields, is_answered| {
                let key = fields.value("key")?;
                Ok(kv::Call { key, call: register_call(op, fields, is_answered)? })
            })?,
        ),
    }))
}

/// Infers the model from the operations, if possible.
fn recognised(lines: &[Fields], limit: Option<usize>) -> Option<Kind> {
    let ops: BTreeSet<&str> = lines.iter().filter_map(|fields| fields.text("op")).collect();
    let any = |names: &[&str]| names.iter().any(|name| ops.contains(name));
    if limit.is_some() {
        Some(Kind::GuardedSet)
    } else if any(&["put", "get", "delete"]) || lines.iter().any(|fields| fields.has("key")) {
        Some(Kind::Kv)
    } else if any(&["write", "cas"]) {
        Some(Kind::Register)
    } else if any(&["list"]) {
        Some(Kind::Set)
    } else if any(&["add"]) && any(&["read"]) {
        Some(Kind::Counter)
    } else {
        None
    }
}

/// Returns the operations of a model, each with its fields beyond the common ones.
fn operations_of(kind: Kind) -> &'static [(&'static str, &'static [&'static str])] {
    match kind {
        Kind::Set | Kind::GuardedSet => &[("add", &["value", "result"]), ("list", &["result"])],
        Kind::Counter => &[("add", &["value", "result"]), ("read", &["result"])],
        Kind::Register => {
            &[("read", &["result"]), ("write", &["value", "result"]), ("cas", &["old", "new", "result"])]
        }
        Kind::Kv => &[
            ("get", &["key", "result"]),
            ("put", &["key", "value", "result"]),
            ("delete", &["key", "result"]),
            ("cas", &["key", "old", "new", "result"]),
        ],
    }
}

/// Builds the history of these lines; `call` reads the specific fields of an operation, given whether it is answered.
fn history<C>(
    lines: Vec<Fields>,
    kind: Kind,
    mut call: impl FnMut(&str, &mut Fields, bool) -> Result<C, Bad>,
) -> Result<History<C>, Bad> {
    let known = operations_of(kind);
    let mut operations = Vec::with_capacity(lines.len());
    for mut fields in lines {
        let op = fields.take("op")?;
        let found = known.iter().find(|(name, _)| op.as_str() == Some(*name));
        let Some((op, particular)) = found else {
            let bad = fields.bad("op", format!("a {kind} has no operation {op}"));
            let names = known.iter().map(|(name, _)| *name);
            let help = match nearest(op.as_str().unwrap_or_default(), names.clone()) {
                Some(meant) => format!("did you mean {meant:?}?"),
                None => format!("it has: {}", names.collect::<Vec<_>>().join(", ")),
            };
            return Err(bad.help(help));
        };
        fields.only(&[&["client", "invoke", "return"][..], particular].concat())?;
        let client = fields.number("client")?;
        let client = ClientId::try_from(client)
            .map_err(|_| fields.bad("client", format!("{client} is too great a number for a client")))?;
        let invoked = fields.number("invoke")?;
        let returned = fields.number_or_null("return")?;
        if returned.is_none() && fields.has("result") && !fields.take("result")?.is_null() {
            return Err(fields.bad("result", "there is none where nothing returned").help("leave it out"));
        }
        let line = fields.line;
        let call = call(op, &mut fields, returned.is_some())?;
        operations.push(Operation { client, invoked, returned, call, line });
    }
    Ok(History::new(operations)?)
}

fn set_call(
    names: &mut Names,
    op: &str,
    fields: &mut Fields,
    is_answered: bool,
    may_be_left_out: bool,
) -> Result<set::Call, Bad> {
    if op == "add" {
        let record = names.number(&fields.value("value")?);
        let done = is_answered.then(|| fields.done(may_be_left_out)).transpose()?;
        return Ok(set::Call::Add { record, done });
    }
    if !is_answered {
        return Ok(set::Call::List(None));
    }
    let listed = fields.take("result")?;
    let Json::Array(listed) = listed else {
        return Err(fields.bad("result", format!("{listed} is no list of records")));
    };
    let mut records: Vec<u32> = listed.iter().map(|record| names.number(&record.to_string())).collect();
    records.sort_unstable();
    Ok(set::Call::List(Some(records)))
}

fn counter_call(op: &str, fields: &mut Fields, is_answered: bool) -> Result<counter::Call, Bad> {
    if op == "read" {
        return Ok(counter::Call::Read(is_answered.then(|| fields.signed("result")).transpose()?));
    }
    let amount = fields.signed("value")?;
    fields.acknowledged()?;
    Ok(counter::Call::Add(amount))
}

/// Reads a call of a register, or of one key.
fn register_call(op: &str, fields: &mut Fields, is_answered: bool) -> Result<register::Call, Bad> {
    Ok(match op {
        "read" | "get" => register::Call::Read(is_answered.then(|| fields.content("result")).transpose()?),
        "cas" => {
            let (old, new) = (fields.content("old")?, Some(fields.value("new")?));
            let done = is_answered.then(|| fields.done(false)).transpose()?;
            register::Call::Cas { old, new, done }
        }
        written => {
            let value = if written == "delete" { None } else { Some(fields.value("value")?) };
            fields.acknowledged()?;
            register::Call::Write(value)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(text: &str) -> String {
        let bad = read(text, Choice::default()).unwrap_err();
        let help = bad.help.map_or_else(String::new, |help| format!(" ({help})"));
        format!("{:?} {}: {}{help}", bad.line, bad.key, bad.message)
    }

    #[test]
    fn each_model_is_known_by_its_operations() {
        let kind = |text: &str| read(text, Choice::default()).unwrap().unwrap().kind();
        let put = r#"{"client":1,"op":"put","key":"k","value":"v","invoke":12,"return":19}"#;
        let cas = r#"{"client":1,"op":"cas","old":null,"new":2,"result":"refused","invoke":12,"return":19}"#;
        let add = r#"{"client":1,"op":"add","value":2,"invoke":12,"return":null}"#;
        let list = r#"{"client":2,"op":"list","result":[2],"invoke":12,"return":19}"#;
        let sum = r#"{"client":2,"op":"read","result":2,"invoke":12,"return":19}"#;
        assert_eq!(kind(put), Kind::Kv);
        assert_eq!(kind(cas), Kind::Register);
        assert_eq!(kind(&format!("{add}\n\n{list}\n")), Kind::Set);
        assert_eq!(kind(&format!("{add}\n{sum}")), Kind::Counter);
        assert!(bad(add).starts_with("None model: "), "{}", bad(add));
        let limited = Choice { limit: Some(3), ..Choice::default() };
        assert_eq!(read(list, limited).unwrap().unwrap().kind(), Kind::GuardedSet);
    }

    #[test]
    fn what_is_wrong_is_named_by_line_and_key() {
        let put = r#"{"client":1,"op":"put","key":"k","value":"v","invoke":12,"return":19}"#;
        for (from, to, says) in [
            ("\"put\"", "\"putt\"", "Some(2) op: a kv has no operation \"putt\" (did you mean \"put\"?)"),
            (
                "\"value\"",
                "\"vlaue\"",
                "Some(2) vlaue: is no field of this operation (did you mean \"value\"?)",
            ),
            ("\"invoke\":12,", "", "Some(2) invoke: is missing"),
            ("19", "11", "Some(2) return: 11 is before its invocation at 12"),
            ("12", "-1", "Some(2) invoke: -1 is no whole number from 0 on"),
            ("19", "null,\"result\":\"ok\"", "Some(2) result: there is none where nothing returned"),
            ("19", "19,\"result\":\"refused\"", "Some(2) result: this model knows no refusal"),
            ("\"v\"", "null", "Some(2) value: null stands for nothing"),
            ("}", "", "Some(2) : is no JSON"),
        ] {
            let said =
                bad(&format!("{}\n{}", put.replace("\"client\":1", "\"client\":2"), put.replace(from, to)));
            assert!(said.starts_with(says), "{said}");
        }
    }
}

//! A store of values by key: every key is a register that can also be emptied, and is judged alone.

use super::register::{self, Content, Register, shown};
use super::{Model, Pending, Value};

/// A call of one key: `put` and `delete` are writes, and `get` is a read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    /// The key.
    pub key: Value,
    /// The call on this key; a delete writes `None`.
    pub call: register::Call,
}

/// The model of the store.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kv;

impl Model for Kv {
    type State = Content;
    type Call = Call;
    type Key = Value;

    fn key(&self, call: &Call) -> Value {
        call.key.clone()
    }

    fn initial(&self) -> Content {
        Register.initial()
    }

    fn step(&self, state: &Content, call: &Call) -> Option<Content> {
        Register.step(state, &call.call)
    }

    fn only_reads(&self, call: &Call) -> bool {
        Register.only_reads(&call.call)
    }

    fn helpers(
        &self,
        state: &Content,
        goal: &Call,
        pending: &[Pending<'_, Call>],
        last: Option<&Call>,
    ) -> Vec<usize> {
        let of_the_key: Vec<Pending<'_, register::Call>> =
            pending.iter().map(|one| Pending { call: &one.call.call, left: one.left }).collect();
        Register.helpers(state, &goal.call, &of_the_key, last.map(|last| &last.call))
    }

    fn describe(&self, call: &Call) -> String {
        let key = &call.key;
        match &call.call {
            register::Call::Read(None) => format!("get {key}"),
            register::Call::Read(Some(found)) => format!("get {key} → {}", shown(found)),
            register::Call::Write(None) => format!("delete {key}"),
            register::Call::Write(value) => format!("put {key} {}", shown(value)),
            cas @ register::Call::Cas { .. } => {
                let words = Register.describe(cas);
                format!("cas {key}{}", words.strip_prefix("cas").unwrap_or(&words))
            }
        }
    }

    fn describe_state(&self, state: &Content) -> String {
        Register.describe_state(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_read_as_they_were_asked() {
        let call = |call| Kv.describe(&Call { key: "k".into(), call });
        let value = |text: &str| Some(Value::from(text));
        assert_eq!(call(register::Call::Write(value("1"))), "put k 1");
        assert_eq!(call(register::Call::Write(None)), "delete k");
        assert_eq!(call(register::Call::Read(Some(None))), "get k → null");
        let cas = register::Call::Cas { old: value("1"), new: value("2"), done: Some(false) };
        assert_eq!(call(cas), "cas k 1 2 → refused");
    }
}

//! Histories as text: one operation a line as JSON, or one event a line as Jepsen logs it.
//!
//! # One JSON object a line
//!
//! Each object describes one operation, in any order. Times are whole numbers of any unit, from one clock for all
//! clients; `return` is `null` if no answer came, and then there is no `result`. A `result` of `"ok"` may be omitted if
//! the table says so. Values are strings, numbers or any other JSON but `null`, which means no value.
//!
//! | model | fields beside `client`, `op`, `invoke` and `return` |
//! | --- | --- |
//! | `set` | `add`: `value`, `result` `"ok"` (or left out) or `"refused"`; `list`: `result` `[…]` |
//! | `guarded-set` | `add`: `value`, `result` `"ok"` or `"refused"`; `list`: `result` `[…]` |
//! | `counter` | `add`: `value`, `result` `"ok"` (or left out); `read`: `result` |
//! | `register` | `write`: `value`, `result` `"ok"` (or left out); `read`: `result`; `cas`: `old`, `new`, `result` `"ok"` or `"refused"` |
//! | `kv` | `put`: `key`, `value`, `result` `"ok"` (or left out); `delete`: `key`, `result` `"ok"` (or left out); `get`: `key`, `result`; `cas`: `key`, `old`, `new`, `result` `"ok"` or `"refused"` |
//!
//! ```json
//! {"client":1,"op":"add","value":"r1","invoke":12,"return":19}
//! {"client":2,"op":"list","result":["r1"],"invoke":20,"return":25}
//! ```
//! a `set`,
//! ```json
//! {"client":1,"op":"add","value":"r3","result":"refused","invoke":12,"return":19}
//! ```
//! a `guarded-set`,
//! ```json
//! {"client":1,"op":"add","value":-2,"invoke":12,"return":null}
//! {"client":2,"op":"read","result":5,"invoke":20,"return":25}
//! ```
//! a `counter`,
//! ```json
//! {"client":1,"op":"cas","old":1,"new":2,"result":"refused","invoke":12,"return":19}
//! {"client":2,"op":"read","result":null,"invoke":20,"return":25}
//! ```
//! a `register`, and
//! ```json
//! {"client":1,"op":"put","key":"k","value":"v","invoke":12,"return":19}
//! {"client":2,"op":"get","key":"k","result":"v","invoke":20,"return":25}
//! ```
//! a `kv`. The model is inferred from the operations, if possible.
//!
//! # Jepsen's logs of a register
//!
//! See [`edn`].

pub mod edn;
mod fields;
pub mod jsonl;

use super::model::counter::{self, Counter};
use super::model::guarded_set::GuardedSet;
use super::model::kv::{self, Kv};
use super::model::register::{self, Register};
use super::model::set::{self, Set};
use super::model::{Kind, Model};
use super::{History, Invalid, Verdict, judge, unique};

/// A history with the model to judge it by.
#[derive(Clone, Debug)]
pub enum Judged {
    /// A set.
    Set(Set, History<set::Call>),
    /// A counter.
    Counter(Counter, History<counter::Call>),
    /// A register.
    Register(Register, History<register::Call>),
    /// A store of values by key.
    Kv(Kv, History<kv::Call>),
    /// A set with a limit.
    GuardedSet(GuardedSet, History<set::Call>),
}

impl Judged {
    /// Returns the kind of its model.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Set(..) => Kind::Set,
            Self::Counter(..) => Kind::Counter,
            Self::Register(..) => Kind::Register,
            Self::Kv(..) => Kind::Kv,
            Self::GuardedSet(..) => Kind::GuardedSet,
        }
    }

    /// Returns the number of operations, and of those that never returned.
    pub fn counts(&self) -> (usize, usize) {
        fn of<C>(history: &History<C>) -> (usize, usize) {
            (history.operations().len(), history.indeterminate())
        }
        match self {
            Self::Set(_, history) | Self::GuardedSet(_, history) => of(history),
            Self::Counter(_, history) => of(history),
            Self::Register(_, history) => of(history),
            Self::Kv(_, history) => of(history),
        }
    }

    /// Returns the verdict, within `bound` steps if a search is needed.
    pub fn verdict(&self, bound: u64) -> Verdict {
        fn searched<M: Model>(model: &M, history: &History<M::Call>, bound: u64) -> Verdict {
            judge(model, history, bound)
        }
        match self {
            Self::Set(model, history) => {
                unique::judge(model, history).unwrap_or_else(|| searched(model, history, bound))
            }
            Self::Counter(model, history) => searched(model, history, bound),
            Self::Register(model, history) => searched(model, history, bound),
            Self::Kv(model, history) => searched(model, history, bound),
            Self::GuardedSet(model, history) => searched(model, history, bound),
        }
    }
}

/// An error in the text of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// Line, from 1; `None` if the error is about the choice of the model.
    pub line: Option<usize>,
    /// Key; empty if the error is about the whole line.
    pub key: String,
    /// Description of the error.
    pub message: String,
    /// Hint for a correction.
    pub help: Option<String>,
}

impl Bad {
    fn new(line: usize, key: &str, message: impl Into<String>) -> Self {
        Self { line: Some(line), key: key.to_owned(), message: message.into(), help: None }
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Creates an error about the choice of the model.
    fn choice(key: &str, message: &str, help: &str) -> Self {
        Self { line: None, ..Self::new(0, key, message) }.help(help)
    }
}

impl From<Invalid> for Bad {
    fn from(invalid: Invalid) -> Self {
        Self::new(invalid.line, invalid.key, invalid.message)
    }
}

/// Settings for judging a history, as far as given.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice {
    /// The model.
    pub kind: Option<Kind>,
    /// The limit of a guarded set.
    pub limit: Option<usize>,
}

/// Reads a history in either format, detected by its first line; `None` if it is empty.
pub fn read(text: &str, choice: Choice) -> Result<Option<Judged>, Bad> {
    if choice.limit.is_some() && choice.kind.is_some_and(|kind| kind != Kind::GuardedSet) {
        return Err(Bad::choice(
            "limit",
            "only a guarded-set has a limit",
            "leave it out, or choose that model",
        ));
    }
    if choice.limit.is_none() && choice.kind == Some(Kind::GuardedSet) {
        return Err(Bad::choice("limit", "is missing", "say how many records the guarded-set takes"));
    }
    let is_edn = text.lines().find(|line| !line.trim().is_empty()).is_some_and(edn::is_event);
    if is_edn { edn::read(text, choice) } else { jsonl::read(text, choice) }
}

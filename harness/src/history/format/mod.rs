//! Histories as text: one operation a line as JSON, or one event a line as Jepsen logs it.
//!
//! # One JSON object a line
//!
//! Each tells of one operation, in any order. Times are whole numbers of any unit, by one clock for all clients; `return`
//! is `null` where no answer ever came, and then there is no `result`. A `result` of `"ok"` may be left out where the
//! table says so. Values are strings, numbers or any other JSON but `null`, which stands for nothing.
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
//! a `kv`. Which model it is follows from the operations, where they tell.
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

/// A history with the model that it is to be judged by.
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
    /// Its model's name.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Set(..) => Kind::Set,
            Self::Counter(..) => Kind::Counter,
            Self::Register(..) => Kind::Register,
            Self::Kv(..) => Kind::Kv,
            Self::GuardedSet(..) => Kind::GuardedSet,
        }
    }

    /// How many operations there are, and how many of them never returned.
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

    /// The verdict, within `bound` steps where it takes a search.
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

/// What is wrong with a text that was to be a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// The line, from 1; `None` where it is about the choice of the model.
    pub line: Option<usize>,
    /// The key; empty where it is about the whole line.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What would be right.
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

    /// The model is to be chosen in another way.
    fn choice(key: &str, message: &str, help: &str) -> Self {
        Self { line: None, ..Self::new(0, key, message) }.help(help)
    }
}

impl From<Invalid> for Bad {
    fn from(invalid: Invalid) -> Self {
        Self::new(invalid.line, invalid.key, invalid.message)
    }
}

/// How a history is to be judged, as far as that was said.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice {
    /// The model.
    pub kind: Option<Kind>,
    /// The limit of a guarded set.
    pub limit: Option<usize>,
}

/// Reads a history in either format, which its first line tells; `None` where nothing is in it.
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

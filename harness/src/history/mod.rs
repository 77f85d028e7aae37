//! Histories of concurrent operations, and whether some order of them explains every answer: linearizability.
//!
//! An operation takes effect at one moment between its invocation and its return (Herlihy and Wing, "Linearizability: a
//! correctness condition for concurrent objects", TOPLAS 12(3), 1990). So two operations are ordered only where one
//! returned before the other was invoked, and a history is right where some order of its operations keeps to that and
//! gives every answer that was given, by a sequential [`model`]. An operation that never returned is indeterminate: it
//! takes effect at any moment after its invocation, or never.
//!
//! | step | file | in → out |
//! | --- | --- | --- |
//! | 1 | [`mod@format`] | text → [`format::Judged`]: a history with its model |
//! | 2 | [`unique`] | a set of unique records → [`Verdict`], in time proportional to the history, sorting aside |
//! | 3 | [`partition`], [`search`] | any history → [`Verdict`], key by key, within a bound |
//! | 4 | [`explanation`] | what fits nowhere → a sentence to read |

use std::collections::BTreeMap;
use std::fmt;

use crate::op::ClientId;

#[cfg(test)]
mod brute_force;
pub mod explanation;
pub mod format;
mod hash;
pub mod model;
pub mod partition;
pub mod search;
pub mod unique;

pub use explanation::Explanation;
pub use partition::judge;

/// One operation of a history: a call of a model, with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation<C> {
    /// Who asked.
    pub client: ClientId,
    /// When, by any clock that all clients share.
    pub invoked: u64,
    /// When the answer was there; `None` where none ever came.
    pub returned: Option<u64>,
    /// What was asked and answered: with its answer where one came, else without.
    pub call: C,
    /// The line that tells of it, from 1; 0 where it was not read from a text.
    pub line: usize,
}

impl<C> Operation<C> {
    /// Whether it had ended before `other` began.
    pub fn precedes(&self, other: &Self) -> bool {
        self.returned.is_some_and(|returned| returned < other.invoked)
    }
}

/// Operations that can be judged: each returns after it was invoked, and no client has two answers on their way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History<C> {
    operations: Vec<Operation<C>>,
}

/// What keeps operations from being a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The line of the operation.
    pub line: usize,
    /// Which of its times it is about.
    pub key: &'static str,
    /// What is wrong.
    pub message: String,
}

impl<C> History<C> {
    /// The history of these operations, in any order.
    pub fn new(operations: Vec<Operation<C>>) -> Result<Self, Invalid> {
        let mut answered: BTreeMap<ClientId, Vec<(u64, u64, usize)>> = BTreeMap::new();
        for operation in &operations {
            let Some(returned) = operation.returned else { continue };
            if returned < operation.invoked {
                let message = format!("{returned} is before its invocation at {}", operation.invoked);
                return Err(Invalid { line: operation.line, key: "return", message });
            }
            answered.entry(operation.client).or_default().push((operation.invoked, returned, operation.line));
        }
        for (client, mut spans) in answered {
            spans.sort_unstable();
            for pair in spans.windows(2) {
                let ((_, returned, before), (invoked, _, line)) = (pair[0], pair[1]);
                if invoked < returned {
                    let message = format!(
                        "client {client} asks at {invoked}, before its operation of line {before} returned at {returned}"
                    );
                    return Err(Invalid { line, key: "invoke", message });
                }
            }
        }
        Ok(Self { operations })
    }

    /// The operations, as they were given.
    pub fn operations(&self) -> &[Operation<C>] {
        &self.operations
    }

    /// How many of them never returned.
    pub fn indeterminate(&self) -> usize {
        self.operations.iter().filter(|operation| operation.returned.is_none()).count()
    }
}

/// What judging a history comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// An order of the operations explains every answer.
    Linearizable,
    /// No order does.
    Violated(Explanation),
    /// It could not be told, for this reason.
    Unknown(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linearizable => out.write_str("linearizable"),
            Self::Violated(explanation) => write!(out, "not linearizable: {explanation}"),
            Self::Unknown(why) => write!(out, "not known: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(client: ClientId, invoked: u64, returned: Option<u64>, line: usize) -> Operation<()> {
        Operation { client, invoked, returned, call: (), line }
    }

    #[test]
    fn an_operation_returns_no_earlier_than_it_was_invoked() {
        assert!(History::new(vec![operation(1, 5, Some(5), 1)]).is_ok());
        let wrong = History::new(vec![operation(1, 5, Some(5), 1), operation(2, 5, Some(4), 2)]).unwrap_err();
        assert_eq!((wrong.line, wrong.key), (2, "return"));
    }

    #[test]
    fn a_client_waits_for_its_answer_unless_none_ever_comes() {
        let wrong = History::new(vec![operation(1, 3, Some(9), 1), operation(1, 1, Some(4), 2)]).unwrap_err();
        assert_eq!((wrong.line, wrong.key), (1, "invoke"));
        assert!(wrong.message.contains("line 2"), "{}", wrong.message);
        assert!(History::new(vec![operation(1, 1, Some(4), 1), operation(1, 4, Some(9), 2)]).is_ok());
        assert!(History::new(vec![operation(1, 1, None, 1), operation(1, 2, Some(9), 2)]).is_ok());
        assert!(History::new(vec![operation(1, 1, Some(4), 1), operation(2, 2, Some(3), 2)]).is_ok());
    }
}

//! Histories of concurrent operations, and whether some order of them explains every answer: linearizability.
//!
//! An operation takes effect at one moment between its invocation and its return (Herlihy and Wing, "Linearizability: a
//! correctness condition for concurrent objects", TOPLAS 12(3), 1990). So two operations are ordered only if one
//! returned before the other was invoked. A history is linearizable if some order of its operations respects this and
//! gives every recorded answer by a sequential [`model`]. An operation that never returned is indeterminate: it takes
//! effect at any moment after its invocation, or never.
//!
//! | step | file | in → out |
//! | --- | --- | --- |
//! | 1 | [`mod@format`] | text → [`format::Judged`]: a history with its model |
//! | 2 | [`unique`] | a set of unique records → [`Verdict`], in linear time apart from sorting |
//! | 3 | [`partition`], [`search`] | any history → [`Verdict`], key by key, within a bound |
//! | 4 | [`explanation`] | an operation that fits no order → a readable sentence |

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
    /// The client that invoked it.
    pub client: ClientId,
    /// Time of the invocation, by any clock that all clients share.
    pub invoked: u64,
    /// Time of the return; `None` if it never returned.
    pub returned: Option<u64>,
    /// The call, with its answer if there is one.
    pub call: C,
    /// Line that records it, from 1; 0 if it was not read from a text.
    pub line: usize,
}

impl<C> Operation<C> {
    /// Returns whether it returned before `other` was invoked.
    pub fn precedes(&self, other: &Self) -> bool {
        self.returned.is_some_and(|returned| returned < other.invoked)
    }
}

/// Well-formed operations: each returns after its invocation, and no client has two answered operations at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History<C> {
    operations: Vec<Operation<C>>,
}

/// Why operations are not a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The line of the operation.
    pub line: usize,
    /// The time that is wrong.
    pub key: &'static str,
    /// Error message.
    pub message: String,
}

impl<C> History<C> {
    /// Makes a history of these operations, in any order.
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

    /// Returns the operations in the given order.
    pub fn operations(&self) -> &[Operation<C>] {
        &self.operations
    }

    /// Returns the number of operations that never returned.
    pub fn indeterminate(&self) -> usize {
        self.operations.iter().filter(|operation| operation.returned.is_none()).count()
    }
}

/// Result of judging a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// An order of the operations explains every answer.
    Linearizable,
    /// No order explains every answer.
    Violated(Explanation),
    /// Not decided, for this reason.
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

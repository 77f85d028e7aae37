//! Why a history is not linearizable, in a sentence to read.

use std::fmt;

use super::Operation;
use super::model::Model;
use crate::op::ClientId;

/// Maximum number of concurrent operations that are listed.
const NAMED: usize = 6;

/// One operation, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Client of the operation.
    pub client: ClientId,
    /// Call and answer.
    pub call: String,
    /// Time of the invocation.
    pub invoked: u64,
    /// Time of the return.
    pub returned: Option<u64>,
    /// Line in the text, from 1; 0 if it was not read from a text.
    pub line: usize,
}

impl Described {
    /// Describes an operation in the terms of its model.
    pub fn new<M: Model>(model: &M, operation: &Operation<M::Call>) -> Self {
        Self {
            client: operation.client,
            call: model.describe(&operation.call),
            invoked: operation.invoked,
            returned: operation.returned,
            line: operation.line,
        }
    }
}

/// Includes the times, unless in the alternate form.
impl fmt::Display for Described {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "`{}` of client {}", self.call, self.client)?;
        if out.alternate() {
            return Ok(());
        }
        write!(out, " ({}..", self.invoked)?;
        match self.returned {
            Some(returned) => write!(out, "{returned}")?,
            None => out.write_str("?")?,
        }
        if self.line > 0 {
            write!(out, ", line {}", self.line)?;
        }
        out.write_str(")")
    }
}

/// Reason why a history is not linearizable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Operation whose answer fits nowhere.
    pub culprit: Described,
    /// The problem, in a few words that follow its name.
    pub why: String,
    /// Number of operations of its part that had returned by then, itself included: these alone cannot be ordered any
    /// more.
    pub prefix: usize,
    /// Informative operations of its part that ran concurrently with it, the answered ones first.
    pub beside: Vec<Described>,
}

impl Explanation {
    /// Explains that `culprit` fits nowhere among `part`, the operations related to it.
    pub fn new<'a, M: Model>(
        model: &M,
        culprit: &'a Operation<M::Call>,
        why: String,
        part: impl Iterator<Item = &'a Operation<M::Call>> + Clone,
    ) -> Self {
        let ended = |one: &&Operation<M::Call>| one.returned.is_some() && one.returned <= culprit.returned;
        let tells = |one: &Operation<M::Call>| one.returned.is_some() || !model.only_reads(&one.call);
        let is_beside = |one: &&Operation<M::Call>| {
            !std::ptr::eq(*one, culprit) && !one.precedes(culprit) && !culprit.precedes(one) && tells(one)
        };
        let mut beside: Vec<&Operation<M::Call>> = part.clone().filter(is_beside).collect();
        beside.sort_by_key(|one| one.returned.is_none());
        Self {
            culprit: Described::new(model, culprit),
            why,
            prefix: part.filter(ended).count(),
            beside: beside.into_iter().map(|one| Described::new(model, one)).collect(),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |one: &Described| if out.alternate() { format!("{one:#}") } else { one.to_string() };
        let (culprit, named): (String, Vec<String>) =
            (shown(&self.culprit), self.beside.iter().take(NAMED).map(shown).collect());
        write!(out, "{culprit} {}", self.why)?;
        match self.beside.as_slice() {
            [] => out.write_str("; nothing ran beside it"),
            beside => {
                write!(out, "; beside it ran {}", named.join(", "))?;
                match beside.len() - named.len() {
                    0 => Ok(()),
                    more => write!(out, " and {more} more"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::model::counter::{Call, Counter};

    #[test]
    fn it_names_the_operation_its_interval_and_what_ran_beside_it() {
        let operation =
            |client, invoked, returned, call| Operation { client, invoked, returned, call, line: 0 };
        let all = [
            operation(1, 0, Some(1), Call::Add(1)),
            operation(2, 2, Some(5), Call::Read(Some(7))),
            operation(1, 5, None, Call::Add(2)),
            operation(3, 6, Some(7), Call::Add(3)),
        ];
        let explained = Explanation::new(&Counter, &all[1], "is wrong".into(), all.iter());
        assert_eq!(explained.prefix, 2);
        assert_eq!(
            explained.to_string(),
            "`read → 7` of client 2 (2..5) is wrong; beside it ran `add 2` of client 1 (5..?)"
        );
    }
}

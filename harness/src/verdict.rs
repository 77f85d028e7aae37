//! Defines the judgement of one execution and the verdict over all of them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The verdict on an invariant over a whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every execution that could have violated it was judged, and none did.
    Holds,
    /// At least one execution violates it.
    Violated,
    /// Nothing was judged, or something could not be judged.
    Inconclusive,
    /// The target lacks what the invariant is about; known before anything runs.
    NotApplicable,
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Holds => "holds",
            Self::Violated => "violated",
            Self::Inconclusive => "inconclusive",
            Self::NotApplicable => "not-applicable",
        })
    }
}

/// The judgement of one execution on one invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It could have violated the invariant and did not.
    Holds,
    /// It violates the invariant; one sentence that names the records, files or clients.
    Violated(String),
    /// It could not be judged, for this reason.
    Inconclusive(String),
    /// Nothing in it could have violated the invariant.
    NotExercised,
}

/// The judgements of all executions on one invariant, added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Executions that could have violated it and were judged.
    pub judged: u64,
    /// Executions that violate it: index into the run's observations, and what was observed.
    pub violations: Vec<(usize, String)>,
    /// First reason why an execution could not be judged.
    pub doubt: Option<String>,
}

impl Tally {
    /// Adds the judgement of execution `index`.
    pub fn add(&mut self, index: usize, judgement: Judgement) {
        match judgement {
            Judgement::Holds => self.judged += 1,
            Judgement::Violated(seen) => {
                self.judged += 1;
                self.violations.push((index, seen));
            }
            Judgement::Inconclusive(reason) => {
                self.doubt.get_or_insert(reason);
            }
            Judgement::NotExercised => {}
        }
    }

    /// Returns the verdict: a violation takes precedence, then a doubt; it never holds if nothing was judged.
    pub fn verdict(&self) -> Verdict {
        if !self.violations.is_empty() {
            Verdict::Violated
        } else if self.doubt.is_some() || self.judged == 0 {
            Verdict::Inconclusive
        } else {
            Verdict::Holds
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_of_nothing_is_inconclusive_and_silence_does_not_count() {
        let mut tally = Tally::default();
        assert_eq!(tally.verdict(), Verdict::Inconclusive);
        tally.add(0, Judgement::NotExercised);
        assert_eq!((tally.verdict(), tally.judged), (Verdict::Inconclusive, 0));
        tally.add(1, Judgement::Holds);
        assert_eq!((tally.verdict(), tally.judged), (Verdict::Holds, 1));
    }

    #[test]
    fn a_doubt_outweighs_what_holds_and_a_violation_outweighs_both() {
        let mut tally = Tally::default();
        tally.add(0, Judgement::Holds);
        tally.add(1, Judgement::Inconclusive("first".into()));
        tally.add(2, Judgement::Inconclusive("second".into()));
        assert_eq!((tally.verdict(), tally.doubt.as_deref()), (Verdict::Inconclusive, Some("first")));
        tally.add(3, Judgement::Violated("seen".into()));
        assert_eq!((tally.verdict(), tally.judged), (Verdict::Violated, 2));
    }
}

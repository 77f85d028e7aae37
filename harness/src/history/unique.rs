//! A set of unique records, judged without a search, in the time that it takes to read and sort the history.
//!
//! If every record is added at most once and none is removed, the lists alone determine the order. Each list has all
//! records that are in at its moment, so in any order that explains them the lists grow, and lists with different
//! contents have one order: the contents must be a chain under inclusion, C₁ ⊂ C₂ ⊂ … ⊂ Cₖ, of records that some client
//! added. A record of Cᵢ that is not in Cᵢ₋₁ is added after all lists with content Cᵢ₋₁ and before all with Cᵢ; a
//! record that is in no list is added after the last of them if it was acknowledged, and never if it was not. This
//! gives blocks of operations, adds and lists alternating, and any order that explains the answers goes through them
//! one after the other. Conversely, any order that does so explains all answers. Operations within a block do not
//! affect each other.
//!
//! So the history is linearizable exactly if no operation of a later block returned before one of an earlier block was
//! invoked. Sorted by block and then by invocation the operations respect real time, because within a block an
//! operation that returned before another was invoked was also invoked before it. One pass that keeps the latest
//! invocation so far decides this. A refused add changes nothing and may be anywhere; an unanswered list is no
//! evidence.
//!
//! That a set needs no search is a case of the result of Emmi and Enea ("Sound, complete, and tractable linearizability
//! monitoring for concurrent collections", POPL 2018) for collections.

use super::explanation::Described;
use super::model::set::{Call, Set};
use super::{Explanation, History, Operation, Verdict};

/// The operation that is wrong, and why.
type Wrong = (usize, String);

/// Judges a set if its records are unique; returns `None` if one is added twice, which requires a search.
pub fn judge(model: &Set, history: &History<Call>) -> Option<Verdict> {
    let operations = history.operations();
    let mut records = Records::of_adds(operations)?;
    let wrong = match blocks(model, operations, &mut records) {
        Ok(blocks) => out_of_order(operations, &blocks)
            .map(|(early, late)| explain(model, operations, &records, early, late)),
        Err(wrong) => Some(wrong),
    };
    Some(wrong.map_or(Verdict::Linearizable, |(at, why)| {
        Verdict::Violated(Explanation::new(model, &operations[at], why, operations.iter()))
    }))
}

/// Returns the operations, each with the number of its block: adds and lists alternate.
fn blocks(
    model: &Set,
    operations: &[Operation<Call>],
    records: &mut Records,
) -> Result<Vec<(usize, usize)>, Wrong> {
    let answered = operations.iter().enumerate().filter(|(_, operation)| operation.returned.is_some());
    let mut lists: Vec<(usize, &[u32])> = answered
        .filter_map(|(at, operation)| match &operation.call {
            Call::List(Some(listed)) => Some((at, listed.as_slice())),
            Call::List(None) | Call::Add { .. } => None,
        })
        .collect();
    lists.sort_by_key(|(_, listed)| listed.len());

    let mut blocks: Vec<(usize, usize)> = Vec::with_capacity(operations.len());
    let mut block = 0;
    let mut before = None;
    for (at, listed) in lists {
        let (mut known, mut new) = (0, Vec::new());
        for record in listed {
            let name = || model.names.name(*record);
            match records.see(*record, at) {
                Seen::Unknown => return Err((at, format!("tells of {}, which nobody put in", name()))),
                Seen::Again => return Err((at, format!("tells of {} twice", name()))),
                Seen::Known => known += 1,
                Seen::New(add) => new.push(add),
            }
        }
        if let Some(before) = before
            && known < records.listed
        {
            return Err((at, apart(model, &operations[at], &operations[before])));
        }
        if !new.is_empty() || before.is_none() {
            records.listed += new.len();
            blocks.extend(new.iter().map(|add| (block, *add)));
            block += 2;
        }
        blocks.push((block - 1, at));
        before = Some(at);
    }
    let never_listed = (0..operations.len()).filter(|at| match &operations[*at].call {
        Call::Add { record, done: Some(true) } => records.first_list(*record).is_none(),
        _ => false,
    });
    blocks.extend(never_listed.map(|at| (block, at)));
    Ok(blocks)
}

/// Returns an operation of a later block that returned before one of an earlier block was invoked: the earlier and the
/// later in real time. `blocks` are sorted by their first part.
fn out_of_order(operations: &[Operation<Call>], blocks: &[(usize, usize)]) -> Option<(usize, usize)> {
    let mut latest: Option<usize> = None;
    for block in blocks.chunk_by(|one, other| one.0 == other.0) {
        for (_, at) in block {
            if let Some(latest) = latest
                && operations[*at].precedes(&operations[latest])
            {
                return Some((*at, latest));
            }
        }
        for (_, at) in block {
            if latest.is_none_or(|latest| operations[latest].invoked < operations[*at].invoked) {
                latest = Some(*at);
            }
        }
    }
    None
}

/// Explains the violation if `early` returned before `late` was invoked but has to come after it: which of the two is
/// wrong, and why.
fn explain(
    model: &Set,
    operations: &[Operation<Call>],
    records: &Records,
    early: usize,
    late: usize,
) -> Wrong {
    let name = |record: &u32| model.names.name(*record);
    let told = |at: usize| Described::new(model, &operations[at]);
    match (&operations[early].call, &operations[late].call) {
        (Call::Add { record, .. }, Call::List(_)) => {
            (late, format!("does not tell of {}, which was in before: {}", name(record), told(early)))
        }
        (Call::List(_), Call::Add { record, .. }) => {
            (early, format!("tells of {} before anybody put it in: {}", name(record), told(late)))
        }
        (Call::List(_), Call::List(_)) => {
            (late, format!("{}, which had ended before", apart(model, &operations[late], &operations[early])))
        }
        (Call::Add { record: first, .. }, Call::Add { record: second, .. }) => {
            // A list of the block between them; there is one, because the later record is in a list.
            let list = records.first_list(*second).unwrap_or(late);
            let why = format!(
                "tells of {} and not of {}, which was in before that was put in: {}",
                name(second),
                name(first),
                told(early)
            );
            (list, why)
        }
    }
}

/// Describes that the one list lacks records of the other.
fn apart(model: &Set, one: &Operation<Call>, other: &Operation<Call>) -> String {
    let (Call::List(Some(here)), Call::List(Some(there))) = (&one.call, &other.call) else {
        return String::new();
    };
    let lacks: Vec<u32> =
        there.iter().filter(|record| here.binary_search(record).is_err()).copied().collect();
    format!(
        "does not tell of {} and is beside {}",
        model.names.some(lacks.into_iter()),
        Described::new(model, other)
    )
}

/// State of a record while the lists are read.
enum Seen {
    /// No client added it.
    Unknown,
    /// This list already has it.
    Again,
    /// A shorter list has it.
    Known,
    /// This is the first list that has it; index of its add.
    New(usize),
}

/// The records, by their numbers.
struct Records {
    all: Vec<Record>,
    /// Number of records in the lists read so far, without the current one.
    listed: usize,
}

#[derive(Clone, Copy, Default)]
struct Record {
    add: Option<usize>,
    first: Option<usize>,
    last: Option<usize>,
}

impl Records {
    /// Collects the records to be added; returns `None` if one was added twice.
    fn of_adds(operations: &[Operation<Call>]) -> Option<Self> {
        let mut all: Vec<Record> = Vec::new();
        for (at, operation) in operations.iter().enumerate() {
            if let Call::Add { record, done: None | Some(true) } = operation.call {
                let record = record as usize;
                if all.len() <= record {
                    all.resize(record + 1, Record::default());
                }
                if all[record].add.replace(at).is_some() {
                    return None;
                }
            }
        }
        Some(Self { all, listed: 0 })
    }

    /// Records that the list has this record.
    fn see(&mut self, record: u32, list: usize) -> Seen {
        let Some(Record { add: Some(add), first, last }) = self.all.get_mut(record as usize) else {
            return Seen::Unknown;
        };
        if last.replace(list) == Some(list) {
            Seen::Again
        } else if first.is_some() {
            Seen::Known
        } else {
            *first = Some(list);
            Seen::New(*add)
        }
    }

    /// Returns the smallest list that has it.
    fn first_list(&self, record: u32) -> Option<usize> {
        self.all.get(record as usize).and_then(|record| record.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::model::Names;

    fn judged(calls: &[(u64, Option<u64>, Call)]) -> String {
        let operation = |(client, (invoked, returned, call)): (u32, &(u64, Option<u64>, Call))| Operation {
            client,
            invoked: *invoked,
            returned: *returned,
            call: call.clone(),
            line: 0,
        };
        let mut names = Names::default();
        for name in ["a", "b", "c"] {
            names.number(name);
        }
        let history = History::new((1..).zip(calls).map(operation).collect()).unwrap();
        judge(&Set { names }, &history).map_or_else(|| "a search".into(), |verdict| verdict.to_string())
    }

    fn add(record: u32) -> Call {
        Call::Add { record, done: Some(true) }
    }

    fn list(records: &[u32]) -> Call {
        Call::List(Some(records.into()))
    }

    #[test]
    fn each_kind_of_violation_is_told_by_what_is_wrong() {
        for (calls, says) in [
            (
                vec![(0, Some(1), add(0)), (2, Some(3), list(&[]))],
                "`list → []` of client 2 (2..3) does not tell of a",
            ),
            (vec![(0, Some(1), list(&[0])), (2, Some(3), add(0))], "tells of a before anybody put it in"),
            (vec![(0, Some(1), list(&[0]))], "tells of a, which nobody put in"),
            (vec![(0, Some(1), add(0)), (2, Some(3), list(&[0, 0]))], "tells of a twice"),
            (
                vec![
                    (0, None, Call::Add { record: 0, done: None }),
                    (1, Some(2), list(&[0])),
                    (3, Some(4), list(&[])),
                ],
                "`list → []` of client 3 (3..4) does not tell of [a]",
            ),
            (
                vec![
                    (0, Some(9), add(0)),
                    (0, Some(9), add(1)),
                    (0, Some(9), list(&[0])),
                    (0, Some(9), list(&[1])),
                ],
                "does not tell of [a]",
            ),
            (
                vec![(0, Some(1), add(0)), (2, Some(9), add(1)), (0, Some(9), list(&[1]))],
                "`list → [b]` of client 3 (0..9) tells of b and not of a",
            ),
            (
                vec![(0, Some(1), Call::Add { record: 0, done: Some(false) }), (2, Some(9), list(&[0]))],
                "tells of a, which nobody put in",
            ),
        ] {
            let judged = judged(&calls);
            assert!(judged.contains(says), "{says:?} is not said in: {judged}");
        }
    }

    #[test]
    fn what_overlaps_may_come_in_any_order_and_what_is_unanswered_late_or_never() {
        let unanswered = |record| Call::Add { record, done: None };
        for calls in [
            vec![],
            vec![(0, Some(5), add(0)), (5, Some(6), list(&[]))],
            vec![(0, None, unanswered(0)), (5, Some(6), list(&[])), (7, Some(8), list(&[0]))],
            vec![(0, None, unanswered(0)), (5, Some(6), list(&[]))],
            vec![(0, Some(1), add(0)), (2, None, Call::List(None))],
        ] {
            assert_eq!(judged(&calls), "linearizable");
        }
    }

    #[test]
    fn a_record_that_is_added_twice_takes_a_search() {
        assert_eq!(judged(&[(0, Some(1), add(0)), (2, Some(3), add(0))]), "a search");
    }
}

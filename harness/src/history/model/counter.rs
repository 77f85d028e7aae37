//! A counter from 0 on, that can be added to and read.

use super::{Model, Pending};

/// A call of a counter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// Adds this amount, which may be negative.
    Add(i64),
    /// Reads the sum; `None` if unanswered.
    Read(Option<i64>),
}

/// The model of a counter. Sums are wider than the amounts, so they do not overflow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counter;

impl Model for Counter {
    type State = i128;
    type Call = Call;
    type Key = ();

    fn key(&self, _: &Call) {}

    fn initial(&self) -> i128 {
        0
    }

    fn step(&self, state: &i128, call: &Call) -> Option<i128> {
        match call {
            Call::Add(amount) => Some(state + i128::from(*amount)),
            Call::Read(None) => Some(*state),
            Call::Read(Some(sum)) => (i128::from(*sum) == *state).then_some(*state),
        }
    }

    fn only_reads(&self, call: &Call) -> bool {
        matches!(call, Call::Read(_) | Call::Add(0))
    }

    /// Additions commute, so a row of them is sorted in ascending order. It ends if the remaining calls cannot make up
    /// the difference.
    fn helpers(
        &self,
        state: &i128,
        goal: &Call,
        pending: &[Pending<'_, Call>],
        last: Option<&Call>,
    ) -> Vec<usize> {
        let Call::Read(Some(sum)) = goal else { return Vec::new() };
        let least = match last {
            Some(Call::Add(amount)) => *amount,
            _ => i64::MIN,
        };
        let (mut up, mut down) = (0, 0);
        let mut helpers = Vec::new();
        for (index, one) in pending.iter().enumerate() {
            let Call::Add(amount) = *one.call else { continue };
            if amount < least || amount == 0 {
                continue;
            }
            let all = if amount > 0 { &mut up } else { &mut down };
            *all += i128::from(amount) * one.left as i128;
            helpers.push(index);
        }
        let difference = i128::from(*sum) - state;
        // All further amounts are at least `least`: if that is positive, an amount must not exceed the difference.
        helpers.retain(|index| match *pending[*index].call {
            Call::Add(amount) => amount < 0 || i128::from(amount) <= difference,
            Call::Read(_) => false,
        });
        if (down..=up).contains(&difference) { helpers } else { Vec::new() }
    }

    fn describe(&self, call: &Call) -> String {
        match call {
            Call::Add(amount) => format!("add {amount}"),
            Call::Read(None) => "read".into(),
            Call::Read(Some(sum)) => format!("read → {sum}"),
        }
    }

    fn describe_state(&self, state: &i128) -> String {
        state.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_tells_the_sum() {
        let sum = Counter.step(&2, &Call::Add(-5)).unwrap();
        assert_eq!(Counter.step(&sum, &Call::Read(Some(-3))), Some(-3));
        assert_eq!(Counter.step(&sum, &Call::Read(Some(2))), None);
    }

    #[test]
    fn what_cannot_make_up_the_difference_does_not_help() {
        let calls = [Call::Add(2), Call::Add(5)];
        let pending: Vec<Pending<'_, Call>> = calls.iter().map(|call| Pending { call, left: 2 }).collect();
        let helpers = |sum, last| Counter.helpers(&0, &Call::Read(Some(sum)), &pending, last);
        assert_eq!(helpers(14, None), [0, 1]);
        assert_eq!(helpers(4, None), [0]);
        assert_eq!(helpers(9, Some(&calls[1])), [1]);
        assert!(helpers(15, None).is_empty() && helpers(-1, None).is_empty());
    }
}

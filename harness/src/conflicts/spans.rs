//! Maps ranges of numbers to values; ranges split when ranges with other bounds are updated.

use std::collections::BTreeMap;
use std::ops::Range;

/// Values by range: each number has at most one.
#[derive(Clone, Debug)]
pub(super) struct Spans<T>(BTreeMap<u64, (u64, T)>);

impl<T> Default for Spans<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Clone> Spans<T> {
    /// Replaces the value of each part of `range` with the result of `value`, which gets the old value, if any.
    pub(super) fn update(
        &mut self,
        range: &Range<u64>,
        mut value: impl FnMut(Range<u64>, Option<T>) -> Option<T>,
    ) {
        self.split(range.start);
        self.split(range.end);
        let inside: Vec<(u64, u64)> =
            self.0.range(range.clone()).map(|(start, (end, _))| (*start, *end)).collect();
        let mut at = range.start;
        for (start, end) in inside {
            if at < start {
                self.set(at..start, value(at..start, None));
            }
            let old = self.0.remove(&start).map(|(_, old)| old);
            self.set(start..end, value(start..end, old));
            at = end;
        }
        if at < range.end {
            self.set(at..range.end, value(at..range.end, None));
        }
    }

    /// Returns the values within `range`.
    pub(super) fn within(&self, range: &Range<u64>) -> impl Iterator<Item = &T> {
        let before = self.0.range(..range.start).next_back().filter(|(_, (end, _))| *end > range.start);
        before.into_iter().chain(self.0.range(range.clone())).map(|(_, (_, value))| value)
    }

    fn set(&mut self, range: Range<u64>, value: Option<T>) {
        if let Some(value) = value {
            self.0.insert(range.start, (range.end, value));
        }
    }

    fn split(&mut self, at: u64) {
        let before = self.0.range_mut(..at).next_back().filter(|(_, (end, _))| *end > at);
        if let Some((_, (end, value))) = before {
            let second = (*end, value.clone());
            *end = at;
            self.0.insert(at, second);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_range_have_values_of_their_own() {
        let mut spans: Spans<&str> = Spans::default();
        spans.update(&(2..10), |_, _| Some("a"));
        let mut seen = Vec::new();
        spans.update(&(4..12), |range, old| {
            seen.push((range, old));
            old.map(|_| "b")
        });
        assert_eq!(seen, [(4..10, Some("a")), (10..12, None)]);
        let within = |range: Range<u64>| spans.within(&range).copied().collect::<Vec<_>>();
        assert_eq!((within(0..2), within(3..4), within(0..20)), (vec![], vec!["a"], vec!["a", "b"]));
        assert_eq!((within(9..10), within(10..20)), (vec!["b"], vec![]));
    }
}

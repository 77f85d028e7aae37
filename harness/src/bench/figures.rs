//! Summarizes repeated measurements as minimum, median and maximum.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// A figure is meaningless if its runs are further apart than this share of their median.
const NOISY: f64 = 0.3;
/// Significant digits of a latency.
const DIGITS: u8 = 3;

/// A figure over several runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The median.
    pub median: f64,
    /// The minimum.
    pub least: f64,
    /// The maximum.
    pub most: f64,
}

impl Figure {
    /// Summarizes these runs; all zero if there are none.
    pub fn of(runs: &[f64]) -> Self {
        let mut sorted = runs.to_vec();
        sorted.sort_by(f64::total_cmp);
        match (sorted.first(), sorted.last()) {
            (Some(least), Some(most)) => Self { median: median(&sorted), least: *least, most: *most },
            _ => Self::default(),
        }
    }

    /// Whether its runs are too far apart to distinguish it from another figure.
    pub fn is_noisy(&self) -> bool {
        self.most - self.least > self.median * NOISY
    }
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// Quantiles of a duration, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// The median.
    pub p50: u64,
    /// The 99th percentile.
    pub p99: u64,
    /// The 99.9th percentile.
    pub p999: u64,
    /// The maximum.
    pub max: u64,
}

/// A histogram of latencies.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        // Three digits and a growing range are always allowed.
        Self(Histogram::new(DIGITS).unwrap_or_else(|_| unreachable!("three digits are allowed")))
    }
}

impl Latencies {
    /// Adds `count` latencies of `nanos` nanoseconds.
    pub fn add(&mut self, nanos: u64, count: u64) {
        // The range grows, so no value is out of it.
        let _added = self.0.record_n(nanos, count);
    }

    /// Returns each recorded latency with its count.
    pub fn seen(&self) -> Vec<(u64, u64)> {
        self.0.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
    }

    /// Returns the quantiles.
    pub fn latency(&self) -> Latency {
        let at = |quantile| self.0.value_at_quantile(quantile);
        Latency { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: self.0.max() }
    }

    /// Returns the median; `None` if there are no latencies.
    pub fn median(&self) -> Option<u64> {
        (!self.0.is_empty()).then(|| self.0.value_at_quantile(0.5))
    }
}

/// Computes Jain's index of fairness (Jain, Chiu, Hawe, 1984): square of the sum / (number × sum of the squares).
pub fn jain(shares: &[f64]) -> f64 {
    let (sum, squares) =
        shares.iter().fold((0.0, 0.0), |(sum, squares), one| (sum + one, squares + one * one));
    if squares == 0.0 { 1.0 } else { sum * sum / (shares.len() as f64 * squares) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jains_index_is_one_where_all_have_the_same_and_a_share_where_one_has_it_all() {
        assert_eq!(jain(&[3.0, 3.0, 3.0]), 1.0);
        assert_eq!(jain(&[5.0, 0.0, 0.0, 0.0]), 0.25);
        assert_eq!(jain(&[]), 1.0);
    }

    #[test]
    fn a_figure_is_the_median_and_noisy_where_its_runs_lie_far_apart() {
        let figure = Figure::of(&[100.0, 90.0, 110.0]);
        assert_eq!(figure, Figure { median: 100.0, least: 90.0, most: 110.0 });
        assert!(!figure.is_noisy() && Figure::of(&[100.0, 60.0, 110.0]).is_noisy());
        assert_eq!(Figure::of(&[1.0, 2.0]).median, 1.5);
    }

    #[test]
    fn latencies_keep_three_digits_and_the_longest() {
        let mut all = Latencies::default();
        all.add(1_000, 990);
        all.add(5_000_000, 10);
        let latency = all.latency();
        assert!(latency.p50 / 10 == 100 && latency.p999 > 4_990_000 && latency.max >= 5_000_000);
        assert_eq!(all.seen().iter().map(|(_, count)| count).sum::<u64>(), 1_000);
    }
}

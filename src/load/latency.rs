//! How long answers took: a histogram a thread, merged when the run is over.

use hdrhistogram::Histogram;

/// Times in nanoseconds, to three digits.
#[derive(Clone, Debug)]
pub struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(LEAST_NS, MOST_NS, 3);
        Self(histogram.expect("the bounds are constants, in order and at three digits"))
    }
}

/// Below this, times are not told apart.
const LEAST_NS: u64 = 100;

/// One hour; what takes longer counts as that.
const MOST_NS: u64 = 3_600_000_000_000;

impl Latency {
    #[inline]
    pub fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns);
    }

    pub fn merge(&mut self, other: &Self) {
        self.0 += &other.0;
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time within which this percentage was answered, in microseconds.
    pub fn at(&self, percentile: f64) -> f64 {
        us(self.0.value_at_percentile(percentile))
    }

    pub fn max(&self) -> f64 {
        us(self.0.max())
    }

    pub fn mean(&self) -> f64 {
        self.0.mean() / 1e3
    }
}

fn us(ns: u64) -> f64 {
    ns as f64 / 1e3
}

/// Percentiles for a plot, ever denser towards 100, as far as `count` values can tell them apart.
pub fn percentiles(count: u64) -> Vec<f64> {
    if count == 0 {
        return Vec::new();
    }
    let digits = (count as f64).log10();
    let steps = (0..).map(|step| f64::from(step) / STEPS_PER_DIGIT);
    let mut list: Vec<f64> = steps
        .take_while(|digit| *digit < digits)
        .map(|digit| 100.0 * (1.0 - 10f64.powf(-digit)))
        .collect();
    list.push(100.0);
    list
}

const STEPS_PER_DIGIT: f64 = 16.0;

/// The latencies of one kind of message, counted in both ways.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    /// From the time at which the plan said to send. A server that stalls also delays what would
    /// have been sent meanwhile, and this sees it ("coordinated omission").
    pub corrected: Latency,
    /// From the time of sending.
    pub uncorrected: Latency,
}

impl Latencies {
    #[inline]
    pub fn record(&mut self, planned: u64, sent: u64, now: u64) {
        self.corrected.record(now.saturating_sub(planned));
        self.uncorrected.record(now.saturating_sub(sent));
    }

    pub fn merge(&mut self, other: &Self) {
        self.corrected.merge(&other.corrected);
        self.uncorrected.merge(&other.uncorrected);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_told_in_microseconds_to_three_digits() {
        let (mut one, mut two) = (Latency::default(), Latency::default());
        for us in 1..=1000u64 {
            let half = if us % 2 == 0 { &mut one } else { &mut two };
            half.record(us * 1000);
        }
        one.merge(&two);
        assert_eq!(one.count(), 1000);
        for (percentile, expected) in [(50.0, 500.0), (99.0, 990.0), (100.0, 1000.0)] {
            let found = one.at(percentile);
            assert!((found / expected - 1.0).abs() < 2e-3, "{found} {expected}");
        }
        assert!((one.mean() - 500.5).abs() < 1.0);
    }

    #[test]
    fn a_late_message_counts_from_when_it_was_planned() {
        let mut latencies = Latencies::default();
        latencies.record(1_000_000, 5_000_000, 6_000_000);
        assert!((latencies.corrected.max() / 5000.0 - 1.0).abs() < 2e-3);
        assert!((latencies.uncorrected.max() / 1000.0 - 1.0).abs() < 2e-3);
    }

    #[test]
    fn plotted_percentiles_rise_up_to_what_the_count_can_tell() {
        let list = percentiles(1_000_000);
        assert!(list.is_sorted_by(|a, b| a < b));
        assert_eq!((list[0], list.last()), (0.0, Some(&100.0)));
        assert!(list[list.len() - 2] > 99.999 && list.len() < 110);
        assert_eq!(percentiles(1), [100.0]);
        assert!(percentiles(0).is_empty());
    }
}

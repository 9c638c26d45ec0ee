//! How long turns took: a histogram that no single word holds, and so is published now and then.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::{
    Block, Counter,
    page::{Page, sample},
};

/// Upper bounds of the published histogram, in microseconds.
const BOUNDS_US: [u64; 10] = [
    50, 200, 500, 1_000, 5_000, 20_000, 50_000, 100_000, 250_000, 1_000_000,
];

/// The published turn times of one reactor, by one clock.
#[derive(Debug, Default)]
pub struct TurnCounters {
    within: [Counter; BOUNDS_US.len() + 1],
    total_us: Counter,
    longest_us: Counter,
}

/// The turn times of one reactor, by one clock. Recorded by the reactor, published into its block.
#[derive(Debug)]
pub struct TurnTimes {
    histogram: Histogram<u64>,
    total_us: u64,
    longest_us: u64,
    changed: bool,
}

impl Default for TurnTimes {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, 60_000_000, 1);
        let histogram = histogram.expect("one minute in microseconds at one digit is valid");
        Self {
            histogram,
            total_us: 0,
            longest_us: 0,
            changed: false,
        }
    }
}

impl TurnTimes {
    #[inline]
    pub fn record(&mut self, turn: Duration) {
        let us = u64::try_from(turn.as_micros()).unwrap_or(u64::MAX);
        self.histogram.saturating_record(us);
        self.total_us = self.total_us.saturating_add(us);
        self.longest_us = self.longest_us.max(us);
        self.changed = true;
    }

    /// Whether something was recorded since the last publishing.
    pub fn is_stale(&self) -> bool {
        self.changed
    }

    pub fn publish(&mut self, counters: &TurnCounters) {
        let mut low = 0;
        for (bound, counter) in BOUNDS_US.iter().zip(&counters.within) {
            counter.set(self.histogram.count_between(low, *bound));
            // A cell that reaches beyond the bound was counted with it, whole.
            low = self.histogram.next_non_equivalent(*bound);
        }
        counters.within[BOUNDS_US.len()].set(self.histogram.count_between(low, u64::MAX));
        counters.total_us.set(self.total_us);
        counters.longest_us.set(self.longest_us);
        self.changed = false;
    }
}

impl Page<'_> {
    /// The turn times of all reactors by one clock, `name` and `took` telling which.
    pub(super) fn turns(&mut self, name: &str, took: &str, of: impl Fn(&Block) -> &TurnCounters) {
        let blocks = self
            .registry
            .blocks
            .iter()
            .map(|block| of(block))
            .enumerate();
        let series = format!("{name}_seconds");
        let help = format!("How long the turns of each reactor {took}.");
        self.head(&series, "histogram", &help);
        for (reactor, turns) in blocks.clone() {
            let mut count = 0;
            for (index, counter) in turns.within.iter().enumerate() {
                count += counter.load();
                let bound = BOUNDS_US.get(index).map(|bound| *bound as f64 / 1e6);
                let bound = bound.map_or("+Inf".to_owned(), |bound| bound.to_string());
                let label = format_args!("{{reactor=\"{reactor}\",le=\"{bound}\"}}");
                sample(&mut self.out, &format!("{series}_bucket"), label, count);
            }
            let seconds = turns.total_us.load() as f64 / 1e6;
            let label = format_args!("{{reactor=\"{reactor}\"}}");
            sample(&mut self.out, &format!("{series}_sum"), label, seconds);
            sample(&mut self.out, &format!("{series}_count"), label, count);
        }
        let series = format!("{name}_longest_seconds");
        self.gauge(&series, &format!("The longest that a turn {took} so far."));
        for (reactor, turns) in blocks {
            let seconds = turns.longest_us.load() as f64 / 1e6;
            let label = format_args!("{{reactor=\"{reactor}\"}}");
            sample(&mut self.out, &series, label, seconds);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Labels, Process, Registry};

    #[test]
    fn cpu_times_are_told_only_when_they_are_measured() {
        for turn_cpu in [false, true] {
            let registry = Registry::new(
                1,
                Labels {
                    turn_cpu,
                    ..Labels::default()
                },
            );
            let mut turns = TurnTimes::default();
            turns.record(Duration::from_micros(12_345));
            turns.record(Duration::from_micros(7));
            turns.publish(&registry.block(0).turns_cpu);
            let page = registry.prometheus(&Process::default());
            for line in [
                "tidemill_turn_cpu_seconds_bucket{reactor=\"0\",le=\"0.02\"} 2",
                "tidemill_turn_cpu_seconds_sum{reactor=\"0\"} 0.012352",
                "tidemill_turn_cpu_longest_seconds{reactor=\"0\"} 0.012345",
            ] {
                assert_eq!(page.contains(line), turn_cpu, "{line} in\n{page}");
            }
            assert!(page.contains("tidemill_turn_longest_seconds{reactor=\"0\"} 0\n"));
        }
    }

    #[test]
    fn a_turn_at_a_bound_is_counted_once() {
        for bound in BOUNDS_US {
            for us in [bound - 1, bound, bound + 1] {
                let mut turns = TurnTimes::default();
                turns.record(Duration::from_micros(us));
                let counters = TurnCounters::default();
                turns.publish(&counters);
                let count: u64 = counters.within.iter().map(Counter::load).sum();
                assert_eq!(count, 1, "a turn of {us} us");
            }
        }
    }
}

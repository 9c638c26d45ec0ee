//! How much one connection may send: a leaky bucket for messages and one for bytes, side by side.
//!
//! A [`Level`] rises with what was received and sinks as time passes; a connection is over when a
//! level has reached the capacity, which is what the rate allows in one burst. The amount is not
//! looked at beforehand: a message that is larger than what is left gets through and is paid for
//! afterwards, so that a rate below the size of one message slows a peer down and never bars it.
//!
//! Levels are whole numbers, and exact: one unit is what a rate of one a second lets through in a
//! tick, so that a rate of R a second sinks R units a tick. A limit that is off charges nothing and
//! has the highest capacity there is; the hot path therefore has no branch for it.

/// What a connection may receive, as its operator says it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Messages and control frames a second; 0 = off.
    pub messages_per_second: usize,
    /// Bytes a second; 0 = off.
    pub bytes_per_second: usize,
    /// For how long unused rate is saved up. Less than a tick counts as one, because a shorter
    /// burst than the clock can tell would cut the rate.
    pub burst_ticks: u32,
    pub ticks_per_second: u32,
}

/// What one connection has used of its rates. All zero: nothing, or nothing lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    messages: u32,
    bytes: u32,
}

/// The rates that hold for every connection.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    messages: Bucket,
    bytes: Bucket,
    /// 2^63 / units a message, rounded up: multiplying by it replaces a division.
    per_message: u64,
}

impl Rates {
    /// `None` when both limits are off.
    ///
    /// Bounds: a rate beyond 2^31 a second counts as that, and no burst saves up more than that
    /// many units: at ten ticks a second, 204 MiB.
    pub fn new(limits: Limits) -> Option<Self> {
        if limits.messages_per_second == 0 && limits.bytes_per_second == 0 {
            return None;
        }
        let messages = Bucket::new(limits.messages_per_second, &limits);
        Some(Self {
            messages,
            bytes: Bucket::new(limits.bytes_per_second, &limits),
            per_message: (1 << 63) / u64::from(messages.cost.max(1)) + 1,
        })
    }

    /// So many ticks have passed.
    #[inline]
    pub fn leak(&self, level: &mut Level, ticks: u32) {
        if ticks == 0 {
            return;
        }
        let messages = self.messages.leak.saturating_mul(ticks);
        let bytes = self.bytes.leak.saturating_mul(ticks);
        level.messages = level.messages.saturating_sub(messages);
        level.bytes = level.bytes.saturating_sub(bytes);
    }

    /// How many messages may be handled before the connection is over; 0 when it is, by messages
    /// or by bytes. `u32::MAX` when messages are not limited.
    #[inline]
    pub fn allowance(&self, level: &Level) -> u32 {
        if self.is_over(level) {
            return 0;
        }
        // Not over, so there is at least one unit; the message that takes the last one may have it.
        let spare = self.messages.capacity - level.messages - 1;
        let whole = (u128::from(spare) * u128::from(self.per_message)) >> 63;
        whole as u32 + 1
    }

    /// As [`Rates::allowance`], but `u32::MAX` when so many received bytes cannot hold more
    /// messages than that: nearly always, and cheaper to find out.
    #[inline]
    pub fn allowance_within(&self, level: &Level, bytes: usize) -> u32 {
        // RFC 6455, 5.2: the shortest frame of a client has six bytes.
        let most = (bytes as u64 / 4 + 1) * u64::from(self.messages.cost);
        let has_room = u64::from(level.messages) + most < u64::from(self.messages.capacity);
        if has_room & (level.bytes < self.bytes.capacity) {
            return u32::MAX;
        }
        self.allowance(level)
    }

    /// So much was received; says whether the connection is over. A level stops at its highest
    /// value, far beyond any capacity.
    #[inline]
    pub fn charge(&self, level: &mut Level, messages: u32, bytes: u32) -> bool {
        let add = |level: u32, count: u32, cost: u32| {
            let sum = u64::from(level) + u64::from(count) * u64::from(cost);
            sum.min(u64::from(u32::MAX)) as u32
        };
        level.messages = add(level.messages, messages, self.messages.cost);
        level.bytes = add(level.bytes, bytes, self.bytes.cost);
        self.is_over(level)
    }

    /// Whether nothing more may be received for now.
    #[inline]
    pub fn is_over(&self, level: &Level) -> bool {
        level.messages >= self.messages.capacity || level.bytes >= self.bytes.capacity
    }

    /// After how many ticks the connection is no longer over: at least 1 when it is, else 0.
    pub fn ticks_until_under(&self, level: &Level) -> u32 {
        let messages = self.messages.ticks_until_under(level.messages);
        messages.max(self.bytes.ticks_until_under(level.bytes))
    }
}

/// One of the two limits, in units.
///
/// Invariant: `leak` and `capacity` are not 0. With `cost` 0 a level never leaves 0, and the
/// capacity is out of reach.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// What a tick takes off the level.
    leak: u32,
    /// What one message or byte adds to the level.
    cost: u32,
    capacity: u32,
}

impl Bucket {
    fn new(per_second: usize, limits: &Limits) -> Self {
        if per_second == 0 {
            return Self {
                leak: u32::MAX,
                cost: 0,
                capacity: u32::MAX,
            };
        }
        let leak = per_second.min(UNITS_MAX as usize) as u32;
        let cost = limits.ticks_per_second.clamp(1, UNITS_MAX);
        let burst = leak.saturating_mul(limits.burst_ticks.max(1));
        Self {
            leak,
            cost,
            capacity: burst.clamp(cost, UNITS_MAX),
        }
    }

    fn ticks_until_under(&self, level: u32) -> u32 {
        match level.checked_sub(self.capacity) {
            Some(excess) => excess / self.leak + 1,
            None => 0,
        }
    }
}

/// Half of what a level can hold, so that one which is over still knows by how much.
const UNITS_MAX: u32 = 1 << 31;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same promise told in time instead of levels: each message or byte moves the moment at
    /// which all is paid for, and a connection is over when that moment is a burst away. The clock
    /// counts in `1 / (rate * ticks_per_second)` of a second, in which everything is whole.
    struct Model {
        rate: u128,
        ticks_per_second: u128,
        burst: u128,
        now: u128,
        paid: u128,
    }

    impl Model {
        fn new(rate: usize, limits: &Limits) -> Self {
            let (rate, ticks_per_second) = (rate as u128, u128::from(limits.ticks_per_second));
            let burst = rate * u128::from(limits.burst_ticks);
            Self {
                rate,
                ticks_per_second,
                burst: burst.max(ticks_per_second),
                now: 0,
                paid: 0,
            }
        }

        fn pass(&mut self, ticks: u32) {
            self.now += self.rate * u128::from(ticks);
        }

        fn charge(&mut self, amount: u32) {
            self.paid = self.paid.max(self.now) + self.ticks_per_second * u128::from(amount);
        }

        fn is_over(&self) -> bool {
            self.rate > 0 && self.paid >= self.now + self.burst
        }
    }

    fn limits(messages: usize, bytes: usize, burst_ticks: u32) -> Limits {
        Limits {
            messages_per_second: messages,
            bytes_per_second: bytes,
            burst_ticks,
            ticks_per_second: 10,
        }
    }

    fn any_limits() -> impl Strategy<Value = Limits> {
        let rate = || prop_oneof![Just(0usize), 1usize..50, 1usize..200_000];
        (rate(), rate(), 1u32..601, 1u32..101)
            .prop_filter("both off", |(messages, bytes, ..)| messages + bytes > 0)
            .prop_map(|(messages, bytes, burst, ticks_per_second)| Limits {
                messages_per_second: messages,
                bytes_per_second: bytes,
                burst_ticks: burst,
                ticks_per_second,
            })
    }

    proptest! {
        #[test]
        fn a_level_agrees_with_a_clock_that_counts_fractions(
            limits in any_limits(),
            steps in prop::collection::vec((0u32..30, 0u32..40, 0u32..70_000), 1..200),
        ) {
            let rates = Rates::new(limits).unwrap();
            let mut level = Level::default();
            let mut messages = Model::new(limits.messages_per_second, &limits);
            let mut bytes = Model::new(limits.bytes_per_second, &limits);
            for (ticks, count, length) in steps {
                let ticks = ticks.saturating_sub(15);
                rates.leak(&mut level, ticks);
                messages.pass(ticks);
                bytes.pass(ticks);
                let is_over = messages.is_over() || bytes.is_over();
                prop_assert_eq!(rates.is_over(&level), is_over);
                prop_assert_eq!(rates.allowance(&level) == 0, is_over);
                if !is_over {
                    let count = count.min(rates.allowance(&level));
                    rates.charge(&mut level, count, length);
                    messages.charge(count);
                    bytes.charge(length);
                }
            }
        }

        #[test]
        fn the_allowance_is_what_it_takes_to_be_over(
            limits in any_limits(),
            messages_per_second in 1usize..200_000,
            used in 0u32..300,
            ticks in 0u32..20,
        ) {
            let rates = Rates::new(Limits { messages_per_second, ..limits }).unwrap();
            let mut level = Level::default();
            rates.charge(&mut level, used, 0);
            rates.leak(&mut level, ticks);
            let allowance = rates.allowance(&level);
            let after = |messages: u32| {
                let mut level = level;
                rates.charge(&mut level, messages, 0);
                rates.is_over(&level)
            };
            prop_assert!(after(allowance));
            prop_assert!(allowance == 0 || !after(allowance - 1));
        }

        #[test]
        fn so_many_bytes_hold_no_more_messages_than_are_allowed(
            limits in any_limits(),
            used in 0u32..300,
            bytes in 0usize..140_000,
        ) {
            let rates = Rates::new(limits).unwrap();
            let mut level = Level::default();
            rates.charge(&mut level, used, used);
            let allowance = rates.allowance(&level);
            match rates.allowance_within(&level, bytes) {
                u32::MAX => prop_assert!(allowance as usize >= bytes / 6),
                within => prop_assert_eq!(within, allowance),
            }
        }

        #[test]
        fn the_wait_is_over_at_the_tick_it_names_and_not_before(
            limits in any_limits(),
            messages in 0u32..100_000,
            bytes in 0u32..10_000_000,
        ) {
            let rates = Rates::new(limits).unwrap();
            let mut level = Level::default();
            rates.charge(&mut level, messages, bytes);
            let wait = rates.ticks_until_under(&level);
            prop_assert_eq!(wait > 0, rates.is_over(&level));
            let after = |ticks: u32| {
                let mut level = level;
                rates.leak(&mut level, ticks);
                rates.is_over(&level)
            };
            prop_assert!(!after(wait));
            prop_assert!(wait == 0 || after(wait - 1));
        }

        #[test]
        fn no_value_overflows(
            rate in any::<(usize, usize)>(),
            burst_ticks in any::<u32>(),
            ticks_per_second in any::<u32>(),
            steps in prop::collection::vec(any::<(u32, u32, u32)>(), 1..20),
        ) {
            let limits = Limits {
                messages_per_second: rate.0,
                bytes_per_second: rate.1,
                burst_ticks,
                ticks_per_second,
            };
            let Some(rates) = Rates::new(limits) else {
                return Ok(());
            };
            let mut level = Level::default();
            for (messages, bytes, ticks) in steps {
                rates.charge(&mut level, messages, bytes);
                rates.leak(&mut level, ticks);
                prop_assert_eq!(rates.allowance(&level) == 0, rates.is_over(&level));
            }
            rates.charge(&mut level, u32::MAX, u32::MAX);
            prop_assert!(rates.is_over(&level));
            let wait = rates.ticks_until_under(&level);
            rates.leak(&mut level, wait);
            prop_assert!(!rates.is_over(&level));
        }
    }

    #[test]
    fn a_level_costs_eight_bytes_and_zeroed_memory_is_a_fresh_one() {
        assert_eq!(size_of::<Level>(), 8);
        let fresh = Level {
            messages: 0,
            bytes: 0,
        };
        assert_eq!(Level::default(), fresh);
    }

    #[test]
    fn without_rates_there_is_nothing_to_count() {
        assert!(Rates::new(limits(0, 0, 10)).is_none());
    }

    #[test]
    fn what_is_not_limited_is_never_over() {
        let mut level = Level::default();
        let rates = Rates::new(limits(0, 1000, 10)).unwrap();
        assert_eq!(rates.allowance(&level), u32::MAX);
        rates.charge(&mut level, u32::MAX, 999);
        assert_eq!(rates.allowance(&level), u32::MAX);
        rates.charge(&mut level, 0, 1);
        assert_eq!(rates.allowance(&level), 0);
        let rates = Rates::new(limits(10, 0, 10)).unwrap();
        let mut level = Level::default();
        rates.charge(&mut level, 9, u32::MAX);
        assert_eq!(rates.allowance(&level), 1);
    }

    #[test]
    fn a_message_larger_than_the_burst_gets_through_and_is_paid_for() {
        let rates = Rates::new(limits(0, 1000, 1)).unwrap();
        let mut level = Level::default();
        assert!(!rates.is_over(&level));
        rates.charge(&mut level, 1, 50_000);
        // 49.9 s until the level is at the capacity, and a tick to be below it.
        assert_eq!(rates.ticks_until_under(&level), 500);
        rates.leak(&mut level, 499);
        assert!(rates.is_over(&level));
        rates.leak(&mut level, 1);
        assert!(!rates.is_over(&level));
    }

    #[test]
    fn one_message_a_second_is_not_rounded_away() {
        let rates = Rates::new(limits(1, 0, 1)).unwrap();
        let mut level = Level::default();
        let mut handled = 0;
        for _ in 0..10 * 3600 {
            let allowance = rates.allowance(&level).min(1);
            rates.charge(&mut level, allowance, 0);
            handled += allowance;
            rates.leak(&mut level, 1);
        }
        // One more than an hour's worth: the bucket was empty when it began.
        assert_eq!(handled, 3601);
    }
}

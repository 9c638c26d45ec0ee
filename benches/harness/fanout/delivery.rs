//! What a crowd is told to do and what it reports: lines of a pipe.

use std::io;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::exchange::histogram;

/// Bursts of publications, the next one when the last is with every subscriber.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Order {
    /// Publications in a burst.
    pub in_flight: usize,
    pub payload_bytes: usize,
    pub duration: Duration,
    /// From burst to burst at least.
    pub interval: Duration,
    pub waiting: Waiting,
}

/// How the crowd waits for deliveries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Waiting {
    /// Whoever delivers to it while it sleeps has to wake it, which is then a part of a delivery.
    Asleep,
    /// It looks again and again.
    Awake,
}

/// What became of an order.
pub struct Delivered {
    /// Publications, counted for each subscriber.
    pub count: u64,
    pub wall: Duration,
    /// The payload of each delivery, in bytes.
    pub push_bytes: usize,
    /// From the burst's beginning, in nanoseconds.
    pub latency: Histogram<u64>,
}

impl Order {
    pub fn to_line(self) -> String {
        format!(
            "{} {} {} {} {}",
            self.in_flight,
            self.payload_bytes,
            self.duration.as_nanos(),
            self.interval.as_nanos(),
            u8::from(self.waiting == Waiting::Awake)
        )
    }

    /// # Errors
    /// A line that no order was written as.
    pub fn from_line(line: &str) -> io::Result<Self> {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let mut next = || numbers.next()?.ok();
        let mut order = || {
            Some(Self {
                in_flight: next()? as usize,
                payload_bytes: next()? as usize,
                duration: Duration::from_nanos(next()?),
                interval: Duration::from_nanos(next()?),
                waiting: match next()? {
                    0 => Waiting::Asleep,
                    _ => Waiting::Awake,
                },
            })
        };
        order().ok_or_else(|| io::Error::other(format!("not an order: {line:?}")))
    }
}

impl Delivered {
    pub fn to_line(&self) -> String {
        let mut line = format!(
            "{} {} {}",
            self.count,
            self.wall.as_nanos(),
            self.push_bytes
        );
        for value in self.latency.iter_recorded() {
            let (at, count) = (value.value_iterated_to(), value.count_at_value());
            line.push_str(&format!(" {at}:{count}"));
        }
        line
    }

    /// # Errors
    /// A line that no report was written as.
    pub fn from_line(line: &str) -> io::Result<Self> {
        let wrong = || io::Error::other(format!("not a report: {line:?}"));
        let mut words = line.split_whitespace();
        let mut next = || words.next()?.parse::<u64>().ok();
        let [count, wall, push_bytes] = [next(), next(), next()];
        let mut latency = histogram()?;
        for word in words {
            let (at, count) = word.split_once(':').ok_or_else(wrong)?;
            let number = |text: &str| text.parse().map_err(|_| wrong());
            latency.saturating_record_n(number(at)?, number(count)?);
        }
        Ok(Self {
            count: count.ok_or_else(wrong)?,
            wall: Duration::from_nanos(wall.ok_or_else(wrong)?),
            push_bytes: push_bytes.ok_or_else(wrong)? as usize,
            latency,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_what_was_meant() {
        let order = Order {
            in_flight: 16,
            payload_bytes: 100,
            duration: Duration::from_millis(1500),
            interval: Duration::ZERO,
            waiting: Waiting::Awake,
        };
        assert_eq!(Order::from_line(&order.to_line()).unwrap(), order);
        assert!(Order::from_line("16 100 3 4").is_err());
        let mut latency = histogram().unwrap();
        for value in [1, 1, 300, 70_000, 123_456_789] {
            latency.saturating_record(value);
        }
        let delivered = Delivered {
            count: 5,
            wall: Duration::from_nanos(17),
            push_bytes: 170,
            latency,
        };
        let read = Delivered::from_line(&delivered.to_line()).unwrap();
        assert_eq!(
            (read.count, read.wall, read.push_bytes),
            (5, delivered.wall, 170)
        );
        assert!(read.latency == delivered.latency);
        assert!(Delivered::from_line("5 17 170 x").is_err());
    }
}

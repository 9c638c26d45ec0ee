//! The echo load by a plan: messages leave when the plan says so, however late answers are.
//!
//! A connection has one message in flight. Where the plan is ahead of the answers, the next message
//! leaves with the answer, and its latency counts from when it should have left.

use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::exchange::histogram;
use crate::socket::{Epoll, PATIENCE};

/// Open connections with one message in flight each, whatever they speak.
pub trait Lanes {
    fn count(&self) -> usize;

    /// Where their edges show, by index.
    fn epoll(&mut self) -> &mut Epoll;

    /// Sends the next message of a connection that waits for nothing.
    ///
    /// # Errors
    /// What the kernel refuses.
    fn send(&mut self, index: usize) -> io::Result<()>;

    /// Follows an edge; when the message was sent, if its answer is now complete.
    ///
    /// # Errors
    /// What the kernel refuses, and anything wrong about an answer.
    fn receive(&mut self, index: usize) -> io::Result<Option<Instant>>;
}

/// Connections that take turns.
pub struct PacedLoad<L> {
    lanes: L,
    interval: Duration,
}

/// What became of the plan.
pub struct PacedOutcome {
    pub count: u64,
    pub wall: Duration,
    /// From when the plan had a message sent, in nanoseconds.
    pub planned: Histogram<u64>,
    /// From when it was sent, in nanoseconds.
    pub sent: Histogram<u64>,
}

/// How far one run has come.
struct Plan {
    begin: Instant,
    interval: Duration,
    connections: u64,
    /// All messages of the plan.
    total: u64,
    /// Messages that each connection has sent.
    sent: Vec<u64>,
    in_flight: Vec<bool>,
}

impl<L: Lanes> PacedLoad<L> {
    /// Has the connections send `rate` messages a second together.
    pub fn new(lanes: L, rate: u32) -> Self {
        Self {
            lanes,
            interval: Duration::from_secs(1) / rate,
        }
    }

    /// Carries out a plan of `duration` and waits for every answer.
    ///
    /// # Errors
    /// What the kernel refuses, and anything wrong about an answer.
    pub fn run(&mut self, duration: Duration) -> io::Result<PacedOutcome> {
        let mut outcome = PacedOutcome {
            count: 0,
            wall: Duration::ZERO,
            planned: histogram()?,
            sent: histogram()?,
        };
        let mut plan = Plan::new(self.lanes.count(), self.interval, duration);
        let mut next = 0;
        let mut heard = plan.begin;
        while outcome.count < plan.total {
            let now = Instant::now();
            while next < plan.total && plan.due(next) <= now {
                let index = (next % plan.connections) as usize;
                if !plan.in_flight[index] {
                    self.send(index, &mut plan)?;
                }
                next += 1;
            }
            let pause = match next < plan.total {
                true => plan.due(next).saturating_duration_since(Instant::now()),
                false => PATIENCE,
            };
            let ready = self.lanes.epoll().wait_for(pause)?;
            for number in 0..ready {
                let index = self.lanes.epoll().edge(number).index;
                self.receive(index, &mut plan, &mut outcome)?;
            }
            let now = Instant::now();
            if ready > 0 {
                heard = now;
            } else if now.duration_since(heard) > PATIENCE {
                return Err(io::Error::other("messages were lost: no answer"));
            }
        }
        outcome.wall = plan.begin.elapsed();
        Ok(outcome)
    }

    fn send(&mut self, index: usize, plan: &mut Plan) -> io::Result<()> {
        self.lanes.send(index)?;
        plan.sent[index] += 1;
        plan.in_flight[index] = true;
        Ok(())
    }

    /// Takes an answer in, and sends what should have left by now.
    fn receive(
        &mut self,
        index: usize,
        plan: &mut Plan,
        outcome: &mut PacedOutcome,
    ) -> io::Result<()> {
        let Some(sent) = self.lanes.receive(index)? else {
            return Ok(());
        };
        let now = Instant::now();
        let nanoseconds = |since| now.saturating_duration_since(since).as_nanos() as u64;
        let planned = plan.due(plan.number(index, plan.sent[index] - 1));
        outcome.planned.saturating_record(nanoseconds(planned));
        outcome.sent.saturating_record(nanoseconds(sent));
        outcome.count += 1;
        plan.in_flight[index] = false;
        let following = plan.number(index, plan.sent[index]);
        if following < plan.total && plan.due(following) <= now {
            self.send(index, plan)?;
        }
        Ok(())
    }
}

impl Plan {
    fn new(connections: usize, interval: Duration, duration: Duration) -> Self {
        Self {
            begin: Instant::now(),
            interval,
            connections: connections as u64,
            total: (duration.as_nanos() / interval.as_nanos().max(1)) as u64,
            sent: vec![0; connections],
            in_flight: vec![false; connections],
        }
    }

    /// The place in the plan of a connection's message.
    fn number(&self, index: usize, message: u64) -> u64 {
        message * self.connections + index as u64
    }

    fn due(&self, number: u64) -> Instant {
        self.begin + Duration::from_nanos(self.interval.as_nanos() as u64 * number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_take_turns_and_each_has_its_place_in_the_plan() {
        let interval = Duration::from_micros(500);
        let plan = Plan::new(64, interval, Duration::from_secs(1));
        assert_eq!(plan.total, 2000);
        for number in 0..plan.total {
            let (message, index) = (number / 64, (number % 64) as usize);
            assert_eq!(plan.number(index, message), number);
            assert_eq!(plan.due(number) - plan.begin, interval * number as u32);
        }
    }
}

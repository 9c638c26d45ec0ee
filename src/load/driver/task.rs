//! What a driver does next: the orders of the conductor, step by step, each in its time.

use super::{Awaited, Connection, Core, Done, Driver, Ends};
use crate::{load::plan::Pace, slots::Key};

/// Steps taken in one turn before the sockets are looked at again.
const STEPS_PER_TURN_MAX: usize = 256;

/// What the conductor wants. Each but `Cut` is answered by [`Done`].
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// Open all connections.
    Open,
    /// Exchange messages until this time, then wait for the answers; nanoseconds since the epoch.
    Exchange { until: u64 },
    /// Open and close until this time.
    Churn { until: u64 },
    /// Publish in this time, on one connection of the first thread; the others listen.
    Publish { from: u64, until: u64 },
    /// Ask each connection for one answer.
    Probe(Probe),
    /// Close all connections: in order, or at once.
    Close { abruptly: bool },
    /// Finish the present order as soon as may be.
    Cut,
    /// Say what was found out, and end.
    End,
}

/// What every connection is asked for once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    Message,
    Ping,
}

/// An order under way. Times are nanoseconds since the epoch.
#[derive(Debug)]
pub enum Task {
    Idle,
    Open {
        began: u64,
        next: usize,
        end: usize,
    },
    Exchange {
        until: u64,
        began: u64,
        /// Messages planned so far, in an open loop.
        planned: u64,
        /// Where the walk over the connections is.
        slot: u32,
    },
    /// The plan is over; the answers to what was sent may still come.
    Collect {
        until: u64,
    },
    Churn {
        until: u64,
        began: u64,
        planned: u64,
    },
    /// Nothing to do for those who do not publish.
    Listen,
    Publish {
        until: u64,
        began: u64,
        planned: u64,
        by: Key,
    },
    Probe {
        probe: Probe,
        slot: u32,
        /// When the last progress was, and how many were outstanding then.
        moved: u64,
        outstanding: usize,
    },
    Close {
        abruptly: bool,
        slot: u32,
    },
}

/// What a step came to.
enum Step {
    /// There is more to do now.
    More,
    /// Wait for an event, or the time of the next step.
    Wait,
    /// The order is carried out.
    Done,
}

impl Driver {
    /// Takes an order up.
    pub(super) fn begin(&mut self, order: Order) {
        let began = self.core.now;
        let range = self.core.plan.connections_of(self.core.thread);
        self.task = match order {
            Order::End => {
                self.is_ended = true;
                return;
            }
            Order::Cut => return self.cut(),
            Order::Open => Task::Open {
                began,
                next: range.start,
                end: range.end,
            },
            Order::Exchange { until } => {
                let again = matches!(self.core.plan.options.pace, Pace::Closed { .. });
                self.core.awaited = Awaited::Echo { again };
                Task::Exchange {
                    until,
                    began,
                    planned: 0,
                    slot: 0,
                }
            }
            Order::Churn { until } => {
                self.core.ends = Ends::AfterHandshake;
                Task::Churn {
                    until,
                    began,
                    planned: 0,
                }
            }
            Order::Publish { from, until } => self.begin_publishing(from, until),
            Order::Probe(probe) => {
                self.core.awaited = Awaited::Probe(probe);
                Task::Probe {
                    probe,
                    slot: 0,
                    moved: began,
                    outstanding: 0,
                }
            }
            Order::Close { abruptly } => {
                self.core.ends = Ends::Wanted;
                Task::Close { abruptly, slot: 0 }
            }
        };
    }

    /// The first thread's first connection publishes.
    fn begin_publishing(&mut self, from: u64, until: u64) -> Task {
        let is_first = self.core.thread == 0;
        let by = next_key(&self.connections, &mut 0).filter(|_| is_first);
        self.core.awaited = Awaited::Publications { by };
        match by {
            Some(by) => Task::Publish {
                until,
                began: from,
                planned: 0,
                by,
            },
            None => Task::Listen,
        }
    }

    /// Nothing more is begun.
    fn cut(&mut self) {
        let now = self.core.now;
        self.core.cut();
        let latest = now + self.core.timeout_ns();
        match &mut self.task {
            Task::Open { next, end, .. } => *end = *next,
            Task::Exchange { until, .. }
            | Task::Churn { until, .. }
            | Task::Publish { until, .. } => *until = now,
            Task::Probe { slot, .. } => *slot = u32::MAX,
            Task::Collect { until } => *until = latest.min(*until),
            Task::Idle | Task::Listen | Task::Close { .. } => {}
        }
    }

    /// Goes on with the order under way, as far as its plan says.
    pub(super) fn work(&mut self) {
        for _ in 0..STEPS_PER_TURN_MAX {
            match self.step() {
                Step::More => {}
                Step::Wait => return,
                Step::Done => {
                    self.task = Task::Idle;
                    // The conductor is gone only when the process ends.
                    let _ = self.done.send(Done::Task);
                    return;
                }
            }
        }
    }

    fn step(&mut self) -> Step {
        match self.task {
            Task::Idle => Step::Wait,
            Task::Listen => Step::Done,
            Task::Publish {
                until,
                began,
                planned,
                by,
            } => self.step_publish(until, began, planned, by),
            Task::Open { began, next, end } => self.step_open(began, next, end),
            Task::Exchange { .. } => self.step_exchange(),
            Task::Collect { until } => self.step_collect(until),
            Task::Churn { .. } => self.step_churn(),
            Task::Probe { .. } => self.step_probe(),
            Task::Close { abruptly, slot } => self.step_close(abruptly, slot),
        }
    }

    /// When [`Driver::work`] wants to be called again, if no event comes before.
    pub(super) fn next_step(&self) -> Option<u64> {
        let core = &self.core;
        let options = &core.plan.options;
        match self.task {
            Task::Idle => None,
            Task::Listen => Some(core.now),
            Task::Publish {
                until,
                began,
                planned,
                ..
            } => Some(match core.publishing_time(began, planned) {
                // A closed loop goes on when copies arrive.
                time if time <= core.now && !self.may_publish(planned) => until,
                time => time.min(until),
            }),
            Task::Open { began, next, end } => {
                let first = core.plan.connections_of(core.thread).start;
                (next < end && core.opening < self.opening_max())
                    .then(|| core.ramp_time(began, (next - first) as u64))
            }
            Task::Exchange {
                until,
                began,
                planned,
                slot,
            } => Some(match options.pace {
                Pace::Open { per_second } => core.planned_time(began, planned, per_second),
                Pace::Closed { .. } if slot < self.connections.slots_used() => core.now,
                Pace::Closed { .. } => until,
            })
            .map(|next| next.min(until)),
            Task::Collect { until } => Some(until),
            Task::Churn {
                until,
                began,
                planned,
            } => match options.pace {
                _ if core.now >= until => None,
                _ if self.connections.is_full() => Some(until),
                Pace::Open { per_second } => {
                    Some(core.planned_time(began, planned, per_second).min(until))
                }
                Pace::Closed { .. } => Some(core.now),
            },
            Task::Probe { slot, moved, .. } => {
                let is_over = slot >= self.connections.slots_used();
                Some(match core.outstanding < self.probes_max() && !is_over {
                    true => core.now,
                    false => moved + core.timeout_ns(),
                })
            }
            Task::Close { slot, .. } if slot < self.connections.slots_used() => Some(core.now),
            Task::Close { .. } => None,
        }
    }

    fn opening_max(&self) -> usize {
        let core = &self.core;
        core.plan
            .share_of(core.plan.options.connecting, core.thread)
    }

    fn probes_max(&self) -> usize {
        let options = &self.core.plan.options;
        let all = match self.task {
            Task::Probe {
                probe: Probe::Ping, ..
            } => options.pings,
            _ => options.sweep,
        };
        self.core.plan.share_of(all.unwrap_or(1), self.core.thread)
    }

    fn step_open(&mut self, began: u64, next: usize, end: usize) -> Step {
        if next == end {
            return if self.core.opening == 0 {
                Step::Done
            } else {
                Step::Wait
            };
        }
        let first = self.core.plan.connections_of(self.core.thread).start;
        let planned = self.core.ramp_time(began, (next - first) as u64);
        if self.core.opening >= self.opening_max() || planned > self.core.now {
            return Step::Wait;
        }
        // A ramp is a limit, not a promise: a handshake counts from its begin.
        self.open(next, self.core.now);
        self.task = Task::Open {
            began,
            next: next + 1,
            end,
        };
        Step::More
    }

    fn step_exchange(&mut self) -> Step {
        let Task::Exchange {
            until,
            began,
            ref mut planned,
            ref mut slot,
        } = self.task
        else {
            return Step::Wait;
        };
        if self.core.now >= until || self.connections.is_empty() {
            self.core.awaited = Awaited::Echo { again: false };
            let until = self.core.now + self.core.timeout_ns();
            self.task = Task::Collect { until };
            return Step::More;
        }
        match self.core.plan.options.pace {
            Pace::Closed { depth } => {
                let Some(key) = next_key(&self.connections, slot) else {
                    return Step::Wait;
                };
                let now = self.core.now;
                self.visit(key, |core, _, connection| {
                    if !Core::is_usable(connection) {
                        return Ok(());
                    }
                    for _ in 0..depth {
                        core.plan_message(now, connection)?;
                    }
                    Ok(())
                });
            }
            Pace::Open { per_second } => {
                let at = self.core.planned_time(began, *planned, per_second);
                if at > self.core.now {
                    return Step::Wait;
                }
                *planned += 1;
                let found = next_key(&self.connections, slot);
                let key = found.or_else(|| {
                    *slot = 0;
                    next_key(&self.connections, slot)
                });
                if let Some(key) = key {
                    self.look_at_clock();
                    self.visit(key, |core, _, connection| core.plan_message(at, connection));
                }
            }
        }
        Step::More
    }

    /// Waits for the answers to what was sent, then counts what is missing.
    fn step_collect(&mut self, until: u64) -> Step {
        if self.core.outstanding > 0 && self.core.now < until {
            return Step::Wait;
        }
        self.forget_flights();
        self.core.awaited = Awaited::Nothing;
        Step::Done
    }

    fn step_churn(&mut self) -> Step {
        let Task::Churn {
            until,
            began,
            ref mut planned,
        } = self.task
        else {
            return Step::Wait;
        };
        if self.core.now >= until {
            return if self.connections.is_empty() {
                Step::Done
            } else {
                Step::Wait
            };
        }
        let at = match self.core.plan.options.pace {
            Pace::Open { per_second } => self.core.planned_time(began, *planned, per_second),
            Pace::Closed { .. } => self.core.now,
        };
        if self.connections.is_full() || at > self.core.now {
            return Step::Wait;
        }
        // Each source address in turn, so that its ports have time to become free.
        let range = self.core.plan.connections_of(self.core.thread);
        let number = range.start + *planned as usize % range.len();
        *planned += 1;
        self.open(number, at);
        Step::More
    }

    fn step_publish(&mut self, until: u64, began: u64, planned: u64, by: Key) -> Step {
        let at = self.core.publishing_time(began, planned);
        if self.core.now >= until || at >= until || !self.connections.contains(by) {
            return Step::Done;
        }
        if at > self.core.now || !self.may_publish(planned) {
            return Step::Wait;
        }
        // Without a plan it is sent as soon as it may be.
        let at = match self.core.plan.options.pace {
            Pace::Open { .. } => at,
            Pace::Closed { .. } => self.core.now,
        };
        self.task = Task::Publish {
            until,
            began,
            planned: planned + 1,
            by,
        };
        self.look_at_clock();
        self.visit(by, |core, _, connection| {
            core.publish(planned, at, connection)
        });
        Step::More
    }

    /// In a closed loop, whether so few publications are under way that another one may be: the
    /// older ones have reached all subscribers, which are on this thread.
    fn may_publish(&self, published: u64) -> bool {
        let Pace::Closed { depth } = self.core.plan.options.pace else {
            return true;
        };
        let subscribers = (self.connections.len() as u64).saturating_sub(1);
        let settled = (published + 1).saturating_sub(depth as u64);
        self.core.tally.messages_received.load() >= settled * subscribers
    }

    fn step_probe(&mut self) -> Step {
        let probes_max = self.probes_max();
        let Task::Probe {
            probe,
            ref mut slot,
            ref mut moved,
            ref mut outstanding,
        } = self.task
        else {
            return Step::Wait;
        };
        if self.core.outstanding != *outstanding {
            *outstanding = self.core.outstanding;
            *moved = self.core.now;
        }
        if self.core.outstanding < probes_max
            && let Some(key) = next_key(&self.connections, slot)
        {
            self.look_at_clock();
            self.visit(key, |core, _, connection| {
                match Core::is_usable(connection) {
                    true => core.probe(probe, connection),
                    false => Ok(()),
                }
            });
            return Step::More;
        }
        let is_stuck = self.core.now >= *moved + self.core.timeout_ns();
        if self.core.outstanding > 0 && !is_stuck {
            return Step::Wait;
        }
        self.forget_flights();
        self.core.awaited = Awaited::Nothing;
        Step::Done
    }

    fn step_close(&mut self, abruptly: bool, mut slot: u32) -> Step {
        let key = next_key(&self.connections, &mut slot);
        self.task = Task::Close { abruptly, slot };
        match key {
            Some(key) if abruptly => {
                if let Some(connection) = self.connections.remove(key) {
                    connection.transport.abandon();
                    self.core.tally.open.subtract(1);
                }
                Step::More
            }
            Some(key) => {
                self.visit(key, |core, key, connection| core.close(key, connection));
                Step::More
            }
            None if self.connections.is_empty() => Step::Done,
            None => Step::Wait,
        }
    }

    /// What was not answered by now never will be.
    fn forget_flights(&mut self) {
        let mut slot = 0;
        while let Some(key) = next_key(&self.connections, &mut slot) {
            if let Some(connection) = self.connections.get_mut(key)
                && !connection.flights.is_empty()
            {
                self.core.give_up(&mut connection.flights);
            }
        }
    }
}

impl Core {
    /// When message number `index` of this thread is to be sent. The threads take turns.
    fn planned_time(&self, began: u64, index: u64, per_second: f64) -> u64 {
        let threads = self.plan.threads as u64;
        let number = index * threads + self.thread as u64;
        began.saturating_add((number as f64 * 1e9 / per_second) as u64)
    }

    /// When publication number `index` is to be sent: only one thread publishes.
    fn publishing_time(&self, began: u64, index: u64) -> u64 {
        match self.plan.options.pace {
            Pace::Open { per_second } => {
                began.saturating_add((index as f64 * 1e9 / per_second) as u64)
            }
            Pace::Closed { .. } => began,
        }
    }

    /// When connection number `index` of this thread may begin.
    fn ramp_time(&self, began: u64, index: u64) -> u64 {
        match self.plan.options.ramp {
            Some(per_second) => self.planned_time(began, index, per_second),
            None => began,
        }
    }
}

/// The next occupied slot at or behind `slot`, which moves past it.
fn next_key(connections: &crate::slots::Slots<Connection>, slot: &mut u32) -> Option<Key> {
    while *slot < connections.slots_used() {
        *slot += 1;
        if let Some(key) = connections.key_at(*slot - 1) {
            return Some(key);
        }
    }
    None
}

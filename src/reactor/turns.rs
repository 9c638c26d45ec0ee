//! Looking back at turns: how long they took, and whether they are too long for too long.

use std::time::{Duration, Instant};

use super::FIRST_TICK;
use crate::{
    metrics::{Block, TurnTimes},
    sys,
    wheel::{TICK_MS, Tick},
};

/// How long a busy reactor may leave its turn times unpublished.
const PUBLISH_TICKS: Tick = 1;

/// The turns of one reactor.
#[derive(Debug)]
pub struct Turns {
    /// When this turn woke up.
    started: Instant,
    /// When the turn before it was done.
    ended: Instant,
    wall: TurnTimes,
    cpu: Option<CpuTimes>,
    published: Tick,
    overload: Overload,
}

/// What turns took of the processor: a turn that was merely waiting for it took less.
#[derive(Debug, Default)]
struct CpuTimes {
    began: Duration,
    times: TurnTimes,
}

/// Turns too long for too long.
#[derive(Debug, Default)]
struct Overload {
    since: Option<Tick>,
    shedding: bool,
}

impl Turns {
    /// `with_cpu` costs two clock calls a turn, each a system call.
    pub fn new(with_cpu: bool) -> Self {
        Self {
            started: Instant::now(),
            ended: Instant::now(),
            wall: TurnTimes::default(),
            cpu: with_cpu.then(CpuTimes::default),
            published: FIRST_TICK,
            overload: Overload::default(),
        }
    }

    /// A turn begins when the sleep is over.
    pub fn begin(&mut self) {
        self.started = Instant::now();
        if let Some(cpu) = &mut self.cpu {
            cpu.began = sys::thread_cpu_time();
        }
    }

    /// Was it too long, as the ones before it?
    pub fn end(&mut self, now: Tick, limit: Option<Duration>, block: &Block) {
        self.ended = Instant::now();
        let turn = self.ended.duration_since(self.started);
        self.wall.record(turn);
        if let Some(cpu) = &mut self.cpu {
            cpu.times
                .record(sys::thread_cpu_time().saturating_sub(cpu.began));
        }
        self.overload.judge(turn, now, limit);
        if now >= self.published + PUBLISH_TICKS {
            self.published = now;
            self.wall.publish(&block.turns);
            if let Some(cpu) = &mut self.cpu {
                cpu.times.publish(&block.turns_cpu);
            }
        }
    }

    pub fn started(&self) -> Instant {
        self.started
    }

    pub fn ended(&self) -> Instant {
        self.ended
    }

    /// When the times are to be published, if there are new ones.
    pub fn publishing(&self) -> Option<Tick> {
        let due = self.published + PUBLISH_TICKS;
        self.wall.is_stale().then_some(due)
    }

    /// Whether newcomers are to be refused.
    pub fn is_overloaded(&self) -> bool {
        self.overload.shedding
    }
}

impl Overload {
    /// Turns longer than the limit for a second begin the shedding, one short turn ends it.
    fn judge(&mut self, turn: Duration, now: Tick, limit: Option<Duration>) {
        if limit.is_none_or(|limit| turn < limit) {
            *self = Self::default();
            return;
        }
        let since = *self.since.get_or_insert(now);
        let shedding = now >= since + (1000 / TICK_MS) as Tick;
        if shedding && !self.shedding {
            log::warn!(
                "overloaded, refusing new upgrades turn_ms={}",
                turn.as_millis()
            );
        }
        self.shedding = shedding;
    }
}

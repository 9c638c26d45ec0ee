//! How open connections fare while other things happen to their server: the plan they echo by, what
//! came of it, and its columns in a table.

use std::io;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::paced::{Lanes, PacedLoad, PacedOutcome};
use crate::servers::Server;
use crate::tables::median;

/// Connections that echo by the plan.
pub const OPEN_CONNECTIONS: usize = 64;
/// Messages a second over all of them.
pub const MESSAGES_PER_SECOND: u32 = 2000;

/// The plan for open connections.
pub fn paced<L: Lanes>(lanes: L) -> PacedLoad<L> {
    PacedLoad::new(lanes, MESSAGES_PER_SECOND)
}

/// How the open connections fared.
pub struct Weather {
    pub echoes: PacedOutcome,
    /// What the storm did a second: the events that its table names.
    pub storm_rate: f64,
    /// The server's CPU time, as a share of the time.
    pub busy: f64,
    /// Whether the plan was kept in real time.
    pub real_time: bool,
}

impl Weather {
    /// Carries out a plan of `duration`, with nothing known of a storm.
    ///
    /// # Errors
    /// The server ends, a message is lost or changed.
    pub fn of<L: Lanes>(
        server: &Server,
        load: &mut PacedLoad<L>,
        duration: Duration,
        real_time: bool,
    ) -> io::Result<Self> {
        let before = server.clock.total()?;
        let echoes = load.run(duration)?;
        let cpu = server.clock.total()? - before;
        Ok(Self {
            busy: cpu.as_secs_f64() / echoes.wall.as_secs_f64(),
            echoes,
            storm_rate: 0.0,
            real_time,
        })
    }

    /// From when the plan had a message sent.
    pub fn p99_us(&self) -> f64 {
        self.echoes.planned.value_at_quantile(0.99) as f64 / 1000.0
    }

    /// Messages a second.
    pub fn rate(&self) -> f64 {
        self.echoes.count as f64 / self.echoes.wall.as_secs_f64()
    }
}

/// p50, p99, p99.9 and the maximum from when the plan had messages sent, p99 from when they were,
/// in microseconds over all rounds; the share of the server's CPU in the median round.
pub fn columns(rounds: &[&Weather]) -> [String; 6] {
    let planned = merged(rounds.iter().map(|round| &round.echoes.planned));
    let sent = merged(rounds.iter().map(|round| &round.echoes.sent));
    let us = |nanoseconds: u64| format!("{:.0}", nanoseconds as f64 / 1000.0);
    let busy = median(rounds.iter().map(|round| round.busy).collect());
    [
        us(planned.value_at_quantile(0.5)),
        us(planned.value_at_quantile(0.99)),
        us(planned.value_at_quantile(0.999)),
        us(planned.max()),
        us(sent.value_at_quantile(0.99)),
        format!("{:.0} %", 100.0 * busy),
    ]
}

/// p99 from when the plan had messages sent, in the round where it was least.
pub fn quietest_p99_us(rounds: &[&Weather]) -> f64 {
    let figures = rounds.iter().map(|round| round.p99_us());
    figures.fold(f64::INFINITY, f64::min)
}

/// What stands below a table of weather that was not measured as it should be.
pub fn remark<'a>(mut all: impl Iterator<Item = &'a Weather>) -> &'static str {
    match all.all(|weather| weather.real_time) {
        true => "",
        false => {
            "\nThe client may not run in real time here: its own delays are in the latencies.\n"
        }
    }
}

pub(crate) fn merged<'a>(
    mut histograms: impl Iterator<Item = &'a Histogram<u64>>,
) -> Histogram<u64> {
    let mut all = histograms
        .next()
        .expect("a report follows a round at least")
        .clone();
    for one in histograms {
        all.add(one).expect("all histograms have the same bounds");
    }
    all
}

//! The tables that only the TLS benchmark has.

use hdrhistogram::Histogram;

use super::storm::{MESSAGES_PER_SECOND, OPEN_CONNECTIONS, STORM_CONNECTIONS, Storm, Weather};
use crate::report::{self, Format};
use crate::tables::median;

/// The header of the memory table.
pub const IDLE_COLUMNS: [&str; 7] = [
    "server",
    "base",
    "idle",
    "bytes each",
    "echoed",
    "bytes each",
    "closed",
];

/// The rounds of one server in each weather.
pub struct StormRounds {
    pub server: String,
    pub rounds: Vec<[Weather; Storm::ALL.len()]>,
}

/// What stands above the memory table.
pub fn idle_title(connections: usize, format: Format) -> String {
    let title = headline("resident memory of idle connections", format);
    format!(
        "{title}{connections} connections in KiB: with both handshakes done, after a message of \
         20 B on each, and closed.\n"
    )
}

/// What stands above the table of storms.
pub fn storm_legend(format: Format) -> String {
    let title = headline("echo latency in a storm of handshakes", format);
    format!(
        "{title}{OPEN_CONNECTIONS} open connections x 20 B, one in flight, {MESSAGES_PER_SECOND} \
         messages/s in all by a plan, in us from\nwhen the plan had them sent; \"p99 sent\" counts \
         from when they were. The storm has {STORM_CONNECTIONS} connections\nin progress against \
         the same reactor: full handshakes with upgrade and close, or hellos alone,\nwhich the \
         server answers and nobody finishes."
    )
}

/// The table of storms: a row for each server and weather.
pub fn of_storms(servers: &[StormRounds], format: Format) -> String {
    let header = [
        "server",
        "storm",
        "storm/s",
        "echoes/s",
        "p50",
        "p99",
        "p99.9",
        "max",
        "p99 sent",
        "server CPU",
    ];
    let mut rows = vec![header.map(str::to_owned)];
    for server in servers {
        for (index, storm) in Storm::ALL.into_iter().enumerate() {
            let rounds: Vec<_> = server.rounds.iter().map(|round| &round[index]).collect();
            rows.push(row(&server.server, storm, &rounds));
        }
    }
    let mut text = report::table(&rows, format);
    let mut all = servers
        .iter()
        .flat_map(|server| server.rounds.iter().flatten());
    if !all.all(|weather| weather.real_time) {
        text.push_str(
            "\nThe client may not run in real time here: its own delays are in the latencies.\n",
        );
    }
    text
}

fn row(server: &str, storm: Storm, rounds: &[&Weather]) -> [String; 10] {
    let middle =
        |of: &dyn Fn(&Weather) -> f64| median(rounds.iter().map(|round| of(round)).collect());
    let planned = merged(rounds.iter().map(|round| &round.echoes.planned));
    let sent = merged(rounds.iter().map(|round| &round.echoes.sent));
    let us = |nanoseconds: u64| format!("{:.0}", nanoseconds as f64 / 1000.0);
    [
        server.to_owned(),
        storm.title().to_owned(),
        format!("{:.0}", middle(&|round| round.storm_rate)),
        format!(
            "{:.0}",
            middle(&|round| round.echoes.count as f64 / round.echoes.wall.as_secs_f64())
        ),
        us(planned.value_at_quantile(0.5)),
        us(planned.value_at_quantile(0.99)),
        us(planned.value_at_quantile(0.999)),
        us(planned.max()),
        us(sent.value_at_quantile(0.99)),
        format!("{:.0} %", 100.0 * middle(&|round| round.busy)),
    ]
}

fn merged<'a>(mut histograms: impl Iterator<Item = &'a Histogram<u64>>) -> Histogram<u64> {
    let mut all = histograms
        .next()
        .expect("a report follows a round at least")
        .clone();
    for one in histograms {
        all.add(one).expect("all histograms have the same bounds");
    }
    all
}

fn headline(title: &str, format: Format) -> String {
    match format {
        Format::Text => format!("{title}\n"),
        Format::Markdown => format!("### {title}\n\n"),
    }
}

//! The tables that only the TLS benchmark has.

use super::storm::{STORM_CONNECTIONS, Storm};
use crate::report::{self, Format, headline};
use crate::rounds::Rounds;
use crate::tables::median;
use crate::weather::{self, MESSAGES_PER_SECOND, OPEN_CONNECTIONS, Weather};

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
pub fn of_storms(servers: &[Rounds<[Weather; Storm::ALL.len()]>], format: Format) -> String {
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
    let all = servers
        .iter()
        .flat_map(|server| server.rounds.iter().flatten());
    text.push_str(weather::remark(all));
    text
}

fn row(server: &str, storm: Storm, rounds: &[&Weather]) -> [String; 10] {
    let [p50, p99, p999, max, p99_sent, busy] = weather::columns(rounds);
    let middle =
        |of: &dyn Fn(&Weather) -> f64| median(rounds.iter().map(|round| of(round)).collect());
    [
        server.to_owned(),
        storm.title().to_owned(),
        format!("{:.0}", middle(&|round| round.storm_rate)),
        format!("{:.0}", middle(&Weather::rate)),
        p50,
        p99,
        p999,
        max,
        p99_sent,
        busy,
    ]
}

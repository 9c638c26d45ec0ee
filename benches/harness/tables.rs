//! The tables of the echo benchmark: per workload one row a server, and its ratio to one of them.

use hdrhistogram::Histogram;

use crate::measure::Measurement;
use crate::report::{self, Format};
use crate::rounds::Rounds;
use crate::workload::{Load, Workload};

/// A core is saturated when it was idle for less than this share.
const IDLE_MAX: f64 = 0.05;
/// Others on the server's core are mentioned above this share.
const DISTURBED_MAX: f64 = 0.05;

/// What the columns mean, once before the tables.
pub const LEGEND: &str = "\
CPU is user and system time of the server's process per message (or per connection), in the
quietest round, the one with the least of it; irq is what the server's core spent in interrupts
beside. Rates are the median round, latencies all rounds together. The ratio to another server is
that of the quietest rounds; the median is over the ratios within each round. Busy is the share of
server and client core in the quietest round: where the client is the busier one, the rate is the
client's and only the CPU is the server's.";

/// The table of one workload, with ratios to the server of that name, and what is to be said about
/// it.
pub fn of_workload(
    workload: &Workload,
    servers: &[Rounds<Measurement>],
    baseline: &str,
    format: Format,
) -> String {
    let unit = match workload.load {
        Load::Echo { .. } => "msgs/s",
        Load::Churn { .. } => "conns/s",
    };
    of_measurements(workload.title, unit, servers, baseline, format)
}

/// The same table of anything measured, `unit` being what was counted, a second.
pub fn of_measurements(
    title: &str,
    unit: &str,
    servers: &[Rounds<Measurement>],
    baseline: &str,
    format: Format,
) -> String {
    let to_baseline = format!("to {baseline}");
    let header = [
        "server",
        unit,
        "CPU ns",
        "user",
        "system",
        "irq",
        "p50 us",
        "p99 us",
        "p99.9 us",
        &to_baseline,
        "median",
        "busy",
    ];
    let baseline = servers.iter().find(|server| server.server == baseline);
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(servers.iter().map(|server| row(server, baseline)));
    let mut text = report::headline(title, format);
    text.push_str(&report::table(&rows, format));
    let remarks: Vec<_> = servers.iter().flat_map(remarks).collect();
    if !remarks.is_empty() {
        text.push_str(&format!("\n{}\n", remarks.join("\n")));
    }
    text
}

fn row(server: &Rounds<Measurement>, baseline: Option<&Rounds<Measurement>>) -> [String; 12] {
    let quietest = quietest(&server.rounds);
    let cpu_ns = quietest.cpu_ns();
    let ticks = server.rounds.iter().fold([0, 0], |[user, system], round| {
        let [more_user, more_system] = round.user_and_system_ticks;
        [user + more_user, system + more_system]
    });
    let [user, system] =
        ticks.map(|part| cpu_ns * part as f64 / (ticks[0] + ticks[1]).max(1) as f64);
    let rate = median(server.rounds.iter().map(Measurement::rate).collect());
    let latency = merged(&server.rounds);
    let us = |quantile| format!("{:.1}", latency.value_at_quantile(quantile) as f64 / 1000.0);
    let [to_baseline, median_ratio] = match baseline.map(|other| ratios(server, other)) {
        Some(ratios) => ratios.map(|ratio| format!("{ratio:.3}")),
        None => ["-".into(), "-".into()],
    };
    let [server_busy, client_busy] = quietest.busy.map(|busy| busy * 100.0);
    [
        server.server.clone(),
        format!("{rate:.0}"),
        format!("{cpu_ns:.0}"),
        format!("{user:.0}"),
        format!("{system:.0}"),
        format!(
            "{:.0}",
            quietest.interrupts.as_nanos() as f64 / quietest.count as f64
        ),
        us(0.5),
        us(0.99),
        us(0.999),
        to_baseline,
        median_ratio,
        format!("{server_busy:.0}/{client_busy:.0} %"),
    ]
}

/// CPU to another server's: of the quietest rounds, and the median within the rounds.
pub fn ratios(server: &Rounds<Measurement>, other: &Rounds<Measurement>) -> [f64; 2] {
    let pairs = server.rounds.iter().zip(&other.rounds);
    let within = pairs.map(|(ours, theirs)| ours.cpu_ns() / theirs.cpu_ns());
    [
        quietest(&server.rounds).cpu_ns() / quietest(&other.rounds).cpu_ns(),
        median(within.collect()),
    ]
}

/// What keeps a row from being taken at its word.
fn remarks(server: &Rounds<Measurement>) -> Vec<String> {
    let name = &server.server;
    let mut remarks = Vec::new();
    let quietest = quietest(&server.rounds);
    let [server_busy, client_busy] = quietest.busy;
    if client_busy > 1.0 - IDLE_MAX && server_busy <= 1.0 - IDLE_MAX {
        remarks.push(format!(
            "{name}: the client was saturated and the server was not."
        ));
    }
    if quietest.disturbed > DISTURBED_MAX {
        let percent = quietest.disturbed * 100.0;
        remarks.push(format!(
            "{name}: others had {percent:.0} % of its core at the quietest."
        ));
    }
    remarks
}

fn quietest(rounds: &[Measurement]) -> &Measurement {
    let least = rounds
        .iter()
        .min_by(|a, b| a.cpu_ns().total_cmp(&b.cpu_ns()));
    least.expect("a report follows a round at least")
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        (values[middle - 1] + values[middle]) / 2.0
    }
}

fn merged(rounds: &[Measurement]) -> Histogram<u64> {
    let mut all = rounds[0].latency.clone();
    for round in &rounds[1..] {
        all.add(&round.latency)
            .expect("all histograms have the same bounds");
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_two() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), 2.5);
    }
}

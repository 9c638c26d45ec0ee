//! The tables that only the fan-out benchmark has.

use super::api::Pace;
use super::disturbance::{Din, Echoes};
use super::gauges::Gauges;
use super::standing::Spread;
use crate::measure::Measurement;
use crate::report::{self, Format, headline};
use crate::rounds::Rounds;
use crate::tables::{median, of_measurements, ratios};
use crate::weather::{self, MESSAGES_PER_SECOND, OPEN_CONNECTIONS};

/// What the columns mean, once before the tables of deliveries.
pub const LEGEND: &str = "\
Everything is per delivery: one publication at one subscriber. CPU is user and system time of the
server's process in the quietest round, the one with the least of it; irq is what its core spent in
interrupts beside. Rates are the median round; latencies, from the burst's first byte until a
subscriber has a publication, are all rounds together. The ratio is that of the quietest rounds, the
median is over the ratios within each round. Busy is the share of server and client core.";

/// Deliveries of one dialect, with ratios to the server of that name. Others of `servers` are told
/// about in the last lines, each against the one beside it.
pub fn of_deliveries(
    title: &str,
    servers: &[Rounds<Measurement>],
    baseline: &str,
    by_two: [&str; 2],
    format: Format,
) -> String {
    let mut text = of_measurements(title, "deliveries/s", servers, baseline, format);
    let find = |name: &str| servers.iter().find(|server| server.server == name);
    if let (Some(one), Some(two)) = (find(by_two[0]), find(by_two[1])) {
        let [quietest, middle] = ratios(two, one);
        text.push_str(&format!(
            "\nTwo reactors to one: {quietest:.3}, median {middle:.3}.\n"
        ));
    }
    text
}

/// Echoes beside a crowd, a row for each thing that it hears.
pub fn of_echoes(rounds: &[Rounds<Echoes>], subscribers: usize, format: Format) -> String {
    let header = [
        "meanwhile",
        "deliveries/s",
        "p50",
        "p99",
        "p99.9",
        "max",
        "p99 sent",
        "server CPU",
        "to calm",
        "median",
        "closed p50",
        "p99",
        "to calm",
        "median",
    ];
    let mut rows = vec![header.map(str::to_owned)];
    let calm = &rounds[0].rounds;
    for (din, echoes) in Din::ALL.iter().zip(rounds) {
        rows.push(echo_row(*din, &echoes.rounds, calm));
    }
    let mut text = format!(
        "\
{}{OPEN_CONNECTIONS} connections x 20 B, one in flight, at the reactor that delivers to {subscribers}
subscribers of /raw: {MESSAGES_PER_SECOND} messages/s in all by a plan, in us from when the plan had
them sent (\"p99 sent\" from when they were), and then in a closed loop, each when the last is
answered. Latencies are all rounds together; \"to calm\" is the ratio of the least p99 of a round to
the undisturbed one's, the median is over the ratios within each round. Below 3 is the aim.

{}",
        headline("echo latency while others are delivered to", format),
        report::table(&rows, format)
    );
    let all = rounds.iter().flat_map(|rounds| &rounds.rounds);
    text.push_str(weather::remark(all.map(|echoes| &echoes.planned)));
    text
}

fn echo_row(din: Din, rounds: &[Echoes], calm: &[Echoes]) -> [String; 14] {
    let weathers: Vec<_> = rounds.iter().map(|echoes| &echoes.planned).collect();
    let [p50, p99, p999, max, p99_sent, busy] = weather::columns(&weathers);
    let rate = median(weathers.iter().map(|weather| weather.storm_rate).collect());
    let closed = weather::merged(rounds.iter().map(|echoes| &echoes.closed.latency));
    let us = |quantile| format!("{:.0}", closed.value_at_quantile(quantile) as f64 / 1000.0);
    let least = |rounds: &[Echoes], which: usize| {
        let figures = rounds.iter().map(|echoes| echoes.p99_us()[which]);
        figures.fold(f64::INFINITY, f64::min)
    };
    let [planned, looped] = [0, 1].map(|which| {
        let pairs = rounds.iter().zip(calm);
        let within = pairs.map(|(these, calm)| these.p99_us()[which] / calm.p99_us()[which]);
        let quietest = least(rounds, which) / least(calm, which);
        [quietest, median(within.collect())].map(|ratio| format!("{ratio:.2}"))
    });
    let [planned, planned_median] = planned;
    let [looped, looped_median] = looped;
    [
        din.title(),
        format!("{rate:.0}"),
        p50,
        p99,
        p999,
        max,
        p99_sent,
        busy,
        planned,
        planned_median,
        us(0.5),
        us(0.99),
        looped,
        looped_median,
    ]
}

/// Rates of publishing, a row each, all rounds together.
pub fn of_paces(rounds: &[Rounds<Pace>], spread: Spread, clients: usize, format: Format) -> String {
    let header = [
        "planned/s",
        "published/s",
        "deliveries/s",
        "CPU us",
        "p50 us",
        "p99 us",
        "mail KiB",
        "buffers KiB",
        "tail ms",
        "busy",
        "kept",
    ];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(rounds.iter().map(|rounds| pace_row(&rounds.rounds, spread)));
    let Spread {
        connections,
        channels,
        ..
    } = spread;
    format!(
        "\
{}100 B of data to {channels} channels in turn over {clients} connections, one request in flight each;
{} subscribers a channel over {connections} connections. CPU is the server's per publication with all
its deliveries, in the quietest round; mail and buffers are the most that waited, tail is from the
last answer until the last delivery. A rate is kept when the plan is and nothing grows; the rounds
in which it was are counted. Busy is the share of server and client core: what bounds the rate.

{}",
        headline("publishing through the API", format),
        spread.subscribers(),
        report::table(&rows, format)
    )
}

fn pace_row(paces: &[Pace], spread: Spread) -> [String; 11] {
    let middle = |of: &dyn Fn(&Pace) -> f64| median(paces.iter().map(of).collect());
    let least = |of: &dyn Fn(&Pace) -> f64| paces.iter().map(of).fold(f64::INFINITY, f64::min);
    let most_kib = |of: fn(&Gauges) -> u64| {
        let most = paces.iter().map(|pace| pace.most(of)).max().unwrap_or(0);
        format!("{:.0}", most as f64 / 1024.0)
    };
    let latency = weather::merged(paces.iter().map(|pace| &pace.publications.latency));
    let us = |quantile| format!("{:.0}", latency.value_at_quantile(quantile) as f64 / 1000.0);
    let rate = middle(&|pace| pace.publications.rate());
    let [server, client] =
        [0, 1].map(|core: usize| 100.0 * middle(&|pace| pace.publications.busy[core]));
    let kept = paces.iter().filter(|pace| pace.is_kept()).count();
    let tail = paces.iter().map(|pace| pace.tail).max().unwrap_or_default();
    [
        paces.first().map_or(0, |pace| pace.rate).to_string(),
        format!("{rate:.0}"),
        format!("{:.0}", rate * spread.subscribers() as f64),
        format!("{:.1}", least(&|pace| pace.publications.cpu_ns()) / 1000.0),
        us(0.5),
        us(0.99),
        most_kib(|gauges| gauges.mail_bytes),
        most_kib(|gauges| gauges.buffer_bytes),
        format!("{:.0}", tail.as_secs_f64() * 1000.0),
        format!("{server:.0}/{client:.0} %"),
        format!("{kept} of {}", paces.len()),
    ]
}

/// Resident memory of a server, in bytes.
pub struct Resident {
    pub base: u64,
    pub connected: u64,
    pub subscribed: u64,
    pub closed: u64,
    pub gauges: Gauges,
}

/// The table of memory, a row a server.
pub fn of_memory(servers: &[(String, Resident)], spread: Spread, format: Format) -> String {
    let header = [
        "server",
        "base",
        "connected",
        "subscribed",
        "closed",
        "added MiB",
        "bytes a subscription",
        "over base MiB",
    ];
    let mut rows = vec![header.map(str::to_owned)];
    for (name, resident) in servers {
        let kib = |bytes: u64| format!("{:.0}", bytes as f64 / 1024.0);
        let added = resident.subscribed as f64 - resident.connected as f64;
        let over_base = resident.subscribed as f64 - resident.base as f64;
        let mib = |bytes: f64| format!("{:.1}", bytes / f64::from(1 << 20));
        rows.push([
            name.clone(),
            kib(resident.base),
            kib(resident.connected),
            kib(resident.subscribed),
            kib(resident.closed),
            mib(added),
            format!("{:.1}", added / resident.gauges.subscriptions as f64),
            mib(over_base),
        ]);
    }
    format!(
        "\
{}{} channels x {} subscribers: {} native connections with {} subscriptions each. KiB, but where it
says otherwise: before them, connected, all subscribed, all gone. At most 120 MB for subscriptions
and channels is the aim.

{}",
        headline("resident memory of subscriptions", format),
        spread.channels,
        spread.subscribers(),
        spread.connections,
        spread.subscriptions,
        report::table(&rows, format)
    )
}

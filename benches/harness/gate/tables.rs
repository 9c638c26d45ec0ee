//! The tables that only the gate's benchmark has.

use super::half_open::{CROWD_CONNECTIONS, Crowd, Pair, Times};
use super::instructions::Shape;
use crate::report::{self, Format, headline};
use crate::rounds::Rounds;
use crate::tables::median;
use crate::weather::{self, MESSAGES_PER_SECOND, OPEN_CONNECTIONS, Weather};

/// What one server did among half-open connections, by crowd.
pub type Pairs = [Pair; Crowd::ALL.len()];
/// Instructions an echo, by shape.
pub type Instructions = [f64; Shape::ALL.len()];

/// Resident memory of a server, in bytes.
pub struct Resident {
    pub base: u64,
    pub idle: u64,
    pub closed: u64,
}

impl Resident {
    /// What each of so many connections added.
    pub fn each(&self, connections: usize) -> f64 {
        (self.idle as f64 - self.base as f64) / connections as f64
    }
}

/// The table of half-open connections, two rows a server and crowd.
pub fn of_half_open(servers: &[Rounds<Pairs>], times: Times, format: Format) -> String {
    let header = [
        "server",
        "crowd",
        "ended/s",
        "echoes/s",
        "p50",
        "p99",
        "p99.9",
        "max",
        "p99 sent",
        "server CPU",
        "to calm",
        "median",
    ];
    let mut rows = vec![header.map(str::to_owned)];
    for server in servers {
        for (index, crowd) in Crowd::ALL.into_iter().enumerate() {
            let pairs: Vec<_> = server.rounds.iter().map(|round| &round[index]).collect();
            rows.extend(crowd_rows(&server.server, crowd, &pairs));
        }
    }
    let title = headline("echo latency among half-open connections", format);
    let timeout = times.timeout;
    let mut text = format!(
        "\
{title}{OPEN_CONNECTIONS} open connections x 20 B, one in flight, {MESSAGES_PER_SECOND} messages/s
in all by a plan, in us from when the plan had them sent; \"p99 sent\" counts from when they were. A
crowd is {CROWD_CONNECTIONS} connections without a handshake, with the same reactor, which ends them
after {timeout:?}; others come in their place. Latencies are all rounds together. \"to calm\" is the
ratio of the least p99 of a round to that of the same connections without the crowd, the median is
over the ratios within each round; at most 2 is the aim.

{}",
        report::table(&rows, format)
    );
    let weathers = servers
        .iter()
        .flat_map(|server| server.rounds.iter().flatten())
        .flat_map(|pair| [&pair.calm, &pair.crowded]);
    text.push_str(weather::remark(weathers));
    text
}

fn crowd_rows(server: &str, crowd: Crowd, pairs: &[&Pair]) -> [[String; 12]; 2] {
    let calm: Vec<_> = pairs.iter().map(|pair| &pair.calm).collect();
    let crowded: Vec<_> = pairs.iter().map(|pair| &pair.crowded).collect();
    let to_calm = weather::quietest_p99_us(&crowded) / weather::quietest_p99_us(&calm);
    let middle = median(pairs.iter().map(|pair| pair.ratio()).collect());
    let without = match crowd.is_secured() {
        true => "none, over TLS",
        false => "none",
    };
    [
        crowd_row(server, without, &calm, [1.0, 1.0]),
        crowd_row(server, crowd.title(), &crowded, [to_calm, middle]),
    ]
}

fn crowd_row(server: &str, title: &str, rounds: &[&Weather], ratios: [f64; 2]) -> [String; 12] {
    let middle =
        |of: &dyn Fn(&Weather) -> f64| median(rounds.iter().map(|round| of(round)).collect());
    let [p50, p99, p999, max, p99_sent, busy] = weather::columns(rounds);
    let [to_calm, median] = ratios.map(|ratio| format!("{ratio:.2}"));
    [
        server.to_owned(),
        title.to_owned(),
        format!("{:.0}", middle(&|round| round.storm_rate)),
        format!("{:.0}", middle(&Weather::rate)),
        p50,
        p99,
        p999,
        max,
        p99_sent,
        busy,
        to_calm,
        median,
    ]
}

/// The table of instructions, a row a server.
pub fn of_instructions(servers: &[Rounds<Instructions>], format: Format) -> String {
    let [one, many, batch] = Shape::ALL.map(|shape| shape.title);
    let header = ["server", one, "ratio", many, "ratio", batch, "ratio"];
    let each = |server: &Rounds<Instructions>| {
        let middle =
            |shape: usize| median(server.rounds.iter().map(|round| round[shape]).collect());
        [middle(0), middle(1), middle(2)]
    };
    let first = servers.first().map(each).unwrap_or_default();
    let mut rows = vec![header.map(str::to_owned)];
    for server in servers {
        let [one, many, batch] = each(server);
        let figure = |figure: f64| format!("{figure:.1}");
        let ratio = |figure: f64, first: f64| format!("{:.3}", figure / first);
        rows.push([
            server.server.clone(),
            figure(one),
            ratio(one, first[0]),
            figure(many),
            ratio(many, first[1]),
            figure(batch),
            ratio(batch, first[2]),
        ]);
    }
    format!(
        "\
{}Instructions an echo of 20 B outside the kernel, by valgrind; the median round, and its ratio to
the first row. With 64 connections a turn has as many events as come meanwhile. At most 1.03 is the
aim.

{}",
        headline("instructions an echo", format),
        report::table(&rows, format)
    )
}

/// The table of memory, a row a server.
pub fn of_idle(servers: &[Rounds<Resident>], connections: usize, format: Format) -> String {
    let header = [
        "server",
        "base",
        "idle",
        "closed",
        "bytes each",
        "least",
        "most",
        "to first",
    ];
    let each = |server: &Rounds<Resident>| -> Vec<f64> {
        let rounds = server.rounds.iter();
        rounds.map(|round| round.each(connections)).collect()
    };
    let first = servers.first().map(|server| median(each(server)));
    let mut rows = vec![header.map(str::to_owned)];
    for server in servers {
        let kib = |of: fn(&Resident) -> u64| {
            let figures = server.rounds.iter().map(|round| of(round) as f64 / 1024.0);
            format!("{:.0}", median(figures.collect()))
        };
        let each = each(server);
        let least = each.iter().copied().fold(f64::INFINITY, f64::min);
        let most = each.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let middle = median(each);
        rows.push([
            server.server.clone(),
            kib(|resident| resident.base),
            kib(|resident| resident.idle),
            kib(|resident| resident.closed),
            format!("{middle:.1}"),
            format!("{least:.1}"),
            format!("{most:.1}"),
            format!("{:+.1}", middle - first.unwrap_or(middle)),
        ]);
    }
    format!(
        "\
{}{connections} connections, the median round in KiB: before them, with them, and with them closed;
bytes each of the median, the least and the most round; what each has more than in the first row.
Within 16 bytes without tokens is the aim.

{}",
        headline("resident memory of idle connections", format),
        report::table(&rows, format)
    )
}

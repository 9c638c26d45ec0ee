//! The report for people: one block of lines.

use std::fmt::{self, Display, Formatter};

use super::{CpuUse, ProbeResult, Report};
use crate::{
    config::{show_count, show_size_rounded},
    load::{
        latency::{Latencies, Latency},
        plan::{Mode, Pace},
    },
};

/// Kinds of errors that are shown; the rest is in the JSON.
const ERRORS_SHOWN_MAX: usize = 10;

/// From this share of the planned rate on, the plan was kept.
const PLAN_KEPT: f64 = 0.99;

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mode = self.options.mode.name();
        let cut = if self.interrupted {
            " (interrupted)"
        } else {
            ""
        };
        writeln!(
            f,
            "tidemill bench {mode} {}{cut}",
            self.options.target.url()
        )?;
        self.connections(f)?;
        self.tls(f)?;
        match self.options.mode {
            Mode::Echo | Mode::Fanout => self.messages(f)?,
            Mode::Connect => handshakes(f, &self.findings.handshakes)?,
            Mode::Hold => {}
        }
        for (name, result) in [("sweep", self.sweep()), ("pings", self.pings())] {
            if let Some(result) = result {
                probe(f, name, &result)?;
            }
        }
        self.cpu_lines(f)?;
        self.memory(f)?;
        let what = match self.saturated() {
            "client" => "the client: this measures the load generator, give it more threads",
            "server" => "the server",
            "both" => "both sides",
            "machine" => "the machine that both sides share",
            _ => "neither side",
        };
        line(f, "saturated", what)?;
        let errors = self.findings.errors.by_frequency();
        for (kind, count) in errors.iter().take(ERRORS_SHOWN_MAX) {
            line(f, "error", &format!("{} x {kind}", show_count(*count)))?;
        }
        match errors.len().saturating_sub(ERRORS_SHOWN_MAX) {
            0 => {}
            more => line(f, "error", &format!("{more} kinds more, in the JSON"))?,
        }
        match self.remedy() {
            Some(remedy) => line(f, "remedy", remedy),
            None => Ok(()),
        }
    }
}

impl Report {
    fn connections(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let totals = &self.totals;
        let seconds = self.connect_seconds();
        let text = format!(
            "{} opened in {} ({}/s), {} failed, {} lost",
            show_count(totals.opened),
            seconds_text(seconds),
            show_count((totals.opened as f64 / seconds.max(1e-3)) as u64),
            show_count(totals.failed),
            show_count(totals.lost),
        );
        line(f, "connections", &text)
    }

    fn tls(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let tls = &self.findings.tls;
        let Some(agreed) = &tls.agreement else {
            return Ok(());
        };
        let text = format!(
            "{} {}, {} full handshakes, {} resumed",
            agreed.version,
            agreed.suite,
            show_count(tls.full),
            show_count(tls.resumed)
        );
        line(f, "tls", &text)
    }

    fn messages(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let totals = &self.totals;
        let seconds = self.message_seconds();
        if self.options.mode == Mode::Fanout {
            let text = format!(
                "{} publications to {} subscribers",
                show_count(self.published),
                show_count(totals.opened.saturating_sub(1))
            );
            line(f, "published", &text)?;
        }
        let text = format!(
            "{} sent, {} received, {} lost in {}",
            show_count(totals.messages_sent),
            show_count(totals.messages_received),
            show_count(totals.messages_lost),
            seconds_text(seconds)
        );
        line(f, "messages", &text)?;
        if totals.messages_other > 0 {
            let text = format!("{} other messages came", show_count(totals.messages_other));
            line(f, "", &text)?;
        }
        let per_second = totals.messages_received as f64 / seconds.max(1e-3);
        let bytes = per_second * self.options.payload.len() as f64;
        let text = format!(
            "{} messages/s, {}/s of payload{}",
            show_count(per_second as u64),
            show_size_rounded(bytes as u64),
            if self.options.mode == Mode::Echo {
                " each way"
            } else {
                ""
            }
        );
        line(f, "throughput", &text)?;
        if let Some(share) = self.plan_kept().filter(|share| *share < PLAN_KEPT) {
            let text = format!(
                "{:.0} % of the planned rate: more than this machine could send",
                share * 100.0
            );
            line(f, "", &text)?;
        }
        let how = match self.options.pace {
            Pace::Open { .. } => "since planned, and since sent",
            Pace::Closed { .. } => "since sent: no plan without --rate",
        };
        latencies(f, &self.findings.messages, how)
    }

    fn cpu_lines(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some((phase, of)) = self.main_phase() else {
            return Ok(());
        };
        let text = |cpu: CpuUse| {
            format!(
                "{:.2} of {} cores (busiest thread {:.0} %)",
                cpu.cores,
                self.cores,
                cpu.busiest_thread * 100.0
            )
        };
        if let Some(cpu) = self.client_cpu(phase) {
            line(f, "cpu client", &format!("{}, {}", text(cpu), of.name))?;
        }
        if let Some(cpu) = self.server_cpu(phase) {
            line(f, "cpu server", &format!("{}, {}", text(cpu), of.name))?;
        }
        let Some(cost) = self.server_cost() else {
            return Ok(());
        };
        if let Some((user, system)) = cost.message {
            let sum = user + system;
            let what = match self.options.mode {
                Mode::Fanout => "a copy",
                _ => "a message and its echo",
            };
            let text = format!("{sum:.2} µs {what} (user {user:.2}, system {system:.2})");
            line(f, "", &text)?;
        }
        if let Some(us) = cost.connection_us {
            line(f, "", &format!("{us:.1} µs a connection opened"))?;
        }
        Ok(())
    }

    fn memory(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(cost) = self.server_cost() {
            let each = match cost.rss_per_connection {
                Some(bytes) => format!(", {bytes:.0} bytes a connection more than before"),
                None => String::new(),
            };
            // A server that is gone has none.
            if cost.rss > 0 {
                let text = format!("server {}{each}", show_size_rounded(cost.rss));
                line(f, "memory", &text)?;
            }
        }
        if let Some(cost) = self.kernel_cost() {
            let ends = match self.options.server_pid {
                Some(_) => "both ends of a connection",
                None => "a connection, and the server's end if it is here",
            };
            let text = format!("kernel {:.0} bytes, {ends}", cost.memory);
            line(f, "", &text)?;
        }
        Ok(())
    }
}

fn line(f: &mut Formatter<'_>, name: &str, text: &str) -> fmt::Result {
    writeln!(f, "  {name:<12} {text}")
}

fn latencies(f: &mut Formatter<'_>, latencies: &Latencies, how: &str) -> fmt::Result {
    if latencies.corrected.count() == 0 {
        return Ok(());
    }
    let names = ["p50", "p90", "p99", "p99.9", "p99.99", "max"];
    let heads: String = names.iter().map(|name| format!("{name:>10}")).collect();
    line(f, "latency", &format!("{heads}   {how}"))?;
    row(f, "  corrected", &latencies.corrected)?;
    row(f, "  uncorrected", &latencies.uncorrected)
}

fn handshakes(f: &mut Formatter<'_>, handshakes: &Latencies) -> fmt::Result {
    latencies(f, handshakes, "from connect to 101")
}

fn row(f: &mut Formatter<'_>, name: &str, latency: &Latency) -> fmt::Result {
    let values = [50.0, 90.0, 99.0, 99.9, 99.99].map(|at| latency.at(at));
    let values = values.into_iter().chain([latency.max()]);
    let text: String = values.map(|us| format!("{:>10}", us_text(us))).collect();
    // One column further to the left: the name is longer than the others.
    writeln!(f, "  {name:<13}{text}")
}

fn probe(f: &mut Formatter<'_>, name: &str, result: &ProbeResult<'_>) -> fmt::Result {
    let text = format!(
        "{} of {} answered in {}; p50 {}, p99 {}, max {}",
        show_count(result.received),
        show_count(result.sent),
        seconds_text(result.seconds),
        us_text(result.latency.at(50.0)),
        us_text(result.latency.at(99.0)),
        us_text(result.latency.max()),
    );
    line(f, name, &text)
}

/// Microseconds in the unit that one would say them in.
fn us_text(us: f64) -> String {
    match us {
        us if us < 100.0 => format!("{us:.1} µs"),
        us if us < 1e3 => format!("{us:.0} µs"),
        us if us < 1e6 => format!("{:.2} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

fn seconds_text(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{seconds:.1} s"),
    }
}

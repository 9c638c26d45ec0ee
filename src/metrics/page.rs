//! The Prometheus text format (version 0.0.4) of all counters.

use std::{
    fmt::{self, Write},
    sync::atomic::Ordering::Relaxed,
};

use super::{
    Block, CLOSE_CODES, Counter, OPERATIONS, Process, Registry, SERVER, TIMEOUTS, TLS_HANDSHAKES,
};

/// All counters, added up.
pub(super) fn text(registry: &Registry, process: &Process) -> String {
    let mut page = Page {
        out: String::with_capacity(8192),
        registry,
    };
    page.connections();
    page.refusals();
    page.traffic();
    page.ends();
    page.buffers();
    page.hub();
    page.reactors();
    page.reloads();
    if registry.labels.tls {
        page.tls(process);
    }
    page.process(process);
    page.out
}

pub(super) struct Page<'a> {
    pub(super) out: String,
    pub(super) registry: &'a Registry,
}

impl Page<'_> {
    fn connections(&mut self) {
        self.gauge("connections", "Open WebSocket connections.");
        for (index, dialect) in self.registry.labels.dialects.iter().enumerate() {
            let open = self.registry.total(|block| &block.connections[index]);
            self.sample(
                "connections",
                format_args!("{{dialect=\"{dialect}\"}}"),
                open,
            );
        }
        self.sum(
            "connections_total",
            "Completed WebSocket handshakes.",
            |block| &block.connections_total,
        );
    }

    fn refusals(&mut self) {
        self.counter(
            "handshakes_refused_total",
            "Requests refused, by status and reason.",
        );
        for (index, (status, reason)) in self.registry.labels.reasons.iter().enumerate() {
            let count = self.registry.total(|block| &block.refused.0[index]);
            let label = format_args!("{{status=\"{status}\",reason=\"{reason}\"}}");
            self.sample("handshakes_refused_total", label, count);
        }
    }

    fn traffic(&mut self) {
        self.sum(
            "messages_received_total",
            "Data messages received.",
            |block| &block.messages_received,
        );
        self.sum("messages_sent_total", "Data messages sent.", |block| {
            &block.messages_sent
        });
        self.sum("bytes_received_total", "Bytes received.", |block| {
            &block.bytes_received
        });
        self.sum("bytes_sent_total", "Bytes sent or queued.", |block| {
            &block.bytes_sent
        });
    }

    fn buffers(&mut self) {
        self.sum(
            "slow_consumers_total",
            "Connections closed for not reading.",
            |block| &block.slow_consumers,
        );
        self.sum(
            "gaps_total",
            "Times that publications were dropped for a subscriber, in place of closing it.",
            |block| &block.gaps,
        );
        self.sum(
            "rate_limited_total",
            "Times that a connection had sent more than its rate.",
            |block| &block.rate_limited,
        );
        self.gauge("buffer_bytes", "Memory held for single connections.");
        let buffered = self.registry.total(|block| &block.buffer_bytes);
        self.sample("buffer_bytes", "", buffered);
    }

    fn tls(&mut self, process: &Process) {
        let registry = self.registry;
        self.counter(
            "tls_handshakes_total",
            "TLS handshakes, by how they came out.",
        );
        for (index, result) in TLS_HANDSHAKES.iter().enumerate() {
            let count = registry.total(|block| &block.tls_handshakes[index]);
            let label = format_args!("{{result=\"{result}\"}}");
            self.sample("tls_handshakes_total", label, count);
        }
        self.gauge(
            "tls_certificate_expiry_seconds",
            "Time left of the certificate that expires first.",
        );
        let expires = registry.reloads.certificate_expires.load(Relaxed);
        let left = expires - process.time_seconds;
        self.sample("tls_certificate_expiry_seconds", "", left);
    }

    fn reloads(&mut self) {
        let registry = self.registry;
        self.counter(
            "reloads_total",
            "Files that were read again, by the result.",
        );
        for (result, counter) in [
            ("ok", &registry.reloads.good),
            ("failed", &registry.reloads.failed),
        ] {
            let label = format_args!("{{result=\"{result}\"}}");
            self.sample("reloads_total", label, counter.load(Relaxed));
        }
    }

    fn hub(&mut self) {
        let registry = self.registry;
        self.gauge("channels", "Channels with subscribers.");
        self.sample("channels", "", registry.total(|block| &block.channels));
        self.gauge("subscriptions", "Subscriptions of all connections.");
        let subscriptions = registry.total(|block| &block.subscriptions);
        self.sample("subscriptions", "", subscriptions);
        self.counter(
            "publications_total",
            "Publications accepted, by the dialect of their publisher.",
        );
        let dialects = registry.labels.dialects.iter().enumerate();
        for (index, dialect) in dialects.chain([(SERVER, &"server")]) {
            let count = registry.total(|block| &block.publications[index]);
            let label = format_args!("{{dialect=\"{dialect}\"}}");
            self.sample("publications_total", label, count);
        }
        self.sum(
            "publications_refused_total",
            "Publications refused because too many were under way.",
            |block| &block.publications_refused,
        );
        self.sum(
            "deliveries_total",
            "Publications delivered, counted for each subscriber.",
            |block| &block.deliveries,
        );
        self.counter(
            "recoveries_total",
            "Subscribers that came back for what they missed, by whether it was still there.",
        );
        for (index, result) in ["recovered", "lost"].iter().enumerate() {
            let count = registry.total(|block| &block.recoveries[index]);
            let label = format_args!("{{result=\"{result}\"}}");
            self.sample("recoveries_total", label, count);
        }
        self.gauge("history_bytes", "Publications kept as history.");
        let history = registry.total(|block| &block.history_bytes);
        self.sample("history_bytes", "", history);
        self.gauge("mail_bytes", "Publications on their way through reactors.");
        self.sample("mail_bytes", "", registry.total(|block| &block.mail_bytes));
    }

    fn ends(&mut self) {
        self.counter(
            "closed_total",
            "WebSocket connections ended, by close code.",
        );
        for index in 0..=CLOSE_CODES.len() {
            let count = self.registry.total(|block| &block.closed[index]);
            let code = CLOSE_CODES
                .get(index)
                .map_or("other".to_owned(), u16::to_string);
            self.sample("closed_total", format_args!("{{code=\"{code}\"}}"), count);
        }
        self.counter("io_errors_total", "System calls that failed, by operation.");
        for (index, operation) in OPERATIONS.iter().enumerate() {
            let count = self.registry.total(|block| &block.io_errors[index]);
            self.sample(
                "io_errors_total",
                format_args!("{{operation=\"{operation}\"}}"),
                count,
            );
        }
        self.counter(
            "timeouts_total",
            "Connections that reached a time limit, by its kind.",
        );
        for (index, kind) in TIMEOUTS.iter().enumerate() {
            let count = self.registry.total(|block| &block.timeouts[index]);
            self.sample("timeouts_total", format_args!("{{kind=\"{kind}\"}}"), count);
        }
    }

    fn reactors(&mut self) {
        self.gauge(
            "reactor_connections",
            "Sockets of each reactor, requests included.",
        );
        for (reactor, block) in self.registry.blocks.iter().enumerate() {
            let sockets = block.sockets.load();
            let label = format_args!("{{reactor=\"{reactor}\"}}");
            sample(&mut self.out, "reactor_connections", label, sockets);
        }
        self.turns("turn", "took", |block| &block.turns);
        if self.registry.labels.turn_cpu {
            self.turns("turn_cpu", "took of CPU time", |block| &block.turns_cpu);
        }
    }

    fn process(&mut self, process: &Process) {
        self.gauge("build_info", "The version that runs.");
        let version = env!("CARGO_PKG_VERSION");
        self.sample("build_info", format_args!("{{version=\"{version}\"}}"), 1);
        let out = &mut self.out;
        let facts: [(&str, &str, &str, &dyn fmt::Display); 4] = [
            (
                "process_cpu_seconds_total",
                "counter",
                "User and system time.",
                &process.cpu.as_secs_f64(),
            ),
            (
                "process_resident_memory_bytes",
                "gauge",
                "Resident memory.",
                &process.resident_bytes,
            ),
            (
                "process_max_fds",
                "gauge",
                "Descriptor limit (soft).",
                &process.descriptors_max,
            ),
            (
                "process_start_time_seconds",
                "gauge",
                "Start, in seconds since 1970.",
                &process.start_time_seconds,
            ),
        ];
        for (name, kind, help, value) in facts {
            write(
                out,
                format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"),
            );
        }
    }

    fn sum(&mut self, name: &str, help: &str, of: impl Fn(&Block) -> &Counter) {
        self.counter(name, help);
        let total = self.registry.total(of);
        self.sample(name, "", total);
    }

    fn counter(&mut self, name: &str, help: &str) {
        self.head(name, "counter", help);
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str) {
        self.head(name, "gauge", help);
    }

    pub(super) fn head(&mut self, name: &str, kind: &str, help: &str) {
        let lines = format_args!("# HELP tidemill_{name} {help}\n# TYPE tidemill_{name} {kind}\n");
        write(&mut self.out, lines);
    }

    fn sample(&mut self, name: &str, labels: impl fmt::Display, value: impl fmt::Display) {
        sample(&mut self.out, name, labels, value);
    }
}

pub(super) fn sample(
    out: &mut String,
    name: &str,
    labels: impl fmt::Display,
    value: impl fmt::Display,
) {
    write(out, format_args!("tidemill_{name}{labels} {value}\n"));
}

fn write(out: &mut String, text: fmt::Arguments<'_>) {
    let written = out.write_fmt(text);
    debug_assert!(written.is_ok(), "writing to a string does not fail");
}

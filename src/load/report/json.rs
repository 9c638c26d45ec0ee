//! The report for programs. Times are in seconds, latencies in microseconds, memory in bytes; what
//! is not known is null.

use serde_json::{Value, json};

use super::{CpuUse, ProbeResult, Report};
use crate::{
    load::{
        latency::{Latency, percentiles},
        machine::ProcessUse,
        plan::{Mode, Pace},
        target::Target,
    },
    transport::tls::Authorities,
};

impl Report {
    /// The whole report as one line of JSON.
    pub fn json(&self) -> String {
        self.value().to_string()
    }

    pub(super) fn value(&self) -> Value {
        let totals = &self.totals;
        let messages = &self.findings.messages;
        let handshakes = &self.findings.handshakes;
        let connect_seconds = self.connect_seconds();
        let message_seconds = self.message_seconds();
        let mode = self.options.mode;
        let has_messages = matches!(mode, Mode::Echo | Mode::Fanout);
        json!({
            "tool": "tidemill bench",
            "version": env!("CARGO_PKG_VERSION"),
            "mode": self.options.mode.name(),
            "url": Target::url(&self.options.target),
            "started": self.started,
            "outcome": if self.interrupted { "interrupted" } else { "complete" },
            "exit": u8::from(!self.is_clean()),
            "options": self.options(),
            "seconds": self.elapsed.as_secs_f64(),
            "connections": {
                "wanted": self.options.connections_all(),
                "opened": totals.opened,
                "failed": totals.failed,
                "lost": totals.lost,
                "seconds": connect_seconds,
                "per_second": rate(totals.opened, connect_seconds),
            },
            "tls": self.secure(),
            "messages": has_messages.then(|| json!({
                "published": (mode == Mode::Fanout).then_some(self.published),
                "sent": totals.messages_sent,
                "received": totals.messages_received,
                "lost": totals.messages_lost,
                "other": totals.messages_other,
                "seconds": message_seconds,
                "per_second": rate(totals.messages_received, message_seconds),
                "plan_kept": self.plan_kept(),
                "bytes_sent": totals.bytes_sent,
                "bytes_received": totals.bytes_received,
            })),
            "latency": (messages.corrected.count() > 0).then(|| json!({
                "corrected": latency(&messages.corrected),
                "uncorrected": latency(&messages.uncorrected),
            })),
            "percentiles": percentiles(messages.corrected.count())
                .iter()
                .map(|at| json!([at, messages.corrected.at(*at), messages.uncorrected.at(*at)]))
                .collect::<Value>(),
            "handshake": (handshakes.corrected.count() > 0)
                .then(|| latency(&handshakes.corrected)),
            "handshake_percentiles": percentiles(handshakes.corrected.count())
                .iter()
                .map(|at| json!([at, handshakes.corrected.at(*at)]))
                .collect::<Value>(),
            "sweep": self.sweep().map(|result| probe(&result)),
            "pings": self.pings().map(|result| probe(&result)),
            "phases": self.phases(),
            "errors": self.errors(),
            "cpu": self.cpu_use(),
            "saturated": self.saturated(),
            "server": self.server(),
            "kernel": self.kernel_cost().map(|cost| json!({
                "per_connection": cost.memory,
                "slab_per_connection": cost.slab,
            })),
            "samples": self.samples(),
        })
    }

    fn options(&self) -> Value {
        let options = &self.options;
        let (per_second, depth) = match options.pace {
            Pace::Open { per_second } => (Some(per_second), None),
            Pace::Closed { depth } => (None, Some(depth)),
        };
        json!({
            "connections": options.connections,
            "threads": self.threads,
            "private_tables": self.private_tables,
            "duration": options.duration.as_secs_f64(),
            "rate": per_second,
            "depth": depth,
            "payload_bytes": options.payload.len(),
            "kind": options.payload.kind(),
            "ramp": options.ramp,
            "connecting": options.connecting,
            "sources": self.sources,
        })
    }

    fn secure(&self) -> Value {
        let options = &self.options;
        if !options.target.is_secure() {
            return Value::Null;
        }
        let tls = &self.findings.tls;
        let agreement = tls.agreement.as_ref();
        json!({
            "insecure": options.authorities == Some(Authorities::Anybody),
            "ca": match &options.authorities {
                Some(Authorities::File(file)) => Some(file.to_string_lossy()),
                _ => None,
            },
            "resume": options.resume,
            "version": agreement.map(|agreed| agreed.version),
            "cipher_suite": agreement.map(|agreed| &agreed.suite),
            "handshakes_full": tls.full,
            "handshakes_resumed": tls.resumed,
            "remedy": self.remedy(),
        })
    }

    fn phases(&self) -> Value {
        let phases = self.phases.iter().enumerate();
        phases
            .map(|(index, phase)| {
                let seconds = |cpu: CpuUse| cpu.user + cpu.system;
                json!({
                    "name": phase.name,
                    "begin": phase.begin.as_secs_f64(),
                    "end": phase.end.as_secs_f64(),
                    "server_cpu_seconds": self.server_cpu(index).map(seconds),
                    "client_cpu_seconds": self.client_cpu(index).map(seconds),
                })
            })
            .collect()
    }

    fn errors(&self) -> Value {
        let errors = self.findings.errors.by_frequency();
        errors
            .iter()
            .map(|(kind, count)| json!({"kind": kind, "count": count}))
            .collect()
    }

    fn cpu_use(&self) -> Value {
        let Some((phase, _)) = self.main_phase() else {
            return Value::Null;
        };
        let process = |cpu: CpuUse| {
            json!({
                "user_seconds": cpu.user,
                "system_seconds": cpu.system,
                "cores_used": cpu.cores,
                "busiest_thread": cpu.busiest_thread,
            })
        };
        json!({
            "cores": self.cores,
            "machine_busy": self.machine_busy(phase),
            "client": self.client_cpu(phase).map(process),
            "server": self.server_cpu(phase).map(process),
        })
    }

    fn server(&self) -> Value {
        let Some(cost) = self.server_cost() else {
            return Value::Null;
        };
        json!({
            "pid": self.options.server_pid,
            "rss_before": cost.rss_before,
            "rss": cost.rss,
            "rss_per_connection": cost.rss_per_connection,
            "cpu_us_per_message": cost.message.map(|(user, system)| user + system),
            "cpu_user_us_per_message": cost.message.map(|(user, _)| user),
            "cpu_system_us_per_message": cost.message.map(|(_, system)| system),
            "cpu_us_per_connection": cost.connection_us,
        })
    }

    fn samples(&self) -> Value {
        let mut before: Option<&super::Sample> = None;
        let one = |sample| {
            let sample: &super::Sample = sample;
            let last = before.replace(sample);
            let seconds = last.map(|last| (sample.at - last.at).as_secs_f64());
            let cores = |now: Option<ProcessUse>, then: Option<ProcessUse>| {
                let used = now?.cpu().saturating_sub(then?.cpu()).as_secs_f64();
                seconds
                    .filter(|seconds| *seconds >= TICKS_SECONDS)
                    .map(|seconds| used / seconds)
            };
            json!({
                "t": sample.at.as_secs_f64(),
                "connections": sample.totals.open,
                "opened": sample.totals.opened,
                "failed": sample.totals.failed,
                "sent": sample.totals.messages_sent,
                "received": sample.totals.messages_received,
                "client_cpu": last.and_then(|last| cores(sample.client, last.client)),
                "server_cpu": last.and_then(|last| cores(sample.server, last.server)),
                "client_rss": sample.client.map(|used| used.resident_bytes),
                "server_rss": sample.server.map(|used| used.resident_bytes),
                "mem_free": sample.machine.map(|machine| machine.free_bytes),
                "slab": sample.machine.map(|machine| machine.slab_bytes),
            })
        };
        self.samples.iter().map(one).collect()
    }
}

/// CPU time is told in ticks of some milliseconds: over less time than this, it says nothing.
const TICKS_SECONDS: f64 = 0.1;

fn rate(count: u64, seconds: f64) -> Option<f64> {
    (seconds > 0.0).then(|| count as f64 / seconds)
}

fn latency(latency: &Latency) -> Value {
    json!({
        "p50": latency.at(50.0),
        "p90": latency.at(90.0),
        "p99": latency.at(99.0),
        "p99_9": latency.at(99.9),
        "p99_99": latency.at(99.99),
        "max": latency.max(),
        "mean": latency.mean(),
        "count": latency.count(),
    })
}

fn probe(result: &ProbeResult<'_>) -> Value {
    json!({
        "sent": result.sent,
        "received": result.received,
        "lost": result.sent - result.received,
        "seconds": result.seconds,
        "latency": (result.latency.count() > 0).then(|| latency(result.latency)),
    })
}

//! `info` and `stats`: numbers of this server, out of the counters of its reactors.

use std::{
    collections::hash_map::RandomState,
    fs,
    hash::BuildHasher,
    sync::{Arc, LazyLock},
    time::Instant,
};

use super::answers::write;
use crate::{
    dialect::{native::json::push_string, router::Router},
    handler::Handler,
    metrics::{Block, Counter, Registry, SERVER},
    sys,
};

/// Reads the counters.
#[derive(Debug)]
pub struct Stats {
    registry: Arc<Registry>,
    started: Instant,
}

/// Names this process among others, until it ends.
static UID: LazyLock<String> = LazyLock::new(|| {
    let random = || RandomState::new().hash_one(());
    format!("{:016x}{:016x}", random(), random())
});

impl Stats {
    pub fn new(registry: &Arc<Registry>) -> Self {
        Self {
            registry: Arc::clone(registry),
            started: Instant::now(),
        }
    }

    /// The result of `info`: one node, this process.
    pub fn info(&self) -> String {
        let mut out = String::with_capacity(256);
        write(
            &mut out,
            format_args!("{{\"nodes\":[{{\"uid\":\"{}\",\"name\":", *UID),
        );
        push_string(&mut out, &host_name());
        let (clients, uptime) = (self.open(), self.started.elapsed().as_secs());
        write(
            &mut out,
            format_args!(
                ",\"version\":\"{VERSION}\",\"num_clients\":{clients},\"num_subs\":{},\
                 \"num_channels\":{},\"uptime\":{uptime}}}]}}",
                self.total(|block| &block.subscriptions),
                self.total(|block| &block.channels),
            ),
        );
        out
    }

    /// The result of `stats`.
    pub fn all(&self, reactors: u16) -> String {
        let mut out = String::with_capacity(1024);
        let (clients, uptime) = (self.open(), self.started.elapsed().as_secs());
        write(
            &mut out,
            format_args!(
                "{{\"version\":\"{VERSION}\",\"uptime\":{uptime},\"reactors\":{reactors},\
                 \"resident_bytes\":{},\"connections\":{clients}",
                sys::resident_bytes(),
            ),
        );
        let dialects = Router::DIALECTS.iter().copied().enumerate();
        let publishers = dialects.clone().chain([(SERVER, "server")]);
        out.push_str(",\"connections_by_dialect\":");
        self.each(&mut out, dialects, |block| &block.connections);
        out.push_str(",\"publications_by_dialect\":");
        self.each(&mut out, publishers, |block| &block.publications);
        for (name, of) in TOTALS {
            write(&mut out, format_args!(",\"{name}\":{}", self.total(of)));
        }
        out.push('}');
        out
    }

    /// An object with one counter for each of these labels.
    fn each(
        &self,
        out: &mut String,
        labels: impl Iterator<Item = (usize, &'static str)>,
        of: fn(&Block) -> &[Counter],
    ) {
        out.push('{');
        for (number, (index, label)) in labels.enumerate() {
            let comma = if number > 0 { "," } else { "" };
            let count = self.total(|block| &of(block)[index]);
            write(out, format_args!("{comma}\"{label}\":{count}"));
        }
        out.push('}');
    }

    fn open(&self) -> u64 {
        let dialects = 0..Router::DIALECTS.len();
        let counts = dialects.map(|index| self.total(|block| &block.connections[index]));
        counts.sum()
    }

    fn total(&self, of: impl Fn(&Block) -> &Counter) -> u64 {
        self.registry.total(of)
    }
}

/// Reads one counter of a reactor.
type Of = fn(&Block) -> &Counter;

const TOTALS: [(&str, Of); 13] = [
    ("connections_total", |block| &block.connections_total),
    ("channels", |block| &block.channels),
    ("subscriptions", |block| &block.subscriptions),
    ("deliveries_total", |block| &block.deliveries),
    ("messages_received_total", |block| &block.messages_received),
    ("messages_sent_total", |block| &block.messages_sent),
    ("bytes_received_total", |block| &block.bytes_received),
    ("bytes_sent_total", |block| &block.bytes_sent),
    ("slow_consumers_total", |block| &block.slow_consumers),
    ("rate_limited_total", |block| &block.rate_limited),
    ("buffer_bytes", |block| &block.buffer_bytes),
    ("mail_bytes", |block| &block.mail_bytes),
    ("sockets", |block| &block.sockets),
];

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "tidemill".to_owned(),
        name => name.to_owned(),
    }
}

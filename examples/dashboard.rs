//! Live figures: the ordinary server, and a thread that publishes how busy this machine is to the
//! channel `metrics`, once a second.
//!
//! ```text
//! cargo run --release --example dashboard
//! npx wscat -c ws://localhost:7000/raw/metrics
//! ```
//!
//! The second line shows, for as long as it runs:
//!
//! ```text
//! < {"time":1766000000,"cpu_percent":12.5,"memory_used_bytes":2147483648,"memory_bytes":…
//! ```
//!
//! A page gets the same by the native protocol, from any Centrifugo SDK: `metrics` is a channel
//! like others. What the system does not tell is `null`; all of it is from `/proc`, and so from
//! Linux.

use std::{
    fs,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tidemill::{
    Config, Handler as _, Payload, PublishError,
    dialect::Router,
    metrics::Registry,
    server::{Publisher, Server, ServerError},
};

const CHANNEL: &str = "metrics";
const INTERVAL: Duration = Duration::from_secs(1);

fn main() -> Result<(), ServerError> {
    let config = Config::default();
    // Each reactor gets a handler of its own; this one is the server that the binary runs.
    let server = {
        let config = config.clone();
        Server::start(&config.clone(), move |registry| {
            Router::new(&config, registry)
        })?
    };
    // A publisher can be cloned and used on any thread; it does not wait for anybody.
    let (publisher, registry) = (server.publisher(), Arc::clone(server.registry()));
    thread::spawn(move || publish(&publisher, &registry));
    println!("npx wscat -c ws://localhost:7000/raw/{CHANNEL}");
    server.stop_on_signals(move || Ok(config.clone()))?;
    server.join()
}

/// Measures and publishes, every second on the second of its own clock.
fn publish(publisher: &Publisher, registry: &Registry) {
    let mut next = Instant::now();
    let mut before = read("/proc/stat").and_then(|text| Ticks::of(&text));
    loop {
        next += INTERVAL;
        thread::sleep(next.saturating_duration_since(Instant::now()));
        let now = read("/proc/stat").and_then(|text| Ticks::of(&text));
        let memory = read("/proc/meminfo").and_then(|text| Memory::of(&text));
        let connections = (0..Router::DIALECTS.len())
            .map(|dialect| registry.total(|block| &block.connections[dialect]))
            .sum();
        let figures = Figures {
            cpu: before.zip(now).and_then(|(before, now)| now.since(before)),
            memory,
            connections,
        };
        before = now;
        match publisher.publish(CHANNEL, Payload::Json(figures.json().into())) {
            // Subscribers that are behind get the next second's figures.
            Ok(()) | Err(PublishError::Busy) => {}
            Err(error) => return eprintln!("{CHANNEL}: {error}"),
        }
    }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// What is published.
struct Figures {
    /// In percent of all cores.
    cpu: Option<f64>,
    memory: Option<Memory>,
    connections: u64,
}

impl Figures {
    fn json(&self) -> String {
        let time = SystemTime::now().duration_since(UNIX_EPOCH);
        let time = time.map_or(0, |time| time.as_secs());
        let cpu = self.cpu.map(|cpu| format!("{cpu:.1}"));
        let used = self.memory.map(|memory| memory.used_bytes.to_string());
        let all = self.memory.map(|memory| memory.bytes.to_string());
        let [cpu, used, all] = [cpu, used, all].map(|figure| figure.unwrap_or("null".to_owned()));
        let connections = self.connections;
        format!(
            "{{\"time\":{time},\"cpu_percent\":{cpu},\"memory_used_bytes\":{used},\
             \"memory_bytes\":{all},\"connections\":{connections}}}"
        )
    }
}

/// What the cores have done since the machine was started, in hundredths of a second.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ticks {
    idle: u64,
    all: u64,
}

impl Ticks {
    /// From the first line of `/proc/stat`: user, nice, system, idle, waiting for disks, and more.
    fn of(stat: &str) -> Option<Self> {
        let cores = stat.lines().next()?.strip_prefix("cpu ")?;
        let ticks = cores
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<Vec<u64>, _>>();
        // The last two, of guests, are in the first two already.
        let ticks = ticks.ok().filter(|ticks| ticks.len() >= 5)?;
        Some(Self {
            idle: ticks[3] + ticks[4],
            all: ticks.iter().take(8).sum(),
        })
    }

    /// How busy they were in between, in percent.
    fn since(self, before: Self) -> Option<f64> {
        let all = self.all.checked_sub(before.all).filter(|all| *all > 0)?;
        let idle = self.idle.saturating_sub(before.idle).min(all);
        Some((all - idle) as f64 * 100.0 / all as f64)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Memory {
    used_bytes: u64,
    bytes: u64,
}

impl Memory {
    /// From `/proc/meminfo`, where a kB has 1024 bytes.
    fn of(meminfo: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
        };
        let bytes = field("MemTotal:")? * 1024;
        Some(Self {
            used_bytes: bytes.saturating_sub(field("MemAvailable:")? * 1024),
            bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_understood() {
        let before = Ticks::of("cpu  10 0 10 70 10 0 0 0 5 0\ncpu0 1 2 3\n").unwrap();
        assert_eq!(before, Ticks { idle: 80, all: 100 });
        let now = Ticks {
            idle: 230,
            all: 300,
        };
        assert_eq!(now.since(before), Some(25.0));
        assert_eq!(before.since(before), None);
        let memory = Memory::of("MemTotal:       100 kB\nMemFree: 1 kB\nMemAvailable:    40 kB\n");
        let expected = Memory {
            used_bytes: 60 * 1024,
            bytes: 100 * 1024,
        };
        assert_eq!(memory, Some(expected));
        for text in ["", "cpu  a b c d e", "cpu  1 2"] {
            assert_eq!(Ticks::of(text), None, "{text}");
            assert_eq!(Memory::of(text), None, "{text}");
        }
    }

    #[test]
    fn figures_are_json_and_null_where_they_are_not_known() {
        let figures = |cpu, memory| Figures {
            cpu,
            memory,
            connections: 3,
        };
        let memory = Memory {
            used_bytes: 1,
            bytes: 2,
        };
        let known: serde_json::Value =
            serde_json::from_str(&figures(Some(12.34), Some(memory)).json()).unwrap();
        assert_eq!(known["cpu_percent"], 12.3);
        assert_eq!(known["memory_used_bytes"], 1);
        assert_eq!(known["connections"], 3);
        let unknown: serde_json::Value = serde_json::from_str(&figures(None, None).json()).unwrap();
        assert!(unknown["cpu_percent"].is_null() && unknown["memory_bytes"].is_null());
    }
}

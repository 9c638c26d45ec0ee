//! `Site`: a server of this process for the time of one test.

use std::{
    net::SocketAddr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tidemill::{
    Config, Handler,
    dialect::Router,
    metrics::{Process, Registry},
    server::Server,
};

use crate::wire::PATIENCE;

/// A running server, shut down when the test ends.
#[derive(Debug)]
pub struct Site {
    server: Option<Server>,
    pub address: SocketAddr,
}

/// Defaults on a free port of one reactor, quick to stop, without pings.
pub fn config() -> Config {
    Config {
        listen: Some(vec![SocketAddr::from(([127, 0, 0, 1], 0))]),
        reactors: Some(1),
        connections_max: Some(1000),
        drain_time: Duration::ZERO,
        close_timeout: ms(100),
        ping_interval: None,
        ..Config::default()
    }
}

pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Site {
    /// What the binary serves.
    pub fn router(config: Config) -> Self {
        let copy = config.clone();
        Self::of(&config, move |registry| Router::new(&copy, registry))
    }

    /// An application.
    pub fn of<H, F>(config: &Config, make: F) -> Self
    where
        H: Handler,
        F: Fn(&Arc<Registry>) -> H + Send + Sync + 'static,
    {
        let server = Server::start(config, make).unwrap();
        Self {
            address: server.addresses()[0],
            server: Some(server),
        }
    }

    pub fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    /// The value of one series, by its name and labels without the prefix.
    #[track_caller]
    pub fn metric(&self, series: &str) -> u64 {
        let page = self.server().registry().prometheus(&Process::default());
        let name = format!("tidemill_{series} ");
        let line = page.lines().find_map(|line| line.strip_prefix(&name));
        let line = line.unwrap_or_else(|| panic!("no {name}in\n{page}"));
        line.parse().unwrap()
    }

    /// Waits until a series has this value.
    #[track_caller]
    pub fn expect_metric(&self, series: &str, value: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.metric(series) != value {
            assert!(
                Instant::now() < deadline,
                "{series} is {}, not {value}",
                self.metric(series)
            );
            thread::yield_now();
            thread::park_timeout(ms(2));
        }
    }

    /// Begins the shutdown; gives what waits for its end.
    pub fn stop(mut self) -> Stopping {
        let server = self.server.take().unwrap();
        server.shutdown();
        let began = Instant::now();
        let end = thread::spawn(move || {
            server.join().unwrap();
            began.elapsed()
        });
        Stopping(end)
    }
}

/// A server that is shutting down.
#[derive(Debug)]
pub struct Stopping(thread::JoinHandle<Duration>);

impl Stopping {
    /// How long the shutdown took.
    pub fn took(self) -> Duration {
        self.0.join().unwrap()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown();
            let ended = server.join();
            assert!(thread::panicking() || ended.is_ok(), "{ended:?}");
        }
    }
}

/// Waits until this holds.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it never came true that {what}");
        thread::park_timeout(ms(2));
    }
}

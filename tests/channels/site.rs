//! `Site`: a server of this process with four reactors, and `Guest`: a client that is there.

use std::{
    net::{SocketAddr, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tidemill::{
    Config, Handler,
    metrics::{Process, Registry},
    server::Server,
};
use tungstenite::{Message, WebSocket, client};

/// How long a busy machine may take for what should come at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// Four reactors on a free port, quick to stop.
pub fn config() -> Config {
    Config {
        listen: Some(vec![SocketAddr::from(([127, 0, 0, 1], 0))]),
        reactors: Some(4),
        connections_max: Some(4000),
        drain_time: Duration::ZERO,
        close_timeout: Duration::from_millis(100),
        ..Config::default()
    }
}

/// A running server, shut down when the test ends.
pub struct Site(Option<Server>);

impl Site {
    pub fn start<H, F>(config: &Config, make: F) -> Self
    where
        H: Handler,
        F: Fn(&Arc<Registry>) -> H + Send + Sync + 'static,
    {
        Self(Some(Server::start(config, make).unwrap()))
    }

    pub fn address(&self) -> SocketAddr {
        self.0.as_ref().unwrap().addresses()[0]
    }

    /// The value of one series, by its name and labels without the prefix.
    pub fn metric(&self, series: &str) -> u64 {
        let server = self.0.as_ref().unwrap();
        let page = server.registry().prometheus(&Process::default());
        let name = format!("tidemill_{series} ");
        let value = page.lines().find_map(|line| line.strip_prefix(&name));
        value.unwrap().parse().unwrap()
    }

    /// Waits until a series has this value.
    #[track_caller]
    pub fn expect_metric(&self, series: &str, value: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.metric(series) != value {
            let found = self.metric(series);
            assert!(
                Instant::now() < deadline,
                "{series} is {found}, not {value}"
            );
            thread::park_timeout(Duration::from_millis(2));
        }
    }

    pub fn enter(&self, path: &str) -> Guest {
        Guest::enter(self.address(), path)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(server) = self.0.take() {
            server.shutdown();
            let ended = server.join();
            assert!(thread::panicking() || ended.is_ok(), "{ended:?}");
        }
    }
}

/// A client on some path.
pub struct Guest(pub WebSocket<TcpStream>);

impl Guest {
    pub fn enter(address: SocketAddr, path: &str) -> Self {
        Self::over(TcpStream::connect(address).unwrap(), path)
    }

    pub fn over(stream: TcpStream, path: &str) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let request = format!("ws://localhost{path}");
        Self(client(request, stream).unwrap().0)
    }

    pub fn say(&mut self, message: Message) {
        self.0.send(message).unwrap();
    }

    /// The next data message.
    #[track_caller]
    pub fn hear(&mut self) -> Message {
        loop {
            match self.0.read().unwrap() {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    }

    /// Says a text.
    pub fn text(&mut self, text: &str) {
        self.say(Message::text(text));
    }

    /// The next message is this text.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        assert_eq!(self.hear(), Message::text(text));
    }

    /// Says something and waits to hear it.
    pub fn say_and_hear(&mut self, text: &str) {
        self.text(text);
        while self.hear() != Message::text(text) {}
    }
}

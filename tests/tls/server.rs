//! `Server`: a running `tidemill` that speaks TLS, with the authority that signed its certificate;
//! ended with its test.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustls::ClientConfig;

use crate::{
    authority::{Authority, Folder, Order, Pair},
    client::{self, Client},
    outside::{PATIENCE, wait_until},
};

/// A server that is to be started. Its certificate for `localhost` is signed by `authority`, and
/// lies in `folder` as `cert.pem` and `key.pem`.
pub struct Setup {
    pub authority: Authority,
    pub folder: Folder,
    options: Vec<(String, String)>,
}

pub struct Server {
    child: Child,
    pub authority: Authority,
    pub folder: Folder,
    pub banner: String,
    /// Where TLS is spoken.
    pub address: SocketAddr,
    /// Where it is not.
    pub plain: Option<SocketAddr>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Setup {
    pub fn new() -> Self {
        let setup = Self {
            authority: Authority::new(),
            folder: Folder::new(),
            options: Vec::new(),
        };
        let pair = setup.authority.sign(&Order::default());
        setup.store("", &pair);
        setup
            .set("TLS_CERT", &setup_path(&["cert.pem"]))
            .set("TLS_KEY", &setup_path(&["key.pem"]))
            .set("TLS_LISTEN", "127.0.0.1:0")
            .set("LISTEN", "127.0.0.1:0")
            // The first ping comes anywhere in the interval, so also between two frames of a test.
            .set("PING_INTERVAL", "0")
            .set("TLS_RELOAD_INTERVAL", "0")
            .set("REACTORS", "2")
    }

    /// Sets a variable, given without its prefix. `@/` in a value is the folder; empty unsets it.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.options.retain(|(set, _)| set != name);
        let folder = self.folder.path("");
        if !value.is_empty() {
            self.options
                .push((name.to_owned(), value.replace("@/", &folder)));
        }
        self
    }

    /// Writes `NAMEcert.pem` and `NAMEkey.pem`.
    pub fn store(&self, name: &str, pair: &Pair) {
        self.folder
            .write(&format!("{name}cert.pem"), &pair.certificate_pem);
        self.folder.write(&format!("{name}key.pem"), &pair.key_pem);
    }

    /// The certificates are `NAMEcert.pem` with `NAMEkey.pem`, in this order.
    pub fn show(self, names: &[&str]) -> Self {
        let files = |kind: &str| {
            let files: Vec<_> = names
                .iter()
                .map(|name| format!("{name}{kind}.pem"))
                .collect();
            setup_path(&files.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let (certificates, keys) = (files("cert"), files("key"));
        self.set("TLS_CERT", &certificates).set("TLS_KEY", &keys)
    }

    /// The program with these options and no others.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("TIDEMILL_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        let variables = self.options.iter();
        command.envs(variables.map(|(name, value)| (format!("TIDEMILL_{name}"), value)));
        command.env("RUST_BACKTRACE", "0");
        command.args(args).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs it to its end, which must come by itself.
    #[track_caller]
    pub fn finish(&self, args: &[&str]) -> Output {
        let mut child = self.command(args).spawn().unwrap();
        let deadline = Instant::now() + PATIENCE / 4;
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                child.kill().unwrap();
                panic!("it goes on: {:?}", child.wait_with_output());
            }
            thread::park_timeout(Duration::from_millis(5));
        }
        child.wait_with_output().unwrap()
    }

    /// Starts it, and waits for its banner.
    #[track_caller]
    pub fn start(self) -> Server {
        let mut child = self.command(&[]).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        collect(child.stderr.take().unwrap(), Arc::clone(&log));
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut banner = String::new();
        while !banner.contains("\n  connections ") {
            if output.read_line(&mut banner).unwrap() == 0 {
                let _ = child.wait();
                wait_until(PATIENCE, || log.lock().unwrap().len(), |lines| *lines > 0);
                panic!("no banner: {banner}{:?}", log.lock().unwrap());
            }
        }
        let address = |scheme: &str| {
            let (_, rest) = banner.split_once(&format!(" {scheme}://"))?;
            rest[..rest.find([' ', '\n', '/'])?].parse().ok()
        };
        Server {
            address: address("wss").unwrap_or_else(|| panic!("no wss:// in {banner}")),
            plain: address("ws"),
            child,
            authority: self.authority,
            folder: self.folder,
            banner,
            log,
        }
    }
}

impl Server {
    /// A server like any other.
    #[track_caller]
    pub fn start() -> Self {
        Setup::new().start()
    }

    /// A client's configuration that trusts this server.
    pub fn config(&self) -> ClientConfig {
        client::config(&self.authority, rustls::DEFAULT_VERSIONS, None)
    }

    #[track_caller]
    pub fn connect(&self) -> Client {
        Client::connect(self.address, self.config(), "localhost").unwrap()
    }

    /// An open WebSocket on `/echo`.
    #[track_caller]
    pub fn open(&self) -> Client {
        self.connect().upgraded("/echo")
    }

    /// A bare connection to the port of TLS.
    #[track_caller]
    pub fn bare(&self) -> TcpStream {
        client::stream(self.address, 0).unwrap()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    #[track_caller]
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status();
        assert!(sent.unwrap().success(), "{name} to {id}");
    }

    /// Ends it as an operator would, and insists that it was in order all the time.
    #[track_caller]
    pub fn stop(self) {
        self.signal("TERM");
        self.stop_by_itself();
    }

    /// It was told to end, and does, in order.
    #[track_caller]
    pub fn stop_by_itself(mut self) {
        let seen = || self.child.try_wait().unwrap();
        let status = wait_until(PATIENCE, seen, Option::is_some).unwrap();
        let panics = self.logged("panicked");
        assert!(panics.is_empty(), "{panics:?}");
        assert_eq!(status.code(), Some(0), "{:?}", self.log.lock().unwrap());
    }

    /// All lines of the log that contain this.
    pub fn logged(&self, part: &str) -> Vec<String> {
        let log = self.log.lock().unwrap();
        let lines = log.iter().filter(|line| line.contains(part));
        lines.cloned().collect()
    }

    /// Waits until this was logged so often; gives the lines.
    #[track_caller]
    pub fn expect_log(&self, part: &str, times: usize) -> Vec<String> {
        wait_until(PATIENCE, || self.logged(part), |lines| lines.len() >= times)
    }

    /// The page at this path, by plain HTTP if the server speaks it.
    #[track_caller]
    pub fn page(&self, path: &str) -> String {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let mut page = String::new();
        if let Some(plain) = self.plain {
            let mut stream = TcpStream::connect(plain).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            stream.read_to_string(&mut page).unwrap();
        } else {
            let mut client = self.connect();
            client.write_all(request.as_bytes()).unwrap();
            client.read_to_string(&mut page).unwrap();
        }
        page
    }

    /// The sum of the series that begin so.
    #[track_caller]
    pub fn metric(&self, series: &str) -> f64 {
        let page = self.page("/metrics");
        let values = page.lines().filter_map(|line| {
            let rest = line.strip_prefix("tidemill_")?.strip_prefix(series)?;
            matches!(rest.as_bytes().first(), Some(b' ' | b'{'))
                .then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
        });
        let values: Vec<f64> = values.collect();
        assert!(!values.is_empty(), "no tidemill_{series} in\n{page}");
        values.iter().sum()
    }

    /// Handshakes that came out so.
    #[track_caller]
    pub fn handshakes(&self, result: &str) -> f64 {
        self.metric(&format!("tls_handshakes_total{{result=\"{result}\"}}"))
    }

    /// Waits for a metric to come to this.
    #[track_caller]
    pub fn settles(&self, series: &str, value: f64) {
        let holds = |seen: &f64| (*seen - value).abs() < 0.5;
        wait_until(PATIENCE, || self.metric(series), holds);
    }

    /// Waits until the server holds so many sockets beside the one that asks.
    #[track_caller]
    pub fn holds(&self, sockets: usize) {
        self.settles("reactor_connections", sockets as f64 + 1.0);
    }

    /// CPU time that all threads have used.
    pub fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let spent = tasks.map(|task| {
            let schedule = fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
            schedule.split(' ').next().unwrap().parse::<u64>().unwrap()
        });
        Duration::from_nanos(spent.sum())
    }

    pub fn rss_bytes(&self) -> u64 {
        let file = format!("/proc/{}/smaps_rollup", self.child.id());
        let rollup = fs::read_to_string(file).unwrap();
        let line = rollup.lines().find(|line| line.starts_with("Rss:"));
        let kib = line.unwrap().split_whitespace().nth(1).unwrap();
        kib.parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = self.log.lock().unwrap();
            for line in log.iter().rev().take(20).rev() {
                eprintln!("server: {line}");
            }
        }
    }
}

/// Levels of lines as the log has them when it goes to no terminal.
pub fn is_warning(line: &str) -> bool {
    line.contains("\"level\":\"warn\"")
}

pub fn is_error(line: &str) -> bool {
    line.contains("\"level\":\"error\"")
}

fn setup_path(files: &[&str]) -> String {
    let files: Vec<_> = files.iter().map(|file| format!("@/{file}")).collect();
    files.join(",")
}

/// Reads a pipe to its end, so that the program never waits for us.
fn collect(pipe: impl Read + Send + 'static, into: Arc<Mutex<Vec<String>>>) {
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            into.lock().unwrap().push(line);
        }
    });
}

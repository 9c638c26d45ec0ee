//! The servers: what there is to start, and one that runs.

use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::machine::{self, ProcessClock};
use crate::socket::{self, Credentials, Endpoint, PATIENCE};

/// The core that a server is pinned to unless its kind says more.
pub const SERVER_CORE: usize = 0;
/// The core that the client is pinned to.
pub const CLIENT_CORE: usize = 1;

/// The name of the server that all others are compared with.
pub const FLOOR: &str = "floor";

/// Variables of the environment.
pub type Variables = &'static [(&'static str, &'static str)];

/// A server that can be started.
#[derive(Clone, Debug)]
pub struct Kind {
    pub name: String,
    start: Start,
    /// Certificate and key of a server that speaks TLS only.
    secured_with: Option<[PathBuf; 2]>,
    credentials: Credentials,
    cores: &'static [usize],
}

#[derive(Clone, Debug)]
enum Start {
    /// Ours: listens on the address it is given and prints the one it got.
    Peer(PathBuf),
    /// Configured by its environment, the variables of the benchmark among it.
    Tidemill {
        program: PathBuf,
        variables: Vec<(&'static str, String)>,
        /// A program that runs it, with arguments.
        under: Vec<String>,
    },
    /// A program and its arguments, `{port}`, `{cert}` and `{key}` in any of them.
    Command(Vec<String>),
}

impl Kind {
    /// A server of this package.
    pub fn peer(name: &str, program: &str) -> Self {
        Self::new(name, Start::Peer(program.into()))
    }

    /// A tidemill binary and how the benchmark wants it beside what all of them want.
    ///
    /// # Errors
    /// There is no such file.
    pub fn tidemill(name: &str, program: &Path, variables: Variables) -> Result<Self, String> {
        if !program.is_file() {
            return Err(format!(
                "no tidemill at {}: build it with `cargo build --release`, name another one with \
                 --tidemill, or leave it out with --servers",
                program.display()
            ));
        }
        let start = Start::Tidemill {
            program: program.into(),
            variables: Vec::new(),
            under: Vec::new(),
        };
        Ok(Self::new(name, start).with(variables))
    }

    /// Any other server, given as `name=program argument…`; no shell is involved, so the process
    /// measured is the program itself.
    ///
    /// # Errors
    /// There is no name, no program, or no `{port}`.
    pub fn extra(definition: &str) -> Result<Self, String> {
        let (name, command) = definition
            .split_once('=')
            .filter(|(name, command)| !name.is_empty() && command.contains("{port}"))
            .ok_or_else(|| format!("{definition}: expected name=COMMAND with {{port}} in it"))?;
        let words = command.split_whitespace().map(str::to_owned).collect();
        Ok(Self::new(name, Start::Command(words)))
    }

    fn new(name: &str, start: Start) -> Self {
        Self {
            name: name.into(),
            start,
            secured_with: None,
            credentials: Credentials::default(),
            cores: &[SERVER_CORE],
        }
    }

    /// The same server on other cores than [`SERVER_CORE`].
    pub fn on(mut self, cores: &'static [usize]) -> Self {
        self.cores = cores;
        self
    }

    /// The same server over TLS. One of this package takes the files as arguments.
    pub fn secured(mut self, certificate: PathBuf, key: PathBuf) -> Self {
        self.secured_with = Some([certificate, key]);
        self
    }

    /// The same server, asked with what it wants to see.
    pub fn asked_with(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// The same tidemill with more variables. Other servers are left as they are.
    pub fn with(self, more: Variables) -> Self {
        more.iter()
            .fold(self, |kind, (name, value)| kind.set(name, *value))
    }

    /// The same tidemill with one more variable. Other servers are left as they are.
    pub fn set(mut self, name: &'static str, value: impl Into<String>) -> Self {
        if let Start::Tidemill { variables, .. } = &mut self.start {
            variables.push((name, value.into()));
        }
        self
    }

    /// The same tidemill, run by another program, of which these are the name and the arguments.
    /// Other servers are left as they are.
    pub fn under(mut self, words: Vec<String>) -> Self {
        if let Start::Tidemill { under, .. } = &mut self.start {
            *under = words;
        }
        self
    }

    pub fn is_secured(&self) -> bool {
        self.secured_with.is_some()
    }

    /// What starts it, and where it will listen unless it reports that itself.
    fn command(&self) -> io::Result<(Command, Option<SocketAddr>)> {
        let address = local(free_port()?);
        let mut command = match &self.start {
            Start::Peer(program) => {
                let mut command = Command::new(program);
                command.arg(local(0).to_string()).stdout(Stdio::piped());
                command.args(self.secured_with.iter().flatten());
                return Ok((command, None));
            }
            Start::Tidemill {
                program,
                variables,
                under,
            } => {
                let mut command = run_by(under, program);
                configure(&mut command, address, variables);
                if let Some([certificate, key]) = &self.secured_with {
                    command
                        .env("TIDEMILL_LISTEN", "off")
                        .env("TIDEMILL_TLS_LISTEN", address.to_string())
                        .env("TIDEMILL_TLS_CERT", certificate)
                        .env("TIDEMILL_TLS_KEY", key);
                }
                command
            }
            Start::Command(words) => {
                let port = address.port().to_string();
                let files = self.secured_with.iter().flatten();
                let files = files.map(|file| file.display().to_string());
                let places = ["{port}", "{cert}", "{key}"];
                let values: Vec<_> = places
                    .into_iter()
                    .zip([port].into_iter().chain(files))
                    .collect();
                let fill = |word: &String| {
                    values.iter().fold(word.clone(), |word, (place, value)| {
                        word.replace(place, value)
                    })
                };
                let mut words = words.iter().map(fill);
                let mut command = Command::new(words.next().unwrap_or_default());
                command.args(words);
                command
            }
        };
        command.stdout(Stdio::null());
        Ok((command, Some(address)))
    }
}

/// A running server, killed when dropped.
pub struct Server {
    pub endpoint: Endpoint,
    pub clock: ProcessClock,
    child: Child,
}

impl Server {
    /// Starts a server on its core and waits until it has upgraded one connection.
    ///
    /// # Errors
    /// It does not start, ends, or does not answer within [`PATIENCE`].
    pub fn start(kind: &Kind) -> io::Result<Self> {
        Self::start_with(kind, |server| socket::close(&socket::open(server, None)?))
    }

    /// The same with another first connection; it is tried again while nobody listens.
    ///
    /// # Errors
    /// Those of [`Self::start`], and those of `visit`.
    pub fn start_with(
        kind: &Kind,
        visit: impl FnMut(&Endpoint) -> io::Result<()>,
    ) -> io::Result<Self> {
        let context = |error| io::Error::other(format!("{}: {error}", kind.name));
        Self::launch(kind, visit).map_err(context)
    }

    fn launch(kind: &Kind, visit: impl FnMut(&Endpoint) -> io::Result<()>) -> io::Result<Self> {
        let (mut command, address) = kind.command()?;
        command.stdin(Stdio::null());
        let cores = kind.cores;
        // SAFETY: both are plain system calls, which a forked child may make.
        unsafe {
            command.pre_exec(move || {
                machine::die_with_parent()?;
                machine::pin_to_cores(cores)
            });
        }
        let child = command.spawn()?;
        let clock = ProcessClock::new(child.id())?;
        let mut server = Self {
            endpoint: Endpoint::new(address.unwrap_or(local(0)), &kind.credentials),
            clock,
            child,
        };
        if address.is_none() {
            server.endpoint = Endpoint::new(server.reported_address()?, &kind.credentials);
        }
        server.warm_up(visit)?;
        Ok(server)
    }

    fn reported_address(&mut self) -> io::Result<SocketAddr> {
        let mut line = String::new();
        if let Some(stdout) = self.child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let address = line.trim().rsplit(' ').next().unwrap_or_default();
        address
            .parse()
            .map_err(|_| io::Error::other(format!("reported no address: {line:?}")))
    }

    /// Opens, uses and closes a first connection, once the server listens.
    fn warm_up(&mut self, mut visit: impl FnMut(&Endpoint) -> io::Result<()>) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match visit(&self.endpoint) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error),
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("ended at start, {status}")));
            }
            if Instant::now() > deadline {
                return Err(io::Error::other("does not listen"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until the server has nothing left to do and returns its CPU time, then exact.
    ///
    /// # Errors
    /// The server has ended.
    pub fn settle(&self) -> io::Result<Duration> {
        const STEP: Duration = Duration::from_millis(10);
        let mut before = self.clock.total()?;
        // A server whose timer fires at every step never stands still; what that costs is tiny.
        for _ in 0..50 {
            std::thread::sleep(STEP);
            let now = self.clock.total()?;
            if now == before {
                break;
            }
            before = now;
        }
        Ok(before)
    }

    /// Asks the server to stop and waits until it has.
    ///
    /// # Errors
    /// It does not within [`PATIENCE`], or not well.
    pub fn stop(mut self) -> io::Result<()> {
        // SAFETY: no pointer is passed; nobody has waited for the child, so the number is its own.
        if unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(io::Error::other(format!("ended badly, {status}"))),
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        Err(io::Error::other("does not stop"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Either fails only when the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run_by(words: &[String], program: &Path) -> Command {
    let Some((first, arguments)) = words.split_first() else {
        return Command::new(program);
    };
    let mut command = Command::new(first);
    command.args(arguments).arg(program);
    command
}

/// Has a tidemill start as the benchmarks want it, whatever the environment configures.
fn configure(command: &mut Command, address: SocketAddr, variables: &[(&str, String)]) {
    let inherited = std::env::vars_os().map(|(name, _)| name);
    for name in inherited.filter(|name| name.as_encoded_bytes().starts_with(b"TIDEMILL_")) {
        command.env_remove(name);
    }
    command
        .env("TIDEMILL_LISTEN", address.to_string())
        .env("TIDEMILL_REACTORS", "1")
        .env("TIDEMILL_MAX_MESSAGE_BYTES", "1MiB")
        // A heartbeat between two echoes would be taken for a changed message.
        .env("TIDEMILL_PING_INTERVAL", "0")
        .env("TIDEMILL_IDLE_TIMEOUT", "1h")
        .env("TIDEMILL_LOG", "warn")
        .envs(variables.iter().map(|(name, value)| (name, value)));
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// A port that nobody listens on. Another process could take it before the server does, which
/// the server then reports.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

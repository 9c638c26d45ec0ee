//! `Program`: a running `tidemill`, ended with its test.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::wire::{PATIENCE, Wire, get};

/// The binary, with none of the variables that this process happens to have.
pub fn tidemill(args: &[&str]) -> Command {
    clean(Command::new(env!("CARGO_BIN_EXE_tidemill")), args)
}

/// As `tidemill`, under this soft and hard limit of open descriptors, none of which is one that
/// the test runner happens to leave open.
pub fn tidemill_under(descriptors: u32, args: &[&str]) -> Command {
    let mut shell = Command::new("bash");
    shell.arg("-c");
    let alone = "for open in /proc/self/fd/*; do open=${open##*/}; \
                 [ $open -lt 3 ] || eval \"exec $open>&-\"; done";
    shell.arg(format!(
        "{alone}; ulimit -n {descriptors} && exec \"$0\" \"$@\""
    ));
    shell.arg(env!("CARGO_BIN_EXE_tidemill"));
    clean(shell, args)
}

fn clean(mut command: Command, args: &[&str]) -> Command {
    for (name, _) in std::env::vars_os() {
        let is_ours = |name: &OsStr| name.to_string_lossy().starts_with("TIDEMILL_");
        if is_ours(&name) || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs to its end, which must come by itself.
#[track_caller]
pub fn finish(mut command: Command) -> Output {
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let id = child.id();
    let (done, is_done) = mpsc::channel();
    let waiting = thread::spawn(move || {
        let output = child.wait_with_output();
        let _ = done.send(());
        output
    });
    if is_done.recv_timeout(PATIENCE).is_err() {
        signal(id, "KILL");
        panic!("it went on: {:?}", waiting.join());
    }
    waiting.join().unwrap().unwrap()
}

/// A server and what it prints.
#[derive(Debug)]
pub struct Program {
    child: Child,
    pub banner: String,
    pub address: SocketAddr,
    log: mpsc::Receiver<String>,
}

impl Program {
    /// Starts a server on a free port, and waits for its banner.
    #[track_caller]
    pub fn serve(args: &[&str]) -> Self {
        Self::start(tidemill(&[&["--listen", "127.0.0.1:0"], args].concat()))
    }

    #[track_caller]
    pub fn start(mut command: Command) -> Self {
        // The first ping comes anywhere in the interval, so also between any two frames of a test.
        let mut child = command
            .env("TIDEMILL_PING_INTERVAL", "0")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = lines(child.stdout.take().unwrap());
        let log = lines(child.stderr.take().unwrap());
        let mut banner = String::new();
        while !banner.contains("\n  connections ") {
            let Ok(line) = output.recv_timeout(PATIENCE) else {
                let _ = child.kill();
                panic!("no banner: {banner} {:?}", log.iter().collect::<Vec<_>>());
            };
            banner += &line;
            banner.push('\n');
        }
        let address = banner.split_once("ws://").unwrap().1;
        let end = address.find([' ', '\n', '/']).unwrap();
        Self {
            address: address[..end].parse().unwrap(),
            child,
            banner,
            log,
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Waits for the end; says how it ended and what was logged up to then.
    #[track_caller]
    pub fn ended(mut self) -> (ExitStatus, Vec<String>) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            thread::park_timeout(Duration::from_millis(5));
        };
        (status, self.log.iter().collect())
    }

    /// The next line of the log that contains this.
    #[track_caller]
    pub fn expect_log(&self, text: &str) -> String {
        let mut seen = Vec::new();
        while let Ok(line) = self.log.recv_timeout(PATIENCE) {
            if line.contains(text) {
                return line;
            }
            seen.push(line);
        }
        panic!("{text:?} was not logged, but {seen:?}");
    }

    /// The value of one series, as a scrape sees it.
    #[track_caller]
    pub fn metric(&self, series: &str) -> u64 {
        let mut wire = Wire::connect(self.address);
        wire.send(get("/metrics"));
        let page = wire.answer().body;
        let name = format!("tidemill_{series} ");
        let line = page.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or_else(|| panic!("no {name}in\n{page}"))
            .parse()
            .unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(id: u32, name: &str) {
    let sent = Command::new("sh")
        .args(["-c", &format!("kill -s {name} {id}")])
        .status();
    assert!(sent.unwrap().success(), "{name} to {id}");
}

/// Reads a pipe to its end, so that the program never waits for us.
fn lines(pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

//! `Tool`: a running `tidemill bench`, ended with its test.

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    program::{Program, tidemill},
    report::Report,
    wire::PATIENCE,
};

/// A run under way.
pub struct Tool {
    child: Child,
    output: JoinHandle<String>,
    log: Receiver<String>,
    logged: Vec<String>,
}

/// A run that is over.
#[derive(Debug)]
pub struct Ended {
    /// None when a signal ended the process.
    pub code: Option<i32>,
    pub output: String,
    pub log: Vec<String>,
}

/// The command line of a run.
pub fn bench(args: &[&str]) -> Command {
    tidemill(&[&["bench"], args].concat())
}

/// Where a server echoes.
pub fn echo_at(address: SocketAddr) -> String {
    format!("ws://{address}/echo")
}

/// Runs with the report as JSON, to the end.
#[track_caller]
pub fn report(args: &[&str]) -> Report {
    Tool::start(bench(&[args, &["--json"]].concat()))
        .ended()
        .report()
}

/// Runs against the echo of a real server.
#[track_caller]
pub fn report_on(server: &Program, mode: &str, flags: &[&str]) -> Report {
    let url = echo_at(server.address);
    report(&[&[mode, &url], flags].concat())
}

impl Tool {
    #[track_caller]
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdout.take().unwrap();
        let output = thread::spawn(move || {
            let mut text = String::new();
            pipe.read_to_string(&mut text).unwrap();
            text
        });
        let (sender, log) = mpsc::channel();
        let pipe = BufReader::new(child.stderr.take().unwrap());
        thread::spawn(move || {
            for line in pipe.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            output,
            log,
            logged: Vec::new(),
        }
    }

    /// Begins a run with the report as JSON and a line for each phase that is over.
    #[track_caller]
    pub fn run(args: &[&str]) -> Self {
        let flags = ["--json", "--progress", "lines"];
        Self::start(bench(&[args, &flags].concat()))
    }

    /// Waits until this phase is over.
    #[track_caller]
    pub fn expect_phase(&mut self, name: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.log.recv_timeout(left) else {
                panic!("no line of the phase {name} in {:?}", self.logged);
            };
            let is_it = line.split_whitespace().next() == Some(name);
            self.logged.push(line);
            if is_it {
                return;
            }
        }
    }

    /// Whether the run is over, whatever came of it.
    pub fn has_ended(&self) -> bool {
        // The standard output of a run is closed by its end alone.
        self.output.is_finished()
    }

    #[track_caller]
    pub fn signal(&self, name: &str) {
        let id = self.child.id();
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -s {name} {id}")])
            .status();
        assert!(sent.unwrap().success(), "{name} to {id}");
    }

    /// Waits for the end.
    #[track_caller]
    pub fn ended(self) -> Ended {
        self.ended_within(PATIENCE)
    }

    /// Waits for the end, which must come in this time from now on.
    #[track_caller]
    pub fn ended_within(mut self, limit: Duration) -> Ended {
        let deadline = Instant::now() + limit;
        let code = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.code();
            }
            if Instant::now() >= deadline {
                let _ = self.child.kill();
                self.logged.extend(self.log.iter());
                panic!("it went on for longer than {limit:?}: {:?}", self.logged);
            }
            thread::park_timeout(Duration::from_millis(5));
        };
        self.logged.extend(self.log.iter());
        let log = std::mem::take(&mut self.logged);
        let output = std::mem::replace(&mut self.output, thread::spawn(String::new));
        Ended {
            code,
            output: output.join().unwrap(),
            log,
        }
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// The report on standard output, which must be nothing else.
    #[track_caller]
    pub fn report(&self) -> Report {
        assert_eq!(self.output.lines().count(), 1, "{self:?}");
        let report = Report::parse(&self.output);
        assert_eq!(self.code, Some(report.number("/exit") as i32), "{self:?}");
        report
    }
}

/// Waits until this holds.
#[track_caller]
pub fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}

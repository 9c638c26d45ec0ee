//! A running `tidemill` as its machine sees it: memory, descriptors, CPU time and metrics; and
//! peers of a few lines, cheap enough to be thousands.
//!
//! Linux only: what is measured stands in `/proc`, limits of descriptors are set by `prlimit`.

#![expect(dead_code, reason = "each target of this folder uses a part of it")]

pub mod peer;

use std::{
    collections::HashSet,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

pub use peer::Peer;

/// Longer than anything takes here, on a machine that is busy with other things as well.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// The server, what it printed, and what it has logged up to now.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    pub banner: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Starts a server with these `TIDEMILL_` variables, on a port that the kernel chooses.
    /// `limits` are arguments of `ulimit`, such as `-Sn 256`; empty leaves them as they are.
    #[track_caller]
    pub fn start(limits: &str, options: &[(&str, &str)]) -> Self {
        let limits = match limits {
            "" => String::new(),
            limits => format!("ulimit {limits} && "),
        };
        let script = format!("{limits}exec \"$0\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_tidemill")]);
        for (name, _) in std::env::vars() {
            if name.starts_with("TIDEMILL_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command.env("TIDEMILL_LISTEN", "127.0.0.1:0");
        command.envs(
            options
                .iter()
                .map(|(name, value)| (format!("TIDEMILL_{name}"), value)),
        );
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();

        let log = Arc::new(Mutex::new(Vec::new()));
        collect(child.stderr.take().unwrap(), Arc::clone(&log));
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut banner = String::new();
        while !banner.contains("\n  connections ") {
            if output.read_line(&mut banner).unwrap() == 0 {
                panic!("no banner: {banner}{:?}", log.lock().unwrap());
            }
        }
        let address = banner.split_once("ws://").unwrap().1;
        let end = address.find([' ', '\n', '/']).unwrap();
        let address = address[..end].parse().unwrap();
        Self {
            child,
            address,
            banner,
            log,
        }
    }

    pub fn logged(&self, part: &str) -> usize {
        let log = self.log.lock().unwrap();
        log.iter().filter(|line| line.contains(part)).count()
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap()
    }

    /// Memory that the process occupies, from /proc: exact, unlike the lazy sums of `statm`.
    pub fn rss_bytes(&self) -> u64 {
        let rollup = self.proc("smaps_rollup");
        let line = rollup.lines().find(|line| line.starts_with("Rss:"));
        let kib: u64 = line
            .unwrap()
            .split_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        kib * 1024
    }

    /// Open descriptors, in a table that all threads share.
    pub fn descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.child.id());
        fs::read_dir(folder).unwrap().count()
    }

    /// The number that the next descriptor will have: the lowest that is free.
    pub fn next_descriptor(&self) -> u64 {
        let folder = format!("/proc/{}/fd", self.child.id());
        let entries = fs::read_dir(folder).unwrap();
        let taken: HashSet<u64> = entries
            .map(|entry| entry.unwrap().file_name())
            .map(|name| name.to_str().unwrap().parse().unwrap())
            .collect();
        (0..).find(|number| !taken.contains(number)).unwrap()
    }

    /// CPU time that all threads have used, from the scheduler's nanoseconds.
    pub fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let nanoseconds = tasks.map(|task| {
            let schedule = fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
            let spent = schedule.split(' ').next().unwrap();
            spent.parse::<u64>().unwrap()
        });
        Duration::from_nanos(nanoseconds.sum())
    }

    /// CPU time used while `load` runs.
    pub fn cpu_during(&self, load: impl FnOnce()) -> Duration {
        let before = self.cpu();
        load();
        self.cpu() - before
    }

    /// Gives the running process another soft limit of descriptors.
    pub fn limit_descriptors(&self, soft: u64) {
        prlimit(self.child.id(), &format!("--nofile={soft}:"));
    }

    /// The sum of a metric's series, as a scrape sees it.
    #[track_caller]
    pub fn metric(&self, name: &str) -> u64 {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        let samples = page.lines().filter_map(|line| {
            let rest = line.strip_prefix("tidemill_")?.strip_prefix(name)?;
            matches!(rest.as_bytes().first(), Some(b' ' | b'{'))
                .then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
        });
        let samples: Vec<f64> = samples.collect();
        assert!(!samples.is_empty(), "no tidemill_{name} in\n{page}");
        samples.iter().sum::<f64>() as u64
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until this holds, for as long as `limit`; gives the last value that was seen.
#[track_caller]
pub fn wait_until<T: std::fmt::Debug>(
    limit: Duration,
    mut look: impl FnMut() -> T,
    holds: impl Fn(&T) -> bool,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        let seen = look();
        if holds(&seen) {
            return seen;
        }
        assert!(Instant::now() < deadline, "stayed at {seen:?}");
        thread::park_timeout(Duration::from_millis(20));
    }
}

/// Raises the soft limit of this process to its hard one, and says what that is. Thousands of
/// peers are thousands of descriptors here too.
#[track_caller]
pub fn raise_own_limit(needed: u64) -> u64 {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let hard: u64 = line
        .unwrap()
        .split_whitespace()
        .nth(4)
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        hard >= needed,
        "this test holds {needed} descriptors: ulimit -Hn is {hard}"
    );
    prlimit(std::process::id(), &format!("--nofile={hard}:"));
    hard
}

#[track_caller]
fn prlimit(id: u32, limit: &str) {
    let mut command = Command::new("prlimit");
    let done = command
        .args(["--pid", &id.to_string(), limit])
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
}

/// Reads a pipe to its end, so that the program never waits for us.
fn collect(pipe: impl Read + Send + 'static, into: Arc<Mutex<Vec<String>>>) {
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            into.lock().unwrap().push(line);
        }
    });
}

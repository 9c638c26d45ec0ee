//! `Report`: what a run said, as JSON. Parsing one checks what must hold for every run, whatever
//! it was: sums, orders, and that no part contradicts another.

use serde_json::Value;

/// The parts of a report, all of which are always there.
const PARTS: [&str; 24] = [
    "connections",
    "cpu",
    "errors",
    "exit",
    "handshake",
    "handshake_percentiles",
    "kernel",
    "latency",
    "messages",
    "mode",
    "options",
    "outcome",
    "percentiles",
    "phases",
    "pings",
    "samples",
    "saturated",
    "seconds",
    "server",
    "started",
    "sweep",
    "tls",
    "tool",
    "url",
];

/// All phases, in the order in which they come.
const PHASES: [&str; 8] = [
    "ramp", "hold", "exchange", "publish", "churn", "sweep", "pings", "close",
];

/// The kinds of those that count no connection.
const UNSENT: &str = "messages planned that the server was too slow to take";
const DISORDERED: &str = "publications that came twice, or after a later one";

#[derive(Debug)]
pub struct Report(Value);

impl Report {
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        let value = serde_json::from_str(text);
        let report = Self(value.unwrap_or_else(|error| panic!("{error} in {text}")));
        report.check_parts();
        report.check_connections();
        report.check_messages();
        report.check_latencies();
        report.check_probes();
        report.check_phases();
        report.check_samples();
        report.check_errors();
        report
    }

    /// What stands at a path, such as `/messages/sent`; `Null` is something.
    #[track_caller]
    pub fn at(&self, path: &str) -> &Value {
        let found = self.0.pointer(path);
        found.unwrap_or_else(|| panic!("no {path} in {}", self.0))
    }

    #[track_caller]
    pub fn number(&self, path: &str) -> u64 {
        let found = self.at(path).as_u64();
        found.unwrap_or_else(|| panic!("{path} is {}", self.at(path)))
    }

    #[track_caller]
    pub fn float(&self, path: &str) -> f64 {
        let found = self.at(path).as_f64();
        found.unwrap_or_else(|| panic!("{path} is {}", self.at(path)))
    }

    #[track_caller]
    pub fn text(&self, path: &str) -> &str {
        let found = self.at(path).as_str();
        found.unwrap_or_else(|| panic!("{path} is {}", self.at(path)))
    }

    #[track_caller]
    pub fn list(&self, path: &str) -> &[Value] {
        let found = self.at(path).as_array();
        found.unwrap_or_else(|| panic!("{path} is {}", self.at(path)))
    }

    /// How many errors are of a kind that has this in its name.
    pub fn errors(&self, part: &str) -> u64 {
        let errors = self.list("/errors").iter();
        let of_kind = errors.filter(|error| error["kind"].as_str().unwrap().contains(part));
        of_kind.map(|error| error["count"].as_u64().unwrap()).sum()
    }

    pub fn phases(&self) -> Vec<&str> {
        let phases = self.list("/phases").iter();
        phases
            .map(|phase| phase["name"].as_str().unwrap())
            .collect()
    }

    /// How long a phase took, in seconds.
    #[track_caller]
    pub fn phase_seconds(&self, name: &str) -> f64 {
        let mut phases = self.list("/phases").iter();
        let phase = phases.find(|phase| phase["name"] == name);
        let phase = phase.unwrap_or_else(|| panic!("no {name} in {:?}", self.phases()));
        phase["end"].as_f64().unwrap() - phase["begin"].as_f64().unwrap()
    }

    /// Nothing failed, nothing was lost, and the exit code says so.
    #[track_caller]
    pub fn expect_clean(&self) {
        assert_eq!(self.list("/errors"), [] as [Value; 0]);
        assert_eq!(self.number("/exit"), 0, "{}", self.at("/connections"));
    }

    fn check_parts(&self) {
        for part in PARTS {
            self.at(&format!("/{part}"));
        }
        assert_eq!(self.text("/tool"), "tidemill bench");
        assert_eq!(self.text("/version"), env!("CARGO_PKG_VERSION"));
        let outcome = self.text("/outcome");
        assert!(["complete", "interrupted"].contains(&outcome), "{outcome}");
        let saturated = self.text("/saturated");
        let sides = ["server", "client", "both", "machine", "nothing"];
        assert!(sides.contains(&saturated), "{saturated}");
    }

    fn check_connections(&self) {
        let connections = self.at("/connections");
        let number = |name: &str| self.number(&format!("/connections/{name}"));
        let ended = number("opened") + number("failed");
        match (self.text("/mode"), self.text("/outcome")) {
            // As many as there was time for.
            ("connect", _) => {}
            (_, "complete") => assert_eq!(ended, number("wanted"), "{connections}"),
            _ => assert!(ended <= number("wanted"), "{connections}"),
        }
        assert!(number("lost") <= number("opened"), "{connections}");
        // A publisher is one more than its subscribers.
        let publisher = u64::from(self.text("/mode") == "fanout");
        let subscribers = self.number("/options/connections");
        assert_eq!(number("wanted"), subscribers + publisher);
    }

    fn check_messages(&self) {
        let has_messages = ["echo", "fanout"].contains(&self.text("/mode"));
        let messages = self.at("/messages");
        assert_eq!(!has_messages, messages.is_null(), "{messages}");
        if has_messages {
            let number = |name: &str| self.number(&format!("/messages/{name}"));
            assert_eq!(
                number("sent"),
                number("received") + number("lost"),
                "{messages}"
            );
        }
    }

    fn check_latencies(&self) {
        let opened = self.number("/connections/opened");
        self.check_latency("/handshake", opened);
        self.check_curve("/handshake_percentiles", opened, "/handshake/max");
        let received = match self.text("/mode") {
            "echo" | "fanout" => self.number("/messages/received"),
            _ => 0,
        };
        if received == 0 {
            assert!(self.at("/latency").is_null(), "{}", self.at("/latency"));
        } else {
            self.check_latency("/latency/corrected", received);
            self.check_latency("/latency/uncorrected", received);
            for at in ["p50", "p90", "p99", "p99_9", "p99_99", "max", "mean"] {
                let corrected = self.float(&format!("/latency/corrected/{at}"));
                let uncorrected = self.float(&format!("/latency/uncorrected/{at}"));
                assert!(corrected >= uncorrected, "{}", self.at("/latency"));
            }
        }
        self.check_curve("/percentiles", received, "/latency/corrected/max");
    }

    /// A latency of so many answers: null without any, rising otherwise.
    fn check_latency(&self, path: &str, count: u64) {
        let latency = self.at(path);
        if count == 0 {
            assert!(latency.is_null(), "{path}: {latency}");
            return;
        }
        assert_eq!(self.number(&format!("{path}/count")), count, "{path}");
        let places = ["p50", "p90", "p99", "p99_9", "p99_99", "max"];
        let rising = places.map(|at| self.float(&format!("{path}/{at}")));
        assert!(rising.is_sorted() && rising[0] > 0.0, "{path}: {latency}");
        let mean = self.float(&format!("{path}/mean"));
        assert!((0.0..=rising[5]).contains(&mean), "{path}: {latency}");
    }

    /// Points of a plot: percentiles rise up to 100, times do not fall up to the longest.
    fn check_curve(&self, path: &str, count: u64, longest: &str) {
        let points = self.list(path);
        let column = |index: usize| -> Vec<f64> {
            let values = points.iter().filter_map(|point| point.get(index));
            values.map(|value| value.as_f64().unwrap()).collect()
        };
        assert_eq!(points.is_empty(), count == 0, "{path}");
        let percentiles = column(0);
        assert!(percentiles.is_sorted_by(|a, b| a < b), "{path}");
        assert!(column(1).is_sorted() && column(2).is_sorted(), "{path}");
        if count > 0 {
            assert_eq!(percentiles.last(), Some(&100.0), "{path}");
            assert_eq!(column(1).last(), Some(&self.float(longest)), "{path}");
        }
        if count > 1 {
            assert_eq!(percentiles[0], 0.0, "{path}");
        }
    }

    fn check_probes(&self) {
        for path in ["/sweep", "/pings"] {
            if self.at(path).is_null() {
                continue;
            }
            let number = |name: &str| self.number(&format!("{path}/{name}"));
            let received = number("received");
            assert_eq!(
                number("sent"),
                received + number("lost"),
                "{}",
                self.at(path)
            );
            assert!(number("sent") <= self.number("/connections/opened"));
            self.check_latency(&format!("{path}/latency"), received);
        }
    }

    fn check_phases(&self) {
        let place = |name: &&str| PHASES.iter().position(|known| known == name).unwrap();
        let phases = self.phases();
        assert!(
            phases
                .iter()
                .map(place)
                .is_sorted_by(|before, after| before < after),
            "{phases:?}"
        );
        let mut last = 0.0;
        for phase in self.list("/phases") {
            let begin = phase["begin"].as_f64().unwrap();
            let end = phase["end"].as_f64().unwrap();
            assert!(last <= begin && begin <= end, "{}", self.at("/phases"));
            last = end;
        }
        assert!(last <= self.float("/seconds"), "{}", self.at("/phases"));
    }

    /// Running totals rise, up to those of the report.
    fn check_samples(&self) {
        let samples = self.list("/samples");
        assert!(!samples.is_empty());
        let column = |name: &str| -> Vec<f64> {
            let values = samples.iter().map(|sample| sample[name].as_f64().unwrap());
            values.collect()
        };
        let times = column("t");
        assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
        assert!(times[times.len() - 1] <= self.float("/seconds"));
        let mut ends = vec![
            ("opened", self.float("/connections/opened")),
            ("failed", self.float("/connections/failed")),
        ];
        if self.text("/mode") == "echo" {
            ends.push(("sent", self.float("/messages/sent")));
            ends.push(("received", self.float("/messages/received")));
        }
        for (name, end) in ends {
            let values = column(name);
            assert!(values.is_sorted(), "{name} {values:?}");
            assert_eq!(values[values.len() - 1], end, "{name} {values:?}");
        }
        let open = column("connections");
        let opened = column("opened");
        assert!(open.iter().zip(&opened).all(|(open, all)| open <= all));
        assert_eq!(open[open.len() - 1], 0.0, "connections at the end");
    }

    /// Each connection that failed or was lost has a kind; and what went wrong is in the exit code.
    fn check_errors(&self) {
        let errors = self.at("/errors");
        let counts = self.list("/errors").iter().map(|error| &error["count"]);
        let counts: Vec<u64> = counts.map(|count| count.as_u64().unwrap()).collect();
        assert!(counts.is_sorted_by(|a, b| a >= b), "{errors}");
        assert!(!counts.contains(&0), "{errors}");
        let connections = self.number("/connections/failed") + self.number("/connections/lost");
        let all: u64 = counts.iter().sum();
        let messages = self.errors(UNSENT) + self.errors(DISORDERED);
        assert_eq!(all - messages, connections, "{errors}");
        let lost: u64 = ["/messages", "/sweep", "/pings"]
            .iter()
            .filter(|path| !self.at(path).is_null())
            .map(|path| self.number(&format!("{path}/lost")))
            .sum();
        let exit = u64::from(all + lost > 0);
        assert_eq!(self.number("/exit"), exit, "{lost} lost, {errors}");
    }
}

//! Runs over TLS, against the real server: everything that works on `ws://`, whom it believes, and
//! what it says of the handshakes.

use std::{net::SocketAddr, time::Duration};

use tidemill::{Config, server::Server};

use crate::{
    authority::{Authority, Folder, Order},
    example::Chat,
    program::{Program, tidemill},
    report::Report,
    tool::{Ended, Tool, bench, eventually, report},
};

/// A server with a certificate for localhost that an authority of its own has signed.
pub struct Secure {
    pub program: Program,
    pub folder: Folder,
    address: SocketAddr,
}

impl Secure {
    #[track_caller]
    pub fn serve(flags: &[&str]) -> Self {
        Self::showing(&Order::default(), flags)
    }

    #[track_caller]
    pub fn showing(order: &Order<'_>, flags: &[&str]) -> Self {
        let authority = Authority::new();
        let folder = Folder::new();
        let pair = authority.sign(order);
        folder.write("ca.pem", authority.pem());
        let certificate = folder.write("cert.pem", &pair.certificate_pem);
        let key = folder.write("key.pem", &pair.key_pem);
        let own = ["--tls-listen", "127.0.0.1:0", "--tls-cert", &certificate];
        let own = [&own[..], &["--tls-key", &key]].concat();
        let program = Program::serve(&[&own[..], flags].concat());
        let address = program.banner.split_once("wss://").unwrap().1;
        let end = address.find([' ', '\n']).unwrap();
        Self {
            address: address[..end].parse().unwrap(),
            folder,
            program,
        }
    }

    /// Where it echoes, by this name.
    pub fn at(&self, host: &str) -> String {
        format!("wss://{host}:{}/echo", self.address.port())
    }

    pub fn url(&self) -> String {
        self.at("127.0.0.1")
    }

    pub fn ca(&self) -> String {
        self.folder.path("ca.pem")
    }

    /// TLS handshakes as the server counts them.
    fn handshakes(&self, result: &str) -> u64 {
        let series = format!("tls_handshakes_total{{result=\"{result}\"}}");
        self.program.metric(&series)
    }

    #[track_caller]
    fn report(&self, mode: &str, flags: &[&str]) -> Report {
        report(&[&[mode, &self.url(), "--insecure"], flags].concat())
    }
}

/// A run without a flag that says whom to believe, where the system believes those in this file.
fn believing(file: &str, args: &[&str]) -> Ended {
    let mut command = bench(args);
    command
        .env("SSL_CERT_FILE", file)
        .env_remove("SSL_CERT_DIR");
    Tool::start(command).ended()
}

const SHORT: [&str; 4] = ["--connections", "3", "--duration", "50ms"];

#[test]
fn an_exchange_is_as_over_a_bare_socket() {
    let server = Secure::serve(&[]);
    for pace in [["--depth", "3"], ["--rate", "2000"]] {
        let flags = ["--connections", "20", "--duration", "300ms"];
        let report = server.report("echo", &[&flags[..], &pace].concat());
        report.expect_clean();
        assert_eq!(report.phases(), ["ramp", "exchange", "close"]);
        assert!(report.number("/messages/received") > 20);
        assert!(report.text("/url").starts_with("wss://"));
        assert_eq!(report.text("/tls/version"), "TLS 1.3");
        let suite = report.text("/tls/cipher_suite");
        assert!(suite.starts_with("TLS_AES_"), "{suite}");
        assert_eq!(report.number("/tls/handshakes_full"), 20);
        assert_eq!(report.number("/tls/handshakes_resumed"), 0);
    }
    assert_eq!(server.handshakes("full"), 40);
    let closed = "closed_total{code=\"1000\"}";
    eventually("closes in order", || server.program.metric(closed) == 40);
}

/// Larger than a record, a socket's buffer and what is sealed ahead of it: the rest waits, and
/// goes on when the socket says so.
#[test]
fn messages_of_any_size_come_back() {
    let server = Secure::serve(&["--max-message-bytes", "4MiB"]);
    for (size, depth) in [("0", "64"), ("16384", "4"), ("70000", "16"), ("4MiB", "2")] {
        let flags = ["--connections", "4", "--duration", "200ms", "--size", size];
        let report = server.report("echo", &[&flags[..], &["--depth", depth]].concat());
        report.expect_clean();
        assert!(report.number("/messages/received") >= 4, "{size}");
    }
}

#[test]
fn held_connections_answer_the_sweep_and_the_ping() {
    let server = Secure::serve(&[]);
    let flags = ["--connections", "300", "--duration", "100ms"];
    let probes = ["--sweep", "64", "--pings", "32"];
    let report = server.report("hold", &[&flags[..], &probes].concat());
    report.expect_clean();
    assert_eq!(report.number("/sweep/received"), 300);
    assert_eq!(report.number("/pings/received"), 300);
    assert_eq!(report.number("/tls/handshakes_full"), 300);
}

#[test]
fn handshakes_and_closes_are_in_order() {
    let server = Secure::serve(&[]);
    for pace in [&["--rate", "200"][..], &[]] {
        let flags = ["--connections", "8", "--duration", "300ms"];
        let report = server.report("connect", &[&flags[..], pace].concat());
        report.expect_clean();
        let opened = report.number("/connections/opened");
        assert!(opened >= 8, "{opened}");
        assert_eq!(report.number("/tls/handshakes_full"), opened);
        assert_eq!(report.number("/handshake/count"), opened);
    }
}

#[test]
fn publications_reach_every_subscriber() {
    let config = Config {
        listen: Some(Vec::new()),
        tls_listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        tls_self_signed: true,
        reactors: Some(2),
        connections_max: Some(1000),
        drain_time: Duration::ZERO,
        close_timeout: Duration::from_millis(100),
        ..Config::default()
    };
    let relay = Server::start(&config, |_| Chat).unwrap();
    let room = format!("wss://{}/room/tea", relay.tls_addresses()[0]);
    let flags = ["--connections", "20", "--rate", "50", "--duration", "300ms"];
    let report = report(&[&["fanout", &room, "--insecure"], &flags[..]].concat());
    relay.shutdown();
    report.expect_clean();
    let published = report.number("/messages/published");
    assert_eq!(report.number("/messages/received"), 20 * published);
    assert_eq!(report.number("/tls/handshakes_full"), 21);
}

#[test]
fn who_signed_the_certificate_must_be_known() {
    let server = Secure::serve(&[]);
    let other = Secure::serve(&[]);
    let url = server.url();
    for mode in ["echo", "hold", "connect"] {
        let run = [mode, &url, "--ca", &other.ca(), "--rate", "30"];
        let run = if mode == "hold" { &run[..4] } else { &run };
        let report = report(&[run, &SHORT].concat());
        let failed = report.number("/connections/failed");
        assert!(failed > 0, "{mode}");
        let kind = "connect: TLS: invalid peer certificate: UnknownIssuer";
        assert_eq!(report.errors(kind), failed, "{}", report.at("/errors"));
        assert_eq!(report.number("/connections/opened"), 0);
        assert_eq!(report.number("/exit"), 1);
        let remedy = report.text("/tls/remedy");
        assert!(remedy.contains("--ca") && remedy.contains("--insecure"));
        assert!(report.at("/tls/version").is_null());
    }
    // The server is told, and counts nobody as open.
    eventually("alerts", || server.handshakes("failed") > 0);
    assert_eq!(server.handshakes("full"), 0);
}

#[test]
fn the_remedy_is_said_once() {
    let server = Secure::serve(&[]);
    let other = Secure::serve(&[]);
    let url = server.url();
    let run = [&["hold", &url], &SHORT[..]].concat();
    let ended = believing(&other.ca(), &run);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(ended.output.matches("--insecure").count(), 1, "{ended:?}");
    assert_eq!(ended.output.matches("--ca").count(), 1, "{ended:?}");
    assert!(ended.output.contains("3 x connect: TLS: "), "{ended:?}");
    let ended = believing(&server.ca(), &run);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.output.contains("--insecure"), "{ended:?}");
    let line = "\n  tls          TLS 1.3 TLS_";
    assert!(ended.output.contains(line), "{ended:?}");
    assert!(ended.output.contains(", 3 full handshakes, 0 resumed\n"));
}

#[test]
fn the_systems_authorities_are_believed_unless_others_are_named() {
    let server = Secure::serve(&[]);
    let other = Secure::serve(&[]);
    let url = server.url();
    let run = [&["hold", &url, "--json"], &SHORT[..]].concat();
    believing(&server.ca(), &run).report().expect_clean();
    let report = believing(&server.ca(), &[&run[..], &["--ca", &other.ca()]].concat()).report();
    assert_eq!(report.errors("UnknownIssuer"), 3);
    assert_eq!(report.text("/tls/ca"), other.ca());
    let report = believing(&other.ca(), &[&run[..], &["--insecure"]].concat()).report();
    report.expect_clean();
    assert_eq!(report.at("/tls/insecure"), true);
    // A system that believes nobody is no reason to believe anybody.
    let empty = server.folder.write("empty.pem", "");
    let ended = believing(&empty, &run);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.log.concat().contains("--ca"), "{ended:?}");
}

#[test]
fn a_certificate_is_for_the_host_of_the_url() {
    let server = Secure::serve(&[]);
    for host in ["localhost", "LOCALHOST", "127.0.0.1"] {
        let run = ["hold", &server.at(host), "--ca", &server.ca()];
        report(&[&run, &SHORT[..]].concat()).expect_clean();
    }
    let order = Order {
        names: &["example.org", "127.0.0.2"],
        ..Order::default()
    };
    let server = Secure::showing(&order, &[]);
    for host in ["localhost", "127.0.0.1"] {
        let run = ["hold", &server.at(host), "--ca", &server.ca()];
        let found = report(&[&run, &SHORT[..]].concat());
        let kind = format!("connect: TLS: invalid peer certificate: NotValidForName \"{host}\"");
        assert_eq!(found.errors(&kind), 3, "{}", found.at("/errors"));
        // Whoever signed it, it is for somebody else.
        assert!(!found.text("/tls/remedy").contains("--ca"));
        let run = ["hold", &server.at(host), "--insecure"];
        report(&[&run, &SHORT[..]].concat()).expect_clean();
    }
}

/// What a server shows that signed for itself is its own authority.
#[test]
fn a_certificate_that_nobody_else_signed_may_be_named_itself() {
    let folder = Folder::new();
    let (certificate, key) = (folder.path("cert.pem"), folder.path("key.pem"));
    let made = std::process::Command::new("scripts/gen-certs")
        .args(["--dir", &folder.path("")])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let own = ["--listen", "127.0.0.1:0", "--tls-listen", "127.0.0.1:0"];
    let pair = ["--tls-cert", &certificate, "--tls-key", &key];
    let server = Program::start(tidemill(&[&own[..], &pair].concat()));
    let address = server.banner.split_once("wss://").unwrap().1;
    let address = &address[..address.find(' ').unwrap()];
    let run = [
        "hold",
        &format!("wss://{address}/echo"),
        "--ca",
        &certificate,
    ];
    report(&[&run, &SHORT[..]].concat()).expect_clean();
}

#[test]
fn tickets_are_taken_up_only_if_asked_for() {
    let server = Secure::serve(&[]);
    let flags = ["--connections", "200", "--duration", "0"];
    let few = [&flags[..], &["--connecting", "10"]].concat();
    let report = server.report("hold", &[&few[..], &["--resume"]].concat());
    report.expect_clean();
    let full = report.number("/tls/handshakes_full");
    let resumed = report.number("/tls/handshakes_resumed");
    assert_eq!(full + resumed, 200);
    // Those that were the first had nothing to resume; each of the others follows one that had.
    assert!((1..=10).contains(&full), "{full} full");
    assert_eq!(server.handshakes("resumed"), resumed);
    assert_eq!(server.handshakes("full"), full);
    let report = server.report("hold", &few);
    assert_eq!(report.number("/tls/handshakes_full"), 200);
    assert_eq!(server.handshakes("resumed"), resumed);
}

/// More at once than rustls itself keeps tickets for.
#[test]
fn as_many_resume_as_are_under_way_at_once() {
    let server = Secure::serve(&[]);
    let flags = ["--connections", "300", "--duration", "0", "--resume"];
    let report = server.report("hold", &[&flags[..], &["--connecting", "64"]].concat());
    report.expect_clean();
    let full = report.number("/tls/handshakes_full");
    assert!((1..=64).contains(&full), "{full} full");
    assert_eq!(report.number("/tls/handshakes_resumed"), 300 - full);
    let report = server.report("connect", &["--duration", "300ms", "--resume"]);
    report.expect_clean();
    let full = report.number("/tls/handshakes_full");
    assert!((1..=64).contains(&full), "{full} full");
}

#[test]
fn a_server_that_ends_meanwhile_is_reported() {
    for (signal, kind) in [("KILL", ""), ("TERM", "1001")] {
        for mode in [
            &["echo", "--duration", "60s", "--depth", "3"][..],
            &["hold", "--duration", "400ms", "--pings", "9"],
        ] {
            let server = Secure::serve(&["--drain-time", "100ms"]);
            let own = [&server.url(), "--insecure", "--connections", "20"];
            let tool = Tool::run(&[&mode[..1], &own, &mode[1..]].concat());
            let open = "connections{dialect=\"echo\"}";
            eventually(open, || server.program.metric(open) == 20);
            server.program.signal(signal);
            let report = tool.ended().report();
            assert_eq!(report.number("/connections/lost"), 20);
            assert_eq!(report.errors(kind), 20, "{}", report.at("/errors"));
            assert_eq!(report.number("/exit"), 1);
        }
    }
}

#[test]
fn a_server_that_ends_in_a_churn_is_reported() {
    let server = Secure::serve(&[]);
    let flags = ["--insecure", "--connections", "8", "--duration", "600ms"];
    let tool = Tool::run(&[&["connect", &server.url()], &flags[..]].concat());
    eventually("handshakes", || server.handshakes("full") >= 20);
    server.program.signal("KILL");
    let report = tool.ended().report();
    assert!(report.number("/connections/failed") > 0);
    assert!(report.errors("refused") > 0, "{}", report.at("/errors"));
}

#[test]
fn a_frozen_server_is_given_up_after_the_timeout() {
    let server = Secure::serve(&[]);
    let flags = ["--connections", "5", "--duration", "600ms"];
    let own = ["echo", &server.url(), "--insecure", "--timeout", "300ms"];
    let mut tool = Tool::run(&[&own, &flags[..]].concat());
    tool.expect_phase("ramp");
    server.program.signal("STOP");
    let ended = tool.ended_within(Duration::from_secs(5));
    server.program.signal("CONT");
    assert_eq!(ended.report().number("/messages/lost"), 5);
}

#[test]
fn an_interrupted_run_is_reported() {
    for mode in ["echo", "hold", "connect"] {
        let server = Secure::serve(&[]);
        let flags = ["--insecure", "--connections", "10", "--duration", "60s"];
        let tool = Tool::run(&[&[mode, &server.url()], &flags[..]].concat());
        eventually("handshakes", || server.handshakes("full") >= 10);
        tool.signal("INT");
        let report = tool.ended_within(Duration::from_secs(5)).report();
        assert_eq!(report.text("/outcome"), "interrupted");
        report.expect_clean();
    }
}

/// A path that is not there, over TLS: the answer is read as on a bare socket.
#[test]
fn a_refusal_is_counted_by_its_answer() {
    let server = Secure::serve(&[]);
    let url = server.url().replace("/echo", "/nowhere");
    let report = report(&[&["hold", &url, "--insecure"], &SHORT[..]].concat());
    assert_eq!(report.errors("404"), 3, "{}", report.at("/errors"));
    assert_eq!(report.number("/exit"), 1);
}

#[test]
fn the_wrong_scheme_is_named() {
    let server = Secure::serve(&[]);
    let plain = server.url().replace("wss://", "ws://");
    let found = report(&[&["hold", &plain], &SHORT[..]].concat());
    assert_eq!(found.errors("400"), 3, "{}", found.at("/errors"));
    assert!(found.at("/tls").is_null());
    let secure = format!("wss://{}/echo", server.program.address);
    let found = report(&[&["hold", &secure, "--insecure"], &SHORT[..]].concat());
    assert_eq!(found.errors("connect: TLS: the answer is no TLS"), 3);
}

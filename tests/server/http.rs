//! Plain HTTP: several requests on a connection, bodies in all framings, HEAD, and the end.

use std::time::Instant;

use tidemill::{Config, metrics::Process};

use crate::{
    probe::watch,
    site::{Site, config, eventually, ms},
    wire::{Wire, get, upgrade},
};

#[test]
fn a_connection_serves_one_request_after_the_other_and_then_an_upgrade() {
    let site = Site::router(config());
    let mut wire = Wire::connect(site.address);
    for path in ["/health", "/ready", "/", "/nowhere", "/health"] {
        wire.send(get(path));
        let answer = wire.answer();
        let status = if path == "/nowhere" { 404 } else { 200 };
        assert_eq!(answer.status, status, "{path}");
        if status == 200 {
            assert_eq!(answer.header("connection"), Some("keep-alive"), "{path}");
        } else {
            wire.expect_end();
            wire = Wire::connect(site.address);
        }
    }
    let mut wire = wire.upgraded("/echo");
    wire.text("after three pages");
    wire.expect_text("after three pages");
    wire.close(1000);
}

#[test]
fn health_is_one_line_of_json() {
    let site = Site::router(config());
    let mut wire = Wire::connect(site.address);
    wire.send(get("/health"));
    let answer = wire.answer();
    assert_eq!(answer.body.trim_end(), r#"{"status":"healthy"}"#);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("server"), Some("tidemill"));
}

#[test]
fn pipelined_requests_are_answered_in_order_and_frames_behind_the_upgrade_count() {
    let watch = watch(&config());
    let mut wire = Wire::connect(watch.site.address);
    let body = "POST /two HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
    let chunks = "POST /three?q HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                  3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: t\r\n\r\n";
    let mut all = [get("/one").as_str(), body, chunks, &upgrade("/a", "")]
        .concat()
        .into_bytes();
    all.extend(crate::wire::frame(crate::wire::TEXT, b"echo right behind"));
    wire.send(&all);
    assert_eq!(wire.answer().body, "GET /one - ");
    assert_eq!(wire.answer().body, "POST /two - body");
    assert_eq!(wire.answer().body, "POST /three q abcde");
    wire.switched();
    wire.expect_text("right behind");
}

#[test]
fn a_thousand_pipelined_requests_are_all_answered() {
    let watch = watch(&config());
    let mut wire = Wire::connect(watch.site.address);
    let all: String = (0..1000).map(|number| get(&format!("/{number}"))).collect();
    wire.send(&all);
    for number in 0..1000 {
        assert_eq!(wire.answer().body, format!("GET /{number} - "));
    }
}

#[test]
fn a_body_may_come_a_byte_at_a_time() {
    let watch = watch(&config());
    let mut wire = Wire::connect(watch.site.address);
    let chunks = "POST /slow HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                  a\r\n0123456789\r\n0\r\n\r\n";
    for byte in chunks.bytes() {
        wire.send([byte]);
    }
    assert_eq!(wire.answer().body, "POST /slow - 0123456789");
    wire.send("PUT /sized HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
    for byte in b"hello" {
        wire.send([*byte]);
    }
    assert_eq!(wire.answer().body, "PUT /sized - hello");
}

#[test]
fn a_body_as_large_as_allowed_arrives_whole() {
    let watch = watch(&config());
    let mut wire = Wire::connect(watch.site.address);
    let body = "b".repeat(1024 * 1024);
    let head = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    wire.send(head);
    wire.send(&body);
    assert_eq!(wire.answer().body, format!("POST / - {body}"));
}

#[test]
fn a_head_request_gets_the_head_alone() {
    let site = Site::router(config());
    let mut wire = Wire::connect(site.address);
    for path in ["/health", "/"] {
        wire.send(get(path));
        let whole = wire.answer();
        wire.send(get(path).replace("GET", "HEAD"));
        let head = wire.answer_to_head();
        assert_eq!(head.head, whole.head, "{path}");
        assert_eq!(
            head.header("content-length"),
            Some(&*whole.body.len().to_string())
        );
    }
    // Had a body been sent, it would stand before this answer.
    wire.send(get("/health"));
    assert_eq!(wire.answer().status, 200);
}

#[test]
fn an_expected_continue_comes_before_the_body() {
    let watch = watch(&config());
    let mut wire = Wire::connect(watch.site.address);
    let expect = "POST /b HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    wire.send(expect);
    let interim = wire.answer();
    assert_eq!((interim.status, &*interim.body), (100, ""));
    wire.send("abc");
    assert_eq!(wire.answer().body, "POST /b - abc");
}

#[test]
fn an_answer_ends_the_connection_when_the_peer_wants_it() {
    let site = Site::router(config());
    let cases = [
        "GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET /health HTTP/1.0\r\n\r\n",
    ];
    for request in cases {
        let mut wire = Wire::connect(site.address);
        wire.send(request);
        let answer = wire.answer();
        assert_eq!(
            (answer.status, answer.header("connection")),
            (200, Some("close"))
        );
        wire.expect_end();
    }
}

#[test]
fn a_peer_that_is_done_sending_still_gets_its_answer() {
    let site = Site::router(config());
    let mut wire = Wire::connect(site.address);
    wire.send(get("/health"));
    wire.finish();
    assert_eq!(wire.answer().status, 200);
    wire.expect_end();
}

#[test]
fn an_idle_connection_ends_at_the_handshake_timeout_without_a_word() {
    let site = Site::router(Config {
        handshake_timeout: ms(300),
        ..config()
    });
    let mut wire = Wire::connect(site.address);
    wire.send(get("/health"));
    assert_eq!(wire.answer().status, 200);
    let began = Instant::now();
    wire.expect_end();
    assert!(began.elapsed() >= ms(250), "{:?}", began.elapsed());
    site.expect_metric(r#"timeouts_total{kind="handshake"}"#, 0);
}

#[test]
fn the_page_is_whole_and_loads_nothing_from_elsewhere() {
    let site = Site::router(config());
    let mut wire = Wire::connect(site.address);
    wire.send(get("/"));
    let page = wire.answer();
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert!(page.body.contains("WebSocket") && page.body.trim_end().ends_with("</html>"));
    assert!(
        page.header("content-security-policy")
            .unwrap()
            .contains("default-src 'none'")
    );
    for foreign in ["src=\"http", "href=\"http", "@import"] {
        assert!(!page.body.contains(foreign), "{foreign}");
    }
}

#[test]
fn metrics_are_prometheus_text() {
    let site = Site::router(config());
    let mut wire = Wire::open(site.address, "/echo");
    wire.text("one");
    wire.expect_text("one");
    let mut scraper = Wire::connect(site.address);
    scraper.send(get("/metrics"));
    let answer = scraper.answer();
    assert!(
        answer
            .header("content-type")
            .unwrap()
            .starts_with("text/plain; version=0.0.4")
    );
    for line in [
        "tidemill_connections{dialect=\"echo\"} 1",
        "tidemill_connections_total 1",
        "tidemill_messages_received_total 1",
        "tidemill_messages_sent_total 1",
    ] {
        assert!(
            answer.body.lines().any(|found| found == line),
            "{line} in\n{}",
            answer.body
        );
    }
}

#[test]
fn turns_are_told_by_the_processors_clock_when_that_is_asked_for() {
    for turn_cpu in [false, true] {
        let site = Site::router(Config {
            turn_cpu,
            ..config()
        });
        let mut wire = Wire::open(site.address, "/echo");
        wire.text("one");
        wire.expect_text("one");
        let page = || site.server().registry().prometheus(&Process::default());
        let longest = |clock: &str| {
            let page = page();
            let name = format!("tidemill_turn{clock}_longest_seconds{{");
            let lines = page.lines().filter(|line| line.starts_with(&name));
            lines
                .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
                .fold(0.0, f64::max)
        };
        eventually("the turn is told", || longest("") > 0.0);
        if turn_cpu {
            eventually("its CPU time is told", || longest("_cpu") > 0.0);
        }
        assert_eq!(page().contains("turn_cpu"), turn_cpu);
    }
}

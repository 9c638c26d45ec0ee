//! Pages of strangers: the Origin of a request (RFC 6455, 10.2; RFC 6454, 7), and what a server
//! thinks of it.

use std::time::{Duration, Instant};

use crate::{
    call::{Answer, Call},
    guarded::{Guarded, set},
    outside::{PATIENCE, wait_until},
    server::Setup,
};

/// A server with these variables, and who comes to it: Host, Origin, and whether they may.
type Case = (&'static str, &'static str, bool);

#[track_caller]
fn check(gate: &Guarded, cases: &[Case]) {
    for (host, origin, is_allowed) in cases {
        let call = Call::echo().host(host).origin(origin);
        if *is_allowed {
            call.open(gate.address).close();
        } else {
            gate.refuses(&call, 403, "origin");
        }
    }
}

const SAME_ORIGIN: [Case; 39] = [
    ("example.com", "http://example.com", true),
    ("example.com", "https://example.com", true),
    ("example.com", "https://EXAMPLE.com", true),
    ("EXAMPLE.com", "https://example.com", true),
    ("example.com:80", "http://example.com", true),
    ("example.com:443", "https://example.com", true),
    ("example.com:8080", "http://example.com:8080", true),
    ("example.com:8080", "https://example.com:8080", true),
    ("[::1]:7000", "http://[::1]:7000", true),
    ("[2001:db8::1]", "https://[2001:db8::1]", true),
    ("localhost:7000", "http://localhost:7000", true),
    // Another port is another origin.
    ("example.com:8080", "http://example.com", false),
    ("example.com", "http://example.com:8080", false),
    ("example.com:80", "https://example.com", false),
    ("example.com:443", "http://example.com", false),
    ("localhost:7000", "http://localhost:3000", false),
    // Another host is, too, however alike it looks.
    ("example.com", "http://evil.example", false),
    ("example.com", "https://sub.example.com", false),
    ("sub.example.com", "https://example.com", false),
    ("example.com", "https://example.com.evil.example", false),
    ("example.com", "https://evil-example.com", false),
    ("example.com", "https://example.co", false),
    ("example.com", "https://example.com@evil.example", false),
    ("example.com", "https://evil.example#example.com", false),
    ("example.com", "https://evil.example?example.com", false),
    ("example.com", "https://evil.example\\example.com", false),
    ("example.com", "https://user@example.com", false),
    (
        "example.com",
        "https://example.com, https://evil.example",
        false,
    ),
    (
        "example.com",
        "https://example.com https://evil.example",
        false,
    ),
    ("example.com", "https://example.com/", false),
    ("example.com", "https://example.com/page", false),
    ("example.com", "example.com", false),
    ("example.com", "//example.com", false),
    ("example.com", "javascript://example.com", false),
    ("example.com", "https://", false),
    ("example.com", "null", false),
    ("example.com", "", false),
    ("example.com", "https://example.com:99999", false),
    // Beyond this machine, pages of this machine are strangers.
    ("example.com", "http://localhost:3000", false),
];

#[test]
fn by_default_only_a_page_of_the_same_origin_comes_in() {
    let gate = Guarded::exposed(&[]);
    check(&gate, &SAME_ORIGIN);
    Call::echo().host("example.com").open(gate.address).close();
    gate.end();
}

#[test]
fn same_origin_can_be_asked_for_by_name() {
    let gate = Guarded::exposed(&[("ORIGINS", "same-origin")]);
    check(&gate, &SAME_ORIGIN[..20]);
    gate.end();
}

/// Two of them are a quarrel between two readers, so neither counts.
#[test]
fn several_origins_are_none_that_is_allowed() {
    let gate = Guarded::exposed(&[]);
    for (one, other) in [
        ("https://example.com", "https://evil.example"),
        ("https://evil.example", "https://example.com"),
        ("https://example.com", "https://example.com"),
    ] {
        let call = Call::echo().host("example.com").origin(one).origin(other);
        let before = gate.all_refused();
        let answer = call.answered(gate.address);
        assert!([400, 403].contains(&answer.status), "{answer:?}");
        assert_eq!(gate.all_refused(), before + 1);
    }
    gate.end();
}

/// Nobody but this machine reaches the server, and its developer's pages come from anywhere on it.
#[test]
fn pages_of_this_machine_come_in_while_nobody_else_can() {
    let gate = Guarded::with(&[]);
    let host = "127.0.0.1:7000";
    let allowed = [
        "http://localhost",
        "http://localhost:3000",
        "https://localhost:8443",
        "http://LOCALHOST:3000",
        "http://app.localhost:5173",
        "http://a.b.localhost",
        "http://127.0.0.1:8080",
        "http://127.9.9.9",
        "http://[::1]:3000",
        "null",
        "http://127.0.0.1:7000",
    ];
    let refused = [
        "https://evil.example",
        "http://localhost.evil.example:3000",
        "http://127.0.0.1.evil.example",
        "http://evillocalhost",
        "http://localhost@evil.example",
        "http://evil.example:80@localhost",
        "http://evil.example#localhost",
        "http://128.0.0.1",
        "http://192.168.0.2:3000",
        "http://[::2]",
        "http://[2001:db8::1]",
        "http://0.0.0.0.evil.example",
        "file://",
        "http://localhost/",
        "null, http://localhost",
        "",
    ];
    let cases = allowed.iter().map(|origin| (host, *origin, true));
    let cases = cases.chain(refused.iter().map(|origin| (host, *origin, false)));
    check(&gate, &cases.collect::<Vec<_>>());
    gate.end();
}

const LISTED: &str = "https://app.example.com, http://dev.example.com:3000,*.example.org,\
                      https://*.example.net:8443,any.example:*,capacitor://localhost,\
                      https://[2001:db8::7]:9000";

#[test]
fn a_list_tells_scheme_host_and_port() {
    let gate = Guarded::with(&[("ORIGINS", LISTED)]);
    let host = "example.com";
    let allowed = [
        "https://app.example.com",
        "https://app.example.com:443",
        "https://APP.Example.com",
        "http://dev.example.com:3000",
        "https://a.example.org",
        "http://a.example.org",
        "http://a.b.c.example.org",
        "https://x.example.net:8443",
        "http://any.example",
        "https://any.example:65535",
        "http://any.example:1",
        "capacitor://localhost",
        "https://[2001:db8::7]:9000",
        "https://[2001:DB8:0::7]:9000",
    ];
    let refused = [
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://app.example.com.evil.example",
        "https://xapp.example.com",
        "https://x.app.example.com",
        "https://dev.example.com:3000",
        "http://dev.example.com",
        "http://dev.example.com:30000",
        "https://example.org",
        "https://a.example.org:444",
        "https://evilexample.org",
        "https://.example.org.evil.example",
        "https://a.example.org.evil.example",
        "https://a.example.org@evil.example",
        "https://evil.example/.example.org",
        "https://evil.example?.example.org",
        "https://evil.example#.example.org",
        "https://evil.example\\.example.org",
        "https://evil.example:80.example.org",
        "https://evil.example,.example.org",
        "https://evil.example .example.org",
        "https://*.example.org",
        "https://x.example.net",
        "http://x.example.net:8443",
        "https://example.net:8443",
        "https://any.example.evil.example",
        "https://sub.any.example",
        "capacitor://evil.example",
        "ionic://localhost",
        "https://[2001:db8::8]:9000",
        "https://[2001:db8::7]",
        // Not in the list: neither those of this machine, nor the same origin.
        "http://localhost:3000",
        "http://localhost",
        "null",
        "https://example.com",
    ];
    let cases = allowed.iter().map(|origin| (host, *origin, true));
    let cases = cases.chain(refused.iter().map(|origin| (host, *origin, false)));
    check(&gate, &cases.collect::<Vec<_>>());
    Call::echo().open(gate.address).close();
    gate.end();
}

#[test]
fn a_list_may_have_the_same_origin_and_null_in_it() {
    let gate = Guarded::exposed(&[("ORIGINS", "same-origin,null,https://app.example.com")]);
    check(
        &gate,
        &[
            ("example.com", "https://example.com", true),
            ("example.com", "https://app.example.com", true),
            ("example.com", "null", true),
            ("example.com", "NULL", false),
            ("example.com", "https://null", false),
            ("example.com", "https://evil.example", false),
            ("example.com", "http://localhost", false),
        ],
    );
    gate.end();
}

#[test]
fn a_star_lets_everyone_in_and_is_warned_of() {
    let gate = Guarded::exposed(&[("ORIGINS", "*")]);
    let line = gate.expect_said("TIDEMILL_ORIGINS");
    assert_eq!(line.level, "warn", "{line:?}");
    for origin in [
        "https://evil.example",
        "null",
        "http://localhost",
        "file://",
    ] {
        let call = Call::echo().host("example.com").origin(origin);
        call.open(gate.address).close();
    }
    assert_eq!(gate.all_refused(), 0);
    gate.end();
    let quiet = Guarded::exposed(&[("ORIGINS", "https://app.example.com")]);
    Call::echo().open(quiet.address).close();
    assert!(quiet.said("TIDEMILL_ORIGINS").is_empty());
}

/// A cookie goes with every request, whoever's page sends it.
#[test]
fn a_star_together_with_cookies_is_warned_of_more() {
    let with_cookie = set(
        Setup::new(),
        &[
            ("ORIGINS", "*"),
            ("TOKEN_SECRET", crate::jwt::SECRET),
            ("TOKEN_COOKIE", "session"),
        ],
    );
    let output = with_cookie.finish(&["check"]);
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
    let warned = text.lines().filter(|line| line.contains("warning"));
    let of_both = warned.filter(|line| line.contains("ORIGINS") && line.contains("TOKEN_COOKIE"));
    assert!(of_both.count() > 0, "{text}");
}

#[test]
fn a_dialect_may_have_a_list_of_its_own() {
    let gate = Guarded::with(&[
        ("ORIGINS", "https://a.example"),
        ("ORIGINS_ECHO", "https://b.example,https://c.example"),
    ]);
    let (a, b) = ("https://a.example", "https://b.example");
    for path in ["/ws", "/chat", "/"] {
        Call::to(path).origin(a).open(gate.address);
        gate.refuses(&Call::to(path).origin(b), 403, "origin");
    }
    Call::echo().origin(b).open(gate.address).close();
    Call::echo()
        .origin("https://c.example")
        .open(gate.address)
        .close();
    gate.refuses(&Call::echo().origin(a), 403, "origin");
    gate.end();

    let open = Guarded::exposed(&[("ORIGINS_ECHO", "*")]);
    Call::echo().origin(a).open(open.address).close();
    gate_line_names(&open, &Call::to("/ws").origin(a), "TIDEMILL_ORIGINS");
    open.end();
}

#[track_caller]
fn gate_line_names(gate: &Guarded, call: &Call, variable: &str) {
    gate.refuses(call, 403, "origin");
    let line = gate.expect_said("reason=origin");
    assert!(line.value("remedy").contains(variable), "{line:?}");
}

#[test]
fn over_tls_the_page_must_be_secure_too() {
    let gate = Guarded::exposed(&[("TLS_LISTEN", "127.0.0.1:0")]);
    let ask = |origin: &str| -> Answer {
        let call = Call::echo().host("localhost:8443").origin(origin);
        let mut client = gate.connect();
        std::io::Write::write_all(&mut client, &call.bytes()).unwrap();
        Answer::receive(&mut client).unwrap()
    };
    assert_eq!(ask("https://localhost:8443").status, 101);
    assert_eq!(ask("http://localhost:8443").status, 403);
    assert_eq!(ask("https://localhost").status, 403);
    gate.end();
}

#[test]
fn a_proxy_says_which_host_was_asked_for_if_it_is_trusted() {
    let gate = Guarded::exposed(&[("TRUSTED_PROXIES", "127.0.0.9, 10.0.0.0/8")]);
    let behind = |origin: &str| {
        let call = Call::echo().host("backend:7000").origin(origin);
        call.header("X-Forwarded-Host", "example.com")
            .header("X-Forwarded-For", "203.0.113.7")
    };
    behind("https://example.com")
        .from(9)
        .open(gate.address)
        .close();
    gate.refuses(&behind("https://evil.example").from(9), 403, "origin");
    // Then the name of the server behind it is nobody's.
    gate.refuses(&behind("http://backend:7000").from(9), 403, "origin");
    // Whoever is not trusted says nothing of the kind.
    gate.refuses(&behind("https://example.com").from(8), 403, "origin");
    behind("http://backend:7000")
        .from(8)
        .open(gate.address)
        .close();
    // The page must be as secure as what the proxy was asked by.
    let secure = behind("https://example.com").header("X-Forwarded-Proto", "https");
    secure.from(9).open(gate.address).close();
    let insecure = behind("http://example.com").header("X-Forwarded-Proto", "https");
    gate.refuses(&insecure.from(9), 403, "origin");
    gate.end();
}

#[test]
fn plain_requests_are_answered_whatever_the_origin() {
    let gate = Guarded::exposed(&[]);
    for path in ["/health", "/ready", "/"] {
        let call = Call::get(path).origin("https://evil.example");
        assert_eq!(call.answered(gate.address).status, 200);
    }
    // Where nothing is, nobody is refused for who they are.
    let call = Call::to("/nowhere").origin("https://evil.example");
    gate.refuses(&call, 404, "unknown_path");
    assert_eq!(gate.refused("origin"), 0);
    gate.end();
}

#[test]
fn the_log_says_who_was_refused_and_which_variable_lets_them_in() {
    let gate = Guarded::exposed(&[]);
    let origin = "https://app.example.com:8443";
    let call = Call::to("/echo?room=1")
        .host("Example.com:7000")
        .origin(origin);
    call.from(77).refused(gate.address, 403);
    let line = gate.expect_said("reason=origin");
    assert_eq!(line.level, "warn", "{line:?}");
    assert_eq!(line.value("status"), "403");
    assert_eq!(line.value("remote"), "127.0.0.77");
    assert!(line.value("path").starts_with("/echo"));
    assert_eq!(line.value("origin"), origin);
    assert_eq!(line.value("host").to_ascii_lowercase(), "example.com:7000");
    let remedy = line.value("remedy").to_owned();
    gate.end();

    // A newcomer does as the log says, and comes in.
    let said = remedy.split_once("TIDEMILL_").unwrap().1;
    let (name, value) = said.split_once('=').unwrap();
    let open = Guarded::exposed(&[(name, value.split_whitespace().next().unwrap())]);
    call_again(&open, origin);
    open.end();
}

fn call_again(gate: &Guarded, origin: &str) {
    let call = Call::to("/echo?room=1").host("Example.com:7000");
    call.origin(origin).open(gate.address).close();
    gate.refuses(&call_from_elsewhere(), 403, "origin");
}

fn call_from_elsewhere() -> Call {
    Call::echo()
        .host("example.com")
        .origin("https://evil.example")
}

/// Whoever knocks without end must fill no disk, however many reactors hear it.
#[test]
fn a_crowd_of_refusals_is_one_line_a_second() {
    let gate = Guarded::exposed(&[("REACTORS", "4")]);
    let began = Instant::now();
    for number in 0..200 {
        let call = call_from_elsewhere().from(10 + (number % 40) as u8);
        call.refused(gate.address, 403);
    }
    let seconds = began.elapsed().as_secs() as usize;
    let lines = gate.said("reason=origin");
    assert!(!lines.is_empty() && lines.len() <= seconds + 2, "{lines:?}");
    assert_eq!(gate.refused("origin"), 200);
    // The next line says how many there were that it does not tell.
    let look = || {
        call_from_elsewhere().refused(gate.address, 403);
        gate.said("reason=origin").last().unwrap().untold()
    };
    wait_until(PATIENCE, look, |untold| *untold > 0);
    let lines = gate.said("reason=origin");
    let told = lines.iter().map(|line| line.untold() + 1).sum::<u64>();
    assert!((200..=gate.refused("origin")).contains(&told), "{told}");
    gate.end();
}

/// Those who do not keep to the protocol are told of as well, but they are no reason to worry.
#[test]
fn other_refusals_are_told_without_alarm() {
    let gate = Guarded::exposed(&[]);
    let call = Call::echo().header("Sec-WebSocket-Version", "7");
    call.refused(gate.address, 426);
    gate.refuses(&Call::to("/nowhere?token=hidden"), 404, "unknown_path");
    let line = gate.expect_said("reason=unknown_path");
    assert_eq!((&*line.level, line.value("remote")), ("info", "127.0.0.2"));
    assert_eq!(line.value("path"), "/nowhere?token=***");
    assert!(!line.message.contains("remedy"), "{line:?}");
    gate.end();
}

#[test]
fn no_origin_forges_a_line_or_steers_a_terminal() {
    let gate = Guarded::exposed(&[]);
    let origin = "https://evil.example\" remedy=\"rm\u{9b}2J\u{7f} \\";
    let mut stream = call_from_elsewhere().connect(gate.address);
    let request = Call::echo().host("example.com").origin(origin).bytes();
    std::io::Write::write_all(&mut stream, &request).unwrap();
    let answer = Answer::receive(&mut stream).unwrap();
    assert!([400, 403].contains(&answer.status), "{answer:?}");
    if answer.status == 403 {
        let line = gate.expect_said("reason=origin");
        assert!(!line.message.contains(['\u{9b}', '\u{7f}']), "{line:?}");
        assert!(!line.message.contains(" remedy=\"rm"), "{line:?}");
    }
    gate.end();
}

#[test]
fn a_long_origin_is_refused_and_told_in_short() {
    let gate = Guarded::exposed(&[]);
    let origin = format!("https://{}.example", "a".repeat(4000));
    let call = Call::echo().host("example.com").origin(&origin);
    gate.refuses(&call, 403, "origin");
    let line = gate.expect_said("reason=origin");
    assert!(line.message.len() < 2000, "{} bytes", line.message.len());
    gate.end();
}

#[test]
fn a_list_that_makes_no_sense_is_refused_at_start() {
    for wrong in [
        "https://app.example.com/path",
        "https://user@app.example.com",
        "https://app.*.example.com",
        "*example.com",
        "https://app example.com",
        "https://app.example.com:port",
        "https://app.example.com:99999",
        "https://",
        "same-orgin",
        "https://a.example,,https://b.example/x",
    ] {
        for name in ["ORIGINS", "ORIGINS_ECHO"] {
            let output = set(Setup::new(), &[(name, wrong)]).finish(&["check"]);
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            if wrong == "same-orgin" && output.status.success() {
                // A host of one word is a host.
                continue;
            }
            assert_eq!(output.status.code(), Some(2), "{wrong}: {told}");
            assert!(told.starts_with("error: "), "{wrong}: {told}");
            assert!(
                told.contains(&format!("TIDEMILL_{name}")),
                "{wrong}: {told}"
            );
        }
    }
}

/// The variables of a server that runs are those of its file; the file can be written again.
#[test]
fn origins_are_exchanged_by_a_signal() {
    let setup = Setup::new().set("LISTEN", "0.0.0.0:0");
    setup
        .folder
        .write("env", "TIDEMILL_ORIGINS=https://a.example\n");
    let gate = Guarded::start(setup.set("ENV_FILE", "@/env"));
    let (a, b) = ("https://a.example", "https://b.example");
    let mut inside = Call::echo().origin(a).open(gate.address);
    gate.refuses(&Call::echo().origin(b), 403, "origin");

    let other = "TIDEMILL_ORIGINS=https://b.example\nTIDEMILL_RATE_MESSAGES=7\n";
    gate.folder.replace("env", other);
    gate.signal("HUP");
    let allows = |origin: &str| match Call::echo().origin(origin).ask(gate.address) {
        crate::call::Outcome::Open(_) => true,
        crate::call::Outcome::Answered(answer) if answer.status == 403 => false,
        other => panic!("{other:?}"),
    };
    wait_until(PATIENCE, || allows(b), |allowed| *allowed);
    assert!(!allows(a));
    inside.echo(b"undisturbed");
    // What cannot be exchanged is named.
    let line = gate.expect_said("TIDEMILL_RATE_MESSAGES");
    assert!(
        line.level == "warn" && line.message.contains("restart"),
        "{line:?}"
    );

    // What makes no sense is not taken, and what was there stays.
    gate.folder
        .replace("env", "TIDEMILL_ORIGINS=https://c.example/path\n");
    gate.signal("HUP");
    let line = gate.expect_said("TIDEMILL_ORIGINS");
    assert!(["error", "warn"].contains(&&*line.level), "{line:?}");
    assert!(allows(b) && !allows(a));
    inside.expect_silence(Duration::from_millis(50));
    inside.close();
    gate.end();
}

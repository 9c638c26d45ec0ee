//! Certificates that are exchanged while the server runs: whoever is connected stays, whoever comes
//! gets the new one, and what is no good is never shown.

use std::{
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use rustls::version::{TLS12, TLS13};

use crate::{
    authority::{Authority, Order, Pair, RSA},
    client::{Client, Lenient},
    outside::{PATIENCE, raise_own_limit, wait_until},
    server::{Server, Setup, is_error, is_warning},
    socket::noise,
};

const CROWD: usize = 1000;
const DAY_S: f64 = 86_400.0;

/// The certificate that a newcomer is shown.
#[track_caller]
fn shown(server: &Server) -> Vec<u8> {
    let config = Lenient::default().config(&[&TLS13, &TLS12]);
    let mut client = Client::connect(server.address, config, "localhost").unwrap();
    client.tls().peer_certificates().unwrap()[0].to_vec()
}

#[track_caller]
fn expect_shown(server: &Server, pair: &Pair) {
    wait_until(
        PATIENCE,
        || shown(server),
        |seen| *seen == *pair.certificate,
    );
}

fn replace(server: &Server, pair: &Pair) {
    server.folder.replace("cert.pem", &pair.certificate_pem);
    server.folder.replace("key.pem", &pair.key_pem);
}

#[track_caller]
fn reloads(server: &Server, result: &str) -> usize {
    server.metric(&format!("reloads_total{{result=\"{result}\"}}")) as usize
}

#[test]
fn a_thousand_connections_outlive_reloads_by_signal_and_by_time() {
    raise_own_limit(CROWD as u64 + 200);
    let server = Setup::new().set("TLS_RELOAD_INTERVAL", "1s").start();
    let config = std::sync::Arc::new(server.config());
    let mut crowd: Vec<Client> = (0..CROWD)
        .map(|number| {
            let stream = crate::client::stream(server.address, number).unwrap();
            let client = Client::over(stream, config.clone(), "localhost").unwrap();
            client.upgraded("/echo")
        })
        .collect();
    let (mut ok, mut round) = (0, 0);
    let mut busy = |crowd: &mut Vec<Client>| {
        for client in crowd {
            client.echo(&noise(round, 100));
            round += 1;
        }
    };
    busy(&mut crowd);
    for signal in [true, false, true, false] {
        let pair = server.authority.pair("localhost");
        replace(&server, &pair);
        if signal {
            server.signal("HUP");
        }
        busy(&mut crowd);
        expect_shown(&server, &pair);
        server.open().close();
        busy(&mut crowd);
        ok = wait_until(PATIENCE, || reloads(&server, "ok"), |now| *now > ok);
    }
    server.settles("connections", CROWD as f64);
    crowd.into_iter().for_each(Client::close);
    server.stop();
}

#[test]
fn handshakes_go_on_while_certificates_are_read_all_the_time() {
    let server = Server::start();
    thread::scope(|scope| {
        let newcomers: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| (0..150).for_each(|_| server.open().close())))
            .collect();
        while newcomers.iter().any(|newcomer| !newcomer.is_finished()) {
            server.signal("HUP");
            thread::park_timeout(Duration::from_millis(1));
        }
    });
    assert!(server.handshakes("failed") < 0.5);
    assert!(reloads(&server, "failed") == 0);
    server.stop();
}

/// A way to break a pair, and what the log must say of it.
type Breakage = (&'static str, fn(&Server), &'static str);

fn put(server: &Server, certificate: &str, key: &str) {
    server.folder.replace("cert.pem", certificate);
    server.folder.replace("key.pem", key);
}

const BREAKAGES: [Breakage; 9] = [
    (
        "garbage",
        |server| put(server, "\u{0}\u{1}garbage", "nonsense"),
        "cert.pem",
    ),
    (
        "a certificate that is base64 of nothing",
        |server| {
            let nothing = crate::authority::pem("CERTIFICATE", &noise(1, 300));
            let key = server.authority.pair("localhost").key_pem;
            put(server, &nothing, &key);
        },
        "cert.pem",
    ),
    (
        "the key of another certificate",
        |server| {
            let (one, two) = (server.authority.pair("a"), server.authority.pair("b"));
            put(server, &one.certificate_pem, &two.key_pem);
        },
        "key.pem",
    ),
    (
        "a key of another kind",
        |server| {
            let rsa = server.authority.sign(&Order {
                algorithm: RSA,
                ..Order::default()
            });
            let one = server.authority.pair("a");
            put(server, &one.certificate_pem, &rsa.key_pem);
        },
        "key.pem",
    ),
    (
        "expired",
        |server| {
            let old = server.authority.sign(&Order {
                valid: (-30, -1),
                ..Order::default()
            });
            put(server, &old.certificate_pem, &old.key_pem);
        },
        "expired",
    ),
    (
        "no file",
        |server| server.folder.remove("cert.pem"),
        "cert.pem",
    ),
    (
        "no key",
        |server| server.folder.remove("key.pem"),
        "key.pem",
    ),
    (
        "empty",
        |server| {
            server.folder.replace("cert.pem", "");
        },
        "cert.pem",
    ),
    (
        "half written",
        |server| {
            let pair = server.authority.pair("localhost");
            let half = &pair.certificate_pem[..pair.certificate_pem.len() / 2];
            put(server, half, &pair.key_pem);
        },
        "cert.pem",
    ),
];

#[test]
fn what_is_no_good_is_not_shown_and_the_log_says_why() {
    let server = Setup::new().set("REACTORS", "1").start();
    let mut good = server.authority.pair("localhost");
    replace(&server, &good);
    server.signal("HUP");
    expect_shown(&server, &good);
    let mut open = server.open();
    for (number, (name, break_it, said)) in BREAKAGES.into_iter().enumerate() {
        break_it(&server);
        server.signal("HUP");
        server.settles("reloads_total{result=\"failed\"}", number as f64 + 1.0);
        let lines = server.expect_log("not reloaded", number + 1);
        let line = lines.last().unwrap();
        assert!(is_error(line) && line.contains(said), "{name}: {line}");
        assert!(line.contains("TIDEMILL_TLS_"), "{name}: {line}");
        assert!(!line.contains("PRIVATE KEY-"), "{name}: {line}");
        assert!(shown(&server) == *good.certificate, "{name} is shown");
        server.open().close();
        open.echo(name.as_bytes());
        // And then it is put right.
        good = server.authority.pair("localhost");
        replace(&server, &good);
        server.signal("HUP");
        expect_shown(&server, &good);
        server.settles("reloads_total{result=\"ok\"}", number as f64 + 2.0);
    }
    open.close();
    server.stop();
}

/// A file that is written slowly is tried, refused, and taken once it is whole. Nobody signals.
#[test]
fn a_file_that_is_written_slowly_is_taken_in_the_end() {
    let server = Setup::new().set("TLS_RELOAD_INTERVAL", "1s").start();
    let before = shown(&server);
    let pair = server.authority.pair("localhost");
    let (head, tail) = pair.certificate_pem.split_at(200);
    server.folder.write("cert.pem", head);
    server.expect_log("not reloaded", 1);
    assert!(shown(&server) == before);
    server.folder.write("cert.pem", [head, tail].concat());
    // The key is the old one still.
    server.expect_log("not reloaded", 2);
    assert!(shown(&server) == before);
    server.folder.write("key.pem", &pair.key_pem);
    expect_shown(&server, &pair);
    server.settles("reloads_total{result=\"ok\"}", 1.0);
    // Nothing has changed since: nothing is read, nothing is said.
    let (failed, began) = (reloads(&server, "failed"), Instant::now());
    while began.elapsed() < Duration::from_millis(2500) {
        thread::park_timeout(Duration::from_millis(100));
    }
    assert_eq!(reloads(&server, "failed"), failed);
    assert_eq!(reloads(&server, "ok"), 1);
}

/// As certbot leaves it: a link whose target is exchanged.
#[test]
fn a_link_that_points_elsewhere_is_a_change() {
    let setup = Setup::new().set("TLS_RELOAD_INTERVAL", "1s");
    let link = |kind: &str, target: &str| {
        let path = setup.folder.path(&format!("live-{kind}.pem"));
        let fresh = format!("{path}.new");
        std::os::unix::fs::symlink(setup.folder.path(target), &fresh).unwrap();
        std::fs::rename(fresh, path).unwrap();
    };
    let next = setup.authority.pair("localhost");
    setup.store("next-", &next);
    link("cert", "cert.pem");
    link("key", "key.pem");
    let live = |kind: &str| setup.folder.path(&format!("live-{kind}.pem"));
    let (certificate, key) = (live("cert"), live("key"));
    let (to_certificate, to_key) = (
        setup.folder.path("next-cert.pem"),
        setup.folder.path("next-key.pem"),
    );
    let server = setup
        .set("TLS_CERT", &certificate)
        .set("TLS_KEY", &key)
        .start();
    for (from, to) in [(certificate, to_certificate), (key, to_key)] {
        let fresh = format!("{from}.new");
        std::os::unix::fs::symlink(to, &fresh).unwrap();
        std::fs::rename(fresh, from).unwrap();
    }
    expect_shown(&server, &next);
}

#[test]
fn files_are_not_watched_when_that_is_off() {
    let server = Server::start();
    let before = shown(&server);
    let pair = server.authority.pair("localhost");
    replace(&server, &pair);
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1500) {
        assert!(shown(&server) == before);
        thread::park_timeout(Duration::from_millis(100));
    }
    server.signal("HUP");
    expect_shown(&server, &pair);
}

#[test]
fn days_that_are_left_are_told_and_few_are_warned_of() {
    let setup = Setup::new();
    let with_days = |authority: &Authority, days| {
        authority.sign(&Order {
            valid: (-1, days),
            ..Order::default()
        })
    };
    setup.store("", &with_days(&setup.authority, 100));
    setup.store("soon-", &with_days(&setup.authority, 13));
    let server = setup.show(&["", "soon-"]).start();
    let warned = server.expect_log("expires soon", 1);
    assert!(
        is_warning(&warned[0]) && warned[0].contains("soon-cert.pem"),
        "{warned:?}"
    );
    assert_eq!(warned.len(), 1, "{warned:?}");
    let expect_days = |days: f64| {
        let seen = || server.metric("tls_certificate_expiry_seconds") / DAY_S;
        wait_until(PATIENCE, seen, |seen| (*seen - days).abs() < 0.1);
    };
    expect_days(13.0);
    // The other one is renewed to less.
    let pair = with_days(&server.authority, 2);
    replace(&server, &pair);
    server.signal("HUP");
    expect_shown(&server, &pair);
    expect_days(2.0);
    assert_eq!(server.expect_log("expires soon", 3).len(), 3);
    // Fifteen days are no reason to worry.
    let fine = with_days(&server.authority, 15);
    replace(&server, &fine);
    server
        .folder
        .replace("soon-cert.pem", &fine.certificate_pem);
    server.folder.replace("soon-key.pem", &fine.key_pem);
    server.signal("HUP");
    expect_shown(&server, &fine);
    expect_days(15.0);
    assert_eq!(server.logged("expires soon").len(), 3);
}

#[test]
fn a_signal_to_read_again_ends_no_server_that_has_nothing_to_read() {
    let setup = Setup::new();
    // Its banner names no wss://, so it is run to its end.
    let setup = setup
        .set("TLS_LISTEN", "")
        .set("TLS_CERT", "")
        .set("TLS_KEY", "");
    let mut child = setup.command(&[]).spawn().unwrap();
    let output = std::io::BufReader::new(child.stdout.take().unwrap());
    let address = std::io::BufRead::lines(output)
        .map_while(Result::ok)
        .find_map(|line| line.split_once("ws://").map(|(_, rest)| rest.to_owned()))
        .unwrap();
    let address: std::net::SocketAddr = address.split_whitespace().next().unwrap().parse().unwrap();
    let id = child.id().to_string();
    let send = |signal: &str| {
        let sent = std::process::Command::new("kill")
            .args(["-s", signal, &id])
            .status();
        assert!(sent.unwrap().success());
    };
    for _ in 0..3 {
        send("HUP");
        let mut stream = TcpStream::connect(address).unwrap();
        std::io::Write::write_all(&mut stream, b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert!(
            crate::socket::answer(&mut stream)
                .unwrap()
                .1
                .contains("healthy")
        );
    }
    send("TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// The server goes on with what it has: whoever takes an expired certificate is better served than
/// nobody. But it is no longer taken as new.
#[test]
fn a_certificate_that_expires_meanwhile_is_told_and_not_taken_again() {
    let setup = Setup::new();
    let short = setup.authority.sign(&Order {
        expires_in_s: Some(4),
        ..Order::default()
    });
    setup.store("", &short);
    let server = setup.start();
    assert_eq!(server.expect_log("expires soon", 1).len(), 1);
    let mut open = server.open();
    let left = || server.metric("tls_certificate_expiry_seconds");
    wait_until(PATIENCE, left, |left| *left < -1.0);
    open.echo(b"undisturbed");
    expect_shown(&server, &short);
    server.signal("HUP");
    server.settles("reloads_total{result=\"failed\"}", 1.0);
    assert!(server.expect_log("not reloaded", 1)[0].contains("expired"));
    expect_shown(&server, &short);
    let good = server.authority.pair("localhost");
    replace(&server, &good);
    server.signal("HUP");
    expect_shown(&server, &good);
    wait_until(PATIENCE, left, |left| *left > 300.0 * DAY_S);
    open.close();
    server.stop();
}

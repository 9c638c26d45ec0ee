//! The PROXY protocol: whom a trusted proxy speaks for, what is malformed, and who only pretends.
//! The words are those of HAProxy's proxy-protocol.txt, sections 2.1 and 2.2.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use crate::{
    call::{Answer, Call, Outcome, finish, learn, trickle, until_end},
    client::Client,
    guarded::Guarded,
    outside::{PATIENCE, wait_until},
};

const STRANGER: &str = "203.0.113.7";

/// Where trusted proxies come from, here.
const PROXY: u8 = 9;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn v1(source: &str) -> Vec<u8> {
    match source.contains(':') {
        false => format!("PROXY TCP4 {source} 192.0.2.1 56324 443\r\n").into(),
        true => format!("PROXY TCP6 {source} 2001:db8::99 56324 443\r\n").into(),
    }
}

/// A header of the second version: command and version, family, addresses, and what comes after.
fn v2_of(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let length = (addresses.len() as u16).to_be_bytes();
    [SIGNATURE, &[command, family], &length, addresses].concat()
}

fn v2(source: &str) -> Vec<u8> {
    let ports = [0xdc, 0x04, 0x01, 0xbb];
    match source.parse().unwrap() {
        IpAddr::V4(source) => {
            let to = Ipv4Addr::new(192, 0, 2, 1);
            v2_of(
                0x21,
                0x11,
                &[&source.octets()[..], &to.octets(), &ports].concat(),
            )
        }
        IpAddr::V6(source) => {
            let to = Ipv6Addr::LOCALHOST;
            v2_of(
                0x21,
                0x21,
                &[&source.octets()[..], &to.octets(), &ports].concat(),
            )
        }
    }
}

fn gate(more: &[(&str, &str)]) -> Guarded {
    let own = [
        ("TRUSTED_PROXIES", "127.0.0.9,127.0.0.16/31"),
        ("PROXY_PROTOCOL", "true"),
        ("LISTEN", "0.0.0.0:0"),
    ];
    Guarded::with(&[&own, more].concat())
}

/// A call that is refused, so that the log tells where it came from.
fn evil(preamble: Vec<u8>) -> Call {
    Call::echo()
        .host("example.com")
        .origin("https://evil.example")
        .after(preamble)
}

#[track_caller]
fn expect_remote(gate: &Guarded, call: &Call, remote: &str) {
    // One line a second and reason: until there is one of this.
    let look = || {
        let before = gate.said("reason=origin").len();
        call.refused(gate.address, 403);
        let lines = gate.said("reason=origin");
        lines
            .get(before)
            .map(|line| line.value("remote").to_owned())
    };
    let seen = wait_until(PATIENCE, look, Option::is_some).unwrap();
    let seen = seen
        .parse::<SocketAddr>()
        .map_or(seen.clone(), |seen| seen.ip().to_string());
    assert_eq!(seen.trim_matches(['[', ']']), remote, "{call:?}");
}

#[test]
fn a_trusted_proxy_says_who_comes_in_either_version() {
    let gate = gate(&[]);
    for source in [STRANGER, "2001:db8::7"] {
        for preamble in [v1(source), v2(source)] {
            let call = Call::echo().after(preamble.clone()).from(PROXY);
            let mut caller = call.open(gate.address);
            caller.echo(b"through a proxy");
            caller.close();
            expect_remote(&gate, &evil(preamble).from(PROXY), source);
        }
    }
    Call::echo()
        .after(v1(STRANGER))
        .from(16)
        .open(gate.address)
        .close();
    Call::echo()
        .after(v2(STRANGER))
        .from(17)
        .open(gate.address)
        .close();
    assert_eq!(gate.refused("proxy_header"), 0);
    gate.end();
}

#[test]
fn who_is_no_proxy_may_not_pretend_to_be_one() {
    let gate = gate(&[]);
    // 127.0.0.18 is just beyond the network that is trusted.
    for source in [8, 10, 15, 18] {
        for preamble in [v1(STRANGER), v2(STRANGER)] {
            let call = Call::echo().after(preamble).from(source);
            match call.ask(gate.address) {
                Outcome::Answered(answer) => assert_eq!(answer.status, 400, "{answer:?}"),
                Outcome::Dropped => {}
                Outcome::Open(_) => panic!("{call:?} was let in"),
            }
        }
        Call::echo().from(source).open(gate.address).close();
    }
    let own = evil(Vec::new()).from(8);
    expect_remote(&gate, &own, "127.0.0.8");
    gate.end();
}

#[test]
fn a_proxy_that_says_nothing_is_not_let_in() {
    let gate = gate(&[]);
    for (count, bytes) in [
        Call::echo().bytes(),
        Call::get("/health").bytes(),
        b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec(),
        [Call::echo().bytes(), v1(STRANGER)].concat(),
    ]
    .iter()
    .enumerate()
    {
        let mut stream = Call::echo().from(PROXY).connect(gate.address);
        stream.write_all(bytes).unwrap();
        assert!(until_end(&mut stream).is_empty());
        gate.expect_refused("proxy_header", count as u64 + 1);
    }
    let line = gate.expect_said("reason=proxy_header");
    assert_eq!(line.value("remote"), "127.0.0.9", "{line:?}");
    gate.end();
}

/// Headers that no proxy sends, and some that only look alike.
fn malformed() -> Vec<Vec<u8>> {
    let lines = [
        "PROXY\r\n",
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP4 203.0.113.7\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 56324\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 56324 443 more\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 56324 443 \r\n",
        "PROXY TCP4  203.0.113.7 192.0.2.1 56324 443\r\n",
        "PROXY TCP4 203.0.113.256 192.0.2.1 56324 443\r\n",
        "PROXY TCP4 203.0.113 192.0.2.1 56324 443\r\n",
        "PROXY TCP4 2001:db8::7 2001:db8::1 56324 443\r\n",
        "PROXY TCP6 203.0.113.7 192.0.2.1 56324 443\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 65536 443\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 -1 443\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 x 443\r\n",
        "PROXY TCP4 localhost 192.0.2.1 56324 443\r\n",
        "PROXY UDP4 203.0.113.7 192.0.2.1 56324 443\r\n",
        "PROXY TCP5 203.0.113.7 192.0.2.1 56324 443\r\n",
        "proxy TCP4 203.0.113.7 192.0.2.1 56324 443\r\n",
        "PROXYTCP4 203.0.113.7 192.0.2.1 56324 443\r\n",
        " PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\rX",
        "PROXY TCP4\t203.0.113.7\t192.0.2.1\t56324\t443\r\n",
    ];
    let mut all: Vec<Vec<u8>> = lines.iter().map(|line| line.as_bytes().to_vec()).collect();
    // 107 bytes are the longest that there may be.
    all.push(format!("PROXY UNKNOWN {}\r\n", "x".repeat(200)).into());
    all.push(format!("PROXY TCP4 {}", "1".repeat(300)).into());
    let addresses = [203, 0, 113, 7, 192, 0, 2, 1, 0xdc, 4, 1, 0xbb];
    all.push(v2_of(0x11, 0x11, &addresses));
    all.push(v2_of(0x31, 0x11, &addresses));
    all.push(v2_of(0x22, 0x11, &addresses));
    all.push(v2_of(0x2f, 0x11, &addresses));
    all.push(v2_of(0x21, 0x11, &addresses[..11]));
    all.push(v2_of(0x21, 0x11, &[]));
    all.push(v2_of(0x21, 0x21, &addresses));
    all.push(v2_of(0x21, 0x11, &[&addresses[..], &[0; 60_000]].concat()));
    let mut spoilt = v2(STRANGER);
    spoilt[11] = b'\r';
    all.push(spoilt);
    all
}

#[test]
fn what_is_malformed_ends_the_connection_without_an_answer() {
    let gate = gate(&[("HANDSHAKE_TIMEOUT", "5s")]);
    let all = malformed();
    for (count, preamble) in all.iter().enumerate() {
        let mut stream = Call::echo().from(PROXY).connect(gate.address);
        // The connection may be over before all of it is sent.
        let _ = stream.write_all(preamble);
        let _ = stream.write_all(&Call::echo().bytes());
        let said = until_end(&mut stream);
        let shown = preamble[..preamble.len().min(60)].escape_ascii();
        assert!(said.is_empty(), "{shown}: {}", said.escape_ascii());
        let counted = || gate.refused("proxy_header");
        wait_until(PATIENCE, counted, |seen| *seen == count as u64 + 1);
    }
    Call::echo()
        .after(v1(STRANGER))
        .from(PROXY)
        .open(gate.address)
        .close();
    gate.end();
}

/// A proxy that asks for itself, or does not know for whom it asks.
#[test]
fn a_proxy_may_come_for_nobody() {
    let gate = gate(&[]);
    let unknown = b"PROXY UNKNOWN\r\n".to_vec();
    let unknown_addresses = b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n";
    let socket = v2_of(0x21, 0x31, &[b'/'; 216]);
    for preamble in [
        unknown,
        unknown_addresses.to_vec(),
        v2_of(0x20, 0x00, &[]),
        v2_of(0x20, 0x11, &[0; 12]),
        v2_of(0x21, 0x00, &[]),
        v2_of(0x20, 0x00, &[7; 40]),
        socket,
    ] {
        let call = Call::echo().after(preamble.clone()).from(PROXY);
        call.open(gate.address).close();
        let health = Call::get("/health").after(preamble).from(PROXY);
        assert_eq!(health.answered(gate.address).status, 200);
    }
    gate.end();
}

#[test]
fn what_else_a_proxy_says_is_skipped() {
    let gate = gate(&[]);
    let addresses = [203, 0, 113, 7, 192, 0, 2, 1, 0xdc, 4, 1, 0xbb];
    for length in [1, 3, 100, 2000] {
        // A PP2_TYPE_AUTHORITY, and then whatever.
        let more = [&addresses[..], &[2, 0, 4], &vec![0xee; length]].concat();
        let call = evil(v2_of(0x21, 0x11, &more)).from(PROXY);
        expect_remote(&gate, &call, STRANGER);
    }
    // Datagrams are told as well, though nobody sends any here.
    let call = Call::echo()
        .after(v2_of(0x21, 0x12, &addresses))
        .from(PROXY);
    assert!(!matches!(call.ask(gate.address), Outcome::Answered(_)));
    gate.end();
}

#[test]
fn a_header_survives_being_cut_anywhere() {
    let gate = gate(&[]);
    for preamble in [
        v1(STRANGER),
        v2(STRANGER),
        v2("2001:db8::7"),
        v1("2001:db8::7"),
    ] {
        let bytes = Call::echo().after(preamble.clone()).bytes();
        for cut in 1..preamble.len() + 2 {
            let mut stream = Call::echo().from(PROXY).connect(gate.address);
            stream.write_all(&bytes[..cut]).unwrap();
            // As long as it takes for the first part to be read alone, mostly.
            std::thread::park_timeout(Duration::from_millis(3));
            stream.write_all(&bytes[cut..]).unwrap();
            match learn(stream) {
                Outcome::Open(mut caller) => caller.echo(b"whole again"),
                other => panic!("cut at {cut}: {other:?}"),
            }
        }
        let mut stream = Call::echo().from(PROXY).connect(gate.address);
        for byte in &bytes {
            stream.write_all(&[*byte]).unwrap();
        }
        assert!(matches!(learn(stream), Outcome::Open(_)));
    }
    assert_eq!(gate.refused("proxy_header"), 0);
    gate.end();
}

/// The stream ends inside the header, or right behind it.
#[test]
fn a_header_that_ends_early_leaves_nothing_behind() {
    let gate = gate(&[("HANDSHAKE_TIMEOUT", "5m")]);
    for preamble in [v1(STRANGER), v2(STRANGER)] {
        for cut in 0..=preamble.len() {
            let mut stream = Call::echo().from(PROXY).connect(gate.address);
            stream.write_all(&preamble[..cut]).unwrap();
            finish(&stream);
            assert!(until_end(&mut stream).is_empty(), "cut at {cut}");
        }
    }
    gate.settles("reactor_connections", 1.0);
    gate.end();
}

/// The deadline of a handshake runs from the first moment on, whatever comes slowly.
#[test]
fn a_header_a_byte_at_a_time_ends_at_the_deadline() {
    let gate = gate(&[("HANDSHAKE_TIMEOUT", "1s")]);
    for preamble in [v1(STRANGER), v2_of(0x21, 0x11, &[203; 2000])] {
        let mut stream = Call::echo().from(PROXY).connect(gate.address);
        let bytes = [preamble, Call::echo().bytes()].concat();
        let took = trickle(&mut stream, &bytes, Duration::from_millis(40));
        assert!(took >= Duration::from_millis(900), "{took:?}");
        until_end(&mut stream);
    }
    let silent = Call::echo().from(PROXY).connect(gate.address);
    until_end(&mut silent.try_clone().unwrap());
    gate.settles("connections_total", 0.0);
    gate.end();
}

#[test]
fn the_header_comes_before_tls() {
    let gate = gate(&[]);
    let secure = gate.secure();
    for preamble in [v1(STRANGER), v2("2001:db8::7")] {
        let mut stream = Call::echo().from(PROXY).connect(secure);
        stream.write_all(&preamble).unwrap();
        let client = Client::over(stream, gate.config(), "localhost").unwrap();
        let mut client = client.upgraded("/echo");
        client.echo(b"sealed, through a proxy");
        client.close();
    }
    // In one write with what follows, as a busy proxy sends it; and cut in the middle of both.
    for cut in [0, 5, 20, 41, 44, 60] {
        let stream = Call::echo().from(PROXY).connect(secure);
        let ahead = Ahead {
            stream,
            preamble: v1(STRANGER),
            cut,
        };
        let name = "localhost".try_into().unwrap();
        let tls = rustls::ClientConnection::new(gate.config().into(), name).unwrap();
        let mut client = rustls::StreamOwned::new(tls, ahead);
        client.write_all(&Call::echo().bytes()).unwrap();
        assert_eq!(Answer::receive(&mut client).unwrap().status, 101);
    }
    // Without it, and from one who may not.
    for source in [PROXY, 8] {
        let mut stream = Call::echo().from(source).connect(secure);
        if source == 8 {
            stream.write_all(&v1(STRANGER)).unwrap();
        }
        assert!(Client::over(stream, gate.config(), "localhost").is_err());
    }
    let call = Call::echo().from(8).connect(secure);
    let client = Client::over(call, gate.config(), "localhost").unwrap();
    client.upgraded("/echo").close();
    gate.end();
}

/// A socket that puts the header in front of the first that is sent, and cuts both together once.
struct Ahead {
    stream: std::net::TcpStream,
    preamble: Vec<u8>,
    cut: usize,
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for Ahead {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let all = [&std::mem::take(&mut self.preamble), bytes].concat();
        let (first, second) = all.split_at(self.cut.min(all.len()));
        self.cut = 0;
        self.stream.write_all(first)?;
        if !first.is_empty() {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        self.stream.write_all(second)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

/// Caps are for those who come, not for the proxy that brings them.
#[test]
fn whoever_comes_through_a_proxy_is_counted_by_their_own_address() {
    let gate = gate(&[("MAX_CONNECTIONS_PER_IP", "2")]);
    let through = |source: &str, number: usize| {
        let preamble = if number.is_multiple_of(2) {
            v1(source)
        } else {
            v2(source)
        };
        Call::echo().after(preamble).from(PROXY)
    };
    let mut inside = Vec::new();
    for host in 1..20 {
        let source = format!("203.0.113.{host}");
        inside.extend([0, 1].map(|number| through(&source, number).open(gate.address)));
    }
    for number in [0, 1] {
        let call = through("203.0.113.5", number);
        gate.refuses(&call, 429, "address_cap").retry_after();
    }
    // An address of the older kind in the clothes of the newer is the same.
    gate.refuses(&through("::ffff:203.0.113.5", 1), 429, "address_cap");
    // 64 bits of the newer kind are one subscriber.
    for host in ["2001:db8:1:2::1", "2001:db8:1:2:ffff::9"] {
        inside.push(through(host, 0).open(gate.address));
    }
    gate.refuses(&through("2001:db8:1:2:3:4:5:6", 1), 429, "address_cap");
    inside.push(through("2001:db8:1:3::1", 0).open(gate.address));
    inside.push(through("2001:db8::1:2:3:4", 0).open(gate.address));
    for caller in &mut inside {
        caller.echo(b"undisturbed");
    }
    let health = Call::get("/health").after(v1("203.0.113.5")).from(PROXY);
    assert_eq!(health.answered(gate.address).status, 200);
    drop(inside);
    gate.settles("connections", 0.0);
    let look = || through("203.0.113.5", 0).ask(gate.address);
    wait_until(PATIENCE, look, |outcome| {
        matches!(outcome, Outcome::Open(_))
    });
    gate.end();
}

#[test]
fn newcomers_through_a_proxy_are_counted_by_their_own_address() {
    let gate = gate(&[("CONNECT_RATE_PER_IP", "3")]);
    for host in 1..40 {
        let preamble = v2(&format!("203.0.113.{host}"));
        Call::echo().after(preamble).from(PROXY).open(gate.address);
    }
    let mut refused = 0;
    for _ in 0..15 {
        match Call::echo()
            .after(v1("198.51.100.1"))
            .from(PROXY)
            .ask(gate.address)
        {
            Outcome::Answered(answer) if answer.status == 429 => refused += 1,
            Outcome::Open(_) | Outcome::Dropped => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(refused > 0);
    gate.end();
}

/// The proxy has said who it is; what the other one says of themselves is only a claim.
#[test]
fn a_client_behind_the_protocol_cannot_name_another() {
    let gate = gate(&[]);
    for header in [
        "X-Forwarded-For",
        "X-Real-IP",
        "X-Client-IP",
        "CF-Connecting-IP",
    ] {
        let call = evil(v1(STRANGER))
            .header(header, "198.51.100.1")
            .from(PROXY);
        expect_remote(&gate, &call, STRANGER);
    }
    let call = evil(v2(STRANGER))
        .header("Forwarded", "for=198.51.100.1")
        .from(PROXY);
    expect_remote(&gate, &call, STRANGER);
    let call = evil(v2(STRANGER))
        .header("X-Forwarded-Host", "evil.example")
        .from(PROXY);
    gate.refuses(&call, 403, "origin");
    gate.end();
}

/// What only this machine may see, a stranger does not see through a proxy on this machine.
#[test]
fn a_stranger_behind_a_proxy_is_no_peer_of_this_machine() {
    let gate = gate(&[]);
    for preamble in [v1(STRANGER), v2("2001:db8::7")] {
        let answer = Call::get("/metrics")
            .after(preamble)
            .from(PROXY)
            .answered(gate.address);
        assert_eq!(answer.status, 403, "{}", answer.head);
        assert!(!answer.body.contains("tidemill_"));
    }
    gate.end();
}

#[test]
fn the_protocol_needs_someone_to_trust() {
    let setup = crate::server::Setup::new().set("PROXY_PROTOCOL", "true");
    let output = setup.finish(&["check"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("TIDEMILL_TRUSTED_PROXIES"), "{told}");
    for wrong in [
        "nonsense",
        "10.0.0.0/33",
        "10.0.0",
        "::/129",
        "10.0.0.0/8/8",
        "proxy.example",
    ] {
        let setup = crate::server::Setup::new().set("TRUSTED_PROXIES", wrong);
        let output = setup.finish(&["check"]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{wrong}: {told}");
        assert!(told.contains("TIDEMILL_TRUSTED_PROXIES"), "{told}");
    }
    for everything in ["0.0.0.0/0", "::/0"] {
        let setup = crate::server::Setup::new().set("TRUSTED_PROXIES", everything);
        let output = setup.finish(&["check"]);
        let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let warned = told
            .lines()
            .any(|line| line.starts_with("warning") && line.contains("TIDEMILL_TRUSTED_PROXIES"));
        assert!(warned, "{told}");
    }
}

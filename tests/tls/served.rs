//! What works on `ws://` works on `wss://`: messages of all sizes, in all versions and suites, on
//! every reactor, and an orderly end.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    sync::Arc,
};

use rustls::{
    AlertDescription, ClientConfig, DEFAULT_VERSIONS, Error, SupportedCipherSuite,
    SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    version::{TLS12, TLS13},
};

use crate::{
    authority::{Order, RSA},
    client::{self, Client},
    outside::peer::frame,
    server::{Server, Setup},
    socket::{self, BINARY, CLOSE, TEXT, noise, upgrade},
};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// The alert that came instead of an open connection.
#[track_caller]
fn refused(server: &Server, config: ClientConfig) -> AlertDescription {
    let client = Client::connect(server.address, config, "localhost");
    // In TLS 1.3 a client may learn of it only when it reads.
    let error = match client {
        Ok(client) => client.try_upgraded("/echo").err().expect("it was let in"),
        Err(error) => error,
    };
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(Error::AlertReceived(alert)) => *alert,
        _ => panic!("no alert but {error:?}"),
    }
}

#[test]
fn messages_of_all_sizes_come_back_in_both_versions() {
    let server = Setup::new().set("MAX_MESSAGE_BYTES", "1MiB").start();
    for version in VERSIONS {
        let config = client::config(&server.authority, &[version], None);
        let client = Client::connect(server.address, config, "localhost").unwrap();
        let mut client = client.upgraded("/echo");
        assert_eq!(client.tls().protocol_version(), Some(version.version));
        for size in [
            0,
            1,
            125,
            126,
            1000,
            16_383,
            16_384,
            16_385,
            65_535,
            65_536,
            100_000,
            1 << 20,
        ] {
            client.echo(&noise(size as u64, size));
        }
        client.close();
    }
    server.stop();
}

#[test]
fn many_messages_in_one_breath_come_back_in_order() {
    let server = Server::start();
    let mut client = server.open();
    let messages: Vec<_> = (0..5000_u32)
        .map(|number| noise(number.into(), 30))
        .collect();
    let all: Vec<u8> = messages
        .iter()
        .flat_map(|message| frame(BINARY, message))
        .collect();
    client.write_all(&all).unwrap();
    for message in messages {
        assert_eq!(client.receive().unwrap(), (BINARY, message));
    }
    client.close();
}

#[test]
fn what_comes_with_the_last_flight_of_the_handshake_is_served() {
    let server = Server::start();
    for version in VERSIONS {
        let config = client::config(&server.authority, &[version], None);
        let name = "localhost".try_into().unwrap();
        let mut tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        // Sent as soon as there is a key for it, behind Finished and without a look at the answer.
        let mut early = upgrade("/echo").into_bytes();
        (0..100).for_each(|_| early.extend(frame(TEXT, b"before I know you")));
        tls.writer().write_all(&early).unwrap();
        let mut stream = rustls::StreamOwned::new(tls, server.bare());
        let head = socket::head(&mut stream).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        for _ in 0..100 {
            let came = socket::receive(&mut stream).unwrap();
            assert_eq!(came, (TEXT, b"before I know you".to_vec()));
        }
    }
}

#[test]
fn every_suite_is_spoken_by_whoever_offers_no_other() {
    let setup = Setup::new();
    let rsa = setup.authority.sign(&Order {
        algorithm: RSA,
        ..Order::default()
    });
    setup.store("rsa-", &rsa);
    let server = setup.show(&["", "rsa-"]).start();
    for suite in aws_lc_rs::ALL_CIPHER_SUITES {
        let mut config = only(&server, *suite);
        config.resumption = rustls::client::Resumption::disabled();
        let client = Client::connect(server.address, config, "localhost");
        let mut client = client.unwrap_or_else(|error| panic!("{suite:?}: {error}"));
        assert_eq!(client.tls().negotiated_cipher_suite(), Some(*suite));
        let mut client = client.upgraded("/echo");
        client.echo(&noise(1, 20_000));
        client.close();
    }
    assert_eq!(server.handshakes("failed") as u64, 0);
    server.stop();
}

/// A client that offers this suite alone.
fn only(server: &Server, suite: SupportedCipherSuite) -> ClientConfig {
    let provider = CryptoProvider {
        cipher_suites: vec![suite],
        ..aws_lc_rs::default_provider()
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(server.authority.certificate()).unwrap();
    let version: &[&SupportedProtocolVersion] = match suite {
        SupportedCipherSuite::Tls12(_) => &[&TLS12],
        SupportedCipherSuite::Tls13(_) => &[&TLS13],
    };
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(version)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

#[test]
fn the_protocol_inside_is_http_1_1_or_not_named() {
    let server = Server::start();
    let cases: [(&[&str], Option<&str>); 3] = [
        (&["http/1.1"], Some("http/1.1")),
        (&["h2", "http/1.1"], Some("http/1.1")),
        (&[], None),
    ];
    for version in VERSIONS {
        for (offered, chosen) in cases {
            let mut config = client::config(&server.authority, &[version], None);
            config.alpn_protocols = offered.iter().map(|name| name.as_bytes().into()).collect();
            let mut client = Client::connect(server.address, config, "localhost").unwrap();
            assert_eq!(client.tls().alpn_protocol(), chosen.map(str::as_bytes));
            client.upgraded("/echo").close();
        }
        let mut config = client::config(&server.authority, &[version], None);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let alert = refused(&server, config);
        assert_eq!(alert, AlertDescription::NoApplicationProtocol);
    }
    server.settles("tls_handshakes_total{result=\"failed\"}", 2.0);
    assert_eq!(server.handshakes("full") as u64, 6);
}

#[test]
fn both_listeners_serve_side_by_side_and_each_speaks_its_own() {
    let server = Server::start();
    let plain = server.plain.unwrap();
    server.open().echo(b"sealed");
    let mut stream = TcpStream::connect(plain).unwrap();
    stream.write_all(upgrade("/echo").as_bytes()).unwrap();
    assert!(socket::head(&mut stream).unwrap().contains(" 101 "));
    socket::echo(&mut stream, b"open").unwrap();
    // TLS on the port of plain HTTP is a request that makes no sense.
    let error = Client::connect(plain, server.config(), "localhost").err();
    assert_eq!(error.unwrap().kind(), io::ErrorKind::InvalidData);
    for line in [
        format!("websocket    ws://{plain}"),
        format!("websocket    wss://{}", server.address),
        format!("health       http://{plain}/health"),
        format!("health       https://{}/health", server.address),
        format!("try it       https://{}/", server.address),
    ] {
        assert!(server.banner.contains(&line), "{line} in {}", server.banner);
    }
    server.stop();
}

#[test]
fn the_plain_listener_may_be_off() {
    let server = Setup::new().set("LISTEN", "off").start();
    assert_eq!(server.plain, None);
    assert!(!server.banner.contains("http://"), "{}", server.banner);
    server.open().close();
    assert_eq!(server.handshakes("failed") as u64, 0);
    server.stop();
}

#[test]
fn several_addresses_speak_it() {
    let server = Setup::new()
        .set("TLS_LISTEN", "127.0.0.1:0,127.0.0.2:0")
        .start();
    let mut found = 0;
    for line in server.banner.lines() {
        let Some((_, address)) = line.split_once("websocket    wss://") else {
            continue;
        };
        let address = address.split_whitespace().next().unwrap();
        let address = address.parse().unwrap();
        let client = Client::connect(address, server.config(), "localhost").unwrap();
        client.upgraded("/echo").close();
        found += 1;
    }
    assert_eq!(found, 2, "{}", server.banner);
}

#[test]
fn reactors_that_are_handed_their_sockets_speak_it() {
    let server = Setup::new()
        .set("REACTORS", "3")
        .set("ACCEPT", "handoff")
        .start();
    let mut clients: Vec<_> = (0..30).map(|_| server.open()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.echo(&noise(number as u64, 3000));
    }
    for reactor in 0..3 {
        let held = server.metric(&format!("reactor_connections{{reactor=\"{reactor}\"}}"));
        assert!(held >= 9.0, "{held}");
    }
    clients.into_iter().for_each(Client::close);
    server.stop();
}

#[test]
fn reactors_with_descriptor_tables_of_their_own_speak_it() {
    let server = Setup::new()
        .set("REACTORS", "3")
        .set("FD_TABLES", "private")
        .start();
    let mut clients: Vec<_> = (0..60).map(|_| server.open()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.echo(&noise(number as u64, 3000));
    }
    server.signal("HUP");
    server.expect_log("certificate loaded", 1);
    server.open().close();
    clients.into_iter().for_each(Client::close);
    server.stop();
}

#[test]
fn a_close_is_followed_by_a_close_notify_and_that_by_a_fin() {
    let server = Server::start();
    for version in VERSIONS {
        let config = client::config(&server.authority, &[version], None);
        let connect = || Client::connect(server.address, config.clone(), "localhost").unwrap();
        // By the client, with and without more behind its Close.
        connect().upgraded("/echo").close();
        let mut client = connect().upgraded("/echo");
        client.write_all(&socket::close(1000)).unwrap();
        client.notify();
        client.expect_close(1000);
        client.expect_end();
        // By the server, which was offended.
        let mut client = connect().upgraded("/echo");
        client.write_all(&[0xff, 0x80, 0, 0, 0, 0]).unwrap();
        client.expect_close(1002);
        client.expect_end();
        // A refusal.
        let mut client = connect();
        client.write_all(upgrade("/nowhere").as_bytes()).unwrap();
        assert!(socket::answer(&mut client).unwrap().0.contains(" 404 "));
        client.expect_end();
    }
    assert_eq!(DEFAULT_VERSIONS.len(), VERSIONS.len());
    server.stop();
}

#[test]
fn who_ends_without_a_close_is_told_that_it_was_heard() {
    let server = Server::start();
    let mut client = server.open();
    client.echo(b"well");
    client.notify();
    client.expect_end();
    // What was asked before still gets its answer.
    let mut client = server.open();
    client.send(TEXT, b"last words");
    client.notify();
    client.finish();
    assert_eq!(client.receive().unwrap(), (TEXT, b"last words".to_vec()));
    client.expect_end();
    server.settles("closed_total{code=\"1006\"}", 2.0);
}

#[test]
fn nothing_is_said_after_a_close() {
    let server = Server::start();
    let mut client = server.open();
    let mut bytes = frame(TEXT, b"one");
    bytes.extend(socket::close(4000));
    bytes.extend(frame(TEXT, b"two"));
    client.write_all(&bytes).unwrap();
    assert_eq!(client.receive().unwrap(), (TEXT, b"one".to_vec()));
    assert_eq!(client.receive().unwrap().0, CLOSE);
    client.expect_end();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

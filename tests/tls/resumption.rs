//! Tickets: whoever has one is spared the long handshake, on whichever reactor it comes out, and
//! also after the certificates were read anew.

use std::sync::Arc;

use rustls::{
    ClientConfig, HandshakeKind, SupportedProtocolVersion,
    client::Resumption,
    version::{TLS12, TLS13},
};

use crate::{
    client::{self, Client},
    server::{Server, Setup},
};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];
const COUNT: usize = 40;

fn remembering(server: &Server, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let mut config = client::config(&server.authority, &[version], None);
    config.resumption = Resumption::in_memory_sessions(256);
    Arc::new(config)
}

/// An echo in a connection of its own, which brings a ticket for the next one.
#[track_caller]
fn visit(server: &Server, config: &Arc<ClientConfig>) -> (Client, Option<HandshakeKind>) {
    let client = Client::connect(server.address, Arc::clone(config), "localhost").unwrap();
    let mut client = client.upgraded("/echo");
    client.echo(b"with a ticket");
    let kind = client.tls().handshake_kind();
    (client, kind)
}

#[test]
fn a_ticket_of_one_reactor_is_good_on_all() {
    let server = Setup::new().set("REACTORS", "4").start();
    for version in VERSIONS {
        let config = remembering(&server, version);
        let (first, kind) = visit(&server, &config);
        assert_eq!(kind, Some(HandshakeKind::Full));
        let mut open = vec![first];
        for number in 0..COUNT {
            let (client, kind) = visit(&server, &config);
            assert_eq!(kind, Some(HandshakeKind::Resumed), "{version:?} {number}");
            open.push(client);
        }
        for reactor in 0..4 {
            let held = server.metric(&format!("reactor_connections{{reactor=\"{reactor}\"}}"));
            assert!(held >= 1.0, "reactor {reactor} was never tried");
        }
        open.into_iter().for_each(Client::close);
        server.settles("connections", 0.0);
    }
    assert_eq!(server.handshakes("resumed") as usize, 2 * COUNT);
    assert_eq!(server.handshakes("full") as usize, 2);
    assert_eq!(server.handshakes("failed") as usize, 0);
    server.stop();
}

#[test]
fn a_ticket_outlives_a_reload() {
    let server = Server::start();
    for (number, version) in VERSIONS.into_iter().enumerate() {
        let config = remembering(&server, version);
        visit(&server, &config).0.close();
        let pair = server.authority.pair("localhost");
        server.folder.write("cert.pem", &pair.certificate_pem);
        server.folder.write("key.pem", &pair.key_pem);
        server.signal("HUP");
        server.expect_log("certificate loaded", number + 1);
        for _ in 0..10 {
            let (client, kind) = visit(&server, &config);
            assert_eq!(kind, Some(HandshakeKind::Resumed), "{version:?}");
            client.close();
        }
    }
}

#[test]
fn a_ticket_of_another_server_is_worth_nothing() {
    let ours = Server::start();
    for version in VERSIONS {
        let other = Setup::new();
        let text = |file: &str| std::fs::read(ours.folder.path(file)).unwrap();
        other.folder.write("cert.pem", text("cert.pem"));
        other.folder.write("key.pem", text("key.pem"));
        let other = other.start();
        let config = remembering(&ours, version);
        visit(&ours, &config).0.close();
        let (client, kind) = visit(&other, &config);
        assert_eq!(kind, Some(HandshakeKind::Full), "{version:?}");
        client.close();
    }
}

/// Nothing that was sent before the handshake is over is taken for said: it could be said again by
/// anybody who recorded it.
#[test]
fn early_data_is_not_taken() {
    let server = Server::start();
    let mut config = client::config(&server.authority, &[&TLS13], None);
    config.resumption = Resumption::in_memory_sessions(8);
    config.enable_early_data = true;
    let config = Arc::new(config);
    visit(&server, &config).0.close();
    let name = "localhost".try_into().unwrap();
    let mut tls = rustls::ClientConnection::new(Arc::clone(&config), name).unwrap();
    assert!(tls.early_data().is_none(), "a ticket invites early data");
}

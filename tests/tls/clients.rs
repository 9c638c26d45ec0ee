//! Certificates of clients: who must have one, who may, and what becomes of those whose is no good.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rustls::{
    AlertDescription, ClientConfig, Error, HandshakeKind, SupportedProtocolVersion,
    client::Resumption,
    version::{TLS12, TLS13},
};
use tidemill::{
    Accept, Config, Failure, Handler, Incoming, Message, Peer, Upgrade, Verdict,
    config::ClientAuth, server,
};

use crate::{
    authority::{Authority, Folder, Order, Pair},
    client::{self, Client},
    outside::{PATIENCE, wait_until},
    server::{Server, Setup},
    socket::TEXT,
};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

fn asking(how: &str) -> (Server, Authority) {
    let clients = Authority::new();
    let setup = Setup::new();
    setup.folder.write("clients.pem", clients.pem());
    let server = setup
        .set("TLS_CLIENT_CA", "@/clients.pem")
        .set("TLS_CLIENT_AUTH", how)
        // So that who sees a new authority knows that it is everywhere.
        .set("REACTORS", "1")
        .start();
    (server, clients)
}

fn device(authority: &Authority, subject: &str) -> Pair {
    authority.sign(&Order {
        names: &[],
        subject,
        ..Order::default()
    })
}

fn come(
    server: &Server,
    version: &'static SupportedProtocolVersion,
    shown: Option<&Pair>,
) -> Result<Client, Option<AlertDescription>> {
    let config = client::config(&server.authority, &[version], shown);
    let client = Client::connect(server.address, config, "localhost");
    let open = client.and_then(|client| client.try_upgraded("/echo"));
    open.map_err(|error| {
        match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(Error::AlertReceived(alert)) => Some(*alert),
            // It hung up while we still sent.
            _ => None,
        }
    })
}

#[track_caller]
fn expect_refused(
    server: &Server,
    version: &'static SupportedProtocolVersion,
    shown: Option<&Pair>,
    alerts: &[AlertDescription],
) {
    let alert = come(server, version, shown).err().expect("it was let in");
    let alert = alert.expect("it was not told why");
    assert!(alerts.contains(&alert), "{alert:?}");
}

/// None of these may come in, whether one is needed or not.
#[track_caller]
fn expect_bad_ones_refused(server: &Server, clients: &Authority) {
    use AlertDescription::{BadCertificate, CertificateExpired, DecryptError, UnknownCA};
    let stranger = device(&Authority::new(), "stranger");
    let dated = |valid| {
        clients.sign(&Order {
            valid,
            ..Order::default()
        })
    };
    let (late, early) = (dated((-10, -1)), dated((1, 10)));
    for version in VERSIONS {
        expect_refused(
            server,
            version,
            Some(&stranger),
            &[UnknownCA, BadCertificate, DecryptError],
        );
        expect_refused(server, version, Some(&late), &[CertificateExpired]);
        expect_refused(
            server,
            version,
            Some(&early),
            &[BadCertificate, CertificateExpired],
        );
    }
}

#[test]
fn without_a_certificate_nobody_comes_in_where_one_is_required() {
    let (server, clients) = asking("required");
    for version in VERSIONS {
        expect_refused(
            &server,
            version,
            None,
            &[
                AlertDescription::CertificateRequired,
                AlertDescription::HandshakeFailure,
            ],
        );
        let good = device(&clients, "good");
        come(&server, version, Some(&good)).unwrap().close();
    }
    expect_bad_ones_refused(&server, &clients);
    server.settles("tls_handshakes_total{result=\"failed\"}", 8.0);
    assert_eq!(server.handshakes("full") as u64, 2);
    server.stop();
}

#[test]
fn without_a_certificate_one_comes_in_where_it_is_optional() {
    let (server, clients) = asking("optional");
    for version in VERSIONS {
        come(&server, version, None).unwrap().close();
        let good = device(&clients, "good");
        come(&server, version, Some(&good)).unwrap().close();
    }
    expect_bad_ones_refused(&server, &clients);
    server.stop();
}

#[test]
fn a_ticket_is_no_way_around_an_authority_that_was_replaced() {
    let (server, clients) = asking("required");
    let good = device(&clients, "good");
    for version in VERSIONS {
        let mut config = client::config(&server.authority, &[version], Some(&good));
        config.resumption = Resumption::in_memory_sessions(8);
        let config = Arc::new(config);
        let connect = || Client::connect(server.address, Arc::clone(&config), "localhost");
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let mut client = connect().unwrap().upgraded("/echo");
            client.echo(b"and a ticket");
            kinds.push(client.tls().handshake_kind());
        }
        assert_eq!(kinds[1], Some(HandshakeKind::Resumed), "{version:?}");
        let is_open = || come(&server, version, Some(&good)).is_ok();
        server.folder.replace("clients.pem", Authority::new().pem());
        server.signal("HUP");
        wait_until(PATIENCE, is_open, |is_open| !*is_open);
        let after = connect().and_then(|client| client.try_upgraded("/echo"));
        assert!(after.is_err(), "{version:?}: let in by an old ticket");
        server.folder.replace("clients.pem", clients.pem());
        server.signal("HUP");
        wait_until(PATIENCE, is_open, |is_open| *is_open);
    }
    server.stop();
}

/// Tells each who comes whom it takes it for.
struct Greeter;

impl Handler for Greeter {
    type State = String;

    fn upgrade(&mut self, incoming: &Incoming<'_>, _: &Upgrade<'_>) -> Verdict<String> {
        let who = incoming.client_subject();
        let length = incoming.client_certificate().map_or(0, <[u8]>::len);
        let secure = incoming.is_secure();
        Accept::new(format!("{who:?} {length} {secure}")).into()
    }

    fn message(
        &mut self,
        peer: &mut Peer<'_>,
        who: &mut String,
        _: Message<'_>,
    ) -> Result<(), Failure> {
        peer.send_text(who);
        Ok(())
    }
}

#[test]
fn a_handler_learns_who_came_also_by_a_ticket() {
    let (authority, clients, folder) = (Authority::new(), Authority::new(), Folder::new());
    let own = authority.pair("localhost");
    let config = Config {
        listen: Some(Vec::new()),
        tls_listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        tls_cert: vec![folder.write("cert.pem", &own.certificate_pem).into()],
        tls_key: vec![folder.write("key.pem", &own.key_pem).into()],
        tls_client_ca: Some(folder.write("clients.pem", clients.pem()).into()),
        tls_client_auth: Some(ClientAuth::Optional),
        reactors: Some(2),
        connections_max: Some(100),
        drain_time: Duration::ZERO,
        close_timeout: Duration::from_millis(100),
        ..Config::default()
    };
    let server = server::Server::start(&config, |_| Greeter).unwrap();
    let address = server.tls_addresses()[0];
    let who = |config: ClientConfig| {
        let config = Arc::new(config);
        [false, true].map(|again| {
            let client = Client::connect(address, Arc::clone(&config), "localhost").unwrap();
            let mut client = client.upgraded("/");
            client.send(TEXT, b"who am I?");
            let (_, answer) = client.receive().unwrap();
            let kind = client.tls().handshake_kind();
            assert_eq!(kind == Some(HandshakeKind::Resumed), again);
            String::from_utf8(answer).unwrap()
        })
    };
    for version in VERSIONS {
        let pair = device(&clients, "device 17");
        let length = pair.certificate.len();
        for (shown, expected) in [
            (None, "None 0 true".to_owned()),
            (Some(&pair), format!("Some(\"CN=device 17\") {length} true")),
        ] {
            let mut config = client::config(&authority, &[version], shown);
            config.resumption = Resumption::in_memory_sessions(8);
            assert_eq!(who(config), [expected.clone(), expected], "{version:?}");
        }
    }
    server.shutdown();
    server.join().unwrap();
}

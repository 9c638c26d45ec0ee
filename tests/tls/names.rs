//! Which certificate a client is shown, and in which forms certificates and keys may come.

use std::process::Command;

use rustls::{
    SignatureScheme, SupportedProtocolVersion,
    version::{TLS12, TLS13},
};

use crate::{
    authority::{Authority, ECDSA, ED25519, Folder, Order, Pair, RSA},
    client::{Client, Lenient},
    server::{Server, Setup, is_warning},
};

const ANY: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// What is shown to a client that asks for this name.
#[track_caller]
fn shown(server: &Server, client: Lenient, versions: &Versions, name: &str) -> Vec<u8> {
    let config = client.config(versions);
    let mut client = Client::connect(server.address, config, name).unwrap();
    client.echo_of_health();
    client.tls().peer_certificates().unwrap()[0].to_vec()
}

type Versions = [&'static SupportedProtocolVersion];

#[track_caller]
fn expect_shown(server: &Server, name: &str, pair: &Pair) {
    let seen = shown(server, Lenient::default(), ANY, name);
    assert!(
        seen == *pair.certificate,
        "the wrong certificate for {name}"
    );
}

#[test]
fn a_certificate_is_chosen_by_the_name_that_is_asked_for() {
    let setup = Setup::new();
    let names = ["first.test", "second.test", "*.wild.test", "deep.wild.test"];
    let mut pairs = Vec::new();
    for (number, name) in names.into_iter().enumerate() {
        let pair = setup.authority.pair(name);
        setup.store(&format!("{number}-"), &pair);
        pairs.push(pair);
    }
    let server = setup.show(&["0-", "1-", "2-", "3-"]).start();
    let cases = [
        ("first.test", 0),
        ("second.test", 1),
        ("SECOND.Test", 1),
        ("any.wild.test", 2),
        ("Other.WILD.test", 2),
        ("deep.wild.test", 3),
        // A wildcard is one label, and the name itself is none.
        ("two.labels.wild.test", 0),
        ("wild.test", 0),
        // Who asks for a stranger, or by number, gets the first.
        ("stranger.test", 0),
        ("127.0.0.1", 0),
    ];
    for (name, number) in cases {
        expect_shown(&server, name, &pairs[number]);
    }
    server.stop();
}

#[test]
fn rsa_beside_ecdsa_is_chosen_by_what_the_client_can_verify() {
    use SignatureScheme as Scheme;
    let setup = Setup::new();
    let order = |algorithm| Order {
        algorithm,
        ..Order::default()
    };
    let ecdsa = setup.authority.sign(&order(ECDSA));
    let rsa = setup.authority.sign(&order(RSA));
    setup.store("ecdsa-", &ecdsa);
    setup.store("rsa-", &rsa);
    let other = setup.authority.pair("other.test");
    setup.store("other-", &other);
    let server = setup.show(&["ecdsa-", "rsa-", "other-"]).start();
    let elliptic = vec![Scheme::ECDSA_NISTP256_SHA256];
    let old = vec![
        Scheme::RSA_PSS_SHA256,
        Scheme::RSA_PSS_SHA512,
        Scheme::RSA_PKCS1_SHA256,
    ];
    for version in ANY {
        for name in ["localhost", "stranger.test"] {
            for (schemes, pair) in [(&elliptic, &ecdsa), (&old, &rsa)] {
                let client = Lenient(schemes.clone());
                let seen = shown(&server, client, &[version], name);
                assert!(seen == *pair.certificate, "{version:?} {name} {schemes:?}");
            }
        }
        // Nothing fits: an alert and no more.
        let client = Lenient(old.clone()).config(&[version]);
        assert!(Client::connect(server.address, client, "other.test").is_err());
    }
    server.stop();
}

#[test]
fn keys_come_in_every_form_that_is_in_use() {
    let folder = Folder::new();
    let file = |name: &str| folder.path(name);
    let lines = [
        // SEC1, with and without the block of parameters that OpenSSL puts before it.
        format!("ecparam -name prime256v1 -genkey -out {}", file("sec1")),
        format!(
            "ecparam -name secp384r1 -genkey -noout -out {}",
            file("p384")
        ),
        format!("genrsa -traditional -out {} 2048", file("pkcs1")),
        format!(
            "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072 -out {}",
            file("pkcs8")
        ),
        format!("genpkey -algorithm ED25519 -out {}", file("ed25519")),
    ];
    for line in lines {
        openssl(&line);
    }
    for key in ["sec1", "p384", "pkcs1", "pkcs8", "ed25519"] {
        let setup = Setup::new();
        openssl(&format!(
            "req -x509 -key {} -out {} -days 2 -subj /CN=forms -addext \
             subjectAltName=DNS:localhost",
            file(key),
            setup.folder.path("cert.pem"),
        ));
        let text = std::fs::read(file(key)).unwrap();
        setup.folder.write("key.pem", text);
        let server = setup.start();
        let config = Lenient::default().config(ANY);
        let client = Client::connect(server.address, config, "localhost");
        client
            .unwrap_or_else(|error| panic!("{key}: {error}"))
            .upgraded("/echo")
            .close();
        server.stop();
    }
}

#[test]
fn files_may_be_untidy() {
    let authority = Authority::new();
    let pair = authority.sign(&Order {
        algorithm: ED25519,
        ..Order::default()
    });
    let (certificate, key) = (&pair.certificate_pem, &pair.key_pem);
    let noted = format!("Bag Attributes\n    friendlyName: a\n\n{certificate}\n\n# the end");
    let windows = certificate.replace('\n', "\r\n");
    let joined = format!("{key}{certificate}{}", authority.pem());
    for (name, text, key) in [
        ("noted", &noted, key.clone()),
        ("windows", &windows, key.replace('\n', "\r\n")),
        ("joined", &joined, joined.clone()),
        (
            "no last line end",
            &certificate.trim_end().to_owned(),
            key.trim_end().to_owned(),
        ),
    ] {
        let setup = Setup::new();
        setup.folder.write("cert.pem", text);
        setup.folder.write("key.pem", key);
        let server = setup.start();
        assert!(server.logged("error").is_empty(), "{name}");
        expect_shown(&server, "localhost", &pair);
    }
}

#[test]
fn a_chain_is_shown_whole() {
    let setup = Setup::new();
    let pair = setup.authority.pair("localhost");
    let chain = format!("{}{}", pair.certificate_pem, setup.authority.pem());
    setup.folder.write("cert.pem", chain);
    setup.folder.write("key.pem", &pair.key_pem);
    let server = setup.start();
    let mut client = server.connect();
    let shown = client.tls().peer_certificates().unwrap();
    assert_eq!(shown.len(), 2);
    assert_eq!(shown[1], server.authority.certificate());
}

#[test]
fn a_self_signed_certificate_is_for_this_machine_and_said_to_be() {
    let server = Setup::new()
        .set("TLS_CERT", "")
        .set("TLS_KEY", "")
        .set("TLS_SELF_SIGNED", "true")
        .start();
    let warning = server.expect_log("TIDEMILL_TLS_SELF_SIGNED", 1);
    assert!(is_warning(&warning[0]), "{warning:?}");
    let config = Lenient::default().config(ANY);
    let mut client = Client::connect(server.address, config, "localhost").unwrap();
    let leaf = client.tls().peer_certificates().unwrap()[0].clone();
    client.upgraded("/echo").close();
    // Who puts it among the roots can use it by each of its names.
    let mut roots = rustls::RootCertStore::empty();
    roots.add(leaf.clone()).unwrap();
    let trusting = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    for name in ["localhost", "127.0.0.1", "::1"] {
        Client::connect(server.address, trusting.clone(), name).unwrap();
    }
    let left = server.metric("tls_certificate_expiry_seconds");
    assert!((left / 86_400.0 - 365.0).abs() < 1.0, "{left}");
    server.signal("HUP");
    server.expect_log("certificate loaded", 1);
    let config = Lenient::default().config(ANY);
    Client::connect(server.address, config, "localhost")
        .unwrap()
        .upgraded("/echo")
        .close();
    server.stop();
}

#[track_caller]
pub fn openssl(line: &str) -> String {
    let done = Command::new("openssl")
        .args(line.split_whitespace())
        .output();
    let done = done.expect("openssl is needed");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "openssl {line}: {said}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

impl Client {
    /// A request, so that the server has seen the end of the handshake, too.
    #[track_caller]
    fn echo_of_health(&mut self) {
        use std::io::Write;
        self.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .unwrap();
        let (head, _) = crate::socket::answer(self).unwrap();
        assert!(head.contains(" 200 "), "{head}");
    }
}

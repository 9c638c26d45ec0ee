//! `openssl s_client`, which can do what rustls will not: old versions, weak ciphers,
//! renegotiation.

use std::{
    io::{Read, Write},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::{
    authority::{Order, RSA},
    bystanders::undisturbed,
    outside::PATIENCE,
    server::{Server, Setup},
};

const REQUEST: &str = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

struct Session {
    child: Child,
    output: mpsc::Receiver<Vec<u8>>,
    said: String,
}

impl Session {
    fn start(server: &Server, args: &str) -> Self {
        let root = server.folder.write("root.pem", server.authority.pem());
        let mut child = Command::new("openssl")
            .args([
                "s_client",
                "-connect",
                &server.address.to_string(),
                "-CAfile",
                &root,
            ])
            .args(["-verify_return_error"])
            .args(args.split_whitespace())
            .args(if args.contains("-noservername") {
                &[][..]
            } else {
                &["-servername", "localhost"]
            })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl is needed");
        let (sender, output) = mpsc::channel();
        for pipe in [
            Box::new(child.stdout.take().unwrap()) as Box<dyn Read + Send>,
            Box::new(child.stderr.take().unwrap()),
        ] {
            let (mut pipe, sender) = (pipe, sender.clone());
            thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = pipe.read(&mut bytes) {
                    if sender.send(bytes[..count].to_vec()).is_err() {
                        return;
                    }
                }
            });
        }
        Self {
            child,
            output,
            said: String::new(),
        }
    }

    fn send(&mut self, text: &str) {
        // It may have ended already; what it said tells.
        let _ = self
            .child
            .stdin
            .as_mut()
            .unwrap()
            .write_all(text.as_bytes());
    }

    /// Reads until one of these was said, or the program has ended.
    fn until(&mut self, parts: &[&str]) -> bool {
        loop {
            if parts.iter().any(|part| self.said.contains(part)) {
                return true;
            }
            match self.output.recv_timeout(PATIENCE) {
                Ok(bytes) => self.said += &String::from_utf8_lossy(&bytes),
                Err(_) => return false,
            }
        }
    }

    /// All that it says until it ends.
    fn end(mut self) -> String {
        self.until(&[]);
        std::mem::take(&mut self.said)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn served(server: &Server, args: &str) -> String {
    let mut session = Session::start(server, args);
    session.send(REQUEST);
    let said = session.end();
    assert!(said.contains(r#"{"status":"healthy"}"#), "{args}: {said}");
    said
}

#[track_caller]
fn refused(server: &Server, args: &str) -> String {
    let mut session = Session::start(server, args);
    session.send(REQUEST);
    let said = session.end();
    assert!(!said.contains("HTTP/1.1"), "{args}: {said}");
    assert!(said.contains("alert"), "{args}: no alert in {said}");
    said
}

fn both_kinds() -> Server {
    let setup = Setup::new();
    let rsa = setup.authority.sign(&Order {
        algorithm: RSA,
        ..Order::default()
    });
    setup.store("rsa-", &rsa);
    setup.show(&["", "rsa-"]).start()
}

#[test]
fn versions_1_2_and_1_3_are_served() {
    let server = both_kinds();
    let said = served(&server, "-tls1_3 -alpn http/1.1");
    assert!(said.contains("New, TLSv1.3"), "{said}");
    assert!(said.contains("ALPN protocol: http/1.1"), "{said}");
    assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
    let said = served(&server, "-tls1_2 -alpn h2,http/1.1");
    assert!(said.contains("TLSv1.2"), "{said}");
    assert!(said.contains("ALPN protocol: http/1.1"), "{said}");
    assert!(said.contains("Secure Renegotiation IS supported"), "{said}");
    // Other groups, one of which asks for a second hello; the certificates by their kind.
    for args in [
        "-tls1_3 -groups P-256",
        "-tls1_3 -groups P-384:X25519",
        "-tls1_3 -groups P-521:X25519",
        "-tls1_3 -sigalgs RSA-PSS+SHA256",
        "-tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256",
        "-tls1_2 -cipher ECDHE-ECDSA-CHACHA20-POLY1305",
        "-tls1_3 -ciphersuites TLS_CHACHA20_POLY1305_SHA256",
        "-max_send_frag 512 -split_send_frag 512",
        "-no_ticket",
        "-noservername",
    ] {
        served(&server, args);
    }
    server.stop();
}

#[test]
fn what_is_old_or_weak_is_refused() {
    let server = both_kinds();
    // Security level 0 lets the client offer all that it was built with.
    let weak = "@SECLEVEL=0";
    for args in [
        format!("-tls1 -cipher ALL:{weak}"),
        format!("-tls1_1 -cipher ALL:{weak}"),
        format!("-tls1_2 -cipher AES128-SHA:{weak}"),
        format!("-tls1_2 -cipher AES256-GCM-SHA384:{weak}"),
        format!("-tls1_2 -cipher ECDHE-RSA-AES128-SHA256:{weak}"),
        format!("-tls1_2 -cipher ECDHE-ECDSA-AES256-SHA:{weak}"),
        format!("-tls1_2 -cipher DHE-RSA-AES128-GCM-SHA256:{weak}"),
        format!("-tls1_2 -cipher aNULL:eNULL:{weak}"),
        format!("-tls1_2 -cipher PSK:{weak} -psk 0123456789"),
        format!("-tls1_2 -sigalgs RSA+SHA1:ECDSA+SHA1 -cipher ALL:{weak}"),
        "-tls1_3 -ciphersuites TLS_AES_128_CCM_SHA256".to_owned(),
        "-alpn h2".to_owned(),
        "-alpn http/1.0".to_owned(),
    ] {
        refused(&server, &args);
    }
    assert!(server.handshakes("full") < 0.5);
    server.stop();
}

#[test]
fn sessions_are_resumed_by_tickets_of_both_versions() {
    let server = both_kinds();
    for version in ["-tls1_2", "-tls1_3"] {
        let file = server.folder.path(&format!("session{version}"));
        served(&server, &format!("{version} -sess_out {file}"));
        let said = served(&server, &format!("{version} -sess_in {file}"));
        assert!(said.contains("Reused, TLSv1"), "{version}: {said}");
        // Once more: in TLS 1.3 a ticket may be used again, if its owner does not mind.
        served(&server, &format!("{version} -sess_in {file}"));
    }
    assert!(server.handshakes("resumed") > 1.5);
}

#[test]
fn renegotiation_does_not_happen() {
    undisturbed(Server::start(), |server| {
        let mut session = Session::start(server, "-tls1_2");
        assert!(session.until(&["Verify return code"]), "{}", session.said);
        session.send("R\n");
        // It says so, and then that the other side did not want to.
        assert!(session.until(&["RENEGOTIATING"]), "{}", session.said);
        let told = session.until(&["no renegotiation", "no_renegotiation", "alert", "closed"]);
        assert!(told, "{}", session.said);
        assert!(!session.said.contains("depth=1\nverify return:1\ndepth=1"));
    });
}

#[test]
fn new_keys_are_exchanged_when_openssl_asks() {
    undisturbed(Server::start(), |server| {
        let mut session = Session::start(server, "-tls1_3");
        assert!(session.until(&["Verify return code"]), "{}", session.said);
        // `k` changes ours, `K` wants the server's changed as well.
        for (number, letter) in ["k\n", "K\n", "K\n", "k\n"].into_iter().enumerate() {
            session.send(letter);
            let count = |session: &Session| session.said.matches("KEYUPDATE").count();
            while count(&session) <= number {
                let bytes = session.output.recv_timeout(PATIENCE);
                let bytes = bytes.unwrap_or_else(|_| panic!("{}", session.said));
                session.said += &String::from_utf8_lossy(&bytes);
            }
        }
        session.send(REQUEST);
        assert!(
            session.until(&[r#"{"status":"healthy"}"#]),
            "{}",
            session.said
        );
    });
}

#[test]
fn early_data_is_refused_and_the_request_served_all_the_same() {
    let server = Server::start();
    let file = server.folder.path("session");
    served(&server, &format!("-tls1_3 -sess_out {file}"));
    let early = server.folder.write("early", REQUEST);
    let mut session = Session::start(
        &server,
        &format!("-tls1_3 -sess_in {file} -early_data {early}"),
    );
    session.send(REQUEST);
    let said = session.end();
    assert!(!said.contains("Early data was accepted"), "{said}");
    assert!(said.contains(r#"{"status":"healthy"}"#), "{said}");
}

/// As scripts do it: the request, and the end of the input at once.
#[test]
fn a_request_from_a_pipe_is_answered() {
    let server = Server::start();
    for _ in 0..10 {
        let mut session = Session::start(&server, "-quiet");
        session.send(REQUEST);
        thread::park_timeout(Duration::ZERO);
        drop(session.child.stdin.take());
        let answered = session.until(&[r#"{"status":"healthy"}"#]);
        assert!(answered, "{}", session.said);
    }
}

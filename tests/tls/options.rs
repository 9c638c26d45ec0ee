//! Configurations that cannot work: each is refused with the variable and the remedy, and nothing
//! that is secret is ever printed.

use std::process::Output;

use crate::{
    authority::{Authority, Order, pem},
    server::{Server, Setup},
    socket::noise,
};

/// `serve` and `check` both refuse this with one line that names the variable and the remedy.
#[track_caller]
fn expect_refused(setup: &Setup, variable: &str, remedy: &str) {
    for args in [&[][..], &["check"]] {
        let Output {
            status,
            stderr,
            stdout,
        } = setup.finish(args);
        let error = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(2), "{args:?}: {error}");
        let lines: Vec<_> = error
            .lines()
            .filter(|line| line.starts_with("error: "))
            .collect();
        assert_eq!(lines.len(), 1, "{error}");
        assert!(
            lines[0].contains(&format!("TIDEMILL_{variable}")),
            "{args:?}: {error}"
        );
        assert!(lines[0].contains(remedy), "{args:?}: {remedy} in {error}");
        expect_no_secrets(
            setup,
            &format!("{error}{}", String::from_utf8_lossy(&stdout)),
        );
    }
}

/// Nothing of the key is in it: neither as text nor as numbers of its bytes.
#[track_caller]
fn expect_no_secrets(setup: &Setup, said: &str) {
    for file in ["key.pem", "secret.pem"] {
        let Ok(key) = std::fs::read_to_string(setup.folder.path(file)) else {
            continue;
        };
        let body: String = key
            .lines()
            .filter(|line| !line.starts_with("-----"))
            .collect();
        let body = if body.is_empty() { key } else { body };
        // What all keys of its kind begin with is no secret.
        let secret = body.get(body.len() / 2..body.len() / 2 + 12);
        let Some(secret) = secret else { continue };
        assert!(!said.contains(secret), "{said}");
        let numbers: Vec<String> = secret.bytes().map(|byte| byte.to_string()).collect();
        assert!(
            !said.contains(&numbers.join(", ")),
            "the bytes of a key in {said}"
        );
    }
}

#[test]
fn options_that_do_not_fit_together_name_variable_and_remedy() {
    let setup = || Setup::new();
    expect_refused(&setup().set("TLS_KEY", ""), "TLS_KEY", "one key for each");
    expect_refused(&setup().set("TLS_CERT", ""), "TLS_CERT", "one key for each");
    let two = setup().set("TLS_CERT", "@/cert.pem,@/other.pem");
    expect_refused(&two, "TLS_KEY", "same order");
    let twice = setup().set("TLS_CERT", "@/cert.pem,@/cert.pem");
    expect_refused(&twice, "TLS_CERT", "write it once");
    let none = setup().set("TLS_CERT", "").set("TLS_KEY", "");
    expect_refused(&none, "TLS_CERT", "TIDEMILL_TLS_SELF_SIGNED");
    let silent = setup().set("LISTEN", "off").set("TLS_LISTEN", "");
    expect_refused(&silent, "LISTEN", "TIDEMILL_TLS_LISTEN");
    let silent = setup().set("LISTEN", "off").set("TLS_LISTEN", "off");
    expect_refused(&silent, "LISTEN", "TIDEMILL_TLS_LISTEN");
    let both = setup().set("TLS_SELF_SIGNED", "true");
    expect_refused(&both, "TLS_SELF_SIGNED", "unset");
    let same = setup()
        .set("LISTEN", "127.0.0.1:1")
        .set("TLS_LISTEN", "127.0.0.1:1");
    expect_refused(&same, "TLS_LISTEN", "port of its own");
}

/// Who asks for certificates of clients and gets none would believe that strangers are kept out.
#[test]
fn asking_clients_for_certificates_needs_an_authority() {
    for how in ["optional", "required"] {
        let setup = Setup::new().set("TLS_CLIENT_AUTH", how);
        expect_refused(&setup, "TLS_CLIENT_AUTH", "TIDEMILL_TLS_CLIENT_CA");
    }
}

#[test]
fn values_that_make_no_sense_name_what_is_allowed() {
    for (name, value, remedy) in [
        ("TLS_LISTEN", "localhost", "0.0.0.0:7443"),
        ("TLS_CLIENT_AUTH", "perhaps", "optional"),
        ("TLS_SELF_SIGNED", "maybe", "true"),
        ("TLS_RELOAD_INTERVAL", "30", "30s"),
        ("TLS_RELOAD_INTERVAL", "1ms", "1s"),
    ] {
        expect_refused(&Setup::new().set(name, value), name, remedy);
    }
}

#[test]
fn files_that_are_no_good_name_file_variable_and_remedy() {
    let pair = Authority::new().pair("localhost");
    let missing = Setup::new().set("TLS_CERT", "@/nowhere.pem");
    expect_refused(&missing, "TLS_CERT", "nowhere.pem");
    let missing = Setup::new().set("TLS_KEY", "@/nowhere.pem");
    expect_refused(&missing, "TLS_KEY", "nowhere.pem");
    let folder = Setup::new().set("TLS_CERT", "@/");
    expect_refused(&folder, "TLS_CERT", "name a file");
    let setup = Setup::new();
    setup.folder.write("cert.pem", "");
    expect_refused(&setup, "TLS_CERT", "no certificate");
    let setup = Setup::new();
    setup.folder.write("key.pem", "");
    expect_refused(&setup, "TLS_KEY", "no private key");
    let setup = Setup::new();
    setup.folder.write("key.pem", &pair.key_pem);
    expect_refused(&setup, "TLS_KEY", "belongs together");
    let setup = Setup::new();
    let old = setup.authority.sign(&Order {
        valid: (-10, -1),
        ..Order::default()
    });
    setup.store("", &old);
    expect_refused(&setup, "TLS_CERT", "renew");
    let setup = Setup::new();
    let early = setup.authority.sign(&Order {
        valid: (2, 10),
        ..Order::default()
    });
    setup.store("", &early);
    expect_refused(&setup, "TLS_CERT", "clock");
    let setup = Setup::new().set("TLS_CLIENT_CA", "@/nowhere.pem");
    expect_refused(&setup, "TLS_CLIENT_CA", "nowhere.pem");
    let setup = Setup::new().set("TLS_CLIENT_CA", "@/key.pem");
    expect_refused(&setup, "TLS_CLIENT_CA", "no certificate");
}

/// A key may be where it does not belong, or be mangled on its way. Its content stays unsaid.
#[test]
fn no_mistake_prints_a_key() {
    let swapped = Setup::new()
        .set("TLS_CERT", "@/key.pem")
        .set("TLS_KEY", "@/cert.pem");
    expect_refused(&swapped, "TLS_CERT", "no certificate");
    let pair = Authority::new().pair("localhost");
    let body: String = pair
        .key_pem
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect();
    let mangled = [
        // Its line ends were lost, or written as `\n`.
        pair.key_pem.replace('\n', ""),
        pair.key_pem.replace('\n', " "),
        pair.key_pem.replace('\n', "\\n"),
        // A letter that is none, a part that is missing, no last line.
        pair.key_pem.replacen(&body[60..62], "*!", 1),
        format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            &body[..101]
        ),
        pair.key_pem.rsplit_once("-----END").unwrap().0.to_owned(),
        pair.key_pem
            .replace("-----END PRIVATE KEY-----", &format!("-----BEGIN {body}")),
        pem("ENCRYPTED PRIVATE KEY", &noise(1, 200)),
        pem("PRIVATE KEY", &noise(2, 200)),
    ];
    for (number, text) in mangled.into_iter().enumerate() {
        for (variable, file) in [("TLS_KEY", "key.pem"), ("TLS_CERT", "cert.pem")] {
            let setup = Setup::new();
            setup.folder.write(file, &text);
            setup.folder.write("secret.pem", &pair.key_pem);
            let output = setup.finish(&[]);
            let error = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "case {number}: {error}");
            assert!(
                error.contains(&format!("TIDEMILL_{variable}")),
                "case {number}: {error}"
            );
            expect_no_secrets(&setup, &error);
        }
    }
}

#[test]
fn check_tells_the_certificates() {
    let output = Setup::new().finish(&["check"]);
    assert_eq!(output.status.code(), Some(0));
    let report = String::from_utf8(output.stdout).unwrap();
    for part in [
        "Certificates",
        "cert.pem",
        "localhost",
        "127.0.0.1",
        "days left",
    ] {
        assert!(report.contains(part), "{part} in {report}");
    }
    let setup = Setup::new();
    expect_no_secrets(&setup, &report);
}

#[test]
fn a_running_server_tells_no_key() {
    let server = Server::start();
    let key = std::fs::read_to_string(server.folder.path("key.pem")).unwrap();
    let line = key.lines().nth(1).unwrap().to_owned();
    server.signal("HUP");
    server.expect_log("certificate loaded", 1);
    assert!(server.logged(&line[30..50]).is_empty());
    assert!(!server.page("/metrics").contains(&line[30..50]));
    assert!(!server.banner.contains(&line[30..50]));
}

//! An application of one's own: which door a path has, who came in by it, and who shows a token
//! only afterwards.

use std::{net::IpAddr, sync::mpsc, time::Duration};

use serde_json::json;
use tidemill::{
    Accept, Caller, CloseCode, Config, ConnId, Failure, Handler, Incoming, Message, Peer, Reason,
    Refusal, Response, Upgrade, Verdict,
    config::{Network, Secret},
    handler::{Door, Revocation, TokenError},
};

use crate::{
    jwt::{Key, SECRET, claims, now, wait_for},
    site::{Site, config, ms},
    wire::{Answer, PATIENCE, Wire, upgrade},
};

#[derive(Debug)]
struct App {
    ends: mpsc::Sender<(u16, String)>,
}

/// Who came in, as the upgrade saw it.
#[derive(Debug)]
struct State {
    at_upgrade: String,
}

impl Handler for App {
    type State = State;

    fn door(&self, incoming: &Incoming<'_>) -> Result<Door, Refusal> {
        assert!(incoming.claims().is_none(), "nobody was asked yet");
        match incoming.request.path() {
            "/public" => Ok(Door::default().any_origin().without_token()),
            "/first" => Ok(Door::default().without_token()),
            "/any-origin" => Ok(Door::default().any_origin()),
            "/nowhere" => Err(Reason::UnknownPath.into()),
            _ => Ok(Door::default()),
        }
    }

    fn upgrade(&mut self, incoming: &Incoming<'_>, _: &Upgrade<'_>) -> Verdict<State> {
        let subject = incoming
            .claims()
            .and_then(|claims| claims.subject.as_deref());
        let role = incoming
            .claims()
            .and_then(|claims| claims.payload.get("role"));
        if incoming.request.path() == "/members" && role != Some(&json!("member")) {
            let body = "{\"error\":\"for members\"}";
            return Verdict::Answer(Response::new(403).body("application/json", body));
        }
        let remote = incoming.remote().map(|remote| remote.ip());
        let at_upgrade = format!("{subject:?} {remote:?}");
        Accept::new(State { at_upgrade }).into()
    }

    fn message(
        &mut self,
        peer: &mut Peer<'_>,
        state: &mut State,
        message: Message<'_>,
    ) -> Result<(), Failure> {
        let Message::Text(text) = message else {
            return Ok(());
        };
        match text.split_once(' ') {
            Some(("auth", token)) => match peer.authenticate(token) {
                Ok(claims) => peer.send_text(&format!("{:?}", claims.subject)),
                Err(error) => {
                    assert!(!error.to_string().contains(token));
                    peer.send_text(&format!("{error:?}"));
                }
            },
            _ if text == "who" => {
                let who = peer.identity().map(|identity| {
                    let (subject, id) = (identity.subject, identity.id);
                    format!("{subject:?} {id:?} {:?}", identity.expires)
                });
                peer.send_text(&format!("{who:?}"));
            }
            _ if text == "upgrade" => peer.send_text(&state.at_upgrade),
            _ if text == "remote" => peer.send_text(&format!("{:?}", peer.remote())),
            _ => peer.send_text(text),
        }
        Ok(())
    }

    fn close(&mut self, _: ConnId, _: State, code: CloseCode, reason: &str) {
        // The test may have ended before the server.
        let _ = self.ends.send((code.into(), reason.to_owned()));
    }

    fn request(
        &mut self,
        _: &mut Caller<'_>,
        incoming: &Incoming<'_>,
        _: &[u8],
    ) -> tidemill::Answer {
        let subject = incoming.request.path().strip_prefix("/revoke/");
        let Some(subject) = subject else {
            return Response::new(200).body("text/plain", "plain").into();
        };
        let revocation = Revocation::Subject {
            subject: subject.into(),
            expires: None,
            at: now(),
        };
        match incoming.revoke(revocation) {
            Ok(()) => Response::new(200).body("text/plain", "revoked").into(),
            Err(error) => Response::new(429)
                .body("text/plain", error.to_string())
                .into(),
        }
    }
}

struct Running {
    site: Site,
    ends: mpsc::Receiver<(u16, String)>,
}

fn guarded() -> Config {
    Config {
        token_secret: Some(Secret::new(SECRET)),
        token_leeway: Duration::ZERO,
        ..config()
    }
}

fn run(config: &Config) -> Running {
    let (sender, ends) = mpsc::channel();
    let site = Site::of(config, move |_| App {
        ends: sender.clone(),
    });
    Running { site, ends }
}

fn signed(claims: &serde_json::Value) -> String {
    Key::hmac(SECRET).sign(claims)
}

impl Running {
    #[track_caller]
    fn ask(&self, path: &str, lines: &str) -> (Wire, Answer) {
        let mut wire = Wire::connect(self.site.address);
        wire.send(upgrade(path, lines));
        let answer = wire.answer();
        (wire, answer)
    }

    #[track_caller]
    fn open(&self, path: &str, token: Option<&str>) -> Wire {
        let lines = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
        let (wire, answer) = self.ask(path, &lines.unwrap_or_default());
        assert_eq!(answer.status, 101, "{answer:?}");
        wire
    }

    #[track_caller]
    fn refused(&self, path: &str, lines: &str, status: u16) {
        let (mut wire, answer) = self.ask(path, lines);
        assert_eq!(answer.status, status, "{path} {lines}: {answer:?}");
        wire.expect_end();
    }

    #[track_caller]
    fn ended(&self) -> (u16, String) {
        self.ends.recv_timeout(PATIENCE).expect("nobody left")
    }
}

/// Says this, and hears that.
#[track_caller]
fn hears(wire: &mut Wire, say: &str, hear: &str) {
    wire.text(say);
    wire.expect_text(hear);
}

const EVIL: &str = "Origin: https://evil.example\r\n";

#[test]
fn the_usual_door_asks_for_an_origin_and_a_token() {
    let app = run(&guarded());
    let token = signed(&claims("anna"));
    let bearer = format!("Authorization: Bearer {token}\r\n");
    app.refused("/", "", 401);
    app.refused("/", &format!("{EVIL}{bearer}"), 403);
    app.refused("/", &format!("Authorization: Bearer x{token}\r\n"), 401);
    let mut wire = app.open("/", Some(&token));
    hears(&mut wire, "upgrade", "Some(\"anna\") Some(127.0.0.1)");
    wire.close(1000);
    assert_eq!(app.ended().0, 1000);
}

#[test]
fn a_path_may_have_another_door() {
    let app = run(&guarded());
    let token = signed(&claims("anna"));
    // Who asks for nothing does not look at what is shown.
    for lines in ["", EVIL, "Authorization: Bearer nonsense\r\n"] {
        let (mut wire, answer) = app.ask("/public", lines);
        assert_eq!(answer.status, 101, "{answer:?}");
        hears(&mut wire, "who", "None");
        hears(&mut wire, "upgrade", "None Some(127.0.0.1)");
    }
    app.refused("/first", EVIL, 403);
    app.open("/first", None);
    app.refused("/any-origin", EVIL, 401);
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let (_, answer) = app.ask("/any-origin", &format!("{EVIL}{bearer}"));
    assert_eq!(answer.status, 101);
    app.refused("/nowhere", &bearer, 404);
    app.refused("/nowhere", EVIL, 404);
    let series = r#"handshakes_refused_total{status="404",reason="unknown_path"}"#;
    app.site.expect_metric(series, 2);
    let series = r#"handshakes_refused_total{status="403",reason="origin"}"#;
    app.site.expect_metric(series, 1);
}

/// 401 is for those whom nobody knows, 403 for those who are known and may not.
#[test]
fn what_a_token_says_decides_what_its_bearer_may() {
    let app = run(&guarded());
    let guest = signed(&json!({"sub": "guest", "exp": now() + 600, "role": "guest"}));
    let member = signed(&json!({"sub": "anna", "exp": now() + 600, "role": "member"}));
    app.refused("/members", "", 401);
    app.refused(
        "/members",
        &format!("Authorization: Bearer {guest}\r\n"),
        403,
    );
    app.open("/members", Some(&member)).close(1000);
}

#[test]
fn a_connection_belongs_to_whom_its_token_names() {
    let app = run(&guarded());
    let exp = now() + 600;
    let token = signed(&json!({"sub": "anna", "jti": "one", "exp": exp}));
    let mut wire = app.open("/", Some(&token));
    let who = format!("Some(\"anna\") Some(\"one\") Some({exp})");
    hears(&mut wire, "who", &format!("{:?}", Some(who)));
    let mut nobody = app.open("/", Some(&signed(&json!({}))));
    hears(&mut nobody, "who", &format!("{:?}", Some("None None None")));
    // The next one on the same slot is nobody, until it says who it is.
    wire.close(1000);
    nobody.close(1000);
    for _ in 0..5 {
        let mut next = app.open("/first", None);
        hears(&mut next, "who", "None");
        next.close(1000);
    }
}

#[test]
fn the_first_message_may_bring_the_token() {
    let app = run(&guarded());
    let mut wire = app.open("/first", None);
    hears(&mut wire, "who", "None");
    let exp = now() + 3;
    let token = signed(&json!({"sub": "anna", "exp": exp}));
    for (wrong, error) in [
        ("nonsense".to_owned(), TokenError::Malformed),
        (format!("{token}x"), TokenError::Signature),
        (signed(&json!({"exp": now() - 60})), TokenError::Expired),
        (signed(&json!({"nbf": now() + 60})), TokenError::NotYet),
        (Key::hmac("other").sign(&json!({})), TokenError::Signature),
    ] {
        hears(&mut wire, &format!("auth {wrong}"), &format!("{error:?}"));
        hears(&mut wire, "who", "None");
    }
    hears(&mut wire, &format!("auth {token}"), "Some(\"anna\")");
    let who = format!("Some(\"anna\") None Some({exp})");
    hears(&mut wire, "who", &format!("{:?}", Some(who)));
    // And with it comes its end.
    assert_eq!(wire.expect_close(1008), "token expired");
    assert!(now() >= exp);
    wire.close_answered(1008);
    assert_eq!(app.ended(), (1008, "token expired".to_owned()));
}

#[test]
fn a_new_token_before_the_old_one_ends_keeps_the_connection() {
    let app = run(&guarded());
    let first = now() + 2;
    let mut wire = app.open("/", Some(&signed(&json!({"sub": "anna", "exp": first}))));
    let mut forgets = app.open("/", Some(&signed(&json!({"sub": "berta", "exp": first}))));
    let second = now() + 7;
    let fresh = signed(&json!({"sub": "anna", "exp": second}));
    hears(&mut wire, &format!("auth {fresh}"), "Some(\"anna\")");
    // One that is no good changes nothing, neither for better nor for worse.
    let bad = signed(&json!({"sub": "berta", "exp": now() - 60}));
    hears(&mut forgets, &format!("auth {bad}"), "Expired");
    assert_eq!(forgets.expect_close(1008), "token expired");
    assert!(now() >= first);
    wait_for(first + 2);
    hears(&mut wire, "still", "still");
    // And once more, to one without an end; then to one that ends soon.
    let endless = signed(&json!({"sub": "anna"}));
    hears(&mut wire, &format!("auth {endless}"), "Some(\"anna\")");
    wait_for(second + 2);
    hears(&mut wire, "still", "still");
    let soon = now() + 2;
    let last = signed(&json!({"sub": "anna", "exp": soon}));
    hears(&mut wire, &format!("auth {last}"), "Some(\"anna\")");
    assert_eq!(wire.expect_close(1008), "token expired");
    assert!(now() >= soon);
}

/// A browser sends the cookie along whichever page it is that connects: where every page may, it
/// proves nothing.
#[test]
fn a_cookie_does_not_count_where_pages_of_any_origin_may_connect() {
    let app = run(&Config {
        token_cookie: Some("session".to_owned()),
        ..guarded()
    });
    let token = signed(&claims("anna"));
    let cookie = format!("Cookie: session={token}\r\n");
    let (_, answer) = app.ask("/", &cookie);
    assert_eq!(answer.status, 101, "{answer:?}");
    for path in ["/any-origin", "/any-origin?x=1"] {
        let (_, answer) = app.ask(path, &cookie);
        assert_eq!(answer.status, 401, "{answer:?}");
    }
    app.open("/any-origin", Some(&token));
}

/// Whoever came by one name and now goes by another is that other, also for those who revoke.
#[test]
fn a_new_token_replaces_the_old_identity() {
    let app = run(&guarded());
    let mut wire = app.open("/", Some(&signed(&claims("anna"))));
    hears(
        &mut wire,
        &format!("auth {}", signed(&claims("berta"))),
        "Some(\"berta\")",
    );
    let revoke = |subject: &str| {
        let mut wire = Wire::connect(app.site.address);
        wire.send(crate::wire::get(&format!("/revoke/{subject}")));
        assert_eq!(wire.answer().body, "revoked");
    };
    revoke("anna");
    hears(&mut wire, "still", "still");
    // A token that was revoked is no more good in a message than in a request.
    let before = signed(&json!({"sub": "anna", "iat": now() - 5, "exp": now() + 600}));
    hears(&mut wire, &format!("auth {before}"), "Revoked");
    app.refused("/", &format!("Authorization: Bearer {before}\r\n"), 401);
    hears(&mut wire, "still", "still");
    let mut first = app.open("/first", None);
    let same = signed(&claims("berta"));
    hears(&mut first, &format!("auth {same}"), "Some(\"berta\")");
    revoke("berta");
    for mut wire in [wire, first] {
        assert_eq!(wire.expect_close(1008), "token revoked");
    }
}

#[test]
fn without_a_key_every_token_is_one_too_many() {
    let app = run(&config());
    let mut wire = app.open("/", None);
    hears(&mut wire, "who", "None");
    hears(
        &mut wire,
        &format!("auth {}", signed(&claims("anna"))),
        "NoKeys",
    );
    hears(&mut wire, "still", "still");
    // What nobody can check is not looked at.
    app.open("/", Some("nonsense")).close(1000);
}

#[test]
fn an_application_learns_the_address_that_the_proxy_tells() {
    let trusted = vec![Network::parse("127.0.0.0/8").unwrap()];
    let app = run(&Config {
        trusted_proxies: trusted,
        ..config()
    });
    for (lines, address) in [
        ("X-Forwarded-For: 203.0.113.7\r\n", "203.0.113.7"),
        ("Forwarded: for=\"[2001:db8::7]:99\"\r\n", "2001:db8::7"),
        ("", "127.0.0.1"),
    ] {
        let (mut wire, answer) = app.ask("/", lines);
        assert_eq!(answer.status, 101);
        let address: IpAddr = address.parse().unwrap();
        hears(&mut wire, "upgrade", &format!("None Some({address})"));
        wire.text("remote");
        let said = String::from_utf8(wire.frame().payload).unwrap();
        assert!(said.contains(&address.to_string()), "{said}");
        wire.close(1000);
    }
}

/// A token that comes in a message ends the connection although nothing else ever happens to it.
#[test]
fn many_that_authenticate_later_all_end_in_time() {
    let app = run(&Config {
        reactors: Some(2),
        close_timeout: ms(500),
        ..guarded()
    });
    let exp = now() + 3;
    let token = signed(&json!({"sub": "anna", "exp": exp}));
    let mut wires: Vec<_> = (0..100).map(|_| app.open("/first", None)).collect();
    for wire in &mut wires {
        hears(wire, &format!("auth {token}"), "Some(\"anna\")");
    }
    for wire in &mut wires {
        assert_eq!(wire.expect_close(1008), "token expired");
        assert!(now() >= exp);
    }
}

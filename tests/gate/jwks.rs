//! Keys that are fetched: a JWK Set behind a URL, its server up, down, and out of its mind.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Instant,
};

use crate::{
    call::{Call, Outcome},
    guarded::Guarded,
    jwt::{Key, SECRET, claims, set_of},
    outside::{PATIENCE, wait_until},
};

/// What the server of keys does with whoever asks.
#[derive(Clone)]
enum Reply {
    Keys(String),
    Bytes(Vec<u8>),
    /// Takes the question, and says nothing.
    Nothing,
}

/// A server of keys, for the time of a test.
struct Keys {
    address: SocketAddr,
    reply: Arc<Mutex<Reply>>,
    questions: Arc<AtomicUsize>,
}

impl Keys {
    fn serve(reply: Reply) -> Self {
        Self::serve_at("127.0.0.1:0".parse().unwrap(), reply)
    }

    fn serve_at(address: SocketAddr, reply: Reply) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let keys = Self {
            address: listener.local_addr().unwrap(),
            reply: Arc::new(Mutex::new(reply)),
            questions: Arc::default(),
        };
        let (reply, questions) = (Arc::clone(&keys.reply), Arc::clone(&keys.questions));
        thread::spawn(move || {
            let mut kept = Vec::new();
            for stream in listener.incoming().map_while(Result::ok) {
                let reply = reply.lock().unwrap().clone();
                kept.extend(answer(stream, reply, &questions));
            }
        });
        keys
    }

    /// Where they are, with a part that is nobody's business.
    fn url(&self) -> String {
        format!("http://{}/keys.json?key={HIDDEN}", self.address)
    }

    fn set(&self, reply: Reply) {
        *self.reply.lock().unwrap() = reply;
    }

    fn questions(&self) -> usize {
        self.questions.load(Relaxed)
    }
}

/// Answers, or gives back the connection of one who waits for an answer.
fn answer(mut stream: TcpStream, reply: Reply, questions: &AtomicUsize) -> Option<TcpStream> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_exact(&mut byte).is_err() {
            return None;
        }
        head.push(byte[0]);
    }
    questions.fetch_add(1, Relaxed);
    let bytes = match reply {
        Reply::Nothing => return Some(stream),
        Reply::Bytes(bytes) => bytes,
        Reply::Keys(text) => ok(&text),
    };
    // Whoever hears enough may be gone before the end.
    let _ = stream.write_all(&bytes);
    None
}

fn ok(body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/jwk-set+json\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

const HIDDEN: &str = "the-part-of-the-url-that-is-a-secret";

fn of(key: &Key, kid: &str) -> Reply {
    Reply::Keys(set_of(&[key.jwk(Some(kid))]))
}

fn named(key: &Key, kid: &str) -> Call {
    Call::echo().bearer(&key.sign_kid(kid, &claims("anna")))
}

/// The status of what comes of a call: 101 for those who are let in.
fn status(gate: &Guarded, call: &Call) -> u16 {
    match call.ask(gate.address) {
        Outcome::Open(_) => 101,
        Outcome::Answered(answer) => answer.status,
        Outcome::Dropped => panic!("dropped"),
    }
}

#[track_caller]
fn expect_status(gate: &Guarded, call: &Call, wanted: u16) {
    wait_until(PATIENCE, || status(gate, call), |seen| *seen == wanted);
}

#[test]
fn keys_are_fetched_and_fetched_again_for_a_name_that_is_new() {
    let (old, new) = (Key::rsa(), Key::ec());
    let keys = Keys::serve(of(&old, "old"));
    let gate = Guarded::with(&[("TOKEN_JWKS_URL", &keys.url())]);
    expect_status(&gate, &named(&old, "old"), 101);
    let fetched = keys.questions();
    assert!(fetched >= 1);
    let mut inside = named(&old, "old").open(gate.address);

    // The interval is minutes; a token that names a new key is reason to ask before that.
    keys.set(of(&new, "new"));
    assert!([101, 401, 503].contains(&status(&gate, &named(&new, "new"))));
    expect_status(&gate, &named(&new, "new"), 101);
    assert!(keys.questions() > fetched);
    gate.refuses_token(&named(&old, "old"), "token_key");
    let reasons = ["token_algorithm", "token_key", "token_signature"];
    gate.refuses_token_somehow(&named(&old, "new"), &reasons);
    inside.echo(b"undisturbed");
    inside.close();
    assert!(gate.logged(HIDDEN).is_empty());
    gate.end();
}

/// A stranger who makes names up must not make the server ask for each of them.
#[test]
fn names_that_are_made_up_cause_few_questions() {
    let (own, forger) = (Key::ec(), Key::ec());
    let keys = Keys::serve(of(&own, "own"));
    let gate = Guarded::with(&[("TOKEN_JWKS_URL", &keys.url())]);
    expect_status(&gate, &named(&own, "own"), 101);
    let (before, began) = (keys.questions(), Instant::now());
    for number in 0..300 {
        let call = named(&forger, &format!("made-up-{number}"));
        assert_eq!(status(&gate, &call), 401);
    }
    let asked = keys.questions() - before;
    let seconds = began.elapsed().as_secs() as usize;
    assert!(asked <= 3 + 2 * seconds, "{asked} questions in {seconds} s");
    expect_status(&gate, &named(&own, "own"), 101);
    gate.end();
}

/// Nobody is let in on trust, and nobody is told that their token is bad.
#[test]
fn while_there_are_no_keys_yet_a_token_must_wait() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap();
    drop(port);
    let url = format!("http://{address}/keys.json?key={HIDDEN}");
    let gate = Guarded::with(&[("TOKEN_JWKS_URL", &url)]);
    let key = Key::ed();
    let call = named(&key, "one");
    let answer = gate.refuses(&call, 503, "token_keys");
    answer.retry_after();
    gate.refuses_token(&Call::echo(), "token_missing");
    assert_eq!(Call::get("/health").answered(gate.address).status, 200);
    gate.expect_said("TIDEMILL_TOKEN_JWKS_URL");
    assert!(gate.logged(HIDDEN).is_empty());

    let keys = Keys::serve_at(address, of(&key, "one"));
    expect_status(&gate, &call, 101);
    assert!(keys.questions() >= 1);
    gate.end();
}

#[test]
fn other_keys_are_good_while_those_of_the_url_are_not_there() {
    let keys = Keys::serve(Reply::Nothing);
    let gate = Guarded::with(&[
        ("TOKEN_JWKS_URL", &keys.url()),
        ("TOKEN_SECRET", SECRET),
        ("TOKEN_REQUIRED", "false"),
    ]);
    let signed = Call::echo().bearer(&Key::hmac(SECRET).sign(&claims("anna")));
    signed.open(gate.address).close();
    Call::echo().open(gate.address).close();
    gate.end();
}

#[test]
fn keys_stay_when_their_server_is_gone_or_out_of_its_mind() {
    let key = Key::ec();
    let keys = Keys::serve(of(&key, "one"));
    let gate = Guarded::with(&[("TOKEN_JWKS_URL", &keys.url())]);
    expect_status(&gate, &named(&key, "one"), 101);
    let mut asked = keys.questions();
    for wrong in [
        Reply::Keys("{\"keys\":".to_owned()),
        Reply::Bytes(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n".to_vec()),
        Reply::Keys("{}".to_owned()),
    ] {
        keys.set(wrong);
        // A new name makes it ask.
        let stranger = named(&Key::ec(), "unknown");
        let look = || {
            assert_eq!(status(&gate, &stranger), 401);
            keys.questions()
        };
        asked = wait_until(PATIENCE, look, |now| *now > asked);
        assert_eq!(status(&gate, &named(&key, "one")), 101);
    }
    gate.end();
}

/// Answers that are no keys: the server goes on, and takes them once they are.
#[test]
fn answers_that_make_no_sense_are_survived() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let elsewhere = "HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\
                     Content-Length: 0\r\n\r\n";
    let in_circles = "HTTP/1.1 302 Found\r\nLocation: /keys.json\r\nContent-Length: 0\r\n\r\n";
    let endless = format!("{chunked}{}", "10000\r\n".to_owned() + &" ".repeat(65536)).repeat(8);
    for (number, wrong) in [
        Reply::Bytes(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec()),
        Reply::Bytes(b"\x16\x03\x01 no HTTP at all".to_vec()),
        Reply::Bytes(Vec::new()),
        Reply::Keys(String::new()),
        Reply::Keys("[".repeat(100_000)),
        Reply::Keys(format!(
            "{{\"keys\":[],\"pad\":\"{}\"}}",
            "x".repeat(1 << 20)
        )),
        Reply::Keys("{\"keys\":\"none\"}".to_owned()),
        Reply::Keys("{\"keys\":[]}".to_owned()),
        Reply::Bytes(elsewhere.into()),
        Reply::Bytes(in_circles.into()),
        Reply::Bytes(endless.into_bytes()),
    ]
    .into_iter()
    .enumerate()
    {
        let (key, keys) = (Key::ec(), Keys::serve(wrong));
        let gate = Guarded::with(&[("TOKEN_JWKS_URL", &keys.url())]);
        wait_until(PATIENCE, || keys.questions(), |asked| *asked > 0);
        let call = named(&key, "one");
        let seen = status(&gate, &call);
        assert!([401, 503].contains(&seen), "{number}: {seen}");
        assert_eq!(Call::get("/health").answered(gate.address).status, 200);
        assert!(gate.logged(HIDDEN).is_empty(), "{number}");
        // One is enough to see that it gets over it.
        if number == 0 {
            keys.set(of(&key, "one"));
            expect_status(&gate, &call, 101);
        }
        gate.end();
    }
}

/// A server that hangs holds up nobody: neither those who come, nor the end.
#[test]
fn a_server_of_keys_that_says_nothing_holds_up_nobody() {
    let keys = Keys::serve(Reply::Nothing);
    let gate = Guarded::with(&[("TOKEN_JWKS_URL", &keys.url())]);
    wait_until(PATIENCE, || keys.questions(), |asked| *asked > 0);
    for _ in 0..20 {
        gate.refuses(&named(&Key::ed(), "one"), 503, "token_keys");
    }
    gate.end();
}

#[test]
fn keys_are_fetched_again_when_their_time_is_over() {
    let (old, new) = (Key::ec(), Key::ec());
    let keys = Keys::serve(of(&old, "one"));
    let gate = Guarded::with(&[
        ("TOKEN_JWKS_URL", &keys.url()),
        ("TOKEN_JWKS_INTERVAL", "10s"),
    ]);
    expect_status(&gate, &named(&old, "one"), 101);
    // The same name, so that nothing but time makes it ask.
    keys.set(of(&new, "one"));
    expect_status(&gate, &named(&new, "one"), 101);
    gate.refuses_token(&named(&old, "one"), "token_signature");
    gate.end();
}

//! Token keys that are published by their issuer: a JWK Set behind a URL.
//!
//! [`fetch`] blocks, for five seconds at most, and is called on a thread of its own; when and how
//! often is the caller's affair. What the other side sends is bounded in size and time. Plain HTTP
//! is for issuers on this machine: whoever can change the answer can sign tokens.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use thiserror::Error;
use ureq::{
    Agent,
    http::{HeaderMap, Uri, header::CACHE_CONTROL},
    tls::{Certificate, RootCerts, TlsConfig},
};

use crate::gate::token::Keys;

/// From looking up the name to the last byte.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Of the answer's body.
const BODY_BYTES_MAX: u64 = 256 * 1024;

/// Followed with https only, and only to https.
const REDIRECTS_MAX: u32 = 3;

const AGENT: &str = concat!("tidemill/", env!("CARGO_PKG_VERSION"));

/// Why keys were not fetched. It shows the URL without query and credentials.
#[derive(Debug, Error)]
#[error("{place}: {problem}")]
pub struct FetchError {
    place: String,
    problem: Problem,
}

#[derive(Debug, Error)]
enum Problem {
    #[error("write https://HOST/PATH, or http:// and a host of this machine, such as 127.0.0.1")]
    Url,
    #[error("this system knows no certificate authorities, install them (ca-certificates)")]
    NoAuthorities,
    #[error("the host is not known")]
    HostNotFound,
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    #[error("{0}")]
    Io(io::Error),
    #[error("status {0}")]
    Status(u16),
    #[error("a redirect, followed at most {REDIRECTS_MAX} times from https to https; give its end")]
    Redirect,
    #[error("more than {} KiB", BODY_BYTES_MAX / 1024)]
    TooLarge,
    #[error("not text")]
    NotText,
    #[error("{0}")]
    Keys(String),
    #[error("not an answer of HTTP, or the proxy of the environment refuses")]
    Http,
}

/// Gets the keys from a URL, and for how long they may be kept (RFC 9111, 5.2.2: `max-age`; zero
/// for `no-store` and `no-cache`), if the other side says.
///
/// Over https the certificate must be signed by an authority that this system knows, and the
/// proxy of the environment is used (`HTTPS_PROXY`, `NO_PROXY`).
///
/// # Errors
/// What was wrong with the URL, the connection or the answer.
pub fn fetch(url: &str) -> Result<(Keys, Option<Duration>), FetchError> {
    Fetch {
        timeout: TIMEOUT,
        authorities: known_authorities,
    }
    .run(url)
}

/// What differs in tests.
struct Fetch {
    timeout: Duration,
    authorities: fn() -> Vec<Certificate<'static>>,
}

impl Fetch {
    fn run(&self, url: &str) -> Result<(Keys, Option<Duration>), FetchError> {
        self.get(url).map_err(|problem| FetchError {
            place: place(url).to_owned(),
            problem,
        })
    }

    fn get(&self, url: &str) -> Result<(Keys, Option<Duration>), Problem> {
        let uri: Uri = url.parse().map_err(|_| Problem::Url)?;
        let agent = self.agent(&uri)?;
        let failed = |error| self.problem(error);
        let mut answer = agent.get(uri).call().map_err(failed)?;
        let status = answer.status();
        if status.is_redirection() {
            return Err(Problem::Redirect);
        }
        if status.as_u16() != 200 {
            return Err(Problem::Status(status.as_u16()));
        }
        let max_age = max_age(answer.headers());
        // The reader objects as soon as the limit is reached, not when it is exceeded.
        let body = answer.body_mut().with_config().limit(BODY_BYTES_MAX + 1);
        let body = body.read_to_vec().map_err(failed)?;
        let text = str::from_utf8(&body).map_err(|_| Problem::NotText)?;
        let keys = Keys::from_jwks(text);
        let keys = keys.map_err(|error| Problem::Keys(error.problem().to_owned()))?;
        Ok((keys, max_age))
    }

    fn agent(&self, uri: &Uri) -> Result<Agent, Problem> {
        let config = Agent::config_builder()
            .timeout_global(Some(self.timeout))
            .http_status_as_error(false)
            .user_agent(AGENT)
            .accept("application/jwk-set+json, application/json");
        let host = uri.host().ok_or(Problem::Url)?;
        // What is on this machine is asked directly.
        let config = match is_loopback(host) {
            true => config.proxy(None),
            false => config,
        };
        let config = match uri.scheme_str() {
            Some("https") => {
                let roots = (self.authorities)();
                if roots.is_empty() {
                    return Err(Problem::NoAuthorities);
                }
                let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
                let tls = TlsConfig::builder()
                    .root_certs(RootCerts::Specific(Arc::new(roots)))
                    .unversioned_rustls_crypto_provider(provider);
                let config = config.tls_config(tls.build());
                config.https_only(true).max_redirects(REDIRECTS_MAX)
            }
            Some("http") if is_loopback(host) => config.max_redirects(0),
            _ => return Err(Problem::Url),
        };
        Ok(config.build().new_agent())
    }

    /// Without what quotes the URL.
    fn problem(&self, error: ureq::Error) -> Problem {
        match error {
            ureq::Error::BadUri(_) => Problem::Url,
            ureq::Error::HostNotFound => Problem::HostNotFound,
            ureq::Error::Timeout(_) => Problem::TimedOut(self.timeout),
            ureq::Error::TooManyRedirects | ureq::Error::RequireHttpsOnly(_) => Problem::Redirect,
            ureq::Error::BodyExceedsLimit(_) => Problem::TooLarge,
            ureq::Error::Io(error) => Problem::Io(error),
            ureq::Error::Rustls(error) => Problem::Io(io::Error::other(error)),
            _ => Problem::Http,
        }
    }
}

fn known_authorities() -> Vec<Certificate<'static>> {
    let found = rustls_native_certs::load_native_certs().certs;
    let owned = |der: &[u8]| Certificate::from_der(der).to_owned();
    found.iter().map(|certificate| owned(certificate)).collect()
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return address.to_canonical().is_loopback();
    }
    // RFC 6761, 6.3: names of localhost are this machine.
    let name = bare.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// A URL as it may be shown: credentials and query may be secret.
fn place(url: &str) -> String {
    let plain = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = plain.split_once("://") else {
        return "the URL".to_owned();
    };
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let lines = headers.get_all(CACHE_CONTROL).iter();
    let lines: Vec<_> = lines.filter_map(|line| line.to_str().ok()).collect();
    let mut found = None;
    for directive in lines.iter().flat_map(|line| line.split(',')) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" => return Some(Duration::ZERO),
            "max-age" if found.is_none() => {
                let seconds = value.trim().trim_matches('"').parse().ok();
                found = seconds.map(Duration::from_secs);
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        sync::{OnceLock, mpsc},
        thread,
        time::Instant,
    };

    use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivateKeyDer};

    use super::*;

    /// A JWK Set with one Ed25519 key (RFC 8037, A.2).
    const SET: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","use":"sig",
        "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    /// Long enough for a busy machine; only the slow servers make use of all of it.
    const PATIENT: Duration = Duration::from_secs(30);
    const BRIEF: Duration = Duration::from_millis(300);

    /// An authority that signs for 127.0.0.1, and its key.
    fn authority() -> &'static rcgen::CertifiedKey<rcgen::KeyPair> {
        static OWN: OnceLock<rcgen::CertifiedKey<rcgen::KeyPair>> = OnceLock::new();
        OWN.get_or_init(|| rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap())
    }

    fn own() -> Vec<Certificate<'static>> {
        vec![Certificate::from_der(authority().cert.der()).to_owned()]
    }

    fn another() -> Vec<Certificate<'static>> {
        let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        vec![Certificate::from_der(other.cert.der()).to_owned()]
    }

    fn with(timeout: Duration) -> Fetch {
        Fetch {
            timeout,
            authorities: own,
        }
    }

    fn answer(status: &str, headers: &str, body: &str) -> String {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n{body}")
    }

    /// Reads a request's head.
    fn head(stream: &mut impl Read) -> String {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
            head.push(byte[0]);
        }
        String::from_utf8(head).unwrap()
    }

    /// Serves one connection; gives where, and what was asked for.
    fn serve(
        body: impl FnOnce(TcpStream) -> String + Send + 'static,
    ) -> (String, mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, asked) = mpsc::channel();
        thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            drop(tell.send(body(stream)));
        });
        (format!("http://{address}/keys?secret=hunter2"), asked)
    }

    fn say(answer: String) -> (String, mpsc::Receiver<String>) {
        serve(move |mut stream| {
            let head = head(&mut stream);
            drop(stream.write_all(answer.as_bytes()));
            head
        })
    }

    fn get(answer: String) -> Result<(Keys, Option<Duration>), FetchError> {
        with(PATIENT).run(&say(answer).0)
    }

    fn error(answer: String) -> String {
        let error = get(answer).unwrap_err().to_string();
        assert!(error.starts_with("http://127.0.0.1:"), "{error}");
        assert!(
            error.contains("/keys: ") && !error.contains("hunter2"),
            "{error}"
        );
        error
    }

    #[test]
    fn keys_are_fetched_with_the_whole_url_and_no_more_is_told_than_needed() {
        let (url, asked) = say(answer("200 OK", "Cache-Control: max-age=60\r\n", SET));
        let (keys, max_age) = fetch(&url).unwrap();
        assert_eq!((keys.len(), max_age), (1, Some(Duration::from_secs(60))));
        let head = asked.recv().unwrap().to_ascii_lowercase();
        assert!(
            head.starts_with("get /keys?secret=hunter2 http/1.1\r\n"),
            "{head}"
        );
        assert!(head.contains("\r\nuser-agent: tidemill/"), "{head}");
        assert!(!head.contains("accept-encoding"), "{head}");
    }

    #[test]
    fn a_chunked_answer_is_read_too() {
        let chunks = format!("{:x}\r\n{SET}\r\n0\r\n\r\n", SET.len());
        let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
        assert_eq!(get(answer).unwrap().0.len(), 1);
    }

    #[test]
    fn max_age_is_read_from_what_caches_are_told() {
        for (headers, expected) in [
            ("", None),
            ("Cache-Control: public\r\n", None),
            (
                "Cache-Control: public, max-age=300, must-revalidate\r\n",
                Some(300),
            ),
            ("cache-control: Max-Age=\"7\"\r\n", Some(7)),
            ("Cache-Control: s-maxage=9, max-age = 8\r\n", Some(8)),
            (
                "Cache-Control: public\r\nCache-Control: max-age=5\r\n",
                Some(5),
            ),
            ("Cache-Control: max-age=300, no-store\r\n", Some(0)),
            ("Cache-Control: no-cache\r\n", Some(0)),
            ("Cache-Control: max-age=-1\r\n", None),
            ("Cache-Control: max-age=99999999999999999999\r\n", None),
            ("Cache-Control: max-age\r\n", None),
        ] {
            let (_, max_age) = get(answer("200 OK", headers, SET)).unwrap();
            assert_eq!(max_age, expected.map(Duration::from_secs), "{headers}");
        }
    }

    #[test]
    fn another_status_than_200_is_an_error() {
        for (status, told) in [
            ("404 Not Found", "status 404"),
            ("500 Oops", "status 500"),
            ("204 No Content", "status 204"),
            ("206 Partial Content", "status 206"),
        ] {
            let error = error(answer(status, "", ""));
            assert!(error.ends_with(told), "{error}");
        }
    }

    #[test]
    fn a_redirect_from_http_is_not_followed() {
        let (elsewhere, asked) = say(answer("200 OK", "", SET));
        for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
            let location = format!("Location: {elsewhere}\r\n");
            let error = error(answer(status, &location, ""));
            assert!(error.contains("redirect"), "{error}");
        }
        assert_eq!(asked.try_recv(), Err(mpsc::TryRecvError::Empty));
    }

    #[test]
    fn the_largest_body_is_read_and_a_larger_one_is_not() {
        let most = usize::try_from(BODY_BYTES_MAX).unwrap();
        let fill = |bytes: usize| format!("{SET}{}", " ".repeat(bytes - SET.len()));
        assert!(get(answer("200 OK", "", &fill(most))).is_ok());
        assert!(error(answer("200 OK", "", &fill(most + 1))).ends_with("more than 256 KiB"));
        let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", fill(4 * most));
        assert!(error(endless).ends_with("more than 256 KiB"));
    }

    #[test]
    fn what_is_no_set_of_keys_is_told_and_not_quoted() {
        for (body, told) in [
            ("<html>hunter2</html>", "not JSON"),
            ("", "not JSON"),
            (r#"{"hunter2":[]}"#, "not a JWK Set"),
            (r#"{"keys":[]}"#, "no key in it"),
            (
                r#"{"keys":[{"kty":"oct","k":"aHVudGVyMg"}]}"#,
                "no key in it",
            ),
        ] {
            let error = error(answer("200 OK", "", body));
            assert!(error.contains(told), "{error}");
        }
        let (url, _asked) = serve(|mut stream| {
            let head = head(&mut stream);
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\xfe"));
            head
        });
        let error = with(PATIENT).run(&url).unwrap_err();
        assert!(matches!(error.problem, Problem::NotText), "{error}");
    }

    #[test]
    fn a_server_that_stalls_or_drips_is_given_up() {
        let whole = answer("200 OK", "", SET);
        for sent in [0, 20, whole.len() - 1] {
            let begun = whole[..sent].to_owned();
            let (url, _asked) = serve(move |mut stream| {
                let mut all = head(&mut stream);
                drop(stream.write_all(begun.as_bytes()));
                // Until the other side gives up.
                drop(stream.read_to_string(&mut all));
                all
            });
            let error = with(BRIEF).run(&url).unwrap_err();
            assert!(
                matches!(error.problem, Problem::TimedOut(BRIEF)),
                "{sent}: {error}"
            );
        }
        let (url, _asked) = serve(|mut stream| {
            let head = head(&mut stream);
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n"));
            while stream.write_all(b" ").is_ok() {
                thread::sleep(BRIEF / 10);
            }
            head
        });
        let start = Instant::now();
        let error = with(BRIEF).run(&url).unwrap_err();
        assert!(matches!(error.problem, Problem::TimedOut(BRIEF)), "{error}");
        assert!(start.elapsed() < PATIENT);
    }

    #[test]
    fn a_server_that_is_not_there_or_breaks_off_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        drop(listener);
        let refused = with(PATIENT).run(&url).unwrap_err();
        assert!(matches!(refused.problem, Problem::Io(_)), "{refused}");
        for begun in [
            "",
            "HTTP/1.1 200 OK\r\nContent-Le",
            "SSH-2.0-hunter2\r\n\r\n",
        ] {
            error(begun.to_owned());
        }
        let whole = answer("200 OK", "", SET);
        error(whole[..whole.len() - 1].to_owned());
    }

    #[test]
    fn only_https_and_this_machine_are_asked() {
        for url in [
            "",
            "hunter2",
            "/keys",
            "127.0.0.1/keys",
            "ftp://127.0.0.1/keys",
            "file:///etc/passwd",
            "http://192.0.2.1/keys?hunter2",
            "http://example.com/keys?hunter2",
            "http://user:hunter2@example.com/keys",
            "http://127.0.0.1.example.com/keys",
            "http://localhost.example.com/keys",
            "https:///keys",
        ] {
            let error = with(BRIEF).run(url).unwrap_err();
            assert!(matches!(error.problem, Problem::Url), "{url}: {error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        for host in [
            "localhost",
            "LOCALHOST",
            "localhost.",
            "auth.localhost",
            "127.9.9.9",
            "[::1]",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        let (url, _asked) = say(answer("200 OK", "", SET));
        let upper = url.replace("http://127.0.0.1", "HTTP://LocalHost");
        assert!(with(PATIENT).run(&upper).is_ok());
        let shown = place("https://user:hunter2@host:8/a/b@c?token=hunter2#hunter2");
        assert_eq!(shown, "https://host:8/a/b@c");
    }

    /// Serves one connection over TLS.
    fn say_secretly(answer: String) -> (String, mpsc::Receiver<String>) {
        let (url, asked) = serve(move |stream| {
            let authority = authority();
            let key = PrivateKeyDer::try_from(authority.signing_key.serialize_der()).unwrap();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![authority.cert.der().clone()], key)
                .unwrap();
            let session = ServerConnection::new(Arc::new(config)).unwrap();
            let mut stream = StreamOwned::new(session, stream);
            let head = head(&mut stream);
            drop(stream.write_all(answer.as_bytes()));
            head
        });
        (url.replace("http://", "https://"), asked)
    }

    #[test]
    fn https_believes_only_the_authorities_that_are_known() {
        let (url, _asked) = say_secretly(answer("200 OK", "", SET));
        assert_eq!(with(PATIENT).run(&url).unwrap().0.len(), 1);
        for (authorities, told) in [
            (another as fn() -> _, "certificate"),
            (known_authorities, "certificate"),
            (Vec::new, "knows no certificate authorities"),
        ] {
            let (url, _asked) = say_secretly(answer("200 OK", "", SET));
            let timeout = PATIENT;
            let fetch = Fetch {
                timeout,
                authorities,
            };
            let error = fetch.run(&url).unwrap_err().to_string();
            assert!(
                error.contains(told) && !error.contains("hunter2"),
                "{error}"
            );
        }
    }

    #[test]
    fn https_is_followed_to_https_and_never_away_from_it() {
        let (end, _asked) = say_secretly(answer("200 OK", "", SET));
        let (url, _asked) = say_secretly(answer("302 Found", &format!("Location: {end}\r\n"), ""));
        assert_eq!(with(PATIENT).run(&url).unwrap().0.len(), 1);

        let (plain, asked) = say(answer("200 OK", "", SET));
        let location = format!("Location: {plain}\r\n");
        let (url, _asked) = say_secretly(answer("302 Found", &location, ""));
        let error = with(PATIENT).run(&url).unwrap_err();
        assert!(matches!(error.problem, Problem::Redirect), "{error}");
        assert_eq!(asked.try_recv(), Err(mpsc::TryRecvError::Empty));
    }
}

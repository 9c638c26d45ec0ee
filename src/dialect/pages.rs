//! Plain HTTP: a page to try the echo, one to chat, health, readiness and metrics.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;

use crate::{
    config::{Config, Dialect},
    handler::{Incoming, Reason, Refusal, Response},
    metrics::{Process, Registry},
    sys,
};

const PAGE: &str = include_str!("page.html");

const DEMO: &str = include_str!("demo/page.html");

/// What stands in the demo in place of comments with these names, so that it is one page.
const DEMO_PARTS: [(&str, &str); 5] = [
    ("/* style.css */", include_str!("demo/style.css")),
    ("/* link.js */", include_str!("demo/link.js")),
    ("/* room.js */", include_str!("demo/room.js")),
    ("/* view.js */", include_str!("demo/view.js")),
    ("/* chat.js */", include_str!("demo/chat.js")),
];

/// The line of the page that leads to the demo.
const DEMO_LINK: &str = "<p>There is also <a id=\"demo\" href=\"demo\">a chat</a>.</p>\n";

/// A page loads nothing from elsewhere and talks only to the server that it came from.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; \
                           script-src 'unsafe-inline'; connect-src 'self' ws: wss:; img-src data:; \
                           base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Answers to plain requests.
#[derive(Debug)]
pub struct Pages {
    registry: Arc<Registry>,
    page: Option<Bytes>,
    demo: Option<Bytes>,
    has_admin: bool,
    started: u64,
}

impl Pages {
    pub fn new(config: &Config, registry: &Arc<Registry>) -> Self {
        let has_page = config.serves(Dialect::Pages);
        let has_demo = has_page && config.serves(Dialect::Native);
        let page = if has_demo {
            Bytes::from_static(PAGE.as_bytes())
        } else {
            PAGE.replace(DEMO_LINK, "").into()
        };
        Self {
            registry: Arc::clone(registry),
            page: has_page.then_some(page),
            demo: has_demo.then(demo),
            has_admin: !config.admin_listen.is_empty(),
            started: sys::unix_seconds().unsigned_abs(),
        }
    }

    /// Answers a request for `path`, on which `speaks` says whether there is a WebSocket.
    pub fn answer(&self, path: &str, incoming: &Incoming<'_>, speaks: bool) -> Response {
        let response = match path {
            "/health" => json(200, r#"{"status":"healthy"}"#),
            "/ready" if incoming.is_unavailable() => json(503, r#"{"status":"unavailable"}"#),
            "/ready" => json(200, r#"{"status":"ready"}"#),
            "/metrics" if self.may_scrape(incoming) => self.metrics(),
            "/metrics" => json(403, METRICS_ELSEWHERE),
            _ => match self.page(path).filter(|_| !incoming.is_admin()) {
                Some(text) => page(text),
                None if speaks => return upgrade_required(),
                None => return self.unknown(),
            },
        };
        if !matches!(incoming.request.method(), "GET" | "HEAD") {
            return Refusal::method_not_allowed("GET, HEAD").response();
        }
        response
    }

    /// The page for people that is at this path.
    fn page(&self, path: &str) -> Option<&Bytes> {
        match path {
            "/" => self.page.as_ref(),
            "/demo" => self.demo.as_ref(),
            _ => None,
        }
    }

    pub fn unknown(&self) -> Response {
        Refusal::from(Reason::UnknownPath).response()
    }

    /// Counters tell about everyone: they are for the admin listener or, without one, for this
    /// machine.
    fn may_scrape(&self, incoming: &Incoming<'_>) -> bool {
        incoming.is_admin() || (incoming.is_local() && !self.has_admin)
    }

    fn metrics(&self) -> Response {
        let process = Process {
            cpu: sys::process_cpu_time(),
            resident_bytes: sys::resident_bytes(),
            descriptors_max: sys::descriptor_limit().map_or(0, |limit| limit.soft),
            start_time_seconds: self.started,
            time_seconds: sys::unix_seconds(),
        };
        let text = self.registry.prometheus(&process);
        Response::new(200).body(
            "text/plain; version=0.0.4; charset=utf-8",
            text.into_bytes(),
        )
    }
}

const METRICS_ELSEWHERE: &str =
    r#"{"error":"metrics are answered on TIDEMILL_ADMIN_LISTEN, or to this machine without it"}"#;

/// The demo in one piece, for all reactors.
fn demo() -> Bytes {
    static PAGE: LazyLock<String> = LazyLock::new(|| {
        let mut page = DEMO.to_owned();
        for (name, part) in DEMO_PARTS {
            page = page.replacen(name, part, 1);
        }
        page
    });
    Bytes::from_static(PAGE.as_bytes())
}

fn page(text: &Bytes) -> Response {
    Response::new(200)
        .body("text/html; charset=utf-8", Bytes::clone(text))
        .header("Content-Security-Policy", PAGE_POLICY)
        .header("X-Content-Type-Options", "nosniff")
        .header("Referrer-Policy", "no-referrer")
        .header("Cache-Control", "no-cache")
}

fn json(status: u16, body: &'static str) -> Response {
    let body = Bytes::from_static(body.as_bytes());
    Response::new(status)
        .body("application/json", body)
        .header("Cache-Control", "no-store")
}

/// RFC 9110, 15.5.22: a plain request to a path that only speaks WebSocket.
fn upgrade_required() -> Response {
    json(
        426,
        r#"{"error":"this path speaks WebSocket: expected an upgrade request"}"#,
    )
    .header("Upgrade", "websocket")
    .header("Sec-WebSocket-Version", "13")
    .close()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_is_one_page() {
        let page = String::from_utf8(demo().to_vec()).unwrap();
        for (name, part) in DEMO_PARTS {
            assert!(DEMO.matches(name).count() == 1, "{name}");
            assert!(!page.contains(name) && page.contains(part), "{name}");
        }
        for elsewhere in [" src=", "url(", "import ", "@import"] {
            assert!(!page.contains(elsewhere), "{elsewhere}");
        }
    }

    #[test]
    fn the_page_leads_to_the_demo() {
        assert_eq!(PAGE.matches(DEMO_LINK).count(), 1);
    }
}

//! Plain HTTP: a page to try the echo, health, readiness and metrics.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    config::{Config, Dialect},
    handler::{Incoming, Reason, Refusal, Response},
    metrics::{Process, Registry},
    sys,
};

const PAGE: &str = include_str!("page.html");

/// The page loads nothing from elsewhere and talks only to the server that it came from.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; \
                           script-src 'unsafe-inline'; connect-src 'self' ws: wss:; img-src data:";

/// Answers to plain requests.
#[derive(Debug)]
pub struct Pages {
    registry: Arc<Registry>,
    has_page: bool,
    has_admin: bool,
    started: u64,
}

impl Pages {
    pub fn new(config: &Config, registry: &Arc<Registry>) -> Self {
        Self {
            registry: Arc::clone(registry),
            has_page: config.serves(Dialect::Pages),
            has_admin: !config.admin_listen.is_empty(),
            started: sys::unix_seconds().unsigned_abs(),
        }
    }

    /// Answers a request for `path`, on which `speaks` says whether there is a WebSocket.
    pub fn answer(&self, path: &str, incoming: &Incoming<'_>, speaks: bool) -> Response {
        let page = match path {
            "/health" => json(200, r#"{"status":"healthy"}"#),
            "/ready" if incoming.is_unavailable() => json(503, r#"{"status":"unavailable"}"#),
            "/ready" => json(200, r#"{"status":"ready"}"#),
            "/metrics" if self.may_scrape(incoming) => self.metrics(),
            "/metrics" => json(403, METRICS_ELSEWHERE),
            "/" if self.has_page && !incoming.is_admin() => page(),
            _ if speaks => return upgrade_required(),
            _ => return self.unknown(),
        };
        if !matches!(incoming.request.method(), "GET" | "HEAD") {
            return Refusal::method_not_allowed("GET, HEAD").response();
        }
        page
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

fn page() -> Response {
    Response::new(200)
        .body(
            "text/html; charset=utf-8",
            Bytes::from_static(PAGE.as_bytes()),
        )
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

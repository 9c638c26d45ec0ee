//! [`Config`]: the typed result of all options, with the checks that need more than one of them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::namespaces::NamespaceEntry;
use super::network::Network;
use super::origins::Origins;
use super::rates::RatePolicy;
use super::secret::Secret;
use super::spec::Spec;
use super::table::OPTIONS;
use super::text;

/// Everything that can be set, with the defaults of `tidemill --help` as its [`Default`].
///
/// Those who embed the server start from the default and change fields: `Config { takeover: true,
/// ..Config::default() }`. Bounds are checked by [`Config::validate`], which [`Config::plan`]
/// calls. Sizes are bytes and inclusive: a message of exactly `message_bytes_max` is accepted. In
/// an `Option<Duration>`, `None` is off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Addresses that WebSocket and HTTP are served on; empty: on `tls_listen` alone. `None`: port
    /// 7000 of both loopback addresses, the IPv6 one only where there is IPv6.
    pub listen: Option<Vec<SocketAddr>>,
    /// Addresses that the metrics move to; empty: they stay on `listen`, for loopback peers only.
    pub admin_listen: Vec<SocketAddr>,
    /// Addresses that both are served on with TLS; empty: without TLS alone.
    pub tls_listen: Vec<SocketAddr>,
    /// Files with a certificate chain each, PEM.
    pub tls_cert: Vec<PathBuf>,
    /// Files with the key of each chain, PEM.
    pub tls_key: Vec<PathBuf>,
    /// Make a certificate for development in memory instead.
    pub tls_self_signed: bool,
    /// A file with the authorities that sign the certificates of clients, PEM. `None`: clients are
    /// not asked for one.
    pub tls_client_ca: Option<PathBuf>,
    /// Whether a client must show one. `None`: it must, where there are authorities.
    pub tls_client_auth: Option<ClientAuth>,
    /// How often the files are looked at for a change.
    pub tls_reload_interval: Option<Duration>,

    /// Origins whose pages may open WebSockets. `None`: the server's own, and while only this
    /// machine can connect, loopback origins and `null` too.
    pub origins: Option<Origins>,
    /// The same for the echo dialect. `None`: as `origins`.
    pub origins_echo: Option<Origins>,
    /// The same for the raw dialect. `None`: as `origins`.
    pub origins_raw: Option<Origins>,
    /// The same for the native dialect. `None`: every origin where a token is required, which a
    /// browser does not send by itself; else as `origins`.
    pub origins_native: Option<Origins>,
    /// HMAC secrets of tokens, one a line, or a JWK Set of `oct` keys.
    pub token_secret: Option<Secret>,
    /// Public keys of tokens: PEM, or a JWK Set.
    pub token_public_key: Option<Secret>,
    /// Where a JWK Set of public keys is fetched.
    pub token_jwks_url: Option<String>,
    /// How often it is fetched anew.
    pub token_jwks_interval: Duration,
    /// Refuse upgrades without a token. `None`: where there are token keys; see
    /// [`Config::token_is_required`].
    pub token_required: Option<bool>,
    /// The cookie that may bring the token.
    pub token_cookie: Option<String>,
    /// How far apart the clocks of this machine and of a token's issuer may be.
    pub token_leeway: Duration,
    /// Issuers, one of which a token must name; empty: whatever it names.
    pub token_issuer: Vec<String>,
    /// Audiences, one of which a token must name; empty: whatever it names.
    pub token_audience: Vec<String>,
    /// The key of the API. `None`: the API is off.
    pub api_key: Option<Secret>,
    /// Peers that are believed whom they speak for.
    pub trusted_proxies: Vec<Network>,
    /// Whether those begin each connection with a PROXY header.
    pub proxy_protocol: bool,

    /// What holds for channels by the beginning of their names, beside what is built in.
    pub namespaces: Vec<NamespaceEntry>,
    /// Publications kept for each channel whose name has no prefix; 0 is off.
    pub history_size: usize,
    /// For how long they are kept.
    pub history_ttl: Duration,
    /// Publications that a subscriber is sent at most when it comes back. `None`: as many as are
    /// kept.
    pub recovery_max: Option<usize>,
    /// Channels that one connection may be subscribed to.
    pub subscriptions_max: usize,
    /// Largest name of a channel.
    pub channel_name_bytes_max: usize,

    /// Share the port with a process that already listens on it, instead of ending with an error.
    pub takeover: bool,
    /// Reactors, one thread each. `None`: one per core, more when private descriptor tables need
    /// them.
    pub reactors: Option<usize>,
    /// Bind each reactor's thread to one core.
    pub pin_cores: bool,
    /// Connections open at once, over all reactors. `None`: what descriptors and memory allow.
    pub connections_max: Option<usize>,
    /// Whether the reactors share one descriptor table.
    pub fd_tables: FdTables,
    /// How new connections reach the reactors.
    pub accept: Accept,
    /// Connections the kernel may queue for each listener before they are accepted.
    pub backlog: usize,
    /// Connections a reactor accepts in one turn at most.
    pub accept_budget: usize,
    /// Bytes a reactor reads from one connection in one turn at most.
    pub read_budget_bytes: usize,

    /// Connections open at once from one address, IPv6 by /64; 0 is off.
    pub connections_per_ip_max: usize,
    /// New connections a second from one address; 0 is off.
    pub connect_rate_per_ip: usize,
    /// Connections of one address without a finished handshake; 0 is off.
    pub half_open_per_ip_max: usize,
    /// Messages and control frames a second from one connection; 0 is off.
    pub rate_messages: usize,
    /// Bytes a second from one connection; 0 is off.
    pub rate_bytes: usize,
    /// How much of an unused rate may be saved up.
    pub rate_burst: Duration,
    /// What is done with a connection over its rate.
    pub rate_policy: RatePolicy,

    /// Largest message, after its fragments are joined.
    pub message_bytes_max: usize,
    /// Bytes that may wait for one slow connection. `None`: twice the largest message and at least
    /// 1 MiB. The mark that counts is [`Config::outbox_bytes_hard`].
    pub outbox_bytes_max: Option<usize>,
    /// Largest head of an HTTP request: request line and header fields.
    pub header_bytes_max: usize,
    /// Largest body of a plain HTTP request.
    pub body_bytes_max: usize,
    /// Bytes buffered for all connections together. `None`: a quarter of the memory.
    pub buffer_bytes_max: Option<usize>,
    /// Bytes of publications waiting in one reactor's mailbox.
    pub mail_bytes_max: usize,

    /// From accept to the end of the request head; also how long an idle HTTP connection is kept.
    pub handshake_timeout: Duration,
    /// From the first to the last byte of one message.
    pub message_timeout: Duration,
    /// Time without a sign of life after which a connection is pinged.
    pub ping_interval: Option<Duration>,
    /// Time a peer has to answer a ping.
    pub pong_timeout: Duration,
    /// Time without a sign of life after which a connection is closed.
    pub idle_timeout: Option<Duration>,
    /// Time a peer has to answer a Close.
    pub close_timeout: Duration,
    /// Time that sent bytes may stay unacknowledged before the kernel gives the connection up.
    /// `None`: the kernel's own rule, about a quarter of an hour.
    pub tcp_user_timeout: Option<Duration>,

    /// Subprotocols that may be chosen, by exact name.
    pub subprotocols: Vec<String>,
    /// Value of the `Server` field in answers; `None` leaves the field out.
    pub server_header: Option<String>,
    /// The dialects whose paths are served.
    pub dialects: Vec<Dialect>,
    /// What speaks on upgrade paths that belong to no dialect.
    pub default_path: DefaultPath,
    /// Stripped from the path of each request; empty or `/…` without a slash at its end.
    pub path_prefix: String,

    /// Time over which the Closes of a shutdown drain are spread; zero sends them all at once.
    pub drain_time: Duration,
    /// Turns longer than this for a second make a reactor refuse new upgrades.
    pub shed_turn: Option<Duration>,
    /// Measure the CPU time of each turn.
    pub turn_cpu: bool,

    /// What is logged, in `env_logger`'s filter syntax.
    pub log: String,
    /// How a log line looks.
    pub log_format: LogFormat,
    /// The file that further variables were read from.
    pub env_file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Config {
        let mut config = BLANK;
        for spec in OPTIONS {
            spec.write_preset(&mut config);
        }
        config
    }
}

impl Config {
    /// Port 7000 of both loopback addresses: what `listen: None` stands for.
    pub fn listen_default() -> [SocketAddr; 2] {
        [
            SocketAddr::from(([127, 0, 0, 1], 7000)),
            SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 7000)),
        ]
    }

    /// The addresses to serve on, the default ones when none are set.
    pub fn listen_addresses(&self) -> Vec<SocketAddr> {
        self.listen
            .clone()
            .unwrap_or_else(|| Config::listen_default().to_vec())
    }

    /// Bytes waiting for one connection at which it is closed as a slow consumer. One maximal
    /// message and 64 KiB of small ones always fit, whatever `outbox_bytes_max` says.
    pub fn outbox_bytes_hard(&self) -> usize {
        let set = self.outbox_bytes_max.unwrap_or_else(|| {
            self.message_bytes_max
                .saturating_mul(2)
                .max(OUTBOX_BYTES_LEAST)
        });
        set.max(
            self.message_bytes_max
                .saturating_add(OUTBOX_BYTES_BESIDE_MESSAGE),
        )
    }

    /// Bytes waiting for one connection above which it is not read from: a quarter of the hard
    /// mark, so that a peer which asks and reads the answers never reaches the hard one; less
    /// where the answer to one more maximal message would not fit below it.
    pub fn outbox_bytes_soft(&self) -> usize {
        // RFC 6455, 5.2: a header without a mask has at most ten bytes.
        let answer = self.message_bytes_max.saturating_add(10);
        let hard = self.outbox_bytes_hard();
        (hard / 4).min(hard.saturating_sub(answer)).max(1)
    }

    /// Whether the paths of this dialect are served.
    pub fn serves(&self, dialect: Dialect) -> bool {
        self.dialects.contains(&dialect)
    }

    /// Whether the log filter asks for trace, which release builds do not have.
    pub fn log_asks_for_trace(&self) -> bool {
        text::log_asks_for_trace(&self.log)
    }

    /// The options that differ in `other` and that only a restart can change. What
    /// [`Spec::reloads`] is not among them.
    pub fn changes(&self, other: &Config) -> Vec<&'static Spec> {
        let differs = |spec: &&Spec| !spec.reloads() && spec.show(self) != spec.show(other);
        OPTIONS.iter().filter(differs).collect()
    }
}

/// Whether the reactors share one descriptor table, and so one `ulimit -n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FdTables {
    /// Private when `connections_max` asks for more than one table allows, else shared.
    Auto,
    /// One table for the process.
    Shared,
    /// One table for each reactor (Linux): each holds as many descriptors as `ulimit -n` says.
    Private,
}

/// Whether clients must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// Without one there is no handshake.
    Required,
    /// One that is shown must be signed by an authority.
    Optional,
}

/// How new connections reach the reactors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accept {
    /// Each reactor has listeners of its own and the kernel spreads connections over them
    /// (SO_REUSEPORT).
    Reuseport,
    /// The first reactor accepts for all and hands sockets on: for kernels that do not spread.
    Handoff,
}

/// What the paths of this server speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `/`, `/ws` and `/chat`: a welcome, then echo.
    Welcome,
    /// `/echo`: echo alone.
    Echo,
    /// `/raw/{channel}`: frames as they are, to all others on the channel.
    Raw,
    /// `/connection/websocket`: the protocol of the client SDKs.
    Native,
    /// The pages for people, at `GET /`.
    Pages,
}

impl std::fmt::Display for Dialect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Dialect::Welcome => "welcome",
            Dialect::Echo => "echo",
            Dialect::Raw => "raw",
            Dialect::Native => "native",
            Dialect::Pages => "pages",
        })
    }
}

/// What speaks on upgrade paths that belong to no dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultPath {
    /// Nothing: 404.
    Off,
    /// The dialect of `/`.
    Welcome,
    /// The dialect of `/echo`.
    Echo,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text when standard error is a terminal, else JSON.
    Auto,
    /// A line for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What the table's defaults are written over.
const BLANK: Config = Config {
    listen: None,
    admin_listen: Vec::new(),
    tls_listen: Vec::new(),
    tls_cert: Vec::new(),
    tls_key: Vec::new(),
    tls_self_signed: false,
    tls_client_ca: None,
    tls_client_auth: None,
    tls_reload_interval: None,
    origins: None,
    origins_echo: None,
    origins_raw: None,
    origins_native: None,
    token_secret: None,
    token_public_key: None,
    token_jwks_url: None,
    token_jwks_interval: Duration::ZERO,
    token_required: None,
    token_cookie: None,
    token_leeway: Duration::ZERO,
    token_issuer: Vec::new(),
    token_audience: Vec::new(),
    api_key: None,
    trusted_proxies: Vec::new(),
    proxy_protocol: false,
    namespaces: Vec::new(),
    history_size: 0,
    history_ttl: Duration::ZERO,
    recovery_max: None,
    subscriptions_max: 0,
    channel_name_bytes_max: 0,
    takeover: false,
    reactors: None,
    pin_cores: false,
    connections_max: None,
    fd_tables: FdTables::Auto,
    accept: Accept::Reuseport,
    backlog: 0,
    accept_budget: 0,
    read_budget_bytes: 0,
    connections_per_ip_max: 0,
    connect_rate_per_ip: 0,
    half_open_per_ip_max: 0,
    rate_messages: 0,
    rate_bytes: 0,
    rate_burst: Duration::ZERO,
    rate_policy: RatePolicy::Pause,
    message_bytes_max: 0,
    outbox_bytes_max: None,
    header_bytes_max: 0,
    body_bytes_max: 0,
    buffer_bytes_max: None,
    mail_bytes_max: 0,
    handshake_timeout: Duration::ZERO,
    message_timeout: Duration::ZERO,
    ping_interval: None,
    pong_timeout: Duration::ZERO,
    idle_timeout: None,
    close_timeout: Duration::ZERO,
    tcp_user_timeout: None,
    subprotocols: Vec::new(),
    server_header: None,
    dialects: Vec::new(),
    default_path: DefaultPath::Off,
    path_prefix: String::new(),
    drain_time: Duration::ZERO,
    shed_turn: None,
    turn_cpu: false,
    log: String::new(),
    log_format: LogFormat::Auto,
    env_file: None,
};

/// The least that the default of `outbox_bytes_max` comes to.
const OUTBOX_BYTES_LEAST: usize = 1 << 20;

/// Room in an outbox beside one maximal message: for its header, and for the small messages already
/// waiting.
const OUTBOX_BYTES_BESIDE_MESSAGE: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_what_the_documents_say() {
        let config = Config::default();
        assert_eq!(config.validate(), Ok(()));
        assert!(config.warnings().is_empty());
        assert_eq!(config.message_bytes_max, 65_536);
        assert_eq!(config.read_budget_bytes, 262_144);
        assert_eq!(config.header_bytes_max, 8_192);
        assert_eq!(config.body_bytes_max, 1_048_576);
        assert_eq!(config.mail_bytes_max, 67_108_864);
        assert_eq!((config.backlog, config.accept_budget), (65_535, 256));
        let times = [
            (Some(config.handshake_timeout), 10_000),
            (Some(config.message_timeout), 60_000),
            (config.ping_interval, 25_000),
            (Some(config.pong_timeout), 10_000),
            (Some(config.close_timeout), 5_000),
            (config.tcp_user_timeout, 30_000),
            (Some(config.drain_time), 10_000),
            (config.shed_turn, 250),
        ];
        for (time, ms) in times {
            assert_eq!(time, Some(Duration::from_millis(ms)));
        }
        assert_eq!(config.idle_timeout, None);
        assert_eq!(
            (config.fd_tables, config.accept),
            (FdTables::Auto, Accept::Reuseport)
        );
        assert_eq!(config.default_path, DefaultPath::Off);
        let dialects = [
            Dialect::Welcome,
            Dialect::Echo,
            Dialect::Raw,
            Dialect::Native,
            Dialect::Pages,
        ];
        assert_eq!(config.dialects, dialects);
        assert!(config.namespaces.is_empty());
        assert_eq!((config.history_size, config.recovery_max), (0, None));
        assert_eq!(config.history_ttl, Duration::from_secs(300));
        assert_eq!(config.subscriptions_max, 128);
        assert_eq!(config.channel_name_bytes_max, 200);
        let listen: Vec<String> = config
            .listen_addresses()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(listen, ["127.0.0.1:7000", "[::1]:7000"]);
    }

    #[test]
    fn what_a_running_server_cannot_change_is_named() {
        let names = |other: &Config| -> Vec<&str> {
            let changes = Config::default().changes(other);
            changes.iter().map(|spec| spec.name).collect()
        };
        let other = Config {
            origins: Some(Origins::same_origin()),
            origins_echo: Some(Origins::same_origin()),
            origins_raw: Some(Origins::same_origin()),
            origins_native: Some(Origins::same_origin()),
            token_secret: Some(Secret::new("one")),
            token_public_key: Some(Secret::new("two")),
            api_key: Some(Secret::new("three")),
            ..Config::default()
        };
        assert_eq!(names(&other), [""; 0]);
        let other = Config {
            token_leeway: Duration::ZERO,
            backlog: 5,
            rate_policy: RatePolicy::Close,
            ..other
        };
        assert_eq!(names(&other), ["backlog", "token-leeway", "rate-policy"]);
    }

    #[test]
    fn an_outbox_holds_one_largest_message_whatever_is_set() {
        let marks = |message, outbox| {
            let set = Config {
                message_bytes_max: message,
                outbox_bytes_max: outbox,
                ..Config::default()
            };
            (set.outbox_bytes_hard(), set.outbox_bytes_soft())
        };
        const KIB: usize = 1024;
        assert_eq!(marks(64 * KIB, None), (1024 * KIB, 256 * KIB));
        assert_eq!(marks(2048 * KIB, None), (4096 * KIB, 1024 * KIB));
        assert_eq!(marks(64 * KIB, Some(4096 * KIB)), (4096 * KIB, 1024 * KIB));
        assert_eq!(marks(64 * KIB, Some(64 * KIB)), (128 * KIB, 32 * KIB));
        assert_eq!(marks(1024 * KIB, Some(0)), (1088 * KIB, 64 * KIB - 10));
        assert_eq!(marks(usize::MAX, None), (usize::MAX, 1));
    }
}

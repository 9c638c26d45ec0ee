//! The options, each once.

use std::time::Duration;

use super::access;
use super::channels;
use super::group::Group;
use super::kind::{Kind, Text};
use super::rates;
use super::settings::{Accept, DefaultPath, Dialect, FdTables, LogFormat};
use super::spec::{Preset, Spec};
use super::text;
use super::tls;
use super::value;

/// Every option of the server, in the order of the help within each [`Group`].
pub static OPTIONS: &[Spec] = &[
    Spec {
        name: "listen",
        group: Group::Listening,
        placeholder: "ADDR,...",
        preset: Preset::Decided("127.0.0.1:7000,[::1]:7000"),
        help: "Addresses for WebSocket and HTTP; without IPv6 the default is the first",
        reason: "each costs every reactor a descriptor; port 0 takes a free one",
        kind: Kind::Text(Text {
            allowed: "1 to 16 addresses such as 0.0.0.0:7000 or [::]:7000; off with TLS_LISTEN",
            read: |text, config| {
                config.listen = Some(value::list_or_off(text, ADDRESSES_MAX, value::address)?);
                Ok(())
            },
            show: |config| {
                config
                    .listen
                    .as_deref()
                    .map(value::show_list_or_off)
                    .unwrap_or_default()
            },
        }),
    },
    Spec {
        name: "admin-listen",
        group: Group::Listening,
        placeholder: "ADDR,...",
        preset: Preset::Value("off"),
        help: "Addresses that /metrics moves to; off: loopback peers see it on LISTEN",
        reason: "each costs every reactor a descriptor",
        kind: Kind::Text(Text {
            allowed: "off, or 1 to 16 addresses such as 127.0.0.1:7001",
            read: |text, config| {
                config.admin_listen = value::list_or_off(text, ADDRESSES_MAX, value::address)?;
                Ok(())
            },
            show: |config| value::show_list_or_off(&config.admin_listen),
        }),
    },
    Spec {
        name: "takeover",
        group: Group::Listening,
        placeholder: "BOOL",
        preset: Preset::Value("false"),
        help: "Share the port with a process that listens on it, to change versions",
        reason: "",
        kind: Kind::Bool(|config| &mut config.takeover),
    },
    Spec {
        name: "accept",
        group: Group::Listening,
        placeholder: "HOW",
        preset: Preset::Value("reuseport"),
        help: "Listeners for each reactor, or one reactor that hands sockets on",
        reason: "handoff is for kernels that do not spread connections over listeners",
        kind: Kind::Text(Text {
            allowed: "reuseport or handoff",
            read: |text, config| {
                config.accept = value::word(text, ACCEPT_WORDS)?;
                Ok(())
            },
            show: |config| value::spelling(config.accept, ACCEPT_WORDS).to_owned(),
        }),
    },
    Spec {
        name: "backlog",
        group: Group::Listening,
        placeholder: "COUNT",
        preset: Preset::Value("65535"),
        help: "Connections the kernel queues for a listener; net.core.somaxconn caps it",
        reason: "the kernel takes 16 bits; a short queue drops bursts of connections",
        kind: Kind::Count(1..=65_535, |config| &mut config.backlog),
    },
    tls::LISTEN,
    tls::CERT,
    tls::KEY,
    tls::SELF_SIGNED,
    tls::CLIENT_CA,
    tls::CLIENT_AUTH,
    tls::RELOAD_INTERVAL,
    access::ORIGINS,
    access::ORIGINS_ECHO,
    access::ORIGINS_RAW,
    access::ORIGINS_NATIVE,
    access::TOKEN_SECRET,
    access::TOKEN_PUBLIC_KEY,
    access::TOKEN_JWKS_URL,
    access::TOKEN_JWKS_INTERVAL,
    access::TOKEN_REQUIRED,
    access::TOKEN_COOKIE,
    access::TOKEN_LEEWAY,
    access::TOKEN_ISSUER,
    access::TOKEN_AUDIENCE,
    access::API_KEY,
    access::TRUSTED_PROXIES,
    access::PROXY_PROTOCOL,
    channels::NAMESPACES,
    channels::HISTORY_SIZE,
    channels::HISTORY_TTL,
    channels::RECOVERY_MAX,
    channels::SUBSCRIPTIONS,
    channels::CHANNEL_NAME,
    Spec {
        name: "max-connections",
        group: Group::Capacity,
        placeholder: "COUNT",
        preset: Preset::Decided("what fits this machine"),
        help: "Connections open at once; further upgrades are answered with 503",
        reason: "their slots are reserved at start, so the number must be one that can be reached",
        kind: Kind::AutoCount(1..=CONNECTIONS_CEILING, |config| {
            &mut config.connections_max
        }),
    },
    Spec {
        name: "reactors",
        group: Group::Capacity,
        placeholder: "COUNT",
        preset: Preset::Decided("one a core"),
        help: "Threads that own the connections",
        reason: "more than one a core helps only where private descriptor tables need them",
        kind: Kind::AutoCount(1..=REACTORS_CEILING, |config| &mut config.reactors),
    },
    Spec {
        name: "pin-cores",
        group: Group::Capacity,
        placeholder: "BOOL",
        preset: Preset::Value("false"),
        help: "Bind each reactor to one core",
        reason: "",
        kind: Kind::Bool(|config| &mut config.pin_cores),
    },
    Spec {
        name: "fd-tables",
        group: Group::Capacity,
        placeholder: "HOW",
        preset: Preset::Value("auto"),
        help: "One descriptor table for all, or each reactor its own ulimit -n (Linux)",
        reason: "auto is private when MAX_CONNECTIONS asks for more than one table allows",
        kind: Kind::Text(Text {
            allowed: "auto, shared or private",
            read: |text, config| {
                config.fd_tables = value::word(text, FD_TABLES_WORDS)?;
                Ok(())
            },
            show: |config| value::spelling(config.fd_tables, FD_TABLES_WORDS).to_owned(),
        }),
    },
    Spec {
        name: "accept-budget",
        group: Group::Capacity,
        placeholder: "COUNT",
        preset: Preset::Value("256"),
        help: "Connections a reactor accepts in one turn",
        reason: "open connections wait while new ones are accepted",
        kind: Kind::Count(1..=65_536, |config| &mut config.accept_budget),
    },
    Spec {
        name: "read-budget",
        group: Group::Capacity,
        placeholder: "SIZE",
        preset: Preset::Value("256KiB"),
        help: "Bytes a reactor reads from one connection in one turn",
        reason: "the other connections wait while one is read",
        kind: Kind::Size(4 * KIB..=64 * MIB, |config| &mut config.read_budget_bytes),
    },
    rates::CONNECTIONS_PER_IP,
    rates::CONNECT_RATE_PER_IP,
    rates::HALF_OPEN_PER_IP,
    rates::MESSAGES,
    rates::BYTES,
    rates::BURST,
    rates::POLICY,
    Spec {
        name: "max-message-bytes",
        group: Group::Sizes,
        placeholder: "SIZE",
        preset: Preset::Value("64KiB"),
        help: "Largest message, its fragments joined; a larger one is closed with 1009",
        reason: "a message is held in memory as a whole",
        kind: Kind::Size(1..=GIB, |config| &mut config.message_bytes_max),
    },
    Spec {
        name: "max-outbox-bytes",
        group: Group::Sizes,
        placeholder: "SIZE",
        preset: Preset::Decided("2 messages, 1MiB or more"),
        help: "Bytes that may wait for one slow reader before it is closed",
        reason: "at least MAX_MESSAGE_BYTES, so that one largest message fits",
        kind: Kind::AutoSize(1..=2 * GIB, |config| &mut config.outbox_bytes_max),
    },
    Spec {
        name: "max-header-bytes",
        group: Group::Sizes,
        placeholder: "SIZE",
        preset: Preset::Value("8KiB"),
        help: "Largest head of an HTTP request; a larger one is answered with 431",
        reason: "it is held before anything is known about the peer; browsers send about 1KiB",
        kind: Kind::Size(256..=MIB, |config| &mut config.header_bytes_max),
    },
    Spec {
        name: "max-body-bytes",
        group: Group::Sizes,
        placeholder: "SIZE",
        preset: Preset::Value("1MiB"),
        help: "Largest body of a plain HTTP request; a larger one is answered with 413",
        reason: "a body is held in memory as a whole",
        kind: Kind::Size(0..=GIB, |config| &mut config.body_bytes_max),
    },
    Spec {
        name: "max-buffer-bytes",
        group: Group::Sizes,
        placeholder: "SIZE",
        preset: Preset::Decided("a quarter of memory"),
        help: "Buffers of all connections; at 80% upgrades get 503, at 100% the largest go",
        reason: "at least what one connection's outbox may hold",
        kind: Kind::AutoSize(64 * KIB..=1024 * GIB, |config| &mut config.buffer_bytes_max),
    },
    Spec {
        name: "max-mail-bytes",
        group: Group::Sizes,
        placeholder: "SIZE",
        preset: Preset::Value("64MiB"),
        help: "Publications waiting for one reactor; over it publishing is answered as busy",
        reason: "at least MAX_MESSAGE_BYTES, so that one largest message fits",
        kind: Kind::Size(64 * KIB..=16 * GIB, |config| &mut config.mail_bytes_max),
    },
    Spec {
        name: "handshake-timeout",
        group: Group::Timeouts,
        placeholder: "TIME",
        preset: Preset::Value("10s"),
        help: "From accept to the end of the request; also an idle HTTP connection's life",
        reason: NEVER_ENDING,
        kind: Kind::Time(TICK..=HOUR, |config| &mut config.handshake_timeout),
    },
    Spec {
        name: "message-timeout",
        group: Group::Timeouts,
        placeholder: "TIME",
        preset: Preset::Value("60s"),
        help: "From the first to the last byte of one message",
        reason: NEVER_ENDING,
        kind: Kind::Time(TICK..=DAY, |config| &mut config.message_timeout),
    },
    Spec {
        name: "ping-interval",
        group: Group::Timeouts,
        placeholder: "TIME",
        preset: Preset::Value("25s"),
        help: "A connection is pinged this often; 0 is off",
        reason: "keep it below the idle timeout of proxies and routers on the way",
        kind: Kind::TimeOrOff(TICK..=DAY, |config| &mut config.ping_interval),
    },
    Spec {
        name: "pong-timeout",
        group: Group::Timeouts,
        placeholder: "TIME",
        preset: Preset::Value("10s"),
        help: "A ping without an answer ends the connection after this time",
        reason: NEVER_ENDING,
        kind: Kind::Time(TICK..=HOUR, |config| &mut config.pong_timeout),
    },
    Spec {
        name: "idle-timeout",
        group: Group::Timeouts,
        placeholder: "TIME",
        preset: Preset::Value("0"),
        help: "A connection that says nothing, not even pong, is closed; 0 is off",
        reason: "keep it at or above PING_INTERVAL + PONG_TIMEOUT",
        kind: Kind::TimeOrOff(TICK..=DAY, |config| &mut config.idle_timeout),
    },
    Spec {
        name: "close-timeout",
        group: Group::Timeouts,
        placeholder: "TIME",
        preset: Preset::Value("5s"),
        help: "A Close without an answer ends the connection after this time",
        reason: NEVER_ENDING,
        kind: Kind::Time(TICK..=HOUR, |config| &mut config.close_timeout),
    },
    Spec {
        name: "tcp-user-timeout",
        group: Group::Timeouts,
        placeholder: "TIME",
        preset: Preset::Value("30s"),
        help: "Sent bytes not acknowledged in this time end the connection; 0 is off",
        reason: "a lost packet is sent again after up to some seconds",
        kind: Kind::TimeOrOff(SECOND..=DAY, |config| &mut config.tcp_user_timeout),
    },
    Spec {
        name: "dialects",
        group: Group::Paths,
        placeholder: "NAME,...",
        preset: Preset::Value("welcome,echo,raw,native,pages"),
        help: "What is served; the paths of what is left out are 404",
        reason: "welcome: / /ws /chat, echo: /echo, raw: /raw/{channel}, native: \
                 /connection/websocket, pages: GET / and, with native, GET /demo",
        kind: Kind::Text(Text {
            allowed: "one or more of welcome, echo, raw, native and pages",
            read: |text, config| {
                let read = |item: &str| value::word(item, DIALECT_WORDS);
                config.dialects = value::list(text, DIALECT_WORDS.len(), read)?;
                Ok(())
            },
            show: |config| value::show_list(&config.dialects),
        }),
    },
    Spec {
        name: "default-path",
        group: Group::Paths,
        placeholder: "PATH",
        preset: Preset::Value("off"),
        help: "The path that upgrades on unknown paths are treated as; off: 404",
        reason: "",
        kind: Kind::Text(Text {
            allowed: "/ or /echo, or off",
            read: |text, config| {
                config.default_path = value::word(text, DEFAULT_PATH_WORDS)?;
                Ok(())
            },
            show: |config| value::spelling(config.default_path, DEFAULT_PATH_WORDS).to_owned(),
        }),
    },
    Spec {
        name: "path-prefix",
        group: Group::Paths,
        placeholder: "PATH",
        preset: Preset::Nothing,
        help: "Stripped from every path, for a proxy that passes its own prefix on",
        reason: "it is compared with the path as sent, byte by byte",
        kind: Kind::Text(Text {
            allowed: "a path such as /live, at most 256 visible ASCII bytes without ? and #",
            read: |text, config| {
                config.path_prefix = text::path_prefix(text)?;
                Ok(())
            },
            show: |config| config.path_prefix.clone(),
        }),
    },
    Spec {
        name: "subprotocols",
        group: Group::Paths,
        placeholder: "NAME,...",
        preset: Preset::Nothing,
        help: "Subprotocols to accept: the first that a client offers and this list has",
        reason: "RFC 6455, 4.1: names are tokens; they are compared exactly",
        kind: Kind::Text(Text {
            allowed: "up to 64 names of letters, digits and the signs of an HTTP token",
            read: |text, config| {
                config.subprotocols = value::list(text, SUBPROTOCOLS_MAX, |item| {
                    text::token(item, "a subprotocol")
                })?;
                Ok(())
            },
            show: |config| value::show_list(&config.subprotocols),
        }),
    },
    Spec {
        name: "server-header",
        group: Group::Paths,
        placeholder: "TEXT",
        preset: Preset::Value("tidemill"),
        help: "The Server field of answers; empty or off leaves it out",
        reason: "it is part of every handshake's answer",
        kind: Kind::Text(Text {
            allowed: "off, or at most 128 printable ASCII characters",
            read: |text, config| {
                config.server_header = text::server_header(text)?;
                Ok(())
            },
            show: |config| {
                config
                    .server_header
                    .clone()
                    .unwrap_or_else(|| "off".to_owned())
            },
        }),
    },
    Spec {
        name: "drain-time",
        group: Group::Operation,
        placeholder: "TIME",
        preset: Preset::Value("10s"),
        help: "A shutdown spreads its Closes over this time; 0 sends them at once",
        reason: "clients come back to other servers at that pace",
        kind: Kind::Time(Duration::ZERO..=HOUR, |config| &mut config.drain_time),
    },
    Spec {
        name: "shed-turn",
        group: Group::Operation,
        placeholder: "TIME",
        preset: Preset::Value("250ms"),
        help: "Turns longer than this for a second refuse upgrades with 503; 0 is off",
        reason: "a turn is a delay for all; reactors that share a core get as much time more",
        kind: Kind::TimeOrOff(MILLISECOND..=MINUTE, |config| &mut config.shed_turn),
    },
    Spec {
        name: "turn-cpu",
        group: Group::Operation,
        placeholder: "BOOL",
        preset: Preset::Value("false"),
        help: "Count each turn's CPU time in /metrics, beside the time that it took",
        reason: "two more system calls a turn",
        kind: Kind::Bool(|config| &mut config.turn_cpu),
    },
    Spec {
        name: "log",
        group: Group::Logs,
        placeholder: "FILTER",
        preset: Preset::Value("info"),
        help: "What is logged; RUST_LOG counts when this is unset",
        reason: "release builds have no trace",
        kind: Kind::Text(Text {
            allowed: "off, error, warn, info, debug, trace, or target=level,... of env_logger",
            read: |text, config| {
                config.log = text::log_filter(text)?;
                Ok(())
            },
            show: |config| config.log.clone(),
        }),
    },
    Spec {
        name: "log-format",
        group: Group::Logs,
        placeholder: "HOW",
        preset: Preset::Value("auto"),
        help: "Text or one JSON object a line; auto is text on a terminal",
        reason: "",
        kind: Kind::Text(Text {
            allowed: "auto, text or json",
            read: |text, config| {
                config.log_format = value::word(text, LOG_FORMAT_WORDS)?;
                Ok(())
            },
            show: |config| value::spelling(config.log_format, LOG_FORMAT_WORDS).to_owned(),
        }),
    },
    Spec {
        name: "env-file",
        group: Group::Logs,
        placeholder: "FILE",
        preset: Preset::Nothing,
        help: "A file of TIDEMILL_NAME=value lines, for what is set nowhere else",
        reason: "read at start and on SIGHUP, at most 1MiB",
        kind: Kind::Text(Text {
            allowed: "the path of a readable file",
            read: |text, config| {
                config.env_file = Some(text.into());
                Ok(())
            },
            show: |config| {
                let path = config.env_file.as_deref();
                path.map(|path| path.display().to_string())
                    .unwrap_or_default()
            },
        }),
    },
];

/// No machine here was measured with more, and slots are reserved for the cap: a limit of 2^30
/// descriptors, which containers have, must not become a reservation of that size.
pub(super) const CONNECTIONS_CEILING: u64 = 4_194_304;

/// Far above the cores of any machine, for private descriptor tables with a low limit.
pub(super) const REACTORS_CEILING: u64 = 1024;

pub(super) const ADDRESSES_MAX: usize = 16;
const SUBPROTOCOLS_MAX: usize = 64;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The timers are no finer than this.
const TICK: Duration = Duration::from_millis(100);

const NEVER_ENDING: &str = "timers tick about every 100ms; a wait must end";

const ACCEPT_WORDS: &[(&str, Accept)] = &[
    ("reuseport", Accept::Reuseport),
    ("handoff", Accept::Handoff),
];

const FD_TABLES_WORDS: &[(&str, FdTables)] = &[
    ("auto", FdTables::Auto),
    ("shared", FdTables::Shared),
    ("private", FdTables::Private),
];

const DIALECT_WORDS: &[(&str, Dialect)] = &[
    ("welcome", Dialect::Welcome),
    ("echo", Dialect::Echo),
    ("raw", Dialect::Raw),
    ("native", Dialect::Native),
    ("pages", Dialect::Pages),
];

const DEFAULT_PATH_WORDS: &[(&str, DefaultPath)] = &[
    ("off", DefaultPath::Off),
    ("/", DefaultPath::Welcome),
    ("/echo", DefaultPath::Echo),
];

const LOG_FORMAT_WORDS: &[(&str, LogFormat)] = &[
    ("auto", LogFormat::Auto),
    ("text", LogFormat::Text),
    ("json", LogFormat::Json),
];

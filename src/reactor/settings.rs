//! The options that a reactor looks at, in its own units.

use std::time::{Duration, Instant};

use crate::{
    config::{Config, Network, Plan, RatePolicy},
    gate::rate::{Limits, Rates},
    protocol::{
        http,
        session::{Role, Rules},
    },
    wheel::{TICK_MS, Tick},
};

/// Slots beside those for admitted connections, in each descriptor table, so that a peer that is
/// refused can be told so politely. The descriptor reserve of the plan covers them.
const SHED_SLOTS: usize = 16;

/// A reactor's options. Sizes in bytes, times in ticks; 0 ticks is off.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where tick numbers begin; the same for all reactors.
    pub epoch: Instant,
    /// Slots of one reactor, those for refusals included.
    pub slots: usize,
    /// How many of the slots are for refusals.
    pub shed_slots: usize,
    pub rules: Rules,
    pub http: http::Limits,
    pub server_header: Option<String>,
    pub accept_budget: usize,
    pub read_budget_bytes: usize,
    pub outbox_bytes_hard: usize,
    pub outbox_bytes_soft: usize,
    pub handshake_timeout: Tick,
    pub message_timeout: Tick,
    pub ping_interval: Tick,
    pub pong_timeout: Tick,
    pub idle_timeout: Tick,
    pub close_timeout: Tick,
    /// What a connection may send; `None`: whatever it likes.
    pub rates: Option<Rates>,
    pub rate_policy: RatePolicy,
    /// Received pieces up to this size are not looked at before they are handled.
    pub unmetered_bytes: usize,
    /// Peers that may say for whom they speak.
    pub trusted_proxies: Vec<Network>,
    /// Whether they say so first, by the PROXY protocol.
    pub proxy_protocol: bool,
    /// Whether anything is remembered of single peers.
    pub keeps_visitors: bool,
    /// Whether it is remembered when connections were opened: where somebody may ask.
    pub keeps_openings: bool,
    pub shed_turn: Option<Duration>,
    /// Whether the CPU time of each turn is measured.
    pub turn_cpu: bool,
}

impl Settings {
    pub fn new(config: &Config, plan: &Plan, epoch: Instant) -> Self {
        let sharing = if plan.private_tables {
            1
        } else {
            plan.reactors
        };
        let shed_slots = (SHED_SLOTS / sharing).max(2);
        let rates = Rates::new(Limits {
            messages_per_second: config.rate_messages,
            bytes_per_second: config.rate_bytes,
            burst_ticks: ticks(Some(config.rate_burst)) - 1,
            ticks_per_second: TICKS_PER_SECOND,
        });
        let caps = config.connections_per_ip_max
            + config.connect_rate_per_ip
            + config.half_open_per_ip_max;
        let keeps_visitors = rates.is_some()
            || caps > 0
            || config.has_token_keys()
            || !config.trusted_proxies.is_empty();
        Self {
            epoch,
            slots: plan.connections_per_reactor + shed_slots,
            shed_slots,
            rules: Rules {
                role: Role::Server,
                message_bytes_max: config.message_bytes_max,
            },
            http: http::Limits::new(config.header_bytes_max, config.body_bytes_max as u64),
            server_header: config.server_header.clone(),
            accept_budget: config.accept_budget,
            read_budget_bytes: config.read_budget_bytes,
            outbox_bytes_hard: config.outbox_bytes_hard(),
            outbox_bytes_soft: config.outbox_bytes_soft(),
            handshake_timeout: ticks(Some(config.handshake_timeout)),
            message_timeout: ticks(Some(config.message_timeout)),
            ping_interval: ticks(config.ping_interval),
            pong_timeout: ticks(Some(config.pong_timeout)),
            idle_timeout: ticks(config.idle_timeout),
            close_timeout: ticks(Some(config.close_timeout)),
            unmetered_bytes: match (&rates, config.rate_policy) {
                (None, _) => usize::MAX,
                (Some(_), RatePolicy::Pause) => UNMETERED_BYTES,
                (Some(_), RatePolicy::Close) => 0,
            },
            rates,
            rate_policy: config.rate_policy,
            trusted_proxies: config.trusted_proxies.clone(),
            proxy_protocol: config.proxy_protocol,
            keeps_visitors,
            keeps_openings: config.api_key.is_some(),
            shed_turn: plan.shed_turn,
            turn_cpu: config.turn_cpu,
        }
    }
}

/// So few bytes hold a handful of messages at the most. Where whoever sends too much is only made
/// to wait, they are handled at once and paid for afterwards: it saves a look.
const UNMETERED_BYTES: usize = 32;

/// Ticks of one second.
pub const TICKS_PER_SECOND: u32 = (1000 / TICK_MS) as u32;

/// Rounded up, and one more: a timeout may be a tick late but is never early.
fn ticks(time: Option<Duration>) -> Tick {
    time.map_or(0, |time| {
        let ticks = time.as_millis().div_ceil(u128::from(TICK_MS)) + 1;
        Tick::try_from(ticks)
            .unwrap_or(Tick::MAX / 4)
            .min(Tick::MAX / 4)
    })
}

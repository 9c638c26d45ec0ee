//! What a machine allows of a configuration: how many connections on how many reactors, and which
//! bound decided it. Sums only: the machine is an argument.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::error::ConfigError;
use super::settings::Config;
use super::table::CONNECTIONS_CEILING;
use super::tables::Tables;
use super::value::show_size_rounded;

/// The facts about a machine that a plan depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Cores that this process may run on.
    pub cores: usize,
    /// The soft limit of open descriptors: `ulimit -Sn`.
    pub descriptors_soft: u64,
    /// The limit that the soft one may be raised to: `ulimit -Hn`.
    pub descriptors_hard: u64,
    /// Memory this process may use: the cgroup's limit or, without one, the machine's. 0 when it
    /// is not known; then it bounds nothing.
    pub memory_bytes: u64,
    /// Whether IPv6 addresses can be listened on.
    pub ipv6: bool,
    /// Whether a thread can have a descriptor table of its own (Linux).
    pub unshare: bool,
}

/// A configuration fitted to a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Addresses to serve on.
    pub listen: Vec<SocketAddr>,
    /// Addresses to serve on with TLS.
    pub tls_listen: Vec<SocketAddr>,
    /// Addresses for the metrics; empty when there are none of their own.
    pub admin_listen: Vec<SocketAddr>,
    /// Reactors, one thread each.
    pub reactors: usize,
    /// Whether each reactor has its own descriptor table.
    pub private_tables: bool,
    /// Connections open at once, over all reactors.
    pub connections_max: usize,
    /// Slots of one reactor. Together they are more than `connections_max`, since the kernel does
    /// not spread connections evenly.
    pub connections_per_reactor: usize,
    /// What set `connections_max`.
    pub bound: Bound,
    /// Descriptors that one table holds when all connections are open.
    pub descriptors_needed: u64,
    /// What to raise the soft limit of descriptors to: the hard limit.
    pub descriptors_limit: u64,
    /// Bytes buffered for all connections together.
    pub buffer_bytes_max: usize,
    /// Turns longer than this for a second refuse upgrades: the option's value, as often as
    /// reactors share a core. A turn that waits for others to be done is no overload.
    pub shed_turn: Option<Duration>,
    /// What fits and is most likely not meant. One line each, for the log and `tidemill check`.
    pub warnings: Vec<String>,
}

impl Plan {
    /// All addresses to listen on.
    pub fn addresses(&self) -> impl Iterator<Item = &SocketAddr> {
        let served = self.listen.iter().chain(&self.tls_listen);
        served.chain(&self.admin_listen)
    }

    /// Whether only this machine can connect.
    pub fn is_loopback_only(&self) -> bool {
        let mut addresses = self.addresses();
        addresses.all(|address| address.ip().to_canonical().is_loopback())
    }
}

/// What set the number of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// The descriptor limit, less what the server itself needs.
    Descriptors,
    /// Memory, at 8 KiB a connection, 12 KiB with TLS.
    Memory,
    /// The option.
    Option,
    /// The most that the server was built for.
    Ceiling,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bound::Descriptors => "the descriptor limit (ulimit -n)",
            Bound::Memory => "memory, at 8 KiB a connection, 12 KiB with TLS",
            Bound::Option => "TIDEMILL_MAX_CONNECTIONS",
            Bound::Ceiling => "the most this server is built for",
        })
    }
}

impl Config {
    /// Fits this configuration to a machine.
    ///
    /// The number of connections is what is asked for or, when nothing is, the smallest of three:
    /// the hard descriptor limit less a reserve, memory at 8 KiB a connection (12 KiB with
    /// TLS), and 4,194,304. The
    /// reserve is 24 descriptors (standard streams, signals, files read on the way, and refused
    /// connections whose peers are still reading the refusal) and for each reactor its poll, its
    /// waker, a spare one, and its listeners. More than one table holds is reached by private
    /// tables, where the options and the system allow them.
    ///
    /// # Errors
    /// Whatever [`Config::validate`] finds, and [`ConfigError::Capacity`] when the connections
    /// asked for cannot fit.
    pub fn plan(&self, machine: &Machine) -> Result<Plan, ConfigError> {
        self.validate()?;
        let mut listen = self.listen_addresses();
        if self.listen.is_none() && !machine.ipv6 {
            listen.retain(SocketAddr::is_ipv4);
        }
        let listeners = (listen.len() + self.tls_listen.len() + self.admin_listen.len()) as u64;
        let tables = Tables::choose(self, machine, listeners)?;

        let (connections_max, bound) = self.connections(&tables, machine);
        let connections_per_reactor = tables.slots_per_reactor(connections_max);
        let in_one_table = if tables.private {
            connections_per_reactor
        } else {
            connections_max
        };
        Ok(Plan {
            listen,
            tls_listen: self.tls_listen.clone(),
            admin_listen: self.admin_listen.clone(),
            reactors: tables.reactors as usize,
            private_tables: tables.private,
            connections_max: connections_max as usize,
            connections_per_reactor: connections_per_reactor as usize,
            bound,
            descriptors_needed: in_one_table + tables.reserve(),
            descriptors_limit: tables.limit,
            buffer_bytes_max: self.buffer_bytes(machine),
            shed_turn: self.shed_turn.map(|limit| {
                let sharing = tables.reactors.div_ceil(machine.cores.max(1) as u64);
                limit.saturating_mul(u32::try_from(sharing).unwrap_or(u32::MAX))
            }),
            warnings: self.plan_warnings(connections_max, machine),
        })
    }

    /// The number of connections, and what set it.
    fn connections(&self, tables: &Tables, machine: &Machine) -> (u64, Bound) {
        if let Some(set) = self.connections_max {
            return (set as u64, Bound::Option);
        }
        let memory = match machine.memory_bytes {
            0 => CONNECTIONS_CEILING,
            bytes => (bytes / self.memory_per_connection()).max(1),
        };
        let bounds = [
            (tables.promised(), Bound::Descriptors),
            (CONNECTIONS_CEILING, Bound::Ceiling),
            (memory, Bound::Memory),
        ];
        bounds
            .into_iter()
            .min_by_key(|(number, _)| *number)
            .expect("the list is not empty")
    }

    fn memory_per_connection(&self) -> u64 {
        match self.tls_listen.is_empty() {
            true => MEMORY_PER_CONNECTION,
            false => MEMORY_PER_TLS_CONNECTION,
        }
    }

    fn buffer_bytes(&self, machine: &Machine) -> usize {
        let default = match machine.memory_bytes {
            0 => BUFFER_BYTES_MEMORY_UNKNOWN,
            bytes => usize::try_from(bytes / 4).unwrap_or(usize::MAX),
        };
        self.buffer_bytes_max.unwrap_or(default)
    }

    fn plan_warnings(&self, connections: u64, machine: &Machine) -> Vec<String> {
        let mut warnings = Vec::new();
        let memory = connections.saturating_mul(self.memory_per_connection());
        if machine.memory_bytes != 0 && memory > machine.memory_bytes {
            warnings.push(format!(
                "TIDEMILL_MAX_CONNECTIONS={connections} needs about {} at {} a connection, \
                 kernel and server together; there is {}",
                show_size_rounded(memory),
                show_size_rounded(self.memory_per_connection()),
                show_size_rounded(machine.memory_bytes),
            ));
        }
        let buffers = self.buffer_bytes(machine);
        if buffers < self.outbox_bytes_hard() {
            warnings.push(format!(
                "all buffers together may hold {}, less than the {} that one connection may; \
                 lower TIDEMILL_MAX_MESSAGE_BYTES or TIDEMILL_MAX_OUTBOX_BYTES, or set \
                 TIDEMILL_MAX_BUFFER_BYTES",
                show_size_rounded(buffers as u64),
                show_size_rounded(self.outbox_bytes_hard() as u64),
            ));
        }
        warnings
    }
}

/// What an idle connection costs with the kernel's part, and room for the busy ones.
const MEMORY_PER_CONNECTION: u64 = 8 << 10;

/// The same with the keys and the state of TLS.
const MEMORY_PER_TLS_CONNECTION: u64 = 12 << 10;

const BUFFER_BYTES_MEMORY_UNKNOWN: usize = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FdTables;

    fn machine(cores: usize, descriptors: u64) -> Machine {
        Machine {
            cores,
            descriptors_soft: descriptors.min(1024),
            descriptors_hard: descriptors,
            memory_bytes: 24 << 30,
            ipv6: true,
            unshare: true,
        }
    }

    fn asking(connections: usize) -> Config {
        Config {
            connections_max: Some(connections),
            ..Config::default()
        }
    }

    #[test]
    fn the_hard_descriptor_limit_bounds_a_common_machine() {
        let plan = Config::default().plan(&machine(2, 1024)).unwrap();
        assert_eq!(
            (plan.connections_max, plan.bound),
            (990, Bound::Descriptors)
        );
        assert_eq!((plan.reactors, plan.private_tables), (2, false));
        assert_eq!(
            (plan.descriptors_needed, plan.descriptors_limit),
            (1024, 1024)
        );
        assert_eq!(plan.connections_per_reactor, 990);

        let raised = Config::default().plan(&machine(2, 20_000)).unwrap();
        assert_eq!(
            (raised.connections_max, raised.descriptors_limit),
            (19_966, 20_000)
        );
    }

    #[test]
    fn the_limits_of_containers_give_a_sane_number() {
        let plan = Config::default().plan(&machine(2, 1 << 20)).unwrap();
        assert_eq!(
            (plan.connections_max, plan.bound),
            ((1 << 20) - 34, Bound::Descriptors)
        );

        let plan = Config::default().plan(&machine(2, 1 << 30)).unwrap();
        assert_eq!(
            (plan.connections_max, plan.bound),
            (3_145_728, Bound::Memory)
        );

        for descriptors_hard in [1 << 30, u64::MAX] {
            let large = Machine {
                memory_bytes: 1 << 40,
                descriptors_hard,
                ..machine(64, 0)
            };
            let plan = Config::default().plan(&large).unwrap();
            assert_eq!(
                (plan.connections_max, plan.bound),
                (4_194_304, Bound::Ceiling)
            );
        }

        let small = Machine {
            memory_bytes: 64 << 20,
            ..machine(1, 1 << 30)
        };
        let plan = Config::default().plan(&small).unwrap();
        assert_eq!((plan.connections_max, plan.bound), (8_192, Bound::Memory));
        assert_eq!(plan.buffer_bytes_max, 16 << 20);

        let unknown = Machine {
            memory_bytes: 0,
            ..machine(2, 1 << 30)
        };
        let plan = Config::default().plan(&unknown).unwrap();
        assert_eq!(
            (plan.connections_max, plan.bound),
            (4_194_304, Bound::Ceiling)
        );
    }

    #[test]
    fn whatever_the_machine_the_sums_hold() {
        let limits = [
            30,
            64,
            256,
            1024,
            4096,
            20_000,
            65_536,
            1 << 20,
            1 << 30,
            u64::MAX,
        ];
        let asked = [
            None,
            Some(1),
            Some(999),
            Some(5_000),
            Some(1_000_000),
            Some(4_194_304),
        ];
        let tables = [FdTables::Auto, FdTables::Shared, FdTables::Private];
        let mut fitted = 0;
        for limit in limits {
            for cores in [1, 2, 7, 64, 1024, 5000] {
                for (connections_max, fd_tables) in asked
                    .iter()
                    .flat_map(|&asked| tables.map(|tables| (asked, tables)))
                {
                    let config = Config {
                        connections_max,
                        fd_tables,
                        ..Config::default()
                    };
                    let Ok(plan) = config.plan(&machine(cores, limit)) else {
                        continue;
                    };
                    fitted += 1;
                    let context = format!("{limit} {cores} {connections_max:?} {plan:?}");
                    assert!(plan.descriptors_needed <= limit, "{context}");
                    assert!((1..=4_194_304).contains(&plan.connections_max), "{context}");
                    assert!((1..=1024).contains(&plan.reactors), "{context}");
                    let slots = plan.connections_per_reactor * plan.reactors;
                    assert!(slots >= plan.connections_max, "{context}");
                    assert!(
                        plan.connections_per_reactor <= plan.connections_max,
                        "{context}"
                    );
                    assert!(connections_max.is_none_or(|asked| asked == plan.connections_max));
                }
            }
        }
        assert!(fitted > 500, "{fitted}");
    }

    #[test]
    fn only_the_default_address_is_given_up_without_ipv6() {
        let bare = Machine {
            ipv6: false,
            ..machine(2, 1024)
        };
        let plan = Config::default().plan(&bare).unwrap();
        assert_eq!(plan.listen, [SocketAddr::from(([127, 0, 0, 1], 7000))]);
        assert_eq!(
            Config::default()
                .plan(&machine(2, 1024))
                .unwrap()
                .listen
                .len(),
            2
        );

        let listen = Some(Config::listen_default().to_vec());
        let set = Config {
            listen,
            ..Config::default()
        };
        assert_eq!(set.plan(&bare).unwrap().listen.len(), 2);
    }

    #[test]
    fn loopback_means_every_listener() {
        let addresses = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
        let only = |listen: &[&str], admin: &[&str]| {
            let config = Config {
                listen: Some(addresses(listen)),
                admin_listen: addresses(admin),
                ..Config::default()
            };
            config.plan(&machine(2, 1024)).unwrap().is_loopback_only()
        };
        assert!(only(
            &["127.0.0.1:1", "[::1]:1", "127.9.9.9:1"],
            &["[::ffff:127.0.0.1]:2"]
        ));
        assert!(!only(&["127.0.0.1:1", "0.0.0.0:1"], &[]));
        assert!(!only(&["[::]:1"], &[]));
        assert!(!only(&["127.0.0.1:1"], &["10.0.0.1:2"]));
    }

    #[test]
    fn memory_that_cannot_hold_what_was_asked_for_is_warned_about() {
        let small = Machine {
            memory_bytes: 1 << 30,
            ..machine(2, 1 << 20)
        };
        let plan = asking(1_000_000).plan(&small).unwrap();
        assert!(plan.warnings[0].contains("7.6 GiB"), "{:?}", plan.warnings);
        assert!(asking(131_072).plan(&small).unwrap().warnings.is_empty());

        let tiny = Machine {
            memory_bytes: 2 << 20,
            ..machine(1, 1024)
        };
        let plan = Config::default().plan(&tiny).unwrap();
        assert!(
            plan.warnings[0].contains("TIDEMILL_MAX_BUFFER_BYTES"),
            "{:?}",
            plan.warnings
        );
    }

    #[test]
    fn reactors_that_share_a_core_may_take_longer_turns() {
        let limit = |connections, cores| {
            let plan = asking(connections).plan(&machine(cores, 20_000)).unwrap();
            (plan.reactors, plan.shed_turn.unwrap().as_millis())
        };
        assert_eq!(limit(1000, 2), (2, 250));
        assert_eq!(limit(1_000_000, 2), (56, 28 * 250));
        assert_eq!(limit(1_000_000, 64), (64, 250));
        let off = Config {
            shed_turn: None,
            ..asking(1_000_000)
        };
        assert_eq!(off.plan(&machine(2, 20_000)).unwrap().shed_turn, None);
    }

    #[test]
    fn a_configuration_that_is_not_valid_has_no_plan() {
        let config = Config {
            backlog: 0,
            ..Config::default()
        };
        assert!(matches!(
            config.plan(&machine(2, 1024)),
            Err(ConfigError::Value(_))
        ));
    }
}

//! How many connections the descriptor limit allows: one table for all reactors, or one for each.

use super::error::ConfigError;
use super::plan::Machine;
use super::settings::{Accept, Config, FdTables};
use super::table::REACTORS_CEILING;
use super::value::show_count;

/// The descriptor tables of a number of reactors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tables {
    /// Descriptors that one table may hold.
    pub limit: u64,
    /// Listeners of one reactor.
    pub listeners: u64,
    pub reactors: u64,
    /// Whether each reactor has a table of its own.
    pub private: bool,
}

impl Tables {
    /// Chooses the number of reactors and whether their tables are private, so that the connections
    /// asked for fit.
    pub fn choose(
        config: &Config,
        machine: &Machine,
        listeners: u64,
    ) -> Result<Tables, ConfigError> {
        let limit = machine.descriptors_hard.max(machine.descriptors_soft);
        let blank = Tables {
            limit,
            listeners,
            reactors: 1,
            private: false,
        };
        let cores = (machine.cores.max(1) as u64).min(REACTORS_CEILING);
        let with = |default| config.reactors.map_or(default, |set| set as u64);
        let shared = Tables {
            reactors: with(blank.reactors_affordable(cores)),
            ..blank
        };
        let private = Tables {
            private: true,
            ..shared
        };
        let wanted = config.connections_max.map(|set| set as u64);
        let may_be_private = machine.unshare && config.accept == Accept::Reuseport;

        match config.fd_tables {
            FdTables::Private if !machine.unshare => Err(ConfigError::Capacity(
                "TIDEMILL_FD_TABLES=private: this system gives a thread no descriptor table of \
                 its own; set TIDEMILL_FD_TABLES=shared"
                    .to_owned(),
            )),
            FdTables::Private => private.raised(config, wanted),
            FdTables::Auto | FdTables::Shared if shared.holds(wanted) => Ok(shared),
            FdTables::Auto if wanted.is_some() && may_be_private => private.raised(config, wanted),
            FdTables::Auto | FdTables::Shared => {
                let helps = may_be_private && wanted.is_some();
                let remedy = if helps {
                    ", or set TIDEMILL_FD_TABLES=auto"
                } else {
                    ""
                };
                // A higher limit affords more reactors, and they need descriptors too.
                let later = if wanted.is_some() {
                    with(cores)
                } else {
                    shared.reactors
                };
                let named = Tables {
                    reactors: later,
                    ..shared
                };
                Err(named.too_small(wanted, shared.promised(), remedy))
            }
        }
    }

    /// Descriptors of one table that are not for connections.
    pub fn reserve(&self) -> u64 {
        if self.private {
            // Each table inherits every reactor's poll and waker.
            DESCRIPTORS_RESERVED + 2 * self.reactors + 1 + self.listeners
        } else {
            DESCRIPTORS_RESERVED + self.reactors * (3 + self.listeners)
        }
    }

    /// The connections that can be promised: with private tables one may be full while another
    /// is not, so a tenth is left for the kernel's uneven spreading.
    pub fn promised(&self) -> u64 {
        match (self.private, self.reactors) {
            (false, _) | (true, 1) => self.room(),
            (true, reactors) => (u128::from(self.room()) * u128::from(reactors) * 10 / 11) as u64,
        }
    }

    /// Slots of one reactor for `connections` over all: an even share, and for the uneven
    /// spreading a tenth or, where numbers are small and chance weighs more, 1,024.
    pub fn slots_per_reactor(&self, connections: u64) -> u64 {
        let share = connections.div_ceil(self.reactors);
        let slots = (share + (share / 10).max(1024)).min(connections);
        if self.private {
            slots.min(self.room())
        } else {
            slots
        }
    }

    /// These tables with as many more reactors as `wanted` needs.
    fn raised(self, config: &Config, wanted: Option<u64>) -> Result<Tables, ConfigError> {
        let candidates =
            || (self.reactors..=REACTORS_CEILING).map(|reactors| Tables { reactors, ..self });
        match (
            candidates().find(|tables| tables.holds(wanted)),
            config.reactors,
        ) {
            (Some(tables), None) => Ok(tables),
            (Some(tables), Some(_)) if tables.reactors == self.reactors => Ok(tables),
            (Some(tables), Some(set)) => Err(ConfigError::Capacity(format!(
                "TIDEMILL_REACTORS={set} with private descriptor tables of {} holds {} \
                 connections, not TIDEMILL_MAX_CONNECTIONS={}; set TIDEMILL_REACTORS to {} or \
                 leave it unset, or raise the limit (ulimit -n)",
                show_count(self.limit),
                show_count(self.promised()),
                wanted.unwrap_or_default(),
                tables.reactors,
            ))),
            (None, Some(_)) => Err(self.too_small(wanted, self.promised(), "")),
            (None, None) => {
                let most = candidates()
                    .map(|tables| tables.promised())
                    .max()
                    .unwrap_or_default();
                Err(self.too_small(wanted, most, ""))
            }
        }
    }

    /// The error of connections that do not fit, with each remedy that would help.
    fn too_small(&self, wanted: Option<u64>, most: u64, remedy: &str) -> ConfigError {
        let asked = match wanted {
            Some(wanted) => format!("TIDEMILL_MAX_CONNECTIONS={wanted} needs"),
            None => "serving even one connection needs".to_owned(),
        };
        let place = match self.private {
            true => format!(" in each of {} private tables", self.reactors),
            false => String::new(),
        };
        let lower = match wanted {
            Some(_) if most > 0 => format!(", or lower TIDEMILL_MAX_CONNECTIONS to {most}"),
            _ => String::new(),
        };
        let needed = self.limit_needed(wanted.unwrap_or(1));
        ConfigError::Capacity(format!(
            "{asked} {} descriptors{place} and the hard limit is {}; raise it (ulimit -Hn \
             {needed}, LimitNOFILE= of systemd, --ulimit nofile= of a container){lower}{remedy}",
            show_count(needed),
            show_count(self.limit),
        ))
    }

    fn holds(&self, wanted: Option<u64>) -> bool {
        self.promised() >= wanted.unwrap_or(1)
    }

    /// The least limit at which these tables hold `connections`.
    fn limit_needed(&self, connections: u64) -> u64 {
        let in_one_table = match (self.private, self.reactors) {
            (false, _) | (true, 1) => connections,
            (true, reactors) => (connections * 11).div_ceil(10 * reactors),
        };
        in_one_table + self.reserve()
    }

    /// Connections that one table holds.
    fn room(&self) -> u64 {
        self.limit.saturating_sub(self.reserve())
    }

    /// At most `cores`, but not so many that their own descriptors take over a quarter of a small
    /// limit.
    fn reactors_affordable(&self, cores: u64) -> u64 {
        let afford = (self.limit / 4).saturating_sub(DESCRIPTORS_RESERVED) / (3 + self.listeners);
        cores.min(afford.max(1))
    }
}

/// Descriptors of a table beside connections and reactors: standard streams, signals, files read
/// on the way, and refused connections whose peers are still reading the refusal.
const DESCRIPTORS_RESERVED: u64 = 24;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Bound;

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

    fn refused(config: &Config, machine: &Machine) -> String {
        match config.plan(machine) {
            Err(ConfigError::Capacity(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_small_limit_has_fewer_reactors_and_still_serves() {
        let plan = Config::default().plan(&machine(2, 256)).unwrap();
        assert_eq!((plan.reactors, plan.connections_max), (2, 222));
        let plan = Config::default().plan(&machine(64, 256)).unwrap();
        assert_eq!((plan.reactors, plan.connections_max), (8, 192));
        let plan = Config::default().plan(&machine(64, 30)).unwrap();
        assert_eq!((plan.reactors, plan.connections_max), (1, 1));
        let text = refused(&Config::default(), &machine(64, 29));
        assert!(
            text.contains("needs 30 descriptors") && text.contains("ulimit -Hn 30"),
            "{text}"
        );
    }

    #[test]
    fn a_number_that_is_asked_for_is_given_or_refused_never_changed() {
        let plan = asking(100).plan(&machine(2, 1024)).unwrap();
        assert_eq!((plan.connections_max, plan.bound), (100, Bound::Option));
        assert_eq!(plan.descriptors_needed, 134);

        let most = asking(990).plan(&machine(2, 1024)).unwrap();
        assert!(!most.private_tables);

        let alone = Machine {
            unshare: false,
            ..machine(2, 1024)
        };
        let text = refused(&asking(991), &alone);
        assert!(
            text.starts_with("TIDEMILL_MAX_CONNECTIONS=991 needs 1,025 descriptors"),
            "{text}"
        );
        assert!(text.contains("ulimit -Hn 1025"), "{text}");
        assert!(
            text.contains("lower TIDEMILL_MAX_CONNECTIONS to 990"),
            "{text}"
        );
        assert!(!text.contains("FD_TABLES"), "{text}");
    }

    #[test]
    fn shared_tables_that_are_too_small_point_at_private_ones() {
        let shared = Config {
            fd_tables: FdTables::Shared,
            ..asking(100_000)
        };
        let text = refused(&shared, &machine(2, 20_000));
        assert!(text.contains("set TIDEMILL_FD_TABLES=auto"), "{text}");
    }

    #[test]
    fn auto_tables_turn_private_for_more_than_one_holds_and_raise_the_reactors() {
        let plan = asking(1_000_000).plan(&machine(2, 20_000)).unwrap();
        assert!(plan.private_tables);
        assert_eq!((plan.reactors, plan.connections_max), (56, 1_000_000));
        // A tenth above an even share, for the uneven spreading, and within one table.
        assert_eq!(plan.connections_per_reactor, 19_643);
        assert_eq!(plan.descriptors_needed, 19_643 + 24 + 2 * 56 + 1 + 2);
        assert!(plan.descriptors_needed <= 20_000);
    }

    #[test]
    fn private_tables_on_too_few_reactors_are_refused_with_the_number_that_fits() {
        let few = Config {
            reactors: Some(8),
            ..asking(1_000_000)
        };
        let text = refused(&few, &machine(2, 20_000));
        assert!(text.contains("TIDEMILL_REACTORS=8"), "{text}");
        assert!(
            text.contains("set TIDEMILL_REACTORS to 56 or leave it unset"),
            "{text}"
        );

        let enough = Config {
            reactors: Some(60),
            ..asking(1_000_000)
        };
        assert_eq!(enough.plan(&machine(2, 20_000)).unwrap().reactors, 60);

        let text = refused(&asking(1_000_000), &machine(2, 256));
        assert!(
            text.contains("descriptors in each of 2 private tables"),
            "{text}"
        );
        let most = text
            .split("lower TIDEMILL_MAX_CONNECTIONS to ")
            .nth(1)
            .unwrap();
        let most = most.parse().unwrap();
        assert!(asking(most).plan(&machine(2, 256)).is_ok(), "{text}");
        assert!(asking(most + 1).plan(&machine(2, 256)).is_err(), "{text}");
    }

    #[test]
    fn private_tables_without_a_number_hold_what_all_of_them_hold() {
        let private = Config {
            fd_tables: FdTables::Private,
            ..Config::default()
        };
        let plan = private.plan(&machine(4, 10_000)).unwrap();
        let table = 10_000 - (24 + 2 * 4 + 1 + 2);
        assert_eq!(plan.connections_max, 4 * table * 10 / 11);
        assert_eq!((plan.reactors, plan.bound), (4, Bound::Descriptors));
        assert!(plan.connections_per_reactor <= table);

        let elsewhere = Machine {
            unshare: false,
            ..machine(4, 10_000)
        };
        assert!(refused(&private, &elsewhere).contains("TIDEMILL_FD_TABLES=shared"));
    }

    #[test]
    fn the_limit_that_an_error_names_is_enough() {
        let with = |fd_tables, reactors, connections_max| Config {
            fd_tables,
            reactors,
            connections_max,
            ..Config::default()
        };
        let many = Some(100_000);
        let few = Some(100);
        let fixed = [
            with(FdTables::Shared, Some(7), many),
            with(FdTables::Private, Some(1), many),
            with(FdTables::Private, Some(2), many),
            with(FdTables::Auto, Some(7), None),
        ];
        for config in fixed {
            let needed = limit_named(&config, &machine(7, 16));
            assert!(config.plan(&machine(7, needed)).is_ok(), "{config:?}");
            assert!(config.plan(&machine(7, needed - 1)).is_err(), "{config:?}");
        }
        for cores in [1, 2, 7, 64, 5000] {
            for tables in [FdTables::Auto, FdTables::Shared, FdTables::Private] {
                for wanted in [None, few, many] {
                    let config = with(tables, None, wanted);
                    let needed = limit_named(&config, &machine(cores, 16));
                    assert!(
                        config.plan(&machine(cores, needed)).is_ok(),
                        "{cores} {config:?}"
                    );
                }
            }
        }
    }

    /// The limit that the error of this plan asks for.
    fn limit_named(config: &Config, machine: &Machine) -> u64 {
        let text = refused(config, machine);
        let rest = text
            .split("ulimit -Hn ")
            .nth(1)
            .unwrap_or_else(|| panic!("{text}"));
        rest.split(',').next().unwrap().parse().unwrap()
    }

    #[test]
    fn handoff_keeps_one_table() {
        let handoff = Config {
            accept: Accept::Handoff,
            ..Config::default()
        };
        assert!(!handoff.plan(&machine(2, 1024)).unwrap().private_tables);
        let many = Config {
            accept: Accept::Handoff,
            ..asking(100_000)
        };
        let text = refused(&many, &machine(2, 1024));
        assert!(!text.contains("FD_TABLES"), "{text}");
    }

    #[test]
    fn every_reactor_has_room_for_an_uneven_share() {
        for (connections, reactors, slots) in [
            (1, 2, 1),
            (4, 2, 4),
            (2_000, 2, 2_000),
            (3_000, 2, 2_524),
            (1_000_000, 2, 550_000),
            (1_000_000, 1, 1_000_000),
        ] {
            let config = Config {
                reactors: Some(reactors),
                ..asking(connections)
            };
            let plan = config.plan(&machine(2, 2 << 20)).unwrap();
            assert_eq!(
                plan.connections_per_reactor, slots,
                "{connections} on {reactors}"
            );
        }
    }
}

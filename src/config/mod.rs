//! The configuration: every option once, and what a machine allows of it.
//!
//! `table.rs` is the list of options. Command line, variables, the variables' file, `--help`,
//! `tidemill check`, error messages and the options table of the README all follow from it, so an
//! option is added in one place. `settings.rs` holds the typed result ([`Config`]), `plan.rs` the
//! sums that turn it and a [`Machine`] into a [`Plan`].
//!
//! Nothing here touches the system, apart from reading the files of variables and of secrets: the
//! variables themselves and the facts about the machine are arguments. Values are read by us, so
//! that an error names the option, where it was set, what is allowed and the remedy. Of a
//! [`Secret`], nothing shows more than that it is set.

mod access;
mod admission;
mod channels;
mod command;
mod env_file;
mod error;
mod group;
mod kind;
mod layers;
mod names;
mod namespaces;
mod network;
mod origins;
mod plan;
mod rates;
mod resolve;
mod secret;
mod settings;
mod source;
mod spec;
mod suggest;
mod table;
mod tables;
#[cfg(test)]
mod temporary;
mod text;
mod tls;
mod url;
mod validate;
mod value;

pub use command::{Command, Invocation, Parsed, command_line, parse};
pub use error::{BadValue, ConfigError};
pub use group::{Group, markdown_table};
pub use namespaces::{
    DEMO, DEMO_HISTORY_SIZE, DEMO_HISTORY_TTL, NamespaceEntry, NamespaceFlag, SlowPolicy,
};
pub use network::Network;
pub use origins::Origins;
pub use plan::{Bound, Machine, Plan};
pub use rates::RatePolicy;
pub use resolve::{Resolved, resolve};
pub use secret::Secret;
pub use settings::{Accept, ClientAuth, Config, DefaultPath, Dialect, FdTables, LogFormat};
pub use source::{Source, Sources};
pub use spec::{Preset, Spec};
pub use table::OPTIONS;
pub use value::{
    count as read_count, duration as read_duration, show_count, show_duration, show_size_rounded,
    size as read_size,
};

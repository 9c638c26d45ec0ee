//! Where values were set, for errors and `tidemill check`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::spec::Spec;

/// Where each option was set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources(BTreeMap<&'static str, Source>);

impl Sources {
    pub(super) fn new(by_name: BTreeMap<&'static str, Source>) -> Sources {
        Sources(by_name)
    }

    /// Where `spec` was set.
    pub fn of(&self, spec: &Spec) -> Source {
        self.0.get(spec.name).cloned().unwrap_or(Source::Default)
    }
}

/// Where a value was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// On the command line.
    Flag,
    /// In the environment.
    Variable,
    /// In the environment, by the variable that Rust programs share.
    RustLog,
    /// In the file of variables.
    File {
        /// The file's path as given.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// By the program that embeds the server.
    Program,
    /// Nowhere.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Flag => f.write_str("flag"),
            Source::Variable => f.write_str("environment"),
            Source::RustLog => f.write_str("environment, RUST_LOG"),
            Source::File { path, line } => write!(f, "{}:{line}", path.display()),
            Source::Program => f.write_str("set by the program"),
            Source::Default => f.write_str("default"),
        }
    }
}

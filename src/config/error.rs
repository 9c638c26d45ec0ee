//! What can be wrong with a configuration. Each message is one line that names the option, where it
//! was set, what is allowed and the remedy; the binary prints it behind `error: ` and exits with 2.

use std::path::PathBuf;

use thiserror::Error;

use super::source::Source;

/// Why a configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// One value is not what its option takes.
    #[error("{0}")]
    Value(Box<BadValue>),

    /// A variable begins with `TIDEMILL_` and is no option.
    #[error("{variable} ({origin}) is no option{suggestion}; `tidemill --help` lists them all")]
    UnknownVariable {
        /// The name as it was found.
        variable: String,
        /// Where it was found.
        origin: Source,
        /// ` (did you mean …?)`, or nothing.
        suggestion: String,
    },

    /// The command line is malformed: an unknown flag, a missing value.
    #[error("{0}; see `tidemill --help`")]
    Usage(String),

    /// The file of variables cannot be read.
    #[error(
        "TIDEMILL_ENV_FILE={path:?} cannot be read: {reason}; give the path of a readable file \
         of TIDEMILL_NAME=value lines"
    )]
    EnvFile {
        /// The file's path as given.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },

    /// A line of the file of variables is malformed.
    #[error("{path}:{line}: {problem}", path = path.display())]
    EnvFileLine {
        /// The file's path as given.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong, and the remedy.
        problem: String,
    },

    /// Two options contradict each other. The text names both and the remedy.
    #[error("{0}")]
    Conflict(String),

    /// A file that the configuration names is not what it should be. The text names the variable,
    /// the file and the remedy.
    #[error("{0}")]
    File(String),

    /// The machine does not allow what was asked for. The text names the limit and the remedy.
    #[error("{0}")]
    Capacity(String),
}

/// A value that its option does not take.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{variable}={value:?} ({origin}): {problem}; allowed: {allowed}")]
pub struct BadValue {
    /// The option, by the name of its variable.
    pub variable: String,
    /// Where the value was set.
    pub origin: Source,
    /// The value as it was given, shortened when it is long.
    pub value: String,
    /// What is wrong with it, and how to write it.
    pub problem: String,
    /// What the option takes, and why.
    pub allowed: String,
}

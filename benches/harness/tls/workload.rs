//! The parts of the TLS benchmark by name.

use super::churn::Handshake;
use crate::servers::Kind;
use crate::workload::{self, Load, Workload};

/// A workload, and how its connections begin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SecuredWorkload {
    pub workload: Workload,
    pub handshake: Handshake,
}

/// One part of the report.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part {
    Measured(SecuredWorkload),
    /// Resident memory of many connections that do nothing.
    Idle,
    /// Latency of open connections during a storm of handshakes.
    Storm,
}

/// All parts, in the order of the report.
pub const ALL: [Part; 7] = [
    echo(workload::ALL[0]),
    echo(workload::ALL[3]),
    echo(workload::ALL[4]),
    churn(
        "connect",
        "full handshake, upgrade, close; 64 at a time",
        Handshake::Full,
    ),
    churn(
        "resumed",
        "resumed handshake, upgrade, close; 64 at a time",
        Handshake::Resumed,
    ),
    Part::Idle,
    Part::Storm,
];

const fn echo(workload: Workload) -> Part {
    Part::Measured(SecuredWorkload {
        workload,
        handshake: Handshake::Full,
    })
}

const fn churn(name: &'static str, title: &'static str, handshake: Handshake) -> Part {
    Part::Measured(SecuredWorkload {
        workload: Workload {
            name,
            title,
            load: Load::Churn { connections: 64 },
        },
        handshake,
    })
}

impl SecuredWorkload {
    /// Whether that server can take part: without TLS nothing is resumed.
    pub fn suits(&self, kind: &Kind) -> bool {
        kind.is_secured() || self.handshake == Handshake::Full
    }
}

impl Part {
    /// What `--only` takes.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Measured(secured) => secured.workload.name,
            Self::Idle => "idle",
            Self::Storm => "storm",
        }
    }
}

/// The part of that name.
///
/// # Errors
/// An unknown name, with the known ones.
pub fn named(name: &str) -> Result<Part, String> {
    let part = ALL.into_iter().find(|part| part.name() == name);
    part.ok_or_else(|| {
        let known: Vec<_> = ALL.iter().map(Part::name).collect();
        format!("no part {name}, there is {}", known.join(", "))
    })
}

//! The parts of the gate's benchmark by name, and the settings that each compares.

use super::setting::Setting;

/// One part of the report.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part {
    /// Latency of open connections among half-open ones.
    HalfOpen,
    /// CPU time an echo.
    Cost,
    /// Instructions an echo, outside the kernel.
    Instructions,
    /// Resident memory of idle connections.
    Idle,
}

impl Part {
    /// In the order of the report.
    pub const ALL: [Self; 4] = [Self::HalfOpen, Self::Cost, Self::Instructions, Self::Idle];

    /// What `--only` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::HalfOpen => "half-open",
            Self::Cost => "cost",
            Self::Instructions => "instructions",
            Self::Idle => "idle",
        }
    }

    /// What is compared where nothing else is asked for; the first is what the others are held
    /// against.
    pub fn settings(self) -> &'static [Setting] {
        match self {
            Self::HalfOpen => &[Setting::Off],
            Self::Cost | Self::Instructions => &[Setting::Off, Setting::On],
            Self::Idle => &[Setting::Off, Setting::OnWithoutTokens, Setting::On],
        }
    }
}

/// The part of that name.
///
/// # Errors
/// An unknown name, with the known ones.
pub fn named(name: &str) -> Result<Part, String> {
    let part = Part::ALL.into_iter().find(|part| part.name() == name);
    part.ok_or_else(|| {
        let known = Part::ALL.map(Part::name).join(", ");
        format!("no part {name}, there is {known}")
    })
}

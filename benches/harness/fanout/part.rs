//! The parts of the fan-out benchmark by name.

/// One part of the report.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part {
    /// CPU time a delivery.
    Deliver,
    /// Echoes of others meanwhile.
    Echo,
    /// Publishing through the server API.
    Api,
    /// Resident memory of subscriptions.
    Memory,
}

impl Part {
    /// In the order of the report.
    pub const ALL: [Self; 4] = [Self::Deliver, Self::Echo, Self::Api, Self::Memory];

    fn name(self) -> &'static str {
        match self {
            Self::Deliver => "deliver",
            Self::Echo => "echo",
            Self::Api => "api",
            Self::Memory => "memory",
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

//! The load generator: many connections to one server, and what they saw.
//!
//! [`Plan`] is what a run will do; `conductor.rs` starts one `driver` a thread, gives them their
//! orders phase by phase and watches; [`Report`] says what came of it: as a block of text, as JSON,
//! as a page. `machine.rs` reads what the system knows about both ends.

mod conductor;
mod driver;
mod frames;
mod latency;
mod machine;
mod plan;
mod progress;
mod report;
mod secure;
mod tally;
mod target;

pub use conductor::{LoadError, run};
pub use machine::inherited_descriptors;
pub use plan::{Mode, Options, PAYLOAD_BYTES_MAX, Pace, Payload, Plan, PlanError};
pub use progress::Show;
pub use report::Report;
pub use target::{Target, sources};

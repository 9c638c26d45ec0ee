//! What the socket benchmarks share: servers as child processes, raw load clients, the kernel's
//! account of CPU time and memory, and the report.
//!
//! A server runs alone on core 0, the client alone on core 1, and nothing is measured by anybody
//! but the kernel. Where [`paced`] does not say otherwise the client is a closed loop: what it
//! waits for decides what it sends next, so its latencies say how long an exchange took and not how
//! a queue grows under a fixed rate.

pub mod churn;
pub mod exchange;
pub mod fanout;
pub mod folder;
#[cfg(feature = "tls")]
pub mod gate;
pub mod idle;
pub mod machine;
pub mod measure;
pub mod paced;
pub mod report;
pub mod rounds;
pub mod selection;
pub mod servers;
pub mod socket;
pub mod tables;
#[cfg(feature = "tls")]
pub mod tls;
pub mod weather;
pub mod workload;

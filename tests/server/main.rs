//! The server over real sockets, in this process: what a peer sees, byte by byte, and what an
//! application sees. Every wait has a deadline; times are held to their lower bound strictly and
//! to their upper bound generously, for a busy machine.

mod backpressure;
mod capacity;
mod embedding;
mod faults;
mod http;
mod liveness;
mod paths;
mod probe;
mod reactors;
mod refusals;
mod site;
mod stopping;
mod upgrades;
mod violations;
mod wire;

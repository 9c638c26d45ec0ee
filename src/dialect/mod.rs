//! What the paths of the `tidemill` binary speak.
//!
//! [`Router`] is the server's handler: it chooses a dialect at the upgrade and remembers it as the
//! connection's state. `echo` holds the dialects themselves, `pages` what plain HTTP is answered.

mod echo;
mod pages;
mod router;

pub use router::Router;

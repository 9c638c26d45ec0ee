//! What the paths of the `tidemill` binary speak.
//!
//! [`Router`] is the server's handler: it chooses a dialect at the upgrade and remembers it as the
//! connection's state. `echo` holds the dialects themselves, `pages` what plain HTTP is answered,
//! `api` what servers ask.

mod api;
mod echo;
mod pages;
mod router;

pub use router::Router;

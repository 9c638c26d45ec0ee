//! What the paths of the `tidemill` binary speak.
//!
//! [`Router`] is the server's handler: it chooses a dialect at the upgrade and remembers it as the
//! connection's state. `echo`, `raw` and `native` are the dialects themselves, `pages` what plain
//! HTTP is answered, `api` what servers ask.

mod api;
mod echo;
mod native;
mod pages;
mod raw;
mod router;

pub use router::Router;

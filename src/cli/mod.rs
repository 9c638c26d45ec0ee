//! The commands of the binary, one file each.

mod banner;
pub mod bench;
pub mod check;
pub mod logging;
pub mod serve;
pub mod token;

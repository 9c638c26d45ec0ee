//! The `tidemill` binary as those see it who run it: what it prints, what it answers to a wrong
//! configuration, to a taken port and to signals, and how it serves with descriptor tables of its
//! reactors' own.

mod banner;
mod options;
mod program;
mod signals;
mod tables;
#[expect(dead_code, reason = "the other target of this file needs all of it")]
#[path = "../server/wire.rs"]
mod wire;

//! Instructions that an echo takes outside the kernel, counted by valgrind's callgrind.
//!
//! The server runs twice under each load, once for few messages and once for many: what the start,
//! the handshakes and the end take is in both, and the difference is the echoes alone.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::exchange::{EchoLoad, Exchange, TWENTY_BYTES};
use crate::folder::Folder;
use crate::servers::{Kind, Server};

/// Messages of the two runs.
const FEW: u64 = 1_600;
const MANY: u64 = 33_600;

/// One load.
pub struct Shape {
    pub title: &'static str,
    connections: usize,
    in_flight: usize,
}

impl Shape {
    /// With one connection a turn has one event, so that the same is done in every run. With 64,
    /// turns have as many as have come meanwhile, as on a busy server.
    pub const ALL: [Self; 3] = [
        Self {
            title: "1 connection",
            connections: 1,
            in_flight: 1,
        },
        Self {
            title: "64 connections",
            connections: 64,
            in_flight: 1,
        },
        Self {
            title: "1, sixteen in flight",
            connections: 1,
            in_flight: 16,
        },
    ];
}

/// Whether valgrind can be run.
pub fn are_counted() -> bool {
    let mut valgrind = Command::new("valgrind");
    valgrind.arg("--version").stdout(Stdio::null());
    valgrind.status().is_ok_and(|status| status.success())
}

/// The instructions of one echo of 20 bytes.
///
/// # Errors
/// The server does not start or end, a message is lost or changed, valgrind counts nothing.
pub fn measure(kind: &Kind, shape: &Shape) -> io::Result<f64> {
    let context =
        |error: io::Error| io::Error::other(format!("{}, {}: {error}", kind.name, shape.title));
    let count = |messages| count(kind, shape, messages).map_err(context);
    let (few, many) = (count(FEW)?, count(MANY)?);
    let echoes = many.echoes - few.echoes;
    Ok((many.instructions as f64 - few.instructions as f64) / echoes as f64)
}

/// What one run of a server did.
struct Count {
    instructions: u64,
    echoes: u64,
}

fn count(kind: &Kind, shape: &Shape, messages: u64) -> io::Result<Count> {
    let folder = Folder::new()?;
    let file = folder.file("callgrind.out");
    let out = format!("--callgrind-out-file={}", file.display());
    let words = ["valgrind", "--quiet", "--tool=callgrind", &out];
    let server = Server::start(&kind.clone().under(words.map(str::to_owned).to_vec()))?;
    let exchange = Exchange {
        in_flight: shape.in_flight,
        ..TWENTY_BYTES
    };
    let mut load = EchoLoad::open(&server.endpoint, shape.connections, exchange)?;
    let echoes = load.run_messages(messages)?.count;
    drop(load);
    server.stop()?;
    Ok(Count {
        instructions: total(&file)?,
        echoes,
    })
}

/// The instructions of the whole run, as callgrind's file has them.
fn total(file: &Path) -> io::Result<u64> {
    let text = std::fs::read_to_string(file)?;
    text.lines()
        .find_map(|line| line.strip_prefix("totals:")?.trim().parse().ok())
        .ok_or_else(|| io::Error::other("no totals in callgrind's file"))
}

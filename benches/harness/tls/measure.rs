//! One measurement of a secured server: the same figures, another first connection and client.

use std::io;
use std::time::Duration;

use super::churn::{ChurnLoad, Handshake};
use super::exchange::EchoLoad;
use super::probe::Probe;
use super::workload::SecuredWorkload;
use crate::exchange::{Exchange, Payload};
use crate::measure::{self, Client, Measurement};
use crate::servers::{Kind, Server};
use crate::workload::Load;

/// Starts a secured server, which must agree to what the others agreed to.
///
/// # Errors
/// It does not start, or agrees to something else.
pub fn start(kind: &Kind, probe: &Probe) -> io::Result<Server> {
    Server::start_with(kind, |server| probe.visit(server).map(|_| ()))
}

/// Starts `kind` and loads it for `duration`, with the client that it needs.
///
/// # Errors
/// The server does not start or ends, a message is lost or changed.
pub fn measure(
    kind: &Kind,
    workload: &SecuredWorkload,
    probe: &Probe,
    duration: Duration,
) -> io::Result<Measurement> {
    let SecuredWorkload {
        workload,
        handshake,
    } = workload;
    if !kind.is_secured() {
        return measure::measure(kind, workload, Payload::Binary, duration);
    }
    let context =
        |error| io::Error::other(format!("{} under {}: {error}", kind.name, workload.name));
    let server = start(kind, probe)?;
    let client = open(&server, workload.load, *handshake).map_err(context)?;
    measure::of_client(&server, client, duration).map_err(context)
}

fn open(server: &Server, load: Load, handshake: Handshake) -> io::Result<Box<dyn Client>> {
    Ok(match load {
        Load::Echo {
            connections,
            payload_bytes,
            in_flight,
        } => {
            let exchange = Exchange {
                payload_bytes,
                in_flight,
                payload: Payload::Binary,
            };
            Box::new(EchoLoad::open(&server.endpoint, connections, exchange)?)
        }
        Load::Churn { connections } => {
            Box::new(ChurnLoad::open(&server.endpoint, connections, handshake)?)
        }
    })
}

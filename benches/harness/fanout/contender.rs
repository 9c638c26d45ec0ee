//! Who takes part, and one of them with its crowd.

use std::io;
use std::time::Duration;

use super::crowd::Crowd;
use super::delivery::{Order, Waiting};
use super::words::Dialect;
use crate::measure::{self, Measurement};
use crate::selection::Tidemills;
use crate::servers::{CLIENT_CORE, FLOOR, Kind, SERVER_CORE, Server};

/// The native protocol with one reactor, whose pushes the floor is given, too.
pub const NATIVE: &str = "native";
/// `/raw` with one reactor.
pub const RAW: &str = "raw";
/// The same two with two reactors, on both cores.
pub const RAW_BY_TWO: &str = "raw-2";
pub const NATIVE_BY_TWO: &str = "native-2";
const BROADCAST: &str = "tokio-broadcast";

/// A server and the dialect that it is spoken to in.
#[derive(Clone, Debug)]
pub struct Contender {
    pub kind: Kind,
    pub dialect: Dialect,
}

/// The servers of this package, which only a benchmark knows the paths of.
pub struct Binaries {
    pub floor: &'static str,
    pub tokio_broadcast: &'static str,
}

/// A server over as many reactors as there are cores here.
pub fn over_both_cores(kind: Kind) -> Kind {
    kind.set("TIDEMILL_REACTORS", "2")
        .on(&[SERVER_CORE, CLIENT_CORE])
}

/// Those to run, in the order of the report: `only` these, or all.
///
/// # Errors
/// An unknown name, and a binary that is not there.
pub fn all(
    binaries: &Binaries,
    tidemills: &Tidemills,
    only: &[String],
) -> Result<Vec<Contender>, String> {
    let known = [FLOOR, BROADCAST, RAW, RAW_BY_TWO, NATIVE, NATIVE_BY_TWO];
    let with = |dialect| move |kind| Contender { kind, dialect };
    let wanted = |name: &str| only.is_empty() || only.iter().any(|only| only == name);
    let mut contenders = Vec::new();
    for name in known.into_iter().filter(|name| wanted(name)) {
        let kind = match name {
            FLOOR => Kind::peer(name, binaries.floor),
            BROADCAST => Kind::peer(name, binaries.tokio_broadcast),
            RAW_BY_TWO | NATIVE_BY_TWO => over_both_cores(tidemills.now(name, &[])?),
            _ => tidemills.now(name, &[])?,
        };
        let dialect = match name {
            NATIVE | NATIVE_BY_TWO => Dialect::Native,
            _ => Dialect::Raw,
        };
        contenders.push(Contender { kind, dialect });
    }
    let earlier = [
        ("raw-before", Dialect::Raw),
        ("native-before", Dialect::Native),
    ];
    for (name, dialect) in earlier {
        let kind = tidemills.before(name, &[])?;
        contenders.extend(kind.filter(|_| wanted(name)).map(with(dialect)));
    }
    let is_there = |name: &&String| contenders.iter().any(|there| there.kind.name == **name);
    match only.iter().find(|name| !is_there(name)) {
        Some(unknown) => Err(format!(
            "no server {unknown}, there is {}, and raw-before and native-before with \
             --tidemill-before",
            known.join(", ")
        )),
        None => Ok(contenders),
    }
}

/// A running server and its crowd, which stay for all rounds.
pub struct Stage {
    server: Server,
    crowd: Crowd,
}

impl Stage {
    /// Starts the server and fills it.
    ///
    /// # Errors
    /// It does not start, or not everyone gets in.
    pub fn fill(contender: &Contender, crowd: &str, subscribers: usize) -> io::Result<Self> {
        let server = Server::start(&contender.kind)?;
        let address = server.endpoint.address;
        let crowd = Crowd::audience(crowd, address, contender.dialect, subscribers);
        let stage = Self {
            server,
            crowd: crowd.map_err(|error| contender.context(error))?,
        };
        // Where nobody is told that they are subscribed, they are once the server rests.
        stage.server.settle()?;
        Ok(stage)
    }

    /// The bytes that a publication of so many has when it is delivered.
    ///
    /// # Errors
    /// Those of [`Self::measure`].
    pub fn push_bytes(&mut self, payload_bytes: usize) -> io::Result<usize> {
        self.crowd.order(Order {
            in_flight: 1,
            payload_bytes,
            duration: Duration::ZERO,
            interval: Duration::ZERO,
            waiting: Waiting::Asleep,
        })?;
        Ok(self.crowd.delivered()?.push_bytes)
    }

    /// Publishes for `duration`, in bursts without a pause, to a crowd that waits like that.
    ///
    /// # Errors
    /// The server or the crowd ends, a publication is lost or changed.
    pub fn measure(
        &mut self,
        in_flight: usize,
        payload_bytes: usize,
        duration: Duration,
        waiting: Waiting,
    ) -> io::Result<Measurement> {
        let order = Order {
            in_flight,
            payload_bytes,
            duration,
            interval: Duration::ZERO,
            waiting,
        };
        let client = Box::new(self.crowd.under(order));
        measure::of_client(&self.server, client, duration)
    }
}

impl Contender {
    fn context(&self, error: io::Error) -> io::Error {
        io::Error::other(format!("{}: {error}", self.kind.name))
    }
}

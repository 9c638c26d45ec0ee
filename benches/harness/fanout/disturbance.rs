//! Echoes of other connections while a crowd is delivered to.

use std::io;
use std::time::{Duration, Instant};

use super::crowd::Crowd;
use super::delivery::{Order, Waiting};
use crate::exchange::{EchoLoad, Outcome, TWENTY_BYTES};
use crate::paced::PacedLoad;
use crate::servers::Server;
use crate::weather::{self, OPEN_CONNECTIONS, Weather};

/// Publications a second where they are paced.
pub const PUBLICATIONS_PER_SECOND: u32 = 20;
/// The bytes of one.
const PAYLOAD_BYTES: usize = 100;
/// Before the echoes, so that deliveries are under way; and behind them at least.
const MARGIN: Duration = Duration::from_millis(500);

/// What the crowd hears meanwhile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Din {
    Nothing,
    Paced,
    /// The next publication when everybody has the last one.
    FlatOut,
}

impl Din {
    pub const ALL: [Self; 3] = [Self::Nothing, Self::Paced, Self::FlatOut];

    /// What the report calls it.
    pub fn title(self) -> String {
        match self {
            Self::Nothing => "undisturbed".into(),
            Self::Paced => format!("{PUBLICATIONS_PER_SECOND} publications/s"),
            Self::FlatOut => "as fast as delivered".into(),
        }
    }
}

/// How the echoes fared.
pub struct Echoes {
    /// By the plan; its storm are deliveries.
    pub planned: Weather,
    /// Each one when the last is answered.
    pub closed: Outcome,
}

impl Echoes {
    /// p99 in microseconds: by the plan, and of the closed loop.
    pub fn p99_us(&self) -> [f64; 2] {
        [
            self.planned.p99_us(),
            self.closed.latency.value_at_quantile(0.99) as f64 / 1000.0,
        ]
    }
}

/// The connections that echo, beside a crowd at the same server.
pub struct Bystanders<'a> {
    server: &'a Server,
    crowd: &'a mut Crowd,
    planned: PacedLoad<EchoLoad>,
    closed: EchoLoad,
    real_time: bool,
}

impl<'a> Bystanders<'a> {
    /// # Errors
    /// What the kernel refuses, and what the server does.
    pub fn new(server: &'a Server, crowd: &'a mut Crowd, real_time: bool) -> io::Result<Self> {
        let open = || EchoLoad::open(&server.endpoint, OPEN_CONNECTIONS, TWENTY_BYTES);
        Ok(Self {
            server,
            crowd,
            planned: weather::paced(open()?),
            closed: open()?,
            real_time,
        })
    }

    /// Echoes for `duration` by the plan and for as long in the closed loop.
    ///
    /// # Errors
    /// A message or a publication is lost or changed, or the echoes took longer than the din.
    pub fn among(&mut self, din: Din, duration: Duration) -> io::Result<Echoes> {
        let interval = match din {
            Din::Nothing => {
                self.server.settle()?;
                return self.echo(duration);
            }
            Din::Paced => Duration::from_secs(1) / PUBLICATIONS_PER_SECOND,
            Din::FlatOut => Duration::ZERO,
        };
        let order = Order {
            in_flight: 1,
            payload_bytes: PAYLOAD_BYTES,
            duration: 3 * duration + 2 * MARGIN,
            interval,
            waiting: Waiting::Asleep,
        };
        let begin = Instant::now();
        self.crowd.order(order)?;
        std::thread::sleep(MARGIN);
        let mut echoes = self.echo(duration)?;
        let took = begin.elapsed();
        let delivered = self.crowd.delivered()?;
        if took > order.duration {
            return Err(io::Error::other(
                "the echoes took longer than the deliveries",
            ));
        }
        echoes.planned.storm_rate = delivered.count as f64 / delivered.wall.as_secs_f64();
        Ok(echoes)
    }

    fn echo(&mut self, duration: Duration) -> io::Result<Echoes> {
        let planned = Weather::of(self.server, &mut self.planned, duration, self.real_time)?;
        let closed = self.closed.run(duration)?;
        Ok(Echoes { planned, closed })
    }
}

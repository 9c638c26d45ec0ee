//! The crowd as the benchmark sees it: a process that answers lines with lines.

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::delivery::{Delivered, Order};
use super::standing::Spread;
use super::words::Dialect;
use crate::exchange::Outcome;
use crate::machine;
use crate::measure::Client;

/// What a crowd says once it is there, and once it has subscribed.
pub const READY: &str = "ready";

/// A process with a crowd in it, killed when dropped. It runs on its starter's core.
pub struct Crowd {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Crowd {
    /// A publisher and its subscribers, all subscribed.
    ///
    /// # Errors
    /// It does not start, and what the server does.
    pub fn audience(
        program: &str,
        server: SocketAddr,
        dialect: Dialect,
        members: usize,
    ) -> io::Result<Self> {
        let words = [
            "audience".into(),
            server.to_string(),
            dialect.name().into(),
            members.to_string(),
        ];
        Self::start(program, &words)
    }

    /// Connections that have not subscribed yet.
    ///
    /// # Errors
    /// Those of [`Self::audience`].
    pub fn standing(program: &str, server: SocketAddr, spread: Spread) -> io::Result<Self> {
        let words = [
            "standing".into(),
            server.to_string(),
            spread.connections.to_string(),
            spread.subscriptions.to_string(),
            spread.channels.to_string(),
        ];
        Self::start(program, &words)
    }

    fn start(program: &str, words: &[String]) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // SAFETY: a plain system call, which a forked child may make.
        unsafe {
            command.pre_exec(machine::die_with_parent);
        }
        let mut child = command.spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (orders, answers) = pipes.ok_or(io::ErrorKind::BrokenPipe)?;
        let answers = BufReader::new(answers);
        let mut crowd = Self {
            child,
            orders,
            answers,
        };
        crowd.is_ready()?;
        Ok(crowd)
    }

    fn is_ready(&mut self) -> io::Result<()> {
        match self.hear()?.as_str() {
            READY => Ok(()),
            other => Err(io::Error::other(format!("the crowd says {other:?}"))),
        }
    }

    /// Has the audience begin with an order. [`Self::delivered`] waits for its end.
    ///
    /// # Errors
    /// The crowd is gone.
    pub fn order(&mut self, order: Order) -> io::Result<()> {
        self.tell(&order.to_line())
    }

    /// # Errors
    /// The crowd is gone, which it has explained itself.
    pub fn delivered(&mut self) -> io::Result<Delivered> {
        Delivered::from_line(&self.hear()?)
    }

    /// Has standing connections subscribe, and waits until they have.
    ///
    /// # Errors
    /// The crowd is gone.
    pub fn subscribe(&mut self) -> io::Result<()> {
        self.tell("subscribe")?;
        self.is_ready()
    }

    /// The frames that standing connections have got since they subscribed.
    ///
    /// # Errors
    /// The crowd is gone.
    pub fn frames(&mut self) -> io::Result<u64> {
        self.tell("count")?;
        self.hear()?.parse().map_err(io::Error::other)
    }

    /// The order as a load, for the time that it is given.
    pub fn under(&mut self, order: Order) -> Ordered<'_> {
        Ordered { crowd: self, order }
    }

    fn tell(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.orders, "{line}")
    }

    fn hear(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.answers.read_line(&mut line)? {
            0 => Err(io::Error::other("the crowd is gone")),
            _ => Ok(line.trim_end().to_owned()),
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // Either fails only when the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A crowd and what it is to do.
pub struct Ordered<'a> {
    crowd: &'a mut Crowd,
    order: Order,
}

impl Client for Ordered<'_> {
    fn run(&mut self, duration: Duration) -> io::Result<Outcome> {
        self.crowd.order(Order {
            duration,
            ..self.order
        })?;
        let delivered = self.crowd.delivered()?;
        Ok(Outcome {
            count: delivered.count,
            wall: delivered.wall,
            latency: delivered.latency,
        })
    }
}

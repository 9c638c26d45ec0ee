//! Taking connections in: in batches, politely refusing what is too much, and never spinning when
//! the machine has no more to give.

use std::{fs::File, io, net::SocketAddr, time::Duration};

use mio::{
    Registry, Token,
    net::{TcpListener, TcpStream},
};

use super::{Mail, Reactor, admission::Place};
use crate::{
    connection::{Connection, Flags, Link, Stage},
    handler::{Handler, Reason, Refusal},
    metrics::Operation,
    transport::Transport,
    wheel::{TICK_MS, Tick},
};

/// How long a listener rests after the system refused a descriptor or memory.
const REST: Duration = Duration::from_millis(200);

/// A listening socket of one reactor.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    /// Of the admin side.
    is_admin: bool,
    is_tls: bool,
    /// An edge was seen and the queue not yet found empty.
    pub is_pending: bool,
    resting_until: Option<Tick>,
}

impl Listener {
    pub fn new(socket: TcpListener) -> Self {
        Self {
            socket,
            is_admin: false,
            is_tls: false,
            is_pending: false,
            resting_until: None,
        }
    }

    /// One of the admin side.
    pub fn admin(mut self) -> Self {
        self.is_admin = true;
        self
    }

    /// One whose connections begin with a TLS handshake.
    pub fn tls(mut self) -> Self {
        self.is_tls = true;
        self
    }

    /// What is known of its connections before they said anything.
    fn flags(&self) -> Flags {
        let mut flags = Flags::default();
        if self.is_admin {
            flags.set(Flags::ADMIN);
        }
        if self.is_tls {
            flags.set(Flags::HANDSHAKING);
        }
        flags
    }

    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.socket, token, mio::Interest::READABLE)
    }

    pub fn is_resting(&self) -> bool {
        self.resting_until.is_some()
    }
}

/// One descriptor kept back, to be spent on telling a peer that there are none left. That peer
/// keeps it until the listener has rested: closed at once, its request would meet a reset.
#[derive(Debug)]
pub enum Spare {
    Kept { _descriptor: Option<File> },
    Spent(Transport),
}

impl Spare {
    const NONE: Self = Self::Kept { _descriptor: None };

    pub fn new() -> Self {
        let _descriptor = File::open("/dev/null").ok();
        Self::Kept { _descriptor }
    }

    /// Frees the descriptor, with what its peer has sent meanwhile.
    fn free(&mut self, buffer: &mut [u8]) {
        if let Self::Spent(mut transport) = std::mem::replace(self, Self::NONE) {
            // Whatever it was, nobody wants to know it.
            let _ = transport.receive(buffer);
        }
    }

    fn take_back(&mut self, buffer: &mut [u8]) {
        if let Self::Spent(_) = self {
            self.free(buffer);
            *self = Self::new();
        }
    }
}

impl<H: Handler> Reactor<H> {
    /// Takes what waits at the listeners, up to the budget.
    pub(super) fn accept(&mut self) {
        let mut budget = self.core.settings.accept_budget;
        for index in 0..self.listeners.len() {
            let now = self.core.now;
            let listener = &mut self.listeners[index];
            if listener.resting_until.is_some_and(|until| until <= now) {
                listener.resting_until = None;
                self.spare.take_back(&mut self.core.buffer);
            }
            let flags = listener.flags();
            while budget > 0 && self.listeners[index].is_pending {
                if self.listeners[index].is_resting() || !self.has_slot() {
                    break;
                }
                budget -= 1;
                match self.listeners[index].socket.accept() {
                    Ok((stream, remote)) if self.hand_to.is_empty() => {
                        self.admit(stream, remote, flags);
                    }
                    Ok((stream, remote)) => self.hand_over(stream, remote, flags),
                    Err(error) => self.accept_failed(index, &error),
                }
            }
        }
    }

    /// Whether somebody waits at a listener who could be taken in now. With even the slots for
    /// refusals taken, newcomers wait in the backlog until one is free.
    pub(super) fn has_newcomers(&self) -> bool {
        let mut listeners = self.listeners.iter();
        self.has_slot() && listeners.any(|listener| listener.is_pending && !listener.is_resting())
    }

    /// Whether one more may come in, be it to be told that it may not.
    fn has_slot(&self) -> bool {
        let guests_may = self.core.has_guest_slot() || !self.core.gate.is_full();
        guests_may && !self.connections.is_full()
    }

    /// Reactor 0 keeps its own share and hands the others theirs, in turn.
    fn hand_over(&mut self, stream: TcpStream, remote: SocketAddr, flags: Flags) {
        self.handed = (self.handed + 1) % (self.hand_to.len() + 1);
        match self.handed.checked_sub(1) {
            None => self.admit(stream, remote, flags),
            Some(other) => self.hand_to[other].send(Mail::Socket(stream, remote, flags)),
        }
    }

    /// Gives a socket a slot and a handshake deadline.
    pub(super) fn admit(&mut self, stream: TcpStream, remote: SocketAddr, flags: Flags) {
        #[cfg(not(target_os = "linux"))]
        let _ = stream.set_nodelay(true);
        if self.shutdown.is_some() {
            return;
        }
        let Some(place) = self.core.place(remote, flags) else {
            return;
        };
        let ticket = place.ticket;
        if self.seat(stream, flags, place).is_none() {
            self.core.forfeit(ticket);
        }
    }

    /// Puts a connection into a slot; `None` if there is none for it, or no use in it.
    fn seat(&mut self, stream: TcpStream, mut flags: Flags, place: Place) -> Option<()> {
        let core = &mut self.core;
        let transport = core.transport(stream, flags)?;
        // Those on their way out sit in the slots for refusals: they take nobody's place.
        let counted = self.connections.len() - core.guests;
        let seats = self.connections.capacity() - core.settings.shed_slots;
        let has_room = counted < seats && core.gate.enter();
        if has_room {
            flags.set(Flags::COUNTED);
        }
        let mut link = Link::new(transport, flags, core.now);
        link.shed = match has_room {
            true => place.refusal,
            false => Some(Reason::ConnectionCap),
        };
        if place.is_trusted && core.settings.proxy_protocol {
            link.stage = Stage::Preamble;
        }
        let Ok(key) = self.connections.insert(Connection { link, state: None }) else {
            // Only a socket that another reactor handed over can find every slot taken.
            if has_room {
                core.gate.leave();
            }
            core.block.refused.add(Reason::ConnectionCap as usize);
            return None;
        };
        core.block.sockets.add(1);
        if !has_room {
            core.guests += 1;
            core.note_connection_cap();
        }
        let connection = self.connections.get_mut(key)?;
        core.visitors.come(key.slot, place.ticket, place.is_trusted);
        let transport = &mut connection.link.transport;
        if let Err(error) = transport.register(self.poll.registry(), key.to_token()) {
            core.block.io_error(Operation::Accept);
            log::debug!("cannot register a connection error=\"{error}\"");
            core.bury(key, connection);
        } else {
            core.rearm(key, &mut connection.link);
        }
        Some(())
    }

    fn accept_failed(&mut self, index: usize, error: &io::Error) {
        if error.kind() == io::ErrorKind::WouldBlock {
            self.listeners[index].is_pending = false;
            return;
        }
        // The peer gave up while it waited in the queue: the next one may not have.
        let gone = [io::ErrorKind::ConnectionAborted, io::ErrorKind::Interrupted];
        if gone.contains(&error.kind()) {
            return;
        }
        self.core.block.io_error(Operation::Accept);
        let exhausted = matches!(
            error.raw_os_error(),
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
        );
        if self.core.throttles.descriptors.allow(self.core.now) {
            log::warn!(
                "cannot accept error=\"{error}\" connections={} remedy=\"raise ulimit -n\"",
                self.connections.len()
            );
        }
        if exhausted {
            self.refuse_with_spare(index);
        }
        self.rest(index);
    }

    /// Frees the spare descriptor and spends it on one 503.
    fn refuse_with_spare(&mut self, index: usize) {
        self.spare.free(&mut self.core.buffer);
        if let Ok((stream, _)) = self.listeners[index].socket.accept() {
            if self.listeners[index].is_tls {
                // A word to it would cost a handshake first.
                self.core.block.refused.add(Reason::Descriptors as usize);
                self.spare = Spare::Spent(Transport::new(stream));
                return;
            }
            let mut answer = Vec::new();
            let refusal = Refusal::from(Reason::Descriptors);
            let server = self.core.settings.server_header.as_deref();
            refusal.response().encode(&mut answer, server, false, false);
            // One attempt: the socket is new, so its buffer takes this much.
            let mut transport = Transport::new(stream);
            let seal = self.core.cork.seal();
            if transport.send(&answer, seal).is_ok() {
                let _ = transport.finish(seal);
            }
            self.core.block.refused.add(Reason::Descriptors as usize);
            self.spare = Spare::Spent(transport);
        } else {
            self.spare = Spare::new();
        }
    }

    fn rest(&mut self, index: usize) {
        let ticks = (REST.as_millis() as u64 / TICK_MS) as Tick;
        self.listeners[index].resting_until = Some(self.core.now + ticks);
    }
}

//! The reactor: one thread, one loop, the connections it alone owns.
//!
//! A turn is `wait -> accept -> read -> mail -> expire -> deliver -> flush -> reap`, each a
//! function. Replies leave at the end of the read that caused them, from the shared cork, while
//! everything about that connection is hot; `flush` is for sockets that had refused bytes. Slots
//! are freed only in `reap`, so no key changes its meaning inside a turn.
//!
//! [`Reactor`] holds the slab, [`Core`] everything else: so a connection can be borrowed from the
//! one while the other works on it, and every way to touch a connection is [`Reactor::visit`].

mod accept;
mod admission;
mod buffers;
mod channels;
mod clock;
mod deliver;
mod expire;
mod finish;
mod http;
mod orders;
mod rates;
mod read;
mod refusals;
mod revoke;
mod secure;
mod settings;
mod shutdown;
mod throttle;
mod turns;

use std::{
    collections::{VecDeque, hash_map::RandomState},
    hash::BuildHasher,
    io,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

pub use accept::Listener;
use accept::Spare;
use mio::{Events, Poll, Token};
use orders::Outbound;
use revoke::Sweep;
pub use settings::{Settings, TICKS_PER_SECOND};
use shutdown::Closing;
pub use shutdown::Shutdown;
use throttle::Throttles;
use turns::Turns;

use crate::{
    connection::{Connection, Cork, Flags, Held, Link, Visitors},
    gate::{Gate, token::Revocation},
    handler::{ConnId, Handler, Heard, Order, Peer},
    hub::{self, MailBytes, Share},
    mailbox::{Mailbox, Sender},
    metrics::Block,
    slots::{Key, Slots},
    transport::tls::Certificates,
    wheel::{Tick, Wheel},
};

/// The token of the mailbox; listeners count from 0.
pub const MAIL: Token = Token(u32::MAX as usize);

/// Readiness events taken from the kernel in one turn. A turn of nothing but handshakes, or closes,
/// then takes the processor for some milliseconds.
const EVENTS_MAX: usize = 256;

/// Sends to sockets that had refused bytes, in one turn.
const FLUSHES_PER_TURN_MAX: usize = 1024;

/// The shared receive buffer. Only what was ever received at once is backed by memory.
const RECEIVE_BYTES: usize = 128 * 1024;

/// The first tick: far enough from 0 that a jittered past still is a tick.
const FIRST_TICK: Tick = 1 << 24;

/// What one thread may ask of a reactor.
#[derive(Debug)]
pub enum Mail {
    /// A socket that another reactor accepted.
    Socket(mio::net::TcpStream, SocketAddr, Flags),
    /// Certificates to show to newcomers from now on.
    Certificates(Arc<Certificates>),
    /// Tokens that count no more.
    Revoked(Arc<Revocation>),
    /// Stop accepting, close every connection, end.
    Shutdown(Shutdown),
    /// What reactors say to each other about channels.
    Hub(hub::Mail<ConnId>),
    /// What goes to connections directly, and questions about them.
    Order(Order),
    /// What a request of this reactor asked for.
    Counted(ConnId, Heard),
}

/// What a reactor is made of, prepared on the main thread.
pub struct Parts<H: Handler> {
    pub id: u16,
    pub poll: Poll,
    pub mailbox: Mailbox<Mail>,
    pub listeners: Vec<Listener>,
    /// Where accepted sockets go in turn; empty when this reactor keeps them.
    pub hand_to: Vec<Sender<Mail>>,
    /// All reactors by their number, this one included.
    pub reactors: Vec<Sender<Mail>>,
    pub mail_bytes: Arc<MailBytes>,
    pub hub_limits: hub::Limits,
    pub handler: H,
    pub settings: Settings,
    pub gate: Arc<Gate>,
    pub block: Arc<Block>,
    /// What TLS listeners show.
    pub certificates: Option<Arc<Certificates>>,
}

/// One event loop and its connections. See the module's text.
pub struct Reactor<H: Handler> {
    poll: Poll,
    events: Events,
    mailbox: Mailbox<Mail>,
    mailed: bool,
    listeners: Vec<Listener>,
    hand_to: Vec<Sender<Mail>>,
    handed: usize,
    spare: Spare,
    connections: Slots<Connection<H::State>>,
    shutdown: Option<Closing>,
    core: Core<H>,
}

/// Everything of a reactor but its connections.
struct Core<H: Handler> {
    id: u16,
    /// All reactors by their number, this one included.
    reactors: Vec<Sender<Mail>>,
    handler: H,
    settings: Settings,
    gate: Arc<Gate>,
    block: Arc<Block>,
    wheel: Wheel,
    cork: Cork,
    hub: Share<ConnId>,
    buffer: Vec<u8>,
    visitors: Visitors,
    held: Held,
    /// Revoked tokens whose connections are looked for.
    sweep: Option<Box<Sweep>>,
    outbound: Outbound,
    /// When the connection in each slot was opened; only kept where somebody may ask.
    opened: Vec<Tick>,
    /// Connections that are owed a read without an event.
    ready: Vec<Key>,
    /// Connections with a step of their TLS handshake to be done.
    greetings: VecDeque<Key>,
    certificates: Option<Arc<Certificates>>,
    /// Connections whose socket may take bytes again.
    unflushed: Vec<Key>,
    /// Connections to be freed at the end of the turn.
    dead: Vec<Key>,
    /// Connections that hold buffers, perhaps no longer.
    holders: Vec<Key>,
    /// Connections that the cap does not count: refused, or on their way out.
    guests: usize,
    /// Change of the buffered bytes that the gate does not know yet.
    buffered: isize,
    /// The most bytes that were buffered since the allocator was last trimmed.
    buffered_peak: u64,
    now: Tick,
    turns: Turns,
    throttles: Throttles,
    random: u64,
}

impl<H: Handler> Reactor<H> {
    /// Puts a reactor together, on the thread that will run it.
    pub fn new(parts: Parts<H>) -> io::Result<Self> {
        let Parts {
            id,
            poll,
            mailbox,
            mut listeners,
            hand_to,
            reactors,
            mail_bytes,
            hub_limits,
            handler,
            settings,
            gate,
            block,
            certificates,
        } = parts;
        let connections = Slots::with_capacity(settings.slots)
            .map_err(|error| io::Error::new(io::ErrorKind::OutOfMemory, error))?;
        for (index, listener) in listeners.iter_mut().enumerate() {
            listener.register(poll.registry(), Token(index))?;
        }
        let turns = Turns::new(settings.turn_cpu);
        let seed = RandomState::new().hash_one(id);
        let keeps = settings.keeps_visitors;
        let visitors = Visitors::new(Arc::clone(&gate), keeps, settings.slots);
        let core = Core {
            id,
            reactors,
            handler,
            wheel: Wheel::new(FIRST_TICK, settings.slots),
            settings,
            gate,
            hub: Share::new(id, hub_limits, mail_bytes, Arc::clone(&block), seed),
            block,
            cork: Cork::with_capacity(4096),
            buffer: vec![0; RECEIVE_BYTES],
            visitors,
            held: Held::default(),
            sweep: None,
            outbound: Outbound::default(),
            opened: Vec::new(),
            ready: Vec::new(),
            greetings: VecDeque::new(),
            certificates,
            unflushed: Vec::new(),
            dead: Vec::new(),
            holders: Vec::new(),
            guests: 0,
            buffered: 0,
            buffered_peak: 0,
            now: FIRST_TICK,
            turns,
            throttles: Throttles::default(),
            random: 0x9e37_79b9_7f4a_7c15 ^ (u64::from(id) + 1) << 32,
        };
        Ok(Self {
            events: Events::with_capacity(EVENTS_MAX),
            poll,
            mailbox,
            mailed: false,
            listeners,
            hand_to,
            handed: 0,
            spare: Spare::new(),
            connections,
            shutdown: None,
            core,
        })
    }

    /// Runs until a shutdown is complete.
    pub fn run(mut self) -> io::Result<()> {
        while !self.is_done() {
            self.turn()?;
        }
        self.abandon_rest();
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        self.wait()?;
        self.accept();
        self.read();
        self.mail();
        self.expire();
        self.deliver();
        self.flush();
        self.reap();
        self.measure();
        Ok(())
    }

    /// Sleeps until there is something to do, and reads the clock: the only time in this turn.
    fn wait(&mut self) -> io::Result<()> {
        self.core.post();
        let timeout = self.timeout();
        match self.poll.poll(&mut self.events, timeout) {
            // A signal is no event; the turn goes on without one.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            result => result?,
        }
        self.core.turns.begin();
        self.core.now = self.tick();
        for event in &self.events {
            if event.token() == MAIL {
                self.mailed = true;
            } else if let Some(listener) = self.listeners.get_mut(event.token().0) {
                listener.is_pending = true;
            }
        }
        Ok(())
    }

    /// Every socket that has something to say, then those that had more than their share.
    fn read(&mut self) {
        let owed = std::mem::take(&mut self.core.ready);
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            let Some(key) = Key::from_token(event.token()) else {
                continue;
            };
            let readable = event.is_readable() || event.is_read_closed() || event.is_error();
            if event.is_writable() && !readable {
                self.note_writable(key);
                continue;
            }
            let ended = event.is_read_closed() || event.is_error();
            let writable = event.is_writable();
            self.visit(key, |core, key, connection| {
                if ended {
                    connection.link.flags.set(Flags::READ_CLOSED);
                }
                if writable && connection.link.has_backlog() {
                    core.want_flush(key, &mut connection.link);
                }
                if connection.link.flags.has(Flags::HANDSHAKING) {
                    core.want_read(key, &mut connection.link);
                } else {
                    core.receive(key, connection);
                }
            });
        }
        self.events = events;
        for key in owed {
            self.visit(key, |core, key, connection| {
                connection.link.flags.clear(Flags::READY);
                core.receive(key, connection);
            });
        }
        self.greet();
    }

    /// A writable edge alone matters only to a connection with something to send.
    fn note_writable(&mut self, key: Key) {
        if let Some(connection) = self.connections.get_mut(key)
            && connection.link.has_backlog()
        {
            self.core.want_flush(key, &mut connection.link);
        }
    }

    /// Sockets that take bytes again.
    fn flush(&mut self) {
        let mut waiting = std::mem::take(&mut self.core.unflushed);
        let later = waiting.split_off(waiting.len().min(FLUSHES_PER_TURN_MAX));
        for key in waiting.drain(..) {
            self.visit(key, |core, key, connection| {
                connection.link.flags.clear(Flags::UNFLUSHED);
                core.flush(key, connection);
            });
        }
        self.core.unflushed.extend(later);
        self.advance_shutdown();
        self.evict();
    }

    /// Does something with a connection, if it is still there: the only way to touch one. A panic
    /// of the handler ends that connection; buffers are accounted for and what follows from the
    /// call (pausing, resuming, ending) is settled.
    fn visit(
        &mut self,
        key: Key,
        action: impl FnOnce(&mut Core<H>, Key, &mut Connection<H::State>),
    ) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if connection.link.is_dead() {
            return;
        }
        let core = &mut self.core;
        let before = connection.link.buffered_bytes();
        let result = catch_unwind(AssertUnwindSafe(|| action(core, key, connection)));
        if result.is_err() {
            core.recover(key, connection);
        }
        core.settle(key, connection);
        let after = connection.link.buffered_bytes();
        core.buffered += after.cast_signed() - before.cast_signed();
        if after > 0 && connection.link.flags.raise(Flags::HOLDER) {
            core.holders.push(key);
        }
    }

    /// Looks back at the turn: was it too long, as the ones before it?
    fn measure(&mut self) {
        let core = &mut self.core;
        core.turns
            .end(core.now, core.settings.shed_turn, &core.block);
        core.publish_buffered();
        core.block.mail_bytes.set(core.hub.mail_bytes());
    }
}

impl<H: Handler> Core<H> {
    fn conn_id(&self, key: Key) -> ConnId {
        ConnId::new(self.id, key)
    }

    /// The handler, and the connection as it sees it.
    #[inline]
    fn introduce<'a>(&'a mut self, key: Key, link: &'a mut Link) -> (&'a mut H, Peer<'a>) {
        let id = self.conn_id(key);
        let peer = Peer {
            id,
            link,
            cork: &mut self.cork,
            hub: &mut self.hub,
            visitors: &mut self.visitors,
            held: &mut self.held,
            block: &self.block,
            now: self.now,
        };
        (&mut self.handler, peer)
    }

    /// Notes when the connection in this slot was opened.
    fn note_opening(&mut self, slot: u32) {
        if self.settings.keeps_openings {
            let index = slot as usize;
            if self.opened.len() <= index {
                self.opened.resize(index + 1, 0);
            }
            self.opened[index] = self.now;
        }
    }

    /// A number that need not be secret: spreads timers.
    fn random_below(&mut self, bound: Tick) -> Tick {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 33) as Tick % bound.max(1)
    }
}

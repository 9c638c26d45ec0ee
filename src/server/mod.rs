//! From a configuration to running reactors, and back to a clean exit.
//!
//! [`Server::start`] fits the configuration to the machine, makes every poll and mailbox on the
//! calling thread, and starts one thread a reactor. [`run`] is the same for a program that has
//! nothing else to do: it stops on SIGTERM and SIGINT.

mod certificates;
mod keys;
mod publisher;
mod reload;
mod ring;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use mio::{Poll, net::TcpListener};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};
use thiserror::Error;

pub use publisher::Publisher;

use self::{certificates::Keeper, reload::Reload, ring::KeyRing};
use crate::{
    config::{Accept, Config, ConfigError, Machine, Plan},
    gate::{Bounds, Gate, Policy, token::KeyError},
    handler::{Handler, Reason},
    hub::{self, MailBytes},
    mailbox::{Mailbox, Sender},
    metrics::{Labels, REASONS_MAX, Registry},
    reactor::{Listener, MAIL, Mail, Parts, Reactor, Settings, Shutdown, TICKS_PER_SECOND},
    sys,
    transport::{
        listen,
        tls::{Certificates, CertificatesError},
    },
};

/// How long a shutdown may overrun its own times before a reactor is given up.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Why a server did not start, or did not go on.
#[derive(Debug, Error)]
pub enum ServerError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(
        "{0} is in use: stop the server that listens there, choose another address with \
         TIDEMILL_LISTEN, or share the port with TIDEMILL_TAKEOVER=true"
    )]
    PortInUse(SocketAddr),
    #[error(
        "cannot listen on {address}: {source}; TIDEMILL_LISTEN, TIDEMILL_TLS_LISTEN and \
         TIDEMILL_ADMIN_LISTEN take addresses of this machine and ports that this user may open"
    )]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("cannot {action}: {source}")]
    System {
        action: &'static str,
        source: io::Error,
    },
    #[error("a reactor ended unexpectedly")]
    ReactorLost,
}

impl From<KeyError> for ServerError {
    fn from(error: KeyError) -> Self {
        Self::Config(ConfigError::File(error.to_string()))
    }
}

impl From<CertificatesError> for ServerError {
    fn from(error: CertificatesError) -> Self {
        Self::Config(ConfigError::File(error.to_string()))
    }
}

fn system(action: &'static str) -> impl FnOnce(io::Error) -> ServerError {
    move |source| ServerError::System { action, source }
}

/// Runs a server until SIGTERM or SIGINT, then shuts it down in order: everyone gets a Close with
/// 1001, paced over the drain time. A second signal ends the process at once.
///
/// `make` makes the handler of each reactor, on that reactor's thread.
///
/// # Errors
/// A configuration that does not fit, an address that cannot be listened on, a system that
/// refuses what is needed.
pub fn run<H, F>(config: &Config, make: F) -> Result<(), ServerError>
where
    H: Handler,
    F: Fn(&Arc<Registry>) -> H + Send + Sync + 'static,
{
    let server = Server::start(config, make)?;
    let config = config.clone();
    server.stop_on_signals(move || Ok(config.clone()))?;
    server.join()
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    plan: Plan,
    listen: Vec<SocketAddr>,
    tls_listen: Vec<SocketAddr>,
    admin_listen: Vec<SocketAddr>,
    reload: Option<mpsc::Sender<Config>>,
    descriptors: (sys::DescriptorLimit, sys::DescriptorLimit),
    gate: Arc<Gate>,
    registry: Arc<Registry>,
    shutdown: Shutdown,
    mail: Vec<Sender<Mail>>,
    mail_bytes: Arc<MailBytes>,
    hub_limits: hub::Limits,
    threads: Vec<JoinHandle<()>>,
    ended: mpsc::Receiver<(u16, Result<(), ServerError>)>,
}

/// The addresses that reactor 0 really listens on: with port 0 the kernel chose.
#[derive(Clone, Debug, Default)]
struct Bound {
    listen: Vec<SocketAddr>,
    tls: Vec<SocketAddr>,
    admin: Vec<SocketAddr>,
}

impl Server {
    /// Starts the reactors; returns once all of them listen.
    ///
    /// # Errors
    /// See [`run`].
    pub fn start<H, F>(config: &Config, make: F) -> Result<Self, ServerError>
    where
        H: Handler,
        F: Fn(&Arc<Registry>) -> H + Send + Sync + 'static,
    {
        let plan = config.plan(&machine()?)?;
        let before = sys::descriptor_limit().map_err(system("read the descriptor limit"))?;
        let after = sys::raise_descriptor_limit(plan.descriptors_limit)
            .map_err(system("raise the descriptor limit"))?;
        if !config.takeover {
            for address in plan.addresses() {
                listen::probe(*address).map_err(|error| listen_error(*address, error))?;
            }
        }
        let ring = KeyRing::new(config)?;
        let gate = Arc::new(gate(config, &plan, &ring));
        let registry = Arc::new(Registry::new(plan.reactors, labels::<H>(config)));
        let keeper = Keeper::start(config, &registry)?;
        let certificates = keeper.as_ref().map(|keeper| Arc::clone(keeper.current()));
        let mut boxes = Vec::with_capacity(plan.reactors);
        for _ in 0..plan.reactors {
            let poll = Poll::new().map_err(system("create a poll"))?;
            let mailbox = Mailbox::new(&poll, MAIL).map_err(system("create a waker"))?;
            boxes.push((poll, mailbox));
        }
        let mail: Vec<_> = boxes.iter().map(|(_, mailbox)| mailbox.sender()).collect();
        let (end, ended) = mpsc::channel();
        let mut server = Self {
            listen: Vec::new(),
            tls_listen: Vec::new(),
            admin_listen: Vec::new(),
            reload: None,
            descriptors: (before, after),
            gate: Arc::clone(&gate),
            registry: Arc::clone(&registry),
            shutdown: Shutdown {
                drain_time: config.drain_time,
                close_timeout: config.close_timeout,
            },
            mail: mail.clone(),
            mail_bytes: Arc::new(MailBytes::new(plan.reactors, config.mail_bytes_max)),
            hub_limits: hub_limits(config, &plan),
            threads: Vec::with_capacity(plan.reactors),
            ended,
            plan,
        };
        let launch = Launch {
            config: config.clone(),
            plan: server.plan.clone(),
            settings: Settings::new(config, &server.plan, Instant::now()),
            gate,
            registry,
            mail: mail.clone(),
            mail_bytes: Arc::clone(&server.mail_bytes),
            hub_limits: server.hub_limits,
            certificates,
        };
        server.launch(launch, boxes, Arc::new(make), &end)?;
        let reload = Reload {
            config: config.clone(),
            gate: Arc::clone(&server.gate),
            registry: Arc::clone(&server.registry),
            is_loopback_only: server.plan.is_loopback_only(),
            mail,
            keeper,
            ring,
        };
        server.reload = Some(reload.watch()?);
        Ok(server)
    }

    /// Reactor 0 first: the others listen where it does.
    fn launch<H, F>(
        &mut self,
        launch: Launch,
        boxes: Vec<(Poll, Mailbox<Mail>)>,
        make: Arc<F>,
        end: &mpsc::Sender<(u16, Result<(), ServerError>)>,
    ) -> Result<(), ServerError>
    where
        H: Handler,
        F: Fn(&Arc<Registry>) -> H + Send + Sync + 'static,
    {
        let launch = Arc::new(launch);
        let mut bound: Option<Bound> = None;
        for (id, (poll, mailbox)) in (0u16..).zip(boxes) {
            let (ready, readiness) = mpsc::channel();
            let (launch, make, end) = (Arc::clone(&launch), Arc::clone(&make), end.clone());
            let where_to = bound.clone();
            let body = move || {
                let outcome = launch
                    .reactor(id, poll, mailbox, where_to, &*make)
                    .and_then(|(reactor, bound)| {
                        // The starter waits for this, or has given up; then a shutdown follows.
                        let _ = ready.send(bound);
                        reactor.run().map_err(system("wait for events"))
                    });
                let _ = end.send((id, outcome));
            };
            let thread = thread::Builder::new()
                .name(format!("reactor-{id}"))
                .spawn(body);
            self.threads.push(thread.map_err(system("start a thread"))?);
            match readiness.recv() {
                Ok(listening) => drop(bound.get_or_insert(listening)),
                Err(_) => return Err(self.failure()),
            }
        }
        let bound = bound.unwrap_or_default();
        self.listen = bound.listen;
        self.tls_listen = bound.tls;
        self.admin_listen = bound.admin;
        Ok(())
    }

    /// Where the server listens, in the order of the configuration.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.listen
    }

    /// Where it listens with TLS.
    pub fn tls_addresses(&self) -> &[SocketAddr] {
        &self.tls_listen
    }

    /// Where the admin side listens.
    pub fn admin_addresses(&self) -> &[SocketAddr] {
        &self.admin_listen
    }

    /// What the configuration became on this machine.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The soft descriptor limit before and after it was raised.
    pub fn descriptor_limits(&self) -> (u64, u64) {
        (self.descriptors.0.soft, self.descriptors.1.soft)
    }

    /// The counters.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Publishes from any thread.
    pub fn publisher(&self) -> Publisher {
        Publisher::new(&self.mail, &self.mail_bytes, self.hub_limits, &self.gate)
    }

    /// Takes over what can change while a server runs: the certificates, as their files are now,
    /// and from `config` the token keys, the API key and the origins. Connections are not
    /// disturbed, and what is wrong stays as it was.
    pub fn reload(&self, config: Config) {
        if let Some(ask) = &self.reload {
            // The thread at the other end lives as long as this server.
            let _ = ask.send(config);
        }
    }

    /// Begins a shutdown: no new connections, a Close with 1001 for everyone.
    pub fn shutdown(&self) {
        shut_down(&self.gate, &self.mail, self.shutdown);
    }

    /// Shuts down upon the first SIGTERM or SIGINT; ends the process upon the second. SIGHUP is
    /// [`Server::reload`] with what `reread` gives.
    ///
    /// # Errors
    /// When the system refuses to register the signals.
    pub fn stop_on_signals(
        &self,
        reread: impl Fn() -> Result<Config, ConfigError> + Send + 'static,
    ) -> Result<(), ServerError> {
        let mut signals =
            Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(system("watch for signals"))?;
        let (gate, mail, shutdown) = (Arc::clone(&self.gate), self.mail.clone(), self.shutdown);
        let (reload, registry) = (self.reload.clone(), Arc::clone(&self.registry));
        let body = move || {
            let mut seen = 0;
            for signal in signals.forever() {
                if signal == SIGHUP {
                    match (reread(), &reload) {
                        (Ok(config), Some(ask)) => drop(ask.send(config)),
                        (Ok(_), None) => {}
                        (Err(error), _) => {
                            registry.reloads().count(false);
                            log::error!("nothing reloaded error=\"{error}\"");
                        }
                    }
                    continue;
                }
                seen += 1;
                if seen > 1 {
                    log::warn!("second signal, ending at once signal={signal}");
                    std::process::exit(128 + signal);
                }
                log::info!(
                    "shutting down signal={signal} connections={}",
                    gate.connections()
                );
                shut_down(&gate, &mail, shutdown);
            }
        };
        let thread = thread::Builder::new()
            .name("signals".to_owned())
            .spawn(body);
        thread.map(drop).map_err(system("start a thread"))
    }

    /// Waits until every reactor has ended.
    ///
    /// # Errors
    /// When a reactor ended although nobody asked for it; the others are shut down then.
    pub fn join(mut self) -> Result<(), ServerError> {
        let mut outcome = Ok(());
        let mut left = self.threads.len();
        while left > 0 {
            let ended = if self.gate.is_draining() {
                let patience = self.shutdown.drain_time + self.shutdown.close_timeout;
                self.ended.recv_timeout(patience + SHUTDOWN_GRACE).ok()
            } else {
                self.ended.recv().ok()
            };
            let Some((id, result)) = ended else {
                return Err(ServerError::ReactorLost);
            };
            left -= 1;
            let asked_for = self.gate.is_draining();
            if outcome.is_ok() && (result.is_err() || !asked_for) {
                log::error!("reactor ended reactor={id}");
                outcome = result.and(Err(ServerError::ReactorLost));
                self.shutdown();
            }
        }
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| ServerError::ReactorLost)?;
        }
        outcome
    }

    /// Why a reactor did not come up; ends those that did.
    fn failure(&mut self) -> ServerError {
        self.shutdown();
        let mut failure = ServerError::ReactorLost;
        while let Ok((_, outcome)) = self.ended.recv_timeout(SHUTDOWN_GRACE) {
            if let Err(error) = outcome {
                failure = error;
                break;
            }
        }
        failure
    }
}

fn gate(config: &Config, plan: &Plan, ring: &KeyRing) -> Gate {
    let bounds = Bounds {
        connections_max: plan.connections_max,
        buffer_bytes_max: plan.buffer_bytes_max,
        ticks_per_second: TICKS_PER_SECOND,
        refusals: Reason::ALL.len(),
    };
    let policy = Policy::new(config, plan.is_loopback_only());
    Gate::new(config, bounds, policy, ring.tokens())
}

/// History may take up half of what all buffers may; what one subscriber missed, half an outbox.
fn hub_limits(config: &Config, plan: &Plan) -> hub::Limits {
    let recovery_max = config.recovery_max.unwrap_or(usize::MAX);
    hub::Limits {
        channel_name_bytes_max: config.channel_name_bytes_max,
        subscriptions_max: config.subscriptions_max,
        recovery_max: u32::try_from(recovery_max).unwrap_or(u32::MAX),
        recovery_bytes_max: config.outbox_bytes_hard() / 2,
        history_bytes_max: (plan.buffer_bytes_max / 2 / plan.reactors) as u64,
    }
}

fn shut_down(gate: &Gate, mail: &[Sender<Mail>], shutdown: Shutdown) {
    gate.drain();
    for sender in mail {
        sender.send(Mail::Shutdown(shutdown));
    }
}

/// What every reactor's thread starts from.
struct Launch {
    config: Config,
    plan: Plan,
    settings: Settings,
    gate: Arc<Gate>,
    registry: Arc<Registry>,
    mail: Vec<Sender<Mail>>,
    mail_bytes: Arc<MailBytes>,
    hub_limits: hub::Limits,
    certificates: Option<Arc<Certificates>>,
}

impl Launch {
    /// Makes a reactor, on its own thread.
    fn reactor<H: Handler>(
        &self,
        id: u16,
        poll: Poll,
        mailbox: Mailbox<Mail>,
        bound: Option<Bound>,
        make: &dyn Fn(&Arc<Registry>) -> H,
    ) -> Result<(Reactor<H>, Bound), ServerError> {
        sys::block_signals();
        if self.config.pin_cores {
            let core = usize::from(id) % thread::available_parallelism().map_or(1, usize::from);
            if let Err(error) = sys::pin_to_core(core) {
                log::warn!("cannot pin a reactor reactor={id} core={core} error=\"{error}\"");
            }
        }
        if self.plan.private_tables {
            // Before this reactor opens anything: see ARCHITECTURE.md, "Descriptor tables".
            sys::unshare_descriptors().map_err(system("get a private descriptor table"))?;
        }
        let handoff = self.config.accept == Accept::Handoff;
        let (listeners, bound) = match bound {
            Some(bound) if handoff => (Vec::new(), bound),
            Some(bound) => (self.listen(&bound)?.0, bound),
            None => {
                let wanted = Bound {
                    listen: self.plan.listen.clone(),
                    tls: self.plan.tls_listen.clone(),
                    admin: self.plan.admin_listen.clone(),
                };
                self.listen(&wanted)?
            }
        };
        let hand_to = if handoff && id == 0 {
            self.mail[1..].to_vec()
        } else {
            Vec::new()
        };
        let reactor = Reactor::new(Parts {
            id,
            poll,
            mailbox,
            listeners,
            hand_to,
            reactors: self.mail.clone(),
            mail_bytes: Arc::clone(&self.mail_bytes),
            hub_limits: self.hub_limits,
            handler: make(&self.registry),
            settings: self.settings.clone(),
            gate: Arc::clone(&self.gate),
            block: Arc::clone(self.registry.block(usize::from(id))),
            certificates: self.certificates.clone(),
        });
        Ok((reactor.map_err(system("set a reactor up"))?, bound))
    }

    fn listen(&self, wanted: &Bound) -> Result<(Vec<Listener>, Bound), ServerError> {
        let options = listen::Options {
            backlog: i32::try_from(self.config.backlog).unwrap_or(i32::MAX),
            share_port: self.config.accept == Accept::Reuseport,
            user_timeout: self.config.tcp_user_timeout,
        };
        let open = |address: SocketAddr| -> Result<(TcpListener, SocketAddr), ServerError> {
            let refused = |error| listen_error(address, error);
            let socket = listen::listen(address, &options).map_err(refused)?;
            let real = socket.local_addr().map_err(refused)?;
            Ok((socket, real))
        };
        let mut listeners = Vec::new();
        let mut bound = Bound::default();
        for address in &wanted.listen {
            let (socket, real) = open(*address)?;
            listeners.push(Listener::new(socket));
            bound.listen.push(real);
        }
        for address in &wanted.tls {
            let (socket, real) = open(*address)?;
            listeners.push(Listener::new(socket).tls());
            bound.tls.push(real);
        }
        for address in &wanted.admin {
            let (socket, real) = open(*address)?;
            listeners.push(Listener::new(socket).admin());
            bound.admin.push(real);
        }
        Ok((listeners, bound))
    }
}

fn listen_error(address: SocketAddr, source: io::Error) -> ServerError {
    match source.kind() {
        io::ErrorKind::AddrInUse => ServerError::PortInUse(address),
        _ => ServerError::Listen { address, source },
    }
}

/// The facts about this machine that a plan depends on.
///
/// # Errors
/// When the system does not tell the descriptor limit.
pub fn machine() -> Result<Machine, ServerError> {
    let limit = sys::descriptor_limit().map_err(system("read the descriptor limit"))?;
    Ok(Machine {
        cores: thread::available_parallelism().map_or(1, usize::from),
        descriptors_soft: limit.soft,
        descriptors_hard: limit.hard.min(sys::descriptors_per_process_max()),
        memory_bytes: sys::memory_bytes(),
        ipv6: listen::has_ipv6(),
        unshare: cfg!(target_os = "linux"),
    })
}

fn labels<H: Handler>(config: &Config) -> Labels {
    debug_assert!(Reason::ALL.len() <= REASONS_MAX);
    let reasons = Reason::ALL
        .iter()
        .map(|reason| (reason.status(), reason.as_str()));
    Labels {
        dialects: H::DIALECTS,
        reasons: reasons.collect(),
        turn_cpu: config.turn_cpu,
        tls: !config.tls_listen.is_empty(),
    }
}

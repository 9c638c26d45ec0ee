//! Listeners: one a reactor and address, sharing the port (SO_REUSEPORT).

use std::{io, net::SocketAddr, time::Duration};

use mio::net::TcpListener;
use socket2::{Domain, Protocol, Socket, Type};

/// Unsent bytes that the kernel keeps for one connection before it calls the socket full. What is
/// beyond waits in our outbox, where it is counted and bounded.
#[cfg(target_os = "linux")]
const NOTSENT_LOWAT_BYTES: u32 = 256 * 1024;

/// How a listener is opened.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Length of the queue of connections that nobody accepted yet; the kernel caps it
    /// (somaxconn).
    pub backlog: i32,
    /// Several listeners on one address, among which the kernel spreads connections by hash.
    pub share_port: bool,
    /// How long sent data may stay unacknowledged before the kernel gives the connection up.
    pub user_timeout: Option<Duration>,
}

/// Opens a listener. Options that every connection needs are set here, once: accepted sockets
/// inherit them.
pub fn listen(address: SocketAddr, options: &Options) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    if options.share_port {
        // FreeBSD spreads connections only over listeners that ask for it by this name.
        #[cfg(target_os = "freebsd")]
        socket.set_reuse_port_lb(true)?;
        #[cfg(not(target_os = "freebsd"))]
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(options.user_timeout)?;
    #[cfg(not(target_os = "linux"))]
    if options.user_timeout.is_some() {
        log::debug!("TIDEMILL_TCP_USER_TIMEOUT has no effect on this system");
    }
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES)?;
    socket.bind(&address.into())?;
    socket.listen(options.backlog)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// Fails when somebody else listens on this address. SO_REUSEPORT would let a second server bind
/// silently and take a share of the connections.
pub fn probe(address: SocketAddr) -> io::Result<()> {
    if address.port() == 0 {
        return Ok(());
    }
    let socket = socket(address)?;
    socket.bind(&address.into())?;
    socket.listen(1)
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of an earlier run in TIME_WAIT do not make the port "in use".
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// Whether this machine has IPv6 at all.
pub fn has_ipv6() -> bool {
    let loopback = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 0));
    Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))
        .is_ok_and(|socket| socket.bind(&loopback.into()).is_ok())
}

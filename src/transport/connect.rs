//! Connections that this side begins.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
};

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

use super::Transport;
use crate::sys;

/// Begins a connection to `address`, from the address `source` where one is given. It is complete
/// once a send succeeds; until then the socket takes nothing, and a refusal is the error of the
/// first send or receive after it.
pub fn connect(address: SocketAddr, source: Option<IpAddr>) -> io::Result<Transport> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source {
        // A port chosen here would be taken from all connections of this source address.
        sys::bind_address_no_port(socket.as_fd())?;
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    Ok(Transport::new(TcpStream::from_std(socket.into())))
}

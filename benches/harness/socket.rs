//! Client sockets: connected, upgraded, and watched.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

/// How long a server may take for anything before the run fails.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A masked Close frame, 1000.
pub const CLOSE: [u8; 8] = [
    0x88,
    0x82,
    MASK[0],
    MASK[1],
    MASK[2],
    MASK[3],
    3 ^ MASK[0],
    232 ^ MASK[1],
];
/// The answer to [`CLOSE`].
pub const CLOSE_REPLY: [u8; 4] = [0x88, 2, 3, 232];

/// The answer to [`echo_request`].
pub const ECHO_REPLY: [u8; 22] = *b"\x82\x14twenty bytes of text";

/// The mask of every frame that the clients send.
pub const MASK: [u8; 4] = [0x5a, 0xc3, 0x96, 0x0f];

const KEY: &str = "dGlkZW1pbGwgYmVuY2hlcw==";

/// Connects a blocking socket, from `source` where one is given: an address has about 28,000 ports.
///
/// # Errors
/// What the kernel refuses.
pub fn connect(server: SocketAddr, source: Option<Ipv4Addr>) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(server),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    socket.connect(&server.into())?;
    Ok(socket)
}

/// Where a server listens, and what a connection sends for its upgrade.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub address: SocketAddr,
    pub request: Vec<u8>,
}

/// What a request has that not every server wants.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Behind the path, `?` included.
    pub query: String,
    /// Whole lines.
    pub headers: String,
}

impl Endpoint {
    /// The endpoint `/echo` of a server.
    pub fn new(address: SocketAddr, credentials: &Credentials) -> Self {
        Self::at(address, "/echo", credentials)
    }

    /// Any other endpoint of a server.
    pub fn at(address: SocketAddr, path: &str, credentials: &Credentials) -> Self {
        let Credentials { query, headers } = credentials;
        let request = format!(
            "GET {path}{query} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\
             {headers}\r\n"
        );
        Self {
            address,
            request: request.into_bytes(),
        }
    }
}

/// Connects and upgrades.
///
/// # Errors
/// What the kernel refuses, and any answer but a proper 101.
pub fn open(server: &Endpoint, source: Option<Ipv4Addr>) -> io::Result<Socket> {
    let mut socket = connect(server.address, source)?;
    socket.write_all(&server.request)?;
    let mut head = Vec::new();
    loop {
        receive_more(&socket, &mut head)?;
        let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let (head, behind) = head.split_at(end + 4);
        return match is_upgrade(head)? && without_pings(behind).is_empty() {
            true => Ok(socket),
            false => Err(io::Error::other(
                "there is more than pings behind the upgrade",
            )),
        };
    }
}

/// Sends one binary message over a blocking socket and waits for it to come back.
///
/// # Errors
/// What the kernel refuses, and any other answer but for pings before it.
pub fn echo(mut socket: &Socket) -> io::Result<()> {
    socket.write_all(&echo_request())?;
    let mut reply = Vec::new();
    while without_pings(&reply).len() < ECHO_REPLY.len() {
        receive_more(socket, &mut reply)?;
    }
    match without_pings(&reply) == ECHO_REPLY {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "a message came back changed: {reply:?}"
        ))),
    }
}

/// A masked binary message of twenty bytes.
pub fn echo_request() -> Vec<u8> {
    let [first, length, payload @ ..] = ECHO_REPLY;
    let masked = payload.iter().zip(MASK.iter().cycle());
    let masked: Vec<_> = masked.map(|(byte, mask)| byte ^ mask).collect();
    [&[first, 0x80 | length][..], &MASK, &masked].concat()
}

/// Says goodbye over a blocking socket and waits for the answer and the end.
///
/// # Errors
/// What the kernel refuses, and any other answer but for pings before it.
pub fn close(mut socket: &Socket) -> io::Result<()> {
    socket.write_all(&CLOSE)?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    match without_pings(&answer) == CLOSE_REPLY {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "no answer to a Close frame: {answer:?}"
        ))),
    }
}

/// The bytes behind the pings that they begin with.
fn without_pings(mut bytes: &[u8]) -> &[u8] {
    while let &[0x89, length, ref rest @ ..] = bytes
        && let Some(behind) = rest.get(usize::from(length)..)
    {
        bytes = behind;
    }
    bytes
}

fn receive_more(mut socket: &Socket, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut room = [0; 2048];
    match socket.read(&mut room)? {
        0 => Err(io::Error::other("the server closed the connection")),
        received => {
            bytes.extend_from_slice(&room[..received]);
            Ok(())
        }
    }
}

/// Whether the complete answer to the request of an [`Endpoint`] is there.
///
/// # Errors
/// It is no 101, has the wrong key, or has bytes behind it.
pub fn is_upgrade(head: &[u8]) -> io::Result<bool> {
    if !head.ends_with(b"\r\n\r\n") {
        return Ok(false);
    }
    // The same key in every request has the same answer, which need not be computed each time.
    static ACCEPT: std::sync::LazyLock<String> =
        std::sync::LazyLock::new(|| tungstenite::handshake::derive_accept_key(KEY.as_bytes()));
    let accepted = head
        .windows(ACCEPT.len())
        .any(|window| window == ACCEPT.as_bytes());
    if head.starts_with(b"HTTP/1.1 101 ") && accepted {
        return Ok(true);
    }
    Err(io::Error::other(format!(
        "no upgrade: {}",
        String::from_utf8_lossy(head)
    )))
}

/// Bytes sent without blocking, 0 when the socket is full.
///
/// # Errors
/// What the kernel refuses.
pub fn send(socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
    match socket.send_with_flags(bytes, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}

/// Bytes received without blocking; `None` when there are none, 0 at the end.
///
/// # Errors
/// What the kernel refuses.
pub fn receive(socket: &Socket, room: &mut [u8], take: Take) -> io::Result<Option<usize>> {
    let flags = match take {
        Take::Bytes => libc::MSG_DONTWAIT,
        Take::Count => libc::MSG_DONTWAIT | libc::MSG_TRUNC,
    };
    // SAFETY: `room` is writable and of the length given.
    let received = unsafe {
        libc::recv(
            socket.as_raw_fd(),
            room.as_mut_ptr().cast(),
            room.len(),
            flags,
        )
    };
    if received >= 0 {
        return Ok(Some(received as usize));
    }
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        error => Err(error),
    }
}

/// Waits until there is something to receive, or the end.
///
/// # Errors
/// None within [`PATIENCE`].
pub fn wait_readable(socket: RawFd) -> io::Result<()> {
    let mut socket = libc::pollfd {
        fd: socket,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: `socket` lives through the call.
    match unsafe { libc::poll(&mut socket, 1, PATIENCE.as_millis() as libc::c_int) } {
        1 => Ok(()),
        0 => Err(io::Error::other(format!("no answer for {PATIENCE:?}"))),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether received bytes are wanted, or only their number: tcp(7) drops them with MSG_TRUNC.
#[derive(Clone, Copy, PartialEq)]
pub enum Take {
    Bytes,
    Count,
}

/// An epoll set of edges. A socket is known by its index.
pub struct Epoll {
    set: OwnedFd,
    events: Vec<libc::epoll_event>,
}

/// Which edges are told.
#[derive(Clone, Copy, PartialEq)]
pub enum Interest {
    Read,
    ReadAndWrite,
}

/// One edge.
#[derive(Clone, Copy)]
pub struct Edge {
    pub index: usize,
    /// The peer has closed its side, or the connection is gone.
    pub ended: bool,
}

impl Epoll {
    /// # Errors
    /// Out of descriptors.
    pub fn new(events_max: usize) -> io::Result<Self> {
        // SAFETY: no pointer is passed; the descriptor is new and owned here alone.
        let set = unsafe {
            match libc::epoll_create1(libc::EPOLL_CLOEXEC) {
                -1 => return Err(io::Error::last_os_error()),
                descriptor => OwnedFd::from_raw_fd(descriptor),
            }
        };
        Ok(Self {
            set,
            events: vec![libc::epoll_event { events: 0, u64: 0 }; events_max],
        })
    }

    /// Watches a socket.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn add(&self, socket: RawFd, index: usize, interest: Interest) -> io::Result<()> {
        let writes = if interest == Interest::ReadAndWrite {
            libc::EPOLLOUT
        } else {
            0
        };
        let events = libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET | writes;
        let mut event = libc::epoll_event {
            events: events as u32,
            u64: index as u64,
        };
        let set = self.set.as_raw_fd();
        // SAFETY: `event` lives through the call.
        match unsafe { libc::epoll_ctl(set, libc::EPOLL_CTL_ADD, socket, &mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Waits for edges and returns how many there are.
    ///
    /// # Errors
    /// None within [`PATIENCE`]: whatever is in flight is lost.
    pub fn wait(&mut self) -> io::Result<usize> {
        match self.poll(PATIENCE.as_millis() as libc::c_int)? {
            0 => Err(io::Error::other(format!(
                "messages were lost: no answer for {PATIENCE:?}"
            ))),
            ready => Ok(ready),
        }
    }

    /// The same without sleeping, so that nobody has to wake this thread.
    ///
    /// # Errors
    /// Those of [`Self::wait`].
    pub fn spin(&mut self) -> io::Result<usize> {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            match self.poll(0)? {
                0 => std::hint::spin_loop(),
                ready => return Ok(ready),
            }
        }
        self.wait()
    }

    /// Waits for edges for at most `timeout`, to the nanosecond, and returns how many there are.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn wait_for(&mut self, timeout: Duration) -> io::Result<usize> {
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let mut set = libc::pollfd {
            fd: self.set.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // An error shows again in the call that follows, and an interruption is no edge.
        // SAFETY: both structures live through the call; there is no signal mask.
        unsafe { libc::ppoll(&mut set, 1, &timeout, std::ptr::null()) };
        self.poll(0)
    }

    fn poll(&mut self, timeout_ms: libc::c_int) -> io::Result<usize> {
        let room = self.events.len() as libc::c_int;
        loop {
            // SAFETY: `events` has room for the number of events given.
            let ready = unsafe {
                libc::epoll_wait(
                    self.set.as_raw_fd(),
                    self.events.as_mut_ptr(),
                    room,
                    timeout_ms,
                )
            };
            match ready {
                0.. => return Ok(ready as usize),
                _ => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
            }
        }
    }

    /// An edge of the last [`Self::wait`].
    pub fn edge(&self, number: usize) -> Edge {
        let event = self.events[number];
        let ended = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;
        Edge {
            index: event.u64 as usize,
            ended: event.events & ended != 0,
        }
    }
}

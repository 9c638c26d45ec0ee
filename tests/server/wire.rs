//! `Wire`: the other end of a connection, byte by byte, so that a test can do what no library
//! would. Every read has a deadline and fails loudly.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

/// How long a busy machine may take for what should come at once.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The key of the example in RFC 6455, 1.3, and what it is answered with.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

const MASK: [u8; 4] = [0x9d, 0x01, 0x5a, 0xe3];

/// One connection to a server.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    received: Vec<u8>,
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// A frame as it came.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl Wire {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        Self::new(stream)
    }

    /// A connection whose kernel keeps little for us: what we do not read stays with the server.
    pub fn connect_narrow(address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect_timeout(&address.into(), PATIENCE).unwrap();
        Self::new(socket.into())
    }

    fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            received: Vec::new(),
        }
    }

    /// A WebSocket on this path.
    pub fn open(address: SocketAddr, path: &str) -> Self {
        Self::connect(address).upgraded(path)
    }

    /// Makes a WebSocket of this connection.
    pub fn upgraded(mut self, path: &str) -> Self {
        self.send(upgrade(path, ""));
        self.switched();
        self
    }

    /// The 101 has come, and it is right.
    #[track_caller]
    pub fn switched(&mut self) -> Answer {
        let answer = self.answer();
        assert_eq!(answer.status, 101, "{answer:?}");
        assert_eq!(answer.header("sec-websocket-accept"), Some(ACCEPT));
        assert_eq!(answer.header("upgrade"), Some("websocket"));
        assert!(
            answer
                .header("connection")
                .unwrap()
                .eq_ignore_ascii_case("upgrade"),
            "{answer:?}"
        );
        answer
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// As `send`, to a server that may be gone.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    pub fn text(&mut self, text: &str) {
        self.send(frame(TEXT, text.as_bytes()));
    }

    /// Says that nothing more comes, and goes on reading.
    pub fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        let socket = Socket::from(self.stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Receives until `enough` finds what it looks for.
    #[track_caller]
    fn until<T>(&mut self, what: &str, enough: impl Fn(&[u8]) -> Option<(T, usize)>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some((found, used)) = enough(&self.received) {
                self.received.drain(..used);
                return found;
            }
            match self.receive(deadline) {
                Ok(0) => panic!(
                    "expected {what}, found the end after {}",
                    shown(&self.received)
                ),
                Ok(_) => {}
                Err(error) => panic!(
                    "expected {what}, found {error} after {}",
                    shown(&self.received)
                ),
            }
        }
    }

    fn receive(&mut self, deadline: Instant) -> io::Result<usize> {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = left.max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(left))?;
        let mut buffer = [0; 64 * 1024];
        let count = self.stream.read(&mut buffer)?;
        self.received.extend_from_slice(&buffer[..count]);
        Ok(count)
    }

    /// The next HTTP answer, with the body that its length announces.
    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        self.answer_to(false)
    }

    /// The next HTTP answer, to a HEAD request: its length announces nothing.
    #[track_caller]
    pub fn answer_to_head(&mut self) -> Answer {
        self.answer_to(true)
    }

    #[track_caller]
    fn answer_to(&mut self, is_head: bool) -> Answer {
        self.until("an HTTP answer", |bytes| {
            let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let answer = Answer {
                status: head.strip_prefix("HTTP/1.1 ")?[..3].parse().unwrap(),
                head,
                body: String::new(),
            };
            let length = answer.header("content-length").filter(|_| !is_head);
            let length: usize = length.map_or(0, |length| length.parse().unwrap());
            let body = bytes.get(end..end + length)?;
            let body = String::from_utf8(body.to_vec()).unwrap();
            Some((Answer { body, ..answer }, end + length))
        })
    }

    /// The next frame; a server masks none and fragments none.
    #[track_caller]
    pub fn frame(&mut self) -> Frame {
        self.until("a frame", |bytes| {
            let (first, second) = (*bytes.first()?, *bytes.get(1)?);
            assert_eq!(first & 0xf0, 0x80, "{}", shown(bytes));
            let (start, length) = match second {
                126 => (
                    4,
                    usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])),
                ),
                127 => {
                    let length = bytes.get(2..10)?.try_into().unwrap();
                    (10, u64::from_be_bytes(length) as usize)
                }
                length => (2, usize::from(length)),
            };
            let payload = bytes.get(start..start + length)?.to_vec();
            let opcode = first & 0x0f;
            Some((Frame { opcode, payload }, start + length))
        })
    }

    /// The next frame is this text.
    #[track_caller]
    pub fn expect_text(&mut self, text: &str) {
        let frame = self.frame();
        let found = String::from_utf8_lossy(&frame.payload);
        assert_eq!((frame.opcode, &*found), (TEXT, text));
    }

    /// The next frame is a Close with this code, unless pings were on their way; gives its reason.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16) -> String {
        let mut frame = self.frame();
        while frame.opcode == PING {
            frame = self.frame();
        }
        assert_eq!(frame.opcode, CLOSE, "{frame:?}");
        let (found, reason) = frame.payload.split_at(2);
        assert_eq!(u16::from_be_bytes([found[0], found[1]]), code, "{frame:?}");
        String::from_utf8(reason.to_vec()).unwrap()
    }

    /// A whole close handshake from our side.
    #[track_caller]
    pub fn close(mut self, code: u16) {
        self.send(close(code, ""));
        self.expect_close(code);
        self.expect_end();
    }

    /// Answers a Close that came, and sees the end.
    #[track_caller]
    pub fn close_answered(mut self, code: u16) {
        self.send(close(code, ""));
        self.expect_end();
    }

    /// The server is done, in order: nothing more, and a FIN.
    #[track_caller]
    pub fn expect_end(&mut self) {
        let count = self.receive(Instant::now() + PATIENCE);
        assert!(
            matches!(count, Ok(0)) && self.received.is_empty(),
            "expected the end, found {count:?} {}",
            shown(&self.received)
        );
    }

    /// The connection is over, in whatever way.
    #[track_caller]
    pub fn expect_gone(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.receive(deadline) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return,
                Err(error) => panic!("expected the end, found {error}"),
            }
        }
    }

    /// The connection is over by a reset, after what came before it.
    #[track_caller]
    pub fn expect_reset(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let error = loop {
            match self.receive(deadline) {
                Ok(0) => panic!("expected a reset, found a FIN"),
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
    }

    /// Sends a byte every 20 ms, the pace of a peer that wants to seem alive, until the server
    /// says something.
    pub fn trickle(&mut self, bytes: &[u8]) {
        for byte in bytes {
            std::thread::park_timeout(Duration::from_millis(20));
            self.stream.set_nonblocking(true).unwrap();
            let heard = self.stream.peek(&mut [0]);
            self.stream.set_nonblocking(false).unwrap();
            if heard.is_ok() || self.try_send([*byte]).is_err() {
                return;
            }
        }
    }

    /// Nothing comes in this time.
    #[track_caller]
    pub fn expect_silence(&mut self, time: Duration) {
        let got = self.receive(Instant::now() + time);
        let quiet = got.as_ref().is_err_and(|error| {
            [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut].contains(&error.kind())
        });
        assert!(
            quiet && self.received.is_empty(),
            "expected silence, found {got:?} {}",
            shown(&self.received)
        );
    }

    /// Sends what the kernel takes without waiting; says how much that was.
    pub fn stuff(&mut self, bytes: &[u8]) -> usize {
        self.stream.set_nonblocking(true).unwrap();
        let sent = self.stream.write(bytes);
        self.stream.set_nonblocking(false).unwrap();
        sent.unwrap_or(0)
    }
}

impl Answer {
    /// The one value of this header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.head.lines().skip(1).filter_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        });
        let value = values.next();
        assert!(values.next().is_none(), "two {name} in {}", self.head);
        value
    }
}

/// An upgrade request with these further header lines.
pub fn upgrade(path: &str, lines: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{lines}\r\n"
    )
}

/// A plain request.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// A whole frame as a client sends it.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    raw_frame(0x80 | opcode, payload)
}

/// As `frame`, with any first byte.
pub fn raw_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    let masked = payload.iter().zip(MASK.iter().cycle());
    bytes.extend(masked.map(|(byte, mask)| byte ^ mask));
    bytes
}

pub fn close(code: u16, reason: &str) -> Vec<u8> {
    let payload = [&code.to_be_bytes(), reason.as_bytes()].concat();
    frame(CLOSE, &payload)
}

fn shown(bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(200)];
    format!("{} bytes: {}", bytes.len(), start.escape_ascii())
}

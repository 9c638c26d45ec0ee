//! `Call`: a request as a test wants it, from whatever address; and `Caller`, who was let in.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use crate::{
    outside::{PATIENCE, peer::frame},
    socket::{self, BINARY, CLOSE},
};

/// A request, built by value: `Call::to("/echo").origin("https://evil.example").from(5)`.
#[derive(Clone, Debug)]
pub struct Call {
    method: &'static str,
    path: String,
    host: String,
    lines: String,
    body: Vec<u8>,
    is_upgrade: bool,
    source: IpAddr,
    preamble: Vec<u8>,
}

/// What came of it.
#[derive(Debug)]
pub enum Outcome {
    Open(Caller),
    Answered(Answer),
    /// The connection ended without a word.
    Dropped,
}

/// An HTTP answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// An open WebSocket.
#[derive(Debug)]
pub struct Caller(pub TcpStream);

impl Call {
    /// An upgrade on this path.
    pub fn to(path: &str) -> Self {
        Self {
            method: "GET",
            path: path.to_owned(),
            host: "localhost".to_owned(),
            lines: String::new(),
            body: Vec::new(),
            is_upgrade: true,
            source: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)),
            preamble: Vec::new(),
        }
    }

    pub fn echo() -> Self {
        Self::to("/echo")
    }

    /// A plain request.
    pub fn get(path: &str) -> Self {
        Self {
            is_upgrade: false,
            ..Self::to(path)
        }
    }

    pub fn post(path: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            method: "POST",
            body: body.into(),
            ..Self::get(path)
        }
    }

    pub fn host(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.lines += &format!("{name}: {value}\r\n");
        self
    }

    pub fn origin(self, origin: &str) -> Self {
        self.header("Origin", origin)
    }

    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// Comes from 127.0.0.`last`.
    pub fn from(mut self, last: u8) -> Self {
        self.source = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
        self
    }

    pub fn coming_from(mut self, source: IpAddr) -> Self {
        self.source = source;
        self
    }

    /// Bytes that come before everything else.
    pub fn after(mut self, preamble: impl Into<Vec<u8>>) -> Self {
        self.preamble = preamble.into();
        self
    }

    /// The request's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        head += &format!("Host: {}\r\n", self.host);
        if self.is_upgrade {
            head += "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        }
        if !self.body.is_empty() {
            head += &format!("Content-Length: {}\r\n", self.body.len());
        }
        head += &self.lines;
        head += "\r\n";
        [&self.preamble, head.as_bytes(), &self.body].concat()
    }

    /// A socket that is connected and has sent nothing.
    pub fn connect(&self, address: SocketAddr) -> TcpStream {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket
            .bind(&SocketAddr::new(self.source, 0).into())
            .unwrap();
        socket.connect_timeout(&address.into(), PATIENCE).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Asks, and hears the answer.
    #[track_caller]
    pub fn ask(&self, address: SocketAddr) -> Outcome {
        let mut stream = self.connect(address);
        // Whoever is dropped at once may learn it here.
        let _ = stream.write_all(&self.bytes());
        learn(stream)
    }

    /// Asks, and must be let in.
    #[track_caller]
    pub fn open(&self, address: SocketAddr) -> Caller {
        match self.ask(address) {
            Outcome::Open(caller) => caller,
            other => panic!("{self:?}: {other:?}"),
        }
    }

    /// Asks, and must get an answer that is no upgrade.
    #[track_caller]
    pub fn answered(&self, address: SocketAddr) -> Answer {
        match self.ask(address) {
            Outcome::Answered(answer) => answer,
            other => panic!("{self:?}: {other:?}"),
        }
    }

    /// Asks, and must be refused like this: a whole answer, one line of JSON, an orderly end.
    #[track_caller]
    pub fn refused(&self, address: SocketAddr, status: u16) -> Answer {
        let mut stream = self.connect(address);
        stream.write_all(&self.bytes()).unwrap();
        let answer = Answer::receive(&mut stream).unwrap_or_else(|error| {
            panic!("{self:?}: {error}");
        });
        assert_eq!(answer.status, status, "{self:?}: {answer:?}");
        answer.check_refusal();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "{self:?}: it goes on");
        answer
    }
}

/// What the server says to what it was sent.
#[track_caller]
pub fn learn(mut stream: TcpStream) -> Outcome {
    match Answer::receive(&mut stream) {
        Ok(answer) if answer.status == 101 => Outcome::Open(Caller(stream)),
        Ok(answer) => Outcome::Answered(answer),
        Err(error) => {
            let ended = [
                io::ErrorKind::UnexpectedEof,
                io::ErrorKind::ConnectionReset,
                io::ErrorKind::BrokenPipe,
            ];
            assert!(ended.contains(&error.kind()), "no answer: {error}");
            Outcome::Dropped
        }
    }
}

impl Answer {
    pub fn receive(stream: &mut impl Read) -> io::Result<Self> {
        let head = socket::head(stream)?;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Self {
            status,
            head,
            body: String::new(),
        };
        let length = answer.header("content-length");
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        answer.body = String::from_utf8(body).unwrap();
        Ok(answer)
    }

    /// The one value of this header.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.head.lines().skip(1).filter_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        });
        let value = values.next();
        assert!(values.next().is_none(), "two {name} in {}", self.head);
        value
    }

    #[track_caller]
    pub fn check_refusal(&self) {
        assert_eq!(self.header("connection"), Some("close"), "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        assert!(body["error"].as_str().unwrap().len() > 5, "{self:?}");
        assert_eq!(self.body.trim_end().lines().count(), 1, "{self:?}");
    }

    /// Seconds that it asks to wait: at least one.
    #[track_caller]
    pub fn retry_after(&self) -> u64 {
        let value = self.header("retry-after");
        let value = value.unwrap_or_else(|| panic!("no Retry-After in {self:?}"));
        let seconds = value.parse().unwrap();
        assert!((1..=3600).contains(&seconds), "{self:?}");
        seconds
    }
}

impl Caller {
    pub fn send(&mut self, opcode: u8, payload: &[u8]) {
        self.0.write_all(&frame(opcode, payload)).unwrap();
    }

    pub fn receive(&mut self) -> io::Result<(u8, Vec<u8>)> {
        socket::receive(&mut self.0)
    }

    #[track_caller]
    pub fn echo(&mut self, payload: &[u8]) {
        socket::echo(&mut self.0, payload).unwrap();
    }

    /// The next frame is an echo of this.
    #[track_caller]
    pub fn expect(&mut self, payload: &[u8]) {
        let (opcode, came) = self.receive().unwrap();
        assert_eq!(opcode, BINARY, "{}", came.escape_ascii());
        assert!(came == payload, "{} bytes came", came.len());
    }

    /// The server's Close with this code; gives its reason. Echoes before it are skipped.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16) -> String {
        loop {
            let (opcode, payload) = self.receive().unwrap();
            if opcode == CLOSE {
                assert_eq!(u16::from_be_bytes([payload[0], payload[1]]), code);
                return String::from_utf8(payload[2..].to_vec()).unwrap();
            }
        }
    }

    /// As `expect_close`; then it is answered, and the connection ends in order.
    #[track_caller]
    pub fn closed(mut self, code: u16) -> String {
        let reason = self.expect_close(code);
        self.0.write_all(&socket::close(code)).unwrap();
        assert_eq!(self.0.read(&mut [0]).unwrap(), 0);
        reason
    }

    /// Closes in order.
    #[track_caller]
    pub fn close(mut self) {
        self.0.write_all(&socket::close(1000)).unwrap();
        self.expect_close(1000);
        assert_eq!(self.0.read(&mut [0]).unwrap(), 0);
    }

    /// Nothing comes in this time.
    #[track_caller]
    pub fn expect_silence(&mut self, time: Duration) {
        self.0.set_read_timeout(Some(time)).unwrap();
        let got = self.0.read(&mut [0; 16]);
        let quiet = got
            .as_ref()
            .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        assert!(quiet, "{got:?}");
        self.0.set_read_timeout(Some(PATIENCE)).unwrap();
    }
}

/// Whether the server has ended this connection, of which nothing else is awaited.
pub fn is_ended(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let seen = stream.peek(&mut [0]);
    stream.set_nonblocking(false).unwrap();
    match seen {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

/// Reads what comes until the end, whichever way that is; gives what came.
#[track_caller]
pub fn until_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}"),
    }
    rest
}

/// Sends a byte every so often until the server says something or is gone; gives the time that
/// took. `bytes` must last longer than the server's patience.
#[track_caller]
pub fn trickle(stream: &mut TcpStream, bytes: &[u8], pause: Duration) -> Duration {
    let began = Instant::now();
    for byte in bytes {
        std::thread::park_timeout(pause);
        stream.set_nonblocking(true).unwrap();
        let heard = stream.peek(&mut [0]);
        stream.set_nonblocking(false).unwrap();
        let is_quiet = heard.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        if !is_quiet || stream.write_all(&[*byte]).is_err() {
            return began.elapsed();
        }
    }
    panic!("all {} bytes were taken", bytes.len());
}

/// Says that nothing more comes, and goes on reading.
pub fn finish(stream: &TcpStream) {
    // The server may have ended it already.
    let _ = stream.shutdown(Shutdown::Write);
}

//! `Raw`: a server of a few lines that does what its test wants, right or wrong.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tungstenite::handshake::derive_accept_key;

use crate::wire::PATIENCE;

pub const TEXT: u8 = 0x81;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8a;

/// A listener with a thread for each who comes.
pub struct Raw {
    pub address: SocketAddr,
    is_over: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
}

/// One who came, and has sent a request.
pub struct Guest {
    stream: TcpStream,
    pub request: String,
    /// Of all guests, from 0.
    pub number: usize,
}

/// A frame as it came, its payload unmasked.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// The first byte: the opcode, and whether the message ends here.
    pub first: u8,
    pub is_masked: bool,
    pub payload: Vec<u8>,
}

impl Raw {
    /// Receives the request of each connection, and leaves the rest to `host`. None from the guest
    /// means that it is gone.
    pub fn serve(host: impl Fn(Guest) -> Option<()> + Send + Sync + 'static) -> Self {
        let guests = AtomicUsize::new(0);
        Self::accept(move |stream| host(Guest::receive(stream, &guests)?))
    }

    /// Leaves each connection to `host` as it comes: also those who only look whether somebody
    /// listens.
    pub fn accept(host: impl Fn(TcpStream) -> Option<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let (over, host) = (Arc::clone(&is_over), Arc::new(host));
        let listening = thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let host = Arc::clone(&host);
                let receive = move || {
                    stream.set_nodelay(true).ok()?;
                    stream.set_read_timeout(Some(PATIENCE)).ok()?;
                    stream.set_write_timeout(Some(PATIENCE)).ok()?;
                    host(stream)
                };
                thread::Builder::new()
                    .stack_size(128 * 1024)
                    .spawn(receive)
                    .unwrap();
            }
        });
        Self {
            address,
            is_over,
            listening: Some(listening),
        }
    }

    /// As `serve`, for those who are let in.
    pub fn welcome(host: impl Fn(Guest) -> Option<()> + Send + Sync + 'static) -> Self {
        Self::serve(move |mut guest| {
            guest.switch("")?;
            host(guest)
        })
    }

    pub fn url(&self) -> String {
        format!("ws://{}/echo", self.address)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes the listener; the guests go when the tool does.
        let _ = TcpStream::connect(self.address);
        let _ = self.listening.take().map(JoinHandle::join);
    }
}

impl Guest {
    /// None for those who only look whether somebody listens.
    fn receive(mut stream: TcpStream, guests: &AtomicUsize) -> Option<Self> {
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).ok()?;
            request.push(byte[0]);
        }
        Some(Self {
            stream,
            request: String::from_utf8(request).ok()?,
            number: guests.fetch_add(1, Ordering::SeqCst),
        })
    }

    /// The values of a header of the request.
    pub fn headers(&self, name: &str) -> Vec<&str> {
        let lines = self.request.lines().skip(1);
        let values = lines.filter_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        });
        values.collect()
    }

    /// The answer that makes a WebSocket of the connection, with further header lines.
    pub fn answer(&self, lines: &str) -> String {
        let key = self.headers("Sec-WebSocket-Key").concat();
        let accept = derive_accept_key(key.as_bytes());
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n{lines}\r\n"
        )
    }

    pub fn switch(&mut self, lines: &str) -> Option<()> {
        let answer = self.answer(lines);
        self.send(answer)
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Option<()> {
        self.stream.write_all(bytes.as_ref()).ok()
    }

    /// The next frame.
    pub fn frame(&mut self) -> Option<Frame> {
        let [first, second] = self.bytes()?;
        let length = match second & 0x7f {
            126 => usize::from(u16::from_be_bytes(self.bytes()?)),
            127 => u64::from_be_bytes(self.bytes()?) as usize,
            short => usize::from(short),
        };
        let is_masked = second & 0x80 != 0;
        let mask: [u8; 4] = if is_masked { self.bytes()? } else { [0; 4] };
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).ok()?;
        for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        Some(Frame {
            first,
            is_masked,
            payload,
        })
    }

    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Echoes, and answers a ping and a Close, as a server should, until the guest is gone.
    pub fn echo(&mut self) -> Option<()> {
        loop {
            let sent = self.frame()?;
            self.answer_to(&sent)?;
        }
    }

    pub fn answer_to(&mut self, sent: &Frame) -> Option<()> {
        match sent.first {
            PING => self.send(frame(PONG, &sent.payload)),
            CLOSE => {
                self.send(frame(CLOSE, &sent.payload))?;
                // The server closes first (RFC 6455, 7.1.1).
                let _ = self.stream.shutdown(std::net::Shutdown::Write);
                None
            }
            first => self.send(frame(first, &sent.payload)),
        }
    }

    /// Whether nothing comes in this time.
    pub fn quiet_for(&mut self, time: Duration) -> bool {
        let set = |limit| self.stream.set_read_timeout(Some(limit));
        let _ = set(time);
        let came = self.stream.peek(&mut [0]);
        let _ = set(PATIENCE);
        came.is_err()
    }

    /// Reads, whatever it is, until the guest is gone.
    pub fn ignore(&mut self) -> Option<()> {
        let mut buffer = [0; 4096];
        while self.stream.read(&mut buffer).ok()? > 0 {}
        None
    }
}

/// A frame as a server sends it.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(length as u8),
        length @ 126..=0xffff => {
            bytes.push(126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(payload);
    bytes
}

/// A Close as a server sends it.
pub fn close(code: u16, reason: &str) -> Vec<u8> {
    frame(CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

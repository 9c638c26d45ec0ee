//! A WebSocket peer on a bare socket: upgrade, send, receive, close. Its frames are what the RFC
//! wants of a client, so that everything it measures is the server's doing.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
};

use socket2::{Domain, Socket, Type};

use super::PATIENCE;

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;

/// What came of an upgrade.
pub enum Answer {
    Open(Peer),
    /// A complete refusal.
    Refused(Refusal),
}

/// What a peer that was turned away was told.
#[derive(Debug)]
pub struct Refusal {
    pub status: u16,
    /// In lower case.
    pub head: String,
    /// The end was a reset, which on other systems takes away an answer that is not read yet.
    pub was_reset: bool,
}

/// An open connection.
pub struct Peer {
    pub stream: TcpStream,
}

impl Peer {
    /// Connects from one of several loopback addresses, as a machine has only so many ports for
    /// each, and closed connections keep theirs for a while.
    pub fn connect(address: SocketAddr, number: usize) -> io::Result<TcpStream> {
        Self::connect_with(address, number, None)
    }

    /// The same with a small receive buffer, which is then soon full.
    pub fn connect_with(
        address: SocketAddr,
        number: usize,
        receive_bytes: Option<usize>,
    ) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if let Some(bytes) = receive_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        let source = Ipv4Addr::new(127, 0, 0, 2 + (number % 50) as u8);
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        socket.connect_timeout(&address.into(), PATIENCE)?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Upgrades on `/echo`, or says how that was refused.
    #[track_caller]
    pub fn knock(address: SocketAddr, number: usize) -> Answer {
        Self::upgrade(Self::connect(address, number).unwrap())
    }

    #[track_caller]
    pub fn open(address: SocketAddr, number: usize) -> Self {
        match Self::knock(address, number) {
            Answer::Open(peer) => peer,
            Answer::Refused(refusal) => panic!("{refusal:?}"),
        }
    }

    #[track_caller]
    pub fn upgrade(mut stream: TcpStream) -> Answer {
        Self::ask(&mut stream);
        Self::learn(stream)
    }

    /// Sends the request of an upgrade.
    pub fn ask(stream: &mut TcpStream) {
        let request = "GET /echo HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        // A server that is full may answer, and be gone, before the request is sent.
        let _ = stream.write_all(request.as_bytes());
    }

    /// Receives the answer to it.
    #[track_caller]
    pub fn learn(mut stream: TcpStream) -> Answer {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        match head.split(' ').nth(1).unwrap().parse().unwrap() {
            101 => Answer::Open(Self { stream }),
            status => {
                // The body too, and then the end of the stream: a complete answer.
                let length = head.split_once("content-length: ").unwrap().1;
                let length: u64 = length.lines().next().unwrap().parse().unwrap();
                let mut body = Vec::new();
                stream.read_to_end(&mut body).unwrap();
                assert_eq!(body.len() as u64, length, "{head}");
                // After a FIN one may still send, whatever becomes of it; after a reset not.
                let was_reset = stream.write_all(b"\r\n").is_err();
                Answer::Refused(Refusal {
                    status,
                    head,
                    was_reset,
                })
            }
        }
    }

    /// Sends a binary message and receives it back.
    #[track_caller]
    pub fn echo(&mut self, payload: &[u8]) {
        self.stream.write_all(&frame(BINARY, payload)).unwrap();
        let (opcode, answer) = self.receive().unwrap();
        assert_eq!(opcode, BINARY);
        assert!(answer == payload, "{} bytes came back", answer.len());
    }

    /// The opcode and payload of the next frame; pings are answered on the way.
    pub fn receive(&mut self) -> io::Result<(u8, Vec<u8>)> {
        loop {
            let mut head = [0; 2];
            self.stream.read_exact(&mut head)?;
            let length = match head[1] {
                126 => u64::from(u16::from_be_bytes(self.bytes()?)),
                127 => u64::from_be_bytes(self.bytes()?),
                short => u64::from(short),
            };
            let mut payload = vec![0; length as usize];
            self.stream.read_exact(&mut payload)?;
            match head[0] & 0xf {
                0x9 => self.stream.write_all(&frame(0xa, &payload))?,
                opcode => return Ok((opcode, payload)),
            }
        }
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).map(|()| bytes)
    }

    /// Closes in order: Close, its answer, the end.
    #[track_caller]
    pub fn close(mut self) {
        self.stream
            .write_all(&frame(CLOSE, &1000_u16.to_be_bytes()))
            .unwrap();
        let (opcode, code) = self.receive().unwrap();
        assert_eq!((opcode, code), (CLOSE, vec![0x03, 0xe8]));
        assert_eq!(self.stream.read(&mut [0]).unwrap(), 0);
    }
}

/// One whole frame as a client sends it: masked.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length @ 126..0x1_0000 => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(KEY);
    frame.extend(
        payload
            .iter()
            .zip(KEY.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    frame
}

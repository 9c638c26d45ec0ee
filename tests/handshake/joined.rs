//! Both roles in memory: ours with each other, and each of ours with tungstenite's.

use std::io::{self, Read, Write};

use tidemill::protocol::handshake::{ClientHandshake, HandshakeError};
use tidemill::protocol::http::Reason;

use super::*;

#[test]
fn a_client_and_a_server_joined_in_memory_agree() {
    let mut random = Random::seeded(7);
    for _ in 0..200 {
        let mut key = [0; 16];
        key.iter_mut().for_each(|byte| *byte = random.next() as u8);
        let mut client = ClientHandshake::new("a.example:7000", "/ws?b=c", key)
            .and_then(|client| client.protocol("mqtt"))
            .and_then(|client| client.protocol("chat"))
            .and_then(|client| client.header("Origin", "http://a.example"))
            .unwrap();
        let mut request = Vec::new();
        client.request(&mut request);
        let Answer::Switched(reply, used) = serve(&request, || 1 + random.below(60)) else {
            panic!("the server did not switch");
        };
        assert_eq!(used, request.len());
        let reply = [reply.as_bytes(), b"\x81\x02hi"].concat();
        let mut come = 0;
        let accepted = loop {
            let piece = &reply[come..reply.len().min(come + 1 + random.below(60))];
            match client.receive(piece).unwrap() {
                None => come += piece.len(),
                Some((used, accepted)) => break (come + used, accepted),
            }
        };
        assert_eq!(accepted.0, reply.len() - 4);
        assert_eq!(accepted.1.protocol.as_deref(), Some("chat"));
    }
}

#[test]
fn a_client_learns_why_the_server_refused() {
    for reason in Reason::ALL {
        let mut answer = Vec::new();
        Refusal::new(*reason)
            .response()
            .encode(&mut answer, Some("tidemill"), true, false);
        let mut client = ClientHandshake::new("a", "/", [0; 16]).unwrap();
        let HandshakeError::Status { status, body } = client.receive(&answer).unwrap_err() else {
            panic!("{reason:?} is no status");
        };
        assert_eq!(status, reason.status());
        let expected = match reason {
            // Told to people, in plain text.
            Reason::PlainHttp => format!("{}\n", reason.expected()),
            _ => format!("{{\"error\":\"{}\"}}\n", reason.expected()),
        };
        assert_eq!(body, expected);
    }
}

#[test]
fn tungstenite_accepts_the_request_and_its_answer_is_accepted() {
    let mut client = ClientHandshake::new("a.example", "/ws?b=c", [7; 16]).unwrap();
    let mut request = Vec::new();
    client.request(&mut request);
    let wire = Wire {
        incoming: request,
        outgoing: Vec::new(),
    };
    let server = tungstenite::accept(wire).unwrap();
    let answer = &server.get_ref().outgoing;
    let (used, accepted) = client.receive(answer).unwrap().unwrap();
    assert_eq!((used, accepted.protocol), (answer.len(), None));
}

#[test]
fn the_request_of_tungstenite_is_accepted_and_so_is_the_answer() {
    let wire = Wire {
        incoming: Vec::new(),
        outgoing: Vec::new(),
    };
    let waiting = match tungstenite::client("ws://a.example/ws", wire) {
        Err(tungstenite::HandshakeError::Interrupted(waiting)) => waiting,
        other => panic!("it did not wait: {other:?}"),
    };
    let mut waiting = waiting;
    let Answer::Switched(reply, _) = answer(&waiting.get_ref().get_ref().outgoing) else {
        panic!("the server did not switch");
    };
    waiting.get_mut().get_mut().incoming = reply.into_bytes();
    let (_, response) = waiting.handshake().unwrap();
    assert_eq!(response.status(), 101);
}

/// A stream with nobody behind it: reads what was laid in, keeps what is written.
#[derive(Debug)]
struct Wire {
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

impl Read for Wire {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        if self.incoming.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = space.len().min(self.incoming.len());
        space[..count].copy_from_slice(&self.incoming[..count]);
        self.incoming.drain(..count);
        Ok(count)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outgoing.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! tungstenite's `WebSocket` as the judge: the same random frames, valid and damaged, must give
//! the same messages and the same verdict.
//!
//! Where the two differ on purpose, the stream is left out of the comparison by [`is_known`].

use std::io::{self, Cursor, Read, Write};

use proptest::prelude::*;
use tidemill::protocol::ProtocolError;
use tungstenite::{Error, Message, WebSocket, protocol::Role, protocol::WebSocketConfig};

use super::{Said, masked, server_says};

const MESSAGE_BYTES_MAX: usize = 5000;

/// Bytes that were received once, and a place to write to.
struct Stream(Cursor<Vec<u8>>);

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What tungstenite says to these bytes; an error is its last word.
fn they_say(bytes: &[u8]) -> (Vec<Said>, Option<Error>) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let stream = Stream(Cursor::new(bytes.to_vec()));
    let mut socket = WebSocket::from_raw_socket(stream, Role::Server, Some(config));
    let mut said = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => said.push(Said::Text(text.to_string())),
            Ok(Message::Binary(bytes)) => said.push(Said::Binary(bytes.to_vec())),
            Ok(Message::Ping(payload)) => said.push(Said::Ping(payload.to_vec())),
            Ok(Message::Pong(payload)) => said.push(Said::Pong(payload.to_vec())),
            Ok(Message::Close(body)) => {
                let (code, reason) = body.map_or((1005, String::new()), |body| {
                    (body.code.into(), body.reason.to_string())
                });
                said.push(Said::Close(code, reason));
                return (said, None);
            }
            Ok(Message::Frame(_)) => unreachable!("only written, never read"),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return (said, None);
            }
            Err(error) => return (said, Some(error)),
        }
    }
}

/// What we refuse and tungstenite does not, or only later:
/// - lengths that are not minimal (RFC 6455, 5.2, "MUST");
/// - close codes that may not be sent: it passes some on, and answers with 1002 by itself;
/// - text that is already wrong, in a frame or fragment whose rest has not come;
/// - a reserved opcode whose header is cut, a header whose payload is cut: it judges whole frames.
fn is_known(ours: &[Said], theirs: &(Vec<Said>, Option<Error>)) -> bool {
    let Some(Said::Wrong(error)) = ours.last() else {
        return false;
    };
    let early = theirs.1.is_none() && theirs.0 == ours[..ours.len() - 1];
    let code = *error == ProtocolError::InvalidCloseCode
        || *error == ProtocolError::MalformedClose
        || matches!(theirs.0.last(), Some(Said::Close(..)));
    *error == ProtocolError::MalformedLength || early || code
}

/// A frame that is valid by itself more often than not.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        8 => prop::sample::select(vec![0x81u8, 0x82, 0x89, 0x8a]),
        6 => prop::sample::select(vec![0x01u8, 0x02, 0x00, 0x00, 0x80, 0x80]),
        1 => any::<u8>(),
    ];
    let payload = prop_oneof![
        4 => "[a-zé€😀]{0,60}".prop_map(String::into_bytes),
        2 => prop::collection::vec(any::<u8>(), 0..200),
        1 => prop::collection::vec(any::<u8>(), 4000..6000),
    ];
    (first, payload, prop::bool::weighted(0.97)).prop_map(|(first, payload, is_masked)| {
        if is_masked {
            masked(first, &payload)
        } else {
            super::frame(first, &payload, None)
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn random_frames_mean_to_us_what_they_mean_to_tungstenite(
        frames in prop::collection::vec(any_frame(), 1..12),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 0..2),
    ) {
        let mut bytes = frames.concat();
        for (place, change) in flips {
            let index = place.index(bytes.len());
            bytes[index] ^= change;
        }
        let ours = server_says(&bytes, MESSAGE_BYTES_MAX);
        let theirs = they_say(&bytes);
        if is_known(&ours, &theirs) {
            return Ok(());
        }
        let (messages, refused) = match ours.split_last() {
            Some((Said::Wrong(_), before)) => (before, true),
            _ => (&ours[..], false),
        };
        prop_assert_eq!(messages, &theirs.0[..], "they say {:?}", theirs.1);
        prop_assert_eq!(refused, theirs.1.is_some(), "ours {:?}, theirs {:?}", ours, theirs.1);
    }
}

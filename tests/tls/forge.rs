//! `Forger`: a client that has given its keys away, so that it can seal what no library would, and
//! sends records that nobody made.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
};

use rustls::{
    ConnectionTrafficSecrets, ContentType, ProtocolVersion, SupportedCipherSuite,
    SupportedProtocolVersion,
    crypto::cipher::{
        AeadKey, InboundOpaqueMessage, Iv, MessageDecrypter, MessageEncrypter, OutboundChunks,
        OutboundPlainMessage,
    },
};

use crate::{
    client::Client,
    outside::peer::frame,
    server::Server,
    socket::{self, BINARY},
};

pub const ALERT: u8 = 21;
pub const HANDSHAKE: u8 = 22;
pub const CHANGE_CIPHER_SPEC: u8 = 20;
pub const DATA: u8 = 23;

/// A record as it is on the wire, sealed or not.
pub fn record(content: u8, version: u16, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u16;
    let mut record = vec![content];
    record.extend(version.to_be_bytes());
    record.extend(length.to_be_bytes());
    record.extend(payload);
    record
}

/// The payloads of records that lie one behind the other.
pub fn payloads(mut records: &[u8]) -> Vec<(u8, &[u8])> {
    let mut payloads = Vec::new();
    while let [content, _, _, high, low, rest @ ..] = records {
        let (payload, behind) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        payloads.push((*content, payload));
        records = behind;
    }
    payloads
}

pub struct Forger {
    pub stream: TcpStream,
    version: ProtocolVersion,
    seal: Box<dyn MessageEncrypter>,
    sealed: u64,
    open: Box<dyn MessageDecrypter>,
    opened: u64,
}

impl Forger {
    /// An open WebSocket on `/echo`, whose records are ours from now on.
    #[track_caller]
    pub fn open(server: &Server, version: &'static SupportedProtocolVersion) -> Self {
        let mut client = Self::client(server, version).upgraded("/echo");
        // By then whatever the server says unasked has come, too.
        client.echo(b"still in order");
        Self::take(client)
    }

    /// The same after the first request of HTTP.
    #[track_caller]
    pub fn fresh(server: &Server, version: &'static SupportedProtocolVersion) -> Self {
        let mut client = Self::client(server, version);
        let request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
        client.write_all(request).unwrap();
        socket::answer(&mut client).unwrap();
        Self::take(client)
    }

    #[track_caller]
    fn client(server: &Server, version: &'static SupportedProtocolVersion) -> Client {
        let mut config = crate::client::config(&server.authority, &[version], None);
        config.enable_secret_extraction = true;
        Client::connect(server.address, config, "localhost").unwrap()
    }

    #[track_caller]
    fn take(mut client: Client) -> Self {
        let version = client.tls().protocol_version().unwrap();
        let suite = client.tls().negotiated_cipher_suite().unwrap();
        let (tls, stream) = client.0.into_parts();
        let secrets = tls.dangerous_extract_secrets().unwrap();
        let (sealed, (key, iv)) = (secrets.tx.0, keys(secrets.tx.1));
        let (opened, (other_key, other_iv)) = (secrets.rx.0, keys(secrets.rx.1));
        let (seal, open) = match suite {
            SupportedCipherSuite::Tls13(suite) => (
                suite.aead_alg.encrypter(key, iv),
                suite.aead_alg.decrypter(other_key, other_iv),
            ),
            SupportedCipherSuite::Tls12(suite) => {
                let shape = suite.aead_alg.key_block_shape();
                let (fixed, extra) = iv.as_ref().split_at(shape.fixed_iv_len);
                (
                    suite.aead_alg.encrypter(key, fixed, extra),
                    suite
                        .aead_alg
                        .decrypter(other_key, &other_iv.as_ref()[..shape.fixed_iv_len]),
                )
            }
        };
        let mut forger = Self {
            stream,
            version,
            seal,
            sealed: 0,
            open,
            opened,
        };
        // The library wants to count from the first on.
        while forger.sealed < sealed {
            forger.seal(DATA, b"sealed before");
        }
        forger
    }

    /// Seals one record of this content.
    pub fn seal(&mut self, content: u8, payload: &[u8]) -> Vec<u8> {
        let message = OutboundPlainMessage {
            typ: ContentType::from(content),
            version: ProtocolVersion::TLSv1_2,
            payload: OutboundChunks::Single(payload),
        };
        let record = self.seal.encrypt(message, self.sealed).unwrap();
        self.sealed += 1;
        record.encode()
    }

    pub fn send(&mut self, content: u8, payload: &[u8]) {
        let record = self.seal(content, payload);
        self.stream.write_all(&record).unwrap();
    }

    /// The content and payload of the next record.
    pub fn receive(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head)?;
        let mut payload = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
        self.stream.read_exact(&mut payload)?;
        let opaque =
            InboundOpaqueMessage::new(ContentType::from(head[0]), self.version, &mut payload);
        let plain = self.open.decrypt(opaque, self.opened);
        let plain = plain.map_err(io::Error::other)?;
        self.opened += 1;
        Ok((u8::from(plain.typ), plain.payload.to_vec()))
    }

    /// An echo in one record each way.
    #[track_caller]
    pub fn echo(&mut self, payload: &[u8]) {
        self.send(DATA, &frame(BINARY, payload));
        let (content, bytes) = self.receive().unwrap();
        assert_eq!(content, DATA);
        let (opcode, came) = socket::receive(&mut &*bytes).unwrap();
        assert_eq!((opcode, &came[..]), (BINARY, payload));
    }

    /// What is left until the end: whole records, for nothing may ever leave unsealed.
    #[track_caller]
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        let bytes = crate::client::rest(&mut self.stream)?;
        let mut left = &bytes[..];
        while !left.is_empty() {
            assert!(left.len() >= 5, "no record: {left:?} of {bytes:?}");
            assert!(
                [ALERT, HANDSHAKE, DATA].contains(&left[0]),
                "no record: {bytes:?}"
            );
            assert_eq!(left[1..3], [3, 3], "no record: {bytes:?}");
            let length = usize::from(u16::from_be_bytes([left[3], left[4]]));
            left = left.get(5 + length..).expect("half a record");
        }
        Ok(bytes)
    }

    /// The server's fatal alert, which is one of these, and then FIN.
    #[track_caller]
    pub fn expect_alert(&mut self, descriptions: &[u8]) {
        let alert = loop {
            let (content, payload) = self.receive().unwrap();
            if content == ALERT && payload[0] == 2 {
                break payload;
            }
        };
        assert!(descriptions.contains(&alert[1]), "{alert:?}");
        assert_eq!(self.stream.read(&mut [0]).unwrap(), 0);
    }
}

fn keys(secrets: ConnectionTrafficSecrets) -> (AeadKey, Iv) {
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key, iv),
        _ => panic!("keys of an unknown kind"),
    }
}

//! `Client`: a rustls client over a blocking socket, with a deadline on everything.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
    StreamOwned, SupportedProtocolVersion,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::{
    authority::{Authority, Pair},
    outside::{Peer, peer::frame},
    socket,
};

pub type Stream = StreamOwned<ClientConnection, TcpStream>;

/// An open TLS connection, and perhaps a WebSocket in it.
pub struct Client(pub Stream);

/// What a client trusts, speaks and shows. It resumes nothing.
pub fn config(
    authority: &Authority,
    versions: &[&'static SupportedProtocolVersion],
    shown: Option<&Pair>,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions);
    let trusting = versions.unwrap().with_root_certificates(roots);
    let mut config = match shown {
        None => trusting.with_no_client_auth(),
        Some(pair) => {
            let chain = vec![pair.certificate.clone()];
            trusting.with_client_auth_cert(chain, pair.key()).unwrap()
        }
    };
    config.resumption = Resumption::disabled();
    config
}

/// A connected socket, from one of several loopback addresses.
pub fn stream(address: SocketAddr, number: usize) -> io::Result<TcpStream> {
    Peer::connect(address, number)
}

impl Client {
    /// Connects, and completes the handshake.
    pub fn connect(
        address: SocketAddr,
        config: impl Into<Arc<ClientConfig>>,
        name: &str,
    ) -> io::Result<Self> {
        Self::over(stream(address, 0)?, config, name)
    }

    /// The same over a socket that is connected.
    pub fn over(
        mut stream: TcpStream,
        config: impl Into<Arc<ClientConfig>>,
        name: &str,
    ) -> io::Result<Self> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut tls = ClientConnection::new(config.into(), name).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        Ok(Self(StreamOwned::new(tls, stream)))
    }

    pub fn tls(&mut self) -> &mut ClientConnection {
        &mut self.0.conn
    }

    pub fn stream(&self) -> &TcpStream {
        &self.0.sock
    }

    /// Sends what rustls has to say without being asked.
    pub fn flush_records(&mut self) -> io::Result<()> {
        while self.0.conn.wants_write() {
            self.0.conn.write_tls(&mut self.0.sock)?;
        }
        Ok(())
    }

    pub fn try_upgraded(mut self, path: &str) -> io::Result<Self> {
        self.write_all(socket::upgrade(path).as_bytes())?;
        let head = socket::head(&mut self)?;
        match head.starts_with("HTTP/1.1 101 ") {
            true => Ok(self),
            false => Err(io::Error::other(head)),
        }
    }

    #[track_caller]
    pub fn upgraded(self, path: &str) -> Self {
        self.try_upgraded(path).unwrap()
    }

    /// Sends a message and receives it back.
    #[track_caller]
    pub fn echo(&mut self, payload: &[u8]) {
        socket::echo(&mut self.0, payload).unwrap();
    }

    pub fn send(&mut self, opcode: u8, payload: &[u8]) {
        self.write_all(&frame(opcode, payload)).unwrap();
    }

    pub fn receive(&mut self) -> io::Result<(u8, Vec<u8>)> {
        socket::receive(&mut self.0)
    }

    /// The server's Close with this code; gives its reason.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16) -> String {
        let (opcode, payload) = self.receive().unwrap();
        assert_eq!(opcode, socket::CLOSE, "{payload:?}");
        assert_eq!(u16::from_be_bytes([payload[0], payload[1]]), code);
        String::from_utf8(payload[2..].to_vec()).unwrap()
    }

    /// The end of both: `close_notify`, and then FIN.
    #[track_caller]
    pub fn expect_end(&mut self) {
        let mut rest = [0; 16];
        // Without a close_notify this is an UnexpectedEof.
        assert_eq!(self.read(&mut rest).unwrap(), 0);
        assert_eq!(self.0.sock.read(&mut rest).unwrap(), 0);
    }

    /// Closes in order.
    #[track_caller]
    pub fn close(mut self) {
        self.write_all(&socket::close(1000)).unwrap();
        self.expect_close(1000);
        self.expect_end();
    }

    /// Sends our `close_notify`.
    pub fn notify(&mut self) {
        self.0.conn.send_close_notify();
        self.flush_records().unwrap();
    }

    /// Sends FIN.
    pub fn finish(&self) {
        self.0.sock.shutdown(Shutdown::Write).unwrap();
    }
}

impl Read for Client {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Client {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Ends a connection with a reset.
pub fn reset(stream: TcpStream) {
    let linger = socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO));
    linger.unwrap();
}

/// What a bare connection still has to say, and how it ended: by FIN or, as an error, by reset.
pub fn rest(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest)?;
    Ok(rest)
}

/// Takes any certificate, and verifies signatures of these schemes alone.
#[derive(Debug)]
pub struct Lenient(pub Vec<SignatureScheme>);

impl Lenient {
    /// A client that does not care whom it talks to.
    pub fn config(self, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(self))
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config
    }
}

impl Default for Lenient {
    fn default() -> Self {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        Self(algorithms.supported_schemes())
    }
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}

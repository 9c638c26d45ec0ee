//! The echo server of `tokio_tungstenite.rs` over tokio-rustls, on tokio's current-thread runtime.
//!
//! rustls is set up as its documentation has it, with aws-lc-rs and stateless tickets. A connection
//! ends with close_notify, which dropping it would leave out.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, future};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_tungstenite::accept_async_with_config;
use tungstenite::protocol::WebSocketConfig;

const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// As in `tokio_tungstenite.rs`.
const READ_BUFFER_BYTES: usize = 16 * 1024;

fn main() -> io::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?
        .block_on(serve())
}

async fn serve() -> io::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [address, certificate, key] = &arguments[..] else {
        return Err(io::Error::other(
            "usage: tokio-rustls-echo ADDRESS CERTIFICATE KEY",
        ));
    };
    let acceptor = TlsAcceptor::from(Arc::new(config(certificate, key)?));
    let listener = listen(address)?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(echo(stream, acceptor.clone()));
    }
}

/// A storm of handshakes overflows the queue of 128 that `TcpListener::bind` asks for.
fn listen(address: &str) -> io::Result<TcpListener> {
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.bind(address)?;
    socket.listen(65_535)
}

fn config(certificate: &str, key: &str) -> io::Result<ServerConfig> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate)
        .map_err(io::Error::other)?
        .collect();
    let key = PrivateKeyDer::from_pem_file(key).map_err(io::Error::other)?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain.map_err(io::Error::other)?, key)
        .map_err(io::Error::other)?;
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(io::Error::other)?;
    Ok(config)
}

/// A connection that fails ends alone and says nothing: an abrupt end is a part of the load.
async fn echo(stream: TcpStream, acceptor: TlsAcceptor) {
    let _ = stream.set_nodelay(true);
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let Ok(socket) = accept_async_with_config(stream, Some(config)).await else {
        return;
    };
    let (mut write, mut read) = socket.split();
    let messages =
        (&mut read).try_filter(|message| future::ready(message.is_text() || message.is_binary()));
    let _ = messages.forward(&mut write).await;
    if let Ok(mut socket) = read.reunite(write) {
        let _ = socket.get_mut().shutdown().await;
    }
}

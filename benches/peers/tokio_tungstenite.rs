//! The echo server that tokio-tungstenite's own example shows, on tokio's current-thread runtime.
//!
//! `forward` flushes when nothing more is there to read, so the write buffer of the crate gathers
//! the replies of one batch as far as it does.

use std::io;

use futures_util::{StreamExt, TryStreamExt, future};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::accept_async_with_config;
use tungstenite::protocol::WebSocketConfig;

const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// The buffer is zeroed before each read, so the default of 128 KiB costs small messages half as
/// much again, and 4 KiB costs large ones as much: this is the best of both.
const READ_BUFFER_BYTES: usize = 16 * 1024;

fn main() -> io::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?
        .block_on(serve())
}

async fn serve() -> io::Result<()> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:0".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(echo(stream));
    }
}

/// A connection that fails ends alone and says nothing: an abrupt end is a part of the load.
async fn echo(stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    if let Ok(socket) = accept_async_with_config(stream, Some(config)).await {
        let (write, read) = socket.split();
        let messages =
            read.try_filter(|message| future::ready(message.is_text() || message.is_binary()));
        let _ = messages.forward(write).await;
    }
}

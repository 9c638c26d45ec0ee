//! Fan-out as one writes it with tokio: every connection of tokio-tungstenite holds a receiver of
//! one `tokio::sync::broadcast` channel and passes on what the others send.
//!
//! On tokio's current-thread runtime. What waits in the channel is fed to the socket before it is
//! flushed, so that a burst leaves in one write.

use std::io;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt, future};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::{self, Receiver, Sender};
use tokio_tungstenite::{WebSocketStream, accept_async_with_config};
use tungstenite::{Message, protocol::WebSocketConfig};

const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// As in the echo server beside.
const READ_BUFFER_BYTES: usize = 16 * 1024;
/// Who is further behind loses publications, which the benchmark would notice.
const PUBLICATIONS_MAX: usize = 1024;

/// What was said, and by which connection.
type Publication = (u64, Message);

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
    let (sender, _) = broadcast::channel(PUBLICATIONS_MAX);
    for number in 0.. {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(relay(stream, number, sender.clone()));
    }
    Ok(())
}

/// A connection that fails ends alone and says nothing: an abrupt end is a part of the load.
async fn relay(stream: TcpStream, number: u64, sender: Sender<Publication>) {
    let _ = stream.set_nodelay(true);
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let receiver = sender.subscribe();
    if let Ok(socket) = accept_async_with_config(stream, Some(config)).await {
        let (write, read) = socket.split();
        let publish = std::pin::pin!(publish(read, number, sender));
        let deliver = std::pin::pin!(deliver(write, number, receiver));
        future::select(publish, deliver).await;
    }
}

async fn publish(
    mut read: SplitStream<WebSocketStream<TcpStream>>,
    number: u64,
    sender: Sender<Publication>,
) {
    while let Some(Ok(message)) = read.next().await {
        if message.is_text() || message.is_binary() {
            // Nobody may be there to hear it.
            let _ = sender.send((number, message));
        }
    }
}

async fn deliver(
    mut write: SplitSink<WebSocketStream<TcpStream>, Message>,
    number: u64,
    mut receiver: Receiver<Publication>,
) {
    let mut waiting = receiver.recv().await.ok();
    while let Some((from, message)) = waiting {
        if from != number && write.feed(message).await.is_err() {
            return;
        }
        waiting = match receiver.try_recv() {
            Ok(more) => Some(more),
            Err(_) if write.flush().await.is_err() => None,
            Err(_) => receiver.recv().await.ok(),
        };
    }
}

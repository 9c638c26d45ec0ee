//! What one echo costs before and after the system calls: parse, unmask, check, encode.
//!
//! ```text
//! cargo bench --manifest-path benches/Cargo.toml --bench protocol
//! ```
//!
//! `tidemill` is what its reactor does: the session reads a shared buffer in place, a reply is
//! written into a shared cork, and the header of a payload from 512 bytes on is written in front of
//! it where it lies. `copied` is the same with every reply copied into the cork. `tungstenite` is
//! `WebSocketContext::read` and `write` over a stream in memory with the buffers it has by default;
//! `tungstenite-16k` is the same with a smaller read buffer, of which it zeroes less at each read.
//!
//! Each turn begins with the same masked bytes copied to where a receive would put them; the
//! copy is part of every figure, and `copy` shows it alone.

use std::hint::black_box;
use std::io::{self, Read, Write};

use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use tidemill::protocol::frame::{self, Data, OpCode};
use tidemill::protocol::{Event, Input, Message, Role, Rules, Session};
use tungstenite::protocol::{Role as TheirRole, WebSocketConfig, WebSocketContext};

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const LEND_BYTES: usize = 512;
const RULES: Rules = Rules {
    role: Role::Server,
    message_bytes_max: 1 << 20,
};

/// A turn's worth of received bytes: `count` frames of `size` bytes.
fn received(kind: Data, size: usize, count: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..size).map(|index| b'a' + (index % 26) as u8).collect();
    let mut bytes = Vec::new();
    for _ in 0..count {
        frame::encode(&mut bytes, OpCode::Data(kind), &payload, Some(MASK));
    }
    bytes
}

/// One turn of ours; the bytes that would be sent.
fn echo(session: &mut Session, buffer: &mut [u8], cork: &mut Vec<u8>, lend: bool) -> usize {
    let mut input = Input::new(buffer);
    let (mut at, mut sent) = (None, 0);
    while let Ok(Some(event)) = session.next(&mut input, &RULES) {
        let Event::Message(message) = event else {
            continue;
        };
        let payload = message.as_bytes();
        let kind = match message {
            Message::Text(_) => Data::Text,
            Message::Binary(_) => Data::Binary,
        };
        if lend && payload.len() >= LEND_BYTES {
            frame::encode_header(cork, OpCode::Data(kind), payload.len(), None);
            at = Some(payload.len());
        } else {
            frame::encode(cork, OpCode::Data(kind), payload, None);
        }
    }
    if let Some(length) = at {
        // In front of the payload, which is the last of what was consumed.
        let consumed = input.consumed();
        let start = consumed.len() - length - cork.len();
        consumed[start..start + cork.len()].copy_from_slice(cork);
        sent += length;
    }
    sent += cork.len();
    black_box((&cork, input.bytes()));
    cork.clear();
    sent
}

/// A connection in memory: what was received, and nowhere to send.
struct Memory {
    received: Vec<u8>,
    at: usize,
    sent: usize,
}

impl Read for Memory {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = &self.received[self.at..];
        if rest.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sent += black_box(bytes).len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One turn of theirs; the bytes that were sent.
fn their_echo(context: &mut WebSocketContext, stream: &mut Memory) -> usize {
    (stream.at, stream.sent) = (0, 0);
    while let Ok(message) = context.read(stream) {
        context
            .write(stream, message)
            .expect("memory takes every message");
    }
    context.flush(stream).expect("memory takes every byte");
    stream.sent
}

fn compare(group: &mut BenchmarkGroup<'_, WallTime>, kind: Data, size: usize, count: usize) {
    let name = format!(
        "{kind} {size} B{}",
        if count > 1 {
            format!(" x{count}")
        } else {
            String::new()
        }
    );
    let bytes = received(kind, size, count);
    let header = if size < 126 {
        2
    } else if size < 65536 {
        4
    } else {
        10
    };
    let expected = count * (header + size);
    group.throughput(Throughput::Elements(count as u64));

    let mut buffer = bytes.clone();
    group.bench_function(BenchmarkId::new("copy", &name), |bench| {
        bench.iter(|| buffer.copy_from_slice(black_box(&bytes)));
    });
    for (label, lend) in [("tidemill", true), ("copied", false)] {
        if !lend && size < LEND_BYTES {
            continue;
        }
        let (mut session, mut cork) = (Session::new(), Vec::with_capacity(4096));
        group.bench_function(BenchmarkId::new(label, &name), |bench| {
            bench.iter(|| {
                buffer.copy_from_slice(black_box(&bytes));
                assert_eq!(echo(&mut session, &mut buffer, &mut cork, lend), expected);
            });
        });
    }
    let mut stream = Memory {
        received: bytes,
        at: 0,
        sent: 0,
    };
    let small = WebSocketConfig::default().read_buffer_size(16 * 1024);
    for (label, config) in [("tungstenite", None), ("tungstenite-16k", Some(small))] {
        let mut context = WebSocketContext::new(TheirRole::Server, config);
        group.bench_function(BenchmarkId::new(label, &name), |bench| {
            bench.iter(|| assert_eq!(their_echo(&mut context, &mut stream), expected));
        });
    }
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("echo");
    for size in [20, 1024, 16 * 1024, 64 * 1024] {
        for kind in [Data::Text, Data::Binary] {
            compare(&mut group, kind, size, 1);
        }
    }
    compare(&mut group, Data::Binary, 20, 16);
    group.finish();
}

criterion_group!(protocol, benches);
criterion_main!(protocol);

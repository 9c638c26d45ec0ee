//! Where plaintext becomes records.

use std::io::{self, IoSlice};

use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus, WriteTraffic};

use super::session::Process;

/// Plaintext that is sealed ahead of a socket that may not take it.
const AHEAD_BYTES_MAX: usize = 64 * 1024;

/// Room for it as records, and for what rustls has to say itself among them.
const SEALED_BYTES: usize = AHEAD_BYTES_MAX + 8 * 1024;

/// The most plaintext of one record (RFC 8446, 5.1).
const RECORD_BYTES_MAX: usize = 16 * 1024;

/// A buffer of this size is sealed from where it lies. Smaller ones are joined: each record costs
/// 22 bytes, and as much time as sealing some hundred.
const LARGE_BYTES: usize = 4 * 1024;

/// What the connections of a thread seal their records into, one after the other. Takes no memory
/// before the first.
#[derive(Debug, Default)]
pub struct SealBuffer {
    sealed: Vec<u8>,
    used: usize,
    joined: Vec<u8>,
}

/// What is to be sealed.
#[derive(Clone, Copy)]
enum Plain<'b> {
    Bytes(&'b [u8]),
    /// That nothing more comes (RFC 8446, 6.1).
    CloseNotify,
}

impl SealBuffer {
    /// The records that were sealed last.
    pub(super) fn records(&self) -> &[u8] {
        &self.sealed[..self.used]
    }

    /// Seals buffers in their order, but for their first `skipped` bytes and as far as the bound
    /// allows; says how many bytes of them. `held` is what was received and not dealt with: rustls
    /// remembers where in it messages lie.
    pub(super) fn seal<P: Process>(
        &mut self,
        connection: &mut P,
        held: &mut Vec<u8>,
        buffers: &[IoSlice<'_>],
        mut skipped: usize,
    ) -> io::Result<usize> {
        self.begin();
        let mut taken = 0;
        for buffer in buffers {
            let start = skipped.min(buffer.len());
            skipped -= start;
            let end = buffer.len().min(start + AHEAD_BYTES_MAX - taken);
            let bytes = &buffer[start..end];
            taken += bytes.len();
            let is_large = bytes.len() >= LARGE_BYTES || buffers.len() == 1;
            if is_large || self.joined.len() + bytes.len() > RECORD_BYTES_MAX {
                self.seal_joined(connection, held)?;
            }
            if is_large {
                self.seal_one(connection, held, Plain::Bytes(bytes))?;
            } else {
                self.joined.extend_from_slice(bytes);
            }
        }
        self.seal_joined(connection, held)?;
        Ok(taken)
    }

    /// Seals the alert that goes before our FIN.
    pub(super) fn seal_close_notify<P: Process>(
        &mut self,
        connection: &mut P,
        held: &mut Vec<u8>,
    ) -> io::Result<()> {
        self.begin();
        self.seal_one(connection, held, Plain::CloseNotify)
    }

    fn begin(&mut self) {
        self.sealed.resize(SEALED_BYTES, 0);
        self.used = 0;
        self.joined.clear();
    }

    fn seal_joined<P: Process>(
        &mut self,
        connection: &mut P,
        held: &mut Vec<u8>,
    ) -> io::Result<()> {
        let joined = std::mem::take(&mut self.joined);
        let result = self.seal_one(connection, held, Plain::Bytes(&joined));
        self.joined = joined;
        self.joined.clear();
        result
    }

    fn seal_one<P: Process>(
        &mut self,
        connection: &mut P,
        held: &mut Vec<u8>,
        plain: Plain<'_>,
    ) -> io::Result<()> {
        if matches!(plain, Plain::Bytes([])) {
            return Ok(());
        }
        loop {
            let room = &mut self.sealed[self.used..];
            let UnbufferedStatus { discard, state, .. } = connection.process(held);
            match state {
                Ok(ConnectionState::WriteTraffic(traffic)) => {
                    self.used += write(traffic, plain, room)?;
                    held.drain(..discard);
                    return Ok(());
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    self.used += data.encode(room).map_err(io::Error::other)?;
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => {}
                Ok(_) => return Err(io::ErrorKind::NotConnected.into()),
                Err(error) => return Err(io::Error::other(error)),
            }
            held.drain(..discard);
        }
    }
}

fn write<D>(
    mut traffic: WriteTraffic<'_, D>,
    plain: Plain<'_>,
    room: &mut [u8],
) -> io::Result<usize> {
    match plain {
        Plain::Bytes(bytes) => traffic.encrypt(bytes, room),
        Plain::CloseNotify => traffic.queue_close_notify(room),
    }
    .map_err(io::Error::other)
}

/// Appends what rustls has to send itself to `out`.
pub(super) fn encode<D>(
    mut data: rustls::unbuffered::EncodeTlsData<'_, D>,
    out: &mut Vec<u8>,
) -> Result<(), rustls::Error> {
    let start = out.len();
    // The first attempt tells the size.
    if let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) {
        out.resize(start + size.required_size, 0);
    }
    let encoded = data.encode(&mut out[start..]);
    encoded
        .map(|length| out.truncate(start + length))
        .map_err(|error| rustls::Error::General(error.to_string()))
}

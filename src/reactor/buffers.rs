//! The memory that connections hold beside their slots: told to the gate, bounded, given back.

use super::{Core, Reactor};
use crate::{connection::Flags, handler::Handler, sys};

/// Once this much was buffered by one reactor and is no longer, the allocator is asked for it.
const TRIM_BYTES: u64 = 8 * 1024 * 1024;

impl<H: Handler> Reactor<H> {
    /// Over the buffer budget of the process: closes those of this reactor that hold most, until
    /// the excess is gone.
    pub(super) fn evict(&mut self) {
        let is_over = |core: &Core<H>| core.gate.buffer_excess_bytes() > 0;
        if !is_over(&self.core) && self.core.holders.len() < 2 * self.connections.len() + 1024 {
            return;
        }
        let mut sized = Vec::with_capacity(self.core.holders.len());
        for key in std::mem::take(&mut self.core.holders) {
            let Some(connection) = self.connections.get_mut(key) else {
                continue;
            };
            match connection.link.buffered_bytes() {
                0 => connection.link.flags.clear(Flags::HOLDER),
                bytes => sized.push((bytes, key)),
            }
        }
        sized.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        for (bytes, key) in &sized {
            if !is_over(&self.core) {
                break;
            }
            self.visit(*key, |core, key, connection| {
                if core.throttles.buffers.allow(core.now) {
                    log::warn!(
                        "buffers exhausted, closing the largest id={} bytes={bytes} \
                         remedy=\"raise TIDEMILL_MAX_BUFFER_BYTES\"",
                        core.conn_id(key)
                    );
                }
                core.drop_slow(key, connection);
            });
            self.core.publish_buffered();
        }
        self.core.holders = sized.into_iter().map(|(_, key)| key).collect();
    }
}

impl<H: Handler> Core<H> {
    /// Tells the gate how the buffers have changed.
    pub(super) fn publish_buffered(&mut self) {
        if self.buffered != 0 {
            self.gate.buffer(self.buffered);
            self.block
                .buffer_bytes
                .add(self.buffered.cast_unsigned() as u64);
            self.buffered = 0;
            self.trim();
        }
    }

    /// After pressure, the arenas that the buffers came from are given back.
    fn trim(&mut self) {
        let now = self.block.buffer_bytes.load();
        self.buffered_peak = self.buffered_peak.max(now);
        if self.buffered_peak > TRIM_BYTES && now < self.buffered_peak / 16 {
            self.buffered_peak = 0;
            sys::trim_allocator();
        }
    }
}

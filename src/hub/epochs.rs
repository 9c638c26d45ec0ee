//! `Epochs`: names for streams, by which a subscriber knows one from what came before it.

use super::Position;

/// Names for streams, never the same again.
#[derive(Debug)]
pub struct Epochs(u64);

impl Epochs {
    /// Any seed does; another one gives other names.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Before the first publication of a stream that never was.
    pub fn beginning(&mut self) -> Position {
        // SplitMix64: any seed does, and no number comes again before all have come.
        loop {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut epoch = self.0;
            epoch = (epoch ^ epoch >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            epoch = (epoch ^ epoch >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            epoch ^= epoch >> 31;
            if epoch != 0 {
                return Position { offset: 0, epoch };
            }
        }
    }
}

//! Good inputs with something wrong about them. The same seed makes the same mutations in every run.

use crate::MAX_INPUT_BYTES;

/// A small generator (xorshift64*), so that every run tries the same.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// The rolls of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// A number below `sides`.
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % sides.max(1)
    }
}

/// Bytes that parsers stumble over.
const INTERESTING: [&[u8]; 12] = [
    b"\0",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\"",
    b"{",
    b"[[[[[[[[",
    b"\n",
    b"1e999",
    b"-1",
    b"\\ud800",
    b"\xf0\x9f",
];

/// `input` with up to four changes, some of them pieces of `all`.
#[must_use]
pub fn mutated(input: &[u8], all: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=dice.roll(4) {
        let at = dice.roll(bytes.len() + 1);
        match dice.roll(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << dice.roll(8),
            1 if at < bytes.len() => bytes[at] = dice.roll(256) as u8,
            2 => drop(bytes.drain(at..(at + dice.roll(16)).min(bytes.len()))),
            3 => drop(bytes.splice(at..at, INTERESTING[dice.roll(INTERESTING.len())].iter().copied())),
            4 => bytes.truncate(at),
            _ => {
                let other = &all[dice.roll(all.len())];
                let from = dice.roll(other.len() + 1);
                let piece = other[from..(from + dice.roll(64)).min(other.len())].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes.truncate(MAX_INPUT_BYTES);
    bytes
}

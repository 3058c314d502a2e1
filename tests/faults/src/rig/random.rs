//! Numbers that are the same in each run, so that a round that failed can be run again.

/// A xorshift generator: it decides when and where to break things, nothing that needs good randomness.
pub struct Random(u64);

impl Random {
    /// The sequence of a seed. Neighbouring seeds give unrelated sequences.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // SplitMix64's finaliser, so that seeds 0, 1, 2 … do not begin alike.
        let mut mixed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Self((mixed ^ (mixed >> 31)) | 1)
    }

    /// Any number.
    #[expect(clippy::should_implement_trait, reason = "it never ends, and nobody wants it as an iterator")]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `limit`, which must not be 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        // The lowest bits of a xorshift are its worst.
        (self.next() >> 11) % limit
    }

    /// True `in_hundred` times of a hundred.
    pub fn chance(&mut self, in_hundred: u64) -> bool {
        self.below(100) < in_hundred
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_and_its_neighbour_others() {
        let ten = |seed| (0..10).map(|_| Random::new(seed).next()).collect::<Vec<_>>();
        assert_eq!(ten(1), ten(1));
        assert_ne!(ten(1), ten(2));
        let mut random = Random::new(3);
        assert!((0..1000).all(|_| random.below(7) < 7));
    }
}

//! The per-tenant rotation of searchable vectors.
//!
//! In: a 32-byte seed (RS) and a unit vector. Out: the rotated vector, of equal length, with all cosines between
//! vectors of the same seed kept. It makes vectors of two tenants incomparable to a casual reader of the table; it
//! is obfuscation and not protection: about 512 known pairs solve it.
//!
//! The rotation is three rounds of (flip signs, permute, Walsh-Hadamard transform / √512), each of which is
//! orthogonal exactly. Chosen over a random matrix by QR or Householder because it needs no 1 MiB matrix per tenant
//! and space, no numerically delicate factorisation whose result could differ between builds, and 3·512·9 additions
//! instead of 262,144 multiplications. Three rounds are what fast Johnson-Lindenstrauss and "structured spinner"
//! work (arXiv:1605.09046) finds indistinguishable in practice from a dense random rotation; one round leaves
//! sparse vectors recognisable.

use ring::hmac;

/// Components of an embedding.
pub const DIM: usize = 512;
const ROUNDS: usize = 3;

/// A rotation, expanded from its seed. 6 KiB; make it once and keep it.
#[derive(Clone)]
pub struct Rotation {
    rounds: [Round; ROUNDS],
}

#[derive(Clone)]
struct Round {
    /// +1 or -1 for each input component.
    signs: [f32; DIM],
    /// Output component `i` takes input component `permutation[i]`.
    permutation: [u16; DIM],
}

impl Rotation {
    /// Expands a seed. Deterministic for ever: stored vectors depend on it.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let mut stream = Stream::new(seed);
        Self { rounds: std::array::from_fn(|_| Round::draw(&mut stream)) }
    }

    /// Rotates a vector.
    #[must_use]
    pub fn apply(&self, vector: &[f32; DIM]) -> Box<[f32; DIM]> {
        let mut current = Box::new(*vector);
        for round in &self.rounds {
            let mut next: Box<[f32; DIM]> = Box::new(std::array::from_fn(|i| {
                let from = usize::from(round.permutation[i]);
                current[from] * round.signs[from]
            }));
            hadamard(&mut next);
            current = next;
        }
        current
    }
}

/// A rotation, and which version of the seed it is of.
#[derive(Clone, Debug)]
pub struct Seeded {
    /// The version.
    pub version: u32,
    /// The rotation.
    pub rotation: Rotation,
}

/// The rotations of a space that are in use: one, or two while one takes the other's place. Every vector says by which it is rotated.
#[derive(Clone, Debug)]
pub struct Rotations {
    /// Oldest first.
    all: Vec<Seeded>,
    /// The place of the one by which new vectors are rotated.
    writing: usize,
}

impl Rotations {
    /// These, oldest first; the one in place `writing` rotates new vectors.
    ///
    /// # Panics
    /// If there is no such one: a space's seed is made when it is first asked for.
    #[must_use]
    pub fn new(all: Vec<Seeded>, writing: usize) -> Self {
        assert!(writing < all.len(), "a space has at least one seed");
        Self { all, writing }
    }

    /// All of them, oldest first: vectors go from an older to a newer one and never back, so that whoever looks in this order meets each.
    #[must_use]
    pub fn all(&self) -> &[Seeded] {
        &self.all
    }

    /// The one that rotates new vectors.
    #[must_use]
    pub fn writing(&self) -> &Seeded {
        &self.all[self.writing]
    }
}

impl std::fmt::Debug for Rotation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rotation(***)")
    }
}

impl Round {
    fn draw(stream: &mut Stream) -> Self {
        let signs = std::array::from_fn(|_| if stream.byte() & 1 == 0 { 1.0 } else { -1.0 });
        let mut permutation: [u16; DIM] = std::array::from_fn(|i| u16::try_from(i).expect("512 fits in 16 bits"));
        // Fisher and Yates, from the end.
        for i in (1..DIM).rev() {
            permutation.swap(i, stream.below(i + 1));
        }
        Self { signs, permutation }
    }
}

/// The orthonormal Walsh-Hadamard transform, in place.
fn hadamard(vector: &mut [f32; DIM]) {
    let mut half = 1;
    while half < DIM {
        for block in vector.chunks_exact_mut(2 * half) {
            let (low, high) = block.split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
    // 1/√512, to the nearest f32.
    const SCALE: f32 = 0.044_194_174;
    for component in vector {
        *component *= SCALE;
    }
}

/// Bytes by HMAC-SHA256(seed, label ‖ counter).
struct Stream {
    key: hmac::Key,
    counter: u64,
    block: Vec<u8>,
}

impl Stream {
    fn new(seed: &[u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, seed), counter: 0, block: Vec::new() }
    }

    fn byte(&mut self) -> u8 {
        if let Some(byte) = self.block.pop() {
            return byte;
        }
        let mut context = hmac::Context::with_key(&self.key);
        context.update(b"lintel.rotation.v1");
        context.update(&self.counter.to_be_bytes());
        self.counter += 1;
        self.block = context.sign().as_ref().to_vec();
        self.block.pop().expect("an HMAC-SHA256 has 32 bytes")
    }

    /// Uniform below `n` (at most 512), by rejection.
    fn below(&mut self, n: usize) -> usize {
        let zone = 65_536 - 65_536 % n;
        loop {
            let draw = usize::from(u16::from_be_bytes([self.byte(), self.byte()]));
            if draw < zone {
                return draw % n;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unit(seed: u64) -> [f32; DIM] {
        let mut stream = Stream::new(&[u8::try_from(seed % 251).unwrap(); 32]);
        let raw: [f32; DIM] = std::array::from_fn(|_| f32::from(stream.byte()) - 127.5);
        let norm = raw.iter().map(|x| x * x).sum::<f32>().sqrt();
        raw.map(|x| x / norm)
    }

    fn dot(a: &[f32; DIM], b: &[f32; DIM]) -> f32 {
        a.iter().zip(b).map(|(x, y)| x * y).sum()
    }

    proptest! {
        #[test]
        fn cosines_survive(seed in any::<[u8; 32]>(), a in 0u64..250, b in 0u64..250) {
            let rotation = Rotation::from_seed(&seed);
            let (a, b) = (unit(a), unit(b));
            let rotated = dot(&rotation.apply(&a), &rotation.apply(&b));
            // Three f32 transforms of 512 components: errors of a few units in the seventh digit.
            prop_assert!((rotated - dot(&a, &b)).abs() < 1e-5);
        }
    }

    #[test]
    fn two_seeds_give_unrelated_vectors_even_of_a_sparse_one() {
        let mut sparse = [0.0; DIM];
        sparse[3] = 1.0;
        let (one, other) = (Rotation::from_seed(&[1; 32]).apply(&sparse), Rotation::from_seed(&[2; 32]).apply(&sparse));
        // Of two random directions in 512 dimensions, |cos| > 0.25 has a chance below 1e-7.
        assert!(dot(&one, &other).abs() < 0.25);
        assert!(one.iter().all(|component| component.abs() < 0.5), "one round would leave the vector recognisable");
    }

    #[test]
    fn the_expansion_never_changes() {
        let rotated = Rotation::from_seed(&[7; 32]).apply(&unit(1));
        let bytes: Vec<u8> = rotated.iter().flat_map(|component| component.to_le_bytes()).collect();
        let found = ring::digest::digest(&ring::digest::SHA256, &bytes);
        // Stored vectors depend on every bit of this. It may change only together with a migration that rebuilds them.
        assert_eq!(hex::encode(&found.as_ref()[..8]), "83a50b9762b249bc");
    }
}

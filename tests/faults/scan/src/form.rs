//! The forms that a vector is stored in, and how their components are read.

/// How a window is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// IEEE 754 binary32, little-endian: pgvector's.
    F32,
    /// IEEE 754 binary16, little-endian: pgvector's `halfvec`.
    F16,
    /// The upper half of an f32.
    Bf16,
    /// Signed bytes, of any scale.
    I8,
    /// Decimal numbers in text.
    Numbers,
}

/// Sizes that components have; a zero is one too.
const SIZES: std::ops::RangeInclusive<f32> = 1e-12..=1e4;

impl Form {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::F32, Self::F16, Self::Bf16, Self::I8, Self::Numbers];
    /// Those that bytes are read as.
    pub(crate) const BINARY: [Self; 4] = [Self::F32, Self::F16, Self::Bf16, Self::I8];

    /// As findings name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::I8 => "i8",
            Self::Numbers => "numbers",
        }
    }

    /// From here on a half is somebody's. Halves of strangers are alike to 0.4 once in ten thousand million, by chance; and of bytes every
    /// place in a file is one that could be a vector.
    #[must_use]
    pub const fn somebodys(self) -> f32 {
        if matches!(self, Self::I8) { 0.5 } else { 0.4 }
    }

    /// Bytes of a component.
    pub(crate) const fn width(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::I8 | Self::Numbers => 1,
        }
    }

    /// Reads bytes as components, one after the other. What no component can be is not a number.
    pub(crate) fn read(self, bytes: &[u8], into: &mut Vec<f32>) {
        into.clear();
        match self {
            Self::F32 => into.extend(bytes.as_chunks().0.iter().map(|four| component(f32::from_le_bytes(*four)))),
            Self::F16 => into.extend(bytes.as_chunks().0.iter().map(|two| component(half(u16::from_le_bytes(*two))))),
            Self::Bf16 => into.extend(bytes.as_chunks().0.iter().map(|two| {
                let bits = u32::from(u16::from_le_bytes(*two)) << 16;
                component(f32::from_bits(bits))
            })),
            Self::I8 | Self::Numbers => into.extend(bytes.iter().map(|byte| f32::from(byte.cast_signed()))),
        }
    }
}

/// The number, if a component can be of its size.
pub(crate) fn component(x: f32) -> f32 {
    if x == 0.0 || SIZES.contains(&x.abs()) { x } else { f32::NAN }
}

/// A binary16. The exponent's offset is made good by a product, which is right for small numbers that have no exponent too; what is
/// infinite or not a number becomes larger than any component is.
fn half(bits: u16) -> f32 {
    const OFFSET: f32 = f32::from_bits((127 + 127 - 15) << 23);
    let size = f32::from_bits(u32::from(bits & 0x7fff) << 13) * OFFSET;
    if bits & 0x8000 == 0 { size } else { -size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_binary16_is_read_as_what_it_says() {
        for bits in 0..=u16::MAX {
            let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
            let size = match exponent {
                0 => fraction * 2_f32.powi(-24),
                31 => {
                    assert!(component(half(bits)).is_nan());
                    continue;
                }
                _ => (1.0 + fraction / 1024.0) * 2_f32.powi(exponent - 15),
            };
            assert_eq!(half(bits), if bits & 0x8000 == 0 { size } else { -size }, "{bits:#06x}");
        }
    }
}

//! Every window of a row of components against every half that is looked for.
//!
//! Plain Rust that the compiler makes vectors of, built for each instruction set that matters and chosen at run time. Sums of bytes
//! are integers and exact; the halves they are multiplied with are rounded to 1 in 32,000, which moves a cosine by less than 0.0003.

use crate::{ENOUGH, HALF};

/// What a half has as its length when it is of integers.
const LENGTH: f32 = 32_000.0;
/// Components that are multiplied at once.
const LANES: usize = 16;

/// The halves that are looked for, of length 1.
#[derive(Clone, Debug)]
pub(crate) struct Halves {
    floats: Vec<[f32; HALF]>,
    integers: Vec<[i16; HALF]>,
    /// So many components of either sign a window has.
    pub(crate) of_a_sign: usize,
}

/// The likest window.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Best {
    pub(crate) windows: u64,
    pub(crate) cosine: f32,
}

impl Halves {
    pub(crate) fn of<'a>(halves: impl Iterator<Item = &'a [f32]>) -> Self {
        let floats: Vec<[f32; HALF]> = halves.map(unit).collect();
        #[expect(clippy::cast_possible_truncation, reason = "no component is above 1")]
        let integers = floats.iter().map(|half| half.map(|x| (x * LENGTH).round() as i16)).collect();
        let of_a_sign = floats.iter().map(|half| {
            let negative = half.iter().filter(|x| **x < 0.0).count();
            negative.min(half.iter().filter(|x| **x > 0.0).count())
        });
        let of_a_sign = of_a_sign.min().unwrap_or_default() / 4;
        Self { floats, integers, of_a_sign }
    }

    /// Whether so many components that are not zero, and negative, can be a vector's.
    fn could_be(&self, not_zero: usize, negative: usize) -> bool {
        not_zero >= ENOUGH && negative >= self.of_a_sign && not_zero - negative >= self.of_a_sign
    }
}

fn unit(half: &[f32]) -> [f32; HALF] {
    let length = half.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    std::array::from_fn(|at| half[at] / length)
}

/// Makes of one function one for each instruction set, and one that chooses.
macro_rules! for_this_processor {
    ($name:ident, $components:ty, $plain:ident) => {
        pub(crate) fn $name(halves: &Halves, components: &[$components]) -> Best {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512bw,avx512vnni")]
                fn avx512(halves: &Halves, components: &[$components]) -> Best {
                    $plain(halves, components)
                }
                #[target_feature(enable = "avx2")]
                fn avx2(halves: &Halves, components: &[$components]) -> Best {
                    $plain(halves, components)
                }
                if std::arch::is_x86_feature_detected!("avx512bw") && std::arch::is_x86_feature_detected!("avx512vnni")
                {
                    // SAFETY: the processor has just said that it has these instructions.
                    return unsafe { avx512(halves, components) };
                }
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: as above.
                    return unsafe { avx2(halves, components) };
                }
            }
            $plain(halves, components)
        }
    };
}

for_this_processor!(floats, f32, floats_plain);
for_this_processor!(integers, i16, integers_plain);

/// What is not a number ends every window that it would be in.
#[inline(always)]
fn floats_plain(halves: &Halves, components: &[f32]) -> Best {
    let (mut best, mut run, mut not_zero, mut negative) = (Best::default(), 0, 0, 0);
    for (at, component) in components.iter().enumerate() {
        if component.is_nan() {
            (run, not_zero, negative) = (0, 0, 0);
            continue;
        }
        run += 1;
        not_zero += usize::from(*component != 0.0);
        negative += usize::from(*component < 0.0);
        if run > HALF {
            not_zero -= usize::from(components[at - HALF] != 0.0);
            negative -= usize::from(components[at - HALF] < 0.0);
        }
        if run < HALF || !halves.could_be(not_zero, negative) {
            continue;
        }
        let window = components[at + 1 - HALF..].first_chunk().expect("as many as a run has");
        let mut likest = f32::MIN;
        for half in &halves.floats {
            likest = likest.max(dot(half, window));
        }
        best.windows += 1;
        best.cosine = best.cosine.max(likest / dot(window, window).sqrt());
    }
    best
}

#[inline(always)]
fn integers_plain(halves: &Halves, components: &[i16]) -> Best {
    let (mut best, mut energy, mut not_zero, mut negative) = (Best::default(), 0, 0, 0);
    let square = |component: i16| i32::from(component) * i32::from(component);
    for (at, component) in components.iter().enumerate() {
        energy += square(*component);
        not_zero += usize::from(*component != 0);
        negative += usize::from(*component < 0);
        if at >= HALF {
            energy -= square(components[at - HALF]);
            not_zero -= usize::from(components[at - HALF] != 0);
            negative -= usize::from(components[at - HALF] < 0);
        }
        if at + 1 < HALF || !halves.could_be(not_zero, negative) {
            continue;
        }
        let window = components[at + 1 - HALF..].first_chunk().expect("a window ends here");
        let mut likest = i32::MIN;
        for half in &halves.integers {
            likest = likest.max(integer_dot(half, window));
        }
        best.windows += 1;
        best.cosine = best.cosine.max(likest as f32 / ((energy as f32).sqrt() * LENGTH));
    }
    best
}

/// In lanes, which the compiler keeps in one register.
#[inline(always)]
fn dot(one: &[f32; HALF], other: &[f32; HALF]) -> f32 {
    let mut sums = [0.0; LANES];
    for (a, b) in one.as_chunks::<LANES>().0.iter().zip(other.as_chunks::<LANES>().0) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum()
}

/// Below 2³¹: a window's length is at most 128 · 16, the other's 32,000.
#[inline(always)]
fn integer_dot(one: &[i16; HALF], other: &[i16; HALF]) -> i32 {
    one.iter().zip(other).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum()
}

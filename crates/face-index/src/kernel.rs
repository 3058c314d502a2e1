//! The exact kernel: dot products of one probe with many rows, as fast as memory gives them.
//!
//! In: rows of 512 floats, contiguous, row-major, each aligned to 64 bytes, and a probe. Out: one approximate score a
//! row (see [`crate::candidates`] for how far from the oracle, and why that does not matter). The instruction set is
//! chosen once, at run time: one binary serves an old Atom, a new Xeon and a Jetson.
//!
//! Four rows are scored at once, so that each load of the probe serves four products and enough independent sums are
//! under way to hide the latency of the multiply-adds. Beyond a few thousand rows the memory bus is the limit.

use face_core::{DIM, Embedding};

/// One template, aligned to a cache line: 2,048 bytes, so rows stay contiguous.
#[repr(C, align(64))]
pub(crate) struct Row(pub(crate) Embedding);

impl Row {
    fn values(&self) -> &[f32; DIM] {
        self.0.as_slice()
    }
}

/// Rows scored together.
const GROUP: usize = 4;

/// An instruction set that the kernel is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// AVX-512F: 16 lanes.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2 with FMA: 8 lanes.
    #[cfg(target_arch = "x86_64")]
    Avx2Fma,
    /// NEON: 4 lanes.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// Plain Rust, left to the compiler.
    Portable,
}

impl Kernel {
    /// The best kernel for this processor.
    #[must_use]
    pub fn detect() -> Self {
        Self::available().next().unwrap_or(Self::Portable)
    }

    /// Every kernel that runs on this processor, best first. The portable one is always last.
    pub fn available() -> impl Iterator<Item = Self> {
        let all = [
            #[cfg(target_arch = "x86_64")]
            std::arch::is_x86_feature_detected!("avx512f").then_some(Self::Avx512),
            #[cfg(target_arch = "x86_64")]
            (std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma"))
                .then_some(Self::Avx2Fma),
            #[cfg(target_arch = "aarch64")]
            std::arch::is_aarch64_feature_detected!("neon").then_some(Self::Neon),
            Some(Self::Portable),
        ];
        all.into_iter().flatten()
    }

    /// Writes the score of each row into `scores`, which is as long as `rows`.
    pub(crate) fn score(self, probe: &Embedding, rows: &[Row], scores: &mut [f32]) {
        assert_eq!(rows.len(), scores.len(), "one score a row");
        let probe = probe.as_slice();
        let mut groups = rows.chunks_exact(GROUP);
        let mut outputs = scores.chunks_exact_mut(GROUP);
        for (group, output) in groups.by_ref().zip(outputs.by_ref()) {
            let [a, b, c, d] = group else { unreachable!("chunks of {GROUP}") };
            output.copy_from_slice(&self.dot_group(probe, [a, b, c, d]));
        }
        for (row, score) in groups.remainder().iter().zip(outputs.into_remainder()) {
            *score = self.dot_group(probe, [row; GROUP])[0];
        }
    }

    fn dot_group(self, probe: &[f32; DIM], rows: [&Row; GROUP]) -> [f32; GROUP] {
        let rows = rows.map(Row::values);
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `available` is the only maker of this variant outside tests, and it asked the processor.
            Self::Avx512 => unsafe { x86::dot_avx512(probe, rows) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx2Fma => unsafe { x86::dot_avx2(probe, rows) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Self::Neon => unsafe { arm::dot_neon(probe, rows) },
            Self::Portable => rows.map(|row| dot_portable(probe, row)),
        }
    }
}

/// Sixteen independent sums, so that the compiler may use whatever lanes the target has.
fn dot_portable(probe: &[f32; DIM], row: &[f32; DIM]) -> f32 {
    let mut sums = [0.0_f32; 16];
    for (p, r) in probe.chunks_exact(16).zip(row.chunks_exact(16)) {
        for lane in 0..16 {
            sums[lane] += p[lane] * r[lane];
        }
    }
    sums.iter().sum()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_movehdup_ps, _mm_movehl_ps, _mm256_add_ps, _mm256_castps256_ps128,
        _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_setzero_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
        _mm512_reduce_add_ps, _mm512_setzero_ps,
    };

    use super::{DIM, GROUP};

    #[target_feature(enable = "avx512f")]
    pub(super) fn dot_avx512(probe: &[f32; DIM], rows: [&[f32; DIM]; GROUP]) -> [f32; GROUP] {
        let mut sums = [_mm512_setzero_ps(); GROUP];
        for start in (0..DIM).step_by(16) {
            // SAFETY: `start + 16 <= DIM` for the probe and for every row; unaligned loads are allowed.
            unsafe {
                let p = _mm512_loadu_ps(probe.as_ptr().add(start));
                for (sum, row) in sums.iter_mut().zip(rows) {
                    *sum = _mm512_fmadd_ps(p, _mm512_loadu_ps(row.as_ptr().add(start)), *sum);
                }
            }
        }
        sums.map(|sum| _mm512_reduce_add_ps(sum))
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn dot_avx2(probe: &[f32; DIM], rows: [&[f32; DIM]; GROUP]) -> [f32; GROUP] {
        let mut sums = [[_mm256_setzero_ps(); 2]; GROUP];
        for start in (0..DIM).step_by(16) {
            // SAFETY: `start + 16 <= DIM` for the probe and for every row; unaligned loads are allowed.
            unsafe {
                let p = [_mm256_loadu_ps(probe.as_ptr().add(start)), _mm256_loadu_ps(probe.as_ptr().add(start + 8))];
                for (sum, row) in sums.iter_mut().zip(rows) {
                    sum[0] = _mm256_fmadd_ps(p[0], _mm256_loadu_ps(row.as_ptr().add(start)), sum[0]);
                    sum[1] = _mm256_fmadd_ps(p[1], _mm256_loadu_ps(row.as_ptr().add(start + 8)), sum[1]);
                }
            }
        }
        sums.map(|[low, high]| {
            let sum = _mm256_add_ps(low, high);
            let quad = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum));
            let pair = _mm_add_ps(quad, _mm_movehl_ps(quad, quad));
            _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)))
        })
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::{vaddq_f32, vaddvq_f32, vdupq_n_f32, vfmaq_f32, vld1q_f32};

    use super::{DIM, GROUP};

    #[target_feature(enable = "neon")]
    pub(super) fn dot_neon(probe: &[f32; DIM], rows: [&[f32; DIM]; GROUP]) -> [f32; GROUP] {
        let mut sums = [[vdupq_n_f32(0.0); 2]; GROUP];
        for start in (0..DIM).step_by(8) {
            // SAFETY: `start + 8 <= DIM` for the probe and for every row.
            unsafe {
                let p = [vld1q_f32(probe.as_ptr().add(start)), vld1q_f32(probe.as_ptr().add(start + 4))];
                for (sum, row) in sums.iter_mut().zip(rows) {
                    sum[0] = vfmaq_f32(sum[0], p[0], vld1q_f32(row.as_ptr().add(start)));
                    sum[1] = vfmaq_f32(sum[1], p[1], vld1q_f32(row.as_ptr().add(start + 4)));
                }
            }
        }
        sums.map(|[low, high]| vaddvq_f32(vaddq_f32(low, high)))
    }
}

//! The exact kernel: dot products of one probe with many rows, as fast as memory gives them.
//!
//! In: rows of 512 floats, contiguous, row-major, each aligned to 64 bytes, and a probe. Out: one approximate score a
//! row (see [`crate::candidates`] for how far from the oracle, and why that does not matter). The instruction set is
//! chosen once, at run time: one binary serves an old Atom, a new Xeon and a Jetson.
//!
//! Rows are read strictly one after the other, with four sums under way in each: beyond a few thousand rows the memory
//! bus is the limit, and one ascending stream is what its prefetcher follows best (four rows at once took 1.7 times as
//! long on 100,000 rows). A prefetch of the row after the next hides the step from page to page.

use face_core::{DIM, Embedding};

/// One template, aligned to a cache line: 2,048 bytes, so rows stay contiguous.
#[repr(C, align(64))]
pub(crate) struct Row(pub(crate) Embedding);

impl Row {
    fn values(&self) -> &[f32; DIM] {
        self.0.as_slice()
    }
}

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
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: only `available` makes this variant known to callers, and it asked the processor.
            Self::Avx512 => unsafe { x86::score_avx512(probe, rows, scores) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx2Fma => unsafe { x86::score_avx2(probe, rows, scores) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Self::Neon => unsafe { arm::score_neon(probe, rows, scores) },
            Self::Portable => {
                for (row, score) in rows.iter().zip(scores) {
                    *score = dot_portable(probe, row.values());
                }
            }
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
        _MM_HINT_T0, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_movehdup_ps, _mm_movehl_ps, _mm_prefetch,
        _mm256_add_ps, _mm256_castps256_ps128, _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_loadu_ps,
        _mm256_setzero_ps, _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_reduce_add_ps, _mm512_setzero_ps,
    };

    use super::{DIM, Row};

    /// How far ahead of the row in hand lines are asked for, in floats.
    const AHEAD: usize = 2 * DIM;

    #[target_feature(enable = "avx512f")]
    pub(super) fn score_avx512(probe: &[f32; DIM], rows: &[Row], scores: &mut [f32]) {
        for (row, score) in rows.iter().zip(scores) {
            let row = row.values().as_ptr();
            let mut sums = [_mm512_setzero_ps(); 4];
            for start in (0..DIM).step_by(64) {
                for (lane, sum) in sums.iter_mut().enumerate() {
                    let at = start + lane * 16;
                    // SAFETY: `at + 16 <= DIM` for the probe and for the row; unaligned loads are allowed. A prefetch
                    // never faults, wherever it points; `wrapping_add` makes no claim about the address.
                    unsafe {
                        _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(at + AHEAD).cast());
                        *sum = _mm512_fmadd_ps(
                            _mm512_loadu_ps(probe.as_ptr().add(at)),
                            _mm512_loadu_ps(row.add(at)),
                            *sum,
                        );
                    }
                }
            }
            let [a, b, c, d] = sums;
            *score = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d)));
        }
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn score_avx2(probe: &[f32; DIM], rows: &[Row], scores: &mut [f32]) {
        for (row, score) in rows.iter().zip(scores) {
            let row = row.values().as_ptr();
            let mut sums = [_mm256_setzero_ps(); 4];
            for start in (0..DIM).step_by(32) {
                for (lane, sum) in sums.iter_mut().enumerate() {
                    let at = start + lane * 8;
                    // SAFETY: as in `score_avx512`, with 8 floats.
                    unsafe {
                        if lane % 2 == 0 {
                            _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(at + AHEAD).cast());
                        }
                        *sum = _mm256_fmadd_ps(
                            _mm256_loadu_ps(probe.as_ptr().add(at)),
                            _mm256_loadu_ps(row.add(at)),
                            *sum,
                        );
                    }
                }
            }
            let [a, b, c, d] = sums;
            let sum = _mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d));
            let quad = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum));
            let pair = _mm_add_ps(quad, _mm_movehl_ps(quad, quad));
            *score = _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)));
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::{vaddq_f32, vaddvq_f32, vdupq_n_f32, vfmaq_f32, vld1q_f32};

    use super::{DIM, Row};

    #[target_feature(enable = "neon")]
    pub(super) fn score_neon(probe: &[f32; DIM], rows: &[Row], scores: &mut [f32]) {
        for (row, score) in rows.iter().zip(scores) {
            let row = row.values().as_ptr();
            let mut sums = [vdupq_n_f32(0.0); 4];
            for start in (0..DIM).step_by(16) {
                for (lane, sum) in sums.iter_mut().enumerate() {
                    let at = start + lane * 4;
                    // SAFETY: `at + 4 <= DIM` for the probe and for the row.
                    unsafe {
                        *sum = vfmaq_f32(*sum, vld1q_f32(probe.as_ptr().add(at)), vld1q_f32(row.add(at)));
                    }
                }
            }
            let [a, b, c, d] = sums;
            *score = vaddvq_f32(vaddq_f32(vaddq_f32(a, b), vaddq_f32(c, d)));
        }
    }
}

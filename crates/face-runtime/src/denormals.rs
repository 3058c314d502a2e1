//! Numbers too small for the normal form count as zero while ONNX Runtime computes.
//!
//! The default pack's feature and landmark models hold weights below 1e-38 and products of them. An Intel core takes some hundred
//! cycles for each such number: the feature model runs seven times slower there, with the same answer (an AMD core hardly
//! notices). ONNX Runtime's own switch reaches its worker threads and whichever thread made the process's very first session,
//! never ours, which run models themselves when there is one thread a call. So the control word is set here, and put back.

use std::marker::PhantomData;

/// While it lives, this thread takes denormal numbers for zero. Made for one call into ONNX Runtime: our own arithmetic keeps
/// to IEEE 754 before and after.
pub(crate) struct DenormalsAreZero {
    #[cfg(target_arch = "x86_64")]
    before: u32,
    /// The control word is the thread's own.
    _here: PhantomData<*const ()>,
}

impl DenormalsAreZero {
    /// Until it is dropped.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn here() -> Self {
        /// Denormal inputs are zero (bit 6), and so are denormal results (bit 15).
        const BOTH: u32 = (1 << 6) | (1 << 15);
        let before = control_word::read();
        control_word::write(before | BOTH);
        Self { before, _here: PhantomData }
    }

    /// Cores of other makes compute with denormal numbers at full speed.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn here() -> Self {
        Self { _here: PhantomData }
    }
}

#[cfg(target_arch = "x86_64")]
impl Drop for DenormalsAreZero {
    fn drop(&mut self) {
        control_word::write(self.before);
    }
}

#[cfg(target_arch = "x86_64")]
mod control_word {
    use std::arch::asm;

    pub(super) fn read() -> u32 {
        let mut word = 0_u32;
        // SAFETY: writes the four bytes that it is given, and nothing else.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut word, options(nostack, preserves_flags)) };
        word
    }

    pub(super) fn write(word: u32) {
        // SAFETY: only the two bits above ever differ from what `read` found, so that no exception is unmasked and rounding stays
        // as it was. Rust's own arithmetic expects the usual word: between the two writes stands a call into ONNX Runtime and
        // its wrapper, which passes pointers on and computes nothing.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const word, options(nostack, preserves_flags)) };
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use std::hint::black_box;

    use super::*;

    /// Half of the smallest normal number, computed where the compiler cannot.
    fn half_of_the_smallest() -> f32 {
        black_box(f32::MIN_POSITIVE) * black_box(0.5)
    }

    #[test]
    fn a_denormal_number_is_zero_for_as_long_as_asked() {
        assert!(half_of_the_smallest() > 0.0, "as everywhere");
        {
            let _zero = DenormalsAreZero::here();
            assert_eq!(half_of_the_smallest().to_bits(), 0);
        }
        assert!(half_of_the_smallest() > 0.0, "put back");
    }
}

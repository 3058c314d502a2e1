//! Is this frame the one before, shown again?
//!
//! A camera or decoder that hangs may go on sending its last picture with fresh times. Such a frame proves nothing, so it
//! is not looked at. Every sensor is noisy and every living face moves: two equal frames never come from one. A still
//! scene without anybody (a test pattern, a compressed empty corridor) may repeat, and loses nothing by not being searched
//! again.

use std::hash::{DefaultHasher, Hasher};

use face_core::RgbImage;

/// Rows between the ones that are compared: 60 of 480 rows, 0.1 ms. A frame that differs from the one before in no such
/// row does not differ by a living face.
const ROW_STEP: u32 = 8;

/// Remembers the last frame.
#[derive(Debug, Default)]
pub(super) struct Repetition {
    last: Option<u64>,
}

impl Repetition {
    /// Whether `image` equals the image given before.
    pub(super) fn is_repeat(&mut self, image: &RgbImage) -> bool {
        let mut hasher = DefaultHasher::new();
        for y in (0..image.height()).step_by(ROW_STEP as usize) {
            hasher.write(image.row(y));
        }
        let digest = hasher.finish();
        self.last.replace(digest) == Some(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(shade: u8) -> RgbImage {
        RgbImage::from_vec(4, 16, vec![shade; 4 * 16 * 3]).unwrap()
    }

    #[test]
    fn only_the_same_picture_again_is_a_repetition() {
        let mut repetition = Repetition::default();
        assert!(!repetition.is_repeat(&image(1)));
        assert!(repetition.is_repeat(&image(1)));
        assert!(!repetition.is_repeat(&image(2)));
        assert!(!repetition.is_repeat(&image(1)));
    }
}

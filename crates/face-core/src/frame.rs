//! Pictures as the rest of the crate reads them: 8-bit RGB, rows top-down.
//!
//! In: bytes owned by anyone (a `Vec`, a mapped GStreamer buffer). Out: [`RgbImage`] and [`Frame`], cheap to clone.
//! Deliberately absent: decoding of files (`face-runtime`), capture (`edge-capture`), other pixel formats.

use std::fmt;
use std::sync::Arc;

use crate::time::MonoTime;

/// The longest side of a picture that is accepted, in pixels.
///
/// 16,384 × 16,384 × 3 bytes still fits in 32-bit arithmetic on lengths, and no camera or photograph that a
/// door meets is larger; it bounds what a hostile header can make us compute.
pub const MAX_SIDE_PX: u32 = 16_384;

/// Why bytes are not a picture.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A side is zero or longer than [`MAX_SIDE_PX`].
    #[error("picture of {width}x{height} pixels: each side must be between 1 and {MAX_SIDE_PX}")]
    Size {
        /// Width in pixels as given.
        width: u32,
        /// Height in pixels as given.
        height: u32,
    },
    /// A row does not fit in its stride.
    #[error("picture row of {row_bytes} bytes does not fit in a stride of {stride}")]
    Stride {
        /// Bytes of one row, three per pixel.
        row_bytes: usize,
        /// Distance between row starts as given.
        stride: usize,
    },
    /// The buffer ends before the last row does.
    #[error("picture buffer has {found} bytes, {needed} are needed")]
    Length {
        /// Bytes needed for all rows.
        needed: usize,
        /// Bytes found.
        found: usize,
    },
}

/// An 8-bit RGB picture, three interleaved bytes per pixel, rows top-down, `stride` bytes apart.
///
/// Clones share the bytes. Invariant: the buffer holds `height` rows of `3 * width` bytes (checked in [`RgbImage::new`]).
#[derive(Clone)]
pub struct RgbImage {
    width: u32,
    height: u32,
    stride: usize,
    data: Arc<dyn AsRef<[u8]> + Send + Sync>,
}

impl RgbImage {
    /// Wraps a buffer without copying it; a mapped camera buffer can be passed as it is.
    ///
    /// # Errors
    /// When a side is out of range, a row does not fit in `stride`, or the buffer is too short.
    pub fn new(
        width: u32,
        height: u32,
        stride: usize,
        data: Arc<dyn AsRef<[u8]> + Send + Sync>,
    ) -> Result<Self, FrameError> {
        if width == 0 || height == 0 || width > MAX_SIDE_PX || height > MAX_SIDE_PX {
            return Err(FrameError::Size { width, height });
        }
        let row_bytes = width as usize * 3;
        if stride < row_bytes {
            return Err(FrameError::Stride { row_bytes, stride });
        }
        let found = (*data).as_ref().len();
        let needed = (height as usize - 1)
            .checked_mul(stride)
            .and_then(|bytes| bytes.checked_add(row_bytes))
            .ok_or(FrameError::Length { needed: usize::MAX, found })?;
        if found < needed {
            return Err(FrameError::Length { needed, found });
        }
        Ok(Self { width, height, stride, data })
    }

    /// Wraps tightly packed bytes (`stride = 3 * width`).
    ///
    /// # Errors
    /// As [`RgbImage::new`].
    pub fn from_vec(width: u32, height: u32, data: Vec<u8>) -> Result<Self, FrameError> {
        Self::new(width, height, width as usize * 3, Arc::new(data))
    }

    /// Width in pixels, at least 1.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels, at least 1.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Bytes between the starts of two rows.
    #[must_use]
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// The whole buffer, padding included.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        (*self.data).as_ref()
    }

    /// The `3 * width` bytes of row `y`.
    ///
    /// # Panics
    /// When `y` is not below the height.
    #[must_use]
    pub fn row(&self, y: u32) -> &[u8] {
        assert!(y < self.height, "row {y} of a picture {} pixels high", self.height);
        let start = y as usize * self.stride;
        &self.bytes()[start..start + self.width as usize * 3]
    }

    /// Red, green and blue of one pixel. For tests and a few probes; loops should take [`RgbImage::row`].
    ///
    /// # Panics
    /// When the position is outside the picture.
    #[must_use]
    pub fn pixel(&self, x: u32, y: u32) -> [u8; 3] {
        let start = x as usize * 3;
        let row = self.row(y);
        [row[start], row[start + 1], row[start + 2]]
    }
}

impl fmt::Debug for RgbImage {
    /// Size only: pixels of a face do not belong in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RgbImage({}x{})", self.width, self.height)
    }
}

/// A picture from a camera, with when it was captured.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The pixels.
    pub image: RgbImage,
    /// When the light fell on the sensor, as well as the source knows (protocol: base latency and pipeline time are
    /// already subtracted from the arrival).
    pub captured_at: MonoTime,
    /// Counts the frames of one source, dropped ones included, so that a gap is visible.
    pub sequence: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_padded_buffer_is_read_row_by_row() {
        let image = RgbImage::new(1, 2, 4, Arc::new(vec![1, 2, 3, 0, 4, 5, 6])).unwrap();
        assert_eq!(image.row(1), &[4, 5, 6]);
        assert_eq!(image.pixel(0, 0), [1, 2, 3]);
    }

    #[test]
    fn wrong_sizes_are_refused_with_the_numbers() {
        assert_eq!(
            RgbImage::from_vec(0, 4, vec![]).unwrap_err().to_string(),
            "picture of 0x4 pixels: each side must be between 1 and 16384"
        );
        assert!(matches!(RgbImage::from_vec(MAX_SIDE_PX + 1, 1, vec![]), Err(FrameError::Size { .. })));
        let stride = RgbImage::new(2, 1, 5, Arc::new(vec![0; 6])).unwrap_err();
        assert_eq!(stride, FrameError::Stride { row_bytes: 6, stride: 5 });
        assert_eq!(RgbImage::from_vec(2, 2, vec![0; 11]).unwrap_err(), FrameError::Length { needed: 12, found: 11 });
        let overflow = RgbImage::new(1, 3, usize::MAX, Arc::new(vec![0; 6]));
        assert!(matches!(overflow, Err(FrameError::Length { .. })));
    }

    #[test]
    fn debug_output_shows_no_pixels() {
        let image = RgbImage::from_vec(1, 1, vec![200, 201, 202]).unwrap();
        assert_eq!(format!("{image:?}"), "RgbImage(1x1)");
    }
}

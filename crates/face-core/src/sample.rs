//! Pixels into tensors: area-averaged resizing, crops and the aligned warp. This is the hot path beside the models.
//!
//! In: an [`RgbImage`], a rectangle or transform, a [`TensorFormat`]. Out: planar (CHW) f32 in the caller's slice,
//! or a [`GreyCrop`]. Shrinking averages over the area that each target pixel covers (as OpenCV's INTER_AREA), since
//! point sampling costs small faces; enlarging and warping are bilinear. What lies outside the picture repeats its
//! edge in crops and is black in warps. Deliberately absent: batches, other element types.

use fast_image_resize::Resizer;

use crate::align::Alignment;
use crate::detect::Letterbox;
use crate::frame::RgbImage;
use crate::geometry::{PixelRect, Similarity2d};

/// Which colour comes first in a tensor's planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColourOrder {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red, as models trained with OpenCV want it.
    Bgr,
}

/// How bytes become numbers: plane *c* of the tensor holds `(byte − mean[c]) / scale[c]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TensorFormat {
    /// Order of the planes.
    pub order: ColourOrder,
    /// Subtracted, per plane, in bytes (0 to 255).
    pub mean: [f32; 3],
    /// Divided by, per plane; not zero.
    pub scale: [f32; 3],
}

/// As [`TensorFormat`], for the single plane of a grey tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GreyFormat {
    /// Subtracted, in bytes (0 to 255).
    pub mean: f32,
    /// Divided by; not zero.
    pub scale: f32,
}

/// Why a tensor could not be filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// The caller's slice does not have the tensor's size.
    #[error("tensor slice holds {found} values, {expected} are needed")]
    Length {
        /// Values needed.
        expected: usize,
        /// Values found.
        found: usize,
    },
    /// The target has no pixels or more than any model takes.
    #[error("tensor of {width}x{height} pixels cannot be filled")]
    Target {
        /// Width asked for.
        width: u32,
        /// Height asked for.
        height: u32,
    },
    /// The rectangle is larger than any crop of a face can be.
    #[error("crop of {width}x{height} pixels is too large")]
    Crop {
        /// Width in pixels, rounded up.
        width: u32,
        /// Height in pixels, rounded up.
        height: u32,
    },
}

/// A small grey picture, rows top-down without padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GreyCrop {
    width: usize,
    height: usize,
    luma: Vec<u8>,
}

/// Fills tensors; keeps its scratch buffers, so use one per worker thread and reuse it.
pub struct Sampler {
    resizer: Resizer,
    region: Vec<u8>,
    small: Vec<u8>,
}

impl Sampler {
    /// An idle sampler; buffers grow with use.
    #[must_use]
    pub fn new() -> Self {
        todo!()
    }

    /// Draws the whole picture on a plane as `letterbox` says; the padding is 0.0 in the tensor's units.
    ///
    /// `out` is `3 × plane height × plane width`.
    ///
    /// # Errors
    /// When `out` has another length.
    pub fn letterbox(
        &mut self,
        image: &RgbImage,
        letterbox: &Letterbox,
        format: &TensorFormat,
        out: &mut [f32],
    ) -> Result<(), SampleError> {
        todo!()
    }

    /// Resizes a rectangle of the picture to `size` (width, height); `out` is `3 × height × width`.
    ///
    /// Where the rectangle protrudes, the picture's edge pixels are repeated.
    ///
    /// # Errors
    /// When `out` has another length or the rectangle is absurdly large.
    pub fn crop(
        &mut self,
        image: &RgbImage,
        rect: &PixelRect,
        size: (u32, u32),
        format: &TensorFormat,
        out: &mut [f32],
    ) -> Result<(), SampleError> {
        todo!()
    }

    /// As [`Sampler::crop`], in grey (ITU-R BT.601 luma); `out` is `height × width`.
    ///
    /// # Errors
    /// As [`Sampler::crop`].
    pub fn crop_grey(
        &mut self,
        image: &RgbImage,
        rect: &PixelRect,
        size: (u32, u32),
        format: &GreyFormat,
        out: &mut [f32],
    ) -> Result<(), SampleError> {
        todo!()
    }
}

/// Bilinear warp into `size` (width, height): target pixel *p* is read at `to_picture.apply(p)`; `out` is `3 × height × width`.
///
/// For the embedder: [`Alignment::to_picture`] and 112 × 112.
///
/// # Errors
/// When `out` has another length.
pub fn warp(
    image: &RgbImage,
    to_picture: &Similarity2d,
    size: (u32, u32),
    format: &TensorFormat,
    out: &mut [f32],
) -> Result<(), SampleError> {
    todo!()
}

/// The aligned face (112 × 112) in grey: what sharpness, brightness, visibility and the still-picture check look at.
#[must_use]
pub fn aligned_grey(image: &RgbImage, alignment: &Alignment) -> GreyCrop {
    todo!()
}

//! Pictures from outside — uploads, files on a command line — decoded within limits.
//!
//! In: the bytes of a JPEG or PNG. Out: an upright 8-bit RGB image, or a [`PhotoError`] that says what to do. The
//! size is read from the header and judged before a pixel is decoded; EXIF orientation is applied; a file that stops
//! early is an error and never half a face with grey below it. No network, no files: bytes only.
//!
//! Decoders have had bugs that panic on hostile files, so they run inside `catch_unwind`.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use face_core::RgbImage;
use image::codecs::jpeg::JpegDecoder;
use image::codecs::png::PngDecoder;
use image::{DynamicImage, ImageDecoder};

use crate::jpeg::{self, JpegProblem};

/// What a photograph may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PhotoLimits {
    /// Largest file, in bytes.
    pub max_bytes: usize,
    /// Largest picture, in pixels (width times height).
    pub max_pixels: u64,
    /// Longest side, in pixels.
    pub max_side_px: u32,
}

impl Default for PhotoLimits {
    /// 20 MiB and 25 megapixels: what today's phones send at most by default (24.5 megapixels), and no more than
    /// about 300 MB while decoding (a progressive JPEG keeps 16-bit coefficients beside the pixels).
    fn default() -> Self {
        Self { max_bytes: 20 << 20, max_pixels: 25_000_000, max_side_px: 16_384 }
    }
}

/// Why a photograph cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PhotoError {
    /// The file is longer than the limit.
    #[error("the photograph has {found} bytes, at most {limit} are accepted: send a smaller one")]
    TooManyBytes {
        /// Length of the file.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// Neither JPEG nor PNG by its first bytes; the file name is not asked.
    #[error("the photograph is neither JPEG nor PNG: convert it to one of them")]
    UnknownFormat,
    /// The picture is larger than the limit.
    #[error(
        "the photograph has {width}x{height} pixels, at most {max_pixels} pixels and {max_side_px} a side are accepted: scale it down"
    )]
    TooLarge {
        /// Width in pixels, from the header.
        width: u32,
        /// Height in pixels, from the header.
        height: u32,
        /// Limit in pixels.
        max_pixels: u64,
        /// Limit of either side.
        max_side_px: u32,
    },
    /// Width or height is zero.
    #[error("the photograph has no pixels")]
    Empty,
    /// The file is a JPEG that cannot be used as it is.
    #[error("the photograph cannot be used")]
    Jpeg(#[source] JpegProblem),
    /// The decoder found the file to be damaged or incomplete.
    #[error("the photograph is damaged or incomplete: send the original file")]
    Damaged(#[source] image::ImageError),
    /// The decoder panicked. Nothing of it is used.
    #[error("the photograph made the decoder fail: send the original file or convert it")]
    DecoderPanicked,
}

/// Decodes a photograph, upright, to 8-bit RGB.
///
/// Grey becomes RGB with equal planes; transparency is dropped; 16-bit PNG is rounded to 8 bits. CMYK and 12-bit JPEG
/// are refused, because without their colour profile the skin would have wrong colours.
///
/// # Errors
/// [`PhotoError`]; no input panics, and none makes it allocate more than the limits allow.
pub fn decode_photo(bytes: &[u8], limits: &PhotoLimits) -> Result<RgbImage, PhotoError> {
    if bytes.len() > limits.max_bytes {
        return Err(PhotoError::TooManyBytes { found: bytes.len(), limit: limits.max_bytes });
    }
    // Nothing is shared with the closure but the input bytes, so no broken state can be seen afterwards.
    catch_unwind(AssertUnwindSafe(|| decode(bytes, limits))).unwrap_or(Err(PhotoError::DecoderPanicked))
}

fn decode(bytes: &[u8], limits: &PhotoLimits) -> Result<RgbImage, PhotoError> {
    if bytes.starts_with(&[0xFF, 0xD8, 0xFF]) {
        let header = jpeg::check(bytes).map_err(PhotoError::Jpeg)?;
        check_size(header.width, header.height, limits)?;
        decode_with(JpegDecoder::new(Cursor::new(bytes)).map_err(PhotoError::Damaged)?, limits)
    } else if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        // The first chunk is the header, by the format's own rule: signature, length, "IHDR", width, height.
        if let Some(&[w3, w2, w1, w0, h3, h2, h1, h0]) = bytes.get(16..24) {
            check_size(u32::from_be_bytes([w3, w2, w1, w0]), u32::from_be_bytes([h3, h2, h1, h0]), limits)?;
        }
        let mut decoder_limits = image::Limits::no_limits();
        // Ancillary chunks (text, profiles) are inflated by the decoder: bound them as well.
        decoder_limits.max_alloc = Some(limits.max_pixels.saturating_mul(8));
        let decoder = PngDecoder::with_limits(Cursor::new(bytes), decoder_limits).map_err(PhotoError::Damaged)?;
        decode_with(decoder, limits)
    } else {
        Err(PhotoError::UnknownFormat)
    }
}

fn check_size(width: u32, height: u32, limits: &PhotoLimits) -> Result<(), PhotoError> {
    if width == 0 || height == 0 {
        return Err(PhotoError::Empty);
    }
    let PhotoLimits { max_pixels, max_side_px, .. } = *limits;
    if width > max_side_px || height > max_side_px || u64::from(width) * u64::from(height) > max_pixels {
        return Err(PhotoError::TooLarge { width, height, max_pixels, max_side_px });
    }
    Ok(())
}

fn decode_with(mut decoder: impl ImageDecoder, limits: &PhotoLimits) -> Result<RgbImage, PhotoError> {
    let (width, height) = decoder.dimensions();
    check_size(width, height, limits)?;
    let orientation = decoder.orientation().map_err(PhotoError::Damaged)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(PhotoError::Damaged)?;
    picture.apply_orientation(orientation);
    let rgb = picture.into_rgb8();
    let (width, height) = rgb.dimensions();
    Ok(RgbImage::from_vec(width, height, rgb.into_raw()).expect("checked size, three bytes for each pixel"))
}

//! Pixels into tensors: area-averaged resizing, crops and the aligned warp. This is the hot path beside the models.
//!
//! In: an [`RgbImage`], a rectangle or transform, a [`TensorFormat`]. Out: planar (CHW) f32 in the caller's slice,
//! or a [`GreyCrop`]. Shrinking averages over the area that each target pixel covers (as OpenCV's INTER_AREA), since
//! point sampling costs small faces; enlarging is bilinear, and so is warping unless it shrinks. What lies outside the picture repeats its
//! edge in crops and is black in warps. Deliberately absent: batches, other element types.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ImageView as _, ResizeAlg, ResizeOptions, Resizer};

use crate::align::{ALIGNED_SIDE_PX, Alignment};
use crate::detect::Letterbox;
use crate::frame::{MAX_SIDE_PX, RgbImage};
use crate::geometry::{PixelRect, Point, Similarity2d};

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

/// Longest side of a model's input plane that is accepted, in pixels; the largest in use has 320.
const MAX_PLANE_SIDE_PX: u32 = 2048;

impl GreyCrop {
    /// Wraps `width * height` luma bytes, rows top-down.
    ///
    /// # Errors
    /// When the number of bytes is another one, or a side is zero.
    pub fn new(width: usize, height: usize, luma: Vec<u8>) -> Result<Self, SampleError> {
        let expected = width.saturating_mul(height);
        if expected == 0 || luma.len() != expected {
            return Err(SampleError::Length { expected, found: luma.len() });
        }
        Ok(Self { width, height, luma })
    }

    /// Width in pixels, at least 1.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels, at least 1.
    #[must_use]
    pub fn height(&self) -> usize {
        self.height
    }

    /// Luma, row by row.
    #[must_use]
    pub fn luma(&self) -> &[u8] {
        &self.luma
    }

    /// Shrinks by averaging blocks of `factor` × `factor` pixels; what does not fill a block at the right and lower
    /// edge is left out. `None` when nothing would remain.
    #[must_use]
    pub fn shrunk(&self, factor: usize) -> Option<Self> {
        let (width, height) = (self.width.checked_div(factor)?, self.height.checked_div(factor)?);
        let mut luma = Vec::with_capacity(width * height);
        let n = (factor * factor) as u32;
        for y in 0..height {
            for x in 0..width {
                let mut sum = n / 2;
                for row in 0..factor {
                    let start = (y * factor + row) * self.width + x * factor;
                    sum += self.luma[start..start + factor].iter().map(|value| u32::from(*value)).sum::<u32>();
                }
                luma.push((sum / n) as u8);
            }
        }
        Self::new(width, height, luma).ok()
    }
}

/// Fills tensors; keeps its scratch buffers, so use one per worker thread and reuse it.
#[derive(Debug, Default)]
pub struct Sampler {
    resizer: Resizer,
    /// Part of a picture copied together, when the resizer cannot read the picture in place.
    region: Vec<u8>,
    /// The resized part, 8-bit RGB.
    small: Vec<u8>,
}

impl Sampler {
    /// An idle sampler; buffers grow with use.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
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
        check_target(letterbox.plane, 3, out)?;
        let whole = PixelRect::new(0.0, 0.0, image.width() as f32, image.height() as f32)
            .expect("a picture has at least one pixel");
        self.resize(image, &whole, (letterbox.width, letterbox.height))?;
        if (letterbox.width, letterbox.height) != letterbox.plane {
            out.fill(0.0);
        }
        let offset = (letterbox.left as usize, letterbox.top as usize);
        let small_width = letterbox.width as usize;
        write_planes(&self.small, small_width, format, out, letterbox.plane.0 as usize, offset);
        Ok(())
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
        check_target(size, 3, out)?;
        self.resize(image, rect, size)?;
        write_planes(&self.small, size.0 as usize, format, out, size.0 as usize, (0, 0));
        Ok(())
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
        check_target(size, 1, out)?;
        self.resize(image, rect, size)?;
        for (value, pixel) in out.iter_mut().zip(self.small.chunks_exact(3)) {
            *value = (f32::from(luma(pixel)) - format.mean) / format.scale;
        }
        Ok(())
    }

    /// Resizes a rectangle into `self.small`.
    fn resize(&mut self, image: &RgbImage, rect: &PixelRect, size: (u32, u32)) -> Result<(), SampleError> {
        let Region { view, left, top } = Region::of(image, rect, &mut self.region)?;
        self.small.resize(size.0 as usize * size.1 as usize * 3, 0);
        let mut target = TypedImage::<U8x3>::from_buffer(size.0, size.1, &mut self.small)
            .expect("the scratch buffer was just given the target's size");
        // Rounding in f32 must not push the crop beyond the view.
        let width = f64::from(rect.width()).min(f64::from(view.width()) - left);
        let height = f64::from(rect.height()).min(f64::from(view.height()) - top);
        let filter = filter_for(width / f64::from(size.0), height / f64::from(size.1));
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(filter))
            .use_alpha(false)
            .crop(left, top, width, height);
        // Typed: the untyped call would compile the filters of all 26 kinds of pixel into this crate.
        self.resizer.resize_typed(&view, &mut target, &options).expect("the crop lies inside the view");
        Ok(())
    }
}

/// How to average, by source pixels per target pixel along each axis.
///
/// A box over a whole number of pixels is the exact area mean; for other ratios a box would take whole pixels only and
/// jitter by half of one, so the smooth Hamming window of the same purpose is used; enlarging interpolates.
fn filter_for(x_ratio: f64, y_ratio: f64) -> FilterType {
    let whole = |ratio: f64| (ratio - ratio.round()).abs() < 1e-6;
    if x_ratio < 1.0 || y_ratio < 1.0 {
        FilterType::Bilinear
    } else if whole(x_ratio) && whole(y_ratio) {
        FilterType::Box
    } else {
        FilterType::Hamming
    }
}

/// A view of packed pixels that holds a whole rectangle, and where the rectangle begins in it.
struct Region<'a> {
    view: TypedImageRef<'a, U8x3>,
    left: f64,
    top: f64,
}

impl<'a> Region<'a> {
    /// Reads the picture in place when it is packed and holds the rectangle; else copies the part that is needed,
    /// repeating the picture's edge where the rectangle protrudes.
    fn of(image: &'a RgbImage, rect: &PixelRect, scratch: &'a mut Vec<u8>) -> Result<Self, SampleError> {
        let inside = rect.x() >= 0.0
            && rect.y() >= 0.0
            && rect.right() <= image.width() as f32
            && rect.bottom() <= image.height() as f32;
        if inside && image.stride() == image.width() as usize * 3 {
            let view = TypedImageRef::from_buffer(image.width(), image.height(), image.bytes())
                .expect("a picture's buffer holds its rows");
            return Ok(Self { view, left: f64::from(rect.x()), top: f64::from(rect.y()) });
        }
        let (left, top) = (f64::from(rect.x()).floor(), f64::from(rect.y()).floor());
        let width = (f64::from(rect.x()) + f64::from(rect.width())).ceil() - left;
        let height = (f64::from(rect.y()) + f64::from(rect.height())).ceil() - top;
        if width > f64::from(MAX_SIDE_PX) || height > f64::from(MAX_SIDE_PX) {
            return Err(SampleError::Crop { width: width as u32, height: height as u32 });
        }
        let (width, height) = (width as u32, height as u32);
        copy_region(image, left as i64, top as i64, width, height, scratch);
        let view = TypedImageRef::from_buffer(width, height, scratch)
            .expect("the scratch buffer was just given the region's size");
        Ok(Self { view, left: f64::from(rect.x()) - left, top: f64::from(rect.y()) - top })
    }
}

fn copy_region(image: &RgbImage, left: i64, top: i64, width: u32, height: u32, into: &mut Vec<u8>) {
    into.clear();
    into.reserve(width as usize * height as usize * 3);
    let last_x = i64::from(image.width()) - 1;
    let last_y = i64::from(image.height()) - 1;
    // Columns in front of, inside and behind the picture.
    let before = (-left).clamp(0, i64::from(width));
    let first = left.clamp(0, last_x + 1);
    let end = (left + i64::from(width)).clamp(first, last_x + 1);
    let after = i64::from(width) - before - (end - first);
    for y in top..top + i64::from(height) {
        let row = image.row(y.clamp(0, last_y) as u32);
        for _ in 0..before {
            into.extend_from_slice(&row[..3]);
        }
        into.extend_from_slice(&row[first as usize * 3..end as usize * 3]);
        for _ in 0..after {
            into.extend_from_slice(&row[last_x as usize * 3..]);
        }
    }
}

/// Writes interleaved bytes into three planes of `plane_width`, at an offset.
fn write_planes(
    pixels: &[u8],
    width: usize,
    format: &TensorFormat,
    out: &mut [f32],
    plane_width: usize,
    offset: (usize, usize),
) {
    let plane = out.len() / 3;
    let (first, rest) = out.split_at_mut(plane);
    let (second, third) = rest.split_at_mut(plane);
    let [p0, p1, p2] = affine(format);
    let swap = format.order == ColourOrder::Bgr;
    for (y, row) in pixels.chunks_exact(width * 3).enumerate() {
        let start = (offset.1 + y) * plane_width + offset.0;
        let span = start..start + width;
        let planes = first[span.clone()].iter_mut().zip(&mut second[span.clone()]).zip(&mut third[span]);
        for (((a, b), c), pixel) in planes.zip(row.chunks_exact(3)) {
            let (lead, tail) = if swap { (pixel[2], pixel[0]) } else { (pixel[0], pixel[2]) };
            *a = f32::from(lead) * p0.0 + p0.1;
            *b = f32::from(pixel[1]) * p1.0 + p1.1;
            *c = f32::from(tail) * p2.0 + p2.1;
        }
    }
}

/// Per plane: factor and addend that do the same as `(byte − mean) / scale` without a division per pixel.
fn affine(format: &TensorFormat) -> [(f32, f32); 3] {
    std::array::from_fn(|plane| (1.0 / format.scale[plane], -format.mean[plane] / format.scale[plane]))
}

fn check_target(size: (u32, u32), planes: usize, out: &[f32]) -> Result<(), SampleError> {
    let (width, height) = size;
    if width == 0 || height == 0 || width > MAX_PLANE_SIDE_PX || height > MAX_PLANE_SIDE_PX {
        return Err(SampleError::Target { width, height });
    }
    let expected = planes * width as usize * height as usize;
    if out.len() == expected { Ok(()) } else { Err(SampleError::Length { expected, found: out.len() }) }
}

/// ITU-R BT.601 luma in 8-bit fixed point, as OpenCV's grey conversion to within one step.
fn luma(pixel: &[u8]) -> u8 {
    ((77 * u32::from(pixel[0]) + 150 * u32::from(pixel[1]) + 29 * u32::from(pixel[2]) + 128) >> 8) as u8
}

/// Turns a planar tensor into its mirror image, left for right. `width` is that of a plane.
///
/// # Panics
/// When `width` is zero; it is a model's input width, which no manifest may have as zero.
pub fn mirror(tensor: &mut [f32], width: usize) {
    for row in tensor.chunks_exact_mut(width) {
        row.reverse();
    }
}

/// Pixels of the picture per pixel of the crop from which on a warp averages. Bilinear reading mixes four neighbours
/// and so loses nothing below two; 1.5 is where the grey crop has always begun.
const AVERAGED_FROM: f32 = 1.5;

/// Bilinear warp into `size` (width, height): target pixel *p* is read at `to_picture.apply(p)`; `out` is `3 × height × width`.
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
    warp_at(image, to_picture, &[Point::default()], size, format, out)
}

/// As [`warp`], but a target pixel that covers more than [`AVERAGED_FROM`] pixels of the picture is the mean over a grid
/// of points in it: one point alone would fold hair and pores of a large face into noise.
///
/// For the embedder: [`Alignment::to_picture`] and 112 × 112. Cost: some 10 ns a point, at most 64 points a pixel.
///
/// # Errors
/// When `out` has another length.
pub fn warp_averaged(
    image: &RgbImage,
    to_picture: &Similarity2d,
    size: (u32, u32),
    format: &TensorFormat,
    out: &mut [f32],
) -> Result<(), SampleError> {
    let scale = to_picture.scale();
    if scale <= AVERAGED_FROM {
        return warp(image, to_picture, size, format, out);
    }
    warp_at(image, to_picture, &spread(to_picture, scale), size, format, out)
}

/// A part of the aligned face in grey, for a second look of the landmark model: `part` is in pixels of the aligned crop
/// and is stretched to `size`; `out` is `height × width`. Averaged as by [`warp_averaged`]; the picture's edge is repeated.
///
/// # Errors
/// When `out` has another length.
pub fn warp_grey(
    image: &RgbImage,
    to_picture: &Similarity2d,
    part: &PixelRect,
    size: (u32, u32),
    format: &GreyFormat,
    out: &mut [f32],
) -> Result<(), SampleError> {
    check_target(size, 1, out)?;
    let source = Bilinear::new(image);
    let (step_x, step_y) = (part.width() / size.0 as f32, part.height() / size.1 as f32);
    let n = ((to_picture.scale() * step_x.max(step_y) / AVERAGED_FROM).ceil() as u32).clamp(1, 8);
    let last = Point::new((image.width() - 1) as f32, (image.height() - 1) as f32);
    for (index, value) in (0u32..).zip(out.iter_mut()) {
        let (x, y) = ((index % size.0) as f32, (index / size.0) as f32);
        let mut sum = 0.0;
        for sub in 0..n * n {
            // Pixel centres of the target, as the halves say; the part's edges are pixel edges of the crop.
            let (dx, dy) = (((sub % n) as f32 + 0.5) / n as f32, ((sub / n) as f32 + 0.5) / n as f32);
            let at = Point::new(part.x() + (x + dx) * step_x - 0.5, part.y() + (y + dy) * step_y - 0.5);
            let at = to_picture.apply(at);
            let [r, g, b] = source.at(Point::new(at.x.clamp(0.0, last.x), at.y.clamp(0.0, last.y)));
            sum += 0.299 * r + 0.587 * g + 0.114 * b;
        }
        *value = (sum / (n * n) as f32 - format.mean) / format.scale;
    }
    Ok(())
}

/// Each target pixel is the mean of bilinear readings at its place plus each of the shifts (at least one).
fn warp_at(
    image: &RgbImage,
    to_picture: &Similarity2d,
    shifts: &[Point],
    size: (u32, u32),
    format: &TensorFormat,
    out: &mut [f32],
) -> Result<(), SampleError> {
    check_target(size, 3, out)?;
    let plane = out.len() / 3;
    let (first, rest) = out.split_at_mut(plane);
    let (second, third) = rest.split_at_mut(plane);
    let [p0, p1, p2] = affine(format);
    let (lead, tail) = if format.order == ColourOrder::Bgr { (2, 0) } else { (0, 2) };
    let source = Bilinear::new(image);
    let width = size.0 as usize;
    for y in 0..size.1 as usize {
        for x in 0..width {
            let rgb = source.mean(to_picture.apply(Point::new(x as f32, y as f32)), shifts);
            let index = y * width + x;
            first[index] = rgb[lead] * p0.0 + p0.1;
            second[index] = rgb[1] * p1.0 + p1.1;
            third[index] = rgb[tail] * p2.0 + p2.1;
        }
    }
    Ok(())
}

/// Reads a picture between its pixels; black outside.
struct Bilinear<'a> {
    bytes: &'a [u8],
    stride: usize,
    width: i32,
    height: i32,
}

impl<'a> Bilinear<'a> {
    fn new(image: &'a RgbImage) -> Self {
        Self {
            bytes: image.bytes(),
            stride: image.stride(),
            // A side is at most MAX_SIDE_PX, far below what i32 holds.
            width: image.width() as i32,
            height: image.height() as i32,
        }
    }

    /// Mean at several points round `center`.
    #[inline]
    fn mean(&self, center: Point, shifts: &[Point]) -> [f32; 3] {
        if let [only] = shifts {
            return self.at(Point::new(center.x + only.x, center.y + only.y));
        }
        let mut sum = [0.0; 3];
        for shift in shifts {
            let rgb = self.at(Point::new(center.x + shift.x, center.y + shift.y));
            sum = std::array::from_fn(|channel| sum[channel] + rgb[channel]);
        }
        sum.map(|total| total / shifts.len() as f32)
    }

    #[inline]
    fn at(&self, point: Point) -> [f32; 3] {
        let (x, y) = (floor(point.x), floor(point.y));
        let (fx, fy) = (point.x - x as f32, point.y - y as f32);
        if x >= 0 && y >= 0 && x < self.width - 1 && y < self.height - 1 {
            let upper = y as usize * self.stride + x as usize * 3;
            let upper_row = &self.bytes[upper..upper + 6];
            let lower_row = &self.bytes[upper + self.stride..upper + self.stride + 6];
            let mix = |channel: usize| {
                let above = lerp(f32::from(upper_row[channel]), f32::from(upper_row[channel + 3]), fx);
                let below = lerp(f32::from(lower_row[channel]), f32::from(lower_row[channel + 3]), fx);
                lerp(above, below, fy)
            };
            [mix(0), mix(1), mix(2)]
        } else {
            self.at_edge(x, y, fx, fy)
        }
    }

    #[cold]
    fn at_edge(&self, x: i32, y: i32, fx: f32, fy: f32) -> [f32; 3] {
        let (right, below) = (x.saturating_add(1), y.saturating_add(1));
        let corners = [self.pixel(x, y), self.pixel(right, y), self.pixel(x, below), self.pixel(right, below)];
        std::array::from_fn(|channel| {
            let upper = lerp(corners[0][channel], corners[1][channel], fx);
            let lower = lerp(corners[2][channel], corners[3][channel], fx);
            lerp(upper, lower, fy)
        })
    }

    fn pixel(&self, x: i32, y: i32) -> [f32; 3] {
        if x < 0 || y < 0 || x >= self.width || y >= self.height {
            return [0.0; 3];
        }
        let start = y as usize * self.stride + x as usize * 3;
        std::array::from_fn(|channel| f32::from(self.bytes[start + channel]))
    }
}

/// The largest whole number not above `value`; saturates, so that a point far outside stays outside.
///
/// `f32::floor` is a call into the C library on processors without SSE 4.1, which is what x86-64 builds assume.
#[inline]
fn floor(value: f32) -> i32 {
    let truncated = value as i32;
    truncated.saturating_sub(i32::from(truncated as f32 > value))
}

#[inline]
fn lerp(from: f32, to: f32, share: f32) -> f32 {
    from + (to - from) * share
}

/// The aligned face (112 × 112) in grey: what sharpness, brightness, visibility and the still-picture check look at.
///
/// A face much larger than the crop is averaged over a grid of points per target pixel, so that shrinking does
/// not fold fine texture into false sharpness or false change. Black outside the picture.
#[must_use]
pub fn aligned_grey(image: &RgbImage, alignment: &Alignment) -> GreyCrop {
    let side = ALIGNED_SIDE_PX as usize;
    let scale = alignment.to_picture.scale();
    let luma = if scale <= AVERAGED_FROM {
        let source = Bilinear::new(image);
        grid(side, |point| {
            let [r, g, b] = source.at(alignment.to_picture.apply(point));
            (0.299 * r + 0.587 * g + 0.114 * b + 0.5) as u8
        })
    } else {
        let points = spread(&alignment.to_picture, scale);
        grid(side, |point| mean_luma(image, alignment.to_picture.apply(point), &points))
    };
    GreyCrop { width: side, height: side, luma }
}

fn grid(side: usize, value: impl Fn(Point) -> u8) -> Vec<u8> {
    (0..side * side).map(|index| value(Point::new((index % side) as f32, (index / side) as f32))).collect()
}

/// Points spread evenly over one target pixel, as shifts in the picture from that pixel's centre.
///
/// One for every pixel and a half along each axis: what is measured on the crop averages neighbours once more. Eight
/// are enough for faces 1,400 pixels high, and bound the work for larger ones.
fn spread(to_picture: &Similarity2d, scale: f32) -> Vec<Point> {
    let n = ((scale / 1.5).ceil() as u32).clamp(2, 8);
    let shift = |step: u32| (step as f32 + 0.5) / n as f32 - 0.5;
    let turn = Similarity2d { tx: 0.0, ty: 0.0, ..*to_picture };
    (0..n * n).map(|index| turn.apply(Point::new(shift(index % n), shift(index / n)))).collect()
}

/// Mean luma of the pixels nearest to several points round `center`; black outside the picture.
fn mean_luma(image: &RgbImage, center: Point, points: &[Point]) -> u8 {
    let (bytes, stride) = (image.bytes(), image.stride());
    let (width, height) = (image.width() as i32, image.height() as i32);
    let n = points.len() as u32;
    let mut sum = n / 2;
    for shift in points {
        let (x, y) = (floor(center.x + shift.x + 0.5), floor(center.y + shift.y + 0.5));
        if x >= 0 && y >= 0 && x < width && y < height {
            let start = y as usize * stride + x as usize * 3;
            sum += u32::from(luma(&bytes[start..start + 3]));
        }
    }
    (sum / n) as u8
}

#[cfg(test)]
mod tests;

//! Writing a clip: RGB pictures in, a WebM file out.

use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use gstreamer as gst;
use gstreamer::prelude::*;
use image::RgbImage;

/// Pictures a second of every clip that is made here.
pub(super) const FPS: u32 = 15;

/// Encodes pictures of one size as VP8 in WebM, at [`FPS`]: small.
pub(super) fn write_clip(path: &Path, pictures: impl Iterator<Item = RgbImage>) -> Result<()> {
    encode(path, "vp8enc deadline=1 cpu-used=8 threads=2 target-bitrate=3000000 ! webmmux", pictures)
}

/// Encodes pictures of one size as JPEG in AVI, at [`FPS`]: made in a fraction of the time where there is noise in
/// them.
pub(super) fn write_long_clip(path: &Path, pictures: impl Iterator<Item = RgbImage>) -> Result<()> {
    encode(path, "jpegenc quality=80 ! avimux", pictures)
}

fn encode(path: &Path, encoder: &str, pictures: impl Iterator<Item = RgbImage>) -> Result<()> {
    gst::init()?;
    let mut pictures = pictures.peekable();
    let (width, height) = pictures.peek().context("a clip needs at least one picture")?.dimensions();
    let caps = format!("video/x-raw,format=RGB,width={width},height={height},framerate={FPS}/1");
    let pipeline = gst::parse::launch(&format!(
        "appsrc name=in caps={caps} format=time block=true max-buffers=4 ! videoconvert ! {encoder} ! filesink name=out"
    ))?
    .downcast::<gst::Pipeline>()
    .map_err(|_| anyhow::anyhow!("the description is not a pipeline"))?;
    let input = pipeline.by_name("in").and_downcast::<gstreamer_app::AppSrc>().context("the pipeline's input")?;
    pipeline.by_name("out").context("the pipeline's output")?.set_property("location", path);
    pipeline.set_state(gst::State::Playing)?;
    for (index, picture) in (0u64..).zip(pictures) {
        let mut buffer = gst::Buffer::from_slice(padded_rows(&picture));
        let frame = gst::ClockTime::SECOND / u64::from(FPS);
        let timing = buffer.get_mut().context("a fresh buffer has one owner")?;
        timing.set_pts(frame * index);
        timing.set_duration(frame);
        input.push_buffer(buffer)?;
    }
    input.end_of_stream()?;
    let ended = wait_for_end(&pipeline);
    pipeline.set_state(gst::State::Null)?;
    ended.with_context(|| format!("clip {} could not be written", path.display()))
}

/// GStreamer wants every RGB row to begin at a multiple of four bytes.
fn padded_rows(picture: &RgbImage) -> Vec<u8> {
    let row_bytes = picture.width() as usize * 3;
    let stride = row_bytes.next_multiple_of(4);
    let mut bytes = Vec::with_capacity(stride * picture.height() as usize);
    for row in picture.as_raw().chunks_exact(row_bytes) {
        bytes.extend_from_slice(row);
        bytes.resize(bytes.len() + stride - row_bytes, 0);
    }
    bytes
}

fn wait_for_end(pipeline: &gst::Pipeline) -> Result<()> {
    let bus = pipeline.bus().context("a pipeline has a bus")?;
    let wanted = [gst::MessageType::Eos, gst::MessageType::Error];
    match bus.timed_pop_filtered(gst::ClockTime::from_seconds(120), &wanted) {
        Some(message) => match message.view() {
            gst::MessageView::Error(error) => bail!("{}", error.error()),
            _ => Ok(()),
        },
        None => bail!("no end within 120 s"),
    }
}

/// A grey corridor with nobody in it, for `seconds`, as a sensor sees it: no picture is like the one before.
pub fn empty_corridor(path: &Path, seconds: u32) -> Result<()> {
    let wall: Vec<RgbImage> = (0..FPS).map(|seed| noisy(&corridor(), seed)).collect();
    write_long_clip(path, wall.iter().cycle().take((seconds * FPS) as usize).cloned())
}

/// One picture of the corridor, without noise.
pub(super) fn corridor() -> RgbImage {
    RgbImage::from_fn(640, 480, |x, y| {
        let shade = 90 + (y / 8) as u8 + ((x / 80) % 2) as u8 * 12;
        image::Rgb([shade, shade, shade])
    })
}

/// The picture with the noise of one exposure. Without it a decoded still scene repeats to the bit, which no camera does
/// and which the agent, rightly, does not look at.
pub(super) fn noisy(picture: &RgbImage, seed: u32) -> RgbImage {
    /// Longer than a picture by this much, so that each exposure can begin elsewhere in it.
    const SPARE: usize = 65_536;
    static NOISE: OnceLock<Vec<i8>> = OnceLock::new();
    let bytes = picture.as_raw().len();
    let noise = NOISE.get_or_init(|| {
        let mut noise = Noise::new(0);
        (0..640 * 480 * 3 + SPARE).map(|_| noise.next() as i8).collect()
    });
    // A prime step, so that no two exposures of a clip share their noise.
    let start = seed as usize * 7_919 % SPARE;
    let mut picture = picture.clone();
    for (value, noise) in picture.iter_mut().zip(noise[start..].iter().cycle().take(bytes)) {
        *value = value.saturating_add_signed(*noise);
    }
    picture
}

/// Repeatable sensor noise of about two grey levels.
pub(super) struct Noise(u64);

impl Noise {
    pub(super) fn new(seed: u32) -> Self {
        Self(u64::from(seed) + 1)
    }

    pub(super) fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 7.0
    }
}

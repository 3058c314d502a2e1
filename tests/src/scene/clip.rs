//! Writing a clip: RGB pictures in, a WebM file out.

use std::path::Path;

use anyhow::{Context, Result, bail};
use gstreamer as gst;
use gstreamer::prelude::*;
use image::RgbImage;

/// Pictures a second of every clip that is made here.
pub(super) const FPS: u32 = 15;

/// Encodes pictures of one size as VP8 in WebM, at [`FPS`].
pub(super) fn write_clip(path: &Path, pictures: impl Iterator<Item = RgbImage>) -> Result<()> {
    gst::init()?;
    let mut pictures = pictures.peekable();
    let (width, height) = pictures.peek().context("a clip needs at least one picture")?.dimensions();
    let caps = format!("video/x-raw,format=RGB,width={width},height={height},framerate={FPS}/1");
    let pipeline = gst::parse::launch(&format!(
        "appsrc name=in caps={caps} format=time block=true max-buffers=4 ! videoconvert \
         ! vp8enc deadline=1 cpu-used=8 threads=2 target-bitrate=3000000 ! webmmux ! filesink name=out"
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

/// A grey corridor with nobody in it, for `seconds`.
pub fn empty_corridor(path: &Path, seconds: u32) -> Result<()> {
    write_clip(path, std::iter::repeat_n(corridor(), (seconds * FPS) as usize))
}

/// One picture of the corridor.
pub(super) fn corridor() -> RgbImage {
    RgbImage::from_fn(640, 480, |x, y| {
        let shade = 90 + (y / 8) as u8 + ((x / 80) % 2) as u8 * 12;
        image::Rgb([shade, shade, shade])
    })
}

//! Photographs taken from a clip, for enrolment.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use gstreamer as gst;
use gstreamer::prelude::*;
use image::RgbImage;

/// The pictures of `clip` nearest behind each of the `times` (ascending), as JPEG.
pub fn jpeg_frames(clip: &Path, times: &[Duration]) -> Result<Vec<Vec<u8>>> {
    pictures(clip, times)?.iter().map(jpeg).collect()
}

/// The pictures of `clip` nearest behind each of the `times` (ascending).
pub(super) fn pictures(clip: &Path, times: &[Duration]) -> Result<Vec<RgbImage>> {
    gst::init()?;
    let pipeline = gst::parse::launch(
        "filesrc name=in ! decodebin ! videoconvert ! video/x-raw,format=RGB ! appsink name=out sync=false max-buffers=4",
    )?
    .downcast::<gst::Pipeline>()
    .map_err(|_| anyhow::anyhow!("the description is not a pipeline"))?;
    pipeline.by_name("in").context("the pipeline's input")?.set_property("location", clip);
    let sink = pipeline.by_name("out").and_downcast::<gstreamer_app::AppSink>().context("the pipeline's output")?;
    pipeline.set_state(gst::State::Playing)?;
    let taken = take(&sink, times);
    pipeline.set_state(gst::State::Null)?;
    taken.with_context(|| format!("clip {}", clip.display()))
}

fn take(sink: &gstreamer_app::AppSink, times: &[Duration]) -> Result<Vec<RgbImage>> {
    let mut pictures = Vec::new();
    while pictures.len() < times.len() {
        let Some(sample) = sink.try_pull_sample(gst::ClockTime::from_seconds(20)) else {
            bail!("it ended after {} of {} pictures", pictures.len(), times.len());
        };
        let buffer = sample.buffer().context("a sample has a buffer")?;
        let at = Duration::from(buffer.pts().unwrap_or_default());
        if at >= times[pictures.len()] {
            pictures.push(picture(&sample)?);
        }
    }
    Ok(pictures)
}

fn picture(sample: &gst::Sample) -> Result<RgbImage> {
    let shape = sample.caps().and_then(|caps| caps.structure(0)).context("a sample has caps")?;
    let width = u32::try_from(shape.get::<i32>("width")?)?;
    let height = u32::try_from(shape.get::<i32>("height")?)?;
    let map = sample.buffer().context("a sample has a buffer")?.map_readable()?;
    let row_bytes = width as usize * 3;
    let stride = row_bytes.next_multiple_of(4);
    let packed: Vec<u8> = map.chunks(stride).flat_map(|row| &row[..row_bytes]).copied().collect();
    RgbImage::from_raw(width, height, packed).context("the picture's size fits its bytes")
}

fn jpeg(picture: &RgbImage) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 95).encode_image(picture)?;
    Ok(bytes)
}

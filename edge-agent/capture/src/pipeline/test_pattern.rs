//! `videotestsrc`: a picture without a camera, in the camera's size and rate.

use gstreamer as gst;
use gstreamer::prelude::*;

use super::element::{link_failure, make};
use super::{Dating, Head};
use crate::config::{CameraConfig, TestPattern};
use crate::event::Failure;

pub(super) fn add(pipeline: &gst::Pipeline, pattern: TestPattern, config: &CameraConfig) -> Result<Head, Failure> {
    let source = make("videotestsrc")?;
    source.set_property("is-live", true);
    source.set_property_from_str("pattern", pattern.as_str());
    let caps = make("capsfilter")?;
    caps.set_property(
        "caps",
        gst::Caps::builder("video/x-raw")
            .field("width", config.width.cast_signed())
            .field("height", config.height.cast_signed())
            .field("framerate", gst::Fraction::new(config.fps.cast_signed(), 1))
            .build(),
    );
    let failure = |_| link_failure(&config.source);
    pipeline.add_many([&source, &caps]).map_err(failure)?;
    source.link(&caps).map_err(failure)?;
    Ok(Head { output: Some(caps), dating: Dating::Stamp, paced: false })
}

//! `v4l2src ! decodebin`: a camera on this machine. Frames carry the driver's stamp.

use std::path::Path;

use gstreamer as gst;
use gstreamer::prelude::*;

use super::element::{link_failure, make};
use super::file::video_decoder;
use super::{Dating, Head, Tail};
use crate::config::CameraConfig;
use crate::event::Failure;

pub(super) fn add(
    pipeline: &gst::Pipeline,
    device: &Path,
    config: &CameraConfig,
    tail: &Tail,
) -> Result<Head, Failure> {
    if !device.exists() {
        return Err(Failure::NoDevice { device: device.display().to_string() });
    }
    let source = make("v4l2src")?;
    source.set_property("device", device.to_str().unwrap_or_default());
    if let Some(dynamic) = config.profile.exposure_dynamic_framerate {
        // A driver without this control ignores it.
        let controls =
            gst::Structure::builder("controls").field("exposure_dynamic_framerate", i32::from(dynamic)).build();
        source.set_property("extra-controls", controls);
    }
    let wanted = make("capsfilter")?;
    wanted.set_property("caps", wanted_caps(config));
    let decoder = video_decoder(tail)?;
    let failure = |_| link_failure(&config.source);
    pipeline.add_many([&source, &wanted, &decoder]).map_err(failure)?;
    gst::Element::link_many([&source, &wanted, &decoder]).map_err(failure)?;
    Ok(Head { output: None, dating: Dating::Stamp, paced: false })
}

/// What to ask the driver for, best first: the profile's formats at the wanted size, then anything.
fn wanted_caps(config: &CameraConfig) -> gst::Caps {
    let mut caps = gst::Caps::new_empty();
    let (width, height) = (config.width.cast_signed(), config.height.cast_signed());
    {
        let caps = caps.make_mut();
        for format in &config.profile.formats {
            let wanted = match format.as_str() {
                "MJPG" => gst::Structure::builder("image/jpeg"),
                // The kernel says YUYV where GStreamer says YUY2.
                "YUYV" => gst::Structure::builder("video/x-raw").field("format", "YUY2"),
                other => gst::Structure::builder("video/x-raw").field("format", other),
            };
            caps.append_structure(wanted.field("width", width).field("height", height).build());
        }
        caps.append_structure(gst::Structure::new_empty("video/x-raw"));
        caps.append_structure(gst::Structure::new_empty("image/jpeg"));
    }
    caps
}

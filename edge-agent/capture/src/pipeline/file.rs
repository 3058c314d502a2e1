//! `filesrc ! decodebin`: a video file. The appsink waits for the clock, so that it plays at its own pace.

use std::path::Path;

use gstreamer as gst;
use gstreamer::prelude::*;

use super::element::{link_failure, make};
use super::{Dating, Head, Tail};
use crate::config::{Source, WhenFinished};
use crate::event::Failure;

pub(super) fn add(pipeline: &gst::Pipeline, path: &Path, tail: &Tail) -> Result<Head, Failure> {
    let source = make("filesrc")?;
    source.set_property("location", path);
    let decoder = video_decoder(tail)?;
    let failure = |_| link_failure(&Source::File { path: path.to_owned(), when_finished: WhenFinished::Wait });
    pipeline.add_many([&source, &decoder]).map_err(failure)?;
    source.link(&decoder).map_err(failure)?;
    Ok(Head { output: None, dating: Dating::Arrival, paced: true })
}

/// A decoder for whatever comes, that leaves sound alone and joins the tail when it knows its picture.
pub(super) fn video_decoder(tail: &Tail) -> Result<gst::Element, Failure> {
    let decoder = make("decodebin")?;
    decoder.set_property("caps", gst::Caps::builder("video/x-raw").any_features().build());
    decoder.set_property("expose-all-streams", false);
    let entry = tail.entry();
    decoder.connect_pad_added(move |_, pad| {
        if let Some(entry) = entry.upgrade().filter(|entry| !entry.is_linked())
            && let Err(error) = pad.link(&entry)
        {
            tracing::debug!(?error, "a decoded stream is no picture; it is left alone");
        }
    });
    Ok(decoder)
}

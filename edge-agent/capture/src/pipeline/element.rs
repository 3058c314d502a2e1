//! Making elements, with an error that names the package when one is missing.

use gstreamer as gst;

use crate::config::Source;
use crate::event::Failure;

/// Debian's package of each element that we name ourselves.
const PACKAGES: [(&str, &str); 8] = [
    ("appsink", "gstreamer1.0-plugins-base"),
    ("decodebin", "gstreamer1.0-plugins-base"),
    ("filesrc", "libgstreamer1.0-0"),
    ("queue", "libgstreamer1.0-0"),
    ("rtspsrc", "gstreamer1.0-plugins-good"),
    ("v4l2src", "gstreamer1.0-plugins-good"),
    ("videoconvertscale", "gstreamer1.0-plugins-base"),
    ("videotestsrc", "gstreamer1.0-plugins-base"),
];

/// Makes an element by its factory's name.
pub(super) fn make(factory: &str) -> Result<gst::Element, Failure> {
    gst::ElementFactory::make(factory).build().map_err(|_| Failure::MissingElement {
        element: factory.to_owned(),
        package: PACKAGES
            .iter()
            .find(|(name, _)| *name == factory)
            .map_or("its GStreamer plugin", |(_, package)| package),
    })
}

/// Two of our own elements would not be joined: only a broken GStreamer installation does that.
pub(super) fn link_failure(source: &Source) -> Failure {
    Failure::Source {
        source_name: source.to_string(),
        message: "GStreamer refused to join the pipeline's parts".to_owned(),
    }
}

/// GStreamer's debug text without the place in its sources: `../gst/x.c(12): fn (): /path:\ntext` becomes `text`.
pub(super) fn without_place(detail: &str) -> &str {
    detail.rsplit_once("):").map_or(detail, |(_, text)| text).trim().trim_end_matches('.')
}

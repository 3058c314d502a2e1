//! A video file read picture by picture, at its own times and as fast as it can be decoded: for measuring, not for a door.
//!
//! In: a path and the size and rate that a camera would have. Out: [`ClipPicture`]s, none dropped for being late, or a
//! [`ClipError`] that names the file. What a video is, its content says and not its name. Deliberately absent: clocks,
//! restarts, the newest-wins slot of a camera.

use std::path::{Path, PathBuf};
use std::time::Duration;

use face_core::RgbImage;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;

use super::element::{make, without_place};
use super::{image_of, pacing};

/// A decoder that says nothing for this long is stuck: the longest decoding of one picture seen was 60 ms.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often an error is looked for while nothing comes.
const GLANCE: gst::ClockTime = gst::ClockTime::from_mseconds(50);
/// What the last picture may be ahead of the end that the file's header promises. Frame rates that vary, and sound that is
/// longer than the pictures, leave up to a second.
const END_TOLERANCE: Duration = Duration::from_millis(1_500);

/// Why a clip cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ClipError {
    /// GStreamer itself does not start, or lacks an element.
    #[error("GStreamer cannot be used: {message}; reinstall libgstreamer1.0-0 and its plugins")]
    GStreamer {
        /// What it says.
        message: String,
    },
    /// Not one picture can be decoded.
    #[error("{}: is no video that can be decoded ({message}); convert it to MP4 (H.264) or WebM, or remove it", path.display())]
    NoVideo {
        /// The file.
        path: PathBuf,
        /// What GStreamer says.
        message: String,
    },
    /// It begins well and breaks off.
    #[error("{}: is cut short or damaged {}after {n_pictures} pictures ({message}); copy it again", path.display(), at(*promised, *read))]
    CutShort {
        /// The file.
        path: PathBuf,
        /// Pictures read before.
        n_pictures: usize,
        /// Time of the last picture.
        read: Duration,
        /// Length that the file promises, when it does.
        promised: Option<Duration>,
        /// What GStreamer says.
        message: String,
    },
}

fn at(promised: Option<Duration>, read: Duration) -> String {
    promised.map_or_else(String::new, |promised| {
        format!("at {:.1} s of {:.1} s, ", read.as_secs_f64(), promised.as_secs_f64())
    })
}

/// One picture of a clip.
#[derive(Debug, Clone)]
pub struct ClipPicture {
    /// When it is shown, counted from the clip's first picture.
    pub at: Duration,
    /// The picture.
    pub image: RgbImage,
}

/// An open video file. Dropping it stops its pipeline.
pub struct Clip {
    path: PathBuf,
    pipeline: gst::Pipeline,
    sink: gst_app::AppSink,
    bus: gst::Bus,
    origin: Option<gst::ClockTime>,
    last: Duration,
    n_pictures: usize,
    promised: Option<Duration>,
    over: bool,
}

impl Clip {
    /// Opens a file. Pictures larger than `size` are made smaller, and those above `fps` a second are left out by their
    /// time stamps, as a camera of a door does.
    ///
    /// # Errors
    /// When GStreamer cannot be used. What is wrong with the file comes with its first picture.
    pub fn open(path: &Path, size: (u32, u32), fps: u32) -> Result<Self, ClipError> {
        gst::init().map_err(|error| ClipError::GStreamer { message: error.to_string() })?;
        let pipeline = gst::Pipeline::new();
        let sink = build(&pipeline, path, size, fps)?;
        let bus = pipeline.bus().expect("a pipeline has a bus from the start");
        // A refusal is also told on the bus, where the first picture is asked for.
        let _ = pipeline.set_state(gst::State::Playing);
        Ok(Self {
            path: path.to_owned(),
            pipeline,
            sink,
            bus,
            origin: None,
            last: Duration::ZERO,
            n_pictures: 0,
            promised: None,
            over: false,
        })
    }

    fn picture(&mut self, sample: &gst::Sample) -> Result<ClipPicture, ClipError> {
        let stamp = sample.buffer().and_then(gst::BufferRef::pts);
        let Some(image) = image_of(sample) else { return Err(self.broken("a picture that is not RGB")) };
        let Some(stamp) = stamp else { return Err(self.broken("a picture without a time")) };
        let origin = *self.origin.get_or_insert(stamp);
        let at = Duration::from(stamp.saturating_sub(origin));
        if self.n_pictures == 0 {
            self.promised = self.pipeline.query_duration::<gst::ClockTime>().map(Duration::from);
        }
        self.n_pictures += 1;
        self.last = at;
        Ok(ClipPicture { at, image })
    }

    /// What the end of the stream amounts to: some containers break off without any error.
    fn end(&self) -> Option<ClipError> {
        if self.n_pictures == 0 {
            return Some(self.broken("there is no picture in it"));
        }
        let cut = self.promised.is_some_and(|promised| self.last + END_TOLERANCE < promised);
        cut.then(|| self.broken("it ends before its own length"))
    }

    fn broken(&self, message: &str) -> ClipError {
        let (path, message) = (self.path.clone(), message.trim_end_matches('.').to_owned());
        if self.n_pictures == 0 {
            return ClipError::NoVideo { path, message };
        }
        let (n_pictures, read, promised) = (self.n_pictures, self.last, self.promised);
        ClipError::CutShort { path, n_pictures, read, promised, message }
    }

    fn error_on_bus(&self) -> Option<String> {
        let message = self.bus.pop_filtered(&[gst::MessageType::Error])?;
        let gst::MessageView::Error(error) = message.view() else { return None };
        let detail = error.debug().and_then(|debug| debug.lines().last().map(|line| without_place(line).to_owned()));
        Some(detail.filter(|detail| !detail.is_empty()).unwrap_or_else(|| error.error().to_string()))
    }
}

impl Iterator for Clip {
    type Item = Result<ClipPicture, ClipError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let glances = PATIENCE.as_millis() / u128::from(GLANCE.mseconds());
        for _ in 0..glances {
            if let Some(sample) = self.sink.try_pull_sample(GLANCE) {
                let picture = self.picture(&sample);
                self.over = picture.is_err();
                return Some(picture);
            }
            let error = self.error_on_bus();
            self.over = error.is_some() || self.sink.is_eos();
            if let Some(message) = error {
                return Some(Err(self.broken(&message)));
            }
            if self.over {
                return self.end().map(Err);
            }
        }
        self.over = true;
        Some(Err(self.broken("the decoder is stuck")))
    }
}

impl Drop for Clip {
    fn drop(&mut self) {
        if self.pipeline.set_state(gst::State::Null).is_err() {
            tracing::warn!(path = %self.path.display(), "a clip's pipeline refused to stop");
        }
    }
}

/// `filesrc ! decodebin ! queue ! videoconvertscale ! appsink`, which waits for whoever reads it.
fn build(pipeline: &gst::Pipeline, path: &Path, size: (u32, u32), fps: u32) -> Result<gst_app::AppSink, ClipError> {
    let element = |name| make(name).map_err(|failure| ClipError::GStreamer { message: failure.to_string() });
    let (source, decoder) = (element("filesrc")?, element("decodebin")?);
    source.set_property("location", path);
    leave_alpha_alone(&decoder);
    let (queue, scale) = (element("queue")?, element("videoconvertscale")?);
    queue.set_property("max-size-buffers", 2_u32);
    let side = |length: u32| i32::try_from(length.max(1)).unwrap_or(i32::MAX);
    let caps = gst_video::VideoCapsBuilder::new()
        .format(gst_video::VideoFormat::Rgb)
        .width_range(1..=side(size.0))
        .height_range(1..=side(size.1))
        .pixel_aspect_ratio(gst::Fraction::new(1, 1))
        .build();
    let sink = gst_app::AppSink::builder().caps(&caps).max_buffers(2).sync(false).enable_last_sample(false).build();
    let joined = pipeline
        .add_many([&source, &decoder, &queue, &scale, sink.upcast_ref()])
        .and_then(|()| source.link(&decoder))
        .and_then(|()| gst::Element::link_many([&queue, &scale, sink.upcast_ref()]));
    joined.map_err(|error| ClipError::GStreamer { message: error.to_string() })?;
    let entry = queue.static_pad("sink").expect("a queue has a sink pad");
    pacing::limit(&entry, fps);
    let entry = entry.downgrade();
    decoder.connect_pad_added(move |_, pad| {
        // Sound, and a second stream of pictures (a cover image), are left alone.
        let of_pictures = pad
            .current_caps()
            .is_some_and(|caps| caps.structure(0).is_some_and(|structure| structure.name().starts_with("video/")));
        if let Some(entry) = entry.upgrade().filter(|entry| of_pictures && !entry.is_linked()) {
            let _ = pad.link(&entry);
        }
    });
    Ok(sink)
}

/// Keeps decodebin from decoders of an alpha channel. Browsers announce one in every WebM that they record and send none,
/// which these decoders give up on; the plain ones read the pictures.
fn leave_alpha_alone(decoder: &gst::Element) {
    const TRY: i32 = 0;
    const SKIP: i32 = 2;
    decoder.connect("autoplug-select", false, |values| {
        let factory = values.get(3).and_then(|value| value.get::<gst::ElementFactory>().ok());
        let of_alpha = factory.is_some_and(|factory| factory.name().ends_with("alphadecodebin"));
        let answers = gst::glib::EnumClass::with_type(gst::glib::Type::from_name("GstAutoplugSelectResult")?)?;
        answers.to_value(if of_alpha { SKIP } else { TRY })
    });
}

//! One GStreamer pipeline: built, played, read, torn down.
//!
//! In: a [`CameraConfig`]. Out: frames by [`Session::next`], each with its age, and why there are no more. Every pipeline
//! ends in `… ! videoconvertscale ! RGB, at most width×height ! appsink (one buffer, newest wins)`.
//!
//! No callback holds the pipeline or an element of it (weak references only), samples are pulled with a time limit, and the
//! state is changed by the thread that owns the session, never by one of GStreamer's: each of these has deadlocked or
//! leaked elsewhere. Deliberately absent: when to give up and try again ([`crate::supervisor`]).

mod clip;
mod element;
mod file;
mod pacing;
mod rtsp;
mod test_pattern;
mod v4l2;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use face_core::{MonoTime, RgbImage};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;

use crate::age::Arrivals;
use crate::config::{CameraConfig, Source};
use crate::event::Failure;
use crate::supervisor::MonoClock;
pub use clip::{Clip, ClipError, ClipPicture};
use element::{link_failure, make};

/// The age of a frame that cannot be dated: older than any freshness budget.
const UNKNOWN_AGE: Duration = Duration::from_secs(3_600);

/// How frames of a source are dated.
#[derive(Clone)]
pub(super) enum Dating {
    /// By arrival: a file is paced by the clock, so that it arrives when it is shown.
    Arrival,
    /// By the buffer's time stamp, which the source takes from the sensor's driver.
    Stamp,
    /// By the network's delay above its minimum.
    Network { arrivals: Arc<Mutex<Arrivals>>, base: Duration },
}

/// What the source side of a pipeline gives: elements already in the pipeline, and how its frames are dated.
struct Head {
    /// Where decoded pictures come out; `None` when the source links itself to the tail once it knows its pads.
    output: Option<gst::Element>,
    dating: Dating,
    /// Whether the clock paces the frames (a file) or the camera does.
    paced: bool,
}

/// What [`Session::next`] found.
pub(crate) enum Next {
    /// A picture, and how old it is.
    Picture { image: RgbImage, age: Duration },
    /// Nothing within the time.
    Nothing,
    /// The stream is over.
    End,
    /// The stream broke.
    Broken(Failure),
}

/// A playing pipeline.
pub(crate) struct Session {
    pipeline: gst::Pipeline,
    sink: gst_app::AppSink,
    bus: gst::Bus,
    dating: Dating,
    config: Arc<CameraConfig>,
    clock: MonoClock,
}

impl Session {
    /// Builds the pipeline and sets it playing. It need not be connected yet when this returns.
    pub(crate) fn start(config: &Arc<CameraConfig>, clock: &MonoClock) -> Result<Self, Failure> {
        let pipeline = gst::Pipeline::new();
        let tail = Tail::new(&pipeline, config)?;
        let head = match &config.source {
            Source::File { path, .. } => file::add(&pipeline, path, &tail)?,
            Source::Rtsp { url } => rtsp::add(&pipeline, url, &config.profile, clock, &tail)?,
            Source::V4l2 { device } => v4l2::add(&pipeline, device, config, &tail)?,
            Source::Test { pattern } => test_pattern::add(&pipeline, *pattern, config)?,
        };
        if let Some(output) = &head.output {
            output.link(&tail.input).map_err(|_| link_failure(&config.source))?;
        }
        tail.sink.set_sync(head.paced);
        let bus = pipeline.bus().expect("a pipeline has a bus from the start");
        let session = Self {
            pipeline,
            sink: tail.sink,
            bus,
            dating: head.dating,
            config: Arc::clone(config),
            clock: Arc::clone(clock),
        };
        match session.pipeline.set_state(gst::State::Playing) {
            Ok(_) => Ok(session),
            Err(_) => {
                let failure = session.failure_on_bus().unwrap_or_else(|| session.described("cannot be started"));
                session.stop();
                Err(failure)
            }
        }
    }

    /// The next picture, waiting up to `wait` for it.
    pub(crate) fn next(&self, wait: Duration) -> Next {
        let wait = gst::ClockTime::from_nseconds(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX));
        if let Some(sample) = self.sink.try_pull_sample(wait) {
            return self.picture(&sample);
        }
        if let Some(failure) = self.failure_on_bus() {
            return Next::Broken(failure);
        }
        if self.sink.is_eos() { Next::End } else { Next::Nothing }
    }

    /// Stops and releases the pipeline. Call it on a thread of the program, never on one of GStreamer's.
    pub(crate) fn stop(self) {
        // Only an element that is broken beyond use refuses; there is nothing left to do for it.
        if self.pipeline.set_state(gst::State::Null).is_err() {
            tracing::warn!(camera = %self.config.id, "a camera's pipeline refused to stop");
        }
    }

    #[cfg(test)]
    pub(crate) fn pipeline(&self) -> gst::glib::WeakRef<gst::Pipeline> {
        self.pipeline.downgrade()
    }

    fn picture(&self, sample: &gst::Sample) -> Next {
        let age = self.age_of(sample);
        match image_of(sample) {
            Some(image) => Next::Picture { image, age },
            None => Next::Broken(self.described("gave a picture that is not RGB")),
        }
    }

    /// How old a picture is. What cannot be dated (a driver without usable stamps, packets without times) is older than
    /// any budget allows.
    fn age_of(&self, sample: &gst::Sample) -> Duration {
        let stamp = sample.buffer().and_then(gst::BufferRef::pts);
        match &self.dating {
            Dating::Arrival => Duration::ZERO,
            Dating::Stamp => {
                let segment = sample.segment().and_then(|segment| segment.downcast_ref::<gst::ClockTime>());
                let running = stamp.zip(segment).and_then(|(stamp, segment)| segment.to_running_time(stamp));
                let age =
                    running.zip(self.pipeline.current_running_time()).map(|(stamp, now)| now.saturating_sub(stamp));
                age.map_or(UNKNOWN_AGE, Duration::from)
            }
            Dating::Network { arrivals, base } => {
                let mut arrivals = arrivals.lock().unwrap_or_else(PoisonError::into_inner);
                let stamp = stamp.map(gst::ClockTime::nseconds);
                let age = arrivals.age(stamp, self.now(), *base);
                if let Some(stamp) = stamp {
                    arrivals.forget_before(stamp);
                }
                age.unwrap_or(UNKNOWN_AGE)
            }
        }
    }

    /// Whether anything has come from the camera yet, as far as that can be told before the first picture.
    pub(crate) fn hears_camera(&self) -> bool {
        match &self.dating {
            Dating::Network { arrivals, .. } => arrivals.lock().unwrap_or_else(PoisonError::into_inner).any(),
            Dating::Arrival | Dating::Stamp => false,
        }
    }

    fn now(&self) -> MonoTime {
        (self.clock)()
    }

    fn failure_on_bus(&self) -> Option<Failure> {
        while let Some(message) = self.bus.pop_filtered(&[gst::MessageType::Error, gst::MessageType::Latency]) {
            match message.view() {
                gst::MessageView::Error(error) => return Some(self.failure_of(error)),
                gst::MessageView::Latency(_) => {
                    let _ = self.pipeline.recalculate_latency();
                }
                _ => {}
            }
        }
        None
    }

    fn failure_of(&self, error: &gst::message::Error) -> Failure {
        let mut message = error.error().to_string();
        // The detail often holds the cause ("Connection refused"), as its last line.
        if let Some(detail) = error.debug().and_then(|debug| debug.lines().last().map(str::to_owned))
            && !detail.is_empty()
            && detail != message
        {
            message = format!("{} ({})", message.trim_end_matches('.'), element::without_place(&detail));
        }
        self.described(&message)
    }

    fn described(&self, message: &str) -> Failure {
        match &self.config.source {
            Source::File { path, .. } => Failure::Unplayable {
                path: path.display().to_string(),
                message: message.trim_end_matches('.').to_owned(),
            },
            Source::V4l2 { device } if !device.exists() => Failure::NoDevice { device: device.display().to_string() },
            source => {
                Failure::Source { source_name: source.to_string(), message: message.trim_end_matches('.').to_owned() }
            }
        }
    }
}

/// From decoded pictures to RGB frames: `queue ! videoconvertscale ! appsink`.
pub(super) struct Tail {
    input: gst::Element,
    sink: gst_app::AppSink,
}

impl Tail {
    fn new(pipeline: &gst::Pipeline, config: &CameraConfig) -> Result<Self, Failure> {
        let live = !matches!(config.source, Source::File { .. });
        let queue = make("queue")?;
        queue.set_property("max-size-buffers", 2_u32);
        queue.set_property("max-size-bytes", 0_u32);
        queue.set_property("max-size-time", 0_u64);
        if live {
            // When converting cannot keep up, the oldest decoded picture goes, so that delay never builds up.
            queue.set_property_from_str("leaky", "downstream");
        }
        let scale = make("videoconvertscale")?;
        let sink = gst_app::AppSink::builder()
            .caps(&rgb_caps(config))
            .max_buffers(1)
            .drop(true)
            // A clip that the machine cannot decode in time skips pictures instead of playing slower than it is.
            .qos(!live)
            .enable_last_sample(false)
            .build();
        let elements = [&queue, &scale, sink.upcast_ref()];
        pipeline.add_many(elements).map_err(|_| link_failure(&config.source))?;
        gst::Element::link_many(elements).map_err(|_| link_failure(&config.source))?;
        let entry = queue.static_pad("sink").expect("a queue has a sink pad");
        pacing::limit(&entry, config.fps);
        Ok(Self { input: queue, sink })
    }

    /// The pad that decoded pictures go into; weak, for callbacks.
    fn entry(&self) -> gst::glib::WeakRef<gst::Pad> {
        self.input.static_pad("sink").expect("a queue has a sink pad").downgrade()
    }
}

/// Square pixels, RGB, no larger than asked for. A range (not a size) leaves small pictures as they are, and makes
/// `videoconvertscale` keep the aspect of large ones without borders.
fn rgb_caps(config: &CameraConfig) -> gst::Caps {
    gst_video::VideoCapsBuilder::new()
        .format(gst_video::VideoFormat::Rgb)
        .width_range(1..=config.width.cast_signed())
        .height_range(1..=config.height.cast_signed())
        .pixel_aspect_ratio(gst::Fraction::new(1, 1))
        .build()
}

/// A mapped buffer, from its first pixel on.
struct Pixels {
    buffer: gst::MappedBuffer<gst::buffer::Readable>,
    offset: usize,
}

impl AsRef<[u8]> for Pixels {
    fn as_ref(&self) -> &[u8] {
        // The offset was checked when this was made.
        &self.buffer.as_slice()[self.offset..]
    }
}

/// The sample's picture without copying it.
fn image_of(sample: &gst::Sample) -> Option<RgbImage> {
    let info = gst_video::VideoInfo::from_caps(sample.caps()?).ok()?;
    let buffer = sample.buffer_owned()?;
    // The buffer's own layout, where it has one, wins over that of the caps.
    let (stride, offset) = match buffer.meta::<gst_video::VideoMeta>() {
        Some(meta) => (*meta.stride().first()?, *meta.offset().first()?),
        None => (*info.stride().first()?, *info.offset().first()?),
    };
    let buffer = buffer.into_mapped_buffer_readable().ok()?;
    if info.format() != gst_video::VideoFormat::Rgb || offset > buffer.size() {
        return None;
    }
    RgbImage::new(info.width(), info.height(), usize::try_from(stride).ok()?, Arc::new(Pixels { buffer, offset })).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_was_stopped_leaves_nothing_of_its_pipeline() {
        gst::init().unwrap();
        let config: CameraConfig = toml::from_str("id = \"a\"\nsource = \"test\"\nfps = 60").unwrap();
        let clock: MonoClock = Arc::new(|| MonoTime::START);
        for _ in 0..3 {
            let session = Session::start(&Arc::new(config.clone()), &clock).unwrap();
            let pipeline = session.pipeline();
            assert!(matches!(session.next(Duration::from_secs(10)), Next::Picture { .. }));
            session.stop();
            // GStreamer's own helper threads may hold it for a moment longer.
            let gone = (0..200).any(|_| {
                std::thread::sleep(Duration::from_millis(10));
                pipeline.upgrade().is_none()
            });
            assert!(gone, "something still holds the pipeline");
        }
    }

    #[test]
    fn a_frame_that_cannot_be_dated_is_never_fresh() {
        gst::init().unwrap();
        let config: CameraConfig = toml::from_str("id = \"a\"\nsource = \"test\"").unwrap();
        let clock: MonoClock = Arc::new(|| MonoTime::START);
        let mut session = Session::start(&Arc::new(config), &clock).unwrap();
        let without_stamp = gst::Sample::builder().buffer(&gst::Buffer::with_size(3).unwrap()).build();
        let network = Dating::Network { arrivals: Arc::default(), base: Duration::from_millis(100) };
        for dating in [Dating::Stamp, network] {
            session.dating = dating;
            assert_eq!(session.age_of(&without_stamp), UNKNOWN_AGE);
        }
        assert!(UNKNOWN_AGE > face_core::door::DoorPolicy::default().best_shot_age);
        session.stop();
    }

    #[test]
    fn a_frame_outlives_its_pipeline() {
        gst::init().unwrap();
        let config: CameraConfig = toml::from_str("id = \"a\"\nsource = \"test\"\npattern = \"white\"").unwrap();
        let clock: MonoClock = Arc::new(|| MonoTime::START);
        let session = Session::start(&Arc::new(config), &clock).unwrap();
        let Next::Picture { image, .. } = session.next(Duration::from_secs(10)) else { panic!("no picture") };
        session.stop();
        assert_eq!(image.pixel(639, 479), [255, 255, 255]);
    }
}

//! Cameras: from a configured source to the newest frame, whatever happens to the camera.
//!
//! In: a [`CameraConfig`] (`[[camera]]`: file, RTSP, V4L2 or test pattern) and the program's clock. Out: a
//! [`CameraHandle`], which is face-core's `FrameSource`: the newest frame, dated by when the light fell on the sensor as
//! well as the source knows, with drops counted; and the camera's state and events.
//!
//! Where to start: [`open`], then `supervisor` (the thread that keeps a camera going) and `pipeline` (GStreamer).
//!
//! Invariants: a frame that nobody took is replaced, never queued; a pipeline is torn down by the camera's own thread alone;
//! no callback keeps a pipeline alive; a camera's password is never printed; a picture that a watched camera has shown
//! before is never handed on (`sight`). Deliberately absent: faces, and the clock itself.

mod age;
mod backoff;
mod config;
mod devices;
mod event;
mod pipeline;
mod profile;
mod sight;
mod slot;
mod supervisor;
mod watch;

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use face_core::{Frame, FrameSource, FrameUnavailable};

pub use config::{CameraConfig, CameraConfigError, Source, SourceKind, TestPattern, Watch, WhenFinished};
pub use devices::{VideoDevice, video_devices};
pub use event::{CameraEvent, CameraState, Failure, Happening};
pub use pipeline::{Clip, ClipError, ClipPicture};
pub use profile::{CameraProfile, LowerTransport, ProfileError, Transport};
pub use sight::SightFault;
pub use slot::CameraStats;
pub use supervisor::MonoClock;

use slot::Slot;
use supervisor::Supervisor;

/// An outage makes two events; 64 is half a minute of the fastest flapping.
const EVENTS: usize = 64;

/// Why a camera cannot be opened at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// GStreamer itself does not start.
    #[error("camera {camera}: GStreamer cannot be initialised; reinstall libgstreamer1.0-0")]
    Init {
        /// The camera.
        camera: String,
        /// What it says.
        #[source]
        source: gstreamer::glib::Error,
    },
    /// The file or device is not there.
    #[error("camera {camera}: {reason}")]
    Absent {
        /// The camera.
        camera: String,
        /// What is not there, and what to do.
        reason: Failure,
    },
    /// The system gives no more threads.
    #[error("camera {camera}: no thread can be started for it")]
    Thread {
        /// The camera.
        camera: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}

/// Opens a camera: starts its thread and returns at once, before the first frame.
///
/// A file or device that is not there is an error, since it is a mistake in the configuration more often than not; a
/// network camera that does not answer is not: it is tried until it does. `clock` must be the program's monotonic clock.
pub fn open(config: CameraConfig, clock: MonoClock) -> Result<CameraHandle, OpenError> {
    let camera = config.id.clone();
    gstreamer::init().map_err(|source| OpenError::Init { camera: camera.clone(), source })?;
    check_presence(&config).map_err(|reason| OpenError::Absent { camera: camera.clone(), reason })?;
    let slot = Arc::new(Slot::new());
    let (event_sender, events) = bounded(EVENTS);
    let (stop, stopped) = bounded(0);
    let supervisor = Supervisor::new(Arc::new(config), clock, Arc::clone(&slot), event_sender, stopped);
    let thread = thread::Builder::new()
        .name(format!("camera-{camera}"))
        .spawn(move || supervisor.run())
        .map_err(|source| OpenError::Thread { camera, source })?;
    Ok(CameraHandle { slot, events, stop: Some(stop), thread: Some(thread) })
}

fn check_presence(config: &CameraConfig) -> Result<(), Failure> {
    match &config.source {
        Source::File { path, .. } => supervisor::file_version(path).map(drop),
        Source::V4l2 { device } if !device.exists() => Err(Failure::NoDevice { device: device.display().to_string() }),
        _ => Ok(()),
    }
}

/// An open camera. Dropping it stops its thread and waits for that (up to some seconds if a driver hangs).
pub struct CameraHandle {
    slot: Arc<Slot>,
    events: Receiver<CameraEvent>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl CameraHandle {
    /// What happens to the camera, in order. Bounded (64): when nobody reads, later events are lost, while
    /// [`CameraMonitor::state`] is always true. Clones share the queue: each event goes to one reader.
    #[must_use]
    pub fn events(&self) -> Receiver<CameraEvent> {
        self.events.clone()
    }

    /// A view of state and figures that may be kept apart from the handle, e.g. for `status`.
    #[must_use]
    pub fn monitor(&self) -> CameraMonitor {
        CameraMonitor { slot: Arc::clone(&self.slot) }
    }

    /// The newest frame if it has not been taken yet, without waiting.
    pub fn try_latest(&self) -> Option<Frame> {
        self.slot.take(Duration::ZERO).ok()
    }

    /// The newest frame not yet taken, waiting up to `wait` for one.
    pub fn recv_timeout(&self, wait: Duration) -> Result<Frame, FrameUnavailable> {
        self.slot.take(wait)
    }
}

impl FrameSource for CameraHandle {
    fn next_frame(&mut self, wait: Duration) -> Result<Frame, FrameUnavailable> {
        self.recv_timeout(wait)
    }

    fn dropped(&self) -> u64 {
        self.slot.stats().dropped
    }
}

impl Drop for CameraHandle {
    fn drop(&mut self) {
        // Closing the channel is the signal.
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a camera's thread panicked");
        }
    }
}

/// State and figures of a camera.
#[derive(Clone)]
pub struct CameraMonitor {
    slot: Arc<Slot>,
}

impl CameraMonitor {
    /// What the camera is doing now.
    #[must_use]
    pub fn state(&self) -> CameraState {
        self.slot.state()
    }

    /// Its figures since it was opened.
    #[must_use]
    pub fn stats(&self) -> CameraStats {
        self.slot.stats()
    }
}

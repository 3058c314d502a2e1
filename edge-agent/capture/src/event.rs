//! What a camera is doing, and what happened to it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use face_core::MonoTime;

use crate::sight::SightFault;

/// What a camera is doing now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CameraState {
    /// Opened; no frame has come yet.
    Starting,
    /// Frames come.
    Playing,
    /// No frame for longer than the profile allows; it is being made anew.
    Stalled {
        /// When the last frame came, or the camera was opened.
        since: MonoTime,
    },
    /// It said why it cannot give frames; it is tried again (a file: when it is replaced).
    Failed {
        /// When the last frame came, or the camera was opened.
        since: MonoTime,
        /// What it said.
        reason: Arc<Failure>,
    },
    /// Pictures come, and something is wrong with them. Frozen and replayed ones are not handed on.
    Faulty {
        /// When the fault was told.
        since: MonoTime,
        /// What is wrong.
        fault: SightFault,
    },
    /// A file was played to its end; it waits for another.
    Ended,
}

/// What happened to a camera.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CameraEvent {
    /// When.
    pub at: MonoTime,
    /// What.
    pub happening: Happening,
}

/// The kinds of [`CameraEvent`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// The first frame came: after the start, or of a new file.
    Playing,
    /// Frames stopped coming. Told once per outage, whatever is tried meanwhile.
    Stalled {
        /// When the last frame came.
        since: MonoTime,
    },
    /// Frames come, but something is wrong with them. Told when the fault is new.
    Faulty {
        /// What is wrong.
        fault: SightFault,
    },
    /// Frames come again, or are in order again.
    Recovered {
        /// How long they were not.
        after: Duration,
    },
    /// A file was played to its end.
    Ended,
    /// The source said why it cannot give frames. Told when the reason is new.
    Failed {
        /// What it said.
        reason: Arc<Failure>,
    },
}

/// Why a source gives no frames, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The file is gone or cannot be read.
    #[error("file {path}: {message}; put the file there, it is then played")]
    File {
        /// The file.
        path: String,
        /// What the system says.
        message: String,
    },
    /// The file is no video that can be played.
    #[error("file {path} cannot be played ({message}); replace it by a video file, it is then played")]
    Unplayable {
        /// The file.
        path: String,
        /// What GStreamer says.
        message: String,
    },
    /// The camera's device is not there.
    #[error(
        "camera device {device}: not there; plug the camera in, or correct `device` (`edge-agent doctor` lists what there is)"
    )]
    NoDevice {
        /// The device.
        device: String,
    },
    /// The camera or the network said no.
    #[error("{source_name}: {message}; it is tried again")]
    Source {
        /// The address or device, without password.
        source_name: String,
        /// What GStreamer says.
        message: String,
    },
    /// Connected, or not even that, but no picture in time.
    #[error("{source_name}: no picture within {} s; it is tried again", .waited.as_secs())]
    Silent {
        /// The address or device, without password.
        source_name: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The live stream said that it is over.
    #[error("{source_name}: the stream ended; it is opened again")]
    StreamEnded {
        /// The address or device, without password.
        source_name: String,
    },
    /// A part of GStreamer is not installed.
    #[error("GStreamer element {element} is missing; install {package}")]
    MissingElement {
        /// The element.
        element: String,
        /// Debian's package with it.
        package: &'static str,
    },
}

impl fmt::Display for CameraState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => out.write_str("starting"),
            Self::Playing => out.write_str("playing"),
            Self::Stalled { .. } => out.write_str("stalled"),
            Self::Failed { reason, .. } => write!(out, "failed: {reason}"),
            Self::Faulty { fault, .. } => fault.fmt(out),
            Self::Ended => out.write_str("ended"),
        }
    }
}

//! `[[camera]]`: which picture a camera gives, in final types.
//!
//! In: one table of the agent's configuration, by serde. Out: [`CameraConfig`], in which nothing is left to check but
//! whether the camera is there. An unknown key, a key of another kind of source, and a missing one are errors that name
//! the camera. Deliberately absent: reading files, unique ids among cameras (the program's part).

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use url::Url;

use crate::profile::{CameraProfile, ProfileError, Transport};

/// Longest side that a frame may be asked for. The detector looks at 320×240 and a face is embedded from 112×112, so more
/// only costs time.
const MAX_SIDE_PX: u32 = 4096;
const MAX_FPS: u32 = 120;
const DEFAULT_WIDTH_PX: u32 = 640;
const DEFAULT_HEIGHT_PX: u32 = 480;
const DEFAULT_FPS: u32 = 15;

/// One camera.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawCamera")]
pub struct CameraConfig {
    /// Its name in doors, events and logs.
    pub id: String,
    /// Where its pictures come from.
    pub source: Source,
    /// Frames are at most this wide: larger pictures are scaled down with their aspect kept, smaller ones are left as
    /// they are, since pixels that the camera did not see help nobody to recognise a face.
    pub width: u32,
    /// Frames are at most this high.
    pub height: u32,
    /// At most this many frames a second are converted; more are left out before they cost anything.
    pub fps: u32,
    /// What is known of the camera's family; a generic one when none is named.
    pub profile: CameraProfile,
    /// What of its pictures is watched.
    pub watch: Watch,
}

/// What of a camera's pictures is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Watch {
    /// That they come, and what they look like: frozen, replayed, black, covered, defocused, turned. The default of real
    /// cameras.
    Pictures,
    /// Only that they come. The default of files and test patterns, which repeat themselves on purpose.
    Arrival,
}

impl Watch {
    fn default_of(kind: SourceKind) -> Self {
        match kind {
            SourceKind::Rtsp | SourceKind::V4l2 => Self::Pictures,
            SourceKind::File | SourceKind::Test => Self::Arrival,
        }
    }
}

/// Where pictures come from.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    /// A video file, played at its own pace.
    File {
        /// The file. It must exist when the camera is opened.
        path: PathBuf,
        /// What to do at its end.
        when_finished: WhenFinished,
    },
    /// An IP camera.
    Rtsp {
        /// `rtsp://` or `rtsps://`, user and password included.
        url: Url,
    },
    /// A local camera.
    V4l2 {
        /// E.g. `/dev/video0`.
        device: PathBuf,
    },
    /// A generated picture.
    Test {
        /// Which.
        pattern: TestPattern,
    },
}

/// What a file camera does when the clip has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenFinished {
    /// Begins again.
    Repeat,
    /// Shows nothing until the file is replaced by another (best by an atomic rename), then plays that one. A
    /// replacement while a clip plays takes effect at once.
    Wait,
}

/// A generated picture, by GStreamer's name for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TestPattern {
    /// Colour bars with a patch of noise.
    Smpte,
    /// A ball that moves.
    Ball,
    /// Black.
    Black,
    /// White.
    White,
    /// Noise.
    Snow,
}

impl TestPattern {
    /// The name that `videotestsrc` knows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Smpte => "smpte",
            Self::Ball => "ball",
            Self::Black => "black",
            Self::White => "white",
            Self::Snow => "snow",
        }
    }
}

/// Why a `[[camera]]` is not one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CameraConfigError {
    /// The source lacks the key that says where it is.
    #[error("camera {id}: source = \"{kind}\" needs the key `{key}`")]
    Missing {
        /// The camera.
        id: String,
        /// Its source.
        kind: SourceKind,
        /// What is missing.
        key: &'static str,
    },
    /// A key that means nothing for this source.
    #[error("camera {id}: the key `{key}` does not belong to source = \"{kind}\"; remove it")]
    Foreign {
        /// The camera.
        id: String,
        /// Its source.
        kind: SourceKind,
        /// What is too much.
        key: &'static str,
    },
    /// A number out of range.
    #[error("camera {id}: {key} = {value} must be between 1 and {max}")]
    Range {
        /// The camera.
        id: String,
        /// The key.
        key: &'static str,
        /// What it says.
        value: u32,
        /// What it may say.
        max: u32,
    },
    /// An address of another scheme.
    #[error("camera {id}: url must begin with rtsp:// or rtsps:// and name a host, found {scheme}://")]
    Scheme {
        /// The camera.
        id: String,
        /// The scheme found.
        scheme: String,
    },
    /// No such profile, or one for other cameras.
    // The reason is in the text, since serde keeps no causes.
    #[error("camera {id}: {reason}")]
    Profile {
        /// The camera.
        id: String,
        /// What is wrong with it.
        reason: ProfileError,
    },
    /// A profile for another kind of source.
    #[error("camera {id}: profile {profile} is for {transport} cameras, not for source = \"{kind}\"")]
    WrongProfile {
        /// The camera.
        id: String,
        /// The profile.
        profile: String,
        /// What the profile is for.
        transport: Transport,
        /// The camera's source.
        kind: SourceKind,
    },
}

/// The word after `source =`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// A video file.
    File,
    /// An IP camera.
    Rtsp,
    /// A local camera.
    V4l2,
    /// A generated picture.
    Test,
}

impl fmt::Display for SourceKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::File => "file",
            Self::Rtsp => "rtsp",
            Self::V4l2 => "v4l2",
            Self::Test => "test",
        })
    }
}

impl Source {
    /// Which kind it is.
    #[must_use]
    pub fn kind(&self) -> SourceKind {
        match self {
            Self::File { .. } => SourceKind::File,
            Self::Rtsp { .. } => SourceKind::Rtsp,
            Self::V4l2 { .. } => SourceKind::V4l2,
            Self::Test { .. } => SourceKind::Test,
        }
    }
}

impl fmt::Display for Source {
    /// For logs: user and password of a camera are left out.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, .. } => write!(out, "file {}", path.display()),
            Self::Rtsp { url } => write!(out, "{}", without_credentials(url)),
            Self::V4l2 { device } => write!(out, "device {}", device.display()),
            Self::Test { pattern } => write!(out, "test pattern {}", pattern.as_str()),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Source({self})")
    }
}

impl fmt::Debug for CameraConfig {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, source, width, height, fps, profile, watch: _ } = self;
        write!(out, "CameraConfig({id}: {source}, at most {width}x{height} at {fps}/s, profile {})", profile.id)
    }
}

/// The address without user and password.
pub(crate) fn without_credentials(url: &Url) -> Url {
    let mut url = url.clone();
    // Both can only fail for addresses that cannot have credentials.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}

/// The table as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCamera {
    id: String,
    source: SourceKind,
    path: Option<PathBuf>,
    url: Option<Url>,
    device: Option<PathBuf>,
    pattern: Option<TestPattern>,
    when_finished: Option<WhenFinished>,
    width: Option<u32>,
    height: Option<u32>,
    fps: Option<u32>,
    profile: Option<String>,
    watch: Option<Watch>,
}

impl TryFrom<RawCamera> for CameraConfig {
    type Error = CameraConfigError;

    fn try_from(raw: RawCamera) -> Result<Self, CameraConfigError> {
        raw.refuse_foreign_keys()?;
        let width = raw.ranged("width", raw.width, DEFAULT_WIDTH_PX, MAX_SIDE_PX)?;
        let height = raw.ranged("height", raw.height, DEFAULT_HEIGHT_PX, MAX_SIDE_PX)?;
        let fps = raw.ranged("fps", raw.fps, DEFAULT_FPS, MAX_FPS)?;
        let profile = raw.profile()?;
        let missing = |key| CameraConfigError::Missing { id: raw.id.clone(), kind: raw.source, key };
        let source = match raw.source {
            SourceKind::File => Source::File {
                path: raw.path.clone().ok_or_else(|| missing("path"))?,
                when_finished: raw.when_finished.unwrap_or(WhenFinished::Repeat),
            },
            SourceKind::Rtsp => Source::Rtsp { url: raw.rtsp_url(raw.url.clone().ok_or_else(|| missing("url"))?)? },
            SourceKind::V4l2 => Source::V4l2 { device: raw.device.clone().ok_or_else(|| missing("device"))? },
            SourceKind::Test => Source::Test { pattern: raw.pattern.unwrap_or(TestPattern::Smpte) },
        };
        let watch = raw.watch.unwrap_or(Watch::default_of(raw.source));
        Ok(Self { id: raw.id, source, width, height, fps, profile, watch })
    }
}

impl RawCamera {
    fn refuse_foreign_keys(&self) -> Result<(), CameraConfigError> {
        let keys = [
            ("path", self.path.is_some(), SourceKind::File),
            ("when_finished", self.when_finished.is_some(), SourceKind::File),
            ("url", self.url.is_some(), SourceKind::Rtsp),
            ("device", self.device.is_some(), SourceKind::V4l2),
            ("pattern", self.pattern.is_some(), SourceKind::Test),
        ];
        match keys.into_iter().find(|(_, present, kind)| *present && *kind != self.source) {
            Some((key, ..)) => Err(CameraConfigError::Foreign { id: self.id.clone(), kind: self.source, key }),
            None => Ok(()),
        }
    }

    fn ranged(&self, key: &'static str, value: Option<u32>, default: u32, max: u32) -> Result<u32, CameraConfigError> {
        match value.unwrap_or(default) {
            value if (1..=max).contains(&value) => Ok(value),
            value => Err(CameraConfigError::Range { id: self.id.clone(), key, value, max }),
        }
    }

    fn rtsp_url(&self, url: Url) -> Result<Url, CameraConfigError> {
        if matches!(url.scheme(), "rtsp" | "rtsps") && url.has_host() {
            return Ok(url);
        }
        Err(CameraConfigError::Scheme { id: self.id.clone(), scheme: url.scheme().to_owned() })
    }

    fn profile(&self) -> Result<CameraProfile, CameraConfigError> {
        let (name, expected) = match self.source {
            SourceKind::V4l2 => (self.profile.as_deref().unwrap_or("generic-v4l2"), Transport::V4l2),
            _ => (self.profile.as_deref().unwrap_or("generic-rtsp"), Transport::Rtsp),
        };
        let profile =
            CameraProfile::named(name).map_err(|reason| CameraConfigError::Profile { id: self.id.clone(), reason })?;
        // Files and test patterns stand in for any camera, so any profile suits them.
        let matters = matches!(self.source, SourceKind::Rtsp | SourceKind::V4l2);
        if matters && profile.transport != expected {
            return Err(CameraConfigError::WrongProfile {
                id: self.id.clone(),
                profile: profile.id,
                transport: profile.transport,
                kind: self.source,
            });
        }
        Ok(profile)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<CameraConfig, String> {
        toml::from_str(text).map_err(|error| {
            let error: toml::de::Error = error;
            error.message().to_owned()
        })
    }

    #[test]
    fn each_source_reads_its_own_keys() {
        let file = parse("id = \"a\"\nsource = \"file\"\npath = \"/x.mp4\"\nwhen_finished = \"wait\"").unwrap();
        assert_eq!(file.source, Source::File { path: "/x.mp4".into(), when_finished: WhenFinished::Wait });
        assert_eq!((file.width, file.height, file.fps), (640, 480, 15));
        let v4l2 = parse("id = \"a\"\nsource = \"v4l2\"\ndevice = \"/dev/video0\"\nfps = 30").unwrap();
        assert_eq!(v4l2.profile.id, "generic-v4l2");
        let test = parse("id = \"a\"\nsource = \"test\"\npattern = \"ball\"").unwrap();
        assert_eq!(test.source, Source::Test { pattern: TestPattern::Ball });
    }

    #[test]
    fn real_cameras_are_watched_for_what_they_show_and_clips_only_when_asked() {
        let watch = |table: &str| parse(&format!("id = \"a\"\n{table}")).unwrap().watch;
        assert_eq!(watch("source = \"rtsp\"\nurl = \"rtsp://h/\""), Watch::Pictures);
        assert_eq!(watch("source = \"v4l2\"\ndevice = \"/dev/video0\""), Watch::Pictures);
        assert_eq!(watch("source = \"file\"\npath = \"/x.mp4\""), Watch::Arrival);
        assert_eq!(watch("source = \"test\""), Watch::Arrival);
        assert_eq!(watch("source = \"test\"\nwatch = \"pictures\""), Watch::Pictures);
        assert_eq!(watch("source = \"rtsp\"\nurl = \"rtsp://h/\"\nwatch = \"arrival\""), Watch::Arrival);
    }

    #[test]
    fn wrong_tables_are_refused_by_name() {
        let cases = [
            ("source = \"file\"", "needs the key `path`"),
            ("source = \"rtsp\"", "needs the key `url`"),
            ("source = \"v4l2\"", "needs the key `device`"),
            ("source = \"test\"\npath = \"x\"", "`path` does not belong to source = \"test\""),
            ("source = \"rtsp\"\nurl = \"rtsp://h/\"\nwhen_finished = \"wait\"", "`when_finished` does not belong"),
            ("source = \"test\"\nfps = 0", "fps = 0 must be between 1 and 120"),
            ("source = \"test\"\nwidth = 5000", "width = 5000 must be between 1 and 4096"),
            ("source = \"rtsp\"\nurl = \"http://h/\"", "must begin with rtsp://"),
            ("source = \"test\"\nspeed = 3", "unknown field `speed`"),
            ("source = \"webcam\"", "unknown variant `webcam`"),
            ("source = \"rtsp\"\nurl = \"rtsp://h/\"\nprofile = \"generic-v4l2\"", "is for v4l2 cameras"),
            ("source = \"rtsp\"\nurl = \"rtsp://h/\"\nprofile = \"nobody\"", "there is no camera profile \"nobody\""),
        ];
        for (text, expected) in cases {
            let message = parse(&format!("id = \"a\"\n{text}")).unwrap_err();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    #[test]
    fn a_password_is_never_printed() {
        let camera = parse("id = \"a\"\nsource = \"rtsp\"\nurl = \"rtsp://door:secret@host/stream\"").unwrap();
        for text in [format!("{camera:?}"), camera.source.to_string()] {
            assert!(!text.contains("secret") && !text.contains("door:"), "{text}");
            assert!(text.contains("rtsp://host/stream"), "{text}");
        }
    }
}

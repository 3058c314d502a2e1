//! What is known of a family of cameras: `camera-profiles/<id>.toml`, compiled in.
//!
//! In: a profile's name, or its text. Out: [`CameraProfile`], checked. Deliberately absent: talking to a camera.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

/// The format that this program reads.
const SCHEMA_VERSION: u32 = 1;

/// Every profile that is compiled in, by id. A test compares this with the folder.
const BUILT_IN: [(&str, &str); 5] = [
    ("axis", include_str!("../../../camera-profiles/axis.toml")),
    ("dahua", include_str!("../../../camera-profiles/dahua.toml")),
    ("generic-rtsp", include_str!("../../../camera-profiles/generic-rtsp.toml")),
    ("generic-v4l2", include_str!("../../../camera-profiles/generic-v4l2.toml")),
    ("hikvision", include_str!("../../../camera-profiles/hikvision.toml")),
];

/// How a camera is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Over the network.
    Rtsp,
    /// As `/dev/videoN`.
    V4l2,
}

impl fmt::Display for Transport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Rtsp => "rtsp",
            Self::V4l2 => "v4l2",
        })
    }
}

/// What carries the pictures of an RTSP camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LowerTransport {
    /// The RTSP connection itself: no torn pictures.
    Tcp,
    /// UDP first, TCP when nothing arrives.
    Udp,
}

/// A family of cameras.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CameraProfile {
    /// The file's name without `.toml`.
    pub id: String,
    /// Who makes them.
    pub vendor: String,
    /// Globs over the model name.
    pub model_globs: Vec<String>,
    /// How they are reached.
    pub transport: Transport,
    /// What carries the pictures, for RTSP.
    pub lower_transport: LowerTransport,
    /// The jitter buffer of RTSP, at most 100 ms. It counts as the base of each frame's age.
    pub latency: Duration,
    /// Without a frame for this long the source is torn down and made anew.
    pub stall_after: Duration,
    /// Pixel formats of V4L2 in the order to try.
    pub formats: Vec<String>,
    /// Whether V4L2 automatic exposure may lower the frame rate; `None` leaves the driver's setting.
    pub exposure_dynamic_framerate: Option<bool>,
}

/// Why a profile cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// There is none of that name.
    #[error("there is no camera profile {name:?}; there are {known}")]
    Unknown {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The text is not a profile.
    #[error("camera profile {id} cannot be read")]
    Syntax {
        /// The profile.
        id: String,
        /// What the parser says.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A profile of another format.
    #[error("camera profile {id}: schema_version {found}, this program knows {SCHEMA_VERSION}")]
    Version {
        /// The profile.
        id: String,
        /// The version found.
        found: u32,
    },
    /// A value that is not allowed.
    #[error("camera profile {id}: {key} must be {rule}")]
    Value {
        /// The profile.
        id: String,
        /// The key.
        key: &'static str,
        /// What it must be.
        rule: &'static str,
    },
}

impl CameraProfile {
    /// The compiled-in profile of this name.
    pub fn named(name: &str) -> Result<Self, ProfileError> {
        match BUILT_IN.iter().find(|(id, _)| *id == name) {
            Some((id, text)) => Self::parse(id, text),
            None => Err(ProfileError::Unknown {
                name: name.to_owned(),
                known: Self::names().collect::<Vec<_>>().join(", "),
            }),
        }
    }

    /// The names of the compiled-in profiles.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(id, _)| *id)
    }

    /// Reads and checks a profile; `id` is what its file is called.
    pub fn parse(id: &str, text: &str) -> Result<Self, ProfileError> {
        let id = id.to_owned();
        let raw: RawProfile = match toml::from_str(text) {
            Ok(raw) => raw,
            Err(source) => return Err(ProfileError::Syntax { id, source: Box::new(source) }),
        };
        if raw.schema_version != SCHEMA_VERSION {
            return Err(ProfileError::Version { id, found: raw.schema_version });
        }
        let wrong = |key, rule| Err(ProfileError::Value { id: id.clone(), key, rule });
        if raw.id != id {
            return wrong("id", "the file's name without .toml");
        }
        if raw.transport == Transport::Rtsp && raw.rtsp.is_none() {
            return wrong("rtsp", "there for transport = \"rtsp\"");
        }
        let (lower_transport, latency_ms) =
            raw.rtsp.map_or((LowerTransport::Tcp, 0), |rtsp| (rtsp.lower_transport, rtsp.latency_ms));
        // The whole freshness budget is 800 ms.
        if latency_ms > 100 {
            return wrong("rtsp.latency_ms", "at most 100");
        }
        if !(1..=30).contains(&raw.quirks.stall_s) {
            return wrong("quirks.stall_s", "between 1 and 30");
        }
        Ok(Self {
            id,
            vendor: raw.vendor,
            model_globs: raw.model_globs,
            transport: raw.transport,
            lower_transport,
            latency: Duration::from_millis(latency_ms),
            stall_after: Duration::from_secs(raw.quirks.stall_s),
            formats: raw.quirks.formats,
            exposure_dynamic_framerate: raw.quirks.exposure_dynamic_framerate,
        })
    }
}

/// The file as it is written. Keys that only people and later work read are taken as they come.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawProfile {
    schema_version: u32,
    id: String,
    vendor: String,
    model_globs: Vec<String>,
    transport: Transport,
    #[serde(rename = "codecs")]
    _codecs: Vec<String>,
    #[serde(rename = "tested_on")]
    _tested_on: Vec<toml::Table>,
    #[serde(rename = "ports")]
    _ports: Option<toml::Table>,
    rtsp: Option<RawRtsp>,
    #[serde(rename = "onvif")]
    _onvif: Option<toml::Table>,
    #[serde(rename = "hints")]
    _hints: Option<toml::Table>,
    quirks: RawQuirks,
}

#[derive(Deserialize)]
struct RawRtsp {
    lower_transport: LowerTransport,
    latency_ms: u64,
}

#[derive(Deserialize)]
struct RawQuirks {
    stall_s: u64,
    #[serde(default)]
    formats: Vec<String>,
    exposure_dynamic_framerate: Option<bool>,
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_profile_of_the_folder_is_compiled_in_and_valid() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../camera-profiles");
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".toml").map(str::to_owned))
            .collect();
        names.sort();
        assert_eq!(names, CameraProfile::names().collect::<Vec<_>>());
        for name in names {
            let profile = CameraProfile::named(&name).unwrap();
            assert!(profile.latency <= Duration::from_millis(100));
        }
    }

    #[test]
    fn a_wrong_profile_is_refused_with_its_name() {
        let good = BUILT_IN[2].1;
        let cases = [
            (good.replace("schema_version = 1", "schema_version = 2"), "schema_version 2"),
            (good.replace("id = \"generic-rtsp\"", "id = \"other\""), "id must be"),
            (good.replace("latency_ms = 100", "latency_ms = 101"), "latency_ms must be at most 100"),
            (good.replace("stall_s = 2", "stall_s = 0"), "stall_s must be"),
            (good.replace("vendor =", "vendr ="), "cannot be read"),
        ];
        for (text, expected) in cases {
            let error = CameraProfile::parse("generic-rtsp", &text).unwrap_err();
            assert!(error.to_string().contains(expected) && error.to_string().contains("generic-rtsp"), "{error}");
        }
        assert!(CameraProfile::named("nobody").unwrap_err().to_string().contains("hikvision"));
    }
}

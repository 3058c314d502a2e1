//! A picture or a video as frames with times, told apart by content and not by name.
//!
//! In: a file. Out: [`Media`]: one still picture, or a clip that gives its frames one by one. Deliberately absent: faces.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use edge_capture::{Clip, ClipError};
use face_core::{Frame, MonoTime, RgbImage};

use crate::eval::template::{NoTemplate, decode};

/// The size that a door's camera has where its configuration says nothing else (`[camera]` of the defaults).
pub(super) const CAMERA_SIZE: (u32, u32) = (640, 480);
/// And its rate.
pub(super) const CAMERA_FPS: u32 = 15;
/// A clip's first picture is captured at this time of its own clock: not at zero, so that "before" exists.
const START: Duration = Duration::from_secs(1);
/// Longest still picture that is read, and one byte more shows that it is longer.
const MAX_STILL_BYTES: u64 = 64 << 20;

/// Why a presentation cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// It cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It begins like a picture and is none.
    #[error("{}: the picture cannot be decoded: {}; copy it again or remove it", path.display(), crate::logging::chain(source))]
    Picture {
        /// The file.
        path: PathBuf,
        /// Why.
        source: NoTemplate,
    },
    /// It is no picture, and no video either.
    #[error(transparent)]
    Video(#[from] ClipError),
}

/// What a file shows.
pub(super) enum Media {
    /// One moment: no proof of life can be in it.
    Still(RgbImage),
    /// Moments in order.
    Video(Video),
}

impl Media {
    pub(super) fn open(path: &Path) -> Result<Self, MediaError> {
        let unreadable = |source| MediaError::Unreadable { path: path.to_owned(), source };
        let mut file = std::fs::File::open(path).map_err(unreadable)?;
        let mut head = Vec::new();
        file.by_ref().take(8).read_to_end(&mut head).map_err(unreadable)?;
        if !is_picture(&head) {
            let mut video = Video { clip: Clip::open(path, CAMERA_SIZE, CAMERA_FPS)?, first: None, sequence: 0 };
            // What is wrong with it must be known before anything is counted.
            video.first = Some(video.clip.next().unwrap_or_else(|| {
                let message = "there is no picture in it".to_owned();
                Err(ClipError::NoVideo { path: path.to_owned(), message })
            })?);
            return Ok(Self::Video(video));
        }
        let mut bytes = head;
        file.take(MAX_STILL_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
        let image = decode(&bytes).map_err(|source| MediaError::Picture { path: path.to_owned(), source })?;
        Ok(Self::Still(image))
    }
}

/// JPEG, PNG, binary PGM and PPM begin like this.
fn is_picture(head: &[u8]) -> bool {
    head.starts_with(&[0xff, 0xd8, 0xff])
        || head.starts_with(b"\x89PNG")
        || matches!(head, [b'P', b'5' | b'6', space, ..] if space.is_ascii_whitespace())
}

/// A video's frames, each captured when the video shows it.
pub(super) struct Video {
    clip: Clip,
    first: Option<edge_capture::ClipPicture>,
    sequence: u64,
}

impl Iterator for Video {
    type Item = Result<Frame, MediaError>;

    fn next(&mut self) -> Option<Self::Item> {
        let picture = match self.first.take() {
            Some(first) => Ok(first),
            None => self.clip.next()?,
        };
        self.sequence += 1;
        let frame = picture.map(|picture| frame(picture.image, picture.at, self.sequence));
        Some(frame.map_err(MediaError::from))
    }
}

/// A frame captured `at` after the clip's start.
pub(super) fn frame(image: RgbImage, at: Duration, sequence: u64) -> Frame {
    let nanos = u64::try_from((START + at).as_nanos()).unwrap_or(u64::MAX);
    Frame { image, captured_at: MonoTime::from_nanos(nanos), sequence }
}

/// Time since the clip's first picture.
pub(super) fn since_start(at: MonoTime) -> Duration {
    at.since(MonoTime::START) - START.min(at.since(MonoTime::START))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_known_by_their_first_bytes() {
        for head in [&b"\xff\xd8\xff\xe0"[..], b"\x89PNG\r\n\x1a\n", b"P5\n640", b"P6 2 1"] {
            assert!(is_picture(head), "{head:?}");
        }
        for head in [&b""[..], b"P4\n", b"P5x", b"\x1aE\xdf\xa3", b"\0\0\0 ftyp", b"Dear door"] {
            assert!(!is_picture(head), "{head:?}");
        }
    }

    #[test]
    fn the_camera_of_a_measurement_is_that_of_the_defaults() {
        let defaults: toml::Table = crate::config::DEFAULTS.parse().unwrap();
        let camera = defaults["camera"].as_table().unwrap();
        let number = |key: &str| u32::try_from(camera[key].as_integer().unwrap()).unwrap();
        assert_eq!((CAMERA_SIZE, CAMERA_FPS), ((number("width"), number("height")), number("fps")));
    }
}

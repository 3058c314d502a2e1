//! Faces over time: stable ids for boxes that overlap from frame to frame, and the best shots of each.
//!
//! In: the detections of each looked-at frame with its capture time. Out: which detection belongs to which track, and
//! which tracks ended. Deliberately absent: motion prediction (faces before a door are slow against 15 frames a second)
//! and appearance (the decision compares embeddings; a track only says "the same face, seen without interruption").

use std::time::Duration;

use crate::detect::Detection;
use crate::geometry::PixelRect;
use crate::time::MonoTime;

/// A face seen without interruption by one camera. Never used twice by one tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrackId(pub u64);

/// How boxes are joined into tracks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrackPolicy {
    /// The lowest IoU between a track's last box and a detection that may continue it.
    pub min_iou: f32,
    /// A track without a detection for longer than this has ended.
    pub lost_after: Duration,
    /// At most this many tracks live at once; further faces are ignored until one ends.
    pub max_tracks: usize,
}

impl Default for TrackPolicy {
    fn default() -> Self {
        todo!()
    }
}

/// A living track.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Track {
    /// Its id.
    pub id: TrackId,
    /// The newest box.
    pub rect: PixelRect,
    /// Capture time of the first frame it was detected in.
    pub first_seen: MonoTime,
    /// Capture time of the newest frame it was detected in.
    pub last_seen: MonoTime,
    /// How many frames it was detected in.
    pub n_detections: u32,
}

/// What one frame changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrackUpdate {
    /// For each detection passed in, by position: its track; `None` when there was no room for it.
    pub assigned: Vec<Option<TrackId>>,
    /// Tracks that began with this frame.
    pub started: Vec<TrackId>,
    /// Tracks that have ended.
    pub ended: Vec<Track>,
}

/// Joins detections of one camera into tracks.
#[derive(Clone, Debug)]
pub struct Tracker {
    policy: TrackPolicy,
    tracks: Vec<Track>,
    next_id: u64,
}

impl Tracker {
    /// A tracker without tracks.
    #[must_use]
    pub fn new(policy: TrackPolicy) -> Self {
        todo!()
    }

    /// Takes the detections of a frame captured at `captured_at`. Call it for every frame that the detector looked at,
    /// with an empty slice when it found nothing.
    pub fn update(&mut self, captured_at: MonoTime, detections: &[Detection]) -> TrackUpdate {
        todo!()
    }

    /// Ends the tracks that were not detected for too long, when no frame comes at all (a stalled camera).
    pub fn expire(&mut self, now: MonoTime) -> Vec<Track> {
        todo!()
    }

    /// The living tracks, oldest first.
    #[must_use]
    pub fn tracks(&self) -> &[Track] {
        &self.tracks
    }
}

/// One picture of a track that may be embedded.
#[derive(Clone, Debug)]
pub struct Shot<T> {
    /// Its quality in [0, 1], for example [`crate::quality::Quality::overall`].
    pub quality: f32,
    /// When its frame was captured.
    pub captured_at: MonoTime,
    /// What the caller needs of it: the picture, the points, later the embedding.
    pub payload: T,
}

/// The best few recent shots of one track, best first. Bounded in number and age.
#[derive(Clone, Debug)]
pub struct BestShots<T> {
    capacity: usize,
    max_age: Duration,
    shots: Vec<Shot<T>>,
}

impl<T> BestShots<T> {
    /// Keeps at most `capacity` shots (at least 1), none older than `max_age`.
    #[must_use]
    pub fn new(capacity: usize, max_age: Duration) -> Self {
        todo!()
    }

    /// Drops shots that are too old at `now`, then takes `shot` if there is room or it beats the worst.
    /// Returns its place (0 is the best), or `None` when it was not taken. A shot without a finite quality is not taken.
    pub fn offer(&mut self, shot: Shot<T>, now: MonoTime) -> Option<usize> {
        todo!()
    }

    /// Drops the shots that are too old at `now`.
    pub fn expire(&mut self, now: MonoTime) {
        todo!()
    }

    /// The kept shots, best first.
    #[must_use]
    pub fn shots(&self) -> &[Shot<T>] {
        &self.shots
    }

    /// The kept shots, best first, to change their payload (their order stays as it is).
    pub fn payloads_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.shots.iter_mut().map(|shot| &mut shot.payload)
    }
}

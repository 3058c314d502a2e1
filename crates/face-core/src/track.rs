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
    /// IoU 0.3: at ten looks a second a walking face moves by less than half its width between two looks, which still
    /// leaves an IoU of a third, while two people side by side have none. 600 ms: a blink of the detector (a few
    /// frames) does not split a visit, yet it is shorter than the freshness budget, so that a door never opens
    /// on a track whose face is gone. 16 faces are more than stand before one door.
    fn default() -> Self {
        Self { min_iou: 0.3, lost_after: Duration::from_millis(600), max_tracks: 16 }
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
        Self { policy, tracks: Vec::new(), next_id: 0 }
    }

    /// Takes the detections of a frame captured at `captured_at`. Call it for every frame that the detector looked at,
    /// with an empty slice when it found nothing.
    ///
    /// Pairs are joined greedily by best IoU, so that of two faces that pass each other each keeps the box it overlaps
    /// most; what is left over starts new tracks.
    pub fn update(&mut self, captured_at: MonoTime, detections: &[Detection]) -> TrackUpdate {
        let ended = self.expire(captured_at);
        let mut assigned = vec![None; detections.len()];
        for (track_index, detection_index) in self.best_pairs(detections) {
            let track = &mut self.tracks[track_index];
            track.rect = detections[detection_index].rect;
            track.last_seen = captured_at;
            track.n_detections = track.n_detections.saturating_add(1);
            assigned[detection_index] = Some(track.id);
        }
        let mut started = Vec::new();
        for (detection, slot) in detections.iter().zip(&mut assigned).filter(|(_, slot)| slot.is_none()) {
            if let Some(id) = self.start(captured_at, detection) {
                *slot = Some(id);
                started.push(id);
            }
        }
        TrackUpdate { assigned, started, ended }
    }

    /// Ends the tracks that were not detected for too long, when no frame comes at all (a stalled camera).
    pub fn expire(&mut self, now: MonoTime) -> Vec<Track> {
        let lost_after = self.policy.lost_after;
        let (kept, ended) = self.tracks.drain(..).partition(|track| now.since(track.last_seen) <= lost_after);
        self.tracks = kept;
        ended
    }

    /// Ends every track: what comes next was not seen without interruption.
    pub fn end_all(&mut self) -> Vec<Track> {
        std::mem::take(&mut self.tracks)
    }

    /// The living tracks, oldest first.
    #[must_use]
    pub fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    /// Pairs of (track, detection) by position, each at most once, best IoU first; ties go to the older track.
    fn best_pairs(&self, detections: &[Detection]) -> Vec<(usize, usize)> {
        let mut pairs: Vec<(f32, usize, usize)> = Vec::new();
        for (track_index, track) in self.tracks.iter().enumerate() {
            for (detection_index, detection) in detections.iter().enumerate() {
                let iou = track.rect.iou(&detection.rect);
                if iou >= self.policy.min_iou {
                    pairs.push((iou, track_index, detection_index));
                }
            }
        }
        pairs.sort_by(|first, second| second.0.total_cmp(&first.0));
        let mut chosen: Vec<(usize, usize)> = Vec::new();
        for (_, track, detection) in pairs {
            if chosen.iter().all(|(t, d)| *t != track && *d != detection) {
                chosen.push((track, detection));
            }
        }
        chosen
    }

    fn start(&mut self, captured_at: MonoTime, detection: &Detection) -> Option<TrackId> {
        if self.tracks.len() >= self.policy.max_tracks {
            return None;
        }
        let id = TrackId(self.next_id);
        self.next_id += 1;
        let (first_seen, last_seen) = (captured_at, captured_at);
        self.tracks.push(Track { id, rect: detection.rect, first_seen, last_seen, n_detections: 1 });
        Some(id)
    }
}

/// One picture of a track that was good enough to be embedded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shot {
    /// Its quality in [0, 1], for example [`crate::quality::Quality::overall`].
    pub quality: f32,
    /// When its frame was captured.
    pub captured_at: MonoTime,
}

/// The best few recent shots of one track, best first. Bounded in number and age.
#[derive(Clone, Debug)]
pub struct BestShots {
    capacity: usize,
    max_age: Duration,
    shots: Vec<Shot>,
}

impl BestShots {
    /// Keeps at most `capacity` shots (at least 1), none older than `max_age`.
    #[must_use]
    pub fn new(capacity: usize, max_age: Duration) -> Self {
        Self { capacity: capacity.max(1), max_age, shots: Vec::new() }
    }

    /// Drops shots that are too old at `now`, then takes `shot` if there is room or it beats the worst.
    /// Returns its place (0 is the best), or `None` when it was not taken. A shot without a finite quality is not taken.
    pub fn offer(&mut self, shot: Shot, now: MonoTime) -> Option<usize> {
        self.expire(now);
        if !shot.quality.is_finite() || now.since(shot.captured_at) > self.max_age {
            return None;
        }
        // Behind its equals: an embedding that was already paid for stays in front.
        let place = self.shots.iter().position(|kept| kept.quality < shot.quality).unwrap_or(self.shots.len());
        if place >= self.capacity {
            return None;
        }
        self.shots.insert(place, shot);
        self.shots.truncate(self.capacity);
        Some(place)
    }

    /// Drops the shots that are too old at `now`.
    pub fn expire(&mut self, now: MonoTime) {
        self.shots.retain(|shot| now.since(shot.captured_at) <= self.max_age);
    }

    /// The kept shots, best first.
    #[must_use]
    pub fn shots(&self) -> &[Shot] {
        &self.shots
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn face(x: f32, y: f32) -> Detection {
        Detection { rect: PixelRect::new(x, y, 100.0, 120.0).unwrap(), score: 0.9 }
    }

    fn at(millis: u64) -> MonoTime {
        MonoTime::from_millis(millis)
    }

    fn tracker() -> Tracker {
        Tracker::new(TrackPolicy::default())
    }

    #[test]
    fn a_walking_face_keeps_its_id_and_two_faces_keep_theirs() {
        let mut tracker = tracker();
        let first = tracker.update(at(0), &[face(0.0, 0.0), face(300.0, 0.0)]);
        assert_eq!(first.started.len(), 2);
        for step in 1..10u64 {
            // The detector may list them in any order.
            let moved = [face(300.0 - step as f32 * 10.0, 0.0), face(step as f32 * 10.0, 0.0)];
            let update = tracker.update(at(step * 100), &moved);
            assert_eq!(update.assigned, [first.assigned[1], first.assigned[0]]);
        }
    }

    #[test]
    fn overlapping_faces_go_to_the_track_they_overlap_most() {
        let mut tracker = tracker();
        let start = tracker.update(at(0), &[face(0.0, 0.0), face(60.0, 0.0)]);
        let update = tracker.update(at(100), &[face(50.0, 0.0), face(8.0, 0.0)]);
        assert_eq!(update.assigned, [start.assigned[1], start.assigned[0]]);
    }

    #[test]
    fn a_short_gap_is_bridged_and_a_long_one_ends_the_track() {
        let mut tracker = tracker();
        let id = tracker.update(at(0), &[face(0.0, 0.0)]).assigned[0];
        assert!(tracker.update(at(300), &[]).ended.is_empty());
        assert_eq!(tracker.update(at(600), &[face(5.0, 0.0)]).assigned[0], id);
        let late = tracker.update(at(1201), &[face(5.0, 0.0)]);
        assert_eq!(late.ended.iter().map(|track| Some(track.id)).collect::<Vec<_>>(), [id]);
        assert_ne!(late.assigned[0], id);
        assert_eq!(tracker.expire(at(5000)).len(), 1);
        assert!(tracker.tracks().is_empty());
        let last = tracker.update(at(5100), &[face(5.0, 0.0)]).assigned[0];
        assert_eq!(tracker.end_all().iter().map(|track| Some(track.id)).collect::<Vec<_>>(), [last]);
        assert_ne!(
            tracker.update(at(5200), &[face(5.0, 0.0)]).assigned[0],
            last,
            "an interruption makes it another face"
        );
        tracker.end_all();
        assert!(tracker.tracks().is_empty());
    }

    #[test]
    fn there_is_room_for_a_bounded_number_of_faces() {
        let mut tracker = Tracker::new(TrackPolicy { max_tracks: 1, ..TrackPolicy::default() });
        let update = tracker.update(at(0), &[face(0.0, 0.0), face(300.0, 0.0)]);
        assert_eq!(update.assigned, [Some(TrackId(0)), None]);
    }

    proptest! {
        #[test]
        fn ids_are_unique_within_a_frame_and_never_come_back(
            frames in proptest::collection::vec(
                (1u64..900, proptest::collection::vec((0.0f32..400.0, 0.0f32..300.0), 0..5)), 1..30,
            ),
        ) {
            let mut tracker = tracker();
            let mut now = 0;
            let mut gone = std::collections::HashSet::new();
            for (gap, faces) in frames {
                now += gap;
                let detections: Vec<Detection> = faces.iter().map(|(x, y)| face(*x, *y)).collect();
                let update = tracker.update(at(now), &detections);
                gone.extend(update.ended.iter().map(|track| track.id));
                let ids: Vec<TrackId> = update.assigned.iter().flatten().copied().collect();
                let distinct: std::collections::HashSet<_> = ids.iter().collect();
                prop_assert_eq!(distinct.len(), detections.len());
                prop_assert!(ids.iter().all(|id| !gone.contains(id)));
                prop_assert!(update.started.iter().all(|id| ids.contains(id)));
                for (detection, id) in detections.iter().zip(&ids) {
                    let track = tracker.tracks().iter().find(|track| track.id == *id).unwrap();
                    prop_assert_eq!((track.rect, track.last_seen), (detection.rect, at(now)));
                }
            }
        }

        #[test]
        fn the_best_recent_shots_are_kept(
            offers in proptest::collection::vec((0u64..400, 0.0f32..1.0), 1..40), capacity in 1usize..5,
        ) {
            let mut shots = BestShots::new(capacity, Duration::from_secs(3));
            let mut now = 0;
            let mut all: Vec<(u64, f32)> = Vec::new();
            for (gap, quality) in offers {
                now += gap;
                shots.offer(Shot { quality, captured_at: at(now) }, at(now));
                all.push((now, quality));
                let kept: Vec<f32> = shots.shots().iter().map(|shot| shot.quality).collect();
                prop_assert!(kept.len() <= capacity);
                prop_assert!(kept.windows(2).all(|pair| pair[0] >= pair[1]));
                prop_assert!(shots.shots().iter().all(|shot| at(now).since(shot.captured_at) <= Duration::from_secs(3)));
                // While nothing has aged out, the best of all is in front.
                if now <= 3000 {
                    prop_assert_eq!(kept[0], all.iter().map(|offer| offer.1).fold(0.0, f32::max));
                }
            }
        }
    }

    #[test]
    fn a_shot_without_a_finite_quality_or_too_old_is_not_taken() {
        let mut shots = BestShots::new(2, Duration::from_secs(3));
        assert_eq!(shots.offer(Shot { quality: f32::NAN, captured_at: at(0) }, at(0)), None);
        let shot = Shot { quality: 0.5, captured_at: at(0) };
        assert_eq!(shots.offer(shot, at(3001)), None);
        assert_eq!(shots.offer(shot, at(3000)), Some(0));
        assert_eq!(shots.shots(), [shot]);
    }
}

//! From the best shots of a face to the people in the gallery that it looks like.
//!
//! In: [`Shot`]s of all cameras. Out: [`Identified`]: ranked rows of the gallery that is current at that moment. One
//! thread embeds and searches. Deliberately absent: the open-set decision; thresholds belong to each door's policy.
//!
//! Channel in: bounded at [`SHOTS`]; perceive drops a shot that does not fit. Channel out: to the doors of the camera,
//! bounded; full means that deciding is behind, so this thread waits.

use crossbeam_channel::RecvTimeoutError;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use face_core::{Embedder, Embedding, Gallery, MonoTime, Ranked, Similarity, TrackId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::decide::DoorInput;
use super::perceive::Shot;
use crate::gallery::Roster;
use crate::logging::chain;

/// Shots that may wait. Two a camera of a small door; an embedding takes about 11 ms, so nothing here gets old.
pub const SHOTS: usize = 8;

/// Two shots of one face, a second or so apart, are far more alike than two people are: below this the track has
/// changed its person, whether by chance or by somebody holding a picture before a face that was found alive. One pair
/// of strangers in about three hundred scores higher; one pair of genuine neighbouring shots in a thousand lower.
const SAME_FACE: f32 = 0.3;

/// How long the last embedding of a track is kept for comparison. Longer than any track stays without a shot.
const FORGET_AFTER: Duration = Duration::from_secs(30);

/// What the gallery says of one shot.
#[derive(Debug, Clone, PartialEq)]
pub struct Identified {
    /// The track.
    pub track: TrackId,
    /// Capture time of the shot.
    pub shot_at: MonoTime,
    /// Its quality in [0, 1].
    pub quality: f32,
    /// Height of the face in it, in pixels.
    pub height_px: f32,
    /// Which roster was searched. A door goes by nothing that was found in an older one than its own.
    pub generation: u64,
    /// Templates in the roster that was searched: the threshold depends on them.
    pub n_templates: usize,
    /// The rows to decide by, best first.
    pub ranked: Vec<Ranked>,
    /// What was searched for; kept by nobody but an enrolment at the door.
    pub embedding: Arc<Embedding>,
    /// Negative anchors of the people in those rows.
    pub anchors: Vec<Ranked>,
    /// False when this face is not the one of the track's shot before.
    pub same_face: bool,
}

/// The memory of identify: the last embedding of each track.
#[derive(Default)]
pub struct Identifier {
    last: HashMap<(Arc<str>, TrackId), (Embedding, MonoTime)>,
}

impl Identifier {
    /// Ranks an embedded shot against the gallery of this generation.
    pub fn identify(
        &mut self,
        shot: &Shot,
        embedding: Embedding,
        gallery: &impl Gallery,
        generation: u64,
    ) -> Identified {
        let ranked = gallery.candidates(&embedding);
        let anchors = gallery.anchors(&embedding, &ranked);
        self.last.retain(|_, (_, at)| shot.captured_at.since(*at) < FORGET_AFTER);
        let key = (Arc::clone(&shot.camera), shot.track);
        let same_face =
            self.last.get(&key).is_none_or(|(before, _)| before.similarity(&embedding) >= Similarity::new(SAME_FACE));
        self.last.insert(key, (embedding.clone(), shot.captured_at));
        Identified {
            track: shot.track,
            shot_at: shot.captured_at,
            quality: shot.quality,
            height_px: shot.height_px,
            generation,
            n_templates: gallery.len(),
            ranked,
            embedding: Arc::new(embedding),
            anchors,
            same_face,
        }
    }
}

/// What the identify thread owns.
pub struct Identify {
    /// Shots of all cameras.
    pub shots: crossbeam_channel::Receiver<Shot>,
    /// The doors of each camera.
    pub doors: HashMap<Arc<str>, Vec<mpsc::Sender<DoorInput>>>,
    /// The gallery that is current.
    pub roster: Arc<ArcSwap<Roster>>,
    /// Turns of the loop, for the watchdog.
    pub turns: Arc<AtomicU64>,
}

/// Embeds and searches until `stop`.
pub fn run(identify: &Identify, embedder: &impl Embedder, stop: &CancellationToken) {
    let mut identifier = Identifier::default();
    while !stop.is_cancelled() {
        identify.turns.fetch_add(1, Ordering::Relaxed);
        // The timeout is only the longest time that a stop goes unnoticed.
        let shot = match identify.shots.recv_timeout(Duration::from_millis(100)) {
            Ok(shot) => shot,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let input = match embedder.embed(&shot.image, &shot.points) {
            Ok(embedding) => {
                let roster = identify.roster.load();
                DoorInput::Identified(identifier.identify(&shot, embedding, roster.snapshot(), roster.generation()))
            }
            Err(error) => {
                tracing::warn!(event = "model_failed", camera = %shot.camera, track = shot.track.0, error = chain(&error), "a shot could not be embedded");
                DoorInput::EmbedderFailed { track: shot.track }
            }
        };
        for door in identify.doors.get(&shot.camera).into_iter().flatten() {
            // An error means that the door has stopped: the agent is on its way out.
            let _ = door.blocking_send(input.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use face_core::{DIM, FivePoints, PersonId, Point, RgbImage, TemplateId};
    use face_index::{Engine, Snapshot};
    use uuid::Uuid;

    use super::*;

    fn towards(axis: usize) -> Embedding {
        let mut raw = [0.0; DIM];
        raw[axis] = 1.0;
        Embedding::from_raw(raw).unwrap()
    }

    fn shot(track: u64, at_ms: u64) -> Shot {
        Shot {
            camera: "front".into(),
            track: TrackId(track),
            image: RgbImage::from_vec(1, 1, vec![0; 3]).unwrap(),
            points: FivePoints([Point::default(); 5]),
            height_px: 120.0,
            quality: 0.8,
            captured_at: MonoTime::from_millis(at_ms),
        }
    }

    fn gallery() -> Snapshot {
        let rows = vec![
            (PersonId(Uuid::from_u128(1)), TemplateId(Uuid::from_u128(11)), towards(0)),
            (PersonId(Uuid::from_u128(2)), TemplateId(Uuid::from_u128(12)), towards(1)),
        ];
        Snapshot::build(rows, Engine::Auto).unwrap()
    }

    #[test]
    fn the_nearest_person_and_the_rival_are_among_the_rows() {
        let found = Identifier::default().identify(&shot(1, 0), towards(1), &gallery(), 1);
        assert_eq!(found.ranked[0].person, PersonId(Uuid::from_u128(2)));
        assert_eq!(found.ranked.len(), 2);
        assert!(found.same_face);
        assert_eq!((found.generation, found.n_templates, found.height_px), (1, 2, 120.0));
    }

    #[test]
    fn another_face_on_the_same_track_is_noticed() {
        let mut identifier = Identifier::default();
        assert!(identifier.identify(&shot(1, 0), towards(0), &gallery(), 1).same_face);
        assert!(identifier.identify(&shot(1, 500), towards(0), &gallery(), 1).same_face);
        assert!(!identifier.identify(&shot(1, 900), towards(1), &gallery(), 1).same_face);
        assert!(
            identifier.identify(&shot(2, 950), towards(5), &gallery(), 1).same_face,
            "another track is another face"
        );
    }
}

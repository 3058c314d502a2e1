//! One camera's faces over time. The core of perceiving: models, time and frames are arguments.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use face_core::liveness::{Demand, Findings, LivenessEvidence, LivenessPolicy, judge};
use face_core::quality::QualityGate;
use face_core::track::{Track, TrackPolicy, Tracker};
use face_core::{Detection, Frame, ModelError, MonoTime, PixelRect, TrackId};

use super::face::{FaceMemory, examine};
use super::repeat::Repetition;
use super::{Attention, FaceModels, Percept, Shot};

/// Faces examined in one frame, the largest first: those nearest to the door. Each costs about 20 ms of one core.
const MAX_EXAMINED: usize = 3;

/// A face that has been alive for this long is settled: the door has had its answer ten times over.
const SETTLES_AFTER: Duration = Duration::from_secs(1);
/// Overlap of a face's boxes in two looks below which it moves. A head that turns or nods keeps above 0.7.
const STANDS_STILL: f32 = 0.6;

/// Since when a face has been alive and in its place.
#[derive(Clone, Copy)]
struct Calm {
    rect: PixelRect,
    since: MonoTime,
    newest: MonoTime,
}

/// What is remembered of one camera.
pub struct Perceiver {
    camera: Arc<str>,
    gate: QualityGate,
    liveness: LivenessPolicy,
    demands: Vec<Demand>,
    tracker: Tracker,
    faces: HashMap<TrackId, FaceMemory>,
    calm: HashMap<TrackId, Calm>,
    repetition: Repetition,
}

impl Perceiver {
    /// For the camera of this id. `gate` says which frames may be recognised by.
    #[must_use]
    pub fn new(camera: Arc<str>, gate: QualityGate, liveness: LivenessPolicy) -> Self {
        let tracker = Tracker::new(TrackPolicy::default());
        Self {
            camera,
            gate,
            liveness,
            demands: vec![Demand::standard()],
            tracker,
            faces: HashMap::new(),
            calm: HashMap::new(),
            repetition: Repetition::default(),
        }
    }

    /// For the doors with these demands: a face is alive, and may be looked at less often, when it is to all of them.
    /// Without this it is the demand that doors have by default.
    #[must_use]
    pub fn serving(self, demands: Vec<Demand>) -> Self {
        Self { demands, ..self }
    }

    /// How closely the next frames must be looked at.
    #[must_use]
    pub fn attention(&self) -> Attention {
        let settled =
            |track: &Track| self.calm.get(&track.id).is_some_and(|calm| calm.newest.since(calm.since) >= SETTLES_AFTER);
        match self.tracker.tracks() {
            [] => Attention::Nobody,
            tracks if tracks.iter().all(settled) => Attention::Settled,
            _ => Attention::Undecided,
        }
    }

    /// The faces that are tracked.
    #[must_use]
    pub fn tracks(&self) -> &[Track] {
        self.tracker.tracks()
    }

    /// The newest evidence about a face that is tracked, for measuring.
    #[must_use]
    pub fn evidence(&self, track: TrackId) -> Option<&LivenessEvidence> {
        self.faces.get(&track)?.newest_evidence()
    }

    /// Looks at one frame. A frame that only repeats the one before is no evidence of anything: it counts as none.
    ///
    /// # Errors
    /// When the detector cannot answer. A model that fails on one face is reported with that face instead.
    pub fn look(&mut self, models: &impl FaceModels, frame: &Frame) -> Result<Vec<Percept>, ModelError> {
        if self.repetition.is_repeat(&frame.image) {
            return Ok(self.expire(frame.captured_at));
        }
        let detections = models.detect(&frame.image)?;
        let update = self.tracker.update(frame.captured_at, &detections);
        let mut percepts = Vec::new();
        for track in &update.ended {
            percepts.push(self.leave(track.id));
        }
        for track in update.started {
            self.faces.insert(track, FaceMemory::new(self.liveness));
            percepts.push(Percept::Appeared { track, at: frame.captured_at });
        }
        let mut seen: Vec<(TrackId, &Detection)> = update
            .assigned
            .iter()
            .zip(&detections)
            .filter_map(|(track, detection)| track.map(|track| (track, detection)))
            .collect();
        seen.sort_by(|a, b| b.1.rect.area().total_cmp(&a.1.rect.area()));
        for (track, detection) in seen.into_iter().take(MAX_EXAMINED) {
            self.face(models, frame, track, detection, &mut percepts);
        }
        Ok(percepts)
    }

    /// Ends the tracks that were not seen for too long, when no frame comes.
    pub fn expire(&mut self, now: MonoTime) -> Vec<Percept> {
        let ended = self.tracker.expire(now);
        ended.into_iter().map(|track| self.leave(track.id)).collect()
    }

    /// Forgets every face: the camera stalled or was opened anew, and what it shows next may be anybody.
    pub fn interrupted(&mut self) -> Vec<Percept> {
        self.repetition = Repetition::default();
        let ended = self.tracker.end_all();
        ended.into_iter().map(|track| self.leave(track.id)).collect()
    }

    fn leave(&mut self, track: TrackId) -> Percept {
        self.faces.remove(&track);
        self.calm.remove(&track);
        Percept::Left { track }
    }

    /// Notes that a living face was seen, and whether it stands where it stood.
    fn keep_calm(&mut self, seen: &Track) {
        let now = seen.last_seen;
        let before = self.calm.get(&seen.id).filter(|calm| calm.rect.iou(&seen.rect) >= STANDS_STILL);
        let since = before.map_or(now, |calm| calm.since);
        self.calm.insert(seen.id, Calm { rect: seen.rect, since, newest: now });
    }

    fn face(
        &mut self,
        models: &impl FaceModels,
        frame: &Frame,
        track: TrackId,
        detection: &Detection,
        percepts: &mut Vec<Percept>,
    ) {
        let Some(seen) = self.tracker.tracks().iter().find(|seen| seen.id == track).copied() else { return };
        let memory = self.faces.entry(track).or_insert_with(|| FaceMemory::new(self.liveness));
        let examined = match examine(models, frame, detection, &self.gate, &self.liveness) {
            Ok(examined) => examined,
            Err(error) => {
                let error = crate::logging::chain(&error);
                tracing::warn!(event = "model_failed", camera = %self.camera, track = track.0, error, "a face could not be examined");
                percepts.push(Percept::Face(memory.unanswered(&seen)));
                return;
            }
        };
        let (report, wanted) = memory.take(&seen, &examined);
        if alive_to_all(&self.demands, &report.liveness) {
            self.keep_calm(&seen);
        } else {
            self.calm.remove(&track);
        }
        percepts.push(Percept::Face(report));
        if wanted {
            percepts.push(Percept::Shot(Shot {
                camera: Arc::clone(&self.camera),
                track,
                image: frame.image.clone(),
                points: examined.points,
                height_px: detection.rect.height(),
                quality: examined.quality,
                captured_at: frame.captured_at,
            }));
        }
    }
}

fn alive_to_all(demands: &[Demand], findings: &Findings) -> bool {
    demands.iter().all(|demand| judge(findings, demand).is_live())
}

#[cfg(test)]
mod tests;

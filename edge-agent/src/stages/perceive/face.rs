//! What perceiving remembers of one face: its liveness window and its last shot.
//!
//! In: one examined frame at a time. Out: a [`FaceReport`] and, when it is due, that the frame is worth an embedding.

use std::time::Duration;

use face_core::align::Alignment;
use face_core::liveness::{Appearance, LivenessEvidence, LivenessPolicy, LivenessWindow};
use face_core::quality::{Quality, QualityGate, QualityInput, QualityReason};
use face_core::sample::aligned_grey;
use face_core::track::{BestShots, Shot, Track};
use face_core::{Detection, FivePoints, Frame, HeadPose, ModelError, MonoTime};

use super::{FaceModels, FaceReport};

/// A shot this old is replaced even by one of equal quality: the door takes best shots of at most 3 s, and a change of
/// the person behind a track must be noticed soon.
const REFRESH: Duration = Duration::from_millis(1_000);
/// A better shot must be clearly better, or noise in the quality would cause an embedding a frame.
const CLEARLY_BETTER: f32 = 1.15;
/// Someone who walks up gets better each frame; this much time between embeddings bounds what that costs.
const SHOT_GAP: Duration = Duration::from_millis(160);
/// Shots remembered: more than are embedded within [`SHOT_AGE`], at the pace of a walk-up.
const MAX_SHOTS: usize = 16;
/// How old a best shot may be at the relay call (protocol.md): an older one can let nobody in.
const SHOT_AGE: Duration = Duration::from_secs(3);

/// One frame's measurements of one face.
pub(super) struct Examined {
    pub(super) points: FivePoints,
    pub(super) quality: f32,
    pub(super) reasons: Vec<QualityReason>,
    evidence: LivenessEvidence,
}

/// Measures one detected face. The passive liveness model runs on frontal frames only: others do not count.
pub(super) fn examine(
    models: &impl FaceModels,
    frame: &Frame,
    detection: &Detection,
    gate: &QualityGate,
    liveness: &LivenessPolicy,
) -> Result<Examined, ModelError> {
    let (image, face) = (&frame.image, &detection.rect);
    let points = models.landmarks(image, face)?.five_points();
    let alignment = Alignment::fit(&points).map_err(|error| ModelError::new("alignment", error))?;
    let aligned = aligned_grey(image, &alignment);
    let pose: HeadPose = models.pose(image, face)?;
    let quality = Quality::measure(&QualityInput {
        aligned: &aligned,
        face,
        picture: (image.width(), image.height()),
        pose: Some(pose),
    });
    let frontal = pose.frontal_deviation_deg() <= liveness.max_frontal_deviation_deg;
    let passive = if frontal { Some(models.live_score(image, face)?) } else { None };
    let appearance = Appearance::of(&aligned);
    let evidence = LivenessEvidence { captured_at: frame.captured_at, pose: Some(pose), passive, appearance };
    Ok(Examined { points, quality: quality.overall(), reasons: gate.reasons(&quality), evidence })
}

/// The memory of one track.
pub(super) struct FaceMemory {
    window: LivenessWindow,
    shots: BestShots,
}

impl FaceMemory {
    pub(super) fn new(liveness: LivenessPolicy) -> Self {
        Self { window: LivenessWindow::new(liveness), shots: BestShots::new(MAX_SHOTS, SHOT_AGE) }
    }

    /// Takes a frame in, the newest of `track`. The flag says whether it is worth an embedding.
    pub(super) fn take(&mut self, track: &Track, examined: &Examined) -> (FaceReport, bool) {
        let captured_at = track.last_seen;
        // What is too poor to be recognised proves no life either: a covered face must not vouch for the picture that is
        // shown next.
        if examined.reasons.is_empty() {
            self.window.push(examined.evidence.clone());
        }
        self.shots.expire(captured_at);
        let wanted = examined.reasons.is_empty()
            && self.wants_shot(examined.quality, captured_at)
            && self.shots.offer(Shot { quality: examined.quality, captured_at }, captured_at).is_some();
        (self.report(track, examined.reasons.clone(), true), wanted)
    }

    /// The report of a frame for which a model did not answer.
    pub(super) fn unanswered(&self, track: &Track) -> FaceReport {
        self.report(track, Vec::new(), false)
    }

    fn report(&self, track: &Track, reasons: Vec<QualityReason>, models_answered: bool) -> FaceReport {
        FaceReport {
            track: track.id,
            captured_at: track.last_seen,
            first_seen: track.first_seen,
            height_px: track.rect.height(),
            liveness: self.window.verdict(),
            liveness_at: self.window.newest_at(),
            vouched_shots: self.vouched_shots(),
            reasons,
            models_answered,
        }
    }

    fn vouched_shots(&self) -> Vec<MonoTime> {
        let taken = self.shots.shots().iter().map(|shot| shot.captured_at);
        taken.filter(|at| self.window.vouches_for(*at)).collect()
    }

    fn wants_shot(&self, quality: f32, at: MonoTime) -> bool {
        let shots = self.shots.shots();
        let (Some(best), Some(newest)) = (shots.first(), shots.iter().map(|shot| shot.captured_at).max()) else {
            return true;
        };
        let age = at.since(newest);
        age >= REFRESH || (age >= SHOT_GAP && quality > best.quality * CLEARLY_BETTER)
    }
}

//! What perceiving remembers of one face: its liveness window and its last shot.
//!
//! In: one examined frame at a time. Out: a [`FaceReport`] and, when it is due, that the frame is worth an embedding.

use std::time::Duration;

use face_core::align::Alignment;
use face_core::liveness::{
    Appearance, ChallengeLook, EyeLook, FaceShape, LivenessEvidence, LivenessPolicy, LivenessWindow, digest, glow,
    texture,
};
use face_core::quality::{Quality, QualityGate, QualityInput, QualityReason};
use face_core::sample::aligned_grey;
use face_core::track::{BestShots, Shot, Track};
use face_core::{Detection, FivePoints, Frame, HeadPose, Landmarks68, ModelError, MonoTime, PixelRect, RgbImage};

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

/// Distance from the picture's edge, in face heights, within which a face is not compared.
const EDGE_MARGIN: f32 = 0.05;

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
    let landmarks = models.landmarks(image, face)?;
    let points = landmarks.five_points();
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
    let passive = if frontal { Some(models.live_scores(image, face)?) } else { None };
    let evidence = LivenessEvidence {
        pose: Some(pose),
        passive,
        appearance: if well_inside(face, image) { Appearance::of(&aligned) } else { None },
        shape: FaceShape::of(&landmarks),
        eyes: eyes(models, image, &landmarks),
        glow: glow(&aligned, image),
        texture: texture::not_uniform(&aligned),
        face_digest: digest(image, face),
        // No camera that capture can open gives a depth or an infrared plane.
        ..LivenessEvidence::at(frame.captured_at)
    };
    Ok(Examined { points, quality: quality.overall(), reasons: gate.reasons(&quality), evidence })
}

/// Whether the face is whole and some way from the picture's edge, which moves against a face that moves.
fn well_inside(face: &PixelRect, image: &RgbImage) -> bool {
    let margin = EDGE_MARGIN * face.height();
    face.x() >= margin
        && face.y() >= margin
        && face.right() + margin <= image.width() as f32
        && face.bottom() + margin <= image.height() as f32
}

/// Both eyes. An eye outside the picture is no fault of the model: nothing was seen of it.
fn eyes(models: &impl FaceModels, image: &RgbImage, landmarks: &Landmarks68) -> Option<EyeLook> {
    let state = models.eyes(image, landmarks).ok()?;
    let closed = state.left_closed.min(state.right_closed);
    Some(EyeLook { aspect_ratio: landmarks.eye_aspect_ratio(), closed })
}

/// The memory of one track.
pub(super) struct FaceMemory {
    window: LivenessWindow,
    newest: Option<LivenessEvidence>,
    shots: BestShots,
}

impl FaceMemory {
    pub(super) fn new(liveness: LivenessPolicy) -> Self {
        Self { window: LivenessWindow::new(liveness), newest: None, shots: BestShots::new(MAX_SHOTS, SHOT_AGE) }
    }

    /// The newest evidence that counted.
    pub(super) fn newest_evidence(&self) -> Option<&LivenessEvidence> {
        self.newest.as_ref()
    }

    /// Takes a frame in, the newest of `track`. The flag says whether it is worth an embedding.
    pub(super) fn take(&mut self, track: &Track, examined: &Examined) -> (FaceReport, bool) {
        let captured_at = track.last_seen;
        // What is too poor to be recognised proves no life either: a covered face must not vouch for the picture that is
        // shown next.
        if examined.reasons.is_empty() {
            self.window.push(examined.evidence.clone());
            self.newest = Some(examined.evidence.clone());
        }
        self.shots.expire(captured_at);
        let wanted = examined.reasons.is_empty()
            && self.wants_shot(examined.quality, captured_at)
            && self.shots.offer(Shot { quality: examined.quality, captured_at }, captured_at).is_some();
        let mut report = self.report(track, examined.reasons.clone(), true);
        report.look = self.look(captured_at, examined);
        (report, wanted)
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
            liveness: self.window.findings(),
            liveness_at: self.window.newest_at(),
            vouched_shots: self.shots_that(|at| self.window.vouches_for(at)),
            doubtful_shots: self.shots_that(|at| self.window.doubts(at)),
            look: None,
            reasons,
            models_answered,
        }
    }

    fn shots_that(&self, speak: impl Fn(MonoTime) -> bool) -> Vec<MonoTime> {
        let taken = self.shots.shots().iter().map(|shot| shot.captured_at);
        taken.filter(|at| speak(*at)).collect()
    }

    /// Turned and blurred is what a head becomes that moves as it was asked to; a covered one shows nothing.
    fn look(&self, captured_at: MonoTime, examined: &Examined) -> Option<ChallengeLook> {
        let by_movement = |reason: &QualityReason| matches!(reason, QualityReason::Turned | QualityReason::Blurred);
        if !examined.reasons.iter().all(by_movement) {
            return None;
        }
        let blinked = self.window.newest_at() == Some(captured_at) && self.window.blinked_just_now();
        Some(ChallengeLook { captured_at, pose: examined.evidence.pose, blinked })
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

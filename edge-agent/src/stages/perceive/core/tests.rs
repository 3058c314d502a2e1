use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use face_core::align::ARCFACE_TEMPLATE;
use face_core::liveness::{Demand, LivenessVerdict, judge};
use face_core::{
    Detector, EyeModel, EyeState, HeadPose, LandmarkModel, Landmarks68, LivenessModel, PassiveScores, PixelRect, Point,
    PoseModel, RgbImage,
};
use parking_lot::Mutex;

use super::*;
use crate::stages::perceive::FaceReport;

/// Models that see what the test says: these boxes, always frontal, always this much alive.
#[derive(Default)]
struct Fakes {
    boxes: Mutex<Vec<PixelRect>>,
    pose_fails: AtomicBool,
    detections: AtomicUsize,
}

impl Fakes {
    fn show(&self, boxes: &[(f32, f32, f32)]) {
        *self.boxes.lock() = boxes.iter().map(|(x, y, side)| PixelRect::new(*x, *y, *side, *side).unwrap()).collect();
    }
}

impl Detector for Fakes {
    fn detect(&self, _: &RgbImage) -> Result<Vec<Detection>, ModelError> {
        self.detections.fetch_add(1, Ordering::Relaxed);
        Ok(self.boxes.lock().iter().map(|rect| Detection { rect: *rect, score: 0.99 }).collect())
    }
}

impl LandmarkModel for Fakes {
    fn landmarks(&self, _: &RgbImage, face: &PixelRect) -> Result<Landmarks68, ModelError> {
        let at = |index: usize| {
            let point = ARCFACE_TEMPLATE[index];
            Point::new(face.x() + point.x / 112.0 * face.width(), face.y() + point.y / 112.0 * face.height())
        };
        let mut points = [at(2); 68];
        for (index, of) in [(37, 0), (38, 0), (40, 0), (41, 0), (43, 1), (44, 1), (46, 1), (47, 1)] {
            points[index] = at(of);
        }
        for (index, of) in [(48, 3), (60, 3), (54, 4), (64, 4)] {
            points[index] = at(of);
        }
        Ok(Landmarks68::new(points).unwrap())
    }
}

impl PoseModel for Fakes {
    fn pose(&self, _: &RgbImage, _: &PixelRect) -> Result<HeadPose, ModelError> {
        if self.pose_fails.load(Ordering::Relaxed) {
            return Err(ModelError::new("pose", "the session is gone"));
        }
        Ok(HeadPose { yaw_deg: 0.0, pitch_deg: face_core::pose::FRONTAL_PITCH_DEG, roll_deg: 0.0 })
    }
}

impl LivenessModel for Fakes {
    fn live_scores(&self, _: &RgbImage, _: &PixelRect) -> Result<PassiveScores, ModelError> {
        Ok(PassiveScores { boxed: 0.95, square: 0.95 })
    }
}

impl EyeModel for Fakes {
    fn eyes(&self, _: &RgbImage, _: &Landmarks68) -> Result<EyeState, ModelError> {
        Ok(EyeState { left_closed: 0.1, right_closed: 0.1 })
    }
}

/// A picture with texture; each seed gives another one.
fn picture(seed: u64) -> RgbImage {
    let mut state = seed * 2 + 1;
    let pixels = (0..320 * 240 * 3)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect();
    RgbImage::from_vec(320, 240, pixels).unwrap()
}

fn frame(sequence: u64, at_ms: u64) -> Frame {
    Frame { image: picture(sequence), captured_at: MonoTime::from_millis(at_ms), sequence }
}

fn open_gate() -> QualityGate {
    QualityGate { min_face_height_px: 0.0, min_sharpness: 0.0, min_brightness: 0.0, min_pose: 0.0, min_visibility: 0.0 }
}

fn perceiver() -> Perceiver {
    Perceiver::new("front".into(), open_gate(), LivenessPolicy::default())
}

fn reports(percepts: &[Percept]) -> Vec<&FaceReport> {
    percepts
        .iter()
        .filter_map(|percept| if let Percept::Face(report) = percept { Some(report) } else { None })
        .collect()
}

fn shots(percepts: &[Percept]) -> usize {
    percepts.iter().filter(|percept| matches!(percept, Percept::Shot(_))).count()
}

#[test]
fn a_face_appears_is_reported_and_leaves() {
    let (models, mut perceiver) = (Fakes::default(), perceiver());
    assert!(perceiver.look(&models, &frame(1, 0)).unwrap().is_empty());
    models.show(&[(100.0, 60.0, 80.0)]);
    let first = perceiver.look(&models, &frame(2, 200)).unwrap();
    assert!(matches!(first[0], Percept::Appeared { at, .. } if at == MonoTime::from_millis(200)), "{first:?}");
    assert_eq!(reports(&first)[0].first_seen, MonoTime::from_millis(200));
    assert_eq!(shots(&first), 1, "the first good frame is worth an embedding");
    assert_ne!(perceiver.attention(), Attention::Nobody);
    models.show(&[]);
    perceiver.look(&models, &frame(3, 400)).unwrap();
    let gone = perceiver.expire(MonoTime::from_millis(2_000));
    assert!(matches!(gone[..], [Percept::Left { .. }]), "{gone:?}");
    assert_eq!(perceiver.attention(), Attention::Nobody);
}

#[test]
fn an_embedding_is_asked_for_a_few_times_not_for_every_frame() {
    let (models, mut perceiver) = (Fakes::default(), perceiver());
    models.show(&[(100.0, 60.0, 80.0)]);
    let mut asked = 0;
    for n in 0..38 {
        asked += shots(&perceiver.look(&models, &frame(n, n * 80)).unwrap());
    }
    assert!((3..=8).contains(&asked), "{asked} embeddings in three seconds");
}

#[test]
fn a_living_face_is_found_alive_and_its_shots_are_vouched_for() {
    let (models, mut perceiver) = (Fakes::default(), perceiver());
    let mut last = None;
    for n in 0..40 {
        // The picture is noise, so the aligned face changes as a living one's does, only more.
        models.show(&[(100.0 + (n % 5) as f32, 60.0, 80.0)]);
        let percepts = perceiver.look(&models, &frame(n, n * 80)).unwrap();
        last = reports(&percepts).first().map(|report| (*report).clone());
    }
    let report = last.unwrap();
    assert!(judge(&report.liveness, &Demand::standard()).is_live(), "{:?}", report.liveness);
    assert!(!report.vouched_shots.is_empty());
    assert_eq!(report.liveness_at, Some(report.captured_at));
}

/// Looks at a living face for so many looks, 80 ms apart; `at` says where it stands.
fn live_face(models: &Fakes, perceiver: &mut Perceiver, looks: std::ops::Range<u64>, at: impl Fn(u64) -> f32) {
    for n in looks {
        models.show(&[(at(n), 60.0, 80.0)]);
        perceiver.look(models, &frame(n, n * 80)).unwrap();
    }
}

#[test]
fn a_face_is_settled_a_second_after_it_was_found_alive_and_no_sooner() {
    let (models, mut perceiver) = (Fakes::default(), perceiver());
    assert_eq!(perceiver.attention(), Attention::Nobody);
    let mut alive_since = None;
    for n in 0..60 {
        models.show(&[(100.0 + (n % 5) as f32, 60.0, 80.0)]);
        let percepts = perceiver.look(&models, &frame(n, n * 80)).unwrap();
        if alive_to_all(&[Demand::standard()], &reports(&percepts)[0].liveness) {
            alive_since.get_or_insert(n * 80);
        }
        let settled = alive_since.is_some_and(|since| n * 80 - since >= 1_000);
        let expected = if settled { Attention::Settled } else { Attention::Undecided };
        assert_eq!(perceiver.attention(), expected, "at {} ms, alive since {alive_since:?}", n * 80);
    }
    assert!(alive_since.is_some());
}

#[test]
fn whoever_moves_or_comes_is_looked_at_closely_again() {
    let (models, mut perceiver) = (Fakes::default(), perceiver());
    live_face(&models, &mut perceiver, 0..60, |n| 100.0 + (n % 5) as f32);
    assert_eq!(perceiver.attention(), Attention::Settled);
    live_face(&models, &mut perceiver, 60..62, |n| 100.0 + (n - 59) as f32 * 30.0);
    assert_eq!(perceiver.attention(), Attention::Undecided, "it moved");
    live_face(&models, &mut perceiver, 62..100, |n| 160.0 + (n % 5) as f32);
    assert_eq!(perceiver.attention(), Attention::Settled);
    models.show(&[(160.0, 60.0, 80.0), (20.0, 60.0, 80.0)]);
    perceiver.look(&models, &frame(100, 8_000)).unwrap();
    assert_eq!(perceiver.attention(), Attention::Undecided, "somebody came");
}

#[test]
fn a_frozen_picture_is_no_evidence_and_the_face_leaves() {
    let (models, mut perceiver) = (Fakes::default(), perceiver());
    models.show(&[(100.0, 60.0, 80.0)]);
    perceiver.look(&models, &frame(1, 0)).unwrap();
    let looked = models.detections.load(Ordering::Relaxed);
    let mut left = false;
    for n in 1..30 {
        let frozen = Frame { image: picture(1), captured_at: MonoTime::from_millis(n * 80), sequence: n };
        let percepts = perceiver.look(&models, &frozen).unwrap();
        assert!(reports(&percepts).is_empty(), "a repeated frame was taken for evidence");
        left |= percepts.iter().any(|percept| matches!(percept, Percept::Left { .. }));
    }
    assert!(left);
    assert_eq!(models.detections.load(Ordering::Relaxed), looked);
}

#[test]
fn a_model_that_fails_on_a_face_is_told_with_that_face() {
    let (models, mut perceiver) = (Fakes::default(), perceiver());
    models.show(&[(100.0, 60.0, 80.0)]);
    models.pose_fails.store(true, Ordering::Relaxed);
    let percepts = perceiver.look(&models, &frame(1, 0)).unwrap();
    assert!(!reports(&percepts)[0].models_answered);
    assert_eq!(shots(&percepts), 0);
}

#[test]
fn a_frame_that_does_not_pass_the_gate_is_never_embedded() {
    let gate = QualityGate { min_face_height_px: 100.0, ..open_gate() };
    let (models, mut perceiver) = (Fakes::default(), Perceiver::new("front".into(), gate, LivenessPolicy::default()));
    models.show(&[(100.0, 60.0, 80.0)]);
    for n in 0..20 {
        let percepts = perceiver.look(&models, &frame(n, n * 80)).unwrap();
        assert_eq!(shots(&percepts), 0);
        assert!(!reports(&percepts)[0].reasons.is_empty());
    }
}

#[test]
fn poor_frames_are_no_evidence_of_life() {
    let gate = QualityGate { min_face_height_px: 100.0, ..open_gate() };
    let (models, mut perceiver) = (Fakes::default(), Perceiver::new("front".into(), gate, LivenessPolicy::default()));
    for n in 0..40 {
        models.show(&[(100.0 + (n % 5) as f32, 60.0, 80.0)]);
        let percepts = perceiver.look(&models, &frame(n, n * 80)).unwrap();
        let report = reports(&percepts)[0];
        assert_eq!(report.liveness_at, None);
        let verdict = judge(&report.liveness, &Demand::standard());
        assert_eq!(verdict, LivenessVerdict::Collecting { frontal_frames: 0 });
    }
}

#[test]
fn after_an_interruption_a_face_in_the_same_place_is_another_face() {
    let (models, mut perceiver) = (Fakes::default(), perceiver());
    let mut report = None;
    for n in 0..40 {
        models.show(&[(100.0 + (n % 5) as f32, 60.0, 80.0)]);
        let percepts = perceiver.look(&models, &frame(n, n * 80)).unwrap();
        report = reports(&percepts).first().map(|report| (*report).clone());
    }
    let before = report.unwrap();
    assert!(judge(&before.liveness, &Demand::standard()).is_live());
    let gone = perceiver.interrupted();
    assert!(matches!(gone[..], [Percept::Left { track }] if track == before.track), "{gone:?}");
    // Sooner than a track would have been lost.
    let percepts = perceiver.look(&models, &frame(40, 40 * 80)).unwrap();
    let after = reports(&percepts)[0];
    assert_ne!(after.track, before.track);
    assert!(
        !judge(&after.liveness, &Demand::standard()).is_live() && after.first_seen == after.captured_at,
        "{after:?}"
    );
}

#[test]
fn in_a_crowd_the_nearest_faces_are_examined() {
    let (models, mut perceiver) = (Fakes::default(), perceiver());
    models.show(&[(0.0, 0.0, 30.0), (40.0, 0.0, 50.0), (100.0, 0.0, 60.0), (170.0, 0.0, 70.0), (250.0, 0.0, 40.0)]);
    let percepts = perceiver.look(&models, &frame(1, Duration::ZERO.as_secs())).unwrap();
    assert_eq!(reports(&percepts).len(), MAX_EXAMINED);
}

#[test]
fn a_face_that_one_of_its_doors_doubts_is_never_settled() {
    let models = Fakes::default();
    let mut perceiver = perceiver().serving(vec![Demand::standard(), Demand::strict()]);
    live_face(&models, &mut perceiver, 0..60, |n| 100.0 + (n % 5) as f32);
    // It changes as living faces do, but neither blinks nor turns.
    assert_eq!(perceiver.attention(), Attention::Undecided);
}

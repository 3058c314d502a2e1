//! From the detector's tensors to faces in the picture: decoding, suppression of doubles, and when to look twice.
//!
//! In: `scores` 1×4420×2 and `boxes` 1×4420×4 of the RFB-320 detector (boxes already decoded, corners relative to
//! the 320 × 240 plane) and the [`Letterbox`] that filled it. Out: [`Detection`]s in pixels of the picture.
//! Deliberately absent: the model call itself (`face-runtime`).

use crate::geometry::PixelRect;

/// Width of the detector's input plane in pixels.
pub const PLANE_WIDTH_PX: u32 = 320;

/// Height of the detector's input plane in pixels.
pub const PLANE_HEIGHT_PX: u32 = 240;

/// Candidate boxes of one pass.
pub const CANDIDATES: usize = 4420;

/// How much of the plane the second pass fills.
///
/// The first pass misses 13 % of faces 1.4 times as high as the frame; at half the scale, padded all round, none.
pub const SECOND_PASS_FILL: f32 = 0.5;

/// A face in a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detection {
    /// The face's box in pixels of the picture; it may protrude beyond the picture's edge.
    pub rect: PixelRect,
    /// The detector's confidence in [0, 1].
    pub score: f32,
}

/// What counts as a face, and how many of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DetectPolicy {
    /// The lowest confidence that counts; 0.65 was measured to work with this detector.
    pub score_threshold: f32,
    /// Two boxes that overlap by more than this IoU are one face.
    pub nms_iou: f32,
    /// At most this many faces are kept, best first: a bound on the work that one picture can cause.
    pub max_faces: usize,
}

impl Default for DetectPolicy {
    /// Score 0.65 and IoU 0.4 as measured for the pack; 32 faces are more than fit before a door.
    fn default() -> Self {
        Self { score_threshold: 0.65, nms_iou: 0.4, max_faces: 32 }
    }
}

/// Why the detector's output cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DetectError {
    /// The two outputs do not describe the same number of candidates.
    #[error("detector output has {scores} scores and {boxes} box numbers, two and four per candidate are expected")]
    Length {
        /// Numbers in `scores`.
        scores: usize,
        /// Numbers in `boxes`.
        boxes: usize,
    },
    /// NaN or infinity, which must not pass as "no face".
    #[error("detector output of candidate {candidate} is not finite")]
    NotFinite {
        /// Which candidate.
        candidate: usize,
    },
}

/// How a picture lies on a model's input plane: uniformly scaled, centred, padded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Letterbox {
    /// Size of the picture in pixels.
    pub picture: (u32, u32),
    /// Size of the plane in pixels.
    pub plane: (u32, u32),
    /// Left edge of the scaled picture on the plane, in whole pixels.
    pub left: u32,
    /// Top edge of the scaled picture on the plane, in whole pixels.
    pub top: u32,
    /// Width of the scaled picture, in whole pixels, at least 1.
    pub width: u32,
    /// Height of the scaled picture, in whole pixels, at least 1.
    pub height: u32,
}

impl Letterbox {
    /// Lays a picture on a plane so that its tighter side takes `fill` (in (0, 1]) of the plane.
    ///
    /// # Panics
    /// When a size is zero or `fill` is outside (0, 1]; both are written in code, never read from outside.
    #[must_use]
    pub fn new(picture: (u32, u32), plane: (u32, u32), fill: f32) -> Self {
        assert!(picture.0 > 0 && picture.1 > 0 && plane.0 > 0 && plane.1 > 0, "letterbox of an empty picture or plane");
        assert!(fill > 0.0 && fill <= 1.0, "letterbox fill {fill} outside (0, 1]");
        let scale = (plane.0 as f32 / picture.0 as f32).min(plane.1 as f32 / picture.1 as f32) * fill;
        let width = ((picture.0 as f32 * scale).round() as u32).clamp(1, plane.0);
        let height = ((picture.1 as f32 * scale).round() as u32).clamp(1, plane.1);
        Self { picture, plane, left: (plane.0 - width) / 2, top: (plane.1 - height) / 2, width, height }
    }

    /// The detector's first look at a picture: as large as the plane allows.
    #[must_use]
    pub fn first_pass(picture: (u32, u32)) -> Self {
        Self::new(picture, (PLANE_WIDTH_PX, PLANE_HEIGHT_PX), 1.0)
    }

    /// The detector's second look, for faces that overfill the picture: half as large, padded all round.
    #[must_use]
    pub fn second_pass(picture: (u32, u32)) -> Self {
        Self::new(picture, (PLANE_WIDTH_PX, PLANE_HEIGHT_PX), SECOND_PASS_FILL)
    }

    /// A box relative to the plane (0 to 1) as a rectangle in the picture; `None` when it has no area.
    #[must_use]
    pub fn to_picture(&self, corners: [f32; 4]) -> Option<PixelRect> {
        let x_scale = self.picture.0 as f32 / self.width as f32;
        let y_scale = self.picture.1 as f32 / self.height as f32;
        let x = |relative: f32| (relative * self.plane.0 as f32 - self.left as f32) * x_scale;
        let y = |relative: f32| (relative * self.plane.1 as f32 - self.top as f32) * y_scale;
        PixelRect::from_corners(x(corners[0]), y(corners[1]), x(corners[2]), y(corners[3])).ok()
    }
}

/// Reads one pass: candidates over the threshold, in pixels of the picture, doubles suppressed, best first.
///
/// `scores` holds (background, face) per candidate, `boxes` holds left, top, right, bottom relative to the plane.
/// Boxes without area or wholly outside the picture are dropped.
///
/// # Errors
/// When the lengths do not match or any number is not finite.
pub fn decode(
    scores: &[f32],
    boxes: &[f32],
    letterbox: &Letterbox,
    policy: &DetectPolicy,
) -> Result<Vec<Detection>, DetectError> {
    if !scores.len().is_multiple_of(2) || scores.len() * 2 != boxes.len() {
        return Err(DetectError::Length { scores: scores.len(), boxes: boxes.len() });
    }
    let mut found = Vec::new();
    for (candidate, (score, corners)) in scores.chunks_exact(2).zip(boxes.chunks_exact(4)).enumerate() {
        if !score.iter().chain(corners).all(|value| value.is_finite()) {
            return Err(DetectError::NotFinite { candidate });
        }
        if score[1] <= policy.score_threshold {
            continue;
        }
        let rect = letterbox.to_picture([corners[0], corners[1], corners[2], corners[3]]);
        if let Some(rect) = rect.filter(|r| r.clamped_to(letterbox.picture.0, letterbox.picture.1).is_some()) {
            found.push(Detection { rect, score: score[1].min(1.0) });
        }
    }
    Ok(suppress(found, policy))
}

/// Non-maximum suppression: keeps the best of each group of boxes that overlap by more than the policy's IoU.
///
/// Idempotent; the result is sorted by score, best first, equal scores in the order given.
#[must_use]
pub fn suppress(mut candidates: Vec<Detection>, policy: &DetectPolicy) -> Vec<Detection> {
    candidates.sort_by(|first, second| second.score.total_cmp(&first.score));
    let mut kept: Vec<Detection> = Vec::new();
    for candidate in candidates {
        if kept.len() >= policy.max_faces {
            break;
        }
        if kept.iter().all(|better| better.rect.iou(&candidate.rect) <= policy.nms_iou) {
            kept.push(candidate);
        }
    }
    kept
}

/// The two-pass rule: the whole plane first; only if that finds nothing, the half-scale padded picture.
///
/// `run` fills the plane by the letterbox, calls the model and decodes. A face that overfills the frame is too large
/// for the detector's anchors; a scene with a face of ordinary size never pays for the second call.
///
/// # Errors
/// Whatever `run` returns.
pub fn two_pass<E>(
    picture: (u32, u32),
    mut run: impl FnMut(&Letterbox) -> Result<Vec<Detection>, E>,
) -> Result<Vec<Detection>, E> {
    let first = run(&Letterbox::first_pass(picture))?;
    if first.is_empty() { run(&Letterbox::second_pass(picture)) } else { Ok(first) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn detections() -> impl Strategy<Value = Vec<Detection>> {
        let one = (0.0f32..300.0, 0.0f32..200.0, 5.0f32..120.0, 5.0f32..120.0, 0.0f32..1.0)
            .prop_map(|(x, y, w, h, score)| Detection { rect: PixelRect::new(x, y, w, h).unwrap(), score });
        proptest::collection::vec(one, 0..60)
    }

    proptest! {
        #[test]
        fn suppression_is_idempotent(found in detections()) {
            let policy = DetectPolicy::default();
            let once = suppress(found, &policy);
            prop_assert_eq!(suppress(once.clone(), &policy), once);
        }

        #[test]
        fn what_is_kept_does_not_overlap_and_the_best_is_kept(found in detections()) {
            let policy = DetectPolicy::default();
            let best = found.iter().map(|d| d.score).fold(0.0, f32::max);
            let kept = suppress(found.clone(), &policy);
            prop_assert!(kept.len() <= policy.max_faces);
            prop_assert_eq!(kept.is_empty(), found.is_empty());
            if let Some(first) = kept.first() {
                prop_assert_eq!(first.score, best);
            }
            for (i, a) in kept.iter().enumerate() {
                for b in &kept[..i] {
                    prop_assert!(a.rect.iou(&b.rect) <= policy.nms_iou);
                }
            }
        }

        #[test]
        fn a_box_drawn_on_the_plane_is_found_where_it_was_in_the_picture(
            width in 40u32..2000, height in 40u32..2000, second in proptest::bool::ANY,
            at in (0.0f32..0.6, 0.0f32..0.6), size in (0.05f32..0.4, 0.05f32..0.4),
        ) {
            let picture = (width, height);
            let letterbox = if second { Letterbox::second_pass(picture) } else { Letterbox::first_pass(picture) };
            let truth = PixelRect::new(
                at.0 * width as f32, at.1 * height as f32, size.0 * width as f32, size.1 * height as f32,
            ).unwrap();
            let to_plane = |x: f32, y: f32| {
                let u = (x * letterbox.width as f32 / width as f32 + letterbox.left as f32) / PLANE_WIDTH_PX as f32;
                let v = (y * letterbox.height as f32 / height as f32 + letterbox.top as f32) / PLANE_HEIGHT_PX as f32;
                (u, v)
            };
            let (left, top) = to_plane(truth.x(), truth.y());
            let (right, bottom) = to_plane(truth.right(), truth.bottom());
            let found = letterbox.to_picture([left, top, right, bottom]).unwrap();
            prop_assert!(found.iou(&truth) > 0.99, "{found:?} is not {truth:?}");
        }
    }

    /// One pass's tensors with the given (score, corners) in front and background behind.
    fn tensors(faces: &[(f32, [f32; 4])]) -> (Vec<f32>, Vec<f32>) {
        let mut scores = [1.0, 0.0].repeat(CANDIDATES);
        let mut boxes = [0.0, 0.0, 0.1, 0.1].repeat(CANDIDATES);
        for (index, (score, corners)) in faces.iter().enumerate() {
            scores[index * 2 + 1] = *score;
            boxes[index * 4..index * 4 + 4].copy_from_slice(corners);
        }
        (scores, boxes)
    }

    #[test]
    fn only_scores_over_the_threshold_count() {
        let (scores, boxes) = tensors(&[(0.65, [0.1, 0.1, 0.3, 0.4]), (0.66, [0.5, 0.5, 0.75, 0.75])]);
        let letterbox = Letterbox::first_pass((640, 480));
        let found = decode(&scores, &boxes, &letterbox, &DetectPolicy::default()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].rect, PixelRect::new(320.0, 240.0, 160.0, 120.0).unwrap());
    }

    #[test]
    fn a_swapped_box_is_dropped_and_nan_is_an_error() {
        let (mut scores, boxes) = tensors(&[(0.9, [0.4, 0.4, 0.2, 0.2])]);
        let letterbox = Letterbox::first_pass((640, 480));
        assert_eq!(decode(&scores, &boxes, &letterbox, &DetectPolicy::default()), Ok(vec![]));
        scores[14] = f32::NAN;
        let broken = decode(&scores, &boxes, &letterbox, &DetectPolicy::default());
        assert_eq!(broken, Err(DetectError::NotFinite { candidate: 7 }));
        let short = decode(&scores[1..], &boxes, &letterbox, &DetectPolicy::default());
        assert!(matches!(short, Err(DetectError::Length { .. })));
    }

    #[test]
    fn the_second_pass_runs_only_when_the_first_finds_nothing() {
        let face = Detection { rect: PixelRect::new(1.0, 1.0, 9.0, 9.0).unwrap(), score: 0.9 };
        let mut passes = Vec::new();
        let found = two_pass((640, 480), |letterbox| {
            passes.push(letterbox.width);
            Ok::<_, ()>(vec![face])
        });
        assert_eq!((found, passes), (Ok(vec![face]), vec![320]));

        let mut passes = Vec::new();
        let found = two_pass((640, 480), |letterbox| {
            passes.push(letterbox.width);
            Ok::<_, ()>(if letterbox.width == 160 { vec![face] } else { vec![] })
        });
        assert_eq!((found, passes), (Ok(vec![face]), vec![320, 160]));
    }

    #[test]
    fn extreme_pictures_still_have_a_letterbox() {
        let thin = Letterbox::second_pass((16_384, 1));
        assert_eq!((thin.width, thin.height), (160, 1));
        let pixel = Letterbox::first_pass((1, 1));
        assert_eq!((pixel.width, pixel.height, pixel.left), (240, 240, 40));
    }
}

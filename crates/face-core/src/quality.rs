//! Is this picture of a face good enough, and if not, what should the person do?
//!
//! In: the aligned grey crop, the box, the pose. Out: five scores in [0, 1] ([`Quality`]) and, from a [`QualityGate`],
//! the reasons that a person can act on. Two gates: enrolment is strict, because a template is used for years;
//! matching is lenient, because the threshold on similarity still stands behind it.

use crate::geometry::PixelRect;
use crate::pose::HeadPose;
use crate::sample::GreyCrop;

/// What is wrong with a face picture, in words that tell the person what to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QualityReason {
    /// Come closer.
    TooSmall,
    /// Hold still, or clean the lens.
    Blurred,
    /// More light on the face.
    TooDark,
    /// Less light on the face, or no light behind the camera.
    TooBright,
    /// Look into the camera.
    Turned,
    /// Take away what covers the face.
    Occluded,
}

/// The measured numbers behind the scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QualityMeasures {
    /// Height of the face's box in pixels of the picture.
    pub face_height_px: f32,
    /// Variance of the Laplacian over the aligned crop at 56 × 56, relative to the variance of its luma.
    pub laplacian_ratio: f32,
    /// Mean luma of the face, 0 to 255.
    pub mean_luma: f32,
    /// Share of the face's pixels above 240, in [0, 1].
    pub bright_share: f32,
    /// Degrees from frontal, pitch bias removed; `None` when no pose was measured.
    pub frontal_deviation_deg: Option<f32>,
    /// Mean slope round the left eye, the right eye or the mouth, the least of the three, relative to the face's mean slope.
    pub least_structure: f32,
    /// Median luma round the lighter of the two eyes, relative to the face's median.
    pub eye_light: f32,
    /// Share of the face's box inside the picture, in [0, 1].
    pub share_inside: f32,
}

/// Five scores in [0, 1], 1 best, and the measurements they come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    /// Sharpness.
    pub sharpness: f32,
    /// Neither too dark nor too bright.
    pub brightness: f32,
    /// Frontal; 0 when no pose was measured.
    pub pose: f32,
    /// Nothing covers the face.
    pub visibility: f32,
    /// Large enough.
    pub size: f32,
    /// The raw numbers.
    pub measures: QualityMeasures,
}

/// What quality is measured on.
#[derive(Clone, Copy, Debug)]
pub struct QualityInput<'a> {
    /// The aligned crop from [`crate::sample::aligned_grey`].
    pub aligned: &'a GreyCrop,
    /// The face's box.
    pub face: &'a PixelRect,
    /// Size of the picture in pixels.
    pub picture: (u32, u32),
    /// The pose, when the model could tell it.
    pub pose: Option<HeadPose>,
}

impl Quality {
    /// Measures a face. Cost: a few passes over 56 × 56 pixels.
    #[must_use]
    pub fn measure(input: &QualityInput<'_>) -> Self {
        let measures = QualityMeasures::of(input);
        let pose = measures.frontal_deviation_deg.map_or(0.0, |deviation| POSE_DEG.score(deviation));
        Self {
            sharpness: SHARPNESS.score(measures.laplacian_ratio.max(f32::MIN_POSITIVE).log10()),
            brightness: DARK_LUMA.score(measures.mean_luma).min(BRIGHT_SHARE.score(measures.bright_share)),
            pose,
            visibility: STRUCTURE
                .score(measures.least_structure)
                .min(EYE_LIGHT.score(measures.eye_light))
                .min(INSIDE.score(measures.share_inside)),
            size: SIZE_PX.score(measures.face_height_px),
            measures,
        }
    }

    /// One number in [0, 1] to rank shots by: the product of the five scores, so that one bad score spoils a shot.
    #[must_use]
    pub fn overall(&self) -> f32 {
        self.sharpness * self.brightness * self.pose * self.visibility * self.size
    }
}

/// A straight line from a measure to a score: 0 at `worst` and beyond, 1 at `best` and beyond.
struct Line {
    worst: f32,
    best: f32,
}

impl Line {
    fn score(&self, measure: f32) -> f32 {
        let score = (measure - self.worst) / (self.best - self.worst);
        // A measure that is no number is the worst one.
        if score.is_nan() { 0.0 } else { score.clamp(0.0, 1.0) }
    }
}

// What the lines below were measured on: 250 pictures of LFW and 62 press photographs, each also blurred, darkened,
// lightened and covered; "similarity" is the cosine between the embeddings of the spoiled picture and of the untouched one.

/// Decimal logarithm of the Laplacian ratio. A blur of 3 % of the face's height leaves a ratio of 0.017 and a
/// similarity of 0.33; one of 1 % leaves 0.15 and 0.95. Untouched pictures have 0.13 (first percentile) to 1.1.
const SHARPNESS: Line = Line { worst: -1.824, best: -0.824 };
/// Mean luma. At 19 the similarity is 0.79 (eight-bit steps eat the structure), at 38 it is 0.93, at 64 it is 0.975.
const DARK_LUMA: Line = Line { worst: 10.0, best: 60.0 };
/// Share of blown-out pixels. At 0.24 the similarity is 0.95, at 0.60 it is 0.79, at 0.83 it is 0.41.
const BRIGHT_SHARE: Line = Line { worst: 0.75, best: 0.15 };
/// Degrees from frontal. 95 % of LFW's pictures are within 29°, 99 % within 44°; the most turned one, at 66°, is still known by all six
/// others of its person (docs/measurements/accuracy.md).
const POSE_DEG: Line = Line { worst: 80.0, best: 10.0 };
/// Least relative structure of eyes and mouth. Bare faces have 0.67 (first percentile) to 1.3; a mask or a hand before
/// the mouth leaves 0.0, a cover over one half of the face 0.25.
const STRUCTURE: Line = Line { worst: 0.1, best: 0.6 };
/// Relative luma round the lighter eye. Bare faces have 0.54 (first percentile) to 1.3; sunglasses of `lfw-dev` 0.12 to
/// 0.28, opaque ones 0.13. Matching asks for 0.2, which is a tinted glass, and enrolment for 0.41, which is none. A
/// stranger in opaque glasses is taken for a bare enrolled face a third as often as a bare stranger, and so may try;
/// two people in such glasses are confused 24 times as often, and so must not enrol (docs/measurements/accuracy.md).
const EYE_LIGHT: Line = Line { worst: 0.07, best: 0.5 };
/// Share of the box inside the picture: the detector's boxes are tight, so that a tenth outside costs forehead or chin only.
const INSIDE: Line = Line { worst: 0.5, best: 0.9 };
/// Height of the box. False rejections at cosine 0.42: 55 % at 24 px, 15 % at 32, 6 % at 48, 4.7 % at 64; the aligned
/// crop is filled without enlarging at about 112.
const SIZE_PX: Line = Line { worst: 24.0, best: 112.0 };

/// Side of the crop that is measured: faces of 56 px and more are not enlarged to it, so that smallness is not read as blur.
const SIDE: usize = 56;
/// The face in the 56 × 56 crop, without hair and background.
const FACE: Patch = Patch { rows: (7, 53), columns: (8, 48) };
const LEFT_EYE: Patch = Patch { rows: (21, 31), columns: (12, 26) };
const RIGHT_EYE: Patch = Patch { rows: (21, 31), columns: (30, 44) };
const MOUTH: Patch = Patch { rows: (41, 52), columns: (18, 38) };
/// Where the mean slope and the median luma of the face are taken.
const CORE: Patch = Patch { rows: (14, 53), columns: (8, 48) };
/// Where sharpness is measured: the border of the crop may be black.
const MIDDLE: Patch = Patch { rows: (7, 49), columns: (7, 49) };
/// Luma variance that noise alone makes; keeps the Laplacian ratio of an empty crop low.
const NOISE_VARIANCE: f32 = 25.0;
/// From this luma on a pixel counts as blown out.
const BLOWN_OUT: f32 = 240.0;

impl QualityMeasures {
    fn of(input: &QualityInput<'_>) -> Self {
        let crop = Crop::of(input.aligned);
        let (width, height) = input.picture;
        let slope = crop.slope(&CORE) + 1.0;
        let luma = crop.median(&CORE).max(1.0);
        Self {
            face_height_px: input.face.height(),
            laplacian_ratio: crop.laplacian_variance(&MIDDLE) / (crop.variance(&MIDDLE) + NOISE_VARIANCE),
            mean_luma: crop.mean(&FACE, |value| value),
            bright_share: crop.mean(&FACE, |value| if value > BLOWN_OUT { 1.0 } else { 0.0 }),
            frontal_deviation_deg: input.pose.filter(HeadPose::is_finite).map(|pose| pose.frontal_deviation_deg()),
            least_structure: [LEFT_EYE, RIGHT_EYE, MOUTH]
                .iter()
                .map(|patch| crop.slope(patch) / slope)
                .fold(f32::INFINITY, f32::min),
            eye_light: crop.median(&LEFT_EYE).max(crop.median(&RIGHT_EYE)) / luma,
            share_inside: input.face.share_inside(width, height),
        }
    }
}

/// Rows and columns of the 56 × 56 crop, each from the first to before the last.
struct Patch {
    rows: (usize, usize),
    columns: (usize, usize),
}

impl Patch {
    fn positions(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        (self.rows.0..self.rows.1).flat_map(|y| (self.columns.0..self.columns.1).map(move |x| (x, y)))
    }
}

/// The aligned crop at 56 × 56.
struct Crop {
    luma: Vec<f32>,
}

impl Crop {
    /// Halves the 112 × 112 crop; a crop of another size, which alignment does not make, reads as black.
    fn of(aligned: &GreyCrop) -> Self {
        let halved = aligned.shrunk(2).filter(|half| half.width() == SIDE && half.height() == SIDE);
        let luma =
            halved.map_or_else(|| vec![0.0; SIDE * SIDE], |half| half.luma().iter().copied().map(f32::from).collect());
        Self { luma }
    }

    fn at(&self, x: usize, y: usize) -> f32 {
        self.luma[y * SIDE + x]
    }

    fn mean(&self, patch: &Patch, of: impl Fn(f32) -> f32) -> f32 {
        let (sum, n) = patch.positions().fold((0.0, 0), |(sum, n), (x, y)| (sum + of(self.at(x, y)), n + 1));
        sum / n as f32
    }

    fn variance(&self, patch: &Patch) -> f32 {
        let mean = self.mean(patch, |value| value);
        self.mean(patch, |value| (value - mean).powi(2))
    }

    fn median(&self, patch: &Patch) -> f32 {
        let mut values: Vec<f32> = patch.positions().map(|(x, y)| self.at(x, y)).collect();
        values.sort_by(f32::total_cmp);
        values[values.len() / 2]
    }

    /// Mean of the absolute differences to the right and lower neighbour.
    fn slope(&self, patch: &Patch) -> f32 {
        let (sum, n) = patch.positions().fold((0.0, 0), |(sum, n), (x, y)| {
            let here = self.at(x, y);
            (sum + (self.at(x + 1, y) - here).abs() + (self.at(x, y + 1) - here).abs(), n + 1)
        });
        sum / n as f32
    }

    fn laplacian_variance(&self, patch: &Patch) -> f32 {
        let values: Vec<f32> = patch
            .positions()
            .map(|(x, y)| {
                let around = self.at(x - 1, y) + self.at(x + 1, y) + self.at(x, y - 1) + self.at(x, y + 1);
                around - 4.0 * self.at(x, y)
            })
            .collect();
        let n = values.len() as f32;
        let mean = values.iter().sum::<f32>() / n;
        values.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / n
    }
}

/// The lowest scores that pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QualityGate {
    /// Lowest height of the face's box in pixels.
    pub min_face_height_px: f32,
    /// Lowest [`Quality::sharpness`].
    pub min_sharpness: f32,
    /// Lowest [`Quality::brightness`].
    pub min_brightness: f32,
    /// Lowest [`Quality::pose`].
    pub min_pose: f32,
    /// Lowest [`Quality::visibility`].
    pub min_visibility: f32,
}

impl QualityGate {
    /// The gate for enrolment photographs: 96 px, where 98 % of the identity survives; sharp to 1.3 % of the face's height;
    /// luma from 40 on and at most 40 % blown out; within 25° of frontal; eyes and mouth half as structured as bare ones.
    #[must_use]
    pub fn enrol() -> Self {
        Self { min_face_height_px: 96.0, min_sharpness: 0.7, min_brightness: 0.6, min_pose: 0.78, min_visibility: 0.8 }
    }

    /// The gate for matching before a door: 40 px, where a false rejection is as likely as it was at 48 px with the plain
    /// template (5 to 7 % at 0.415, against 3.3 % at 64 px), a false acceptance no likelier than at any size above
    /// (docs/measurements/accuracy.md), and the next frame is better anyway; blur to 2 % of the height; luma from 25 on and at most 57 %
    /// blown out; within 68° of frontal, as far as there are pictures that show that a stranger is not taken for somebody else more often;
    /// something to see of both eyes and the mouth.
    #[must_use]
    pub fn matching() -> Self {
        Self { min_face_height_px: 40.0, min_sharpness: 0.35, min_brightness: 0.3, min_pose: 0.17, min_visibility: 0.3 }
    }

    /// All reasons for which this quality does not pass, the most helpful one first; empty means that it passes.
    ///
    /// Coming closer and more light cure most of the rest, so they are named first; a score that is not a number fails.
    #[must_use]
    pub fn reasons(&self, quality: &Quality) -> Vec<QualityReason> {
        let measures = &quality.measures;
        let fails = |score: f32, least: f32| score.is_nan() || score < least;
        let checks = [
            (fails(measures.face_height_px, self.min_face_height_px), QualityReason::TooSmall),
            (fails(DARK_LUMA.score(measures.mean_luma), self.min_brightness), QualityReason::TooDark),
            (fails(BRIGHT_SHARE.score(measures.bright_share), self.min_brightness), QualityReason::TooBright),
            (fails(quality.pose, self.min_pose), QualityReason::Turned),
            (fails(quality.visibility, self.min_visibility), QualityReason::Occluded),
            (fails(quality.sharpness, self.min_sharpness), QualityReason::Blurred),
        ];
        checks.into_iter().filter_map(|(failed, reason)| failed.then_some(reason)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pose::FRONTAL_PITCH_DEG;
    use proptest::prelude::*;

    const FRONTAL: HeadPose = HeadPose { yaw_deg: 3.0, pitch_deg: FRONTAL_PITCH_DEG, roll_deg: 0.0 };

    /// A drawn face: skin, two eyes and a mouth with fine stripes, `gain` times as light, blurred `blur` times.
    fn drawn(gain: f32, blur: usize, cover: Option<&(std::ops::Range<usize>, f32)>) -> GreyCrop {
        let mut luma = vec![0.0f32; 112 * 112];
        for (index, value) in luma.iter_mut().enumerate() {
            let (x, y) = (index % 112, index / 112);
            let inside = |cx: f32, cy: f32, rx: f32, ry: f32| {
                ((x as f32 - cx) / rx).powi(2) + ((y as f32 - cy) / ry).powi(2) < 1.0
            };
            let feature =
                inside(38.0, 52.0, 10.0, 5.0) || inside(74.0, 52.0, 10.0, 5.0) || inside(56.0, 92.0, 16.0, 5.0);
            let stripe = if (x / 4 + y / 4) % 2 == 0 { 30.0 } else { 0.0 };
            *value = if feature { 40.0 + 2.0 * stripe } else { 130.0 + x as f32 * 0.2 + stripe * 0.3 };
            if let Some((rows, tone)) = cover
                && rows.contains(&y)
            {
                *value = *tone;
            }
        }
        for _ in 0..blur {
            let old = luma.clone();
            for y in 1..111 {
                for x in 1..111 {
                    let sum: f32 = (0..9).map(|i| old[(y + i / 3 - 1) * 112 + x + i % 3 - 1]).sum();
                    luma[y * 112 + x] = sum / 9.0;
                }
            }
        }
        let bytes = luma.iter().map(|value| (value * gain).clamp(0.0, 255.0) as u8).collect();
        GreyCrop::new(112, 112, bytes).unwrap()
    }

    fn measured(aligned: &GreyCrop, height: f32, pose: Option<HeadPose>) -> Quality {
        let face = PixelRect::new(50.0, 50.0, height * 0.8, height).unwrap();
        Quality::measure(&QualityInput { aligned, face: &face, picture: (640, 480), pose })
    }

    #[track_caller]
    fn assert_reasons(quality: &Quality, enrol: &[QualityReason], matching: &[QualityReason]) {
        assert_eq!(QualityGate::enrol().reasons(quality), enrol, "{quality:?}");
        assert_eq!(QualityGate::matching().reasons(quality), matching, "{quality:?}");
    }

    #[test]
    fn a_good_face_passes_both_gates() {
        let quality = measured(&drawn(1.0, 0, None), 150.0, Some(FRONTAL));
        assert_reasons(&quality, &[], &[]);
        assert!(quality.overall() > 0.7);
    }

    #[test]
    fn a_small_face_may_match_but_not_enrol() {
        use QualityReason::TooSmall;
        let small = |height| measured(&drawn(1.0, 0, None), height, Some(FRONTAL));
        assert_reasons(&small(95.0), &[TooSmall], &[]);
        assert_reasons(&small(41.0), &[TooSmall], &[]);
        assert_reasons(&small(39.0), &[TooSmall], &[TooSmall]);
    }

    #[test]
    fn blur_is_named() {
        let quality = measured(&drawn(1.0, 48, None), 150.0, Some(FRONTAL));
        assert_reasons(&quality, &[QualityReason::Blurred], &[QualityReason::Blurred]);
    }

    #[test]
    fn darkness_and_glare_are_told_apart() {
        let dark = measured(&drawn(0.13, 0, None), 150.0, Some(FRONTAL));
        assert_eq!(QualityGate::matching().reasons(&dark).first(), Some(&QualityReason::TooDark), "{dark:?}");
        let glare = measured(&drawn(1.9, 0, None), 150.0, Some(FRONTAL));
        assert_eq!(QualityGate::matching().reasons(&glare).first(), Some(&QualityReason::TooBright), "{glare:?}");
    }

    #[test]
    fn a_turned_head_may_match_but_not_enrol_and_an_unknown_pose_passes_neither() {
        use QualityReason::Turned;
        let turned = |yaw_deg| measured(&drawn(1.0, 0, None), 150.0, Some(HeadPose { yaw_deg, ..FRONTAL }));
        assert_reasons(&turned(35.0), &[Turned], &[]);
        assert_reasons(&turned(-60.0), &[Turned], &[]);
        assert_reasons(&turned(-70.0), &[Turned], &[Turned]);
        assert_reasons(&measured(&drawn(1.0, 0, None), 150.0, None), &[Turned], &[Turned]);
        let broken = HeadPose { yaw_deg: f32::NAN, ..FRONTAL };
        assert_reasons(&measured(&drawn(1.0, 0, None), 150.0, Some(broken)), &[Turned], &[Turned]);
    }

    #[test]
    fn a_mask_dark_glasses_and_the_edge_of_the_picture_hide_a_face() {
        use QualityReason::Occluded;
        let mask = measured(&drawn(1.0, 0, Some(&(72..112, 200.0))), 150.0, Some(FRONTAL));
        assert!(QualityGate::matching().reasons(&mask).contains(&Occluded), "{mask:?}");
        let glasses = measured(&drawn(1.0, 0, Some(&(40..64, 15.0))), 150.0, Some(FRONTAL));
        assert!(QualityGate::matching().reasons(&glasses).contains(&Occluded), "{glasses:?}");
        let face = PixelRect::new(-80.0, 50.0, 120.0, 150.0).unwrap();
        let aligned = drawn(1.0, 0, None);
        let input = QualityInput { aligned: &aligned, face: &face, picture: (640, 480), pose: Some(FRONTAL) };
        assert!(QualityGate::matching().reasons(&Quality::measure(&input)).contains(&Occluded));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn every_score_is_within_zero_and_one(
            luma in proptest::collection::vec(proptest::num::u8::ANY, 112 * 112),
            height in 1.0f32..2000.0, yaw_deg in -99.0f32..99.0, pitch_deg in -99.0f32..99.0,
        ) {
            let crop = GreyCrop::new(112, 112, luma).unwrap();
            let quality = measured(&crop, height, Some(HeadPose { yaw_deg, pitch_deg, roll_deg: 0.0 }));
            let scores = [quality.sharpness, quality.brightness, quality.pose, quality.visibility, quality.size];
            for score in scores.into_iter().chain([quality.overall()]) {
                prop_assert!((0.0..=1.0).contains(&score));
            }
        }

        #[test]
        fn what_passes_enrolment_passes_matching(
            gain in 0.1f32..2.0, blur in 0usize..6, height in 20.0f32..300.0, yaw_deg in -70.0f32..70.0,
        ) {
            let quality = measured(&drawn(gain, blur, None), height, Some(HeadPose { yaw_deg, ..FRONTAL }));
            if QualityGate::enrol().reasons(&quality).is_empty() {
                prop_assert!(QualityGate::matching().reasons(&quality).is_empty());
            }
        }
    }

    #[test]
    fn flat_and_foreign_crops_score_without_panic() {
        for crop in [GreyCrop::new(112, 112, vec![128; 112 * 112]).unwrap(), GreyCrop::new(1, 1, vec![3]).unwrap()] {
            let quality = measured(&crop, 100.0, Some(FRONTAL));
            assert_eq!(quality.sharpness, 0.0);
            assert!(!QualityGate::matching().reasons(&quality).is_empty());
        }
    }
}

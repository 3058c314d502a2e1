//! What `face-core` asks of models, answered by the pack: crops in, decoded answers out.
//!
//! In: a picture and a box, points or landmarks. Out: detections, landmarks, embeddings, scores, angles. Each model
//! sees what measurement showed to work: colour order, mean and scale come from the manifest, crop and decoding from
//! `face-core`. Deliberately absent: thresholds and decisions.

use std::path::Path;

use face_core::align::{ALIGNED_SIDE_PX, Alignment, FACE_IN_CROP};
use face_core::detect::{self, DetectPolicy, Letterbox, PLANE_HEIGHT_PX, PLANE_WIDTH_PX};
use face_core::landmarks::{Eye, LANDMARKS};
use face_core::pose::POSE_BINS;
use face_core::sample::{self, ColourOrder, GreyFormat, TensorFormat};
use face_core::{
    DIM, Detection, Detector, Embedder, Embedding, EyeModel, EyeState, FivePoints, HeadPose, LandmarkModel,
    Landmarks68, LivenessModel, ModelError, PassiveScores, PixelRect, PoseModel, RgbImage, crop,
};

use crate::manifest::{Colour, InputSpec, Manifest, ModelFile, Task};
use crate::pack::{ModelPack, PackError};
use crate::session::{Cause, InferenceError, SessionPool};

/// Classes of the liveness model; class 0 is live.
const LIVENESS_CLASSES: usize = 3;

/// Classes of the eye model; class 0 is closed.
const EYE_CLASSES: usize = 2;

/// Refuses a manifest that is consistent in itself but describes tensors that the code below cannot fill or read.
pub(crate) fn check_contracts(manifest: &Manifest, weights: &Path) -> Result<(), PackError> {
    for file in manifest.files() {
        check_contract(manifest, file).map_err(|problem| PackError::Unsupported {
            path: weights.join(&file.path),
            task: file.task,
            problem,
        })?;
    }
    Ok(())
}

fn check_contract(manifest: &Manifest, file: &ModelFile) -> Result<(), &'static str> {
    let grey = file.input.colour == Colour::Grey;
    let size = (file.input.width(), file.input.height());
    let lengths: Vec<usize> = file.outputs.iter().map(crate::manifest::OutputSpec::len).collect();
    let demand = |fulfilled: bool, problem: &'static str| if fulfilled { Ok(()) } else { Err(problem) };
    match file.task {
        Task::Detect => {
            demand(!grey, "the detector needs a colour input")?;
            let plane = (PLANE_WIDTH_PX as usize, PLANE_HEIGHT_PX as usize);
            demand(size == plane, "the detector's input must be 320x240")?;
            let (scores, boxes) = (output_index(file, "scores")?, output_index(file, "boxes")?);
            demand(lengths[scores] * 2 == lengths[boxes], "scores need two and boxes four numbers a candidate")
        }
        Task::Landmark => {
            demand(grey, "the landmark model needs a grey input")?;
            demand(lengths == [LANDMARKS * 2], "the output must be 68 points")
        }
        Task::Feature => {
            demand(!grey, "the feature model needs a colour input")?;
            let side = ALIGNED_SIDE_PX as usize;
            demand(size == (side, side), "the feature model's input must be 112x112")?;
            demand(manifest.embedding.dimension == DIM, "embeddings must have 512 components")?;
            demand(lengths == [DIM], "the output must be one embedding")
        }
        Task::Liveness => {
            demand(!grey, "the liveness model needs a colour input")?;
            demand(lengths == [LIVENESS_CLASSES], "the output must be three classes, the first of them live")
        }
        Task::Eye => {
            demand(grey, "the eye model needs a grey input")?;
            demand(lengths == [EYE_CLASSES], "the output must be two classes, the first of them closed")
        }
        Task::Pose => {
            demand(!grey, "the pose model needs a colour input")?;
            demand(lengths == [POSE_BINS; 3], "the outputs must be yaw, pitch and roll of 66 bins each")
        }
    }
}

fn output_index(file: &ModelFile, name: &str) -> Result<usize, &'static str> {
    let found = file.outputs.iter().position(|output| output.name == name);
    found.ok_or("the detector's outputs must be named scores and boxes")
}

/// The manifest's colour, mean and scale in `face-core`'s terms. Only for inputs that `check_contract` saw in colour.
fn colour_format(input: &InputSpec) -> TensorFormat {
    let planes =
        |values: &[f32]| <[f32; 3]>::try_from(values).expect("the manifest has one value for each of 3 planes");
    let order = match input.colour {
        Colour::Bgr => ColourOrder::Bgr,
        Colour::Rgb | Colour::Grey => ColourOrder::Rgb,
    };
    TensorFormat { order, mean: planes(&input.mean), scale: planes(&input.scale) }
}

fn grey_format(input: &InputSpec) -> GreyFormat {
    GreyFormat { mean: input.mean[0], scale: input.scale[0] }
}

fn size_px(input: &InputSpec) -> (u32, u32) {
    let side = |length: usize| u32::try_from(length).expect("the manifest bounds the tensor's size");
    (side(input.width()), side(input.height()))
}

/// Probability of class 0: softmax in f64, so that no logit overflows.
fn first_class_probability(logits: &[f32]) -> f32 {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mass: f64 = logits.iter().map(|logit| f64::from(logit - highest).exp()).sum();
    #[expect(clippy::cast_possible_truncation, reason = "a probability needs no more than f32")]
    let probability = (f64::from(logits[0] - highest).exp() / mass) as f32;
    probability
}

fn named(pool: &SessionPool) -> impl FnOnce(InferenceError) -> ModelError + '_ {
    |error| ModelError::new(pool.name(), error)
}

/// Runs a model on a colour crop.
fn run_crop<T>(
    pool: &SessionPool,
    image: &RgbImage,
    rect: &PixelRect,
    read: impl FnOnce(&crate::session::Outputs<'_>) -> Result<T, Cause>,
) -> Result<T, ModelError> {
    let input = &pool.file().input;
    let format = colour_format(input);
    pool.run(|sampler, tensor| Ok(sampler.crop(image, rect, size_px(input), &format, tensor)?), read)
        .map_err(named(pool))
}

/// Runs a model on a grey crop.
fn run_grey_crop<T>(
    pool: &SessionPool,
    image: &RgbImage,
    rect: &PixelRect,
    read: impl FnOnce(&crate::session::Outputs<'_>) -> Result<T, Cause>,
) -> Result<T, ModelError> {
    let input = &pool.file().input;
    let format = grey_format(input);
    pool.run(|sampler, tensor| Ok(sampler.crop_grey(image, rect, size_px(input), &format, tensor)?), read)
        .map_err(named(pool))
}

impl Detector for ModelPack {
    fn detect(&self, image: &RgbImage) -> Result<Vec<Detection>, ModelError> {
        let pool = &self.pools().detect;
        let file = pool.file();
        let format = colour_format(&file.input);
        let output = |name| output_index(file, name).expect("checked when the pack was opened");
        let (scores, boxes) = (output("scores"), output("boxes"));
        let policy = DetectPolicy::default();
        let one_pass = |letterbox: &Letterbox| {
            pool.run(
                |sampler, tensor| Ok(sampler.letterbox(image, letterbox, &format, tensor)?),
                |outputs| Ok(detect::decode(outputs.values(scores), outputs.values(boxes), letterbox, &policy)?),
            )
        };
        detect::two_pass((image.width(), image.height()), one_pass).map_err(named(pool))
    }
}

/// How the embedder sees a face.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    /// Read at single points, as the plain pipeline does.
    Plain,
    /// Averaged where the face is larger than the crop.
    Upright,
    /// The same, left for right.
    Mirrored,
}

impl ModelPack {
    /// The five points found again on the face turned upright and brought to the size that the model is used to. A
    /// detector's box may sit too high, too wide or off the face, and the first landmarks then lean towards its middle.
    fn second_look(&self, image: &RgbImage, points: &FivePoints) -> Result<FivePoints, ModelError> {
        let pool = &self.pools().landmark;
        let input = &pool.file().input;
        let format = grey_format(input);
        let alignment = Alignment::fit(points).map_err(|error| ModelError::new(pool.name(), error))?;
        let [left, top, right, bottom] = FACE_IN_CROP;
        let part = PixelRect::from_corners(left, top, right, bottom).expect("a constant with an area");
        let found = pool
            .run(
                |_, tensor| {
                    Ok(sample::warp_grey(image, &alignment.to_picture, &part, size_px(input), &format, tensor)?)
                },
                |outputs| Ok(Landmarks68::from_relative(outputs.values(0), &part)?.five_points()),
            )
            .map_err(named(pool))?;
        Ok(FivePoints(found.0.map(|point| alignment.to_picture.apply(point))))
    }

    /// One pass of the feature model over the aligned face, for [`crate::plain`].
    pub(crate) fn embed_once(&self, image: &RgbImage, points: &FivePoints) -> Result<Embedding, ModelError> {
        self.embed_view(image, points, View::Plain)
    }

    fn embed_view(&self, image: &RgbImage, points: &FivePoints, view: View) -> Result<Embedding, ModelError> {
        let pool = &self.pools().feature;
        let input = &pool.file().input;
        let format = colour_format(input);
        pool.run(
            |_, tensor| {
                let alignment = Alignment::fit(points)?;
                let warp = if view == View::Plain { sample::warp } else { sample::warp_averaged };
                warp(image, &alignment.to_picture, size_px(input), &format, tensor)?;
                if view == View::Mirrored {
                    sample::mirror(tensor, input.width());
                }
                Ok(())
            },
            |outputs| {
                let raw = outputs.values(0);
                Ok(match (view, self.manifest().clarity_scale()) {
                    (View::Upright | View::Mirrored, Some(scale)) => Embedding::from_output(raw, &scale)?,
                    _ => Embedding::from_slice(raw)?,
                })
            },
        )
        .map_err(named(pool))
    }
}

impl LandmarkModel for ModelPack {
    fn landmarks(&self, image: &RgbImage, face: &PixelRect) -> Result<Landmarks68, ModelError> {
        let pool = &self.pools().landmark;
        run_grey_crop(pool, image, face, |outputs| Ok(Landmarks68::from_relative(outputs.values(0), face)?))
    }
}

impl Embedder for ModelPack {
    /// With the handicap that the length of the model's outputs gives ([`face_core::clarity`]).
    ///
    /// The mean of two views: the face aligned by a second look at it ([`ModelPack::second_look`]), and its mirror image
    /// aligned by the points given. What the two disagree in is chance, of the landmarks and of the model, and half of it
    /// goes: docs/measurements/accuracy.md. One landmark run and two feature runs.
    fn embed(&self, image: &RgbImage, points: &FivePoints) -> Result<Embedding, ModelError> {
        let upright = self.embed_view(image, &self.second_look(image, points)?, View::Upright)?;
        let mirrored = self.embed_view(image, points, View::Mirrored)?;
        Embedding::mean(&[upright, mirrored]).map_err(|error| ModelError::new(self.pools().feature.name(), error))
    }

    fn space_id(&self) -> &str {
        &self.manifest().space_id
    }
}

impl LivenessModel for ModelPack {
    fn live_scores(&self, image: &RgbImage, face: &PixelRect) -> Result<PassiveScores, ModelError> {
        let pool = &self.pools().liveness;
        let score = |rect| run_crop(pool, image, rect, |outputs| Ok(first_class_probability(outputs.values(0))));
        let [boxed, square] = crop::liveness_crops(face, image.width(), image.height());
        Ok(PassiveScores { boxed: score(&boxed)?, square: score(&square)? })
    }
}

impl PoseModel for ModelPack {
    fn pose(&self, image: &RgbImage, face: &PixelRect) -> Result<HeadPose, ModelError> {
        let pool = &self.pools().pose;
        run_crop(pool, image, &crop::pose_crop(face), |outputs| {
            Ok(HeadPose::from_bins(outputs.values(0), outputs.values(1), outputs.values(2))?)
        })
    }
}

/// The eye cannot be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an eye lies outside the picture or has no width")]
pub struct EyeOutside;

impl EyeModel for ModelPack {
    fn eyes(&self, image: &RgbImage, landmarks: &Landmarks68) -> Result<EyeState, ModelError> {
        let closed = |eye: &Eye| -> Result<f32, ModelError> {
            let pool = &self.pools().eye;
            let rect = crop::eye_crop(eye)
                .filter(|rect| rect.share_inside(image.width(), image.height()) > 0.5)
                .ok_or_else(|| ModelError::new(pool.name(), EyeOutside))?;
            run_grey_crop(pool, image, &rect, |outputs| Ok(first_class_probability(outputs.values(0))))
        };
        Ok(EyeState { left_closed: closed(&landmarks.left_eye())?, right_closed: closed(&landmarks.right_eye())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_logits_give_a_probability() {
        assert_eq!(first_class_probability(&[3e38, -3e38, 0.0]), 1.0);
        assert_eq!(first_class_probability(&[-3e38, 3e38, 0.0]), 0.0);
        assert!((first_class_probability(&[1.0, 1.0]) - 0.5).abs() < 1e-6);
    }
}

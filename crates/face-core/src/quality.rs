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
    /// Variance of the Laplacian over the aligned crop, relative to the variance of its luma.
    pub laplacian_variance: f32,
    /// Mean luma of the face, 0 to 255.
    pub mean_luma: f32,
    /// Share of the face's pixels below 25, in [0, 1].
    pub dark_share: f32,
    /// Share of the face's pixels above 240, in [0, 1].
    pub bright_share: f32,
    /// Degrees from frontal, pitch bias removed; `None` when no pose was measured.
    pub frontal_deviation_deg: Option<f32>,
    /// Lowest structure among eyes, nose and mouth, relative to a bare face's.
    pub least_structure: f32,
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
    /// Measures a face.
    #[must_use]
    pub fn measure(input: &QualityInput<'_>) -> Self {
        todo!()
    }

    /// One number in [0, 1] to rank shots by: the product of the five scores.
    #[must_use]
    pub fn overall(&self) -> f32 {
        todo!()
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
    /// The gate for enrolment photographs.
    #[must_use]
    pub fn enrol() -> Self {
        todo!()
    }

    /// The gate for matching before a door.
    #[must_use]
    pub fn matching() -> Self {
        todo!()
    }

    /// All reasons for which this quality does not pass, the most helpful one first; empty means that it passes.
    #[must_use]
    pub fn reasons(&self, quality: &Quality) -> Vec<QualityReason> {
        todo!()
    }
}

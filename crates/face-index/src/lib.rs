//! Who in the gallery looks most like this probe?
//!
//! In: templates (`PersonId`, `TemplateId`, `Embedding`) once, then probes. Out: the `k` best templates, best first,
//! through [`face_core::Gallery`]. The edge searches its gallery with it, the hub a tenant's.
//!
//! Two engines give the same answer: [`Engine::Exact`], a dot-product kernel chosen for the processor at run time, and
//! [`Engine::Faiss`], FAISS `IndexFlatIP` (cargo feature `faiss`, on by default). Both only propose candidates; the
//! scores and the order that come out are computed by [`face_core`]'s own similarity, so they are equal bit for bit to
//! the oracle [`face_core::rank`], on every processor.
//!
//! Deliberately absent: changing an index in place (a changed gallery is a new [`Snapshot`], swapped in whole, so that
//! a deleted person cannot be half there), files (a snapshot is rebuilt from verified templates in milliseconds;
//! parsing an index file from disk is attack surface), and decisions (thresholds and persons are `face-core`'s).

mod candidates;
#[cfg(feature = "faiss")]
mod flat;
mod kernel;
mod snapshot;

pub use kernel::Kernel;
pub use snapshot::{BuildError, Engine, EngineUsed, Snapshot};

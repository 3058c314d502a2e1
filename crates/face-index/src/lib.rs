//! Who in the gallery looks most like this probe?
//!
//! In: templates (`PersonId`, `TemplateId`, `Embedding`) once, then probes. Out: the `k` best templates, best first,
//! through [`face_core::Gallery`]. The edge searches its gallery with it, the hub a tenant's.
//!
//! Two engines give the same answer: [`Engine::Exact`], an integer kernel chosen for the processor at run time, and
//! [`Engine::Faiss`], FAISS `IndexFlatIP` (cargo feature `faiss`, on by default). Both only propose candidates, the
//! kernel with a proven bound on its error; the scores and the order that come out are computed by [`face_core`]'s own
//! product. So they are equal bit for bit, on every processor, to the oracle [`face_core::rank`] over the templates
//! [`at_stored_precision`]: the snapshot keeps 18 bits a component, which is what it answers for.
//!
//! Deliberately absent: changing an index in place (a changed gallery is a new [`Snapshot`], swapped in whole, so that
//! a deleted person cannot be half there), files (a snapshot is rebuilt from verified templates in milliseconds;
//! parsing an index file from disk is attack surface), and decisions (thresholds and persons are `face-core`'s).

mod bound;
mod candidates;
#[cfg(feature = "faiss")]
mod flat;
mod kernel;
mod rows;
mod scan;
mod snapshot;

pub use kernel::Kernel;
pub use rows::at_stored_precision;
pub use snapshot::{BuildError, Engine, EngineUsed, Snapshot};

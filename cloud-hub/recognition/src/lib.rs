//! Recognition for callers of the API: faces in a photograph, and whose they are among a tenant's people.
//!
//! In: photographs or templates. Out: a template in the making ([`enroller`]), what is seen ([`faces`]), and who is nearest in the
//! tenant's gallery ([`galleries`]: in memory, searched by [`comparisons`], or in the database, [`vectors`]). What follows from a score is `domain::recognition`'s to say. Deliberately absent: requests and answers (`api::recognition`).

pub mod comparisons;
pub mod enroller;
pub mod faces;
pub mod frames;
pub mod galleries;
mod pace;
pub mod paths;
pub mod standing;
pub mod uses;
mod vectors;
mod warm;

pub use comparisons::Comparisons;
pub use galleries::Galleries;
pub use paths::{SearchPath, Served, Serving};
pub use standing::Standings;
pub use uses::Uses;
pub use vectors::Vectors;
pub use warm::{Own, Warm};

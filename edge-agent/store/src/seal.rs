//! The error of a seal that could not be made or opened, with the place it was for.
//!
//! All sealing is `gallery_log::seal`; this crate only adds where on disk the bytes were.

use std::sync::Arc;

use gallery_log::SealError;
use gallery_log::keys::NoRandomness;

/// A seal could not be made: the system has no randomness to give.
#[derive(Clone, Debug, thiserror::Error)]
#[error("nothing can be sealed")]
pub struct SealingError(#[source] Arc<SealError>);

impl From<SealError> for SealingError {
    fn from(error: SealError) -> Self {
        Self(Arc::new(error))
    }
}

impl From<NoRandomness> for SealingError {
    fn from(error: NoRandomness) -> Self {
        Self(Arc::new(SealError::from(error)))
    }
}

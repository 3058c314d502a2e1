//! face-index

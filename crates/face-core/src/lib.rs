//! face-core

//! face-runtime

//! edge-capture

//! What the hub has of the machine it runs on and tells to those who run it: the clock, files of secrets, whom it may call,
//! metrics, spans, and errors in one line.
//!
//! In: the system. Out: measured and guarded access to it. Knows no tenant, no row and no key.

pub mod chain;
pub mod clock;
pub mod metrics;
pub mod outbound;
pub mod secret_file;
pub mod traces;

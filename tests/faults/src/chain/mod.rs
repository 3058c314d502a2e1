//! The audit's chain and somebody with all rights over the database, for the row S9.
//!
//! In: a real hub's entries and heads. Out: what is left of them after a tampering, and whether it is found.
//!
//! - [`bench`]: Postgres, the hub's own store and sealer, a folder of heads; and the way of a tampered state into them.
//! - [`tampering`]: what may be done, as changes of a copy.

pub mod bench;
pub mod tampering;

pub use bench::Bench;
pub use tampering::{Evidence, Kind, tamper};

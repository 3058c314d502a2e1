//! What the hub may call and how it signs what it sends: pure rules that the API, the notifier and the sender of spans share.
//!
//! In: URLs, resolved addresses, bodies. Out: permission or a reason, and signatures. No I/O.

pub mod address;
pub mod collector;
pub mod network;
pub mod signature;

//! What the rows of the line break and judge: a real hub with its parts, a fleet of real devices, and a proxy between them.
//!
//! - [`proxy`]: the network's faults, between the two ends of TLS.
//! - [`probe`]: a bare MQTT client that tries what it may not.
//! - [`site`]: a hub in a folder of its own, its parts and their ends by process id.
//! - [`crowd`]: a fleet of devices in a process of its own, which can be killed.
//! - [`forgery`]: certificates that nobody should believe.
//! - [`knock`]: a TLS connection, to the last byte, and a server that nobody should trust.
//! - [`holdout`]: a device that uses all that it has after it was revoked.
//! - [`judge`]: what the devices were promised against what the hub holds.
//! - [`cost`], [`floor`]: processor time of the hub and its parts, and what the broker alone can do.
//! - [`people`]: people to enrol, with the probe that finds each.
//! - [`trust`]: the control of these rows, a device that takes the broker's word for the hub's.

pub mod cost;
pub mod crowd;
pub mod floor;
pub mod forgery;
pub mod holdout;
pub mod judge;
pub mod knock;
pub mod people;
pub mod probe;
pub mod proxy;
pub mod site;
pub mod trust;

pub use crowd::Crowd;
pub use holdout::Holdout;
pub use judge::Judged;
pub use probe::Probe;
pub use proxy::{Fault, Proxy};
pub use site::Site;

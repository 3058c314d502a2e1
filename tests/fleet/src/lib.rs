//! A fleet of devices without cameras, doors and models, for load, for faults, and to show a hub at work.
//!
//! In: claim tokens of a real hub, or the right to make devices there. Out: devices that connect with mutual TLS, record
//! events and send them. What a device does is done by the agent's own code: `sync`, outbox, galleries, the record thread;
//! nothing of it is copied here. Deliberately absent: pictures, decisions.
//!
//! - [`device`]: one device on disk, claimed, and running.
//! - [`happening`]: the events that they record.
//! - [`history`]: what was tried and what was acknowledged to the one who recorded it, line by line, for a judge.
//! - [`fleet`]: all devices of a folder, the pace at which they record, and where they stand.
//! - [`searches`]: what each device's own search finds, and since when.
//! - [`admin`]: making devices through the hub's API, as a user does.
//! - [`trusting`]: a broken device that believes the broker's acknowledgement; the control of the fault lab's rows.

pub mod admin;
pub mod device;
pub mod fleet;
pub mod happening;
pub mod history;
pub mod searches;
pub mod trusting;

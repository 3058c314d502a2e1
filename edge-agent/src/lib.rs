//! The program at the door: from a camera's frame to an opened door and a recorded event, with or without a network.
//!
//! In: frames of `edge-capture`, models of `face-runtime`, gallery records and acknowledgements of the hub. Out: relay
//! movements, events in the outbox, answers on the control socket. Where to start reading: [`wiring`] shows every task
//! and channel on one page; [`stages`] follows a frame; [`config`] is what an installer writes.
//!
//! Deliberately absent: decisions as such (`face-core` is pure and owns them), all SQL, every way to open a door from
//! outside the decision line.

pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod door;
pub mod eval;
pub mod gallery;
pub mod lockdown;
pub mod logging;
pub mod models;
pub mod stages;
pub mod sync;
pub mod twin;
pub mod wiring;

//! The hub's side of the broker against a real Mosquitto and Postgres, with devices that speak mutual TLS.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic and read the clock to wait for others"
)]

mod events;
mod galleries;
mod healing;
mod home;
mod line;
mod presence;
mod replicas;
mod twins;

#[path = "../support/mod.rs"]
mod support;

//! The hub as its users meet it: the real program with its own Postgres and Mosquitto, over TLS and its command line.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a test may panic and read the clock to wait for others, and skipped ones are told on stderr"
)]

mod access;
mod audit;
mod authorities;
#[path = "../support/cluster.rs"]
mod cluster;
mod commands;
mod consumers;
mod deletion;
mod devices;
mod enrolment;
mod events;
mod idempotency;
mod imports;
mod intrusion;
mod keys;
mod life;
mod limits;
mod login;
mod metrics;
mod own_roles;
mod people;
mod platform;
mod process;
mod recognition;
mod reference;
mod renewals;
mod roles;
mod session_commands;
mod sessions;
mod settings;
mod signing_keys;
mod snapshots;
mod tokens;
mod totp;
mod traces;
mod transport;
mod twins;
mod webhooks;

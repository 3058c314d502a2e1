//! Rows and keys that must change together: people, templates, claims, API keys.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic and read the clock to wait for others"
)]

mod anchors;
mod api_keys;
mod audit;
mod authorities;
mod deletion;
mod devices;
mod duplicates;
mod gallery_rotations;
mod idempotency;
mod index_rotations;
mod logins;
mod many_sites;
mod people;
mod pepper_rotations;
mod person_rotations;
mod platform_keys;
mod recognition;
mod reports;
mod restored;
mod rotations;
mod second_factors;
mod seed_rotations;
mod sessions;
mod signing_rotations;
mod snapshots;
#[path = "../support/mod.rs"]
mod support;
mod tenants;
mod token_keys;
mod tombstones;
mod vector_indexes;
mod vectors;

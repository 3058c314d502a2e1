//! The hub's rules, as pure functions and types.
//!
//! In: plain values and the time, as arguments. Out: what must be stored or sent. No I/O, no SQL, no clock, no
//! serde on the types (the API and the publisher convert). A crate of its own, so that nothing of the program around
//! them can be reached from here; the program calls it `domain`.
//!
//! How the hub's parts may import one another. All but the program's own modules are crates (which may name which, and what of
//! `host`: `tests/tests/arrows.rs`): `domain` imports none of them; `host`, `pki` and `limit` at most `domain` and `host`; `store` these
//! two; `keys` also `store`; `recognition` also `keys`; `api` all of these. Of the program's modules (a test over the sources) `ingest`,
//! `publish`, `notify`, `jobs` and `audit` import those and never one another; `wiring` all.
//! The keys in use ([`vault`]) are values and live here, so that `store` can seal what it writes; where keys
//! come from (files, the key store, wrapped rows) is the business of `keys`.

pub mod anchor;
pub mod api_key;
pub mod audit;
pub mod broker_password;
pub mod certificate;
pub mod claim;
pub mod command;
pub mod compaction;
pub mod cursor;
pub mod duplicate;
pub mod erasure;
pub mod event;
pub mod gallery;
pub mod healing;
pub mod idempotency;
pub mod ids;
pub mod index_key;
pub mod intrusion;
pub mod limit;
pub mod message;
pub mod people;
pub mod permission;
pub mod person_key;
pub mod platform;
pub mod recognition;
pub mod rest;
pub mod retry;
pub mod role;
pub mod rotation;
pub mod session;
pub mod settings;
pub mod tenant;
pub mod tenant_key;
pub mod token_key;
pub mod totp;
pub mod trace;
pub mod twin;
pub mod user;
pub mod vault;
pub mod verdict;

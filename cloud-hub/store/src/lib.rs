//! All SQL of the hub. Nothing else in the program speaks to Postgres.
//!
//! In: domain values and, for whatever is sealed, the keys in use ([`hub_domain::vault`]). Out: rows as plain
//! structs. A function that touches a tenant's rows takes a [`TenantTx`], which can only be had from
//! [`Database::tenant`]; that is what makes "one tenant per transaction" hold. Imports `domain`, and of `host` what counts and times.
//!
//! Deliberately absent: a way to run SQL without a tenant on a tenant's table. [`routes`] reads the two routing
//! tables, and the audit's sealer a third; they hold ids and times only.

mod database;
mod error;

pub mod anchors;
pub mod audit;
pub mod certificates;
pub mod claims;
pub mod commands;
pub mod consumers;
pub mod credentials;
pub mod devices;
pub mod erasure;
pub mod events;
pub mod galleries;
pub mod housekeeping;
pub mod idempotency;
pub mod leadership;
pub mod logins;
pub mod mark;
pub mod orders;
pub mod people;
pub mod person_seals;
pub mod places;
pub mod platform_keys;
pub mod reindexing;
pub mod rerotating;
pub mod resealing;
pub mod roles;
pub mod routes;
pub mod second_factors;
pub mod secrets;
pub mod sessions;
pub mod settings;
pub mod streams;
pub mod template_changes;
pub mod templates;
pub mod tenants;
pub mod token_keys;
pub mod twins;
pub mod users;
pub mod vector_indexes;
pub mod vectors;
pub mod webhooks;

pub use database::{Database, Listener, MIGRATIONS, Notice, TenantTx, Work, migrate};
pub use error::{Clash, StoreError};

/// The version of the schema that this program was written for: `migrations/0001_…`, `0002_…`, ...
pub const SCHEMA_VERSION: i32 = 39;

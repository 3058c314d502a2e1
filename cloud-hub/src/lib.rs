//! The cloud hub: tenants, people, templates, devices, audit and webhooks, and the edge galleries kept equal over MQTT.
//!
//! In: REST requests over TLS 1.3 and device messages over MQTT 5. Out: rows in Postgres (one transaction per batch of
//! events), sealed gallery records to the devices, signed webhooks, a live event stream. Deliberately absent: camera
//! work (the agent's) and any state between requests that is not in Postgres or the key store.

pub mod api;
pub mod audit;
mod chain;
pub mod cli;
pub mod clock;
pub mod config;
pub mod embedded;
pub mod ingest;
pub mod jobs;
pub mod keys;
pub mod limit;
pub mod metrics;
pub mod notify;
pub mod outbound;
pub mod pki;
pub mod publish;
pub mod recognition;
pub mod roster;
pub mod secret_file;
pub mod store;
pub mod traces;
pub mod wiring;

pub use hub_domain as domain;

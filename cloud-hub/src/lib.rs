//! The cloud hub: tenants, people, templates, devices, audit and webhooks, and the edge galleries kept equal over MQTT.
//!
//! In: REST requests over TLS 1.3 and device messages over MQTT 5. Out: rows in Postgres (one transaction per batch of
//! events), sealed gallery records to the devices, signed webhooks, a live event stream. Deliberately absent: camera
//! work (the agent's) and any state between requests that is not in Postgres or the key store.
//!
//! Its parts are crates in the folders beside `src`, under whose names they are found here; what is in this one puts them together:
//! batches of devices ([`ingest`]), what is told to devices and webhooks ([`publish`], [`notify`]), what is done meanwhile ([`jobs`],
//! [`audit`]), and the program ([`config`], [`cli`], [`wiring`]).

pub mod audit;
pub mod cli;
pub mod config;
pub mod ingest;
pub mod jobs;
pub mod notify;
pub mod publish;
pub mod wiring;

pub use hub_api as api;
pub use hub_domain as domain;
pub use hub_embedded as embedded;
pub(crate) use hub_host::chain;
pub use hub_host::{clock, metrics, outbound, secret_file, traces};
pub use hub_keys as keys;
pub use hub_limit as limit;
pub use hub_pki as pki;
pub use hub_recognition as recognition;
pub use hub_roster as roster;
pub use hub_store as store;

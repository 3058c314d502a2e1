//! Webhooks: signed deliveries to addresses that the hub may call, tried again until they arrive or are given up.
//!
//! In: delivery rows that the ingest transaction wrote. Out: HTTP requests, and the rows' new state. One process may
//! run many workers, and several hubs may share the work: rows are taken with a lock that the others skip.
//! Deliberately absent: order (receivers sort by `sequence`) and what receivers answer (only the status is kept).

pub mod client;
pub mod worker;

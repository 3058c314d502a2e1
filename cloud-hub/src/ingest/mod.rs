//! Events from devices: into Postgres once, whatever the network does, and only then acknowledged.
//!
//! In: messages on `up/evt`. Out: rows (events, deliveries, audit), each batch's in one transaction (which it may share with
//! others of its tenant), and, after its commit, an evtack. The edge empties its outbox on that evtack alone, therefore nothing
//! here may send one for something that is not committed: the ack is made from the committed row, read again after the commit.
//!
//! Deliberately absent: the broker (`publish` brings messages and takes acks away), and any memory of batches: one
//! integer per stream is the whole of it, in the database.

mod batch;
mod together;
mod worker;

pub use batch::{Ingest, Refused};
pub use worker::run;

//! Enrolments and deletions that race across a partition, played with the product's own ends and a network of dice.
//!
//! In: a seed for each interleaving, and what the edge is: the product's, or one that breaks a rule. Out: a [`Score`].
//!
//! - [`hub`]: the hub's domain, keys and store with a Postgres of its own, and the publisher's gallery desk. Everything but
//!   the broker between it and the edge.
//! - [`edge`]: the agent's galleries and receiver with the store on disk; and the edges that do wrong on purpose.
//! - [`game`]: what is done on both sides of the partition, what becomes of messages, and who should be known at the end.
//!
//! Messages are the sealed and authenticated bytes that would go over MQTT. Deliberately absent: the broker, TLS, the loop
//! of the agent's sync, and real time: both ends are given the time by the game.

pub mod edge;
pub mod game;
pub mod hub;

pub use edge::Kind;
pub use game::{Match, Score};

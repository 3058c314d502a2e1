//! The way of events from an edge to the hub as a game with dice: everything that happens follows from one seed.
//!
//! In: a seed, and what is [`Wrong`] on purpose. Out: a [`Game`]'s [`Score`]. The rules are the product's own: the edge's
//! `sync::sender` decides what goes out when, the hub's `domain::verdict` what becomes of a batch. The world around them is
//! a model: two disks that lose what was not synced, a broker that keeps nothing, a network that is late, loses, doubles
//! and reorders, and both ends that die at any step.
//!
//! - [`world`]: what can happen, when, and what it does.
//! - [`ends`]: the edge and the hub, each with its disk.
//!
//! Deliberately absent: keys, bytes, galleries, threads, and every clock but the game's.

mod ends;
mod world;

pub use world::{Game, Score};

/// What is wrong on purpose, for the controls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Nothing: the product's rules.
    Nothing,
    /// The hub acknowledges a batch before it has committed it.
    AckBeforeCommit,
    /// The hub stores whatever it is sent.
    NoVerdict,
    /// The edge gives an event up when the broker has taken it.
    BrokerBelieved,
    /// The edge sends what its disk has not confirmed.
    SentBeforeSync,
}

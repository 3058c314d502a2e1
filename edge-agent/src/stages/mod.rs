//! The line of a frame inside the agent: perceive → identify → decide → record.
//!
//! Each stage is a pure core, which takes the time as an argument and returns what should happen, and a thin driver,
//! which owns the core, its one input channel and the effects. The channels are made in `wiring.rs`; what a full one
//! means stands with the type that travels in it.

pub mod decide;
pub mod identify;
pub mod perceive;
pub mod record;

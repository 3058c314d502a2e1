//! What the rows break things with: nothing here knows a store or a protocol.

pub mod process;
pub mod random;

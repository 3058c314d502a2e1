//! What the rows break things with: nothing here knows a store or a protocol.

pub mod cgroup;
pub mod crash;
pub mod damage;
pub mod disk;
pub mod ledger;
pub mod plan;
pub mod process;
pub mod random;
pub mod record;
pub mod worker;

//! The fault lab: each row of the fault matrix as a program that injects the fault, counts it, and judges what is left.
//!
//! In: the real stores and programs, and the machine's own means of breaking things (signals, `strace`, loop mounts, control
//! groups). Out: one [`Outcome`] a row, the JSON line that `scripts/soak` prints. The same rows run with a small count in
//! `tests/` on every run of `scripts/test`.
//!
//! - [`row`]: what a row is, and what it needs of the machine.
//! - [`outcome`]: what a row counts, and the one place that decides whether it is in order.
//! - [`lab`]: a row's run: how often, where it stands after an interruption, progress.
//! - [`rows`]: the rows themselves.
//! - [`rig`]: what they break things with: disks, workers, processes under `strace`, damaged files.
//! - [`work`]: what the durability rows have the stores do meanwhile, and how they judge what is left.
//! - [`line`]: hub, fleet and the network between them, for the rows of the line.
//! - [`isolation`]: two tenants of one hub, one of which has something of everything.
//! - [`replicas`]: two hubs on one database, broker and store of limits.
//! - [`chain`]: an audit and somebody with all rights over its database.
//! - [`secrecy`]: what is sealed, keys that are replaced, and a disk that was stolen.
//! - [`sim`]: the way of events as a game by seed; [`replay`]: orders and wishes that are delivered again.
//!
//! Every row has a negative control, a broken variant that its own checker must catch, and counts the faults that were
//! really there: a row whose control did not fail, or whose fault was not injected, is not in order.
//! Rows are tests: they report with `anyhow`, since nobody acts upon the kind of their errors.
//!
//! Invariant: everything here touches only temporary directories, loopback, and mounts, namespaces and control groups that
//! it made itself, and ends only processes that it started.

pub mod chain;
pub mod isolation;
pub mod lab;
pub mod line;
pub mod outcome;
pub mod race;
pub mod replay;
pub mod replicas;
pub mod rig;
pub mod row;
pub mod rows;
pub mod secrecy;
pub mod sim;
pub mod work;

pub use lab::Lab;
pub use outcome::{Control, Outcome, Tally, Verdict};
pub use row::{Need, Row};

//! The whole line, seen from outside: frames go in at a camera, and a relay, a table and a webhook receiver are watched.
//!
//! In: the two release binaries and the parts that `scripts/setup` installed. Out: steps that were seen or were not.
//! Nothing here links the programs: they are started as a user starts them and judged by what a user can see. The
//! demo (`lintel-demo`) and the system tests in `tests/` stand on the same modules.
//!
//! - [`launcher`]: processes with random ports, their logs, and an end by process id.
//! - [`scene`]: what the camera sees; clips are made or cut with GStreamer at run time, never stored.
//! - [`watch`]: the relay's socket, the database, the webhook receiver's log.
//! - [`bench`]: figures of the running programs.
//! - [`story`]: the demo, step by step, and its figures.

pub mod bench;
pub mod launcher;
pub mod scene;
pub mod story;
pub mod watch;

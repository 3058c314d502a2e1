//! What anybody can see from outside: relay edges, rows, webhooks.

mod relay;
mod rows;
mod webhook;

pub use relay::{Edge, RelayWatch};
pub use rows::{EventRow, Rows};
pub use webhook::signature_is_valid;

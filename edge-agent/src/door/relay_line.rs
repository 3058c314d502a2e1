//! The JSON lines of a door's socket.
//!
//! First line: the present state. Then one line an edge. `schema` is 1; a reader ignores keys that it does not know.

use face_core::MonoTime;
use serde::Serialize;
use uuid::Uuid;

use super::{Order, RelayState};
use crate::clock::rfc3339_ms;

#[derive(Serialize)]
struct StateLine<'a> {
    schema: u32,
    door: &'a str,
    state: &'static str,
    at: String,
    monoms: u64,
    decision: Option<Uuid>,
}

#[derive(Serialize)]
struct EdgeLine<'a> {
    schema: u32,
    door: &'a str,
    edge: &'static str,
    at: String,
    monoms: u64,
    decision: Option<Uuid>,
}

/// The line that says what the relay does now; `at` and `decision` are those of the last edge.
pub(super) fn state_line(door: &str, state: RelayState, order: Order) -> String {
    let state = match state {
        RelayState::Locked => "locked",
        RelayState::Unlocked => "unlocked",
    };
    let (at, monoms) = (rfc3339_ms(order.utc), milliseconds(order.at));
    line(&StateLine { schema: 1, door, state, at, monoms, decision: order.decision })
}

/// The line of one edge into `state`.
pub(super) fn edge_line(door: &str, state: RelayState, order: Order) -> String {
    let edge = match state {
        RelayState::Locked => "lock",
        RelayState::Unlocked => "unlock",
    };
    let (at, monoms) = (rfc3339_ms(order.utc), milliseconds(order.at));
    line(&EdgeLine { schema: 1, door, edge, at, monoms, decision: order.decision })
}

fn milliseconds(at: MonoTime) -> u64 {
    at.as_nanos() / 1_000_000
}

fn line(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string(value).expect("plain values have a JSON form");
    text.push('\n');
    text
}

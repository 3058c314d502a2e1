//! Postgres: the pool, transactions and errors.

use std::time::Duration;

use super::{Label, Metric, QUICK_SECONDS};

const CONNECTIONS: Metric = Metric::gauge(
    "lintel_hub_database_connections",
    "Connections to Postgres, in use or idle.",
    &[Label { name: "state", values: &["used", "idle"] }],
);
const UP: Metric =
    Metric::gauge("lintel_hub_database_up", "1 if Postgres answered when this was asked for, else 0.", &[]);
const CONNECTIONS_MAX: Metric = Metric::gauge(
    "lintel_hub_database_connections_max",
    "Connections to Postgres at most ([database] max_connections).",
    &[],
);
const WAIT: Metric = Metric::histogram(
    "lintel_hub_database_wait_seconds",
    "Until a transaction had begun: the wait for a free connection and one round trip.",
    &[],
    QUICK_SECONDS,
);
const TRANSACTIONS: Metric = Metric::histogram(
    "lintel_hub_database_transaction_duration_seconds",
    "From a transaction's beginning to its end, by how it ended; a failed one was refused at its commit.",
    &[Label { name: "outcome", values: &["committed", "rolled_back", "failed"] }],
    QUICK_SECONDS,
);
const ERRORS: Metric = Metric::counter(
    "lintel_hub_database_errors_total",
    "Errors of Postgres or on the way to it: clash is a taken name or id, constraint another rule, busy no free connection in time, \
     connection a line that broke, cancelled a statement that took too long, conflict a deadlock or lost race.",
    &[Label { name: "kind", values: &["clash", "constraint", "busy", "connection", "cancelled", "conflict", "other"] }],
);

pub(super) const METRICS: &[Metric] = &[UP, CONNECTIONS, CONNECTIONS_MAX, WAIT, TRANSACTIONS, ERRORS];

/// How a transaction ended.
#[derive(Clone, Copy, Debug)]
pub enum Ended {
    /// Its work is there.
    Committed,
    /// Its work said no.
    RolledBack,
    /// The commit was refused, or its answer lost.
    Failed,
}

/// What went wrong.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Something unique is taken.
    Clash,
    /// Another rule of the schema.
    Constraint,
    /// No free connection in time.
    Busy,
    /// The line broke, or none could be made.
    Connection,
    /// A statement took too long.
    Cancelled,
    /// A deadlock, or a race that was lost.
    Conflict,
    /// Anything else.
    Other,
}

/// The pool as it is.
pub fn pool(size: u32, idle: usize, max: u32) {
    let idle = idle.min(size as usize) as f64;
    CONNECTIONS.set(&["used"], f64::from(size) - idle);
    CONNECTIONS.set(&["idle"], idle);
    CONNECTIONS_MAX.set(&[], f64::from(max));
}

/// Whether Postgres answers.
pub fn up(answers: bool) {
    UP.set(&[], f64::from(u8::from(answers)));
}

/// A transaction has begun.
pub fn begun(waited: Duration) {
    WAIT.observe(&[], waited.as_secs_f64());
}

/// A transaction has ended.
pub fn ended(how: Ended, took: Duration) {
    let outcome = match how {
        Ended::Committed => "committed",
        Ended::RolledBack => "rolled_back",
        Ended::Failed => "failed",
    };
    TRANSACTIONS.observe(&[outcome], took.as_secs_f64());
}

/// Something went wrong.
pub fn failed(fault: Fault) {
    let kind = match fault {
        Fault::Clash => "clash",
        Fault::Constraint => "constraint",
        Fault::Busy => "busy",
        Fault::Connection => "connection",
        Fault::Cancelled => "cancelled",
        Fault::Conflict => "conflict",
        Fault::Other => "other",
    };
    ERRORS.count(&[kind]);
}

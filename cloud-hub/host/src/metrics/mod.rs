//! What the hub counts and measures, for Prometheus.
//!
//! In: calls from the places where things happen, one typed function each. Out: the text that a scrape gets
//! ([`Exporter::render`]). Every metric stands in a table ([`all`]) with its unit and meaning; `docs/reference/metrics.md` is written
//! from it. Where no exporter is installed a call costs next to nothing, so that no caller asks whether there is one.
//!
//! The value of a label is a `&'static str` of a list that the table has: nothing that a caller sent, and no id of a tenant, a key
//! or a person, can become one, and the number of series is bounded. Deliberately absent: the listener and whatever is looked up
//! when somebody scrapes (`wiring`).

pub mod broker;
pub mod database;
mod exporter;
pub mod http;
pub mod hub;
mod metric;
pub mod recognition;
pub mod security;
#[cfg(test)]
mod tests;
pub mod traces;
pub mod webhooks;

pub use exporter::{Exporter, InUse};
pub use metric::{Kind, Label, Metric};

/// Every metric by what it is about.
#[must_use]
pub fn all() -> [(&'static str, &'static [Metric]); 8] {
    [
        ("HTTP", http::METRICS),
        ("Database", database::METRICS),
        ("Broker and ingest", broker::METRICS),
        ("Recognition, quality, liveness and caches", recognition::METRICS),
        ("Security, limits, usage and audit", security::METRICS),
        ("Webhooks", webhooks::METRICS),
        ("Traces", traces::METRICS),
        ("The hub and its process", hub::METRICS),
    ]
}

/// `hit` or `miss`.
const FOUND: &[&str] = &["hit", "miss"];

/// Buckets of what takes from a millisecond to the time limit of a request, in seconds; the specification's limits (0.1, 0.2,
/// 0.5 and 2) are among them.
const REQUEST_SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];
/// Buckets of what takes a fraction of a millisecond when all is well, in seconds.
const QUICK_SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0];

//! Spans of requests, on their way to a receiver.

use super::{Label, Metric};

const SPANS: Metric = Metric::counter(
    "lintel_hub_trace_spans_total",
    "Spans of requests: sent (the receiver has taken them), dropped (it refused them, or was away or slow for too long).",
    &[Label { name: "outcome", values: &["sent", "dropped"] }],
);

pub(super) const METRICS: &[Metric] = &[SPANS];

/// The receiver has taken spans.
pub fn sent(spans: u64) {
    SPANS.add(&["sent"], spans);
}

/// Spans are gone that nobody has taken.
pub fn dropped(spans: u64) {
    SPANS.add(&["dropped"], spans);
}

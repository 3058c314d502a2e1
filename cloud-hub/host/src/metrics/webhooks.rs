//! Deliveries to webhooks.

use std::time::Duration;

use super::{Label, Metric, REQUEST_SECONDS};

const ATTEMPTS: Metric = Metric::counter(
    "lintel_hub_webhook_attempts_total",
    "Attempts to deliver: delivered, or why not (gone ends the endpoint; status is any other answer).",
    &[Label {
        name: "outcome",
        values: &["delivered", "gone", "status", "address_not_allowed", "timeout", "connection"],
    }],
);
const GIVEN_UP: Metric =
    Metric::counter("lintel_hub_webhook_deliveries_given_up_total", "Deliveries that are not tried again.", &[]);
const DURATION: Metric = Metric::histogram(
    "lintel_hub_webhook_attempt_duration_seconds",
    "One attempt, from reading its keys to the receiver's answer.",
    &[],
    REQUEST_SECONDS,
);
const UNDER_WAY: Metric = Metric::gauge("lintel_hub_webhook_attempts_in_flight", "Attempts that are under way.", &[]);
const AGE: Metric = Metric::gauge(
    "lintel_hub_webhook_queue_age_seconds",
    "How long the delivery has been due that waits longest; 0 if none is due.",
    &[],
);

pub(super) const METRICS: &[Metric] = &[ATTEMPTS, GIVEN_UP, DURATION, UNDER_WAY, AGE];

/// An attempt that is under way, until it is dropped.
#[derive(Debug)]
pub struct UnderWay(());

/// An attempt begins.
#[must_use]
pub fn begin() -> UnderWay {
    UNDER_WAY.change(&[], 1.0);
    UnderWay(())
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        UNDER_WAY.change(&[], -1.0);
    }
}

/// An attempt has ended; `why_not` is empty if it was delivered.
pub fn attempted(why_not: &'static str, took: Duration) {
    ATTEMPTS.count(&[if why_not.is_empty() { "delivered" } else { why_not }]);
    DURATION.observe(&[], took.as_secs_f64());
}

/// A delivery is not tried again.
pub fn given_up() {
    GIVEN_UP.count(&[]);
}

/// How long the oldest delivery has been due.
pub fn queue_age(age: Duration) {
    AGE.set(&[], age.as_secs_f64());
}

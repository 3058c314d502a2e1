//! Requests to the API.

use std::time::Duration;

use super::{Label, Metric, REQUEST_SECONDS};

const METHODS: Label =
    Label { name: "method", values: &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"] };
/// The patterns of `api::access`, never a path: `none` is what no route matches.
const ROUTE: Label = Label { name: "route", values: &[] };
const STATUS: Label = Label { name: "status", values: &["1xx", "2xx", "3xx", "4xx", "5xx"] };

const REQUESTS: Metric = Metric::counter(
    "lintel_hub_http_requests_total",
    "Requests answered, by the pattern of their route (none: no route) and the class of their status.",
    &[METHODS, ROUTE, STATUS],
);
const DURATION: Metric = Metric::histogram(
    "lintel_hub_http_request_duration_seconds",
    "From a request's head to the head of its answer; what a live stream sends afterwards does not count.",
    &[METHODS, ROUTE],
    REQUEST_SECONDS,
);
const IN_FLIGHT: Metric =
    Metric::gauge("lintel_hub_http_requests_in_flight", "Requests that are being worked on.", &[]);
const PANICS: Metric = Metric::counter(
    "lintel_hub_http_handler_panics_total",
    "Requests answered with 500 because the code that worked on them panicked.",
    &[],
);
const CONNECTIONS: Metric =
    Metric::gauge("lintel_hub_http_connections", "Open connections to the API's listener.", &[]);
const NOT_ADMITTED: Metric = Metric::counter(
    "lintel_hub_http_connections_refused_total",
    "Connections closed at once because there were too many, in all or from one address.",
    &[],
);
const HANDSHAKES: Metric = Metric::counter(
    "lintel_hub_http_tls_handshakes_failed_total",
    "Connections that ended before their TLS handshake was complete.",
    &[],
);

pub(super) const METRICS: &[Metric] = &[REQUESTS, DURATION, IN_FLIGHT, PANICS, CONNECTIONS, NOT_ADMITTED, HANDSHAKES];

/// A request that is being worked on, until it is dropped.
#[derive(Debug)]
pub struct UnderWay(());

/// A request begins.
#[must_use]
pub fn begin() -> UnderWay {
    IN_FLIGHT.change(&[], 1.0);
    UnderWay(())
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        IN_FLIGHT.change(&[], -1.0);
    }
}

/// A request was answered. `route` is the pattern that it matched, out of the table of routes.
pub fn answered(method: &str, route: &'static str, status: u16, took: Duration) {
    let method = METHODS.values.iter().find(|known| **known == method).copied().unwrap_or("other");
    let status = match status {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    };
    REQUESTS.count(&[method, route, status]);
    DURATION.observe(&[method, route], took.as_secs_f64());
}

/// A handler panicked.
pub fn panicked() {
    PANICS.count(&[]);
}

/// An open connection, until it is dropped.
#[derive(Debug)]
pub struct Connection(());

/// A connection was accepted.
#[must_use]
pub fn connected() -> Connection {
    CONNECTIONS.change(&[], 1.0);
    Connection(())
}

impl Drop for Connection {
    fn drop(&mut self) {
        CONNECTIONS.change(&[], -1.0);
    }
}

/// A connection was closed for want of room.
pub fn not_admitted() {
    NOT_ADMITTED.count(&[]);
}

/// A TLS handshake failed or took too long.
pub fn handshake_failed() {
    HANDSHAKES.count(&[]);
}

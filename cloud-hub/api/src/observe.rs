//! The outermost layer: a request id and a place in a trace, one log line and one span a request, what is counted of it, and problems
//! written out.
//!
//! Deliberately absent from log and span: bodies, query strings, and paths with ids of people in them (the route's pattern
//! is told instead).

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::middleware::Next;
use tracing::Instrument as _;
use wire_contract::{Code, Problem, problem};

use super::access::{NO_ROUTE, pattern_of};
use super::problem::Unwritten;
use hub_domain::trace::{self, Trace};
use hub_host::clock::Clock;
use hub_host::metrics::http as measured;
use hub_host::traces::{Traces, within};

const REQUEST_ID: &str = "x-request-id";
const TRACE_PARENT: &str = "traceparent";
const TRACE_STATE: &str = "tracestate";
/// Longer ids of clients are replaced: they would only fill the log.
const MAX_REQUEST_ID: usize = 64;

/// Wraps every route.
pub(super) async fn observe(
    State((clock, traces)): State<(Clock, Traces)>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let id = request_id(&request, &clock);
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let route = pattern_of(request.extensions().get::<MatchedPath>().map(MatchedPath::as_str));
    let begun = tokio::time::Instant::now();
    let (trace, state) = trace_of(request.headers());
    // The level of errors: whatever is logged of the request has these fields, however little is logged.
    let span = tracing::error_span!(
        "request",
        request_id = %id,
        trace_id = trace.trace_id(),
        span_id = trace.span_id(),
        client_id = tracing::field::Empty,
        user_id = tracing::field::Empty,
    );
    let trace = traces.decided(trace);
    let (recording, version) = (traces.begin(trace, clock.now()), request.version());
    let under_way = measured::begin();
    let mut response = within(recording.as_ref(), next.run(request)).instrument(span.clone()).await;
    drop(under_way);
    let status = response.status().as_u16();
    let took = begun.elapsed();
    measured::answered(method.as_str(), route, status, took);
    let processing_time = took.as_secs_f64();
    // Probes come every few seconds and say nothing unless they fail.
    let well = route.starts_with("/health") && status < 400;
    if let Some(recording) = recording.filter(|_| !well) {
        recording.end(method.as_str(), Some(route).filter(|route| *route != NO_ROUTE), status, version);
    }
    span.in_scope(|| {
        if well {
            tracing::debug!(component = "api", event = "request", %method, route, status, processing_time);
        } else {
            tracing::info!(component = "api", event = "request", %method, route, status, processing_time);
        }
    });
    if let Some(Unwritten(problem)) = response.extensions_mut().remove() {
        write(&mut response, *problem, path, &id);
    } else if is_bare_error(&response) {
        let code = bare_code(response.status());
        write(&mut response, Problem::of(code), path, &id);
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    if let Ok(value) = HeaderValue::from_str(&trace.to_string()) {
        response.headers_mut().insert(TRACE_PARENT, value);
    }
    if let Some(value) = state.and_then(|state| HeaderValue::from_str(&state).ok()) {
        response.headers_mut().insert(TRACE_STATE, value);
    }
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// The request's place in a trace, and what is passed on beside it.
fn trace_of(headers: &HeaderMap) -> (Trace, Option<String>) {
    // One header, or none: of two nobody knows which is meant.
    let mut parents = headers.get_all(TRACE_PARENT).iter();
    let parent = parents.next().filter(|_| parents.next().is_none()).and_then(|value| value.to_str().ok());
    let states: Result<Vec<&str>, _> = headers.get_all(TRACE_STATE).iter().map(HeaderValue::to_str).collect();
    let state = states.map(|states| states.join(",")).unwrap_or_default();
    let state = (!state.is_empty() && trace::passes_on(parent, &state)).then_some(state);
    (Trace::of(parent, rand::random()), state)
}

fn request_id(request: &Request, clock: &Clock) -> String {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let fine = |id: &&str| {
        !id.is_empty()
            && id.len() <= MAX_REQUEST_ID
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    given.filter(fine).map_or_else(|| clock.new_id().to_string(), str::to_owned)
}

fn write(response: &mut Response<Body>, mut problem: Problem, path: String, id: &str) {
    problem.instance = Some(path);
    problem.trace_id = Some(id.to_owned());
    // Layers below answer some errors with their own status; what is written must agree with it.
    problem.status = response.status().as_u16();
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    *response.body_mut() = Body::from(body);
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(problem::MEDIA_TYPE));
}

/// An error that a layer or the router answered in its own words.
fn is_bare_error(response: &Response<Body>) -> bool {
    let json = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.to_str().is_ok_and(|kind| kind.starts_with("application/") && kind.contains("json")));
    (response.status().is_client_error() || response.status().is_server_error()) && !json
}

fn bare_code(status: StatusCode) -> Code {
    match status {
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => Code::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE => Code::PayloadTooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::UnsupportedMediaType,
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => Code::Timeout,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        status if status.is_client_error() => Code::InvalidRequest,
        _ => Code::Internal,
    }
}

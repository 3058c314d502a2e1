//! Recognition over photographs and templates: what is on a picture ([`pictures`]), whether two are one person ([`pair`]), who of
//! the tenant's people it is ([`people`]).
//!
//! Work on pictures has the models' bounded queue, comparisons a bounded one of their own; neither is done on an async worker, and
//! a full queue is answered at once. Each use is in the audit, with the decision and without pictures, vectors or names.

pub(super) mod answers;
pub(super) mod input;
pub(super) mod pair;
pub(super) mod people;
pub(super) mod pictures;
pub(super) mod policy;
mod probe;

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;
use wire_contract::Code;

use super::auth::Caller;
use super::enrolments::RETRY_AFTER_SECONDS;
use super::problem::ApiError;
use super::state::Api;
use hub_host::metrics::recognition as measured;
use hub_recognition::uses::Use;
use hub_store::audit::Action;

const IMAGE: &str = "image";

macro_rules! fields {
    ($name:ident: $($known:literal),* ; $($required:literal),*) => {
        impl crate::body::Fields for $name {
            const KNOWN: &'static [&'static str] = &[$($known),*];
            const REQUIRED: &'static [&'static str] = &[$($required),*];
        }
    };
}
use fields;

/// Counts requests for recognition and how long they take. Stands before the routes with photographs.
pub(super) async fn measure(request: Request, next: Next) -> Response {
    let operation = request.extensions().get::<MatchedPath>().and_then(|path| operation(path.as_str()));
    let operation = operation.filter(|_| request.method() == Method::POST);
    let begun = Instant::now();
    let response = next.run(request).await;
    if let Some(operation) = operation {
        measured::ran(operation, response.status().as_u16(), begun.elapsed());
    }
    response
}

fn operation(pattern: &str) -> Option<&'static str> {
    Some(match pattern {
        "/v1/people/{id}/enrolments" => "enrol",
        "/v1/people/{id}/negative-anchors" => "anchor",
        "/v1/recognition/detect" => "detect",
        "/v1/recognition/quality" => "quality",
        "/v1/recognition/liveness" => "liveness",
        "/v1/recognition/embed" => "embed",
        "/v1/recognition/compare" => "compare",
        "/v1/recognition/verify" => "verify",
        "/v1/recognition/identify" => "identify",
        "/v1/recognition/search" => "search",
        _ => return None,
    })
}

/// Counts a decision, and tells the log what it rests on: the specification's `confidence`.
fn decided(operation: &'static str, why_not: Option<Code>, score: Option<f32>) {
    let why_not = why_not.map(Code::as_str);
    measured::decided(operation, why_not);
    let (decision, confidence) = (why_not.unwrap_or("yes"), score.map(f64::from));
    tracing::info!(event = "face_compared", operation, decision, confidence);
}

/// Writes a use of recognition into the audit. Without it there is no answer.
async fn note(api: &Api, caller: &Caller, action: Action, person: Option<Uuid>, detail: Value) -> Result<(), ApiError> {
    let noted = Use { tenant: caller.tenant, actor: caller.actor(), action, person, detail };
    api.uses.note(noted).await.map_err(|_| {
        ApiError::because(Code::Unavailable, "the audit cannot be written at present").retry_after(RETRY_AFTER_SECONDS)
    })
}

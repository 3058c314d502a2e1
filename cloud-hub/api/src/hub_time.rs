//! `POST /v1/time`: what time it is, signed, for devices that cannot believe their own clock.
//!
//! In: a nonce. Out: it and the time, under the key that devices pin at their claim. Anybody may ask, with or without a
//! certificate: a device that needs the time may hold one whose dates it cannot judge, and the answer says nothing but
//! the time. Each address and all together have a budget. No database: a device at a door should not wait for one.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use wire_contract::{HubTime, HubTimeRequest};

use super::body::{Fields, Json};
use super::limits;
use super::openapi::wire;
use super::peer::Peer;
use super::problem::ApiError;
use super::state::Api;
use hub_domain::limit::Rate;
use hub_limit::{Asked, Bucket};

/// A site of five hundred doors behind one address starts after a power cut; a device asks once, and ever more slowly
/// when it is not answered.
fn each() -> Asked {
    Asked { bucket: Bucket::Time, rate: Rate::new(64, Duration::from_secs(1), 512) }
}

/// A signature takes some 20 µs of a processor; the TLS handshake before it a multiple.
fn all() -> Asked {
    Asked { bucket: Bucket::TimeOfAll, rate: Rate::new(512, Duration::from_secs(1), 4096) }
}

impl Fields for HubTimeRequest {
    const KNOWN: &'static [&'static str] = &["v", "nonce"];
    const REQUIRED: &'static [&'static str] = Self::KNOWN;
}

#[utoipa::path(
    post, path = "/v1/time", operation_id = "tell_time", tag = "for devices",
    summary = "The hub's time, signed",
    description = "For devices that cannot believe their own clock. The answer is to one nonce.",
    request_body = wire::HubTimeRequest,
    responses(
        (status = 200, description = "The time", body = wire::HubTime),
        (status = 429, description = "`rate_limited`: this address, or all together, ask too often."),
    ),
)]
pub(super) async fn tell(
    State(api): State<Arc<Api>>,
    Extension(peer): Extension<Peer>,
    Json(request): Json<HubTimeRequest>,
) -> Result<([(HeaderName, HeaderValue); 1], axum::Json<HubTime>), ApiError> {
    limits::take_free(&api, peer.address.ip(), each(), all())?;
    let time = api.custody.keyring().signing().tell_time(request.nonce, api.clock.now());
    Ok(([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], axum::Json(time)))
}

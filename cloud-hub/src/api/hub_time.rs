//! `POST /v1/time`: what time it is, signed, for devices that cannot believe their own clock.
//!
//! In: a nonce. Out: it and the time, under the key that devices pin at their claim. Anybody may ask, with or without a
//! certificate: a device that needs the time may hold one whose dates it cannot judge, and the answer says nothing but
//! the time. Each address and all together have a budget. No database: a device at a door should not wait for one.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use parking_lot::Mutex;
use wire_contract::{Code, HubTime, HubTimeRequest};

use super::body::{Fields, Json};
use super::listener::group;
use super::peer::Peer;
use super::problem::ApiError;
use super::state::Api;
use crate::domain::budget::{Budget, Rate};

/// A site of five hundred doors behind one address starts after a power cut; a device asks once, and ever more slowly
/// when it is not answered.
const EACH: Rate = Rate { burst: 512.0, per_second: 64.0 };
/// A signature takes some 20 µs of a processor; the TLS handshake before it a multiple.
const ALL: Rate = Rate { burst: 4096.0, per_second: 512.0 };

impl Fields for HubTimeRequest {
    const KNOWN: &'static [&'static str] = &["v", "nonce"];
    const REQUIRED: &'static [&'static str] = Self::KNOWN;
}

/// The budget of those who ask.
#[derive(Debug, Clone)]
pub(super) struct Askers(Arc<Mutex<Budget>>);

impl Default for Askers {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Budget::new(EACH, ALL))))
    }
}

impl Askers {
    fn admit(&self, address: IpAddr, api: &Api) -> Result<(), ApiError> {
        self.0.lock().take(group(address), api.clock.now()).map_err(|wait| {
            let seconds = u32::try_from(wait.whole_seconds() + 1).unwrap_or(u32::MAX);
            ApiError::of(Code::RateLimited).retry_after(seconds)
        })
    }
}

pub(super) async fn tell(
    State(api): State<Arc<Api>>,
    Extension(askers): Extension<Askers>,
    Extension(peer): Extension<Peer>,
    Json(request): Json<HubTimeRequest>,
) -> Result<([(HeaderName, HeaderValue); 1], axum::Json<HubTime>), ApiError> {
    askers.admit(peer.address.ip(), &api)?;
    let time = api.custody.keyring().signing().tell_time(request.nonce, api.clock.now());
    Ok(([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], axum::Json(time)))
}

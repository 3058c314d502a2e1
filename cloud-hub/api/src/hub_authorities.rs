//! Other authorities in the places of the two that issue the certificates of devices and servers, while everybody goes on.
//!
//! In: an order; where several hubs share the authorities, one for each of them; later, when the operator says so, the end of the one before.
//! Out: whoever holds a certificate of either is let in meanwhile, by the listener and by the broker. Order matters: the next authority is
//! believed everywhere before it issues anything. A hub that is killed believes both when it starts, and the order is given again.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use wire_contract::Code;

use super::body::Fields;
use super::problem::ApiError;
use super::rotations::{self, SharedRotation};
use super::state::Api;
use hub_pki::{Pki, PkiError};

/// The broker has read its files anew by then: it is told at once, and once more two seconds later, which is what counts if it was
/// reading just then.
const BROKER_HAS_READ: Duration = Duration::from_millis(2_500);

/// What is said about the end of the authority before.
#[derive(Debug, Deserialize)]
pub(super) struct AuthorityEnd {
    /// How many devices are to be claimed anew after it; without it that is only told.
    #[serde(default)]
    confirm: Option<u64>,
}

impl Fields for AuthorityEnd {
    const KNOWN: &'static [&'static str] = &["confirm"];
    const REQUIRED: &'static [&'static str] = &[];
}

/// Replaces the authorities. Where several hubs share them, the first call makes the next ones, which are to be copied to all of them; with
/// `copied` they take the places of the present ones. Alone, both happen at once.
pub(super) async fn rotate(api: &Api, rotation: &SharedRotation) -> Result<Value, ApiError> {
    let (copied, now) = (rotation.copied, api.clock.now());
    files(api, move |pki| if copied { pki.look_again().map(drop) } else { pki.prepare_next(now) }).await?;
    let next = api.pki.next_device_issuer().ok_or(PkiError::NoNext)?;
    refresh(api).await?;
    if !copied && api.custody.has_others_beside() {
        return rotations::show(api).await;
    }
    tokio::time::sleep(BROKER_HAS_READ).await;
    // Told before it is done: if the hub is killed in between, the order is given and told once more.
    let before = api.pki.device_issuer();
    if next != before {
        api.custody.tell_of_authority(next, before).await?;
    }
    files(api, Pki::switch).await?;
    tracing::info!(
        event = "authorities_switched",
        authority = %hex::encode(next),
        before = %hex::encode(before),
        "other authorities issue certificates; devices follow as they renew theirs"
    );
    refresh(api).await?;
    rotations::show(api).await
}

/// Believes the device authority before no more, if as many devices as were confirmed are to be claimed anew.
pub(super) async fn retire(api: &Api, end: &AuthorityEnd) -> Result<Value, ApiError> {
    let before = api.pki.device_issuer_before().ok_or(PkiError::NoneBefore)?;
    let issuer = api.pki.device_issuer();
    let left = api.custody.devices_of_other_authorities(issuer).await?;
    if end.confirm != Some(left) {
        if end.confirm.is_none() {
            return Ok(json!({ "devices": left, "retired": false }));
        }
        let detail = format!("{left} devices would have to be claimed again; with --confirm {left} they do");
        return Err(ApiError::because(Code::Conflict, detail));
    }
    let ended = api.custody.end_other_authorities(issuer, before).await?;
    files(api, Pki::retire_before).await?;
    tracing::info!(
        event = "authority_retired",
        authority = %hex::encode(before),
        devices = ended.len(),
        "the device authority before is believed no more and was destroyed"
    );
    refresh(api).await?;
    for device in ended {
        api.broker.end_session(device).await;
    }
    Ok(json!({ "devices": left, "retired": true }))
}

/// How many devices have not renewed their certificates since the authority was replaced; `None` if none is before.
pub(super) async fn left(api: &Api) -> Result<Option<u64>, ApiError> {
    if api.pki.device_issuer_before().is_none() {
        return Ok(None);
    }
    Ok(Some(api.custody.devices_of_other_authorities(api.pki.device_issuer()).await?))
}

async fn files(api: &Api, step: impl FnOnce(&Pki) -> Result<(), PkiError> + Send + 'static) -> Result<(), ApiError> {
    let pki = Arc::clone(&api.pki);
    let done = tokio::task::spawn_blocking(move || step(&pki)).await;
    Ok(done.map_err(|error| ApiError::internal(&error))??)
}

async fn refresh(api: &Api) -> Result<(), ApiError> {
    api.broker.refresh_authorities().await.map_err(|error| ApiError::internal(&error))
}

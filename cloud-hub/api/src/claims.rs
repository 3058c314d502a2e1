//! What devices call: the claim that gives them an identity, and the link keys that go with it.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;
use wire_contract::claim::{BrokerAddress, ClaimRequest};
use wire_contract::encoding::{SecretBytes, V1};
use wire_contract::{ClaimAnswer, Code, LinkAnswer};

use super::auth::CallingDevice;
use super::body::{Fields, Json};
use super::openapi::wire;
use super::problem::ApiError;
use super::state::Api;
use hub_domain::ids::{ClaimId, DeviceId, TenantId};
use hub_keys::{Claimed, LinkGallery, Redeemed};
use hub_pki::DeviceRequest;

impl Fields for ClaimRequest {
    const KNOWN: &'static [&'static str] = &["v", "claim_id", "secret", "serial", "csr"];
    const REQUIRED: &'static [&'static str] = Self::KNOWN;
}

/// `POST /v1/claims`: the first key that shows the secret in time gets the identity; the same key may ask again.
#[utoipa::path(
    post, path = "/v1/claims", operation_id = "claim_device", tag = "for devices",
    summary = "Claim an identity",
    description = "The first key that shows the secret in time gets the identity; the same key may ask again. The token is the proof.",
    request_body = wire::ClaimRequest,
    responses(
        (status = 200, description = "The certificate, and what to pin", body = wire::ClaimAnswer),
        (status = 404, description = "`claim_unknown`: no such claim, or the secret is wrong."),
        (status = 409, description = "`claim_used`: another key has used it."),
        (status = 410, description = "`claim_expired`: its time is over."),
        (status = 422, description = "`csr_invalid`: the certificate request is not one that is taken."),
        (status = 503, description = "`unavailable`: the database does not answer."),
    ),
)]
pub(super) async fn claim(
    State(api): State<Arc<Api>>,
    Json(request): Json<ClaimRequest>,
) -> Result<(StatusCode, axum::Json<ClaimAnswer>), ApiError> {
    request
        .check()
        .map_err(|error| ApiError::field(format!("/{}", error.field), Code::InvalidField, error.to_string()))?;
    let csr =
        DeviceRequest::parse(&request.csr).map_err(|error| ApiError::because(Code::CsrInvalid, error.to_string()))?;
    let id = ClaimId(request.claim_id.0);
    let redeemed = api.custody.redeem_claim(id, request.secret.expose(), csr.spki_sha256()).await?;
    let (tenant, device) = match redeemed {
        Redeemed::Accepted(tenant, device) => (tenant, device),
        Redeemed::Unknown => return Err(refused(id, Code::ClaimUnknown)),
        Redeemed::Expired => return Err(refused(id, Code::ClaimExpired)),
        Redeemed::Used => return Err(refused(id, Code::ClaimUsed)),
    };
    let issued = api.pki.issue_device(csr, device, api.clock.now()).map_err(|error| ApiError::internal(&error))?;
    let claimed = Claimed { hardware_serial: request.serial, certificate: issued.certificate };
    let admitting = Arc::clone(&api);
    // A task of its own: a device that goes away must not leave the registry and the broker in disagreement.
    let admitted = tokio::spawn(async move { admit(&admitting, tenant, device, claimed).await }).await;
    admitted.map_err(|error| ApiError::internal(&error))??;
    tracing::info!(event = "device_claimed", client_id = %tenant, device = %device, "a device has claimed its identity");
    Ok((StatusCode::OK, axum::Json(answer(&api, tenant, device, issued.chain_pem, id.0))))
}

/// Notes the certificate, writes the access lines, and ends whatever session an older identity has.
async fn admit(api: &Api, tenant: TenantId, device: DeviceId, claimed: Claimed) -> Result<(), ApiError> {
    api.custody.device_claimed(tenant, device, claimed).await?;
    // Before the answer: the device may connect the moment it has it.
    api.broker.refresh().await.map_err(|error| ApiError::internal(&error))?;
    api.broker.end_session(device).await;
    Ok(())
}

fn refused(claim: ClaimId, code: Code) -> ApiError {
    tracing::warn!(event = "claim_refused", claim = %claim, reason = %code, "a claim was refused");
    ApiError::of(code)
}

/// What a device needs to know; the time in it is signed for `nonce`.
pub(super) fn answer(api: &Api, tenant: TenantId, device: DeviceId, chain_pem: String, nonce: Uuid) -> ClaimAnswer {
    let signing = api.custody.keyring().signing();
    ClaimAnswer {
        v: V1,
        tenant: wire_contract::TenantId(tenant.0),
        device: wire_contract::DeviceId(device.0),
        certificate_chain: chain_pem,
        root: api.pki.root_pem().to_owned(),
        hub_keys: signing.valid(),
        hub_url: api.settings.public_url.clone(),
        broker: BrokerAddress { host: api.settings.broker_host.clone(), port: api.settings.broker_port },
        server_time: signing.sign_time(nonce, api.clock.now()),
        successions: signing.successions().to_vec(),
    }
}

/// What may be in the query of the link.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct LinkQuery {
    /// What the time in the answer is signed for; the device id without it.
    nonce: Option<Uuid>,
}

/// `GET /v1/device/link`: the present link key, the galleries of the device with their keys, the hub's time.
#[utoipa::path(
    get, path = "/v1/device/link", operation_id = "get_device_link", tag = "for devices",
    summary = "Link key and galleries",
    description = "The present link key, the keys of the device's galleries, and the hub's time.",
    params(LinkQuery),
    responses(
        (status = 200, description = "The keys", body = wire::LinkAnswer),
    ),
)]
pub(super) async fn link(
    State(api): State<Arc<Api>>,
    caller: CallingDevice,
    Query(query): Query<LinkQuery>,
) -> Result<axum::Json<LinkAnswer>, ApiError> {
    let material = api.custody.link(caller.tenant, caller.device).await?;
    let gallery = |held: &LinkGallery| wire_contract::link::LinkGallery {
        gallery: wire_contract::GalleryId(held.gallery.0),
        epoch: held.epoch,
        gdk: SecretBytes::new(*held.gdk),
        ck: SecretBytes::new(*held.ck),
    };
    let signing = api.custody.keyring().signing();
    Ok(axum::Json(LinkAnswer {
        v: V1,
        link_epoch: material.link_epoch,
        link_key: SecretBytes::new(*material.link_key),
        hub_epoch: material.hub_epoch,
        galleries: material.galleries.iter().map(gallery).collect(),
        server_time: signing.sign_time(query.nonce.unwrap_or(caller.device.0), api.clock.now()),
        successions: signing.successions().to_vec(),
    }))
}

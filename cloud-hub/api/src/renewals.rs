//! `POST /v1/device/renewal`: a device's next certificate, for a new key, before the present one ends.
//!
//! In: the device's certificate, present or ended up to thirty days ago, and a request for another key. Out: the same
//! answer as to a claim. Until the device shows the new certificate the present one stays good; when it does, the
//! present one ends ([`super::auth`]). Deliberately absent: when to renew, which is the device's to know.

use std::sync::Arc;

use axum::extract::State;
use wire_contract::{ClaimAnswer, Code, RenewalRequest};

use super::auth::RenewingDevice;
use super::body::{Fields, Json};
use super::claims;
use super::openapi::wire;
use super::problem::ApiError;
use super::state::Api;
use hub_pki::DeviceRequest;

impl Fields for RenewalRequest {
    const KNOWN: &'static [&'static str] = &["v", "csr", "nonce"];
    const REQUIRED: &'static [&'static str] = &["v", "csr"];
}

#[utoipa::path(
    post, path = "/v1/device/renewal", operation_id = "renew_device_certificate", tag = "for devices",
    summary = "The next certificate",
    description = "For a new key. The present certificate stays good until the next one is shown; one that ended lately may still renew itself.",
    request_body = wire::RenewalRequest,
    responses(
        (status = 200, description = "As to a claim", body = wire::ClaimAnswer),
        (status = 422, description = "`csr_invalid`: the certificate request is not one that is taken, or for the present key."),
    ),
)]
pub(super) async fn renew(
    State(api): State<Arc<Api>>,
    RenewingDevice(caller): RenewingDevice,
    Json(request): Json<RenewalRequest>,
) -> Result<axum::Json<ClaimAnswer>, ApiError> {
    request
        .check()
        .map_err(|error| ApiError::field(format!("/{}", error.field), Code::InvalidField, error.to_string()))?;
    let csr =
        DeviceRequest::parse(&request.csr).map_err(|error| ApiError::because(Code::CsrInvalid, error.to_string()))?;
    let issued =
        api.pki.issue_device(csr, caller.device, api.clock.now()).map_err(|error| ApiError::internal(&error))?;
    let expires_at = issued.certificate.expires_at;
    if !api.custody.certificate_offered(caller.tenant, caller.device, issued.certificate).await? {
        return Err(ApiError::because(
            Code::CsrInvalid,
            "a renewal needs a new key; this one is the present certificate's",
        ));
    }
    tracing::info!(event = "certificate_offered", client_id = %caller.tenant, device = %caller.device, %expires_at, "a device renews its certificate");
    let nonce = request.nonce.unwrap_or(caller.device.0);
    Ok(axum::Json(claims::answer(&api, caller.tenant, caller.device, issued.chain_pem, nonce)))
}

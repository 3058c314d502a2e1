//! Who calls: an API key (`Authorization: ApiKey id:secret`) or a device (its certificate). Checked here and nowhere else; what a
//! key may then do is [`access`](super::access)'s.
//!
//! An API key is looked up by its id, and its secret's MAC under the hub's pepper is compared in constant time. A device's certificate was verified by the handshake; here its
//! serial must be the registry's present one, or the one that a renewal offered, on every request, so that a replaced or
//! revoked certificate ends at once.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use wire_contract::Code;

use super::limits;
use super::peer::Peer;
use super::problem::ApiError;
use super::state::Api;
use crate::domain::api_key::ApiKey;
use crate::domain::certificate::{Held, Shown, Standing, standing};
use crate::domain::ids::{ApiKeyId, DeviceId, TenantId};
use crate::domain::permission::Permissions;
use crate::domain::tenant::Agreement;
use crate::store::devices::DeviceState;
use crate::store::{devices, routes};

/// A caller with an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Caller {
    /// Whose data this is about.
    pub(super) tenant: TenantId,
    /// Which key.
    pub(super) key: ApiKeyId,
    /// What it may do.
    pub(super) permissions: Permissions,
    /// How many requests an hour it may ask, if not as many as its tenant.
    pub(super) requests_per_hour: Option<u32>,
    /// What was agreed upon with its tenant.
    pub(super) agreement: Agreement,
}

/// A caller with a device's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CallingDevice {
    /// Whose device.
    pub(super) tenant: TenantId,
    /// Which.
    pub(super) device: DeviceId,
}

impl Caller {
    /// As audit entries name it.
    pub(super) fn actor(&self) -> String {
        format!("api_key:{}", self.key)
    }
}

impl FromRequestParts<Arc<Api>> for Caller {
    type Rejection = ApiError;

    /// Whoever [`access`](super::access) has let in; nobody on a route that takes no API key.
    async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().copied().ok_or_else(|| ApiError::of(Code::Unauthorized))
    }
}

impl FromRequestParts<Arc<Api>> for CallingDevice {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        match calling(parts, api).await? {
            (caller, Standing::Ended) => {
                tracing::warn!(event = "device_refused", client_id = %caller.tenant, device = %caller.device, "its certificate has ended; it may only renew it");
                Err(ApiError::of(Code::CertificateExpired))
            }
            (caller, _) => Ok(caller),
        }
    }
}

/// A device whose certificate is good for its renewal at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RenewingDevice(pub(super) CallingDevice);

impl FromRequestParts<Arc<Api>> for RenewingDevice {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        calling(parts, api).await.map(|(caller, _)| Self(caller))
    }
}

/// The device behind a certificate, and what the certificate is worth: anything but nothing.
async fn calling(parts: &Parts, api: &Arc<Api>) -> Result<(CallingDevice, Standing), ApiError> {
    let shown = parts.extensions.get::<Peer>().and_then(|peer| peer.device.clone());
    let shown = shown.ok_or_else(|| ApiError::because(Code::Unauthorized, "a device certificate is needed"))?;
    let refused = || ApiError::of(Code::DeviceRevoked);
    let tenant = routes::tenant_of_device(&api.db, shown.id).await?.ok_or_else(refused)?;
    let device = api.db.tenant(tenant, move |tx| Box::pin(devices::get(tx, shown.id))).await?;
    let held = Held {
        claimed: device.state == DeviceState::Claimed,
        present: device.certificate_serial.as_deref(),
        next: device.next_certificate_serial.as_deref(),
    };
    let caller = CallingDevice { tenant, device: device.id };
    let standing = standing(held, Shown { serial: &shown.serial, expires_at: shown.expires_at }, api.clock.now());
    match standing {
        Standing::Nothing => {
            tracing::warn!(event = "device_refused", client_id = %tenant, device = %device.id, "an old or revoked certificate was shown");
            return Err(refused());
        }
        Standing::Next => take_up(api, caller, shown.serial).await?,
        Standing::Present | Standing::Ended => {}
    }
    Ok((caller, standing))
}

/// The first use of a renewed certificate ends the one before, here and at the broker.
async fn take_up(api: &Arc<Api>, caller: CallingDevice, serial: String) -> Result<(), ApiError> {
    let api = Arc::clone(api);
    // A task of its own: a device that goes away must not leave the registry and the broker in disagreement.
    let taken_up = tokio::spawn(async move {
        if !api.custody.certificate_taken_up(caller.tenant, caller.device, serial).await? {
            return Ok(());
        }
        tracing::info!(event = "certificate_renewed", client_id = %caller.tenant, device = %caller.device, "a device uses its next certificate; the one before has ended");
        api.broker.refresh().await.map_err(|error| ApiError::internal(&error))
    })
    .await;
    taken_up.map_err(|error| ApiError::internal(&error))?
}

impl Api {
    /// The caller behind the request's API key. Unknown, wrong, revoked and expired keys are told nothing of what they are.
    pub(super) async fn caller(&self, headers: &HeaderMap, address: IpAddr) -> Result<Caller, ApiError> {
        limits::admit_address(self, address)?;
        let unauthorized = || ApiError::of(Code::Unauthorized);
        let header = headers.get(header::AUTHORIZATION).ok_or_else(unauthorized)?;
        let header = header.to_str().map_err(|_| unauthorized())?;
        let key =
            ApiKey::from_header(header).map_err(|error| ApiError::because(Code::Unauthorized, error.to_string()))?;
        let Some(found) = self.custody.recognise(&key).await? else {
            tracing::warn!(event = "authentication_failed", key = %key.id, "an API key was refused");
            limits::note_refused(self, address);
            return Err(unauthorized());
        };
        if found.suspended {
            tracing::info!(event = "tenant_suspended", client_id = %found.tenant, key = %key.id, "a key of a suspended tenant was refused");
            return Err(ApiError::of(Code::TenantSuspended));
        }
        Ok(Caller {
            tenant: found.tenant,
            key: key.id,
            permissions: found.permissions,
            requests_per_hour: found.requests_per_hour,
            agreement: found.agreement,
        })
    }
}

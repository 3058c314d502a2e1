//! Who calls: an API key (`Authorization: ApiKey id:secret`) or a device (its certificate). Checked here and nowhere else.
//!
//! An API key is looked up by its id, and its secret's MAC under the hub's pepper is compared in constant time. A device's certificate was verified by the handshake; here its
//! serial must be the registry's present one, on every request, so that a replaced or revoked certificate ends at once.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;
use wire_contract::Code;

use super::peer::Peer;
use super::problem::ApiError;
use super::state::Api;
use crate::domain::api_key::ApiKey;
use crate::domain::ids::{ApiKeyId, DeviceId, TenantId};
use crate::store::devices::DeviceState;
use crate::store::{devices, routes};

/// A caller with an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Caller {
    /// Whose data this is about.
    pub(super) tenant: TenantId,
    /// Which key.
    pub(super) key: ApiKeyId,
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

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        let unauthorized = || ApiError::of(Code::Unauthorized);
        let header = parts.headers.get(header::AUTHORIZATION).ok_or_else(unauthorized)?;
        let header = header.to_str().map_err(|_| unauthorized())?;
        let key =
            ApiKey::from_header(header).map_err(|error| ApiError::because(Code::Unauthorized, error.to_string()))?;
        api.authenticate(&key).await?.ok_or_else(unauthorized)
    }
}

impl FromRequestParts<Arc<Api>> for CallingDevice {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        let shown = parts.extensions.get::<Peer>().and_then(|peer| peer.device.clone());
        let shown = shown.ok_or_else(|| ApiError::because(Code::Unauthorized, "a device certificate is needed"))?;
        let refused = || ApiError::of(Code::DeviceRevoked);
        let tenant = routes::tenant_of_device(&api.db, shown.id).await?.ok_or_else(refused)?;
        let device = api.db.tenant(tenant, move |tx| Box::pin(devices::get(tx, shown.id))).await?;
        let present = device.certificate_serial.as_deref() == Some(shown.serial.as_str());
        if device.state == DeviceState::Claimed && present {
            return Ok(Self { tenant, device: device.id });
        }
        tracing::warn!(event = "device_refused", client_id = %tenant, device = %device.id, "an old or revoked certificate was shown");
        Err(refused())
    }
}

impl Api {
    /// The caller behind a key; `None` if it is unknown, wrong or revoked, which nobody is told apart.
    pub(super) async fn authenticate(&self, key: &ApiKey) -> Result<Option<Caller>, ApiError> {
        let tenant = self.custody.authenticate(key).await?;
        if tenant.is_none() {
            tracing::warn!(event = "authentication_failed", key = %key.id, "an API key was refused");
        }
        Ok(tenant.map(|tenant| Caller { tenant, key: key.id }))
    }
}

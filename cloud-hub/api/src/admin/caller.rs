//! Who administers the platform: a key by its id, whose secret's MAC under the hub's pepper is compared in constant time. The database is
//! asked each time, so that a key that was revoked anywhere has ended everywhere.
//!
//! Nothing that a tenant gives out opens anything here, and how it is refused does not tell whether it is good somewhere else.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use wire_contract::Code;

use crate::problem::ApiError;
use crate::state::Api;
use crate::{limits, watch};
use hub_domain::ids::PlatformKeyId;
use hub_domain::platform::{PlatformKey, PlatformRole};
use hub_host::metrics::security::{self, Proof};

/// A caller with a key of the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlatformCaller {
    /// Which key.
    pub(crate) key: PlatformKeyId,
    /// What it may do.
    pub(crate) role: PlatformRole,
}

impl PlatformCaller {
    /// The caller behind a request. What is unknown, wrong, revoked, expired or of a tenant is told nothing of what it is.
    pub(crate) async fn of(api: &Arc<Api>, headers: &HeaderMap, address: IpAddr) -> Result<Self, ApiError> {
        limits::admit_address(api, address)?;
        let unauthorized = || ApiError::of(Code::Unauthorized);
        let Some(header) = headers.get(header::AUTHORIZATION) else {
            security::refused(Proof::Nothing);
            return Err(unauthorized());
        };
        let key = match header.to_str().ok().and_then(PlatformKey::from_header) {
            Some(Ok(key)) => key,
            Some(Err(error)) => {
                security::refused(Proof::Malformed);
                return Err(ApiError::because(Code::Unauthorized, error.to_string()));
            }
            None => {
                security::refused(Proof::PlatformKey);
                tracing::warn!(
                    event = "authentication_failed",
                    what = "platform key",
                    "something else was shown where a key of the platform opens"
                );
                limits::note_refused(api, address);
                return Err(unauthorized());
            }
        };
        let Some(role) = api.custody.recognise_platform_key(&key).await? else {
            security::refused(Proof::PlatformKey);
            tracing::warn!(event = "authentication_failed", key = %key.id, what = "platform key", "a key of the platform was refused");
            limits::note_refused(api, address);
            watch::platform_key_refused(api, key.id);
            return Err(unauthorized());
        };
        Ok(Self { key: key.id, role })
    }

    /// As audit entries name it.
    pub(crate) fn actor(&self) -> String {
        format!("platform:{}", self.key)
    }
}

impl FromRequestParts<Arc<Api>> for PlatformCaller {
    type Rejection = ApiError;

    /// Whoever [`access`](crate::access) has let in; nobody on a route of another audience.
    async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().copied().ok_or_else(|| ApiError::of(Code::Unauthorized))
    }
}

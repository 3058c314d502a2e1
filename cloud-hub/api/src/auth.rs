//! Who calls: an API key (`Authorization: ApiKey id:secret`), a user (`Authorization: Bearer token`, or a browser's cookie), whoever
//! holds the token of one session (`X-Session-Token`) or a device (its certificate). Checked here and nowhere else; what they may then do is [`access`](super::access)'s.
//!
//! A cookie is sent by a browser whatever page asks for it: what changes something needs `X-CSRF-Token` too, which only the
//! dashboard's own page has read.
//!
//! A key of a platform administrator opens nothing of a tenant's, and is refused as a wrong key is (`admin` has what it opens).
//!
//! An API key is looked up by its id, and its secret's MAC under the hub's pepper is compared in constant time. A device's certificate was verified by the handshake; here its
//! serial must be the registry's present one, or the one that a renewal offered, on every request, so that a replaced or
//! revoked certificate ends at once.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use time::OffsetDateTime;
use wire_contract::Code;

use super::limits;
use super::peer::Peer;
use super::problem::ApiError;
use super::state::Api;
use super::watch;
use hub_domain::api_key::ApiKey;
use hub_domain::certificate::{Held, Shown, Standing, standing};
use hub_domain::ids::{ApiKeyId, DeviceId, SessionId, TenantId};
use hub_domain::permission::Permissions;
use hub_domain::platform::PlatformKey;
use hub_domain::session::token::SessionToken;
use hub_domain::tenant::Agreement;
use hub_host::metrics::security::{self, Lack, Proof};
use hub_host::traces;
use hub_keys::{LoggedIn, Means};
use hub_store::devices::DeviceState;
use hub_store::{StoreError, TenantTx, credentials, devices, logins, routes, token_keys};

/// The cookie of a browser's log-in. The prefix makes browsers refuse it from anywhere but this host, over TLS.
pub(super) const COOKIE: &str = "__Host-lintel";
/// What a kiosk or a browser shows in the place of a key, for one session.
pub(super) const SESSION_TOKEN: &str = "x-session-token";
/// What a page shows beside the cookie.
pub(super) const CSRF: &str = "x-csrf-token";

/// Who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a box would be an allocation for each request, and there is one of these"
)]
pub(super) enum Who {
    /// An API key.
    Key(ApiKeyId),
    /// A user who has logged in.
    User(LoggedIn),
    /// Whoever holds a session's token: that session and nothing else.
    Session(SessionId),
}

/// A caller with an API key or a log-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Caller {
    /// Whose data this is about.
    pub(super) tenant: TenantId,
    /// Who.
    pub(super) who: Who,
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
    /// Lets every further line of the request's log say whose it is, and which user's; what is sent of it says whose alone.
    pub(super) fn tell_span(&self) {
        traces::about(self.tenant);
        let span = tracing::Span::current();
        span.record("client_id", tracing::field::display(self.tenant));
        if let Who::User(user) = self.who {
            span.record("user_id", tracing::field::display(user.user));
        }
    }

    /// Whether they are still served at `now`, and may do all that they might when they came, asked of the database: for what goes
    /// on for long. Whoever came by a token of a key that somebody may have is not.
    pub(super) async fn goes_on(&self, tx: &mut TenantTx, now: OffsetDateTime) -> Result<bool, StoreError> {
        if let Who::User(LoggedIn { by: Means::Token(key), .. }) = self.who
            && !token_keys::goes_on(tx, key).await?
        {
            return Ok(false);
        }
        let may = match self.who {
            Who::Key(key) => credentials::admission(tx, key, now)
                .await?
                .filter(|found| !found.suspended)
                .map(|found| found.grant.permissions()),
            Who::User(user) => logins::admission(tx, user.login, now)
                .await?
                .filter(|found| !found.suspended && found.role == user.role)
                .map(|found| found.permissions),
            // Nothing that goes on for long is open to it.
            Who::Session(_) => None,
        };
        Ok(may.is_some_and(|may| self.permissions.beyond(may) == Permissions::default()))
    }

    /// As audit entries name it.
    pub(super) fn actor(&self) -> String {
        match self.who {
            Who::Key(key) => format!("api_key:{key}"),
            Who::User(user) => format!("user:{}", user.user),
            Who::Session(session) => format!("session:{session}"),
        }
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
                security::refused(Proof::Certificate);
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
    let shown = shown.ok_or_else(|| {
        security::refused(Proof::Nothing);
        ApiError::because(Code::Unauthorized, "a device certificate is needed")
    })?;
    let refused = || {
        security::refused(Proof::Certificate);
        ApiError::of(Code::DeviceRevoked)
    };
    let tenant = routes::tenant_of_device(&api.db, shown.id).await?.ok_or_else(refused)?;
    let device = api.db.tenant(tenant, move |tx| Box::pin(devices::get(tx, shown.id))).await?;
    let held = Held {
        claimed: device.state == DeviceState::Claimed,
        present: device.certificate_serial.as_deref(),
        next: device.next_certificate_serial.as_deref(),
    };
    let caller = CallingDevice { tenant, device: device.id };
    traces::about(tenant);
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
    /// The caller behind a request: by its key, its token or its cookie. What is unknown, wrong, revoked or expired is told
    /// nothing of what it is.
    pub(super) async fn caller(
        self: &Arc<Self>,
        headers: &HeaderMap,
        method: &Method,
        address: IpAddr,
    ) -> Result<Caller, ApiError> {
        limits::admit_address(self, address)?;
        let unauthorized = || ApiError::of(Code::Unauthorized);
        let Some(header) = headers.get(header::AUTHORIZATION) else {
            let cookie = cookie(headers).ok_or_else(|| {
                security::refused(Proof::Nothing);
                unauthorized()
            })?;
            let found = self.custody.recognise_cookie(cookie).await?;
            let user = found.ok_or_else(|| self.refused(address, "cookie", Proof::Cookie))?;
            let sent = headers.get(CSRF).and_then(|value| value.to_str().ok());
            if !method.is_safe() && !user.is_from_its_page(sent) {
                security::refused(Proof::Csrf);
                tracing::warn!(event = "csrf_refused", client_id = %user.tenant, user = %user.user, "a cookie came without its token");
                return Err(ApiError::because(
                    Code::Forbidden,
                    "with a cookie, send the csrf_token of the log-in as X-CSRF-Token",
                ));
            }
            return by_login(user);
        };
        let malformed = |error: ApiError| {
            security::refused(Proof::Malformed);
            error
        };
        let header = header.to_str().map_err(|_| malformed(unauthorized()))?;
        if let Some((scheme, token)) = header.split_once(' ')
            && scheme.eq_ignore_ascii_case("Bearer")
        {
            let found = self.custody.recognise_token(token).await?;
            return by_login(found.ok_or_else(|| self.refused(address, "token", Proof::Token))?);
        }
        if PlatformKey::from_header(header).is_some() {
            security::refused(Proof::ApiKey);
            tracing::warn!(
                event = "authentication_failed",
                what = "api key",
                "a key of the platform was shown where a tenant's opens"
            );
            limits::note_refused(self, address);
            return Err(unauthorized());
        }
        let key = ApiKey::from_header(header)
            .map_err(|error| malformed(ApiError::because(Code::Unauthorized, error.to_string())))?;
        let Some(found) = self.custody.recognise(&key).await? else {
            security::refused(Proof::ApiKey);
            tracing::warn!(event = "authentication_failed", key = %key.id, "an API key was refused");
            limits::note_refused(self, address);
            watch::refused(self, key.id);
            return Err(unauthorized());
        };
        if found.suspended {
            security::forbidden(Lack::Service);
            tracing::info!(event = "tenant_suspended", client_id = %found.tenant, key = %key.id, "a key of a suspended tenant was refused");
            return Err(ApiError::of(Code::TenantSuspended));
        }
        Ok(Caller {
            tenant: found.tenant,
            who: Who::Key(key.id),
            permissions: found.permissions,
            requests_per_hour: found.requests_per_hour,
            agreement: found.agreement,
        })
    }

    /// The caller behind a session's token. What is unknown, wrong, of a session that has ended or of another tenant is told
    /// nothing of what it is. A cookie beside it counts for nothing: browsers send it whether or not they were asked to.
    pub(super) async fn session_caller(&self, headers: &HeaderMap, address: IpAddr) -> Result<Caller, ApiError> {
        if headers.contains_key(header::AUTHORIZATION) || headers.get_all(SESSION_TOKEN).iter().count() > 1 {
            return Err(ApiError::because(
                Code::InvalidRequest,
                "send one X-Session-Token or one Authorization, not more: it must be clear who asks",
            ));
        }
        limits::admit_address(self, address)?;
        let refused = || {
            security::refused(Proof::SessionToken);
            tracing::info!(event = "authentication_failed", what = "session token", "a session's token was refused");
            limits::note_refused(self, address);
            ApiError::because(Code::Unauthorized, "this session token is not good (any more): open another session")
        };
        let text = headers.get(SESSION_TOKEN).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let token = SessionToken::parse(text).map_err(|_| refused())?;
        let joined = self.custody.join_session(&token).await?.ok_or_else(refused)?;
        if joined.suspended {
            tracing::info!(event = "tenant_suspended", client_id = %joined.tenant, session = %joined.session, "a session of a suspended tenant was refused");
            return Err(ApiError::of(Code::TenantSuspended));
        }
        Ok(Caller {
            tenant: joined.tenant,
            who: Who::Session(joined.session),
            permissions: Permissions::default(),
            requests_per_hour: None,
            agreement: joined.agreement,
        })
    }

    /// Counts what was refused, as keys are counted.
    fn refused(&self, address: IpAddr, what: &'static str, proof: Proof) -> ApiError {
        security::refused(proof);
        tracing::info!(event = "authentication_failed", what, "a log-in was refused");
        limits::note_refused(self, address);
        ApiError::because(Code::Unauthorized, "this log-in is not good (any more): refresh it, or log in again")
    }
}

fn by_login(user: LoggedIn) -> Result<Caller, ApiError> {
    if user.suspended {
        security::forbidden(Lack::Service);
        tracing::info!(event = "tenant_suspended", client_id = %user.tenant, user = %user.user, "a user of a suspended tenant was refused");
        return Err(ApiError::of(Code::TenantSuspended));
    }
    Ok(Caller {
        tenant: user.tenant,
        who: Who::User(user),
        permissions: user.permissions,
        requests_per_hour: None,
        agreement: user.agreement,
    })
}

/// The value of our cookie; none if there are two, of which one may be somebody else's.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut ours = pairs.filter(|(name, _)| *name == COOKIE).map(|(_, value)| value);
    ours.next().filter(|_| ours.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn the_cookie_is_found_among_others_and_there_is_one() {
        let found = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::COOKIE, HeaderValue::from_static(line));
            }
            cookie(&headers).map(str::to_owned)
        };
        assert_eq!(found(&["a=b; __Host-lintel=x.y; c=d"]).as_deref(), Some("x.y"));
        assert_eq!(found(&["a=b", "__Host-lintel=x"]).as_deref(), Some("x"));
        for none in [&["a=b"][..], &["lintel=x"], &["__host-lintel=x"], &["__Host-lintel=x; __Host-lintel=y"]] {
            assert_eq!(found(none), None, "{none:?}");
        }
    }
}

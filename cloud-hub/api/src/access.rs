//! Who may call what: one table of all routes, and one place where it is asked.
//!
//! In: the method and the pattern of a matched route. Out: the handler is called, or a refusal that says which permission the key
//! lacks. A route that is not in the table is open to nobody: whoever adds one must say here whom it is for.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use wire_contract::{Code, paths};

use super::admin::PlatformCaller;
use super::auth::{Caller, SESSION_TOKEN, Who};
use super::peer::Peer;
use super::problem::{ApiError, Unwritten};
use super::state::Api;
use super::{idempotency, limits, watch};
use hub_domain::permission::Permission;
use hub_domain::platform::{self, PlatformPermission};
use hub_domain::tenant::Feature;
use hub_host::metrics::security::{self, Lack};

/// Whom a route is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Anybody: it tells nothing of a tenant, or what is sent is its own proof.
    Open,
    /// A device with its certificate, which the handler asks for.
    Device,
    /// A key or a user with this permission.
    Key(Permission),
    /// The same, or the token of the very session that the path names.
    Session(Permission),
    /// A user who has logged in, about themselves.
    User,
    /// The same, even one who must set up a second factor before anything else.
    UserSettingUp,
    /// A platform administrator with this permission; nobody of any tenant.
    Platform(PlatformPermission),
}

/// Every route of the API, by method and pattern.
pub const ROUTES: &[(&str, &str, Audience)] = {
    use Audience::{Device, Key, Open, Platform, Session, User, UserSettingUp};
    use Permission as P;
    use PlatformPermission::{Read, Write};
    &[
        ("GET", "/v1/tenant", Key(P::TenantRead)),
        ("GET", "/v1/tenant/recognition", Key(P::TenantRead)),
        ("PUT", "/v1/tenant/recognition", Key(P::TenantWrite)),
        ("GET", "/v1/tenant/login", Key(P::TenantRead)),
        // It is about users: whoever may say how sure recognition must be has no say in it.
        ("PUT", "/v1/tenant/login", Key(P::UsersWrite)),
        ("GET", "/v1/tenant/sessions", Key(P::TenantRead)),
        ("PUT", "/v1/tenant/sessions", Key(P::TenantWrite)),
        ("GET", "/v1/api-keys", Key(P::ApiKeysRead)),
        ("POST", "/v1/api-keys", Key(P::ApiKeysWrite)),
        ("GET", "/v1/api-keys/{id}", Key(P::ApiKeysRead)),
        ("DELETE", "/v1/api-keys/{id}", Key(P::ApiKeysWrite)),
        ("POST", "/v1/api-keys/{id}/rotate", Key(P::ApiKeysWrite)),
        ("GET", "/v1/users", Key(P::UsersRead)),
        ("POST", "/v1/users", Key(P::UsersWrite)),
        ("GET", "/v1/users/{id}", Key(P::UsersRead)),
        ("PATCH", "/v1/users/{id}", Key(P::UsersWrite)),
        ("DELETE", "/v1/users/{id}", Key(P::UsersWrite)),
        ("POST", "/v1/users/{id}/password", Key(P::UsersWrite)),
        ("DELETE", "/v1/users/{id}/totp", Key(P::UsersWrite)),
        ("GET", "/v1/roles", Key(P::RolesRead)),
        ("POST", "/v1/roles", Key(P::RolesWrite)),
        ("GET", "/v1/roles/{id}", Key(P::RolesRead)),
        ("PATCH", "/v1/roles/{id}", Key(P::RolesWrite)),
        ("DELETE", "/v1/roles/{id}", Key(P::RolesWrite)),
        // A password, a refresh token or an invitation is the proof.
        ("POST", "/v1/login", Open),
        ("POST", "/v1/login/refresh", Open),
        ("POST", "/v1/login/invitation", Open),
        ("GET", "/v1/jwks.json", Open),
        ("POST", "/v1/logout", UserSettingUp),
        ("GET", "/v1/me", UserSettingUp),
        ("POST", "/v1/me/password", User),
        ("POST", "/v1/me/totp", UserSettingUp),
        ("DELETE", "/v1/me/totp", User),
        ("POST", "/v1/me/totp/confirm", UserSettingUp),
        ("GET", "/v1/sites", Key(P::SitesRead)),
        ("POST", "/v1/sites", Key(P::SitesWrite)),
        ("GET", "/v1/sites/{id}", Key(P::SitesRead)),
        ("GET", "/v1/doors", Key(P::SitesRead)),
        ("POST", "/v1/doors", Key(P::SitesWrite)),
        ("GET", "/v1/devices", Key(P::DevicesRead)),
        ("POST", "/v1/devices", Key(P::DevicesWrite)),
        ("GET", "/v1/devices/{id}", Key(P::DevicesRead)),
        ("DELETE", "/v1/devices/{id}", Key(P::DevicesWrite)),
        ("POST", "/v1/devices/{id}/claim-tokens", Key(P::DevicesWrite)),
        ("GET", "/v1/devices/{id}/commands", Key(P::DevicesRead)),
        ("POST", "/v1/devices/{id}/commands", Key(P::DoorsCommand)),
        ("GET", "/v1/devices/{id}/twin", Key(P::DevicesRead)),
        ("PUT", "/v1/devices/{id}/twin", Key(P::DevicesWrite)),
        ("GET", "/v1/devices/{id}/twin/versions", Key(P::DevicesRead)),
        ("POST", "/v1/doors/{id}/unlock", Key(P::DoorsCommand)),
        ("POST", "/v1/doors/{id}/commands", Key(P::DoorsCommand)),
        ("GET", "/v1/commands/{id}", Key(P::DevicesRead)),
        ("GET", "/v1/commands/{id}/logs", Key(P::LogsRead)),
        ("GET", "/v1/people", Key(P::PeopleRead)),
        ("POST", "/v1/people", Key(P::PeopleWrite)),
        // And to enrol, for whoever sends photographs.
        ("POST", "/v1/people/imports", Key(P::PeopleWrite)),
        ("GET", "/v1/people/{id}", Key(P::PeopleRead)),
        ("PATCH", "/v1/people/{id}", Key(P::PeopleWrite)),
        ("DELETE", "/v1/people/{id}", Key(P::PeopleWrite)),
        ("POST", "/v1/people/{id}/enrolments", Key(P::PeopleEnrol)),
        ("GET", "/v1/people/{id}/negative-anchors", Key(P::PeopleRead)),
        ("POST", "/v1/people/{id}/negative-anchors", Key(P::PeopleEnrol)),
        ("DELETE", "/v1/people/{id}/negative-anchors/{anchor}", Key(P::PeopleEnrol)),
        ("POST", "/v1/recognition/detect", Key(P::RecognitionUse)),
        ("POST", "/v1/recognition/quality", Key(P::RecognitionUse)),
        ("POST", "/v1/recognition/liveness", Key(P::RecognitionUse)),
        ("POST", "/v1/recognition/compare", Key(P::RecognitionUse)),
        ("POST", "/v1/recognition/verify", Key(P::RecognitionUse)),
        ("POST", "/v1/recognition/identify", Key(P::RecognitionUse)),
        ("POST", "/v1/recognition/search", Key(P::RecognitionUse)),
        ("POST", "/v1/recognition/embed", Key(P::RecognitionEmbed)),
        ("POST", "/v1/sessions/enrolment", Key(P::PeopleEnrol)),
        ("POST", "/v1/sessions/authentication", Key(P::RecognitionUse)),
        ("GET", "/v1/sessions", Key(P::SessionsRead)),
        ("GET", "/v1/sessions/{id}", Session(P::SessionsRead)),
        ("DELETE", "/v1/sessions/{id}", Session(P::SessionsWrite)),
        ("POST", "/v1/sessions/{id}/frames", Session(P::SessionsWrite)),
        ("POST", "/v1/sessions/{id}/complete", Session(P::SessionsWrite)),
        ("GET", "/v1/events", Key(P::EventsRead)),
        ("GET", "/v1/events/stream", Key(P::EventsRead)),
        ("GET", "/v1/audit", Key(P::AuditRead)),
        ("GET", "/v1/audit/export", Key(P::AuditRead)),
        ("GET", "/v1/consumers", Key(P::ConsumersRead)),
        ("POST", "/v1/consumers", Key(P::ConsumersWrite)),
        ("DELETE", "/v1/consumers/{id}", Key(P::ConsumersWrite)),
        ("POST", "/v1/consumers/{id}/password", Key(P::ConsumersWrite)),
        ("GET", "/v1/webhooks", Key(P::WebhooksRead)),
        ("POST", "/v1/webhooks", Key(P::WebhooksWrite)),
        ("DELETE", "/v1/webhooks/{id}", Key(P::WebhooksWrite)),
        ("GET", "/v1/admin/tenants", Platform(Read)),
        ("POST", "/v1/admin/tenants", Platform(Write)),
        ("GET", "/v1/admin/tenants/{id}", Platform(Read)),
        ("PATCH", "/v1/admin/tenants/{id}", Platform(Write)),
        ("DELETE", "/v1/admin/tenants/{id}", Platform(Write)),
        ("POST", "/v1/admin/tenants/{id}/suspend", Platform(Write)),
        ("POST", "/v1/admin/tenants/{id}/resume", Platform(Write)),
        ("GET", "/v1/admin/search-paths", Platform(Read)),
        ("GET", "/v1/admin/settings", Platform(Read)),
        ("PUT", "/v1/admin/settings", Platform(Write)),
        ("GET", "/v1/admin/settings/history", Platform(Read)),
        // The token is the proof.
        ("POST", paths::CLAIMS, Open),
        ("POST", paths::TIME, Open),
        ("GET", paths::DEVICE_LINK, Device),
        ("POST", paths::DEVICE_RENEWAL, Device),
        ("POST", paths::DEVICE_ENROLMENTS, Device),
        ("PUT", "/v1/device/logs/{command}", Device),
        ("GET", "/v1/device/snapshots/{id}", Device),
        ("GET", "/v1/device/snapshots/{id}/manifest", Device),
        ("GET", "/v1/openapi.json", Open),
        ("GET", "/docs", Open),
        ("GET", "/docs/reader.js", Open),
        ("GET", "/docs/reader.css", Open),
        ("GET", "/health", Open),
        ("GET", "/health/ready", Open),
        ("GET", "/health/live", Open),
        ("GET", "/health/detailed", Open),
        ("GET", "/readyz", Open),
        ("GET", "/livez", Open),
    ]
};

/// Whom a route is for; `None` if the table does not say.
pub(super) fn audience(method: &Method, pattern: &str) -> Option<Audience> {
    // What answers GET answers HEAD; probes' paths work with a slash at their end too.
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let pattern = pattern.strip_suffix('/').unwrap_or(pattern);
    let found = ROUTES.iter().find(|(verb, path, _)| method == *verb && pattern == *path);
    found.map(|(_, _, audience)| *audience)
}

/// What is told of a request that matched no route of the table.
pub(super) const NO_ROUTE: &str = "none";

/// The pattern of a route as the table has it, for whatever must outlive the request; [`NO_ROUTE`] if it is in none.
pub(super) fn pattern_of(pattern: Option<&str>) -> &'static str {
    let Some(pattern) = pattern else { return NO_ROUTE };
    let pattern = pattern.strip_suffix('/').unwrap_or(pattern);
    ROUTES.iter().find(|(_, path, _)| pattern == *path).map_or(NO_ROUTE, |(_, path, _)| *path)
}

/// Stands before every route.
pub(super) async fn guard(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let pattern = matched.as_ref().map_or("", MatchedPath::as_str);
    // Every connection has one; whoever forgets it in a new listener shares one address with everybody.
    let address =
        request.extensions().get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.address.ip());
    let audience = match audience(request.method(), pattern) {
        Some(Audience::Open | Audience::Device) => return next.run(request).await,
        Some(Audience::Platform(needed)) => return administered(&api, needed, address, request, next).await,
        Some(audience) => audience,
        None => {
            tracing::error!(event = "route_for_nobody", method = %request.method(), pattern, "a route is not in the table of access");
            return ApiError::of(Code::Forbidden).into_response();
        }
    };
    let caller = if request.headers().contains_key(SESSION_TOKEN) {
        by_token(&api, request.headers(), request.uri(), audience, address).await
    } else {
        let caller = api.caller(request.headers(), request.method(), address).await;
        caller.and_then(|caller| may(&caller, request.method(), audience).map(|()| caller))
    };
    let caller = match caller {
        Ok(caller) => caller,
        Err(refused) => return refused.into_response(),
    };
    let needed = match audience {
        Audience::Key(needed) | Audience::Session(needed) => Some(needed),
        _ => None,
    };
    watch::came(&api, &caller, address);
    let told = match limits::take(&api, &caller, request.method(), needed).await {
        Ok(told) => told,
        Err((refused, told)) => {
            let mut response = refused.into_response();
            told.write(response.headers_mut());
            return response;
        }
    };
    let class = limits::class(request.method(), needed);
    security::used(caller.agreement.tier.as_str(), class.as_str());
    caller.tell_span();
    request.extensions_mut().insert(caller);
    let named = pattern.contains('{').then(|| request.uri().path().to_owned());
    let mut response = idempotency::run(&api, &caller, class, pattern, request, next).await;
    watch::answered(&api, &caller, named.as_deref(), &response);
    if response.extensions().get::<Unwritten>().is_some_and(|Unwritten(problem)| problem.code == Code::Unavailable) {
        api.limiter.turned_away();
    }
    told.write(response.headers_mut());
    response
}

/// What is for platform administrators, who are of no tenant: they are neither watched nor answered by a tenant's rules.
async fn administered(
    api: &Arc<Api>,
    needed: PlatformPermission,
    address: IpAddr,
    mut request: Request,
    next: Next,
) -> Response {
    let caller = match PlatformCaller::of(api, request.headers(), address).await {
        Ok(caller) => caller,
        Err(refused) => {
            let mut response = refused.into_response();
            if response.status() == StatusCode::UNAUTHORIZED {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(platform::SCHEME));
            }
            return response;
        }
    };
    if !caller.role.allows(needed) {
        security::forbidden(Lack::Permission);
        tracing::info!(event = "permission_missing", caller = caller.actor(), permission = %needed, "somebody may not do what they asked for");
        let detail = format!("this key does not have the permission {needed}");
        return ApiError::because(Code::Forbidden, detail).into_response();
    }
    let told = match limits::take_for_platform(api, &caller, request.method()).await {
        Ok(told) => told,
        Err((refused, told)) => {
            let mut response = refused.into_response();
            told.write(response.headers_mut());
            return response;
        }
    };
    request.extensions_mut().insert(caller);
    let mut response = next.run(request).await;
    told.write(response.headers_mut());
    response
}

/// The caller with a session's token, which opens that session and nothing else: whatever else there is, is not there.
async fn by_token(
    api: &Api,
    headers: &HeaderMap,
    uri: &Uri,
    audience: Audience,
    address: IpAddr,
) -> Result<Caller, ApiError> {
    let caller = api.session_caller(headers, address).await?;
    let named = uri.path().split('/').nth(3).and_then(|id| id.parse().ok());
    if matches!(audience, Audience::Session(_)) && named.is_some_and(|id| caller.who == Who::Session(id)) {
        return Ok(caller);
    }
    tracing::warn!(event = "session_token_elsewhere", client_id = %caller.tenant, caller = caller.actor(), "a session's token was shown where it opens nothing");
    Err(ApiError::of(Code::NotFound))
}

/// Whether a caller may do what is for this audience, with the features that the tenant has.
fn may(caller: &Caller, method: &Method, audience: Audience) -> Result<(), ApiError> {
    if let Who::User(user) = caller.who
        && user.must_set_up_totp
        && audience != Audience::UserSettingUp
    {
        return Err(ApiError::of(Code::TotpSetupRequired));
    }
    let (Audience::Key(needed) | Audience::Session(needed)) = audience else {
        return match caller.who {
            Who::User(_) => Ok(()),
            Who::Key(_) | Who::Session(_) => {
                Err(ApiError::because(Code::Forbidden, "this is for users who have logged in, not for keys"))
            }
        };
    };
    if !caller.permissions.allow(needed) {
        security::forbidden(Lack::Permission);
        tracing::info!(event = "permission_missing", client_id = %caller.tenant, caller = caller.actor(), permission = %needed, "somebody may not do what they asked for");
        let whose = if matches!(caller.who, Who::Key(_)) { "key" } else { "user" };
        return Err(ApiError::because(Code::Forbidden, format!("this {whose} does not have the permission {needed}")));
    }
    // What is there can be looked at and taken down without its feature.
    if let Some(feature) = Feature::of(needed).filter(|_| method != Method::DELETE)
        && !caller.agreement.has(feature)
    {
        security::forbidden(Lack::Feature);
        return Err(ApiError::because(Code::FeatureOff, format!("this tenant does not have {feature}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hub_domain::permission::Role;

    #[test]
    fn no_route_is_there_twice() {
        for (index, (method, path, _)) in ROUTES.iter().enumerate() {
            let again = ROUTES.iter().skip(index + 1).find(|(verb, pattern, _)| (verb, pattern) == (method, path));
            assert!(again.is_none(), "{method} {path}");
        }
    }

    #[test]
    fn whoever_only_reads_changes_nothing() {
        for (method, path, audience) in ROUTES {
            let permission = match audience {
                Audience::Key(permission) | Audience::Session(permission) => permission.as_str(),
                Audience::Platform(permission) => permission.as_str(),
                _ => continue,
            };
            assert_eq!(*method == "GET", permission.ends_with(":read"), "{method} {path} needs {permission}");
        }
    }

    #[test]
    fn what_is_below_admin_is_for_platform_administrators_and_nothing_else_is() {
        for (method, path, audience) in ROUTES {
            let platform = matches!(audience, Audience::Platform(_));
            assert_eq!(path.starts_with("/v1/admin/"), platform, "{method} {path}");
        }
    }

    #[test]
    fn every_permission_opens_a_route() {
        for permission in Permission::ALL {
            assert!(
                ROUTES.iter().any(|(_, _, audience)| {
                    [Audience::Key(*permission), Audience::Session(*permission)].contains(audience)
                }),
                "{permission} opens nothing"
            );
        }
    }

    #[test]
    fn a_token_opens_what_is_of_one_session_only() {
        for (method, path, audience) in ROUTES.iter().filter(|(.., audience)| matches!(audience, Audience::Session(_)))
        {
            assert!(path.starts_with("/v1/sessions/{id}"), "{method} {path} {audience:?}");
        }
    }

    #[test]
    fn what_is_not_in_the_table_is_for_nobody() {
        assert_eq!(audience(&Method::GET, "/v1/secrets"), None);
        assert_eq!(audience(&Method::PATCH, "/v1/people"), None);
        assert_eq!(audience(&Method::HEAD, "/v1/people"), Some(Audience::Key(Permission::PeopleRead)));
        assert_eq!(audience(&Method::GET, "/health/"), Some(Audience::Open));
    }

    #[test]
    fn the_guide_has_the_roles_that_the_program_has() {
        let guide = include_str!("../../../docs/guides/access.md");
        let mut told = 0;
        let tables = guide.lines().filter(|row| row.starts_with("| `"));
        let tables = tables.map(|row| row.split('|').map(str::trim).collect::<Vec<&str>>());
        for cells in tables.filter(|cells| cells[1].contains(':')) {
            for word in cells[1].split(", ") {
                let permission: Permission = word.trim_matches('`').parse().expect("a permission");
                told += 1;
                for (role, cell) in Role::ALL.iter().zip(&cells[2..]) {
                    let may = *cell == "x" || (*cell == "read" && permission.as_str().ends_with(":read"));
                    assert_eq!(may, role.permissions().allow(permission), "{role}: {permission}");
                }
            }
        }
        assert_eq!(told, Permission::ALL.len());
    }
}

//! The REST API, its TLS listener, and the control socket of the command line.
//!
//! In: requests. Out: answers, with RFC 9457 problems when they fail. Who calls is decided in [`auth`]; what may be
//! seen is decided by the database, since every handler works inside one tenant's transaction. Imports `domain`,
//! `store`, `keys`, `pki`, `limit`, `recognition`, `roster` and `host`. Deliberately absent: state between requests, and SQL.

pub mod access;
mod admin;
mod agreements;
mod anchors;
mod answers;
mod api_keys;
mod audit;
mod auth;
mod body;
mod claims;
mod commands;
mod consumers;
pub mod control;
mod deletion;
mod devices;
mod enrolments;
mod events;
pub mod feed;
mod fixed;
mod galleries;
pub mod health;
mod hub_authorities;
mod hub_time;
mod idempotency;
mod imports;
mod limits;
mod lingering;
pub mod listener;
mod live_settings;
mod login;
mod me;
mod observe;
pub mod openapi;
mod page;
mod peer;
mod people;
mod problem;
mod reader;
mod recognition;
mod renewals;
mod roles;
mod rotations;
mod sessions;
mod sites;
mod snapshots;
mod state;
mod tenant_life;
mod tenants;
mod totp;
mod twins;
mod users;
mod watch;
mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::error_handling::HandleErrorLayer;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post, put};
use tower::ServiceBuilder;
use tower::timeout::TimeoutLayer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, NotForContentType, Predicate as _};
use wire_contract::{Code, paths};

use hub_host::metrics::http as measured;
pub use idempotency::Bodies;
pub use imports::{ImportLimits, Imports};
use problem::ApiError;
pub use state::{Api, BrokerControl, BrokerError, EnrolmentLimits, Settings};

/// Bodies of JSON requests; ours are below 2 KiB.
const MAX_JSON_BYTES: usize = 64 * 1024;
/// All photographs of one request together with the form around them: what one request may hold in memory.
const MAX_FORM_BYTES: usize = 24 * 1024 * 1024;
/// Answers below this are not worth compressing.
const MIN_COMPRESSED_BYTES: u16 = 1024;

/// Every route, with its layers. Paths work with and without a slash at their end.
pub fn routes(api: Arc<Api>, request_timeout: Duration) -> Router {
    let observed = (api.clock.clone(), api.traces.clone());
    let timed = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(|_| async { ApiError::of(Code::Timeout).into_response() }))
        .layer(TimeoutLayer::new(request_timeout));
    let compressed = CompressionLayer::new().compress_when(
        DefaultPredicate::new()
            .and(NotForContentType::SSE)
            // Sealed bytes grow no shorter, and a range is of what was sealed.
            .and(NotForContentType::const_new("application/octet-stream"))
            .and(tower_http::compression::predicate::SizeAbove::new(MIN_COMPRESSED_BYTES.into())),
    );
    let guarded = middleware::from_fn_with_state(Arc::clone(&api), access::guard);
    ordinary()
        .route_layer(guarded.clone())
        .layer(timed)
        .merge(long().route_layer(guarded))
        .fallback(|| async { ApiError::of(Code::NotFound) })
        .method_not_allowed_fallback(|| async { ApiError::of(Code::MethodNotAllowed) })
        .layer(compressed)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(observed, observe::observe))
        .with_state(api)
}

/// What takes as long as it takes: a stream that does not end, a gallery over a slow line, a file of thousands of people.
const LONG: [&str; 5] = [
    "/v1/events/stream",
    "/v1/audit/export",
    "/v1/device/snapshots/{id}/manifest",
    "/v1/device/snapshots/{id}",
    "/v1/people/imports",
];

fn long() -> Router<Arc<Api>> {
    let [stream, export, manifest, content, import] = LONG;
    Router::new()
        .route(stream, get(events::stream))
        .route(manifest, get(snapshots::manifest))
        .route(content, get(snapshots::content))
        .route(export, get(audit::export))
        .route(import, post(imports::create))
}

fn ordinary() -> Router<Arc<Api>> {
    let v1 = Router::new()
        .route("/v1/tenant", get(tenants::get))
        .route("/v1/tenant/recognition", get(recognition::policy::get_policy).put(recognition::policy::put_policy))
        .route("/v1/tenant/login", get(totp::get_policy).put(totp::put_policy))
        .route("/v1/tenant/sessions", get(sessions::settings::get).put(sessions::settings::put))
        .route("/v1/api-keys", post(api_keys::create).get(api_keys::list))
        .route("/v1/api-keys/{id}", get(api_keys::get).delete(api_keys::revoke))
        .route("/v1/api-keys/{id}/rotate", post(api_keys::rotate))
        .route("/v1/users", post(users::create).get(users::list))
        .route("/v1/users/{id}", get(users::get).patch(users::change).delete(users::delete))
        .route("/v1/users/{id}/password", post(users::invite))
        .route("/v1/users/{id}/totp", delete(users::take_totp))
        .route("/v1/roles", post(roles::create).get(roles::list))
        .route("/v1/roles/{id}", get(roles::get).patch(roles::change).delete(roles::delete))
        .route("/v1/login", post(login::login))
        .route("/v1/login/refresh", post(login::refresh))
        .route("/v1/login/invitation", post(login::accept))
        .route("/v1/jwks.json", get(login::jwks))
        .route("/v1/logout", post(me::log_out))
        .route("/v1/me", get(me::get))
        .route("/v1/me/password", post(me::change_password))
        .route("/v1/me/totp", post(totp::begin).delete(totp::remove))
        .route("/v1/me/totp/confirm", post(totp::confirm))
        .route("/v1/sites", post(sites::create_site).get(sites::list_sites))
        .route("/v1/sites/{id}", get(sites::get_site))
        .route("/v1/doors", post(sites::create_door).get(sites::list_doors))
        .route("/v1/devices", post(devices::create).get(devices::list))
        .route("/v1/devices/{id}", get(devices::get).delete(devices::revoke))
        .route("/v1/devices/{id}/claim-tokens", post(devices::create_claim_token))
        .route("/v1/devices/{id}/commands", post(commands::create).get(commands::list))
        .route("/v1/doors/{id}/unlock", post(commands::unlock))
        .route("/v1/doors/{id}/commands", post(commands::create_at_door))
        .route("/v1/commands/{id}", get(commands::get))
        .route("/v1/commands/{id}/logs", get(commands::logs))
        .route("/v1/devices/{id}/twin", get(twins::get).put(twins::put))
        .route("/v1/devices/{id}/twin/versions", get(twins::versions))
        .route("/v1/people", post(people::create).get(people::list))
        .route("/v1/people/{id}", get(people::get).patch(people::change).delete(people::delete))
        .route("/v1/people/{id}/negative-anchors/{anchor}", delete(anchors::delete))
        .route("/v1/sessions", get(sessions::list))
        .route("/v1/sessions/enrolment", post(sessions::open::enrolment))
        .route("/v1/sessions/authentication", post(sessions::open::authentication))
        .route("/v1/sessions/{id}", get(sessions::get).delete(sessions::cancel))
        .route("/v1/sessions/{id}/complete", post(sessions::decide::complete))
        .route("/v1/events", get(events::list))
        .route("/v1/audit", get(audit::list))
        .route("/v1/consumers", post(consumers::create).get(consumers::list))
        .route("/v1/consumers/{id}", delete(consumers::delete))
        .route("/v1/consumers/{id}/password", post(consumers::rotate))
        .route("/v1/webhooks", post(webhooks::create).get(webhooks::list))
        .route("/v1/webhooks/{id}", delete(webhooks::delete))
        .route("/v1/openapi.json", get(openapi::get))
        .route("/docs", get(reader::page))
        .route("/docs/reader.js", get(reader::script))
        .route("/docs/reader.css", get(reader::style))
        .route(paths::CLAIMS, post(claims::claim))
        .route(paths::TIME, post(hub_time::tell))
        .route(paths::DEVICE_LINK, get(claims::link))
        .route(paths::DEVICE_RENEWAL, post(renewals::renew))
        .route(paths::DEVICE_ENROLMENTS, post(answers::enrol))
        .merge(admin::routes())
        .layer(DefaultBodyLimit::max(MAX_JSON_BYTES));
    let photographs = Router::new()
        .route("/v1/people/{id}/enrolments", post(enrolments::create))
        .route("/v1/people/{id}/negative-anchors", post(anchors::create).get(anchors::list))
        .route("/v1/recognition/detect", post(recognition::pictures::detect))
        .route("/v1/recognition/quality", post(recognition::pictures::quality))
        .route("/v1/recognition/liveness", post(recognition::pictures::liveness))
        .route("/v1/recognition/embed", post(recognition::pictures::embed))
        .route("/v1/recognition/compare", post(recognition::pair::compare))
        .route("/v1/recognition/verify", post(recognition::people::verify))
        .route("/v1/recognition/identify", post(recognition::people::identify))
        .route("/v1/recognition/search", post(recognition::people::search))
        .route_layer(middleware::from_fn(recognition::measure))
        .route("/v1/sessions/{id}/frames", post(sessions::frames::add))
        .layer(DefaultBodyLimit::max(MAX_FORM_BYTES));
    let logs = Router::new()
        .route(&format!("{}/{{command}}", paths::DEVICE_LOGS), put(answers::put_logs))
        .layer(DefaultBodyLimit::max(answers::MAX_ANSWER_BYTES));
    let mut health = Router::new();
    for (path, route) in [
        ("/health", get(health::ready)),
        ("/health/ready", get(health::ready)),
        ("/readyz", get(health::ready)),
        ("/health/live", get(health::live)),
        ("/livez", get(health::live)),
        ("/health/detailed", get(health::detailed)),
    ] {
        health = health.route(path, route.clone()).route(&format!("{path}/"), route);
    }
    v1.merge(photographs).merge(logs).merge(health)
}

/// A panic in a handler is a fault of the hub: logged with its text, answered without.
#[expect(clippy::needless_pass_by_value, reason = "the layer's type hands the panic over")]
fn panicked(panic: Box<dyn std::any::Any + Send + 'static>) -> Response {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    measured::panicked();
    tracing::error!(event = "handler_panicked", panic = %text, "a handler panicked");
    let mut response = ApiError::of(Code::Internal).into_response();
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

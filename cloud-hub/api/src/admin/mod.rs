//! What platform administrators do over the network: tenants made, agreed with, suspended and ended, settings of the hub, and what of its
//! memory serves whom.
//!
//! In: `Authorization: PlatformKey id:secret`. Out: the same as the control socket gives the operator of the machine, by the same code
//! (`tenant_life`, `agreements`, `deletion`, `live_settings`). Deliberately absent: whatever a tenant has (people, templates, events,
//! keys), and keys of the platform itself, which are made on the machine alone.

mod caller;
pub(super) mod search_paths;
pub(super) mod settings;
pub(super) mod tenants;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use super::state::Api;
pub(super) use caller::PlatformCaller;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/v1/admin/tenants", get(tenants::list).post(tenants::create))
        .route("/v1/admin/tenants/{id}", get(tenants::get).patch(tenants::change).delete(tenants::delete))
        .route("/v1/admin/tenants/{id}/suspend", post(tenants::suspend))
        .route("/v1/admin/tenants/{id}/resume", post(tenants::resume))
        .route("/v1/admin/search-paths", get(search_paths::list))
        .route("/v1/admin/settings", get(settings::get).put(settings::put))
        .route("/v1/admin/settings/history", get(settings::history))
}

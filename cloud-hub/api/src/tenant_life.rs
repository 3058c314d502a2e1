//! The life of tenants: made with a first key, listed, suspended, resumed. One implementation for both doors to it, the control socket
//! (`control::tenants`) and the network (`admin::tenants`).
//!
//! Deliberately absent: what is agreed upon (`agreements`), and the end (`deletion`).

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::Instrument as _;
use utoipa::ToSchema;
use uuid::Uuid;
use wire_contract::Code;

use super::api_keys::CreatedView;
use super::body::{Checks, Fields};
use super::deletion::DeletionView;
use super::openapi::{texts, words};
use super::problem::ApiError;
use super::sites::MAX_NAME;
use super::state::Api;
use super::tenants::TenantView;
use super::{agreements, deletion, tenants};
use hub_domain::ids::TenantId;
use hub_domain::permission::{Grant, Role};
use hub_domain::tenant::Tier;
use hub_keys::WantedApiKey;
use hub_store::{audit, tenants as store_tenants};

/// A tenant to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewTenant {
    #[schema(value_type = texts::Name)]
    name: String,
    /// Enterprise without it.
    #[serde(default)]
    #[schema(value_type = Option<words::Tier>)]
    tier: Option<String>,
}

impl Fields for NewTenant {
    const KNOWN: &'static [&'static str] = &["name", "tier"];
    const REQUIRED: &'static [&'static str] = &["name"];
}

/// A tenant that was made, and its first key.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CreatedTenant)]
pub(super) struct MadeView {
    tenant: MadeTenant,
    /// An owner's.
    api_key: CreatedView,
}

#[derive(Debug, Serialize, ToSchema)]
struct MadeTenant {
    id: Uuid,
    name: String,
    #[schema(value_type = words::Tier)]
    tier: &'static str,
}

/// A tenant, or how far its end is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = TenantOrDeletion)]
pub(super) enum StandingView {
    Tenant(TenantView),
    Deletion(DeletionView),
}

/// Makes a tenant with its first key, whose secret is in the answer and nowhere else.
pub(super) async fn make(api: &Arc<Api>, new: NewTenant, actor: String) -> Result<MadeView, ApiError> {
    Checks::default().text("/name", &new.name, MAX_NAME).done()?;
    let tier = new.tier.as_deref().map_or(Ok(Tier::Enterprise), agreements::tier)?;
    let api = Arc::clone(api);
    // A task of its own: whoever goes away must not leave a tenant without a key.
    let made = tokio::spawn(
        async move {
            let tenant = api.custody.create_tenant(&new.name, tier, &actor).await?;
            let first = WantedApiKey::of("first key", Grant::all_of(Role::Owner));
            let key = api.custody.create_api_key(tenant, first, &actor).await?;
            let tenant = MadeTenant { id: tenant.0, name: new.name, tier: tier.as_str() };
            Ok(MadeView { tenant, api_key: CreatedView::of(&key) })
        }
        .in_current_span(),
    );
    made.await.map_err(|error| ApiError::internal(&error))?
}

/// A tenant, or how far its end is.
pub(super) async fn show(api: &Api, tenant: TenantId) -> Result<StandingView, ApiError> {
    if deletion::has_begun(api, tenant).await? {
        return Ok(StandingView::Deletion(deletion::show(api, tenant).await?));
    }
    Ok(StandingView::Tenant(tenants::show(api, tenant).await?))
}

/// The same for each of these, but for those that went meanwhile.
pub(super) async fn show_all(api: &Api, ids: Vec<TenantId>) -> Result<Vec<StandingView>, ApiError> {
    let mut all = Vec::with_capacity(ids.len());
    for tenant in ids {
        match show(api, tenant).await {
            Ok(tenant) => all.push(tenant),
            Err(error) if error.code() == Code::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// The tenant, if there is one: an unknown id must not look like a tenant without devices.
pub(super) async fn existing(api: &Api, tenant: Uuid) -> Result<TenantId, ApiError> {
    let tenant = TenantId(tenant);
    if deletion::has_begun(api, tenant).await? {
        let detail = "this tenant is being deleted, or was: look at it to see how far that is";
        return Err(ApiError::because(Code::Conflict, detail));
    }
    api.db.tenant(tenant, |tx| Box::pin(store_tenants::get(tx))).await?;
    Ok(tenant)
}

/// Changes what was agreed upon with a tenant.
pub(super) async fn agree(
    api: &Api,
    tenant: Uuid,
    changes: &agreements::Changes,
    actor: String,
) -> Result<TenantView, ApiError> {
    let tenant = existing(api, tenant).await?;
    agreements::change(api, tenant, changes, actor).await?;
    tenants::show(api, tenant).await
}

/// Refuses the tenant's keys from now on. Doors go on as they were: nobody is locked in or out over a bill.
pub(super) async fn suspend(api: &Api, tenant: Uuid, actor: String) -> Result<TenantView, ApiError> {
    serve(api, tenant, false, actor).await
}

/// Lets them in again.
pub(super) async fn resume(api: &Api, tenant: Uuid, actor: String) -> Result<TenantView, ApiError> {
    serve(api, tenant, true, actor).await
}

async fn serve(api: &Api, tenant: Uuid, serve: bool, actor: String) -> Result<TenantView, ApiError> {
    let tenant = existing(api, tenant).await?;
    let since = (!serve).then(|| api.clock.now());
    let action = if serve { audit::Action::TenantResume } else { audit::Action::TenantSuspend };
    api.db
        .tenant(tenant, move |tx| {
            Box::pin(async move {
                if store_tenants::suspend(tx, since).await? {
                    let (actor, detail) = (actor.as_str(), json!({}));
                    let object_id = Some(tenant.0);
                    let entry = audit::Entry { actor, action, object_kind: "tenant", object_id, detail };
                    audit::write(tx, entry).await?;
                }
                Ok::<_, ApiError>(())
            })
        })
        .await?;
    api.custody.forget_keys(tenant);
    tenants::show(api, tenant).await
}

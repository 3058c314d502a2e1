//! The logs of galleries, for the operator of the machine: how long each is, and shortened now.

use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::problem::ApiError;
use super::state::Api;
use hub_domain::compaction::LogSize;
use hub_domain::ids::{GalleryId, TenantId};
use hub_store::audit;
use hub_store::galleries::{self, compaction};

/// A gallery's log.
#[derive(Debug, Serialize)]
pub(super) struct LogView {
    gallery: Uuid,
    site_id: Uuid,
    epoch: u32,
    version: u64,
    compacted_to: u64,
    live: u64,
    records: u64,
    buried: u64,
    snapshots: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    removed: Option<u64>,
}

/// Every gallery of a tenant.
pub(super) async fn list(api: &Api, tenant: TenantId) -> Result<Vec<LogView>, ApiError> {
    api.db
        .tenant(tenant, |tx| {
            Box::pin(async move {
                let mut views = Vec::new();
                for id in galleries::of_sites(tx, None).await? {
                    let site_id = galleries::get(tx, id).await?.site_id.0;
                    views.push(view(compaction::size(tx, id).await?, site_id, None));
                }
                Ok::<_, ApiError>(views)
            })
        })
        .await
}

/// Compacts one gallery of a tenant, or all of them, as far as the settings allow.
pub(super) async fn compact(
    api: &Api,
    tenant: TenantId,
    only: Option<GalleryId>,
    actor: &'static str,
) -> Result<Vec<LogView>, ApiError> {
    let all = api.db.tenant(tenant, |tx| Box::pin(galleries::of_sites(tx, None))).await?;
    if let Some(missing) = only.filter(|only| !all.contains(only)) {
        return Err(hub_store::StoreError::NotFound { what: "gallery", id: missing.0 }.into());
    }
    let mut views = Vec::new();
    for id in all.into_iter().filter(|id| only.is_none_or(|only| only == *id)) {
        let mut removed = 0;
        loop {
            let keep = api.settings.keep.at(api.clock.now());
            let done = api.db.tenant(tenant, move |tx| Box::pin(compaction::compact(tx, id, keep))).await?;
            removed += done.records;
            if !done.more {
                break;
            }
        }
        let found = api.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                let entry = audit::Entry {
                    actor,
                    action: audit::Action::GalleryCompact,
                    object_kind: "gallery",
                    object_id: Some(id.0),
                    detail: json!({ "records": removed }),
                };
                audit::write(tx, entry).await?;
                Ok::<_, ApiError>((compaction::size(tx, id).await?, galleries::get(tx, id).await?.site_id.0))
            })
        });
        let (size, site) = found.await?;
        views.push(view(size, site, Some(removed)));
    }
    Ok(views)
}

fn view(size: LogSize, site_id: Uuid, removed: Option<u64>) -> LogView {
    let LogSize { gallery, epoch, version, compacted_to, live, records, buried, snapshots } = size;
    LogView { gallery: gallery.0, site_id, epoch, version, compacted_to, live, records, buried, snapshots, removed }
}

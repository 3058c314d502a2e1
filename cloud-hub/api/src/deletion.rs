//! The end of a tenant, for whoever administers the platform: what would go, the order itself, and how far it is.
//!
//! In: a tenant and, for the order, its name once more. Out: counts by table, a state, in the end the signed receipt. What is
//! outside the database hears of it here: the broker's lists, live sessions, streams. Deliberately absent: the removal of rows (`jobs`).

use std::sync::Arc;

use futures::stream::StreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;
use wire_contract::{Code, Timestamp};

use super::body::Fields;
use super::openapi::{wire, words};
use super::problem::ApiError;
use super::state::Api;
use hub_domain::erasure::Receipt;
use hub_domain::ids::TenantId;
use hub_keys::NotDeleted;
use hub_store::erasure::{self, Standing};
use hub_store::tenants;

/// Sessions that are ended at the same time; each is a connection to the broker.
const SESSIONS_AT_ONCE: usize = 8;

/// The order.
#[derive(Debug, Deserialize)]
pub(super) struct Order {
    /// The tenant's name.
    pub(super) confirm: String,
}

impl Fields for Order {
    const KNOWN: &'static [&'static str] = &["confirm"];
    const REQUIRED: &'static [&'static str] = &["confirm"];
}

/// How far the end of a tenant is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TenantDeletion)]
pub(super) struct DeletionView {
    id: Uuid,
    #[schema(value_type = words::DeletionState)]
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// When it was ordered.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = wire::Timestamp)]
    began_at: Option<Timestamp>,
    /// What it waits for, if nothing but that is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    waits_for: Option<&'static str>,
    /// Rows that would go, or are left to go.
    rows_left: u64,
    /// The same by table.
    rows: Vec<Rows>,
    /// What stays of it, signed by the hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    receipt: Option<Value>,
}

/// Rows of one table.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RowsOfTable)]
struct Rows {
    table: String,
    rows: u64,
}

/// What would go, or is left to go, of a tenant; or its receipt.
pub(super) async fn show(api: &Api, tenant: TenantId) -> Result<DeletionView, ApiError> {
    let read = api.db.tenant(tenant, |tx| {
        Box::pin(async move {
            let standing = erasure::standing(tx).await?;
            if let Some(Standing { receipt: Some(receipt), .. }) = &standing {
                return Ok(of_receipt(receipt));
            }
            let found = tenants::get(tx).await?;
            let rows: Vec<Rows> =
                erasure::count(tx).await?.into_iter().map(|(table, rows)| Rows { table, rows }).collect();
            let audit_alone = rows.iter().all(|rows| erasure::STAYS_FOR_THE_AUDIT.contains(&rows.table.as_str()));
            let waits = standing.as_ref().is_some_and(|standing| !standing.closed) && audit_alone;
            Ok::<_, ApiError>(DeletionView {
                id: found.id.0,
                state: match (&standing, found.suspended_at) {
                    (Some(_), _) => "deleting",
                    (None, Some(_)) => "suspended",
                    (None, None) => "active",
                },
                name: Some(found.name),
                began_at: standing.map(|standing| standing.began_at.into()),
                waits_for: waits.then_some("the last head of its audit to be outside the database, at most a minute"),
                rows_left: rows.iter().map(|rows| rows.rows).sum(),
                rows,
                receipt: None,
            })
        })
    });
    read.await
}

fn of_receipt(receipt: &Receipt) -> DeletionView {
    let erased = &receipt.erased;
    let head = erased
        .head
        .map(|head| json!({ "number": head.number, "position": head.position, "hash": hex::encode(head.hash) }));
    DeletionView {
        id: erased.tenant.0,
        state: "erased",
        name: None,
        began_at: Some(erased.began_at.into()),
        waits_for: None,
        rows_left: 0,
        rows: Vec::new(),
        receipt: Some(json!({
            "finished_at": Timestamp::from(erased.finished_at),
            "person_keys_destroyed": erased.person_keys,
            "rows_removed": erased.removed,
            "last_audit_head": head,
            "key_id": receipt.key_id,
            "signature": hex::encode(receipt.signature),
        })),
    }
}

/// Whether a tenant is being deleted or was: then nothing else is to be had of it.
pub(super) async fn has_begun(api: &Api, tenant: TenantId) -> Result<bool, ApiError> {
    Ok(api.db.tenant(tenant, |tx| Box::pin(erasure::standing(tx))).await?.is_some())
}

/// Ends a tenant, and says how far that is. When this returns nothing of it can be read any more, and its rows are on the job's list.
pub(super) async fn order(
    api: &Arc<Api>,
    tenant: TenantId,
    order: Order,
    actor: String,
) -> Result<DeletionView, ApiError> {
    let api = Arc::clone(api);
    // A task of its own: a terminal that goes away must not leave devices of a tenant without keys at the broker.
    let done = tokio::spawn(async move {
        let ended = api.custody.delete_tenant(tenant, &order.confirm, &actor).await?;
        api.galleries.forget(tenant);
        api.broker.refresh().await.map_err(|error| ApiError::internal(&error))?;
        api.broker.refresh_consumers().await.map_err(|error| ApiError::internal(&error))?;
        let (broker, devices, consumers) = (&api.broker, &ended.devices, &ended.consumers);
        futures::stream::iter(devices)
            .for_each_concurrent(SESSIONS_AT_ONCE, |device| broker.end_session(*device))
            .await;
        futures::stream::iter(consumers)
            .for_each_concurrent(SESSIONS_AT_ONCE, |consumer| broker.end_consumer(*consumer))
            .await;
        // Readers of the feed ask whether their key still opens it, and end.
        api.feed.wake(Some(tenant));
        tracing::warn!(
            event = "tenant_deletion_began", client_id = %tenant, devices = devices.len(), consumers = consumers.len(),
            "every key of a tenant was destroyed; its rows go now"
        );
        show(&api, tenant).await
    });
    done.await.map_err(|error| ApiError::internal(&error))?
}

impl From<NotDeleted> for ApiError {
    fn from(error: NotDeleted) -> Self {
        match error {
            NotDeleted::NotSuspended => Self::because(
                Code::Conflict,
                "only a suspended tenant is deleted: suspend it first, and see whether anybody misses it",
            ),
            NotDeleted::OtherName => {
                Self::field("/confirm", Code::InvalidField, "this is not the tenant's name: look at it to see that")
            }
            NotDeleted::Keys(error) => error.into(),
        }
    }
}

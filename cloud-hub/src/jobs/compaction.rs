//! Compacts the logs of galleries: what no live device needs any more goes.
//!
//! In: the rule. Out: shorter logs, and a line on the log for each that became shorter. May be cut off anywhere: each step is a
//! transaction, and the next round goes on.

use crate::clock::Clock;
use crate::domain::compaction::{Compacted, KeepRule};
use crate::domain::ids::{GalleryId, TenantId};
use crate::store::galleries::{self, compaction};
use crate::store::{Database, StoreError};

/// Compacts every gallery of a tenant as far as the rule allows.
pub(super) async fn compact_tenant(
    db: &Database,
    clock: &Clock,
    rule: KeepRule,
    tenant: TenantId,
) -> Result<(), StoreError> {
    let all = db.tenant(tenant, |tx| Box::pin(galleries::of_sites(tx, None))).await?;
    for gallery in all {
        let done = compact_gallery(db, clock, rule, tenant, gallery).await?;
        if done.records > 0 {
            tracing::info!(event = "gallery_compacted", client_id = %tenant, %gallery, compacted_to = done.compacted_to, records = done.records, tombstones = done.tombstones, "what no device needs any more is out of a gallery's log");
        }
    }
    Ok(())
}

async fn compact_gallery(
    db: &Database,
    clock: &Clock,
    rule: KeepRule,
    tenant: TenantId,
    gallery: GalleryId,
) -> Result<Compacted, StoreError> {
    let mut sum = Compacted::default();
    loop {
        let keep = rule.at(clock.now());
        let done = db.tenant(tenant, move |tx| Box::pin(compaction::compact(tx, gallery, keep))).await?;
        sum.compacted_to = done.compacted_to;
        sum.records += done.records;
        sum.tombstones += done.tombstones;
        if !done.more {
            return Ok(sum);
        }
    }
}

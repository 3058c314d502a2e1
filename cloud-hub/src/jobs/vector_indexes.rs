//! Makes the indexes over searchable vectors that a scan would take too long for, and drops those that are needed no more.
//!
//! In: how many templates each tenant has in each space. Out: one index for each that has more than the limit. One hub at a time does
//! it; one that is cut off leaves an invalid index, which whoever comes next replaces. A task of its own: an index takes minutes.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::chain::chain;
use crate::domain::ids::TenantId;
use crate::store::vector_indexes::Builder;
use crate::store::vectors::{self, Holding, Index, index_name};
use crate::store::{Database, StoreError, routes};

/// How often indexes are looked after. Galleries grow slowly, and are searched without an index too.
const LOOK_EVERY: Duration = Duration::from_secs(300);

/// The job and what it needs.
#[derive(Clone)]
pub struct VectorIndexes {
    /// The database.
    pub db: Database,
    /// How the schema's owner connects to it.
    pub owner: PgConnectOptions,
    /// An index is made above so many templates.
    pub above: usize,
}

impl VectorIndexes {
    /// Above so many templates, unless somebody wants it otherwise: a scan of 100,000 vectors takes a tenth of a second of one
    /// processor (docs/decisions/0026), which is what a search may take, and it misses nobody.
    pub const ABOVE: usize = 100_000;

    /// Works until `stop`. The first look is at once.
    pub async fn run(self, stop: CancellationToken) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = looks.tick() => {}
            }
            // Cut off anywhere: the server finishes what it was told, or leaves what the next look replaces.
            tokio::select! {
                () = stop.cancelled() => return,
                looked = self.round() => {
                    if let Err(error) = looked {
                        tracing::warn!(event = "job_failed", job = "vector_indexes", error = %chain(&error), "a job failed and is tried again");
                    }
                }
            }
        }
    }

    /// Looks once, and makes and drops what is to be; nothing while another hub is at it.
    pub async fn round(&self) -> Result<(), StoreError> {
        let Some(mut builder) = Builder::of(&self.owner).await? else { return Ok(()) };
        let (mut there, mut missing) = (BTreeMap::from_iter(builder.indexes().await?), Vec::new());
        for tenant in routes::tenants(&self.db).await? {
            let holdings = self.db.tenant(tenant, |tx| Box::pin(vectors::holdings(tx))).await?;
            for Holding { space_id, templates, .. } in holdings {
                let name = index_name(tenant, &space_id);
                let index = there.get(&name).copied().unwrap_or(Index::None);
                match index {
                    _ if !self.is_wanted(templates, index) => {}
                    Index::Valid => drop(there.remove(&name)),
                    Index::None | Index::Invalid => missing.push((tenant, space_id, templates)),
                }
            }
        }
        // What is left belongs to nobody any more, or to too few, or is invalid: whoever made it is gone, and their lock with them.
        for index in there.into_keys() {
            builder.drop_index(&index).await?;
            tracing::info!(event = "vector_index_dropped", index, "an index over searchable vectors was dropped");
        }
        for (tenant, space_id, templates) in missing {
            // One that cannot be made is no reason not to make the others.
            if let Err(error) = make(&mut builder, tenant, &space_id, templates).await {
                tracing::warn!(event = "job_failed", job = "vector_indexes", client_id = %tenant, error = %chain(&error), "a job failed for a tenant and is tried again");
            }
        }
        Ok(())
    }

    /// One that is there stays until a fifth of the templates are gone, so that it is not made and dropped with every person.
    fn is_wanted(&self, templates: usize, index: Index) -> bool {
        templates > if index == Index::Valid { self.above / 5 * 4 } else { self.above }
    }
}

async fn make(builder: &mut Builder, tenant: TenantId, space_id: &str, templates: usize) -> Result<(), StoreError> {
    let began = Instant::now();
    builder.make(tenant, space_id, templates).await?;
    tracing::info!(
        event = "vector_index_made", client_id = %tenant, index = index_name(tenant, space_id), templates,
        seconds = began.elapsed().as_secs(), "an index over searchable vectors was made"
    );
    Ok(())
}

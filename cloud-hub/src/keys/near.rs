//! What a search by vectors needs: how much a tenant has, who is near a probe, and the templates of whoever may be it in the clear.

use std::sync::Arc;

use face_core::{Embedding, Space};
use uuid::Uuid;

use super::unsealed::{Row, open_anchor_row, open_row};
use super::{Custody, KeysError};
use crate::domain::ids::{PersonId, TemplateId, TenantId};
use crate::store::vectors::{self, Among, Holding, Index, Near, Searchable};
use crate::store::{anchors, routes, template_changes, templates};

/// How vectors were searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// All of them were looked at.
    Scan,
    /// Those that the index leads to.
    Index,
}

impl Custody {
    /// Every tenant that is in use.
    pub async fn tenants(&self) -> Result<Vec<TenantId>, KeysError> {
        Ok(routes::tenants(&self.db).await?)
    }

    /// What the tenant has in a space, and how often that had changed at least.
    pub async fn holding(&self, tenant: TenantId, space_id: &str) -> Result<(i64, Holding), KeysError> {
        let space_id = space_id.to_owned();
        let read = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                let stamp = template_changes::stamp(tx).await?;
                Ok::<_, KeysError>((stamp, vectors::holding(tx, &space_id).await?))
            })
        });
        read.await
    }

    /// What the tenant has in every space, and how its vectors can be searched.
    pub async fn holdings(&self, tenant: TenantId) -> Result<Vec<(Holding, Searchable)>, KeysError> {
        let read = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                let mut found = Vec::new();
                for holding in vectors::holdings(tx).await? {
                    let searchable = vectors::searchable(tx, &holding.space_id).await?;
                    found.push((holding, searchable));
                }
                Ok::<_, KeysError>(found)
            })
        });
        read.await
    }

    /// The `k` templates of a space that are nearest to a probe by their vectors, best first, among `only` those people if they are
    /// named; and how they were searched for. The index is asked if there is one and `by_index` says so. None while vectors are missing.
    pub async fn near(
        &self,
        tenant: TenantId,
        space: &Space,
        probe: &Embedding,
        (only, by_index): (Option<Arc<Vec<Uuid>>>, bool),
        k: u32,
    ) -> Result<Option<(Way, Vec<Near>)>, KeysError> {
        let (keyring, id, probe) = (Arc::clone(&self.keyring), space.id.clone(), probe.clone());
        let searched = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                let searchable = vectors::searchable(tx, &id).await?;
                if !searchable.whole {
                    return Ok::<_, KeysError>(None);
                }
                let rotation = keyring.rotation(tx, &id).await?;
                let rotated = rotation.apply(probe.as_slice());
                let (way, found) = if by_index && searchable.index == Index::Valid {
                    (Way::Index, vectors::nearest_by_index(tx, &id, &rotated, k).await?)
                } else {
                    let among = Among { except: None, only: only.as_deref().map(Vec::as_slice) };
                    (Way::Scan, vectors::nearest(tx, &id, &rotated, among, k).await?)
                };
                Ok(Some((rotation, way, found)))
            })
        });
        Ok(searched.await?.map(|(rotation, way, found)| {
            self.keyring.remember_rotation(tenant, &space.id, &rotation);
            (way, found)
        }))
    }

    /// The templates with these ids, as far as there are still such.
    pub async fn templates_with(
        &self,
        tenant: TenantId,
        space: &Space,
        ids: Vec<TemplateId>,
    ) -> Result<Vec<Row>, KeysError> {
        let keyring = Arc::clone(&self.keyring);
        let read = self.db.tenant(tenant, move |tx| {
            Box::pin(
                async move { Ok::<_, KeysError>((keyring.tenant(tx).await?, templates::with_ids(tx, &ids).await?)) },
            )
        });
        let (keys, rows) = read.await?;
        self.open_all(&keys, space, rows, open_row).await
    }

    /// One person's templates in a space.
    pub async fn templates_of(&self, tenant: TenantId, space: &Space, person: PersonId) -> Result<Vec<Row>, KeysError> {
        let keyring = Arc::clone(&self.keyring);
        let read = self.db.tenant(tenant, move |tx| {
            Box::pin(
                async move { Ok::<_, KeysError>((keyring.tenant(tx).await?, templates::of_person(tx, person).await?)) },
            )
        });
        let (keys, mut rows) = read.await?;
        rows.retain(|row| row.space_id == space.id);
        self.open_all(&keys, space, rows, open_row).await
    }

    /// The negative anchors of these people in a space.
    pub async fn anchors_of(
        &self,
        tenant: TenantId,
        space: &Space,
        people: Vec<PersonId>,
    ) -> Result<Vec<Row>, KeysError> {
        let keyring = Arc::clone(&self.keyring);
        let read = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                let mut rows = Vec::new();
                for person in people {
                    rows.extend(anchors::of_person(tx, person).await?);
                }
                Ok::<_, KeysError>((keyring.tenant(tx).await?, rows))
            })
        });
        let (keys, mut rows) = read.await?;
        rows.retain(|row| row.space_id == space.id);
        self.open_all(&keys, space, rows, open_anchor_row).await
    }
}

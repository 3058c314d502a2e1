//! What a search by vectors needs: how much a tenant has, who is near a probe, and the templates of whoever may be it in the clear.

use std::collections::HashSet;
use std::sync::Arc;

use face_core::{Embedding, Space};
use uuid::Uuid;

use super::unsealed::{Row, open_anchor_row, open_row};
use super::{Custody, Keyring, KeysError};
use hub_domain::ids::{PersonId, TemplateId, TenantId};
use hub_domain::rotation::{Rotations, Seeded};
use hub_store::vectors::{self, Among, Holding, Index, Near, Searchable};
use hub_store::{TenantTx, anchors, template_changes, templates};

/// How vectors were searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// All of them were looked at.
    Scan,
    /// Those that the index leads to.
    Index,
}

impl Way {
    /// Of a search among everybody. While one seed takes another's place the index has vectors of both, which cannot be compared.
    fn of(searchable: Searchable, rotations: &Rotations) -> Self {
        match (searchable.index, rotations.all()) {
            (Index::Valid, [_]) => Self::Index,
            _ => Self::Scan,
        }
    }
}

impl Custody {
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

    /// What the tenant has in every space, how its vectors can be searched, and how they are when somebody is looked for among all.
    pub async fn holdings(&self, tenant: TenantId) -> Result<Vec<(Holding, Searchable, Way)>, KeysError> {
        let keyring = Arc::clone(&self.keyring);
        let read = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                let mut found = Vec::new();
                for holding in vectors::holdings(tx).await? {
                    let searchable = vectors::searchable(tx, &holding.space_id).await?;
                    let way = Way::of(searchable, &*keyring.rotations(tx, &holding.space_id).await?);
                    found.push((holding, searchable, way));
                }
                Ok::<_, KeysError>(found)
            })
        });
        read.await
    }

    /// The `k` templates of a space that are nearest to a probe by their vectors, best first, among `only` those people if they are
    /// named; and how they were searched for. The index is asked if there is one and `by_index` says so.
    ///
    /// # Errors
    /// [`KeysError::VectorsMissing`] while there are templates without a vector.
    pub async fn near(
        &self,
        tenant: TenantId,
        space: &Space,
        probe: &Embedding,
        (only, by_index): (Option<Arc<Vec<Uuid>>>, bool),
        k: u32,
    ) -> Result<(Way, Vec<Near>), KeysError> {
        let (keyring, id, probe) = (Arc::clone(&self.keyring), space.id.clone(), probe.clone());
        let searched = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                let searchable = vectors::searchable(tx, &id).await?;
                if !searchable.whole {
                    return Err(KeysError::VectorsMissing);
                }
                let rotations = keyring.rotations(tx, &id).await?;
                if by_index && Way::of(searchable, &rotations) == Way::Index {
                    let rotated = rotations.writing().rotation.apply(probe.as_slice());
                    return Ok((Way::Index, vectors::nearest_by_index(tx, &id, &rotated, k).await?));
                }
                let among = Among { except: None, only: only.as_deref().map(Vec::as_slice) };
                Ok((Way::Scan, nearest_vectors(tx, &keyring, &id, &probe, among, k).await?))
            })
        });
        searched.await
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

/// The `k` templates of a space whose vectors are nearest to a probe, by whichever seed they are rotated, best first. Exact: a scan.
pub(super) async fn nearest_vectors(
    tx: &mut TenantTx,
    keyring: &Keyring,
    space_id: &str,
    probe: &Embedding,
    among: Among<'_>,
    k: u32,
) -> Result<Vec<Near>, KeysError> {
    let (rotations, mut near) = (keyring.rotations(tx, space_id).await?, Vec::<Near>::new());
    // In this order: a vector that is rotated anew between two of these is met twice, in the other it would be met by none.
    for Seeded { version, rotation } in rotations.all() {
        let known: HashSet<TemplateId> = near.iter().map(|near| near.template).collect();
        let found = vectors::nearest(tx, space_id, (*version, &rotation.apply(probe.as_slice())), among, k).await?;
        near.extend(found.into_iter().filter(|found| !known.contains(&found.template)));
    }
    near.sort_by(|a, b| b.similarity.total_cmp(&a.similarity).then(a.template.cmp(&b.template)));
    near.truncate(usize::try_from(k).unwrap_or(usize::MAX));
    Ok(near)
}
